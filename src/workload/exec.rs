//! A command beside the workload, in its container: `docker exec`.
//!
//! ```text
//!  create ─► start ─► output until its end ─► inspect: exit code
//!              │
//!              └─ dropped ─► inspect: pid ─► the process and its descendants are killed
//! ```
//!
//! Docker cannot end an exec; it only reports the pid as the host sees it.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use futures_util::StreamExt;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use tokio::runtime::Handle;
use tokio::time::{sleep, Instant};

use super::docker::Docker;
use super::error::DockerError;
use super::logs::Sink;
use super::process::HostProcess;
use super::session;
use crate::limits::DOCKER_CALL;
use crate::logging;

/// Between two questions about the same exec.
const PAUSE: Duration = Duration::from_millis(50);
/// How long an abandoned exec is looked for, to kill it.
const HUNT: Duration = Duration::from_secs(30);

/// How long what the command has started may take to die.
const DYING: Duration = Duration::from_secs(5);

/// A command that Docker was asked to run. Dropped before its end, it is killed in the background.
#[derive(Debug)]
pub struct Running {
    docker: Docker,
    container: String,
    id: String,
    output: Option<StartExecResults>,
    over: bool,
}

impl Docker {
    /// Starts `argv` in the running container, with these variables on top of the container's own.
    pub async fn exec(
        &self,
        container: &str,
        argv: &[String],
        environment: &BTreeMap<String, String>,
    ) -> Result<Running, DockerError> {
        let options = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(argv.to_vec()),
            env: Some(environment.iter().map(|(name, value)| format!("{name}={value}")).collect()),
            ..Default::default()
        };
        let call = self.api.create_exec(container, options);
        let id = self.limited("prepare a command in the container", DOCKER_CALL, call).await?.id;
        // From here on it may run, whether the answer comes or not.
        let mut running =
            Running { docker: self.clone(), container: container.to_owned(), id, output: None, over: false };
        let call = self.api.start_exec(&running.id, None::<StartExecOptions>);
        match self.limited("start a command in the container", DOCKER_CALL, call).await {
            Ok(output) => running.output = Some(output),
            Err(error) => {
                running.over = matches!(error, DockerError::Daemon { status: Some(_), .. });
                return Err(error);
            }
        }
        Ok(running)
    }

    async fn look_at_exec(&self, id: &str) -> Result<Seen, DockerError> {
        let look = || self.api.inspect_exec(id);
        let seen = self.repeated("inspect a command in the container", DOCKER_CALL, look).await?;
        Ok(Seen {
            running: seen.running.unwrap_or_default(),
            code: seen.exit_code,
            pid: seen.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0),
        })
    }
}

struct Seen {
    running: bool,
    /// There is none before its end.
    code: Option<i64>,
    pid: Option<i32>,
}

impl Running {
    /// Its exit code. The first `most` bytes that it prints go into the sink.
    pub async fn exit(mut self, sink: Option<Sink>, most: usize) -> Result<i64, DockerError> {
        if let Some(StartExecResults::Attached { output, .. }) = self.output.take() {
            pass_on(output, sink, most).await;
        }
        loop {
            match self.docker.look_at_exec(&self.id).await? {
                Seen { running: false, code: Some(code), .. } => {
                    self.over = true;
                    return Ok(code);
                }
                // Docker writes the code down a moment after the output's end.
                _ => sleep(PAUSE).await,
            }
        }
    }
}

async fn pass_on(
    mut output: impl futures_util::Stream<Item = Result<LogOutput, bollard::errors::Error>> + Unpin,
    mut sink: Option<Sink>,
    most: usize,
) {
    let mut room = most;
    // A stream that breaks has delivered what it could: the exit code decides.
    while let Some(Ok(chunk)) = output.next().await {
        let chunk = chunk.into_bytes();
        let Some(sink) = &mut sink else { continue };
        let fits = room.min(chunk.len());
        if fits > 0 {
            sink.write(&chunk[..fits]).await;
        }
        if fits < chunk.len() && room > 0 {
            sink.write(b"\n(the rest of the health check's output is left out)\n").await;
        }
        room -= fits;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        // Without a runtime this program is at its end, and so is the container.
        if let Ok(runtime) = Handle::try_current() {
            let (docker, container, id) = (self.docker.clone(), self.container.clone(), self.id.clone());
            runtime.spawn(logging::in_task(async move { hunt(&docker, &container, &id).await }));
        }
    }
}

/// Kills what the exec has started, as soon as Docker has its pid.
async fn hunt(docker: &Docker, container: &str, id: &str) {
    let begun = Instant::now();
    while begun.elapsed() < HUNT {
        match docker.look_at_exec(id).await {
            Ok(Seen { running: false, code: Some(_), .. }) => return,
            Ok(Seen { running: true, pid: Some(pid), .. })
                if HostProcess::of_container(pid, container).is_none() =>
            {
                tracing::warn!("a command left in container {container} cannot be killed: pid {pid} is not visible from here");
                return;
            }
            Ok(Seen { running: true, pid: Some(pid), .. }) => kill_all(pid).await,
            // Not started yet, if it ever will be.
            Ok(_) => {}
            Err(error) if error.is_passing() => {}
            // Container and exec are gone.
            Err(_) => return,
        }
        sleep(PAUSE).await;
    }
}

/// Stopped, a process gets no more children, and alive it shows which are its own.
async fn kill_all(leader: i32) {
    let send = |signal| {
        // It may be gone by itself, which is what is wanted.
        let _ = kill(Pid::from_raw(leader), signal);
    };
    send(Signal::SIGSTOP);
    session::kill(leader, DYING).await;
    send(Signal::SIGKILL);
}
