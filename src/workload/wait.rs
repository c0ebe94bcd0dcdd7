//! Waiting for the end, from two sources.
//!
//! ```text
//!  Docker's own answer ───────────────────────────► Exit            (the usual way, at once)
//!  connection lost ──► inspect until it answers ──┬► ended: Exit
//!                                                 └► still there: wait anew
//!  the process is gone (pidfd) ──► 2 s for Docker's answer ──► inspect, up to a minute ──► Exit
//!                                                              │ running: kill it   └──► ExitUnknown
//! ```
//!
//! The second source exists because the daemon can miss an exit (moby issue 33820): its wait would then
//! never be answered. That happens when containerd is away for more than some 15 s, the time for which a shim
//! repeats its news. A kill makes Docker ask containerd, which has the exit code still: it takes 10 s (20.10).

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::Method;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout, Instant};

use super::docker::{status_error, Docker};
use super::error::DockerError;
use super::inspect::{daemon_words, segment};
use super::process::HostProcess;
use crate::limits::{
    DOCKER_EXIT_CODE, DOCKER_INSPECT, DOCKER_LAG, DOCKER_NUDGE, DOCKER_OUT_OF_MEMORY, DOCKER_REGISTER,
};

/// Before a broken wait is asked for anew.
const BROKEN: Duration = Duration::from_millis(100);
/// How often Docker is made to look at a container whose process is gone.
const NUDGE_EVERY: Duration = Duration::from_secs(5);
const DOING: &str = "wait for the container";

/// How the container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The exit code as a shell reports it: 128 + n for signal n.
    pub code: i64,
    /// Known only when the second source had to be asked; else ask [`Docker::oom_killed`].
    pub oom_killed: Option<bool>,
}

/// A wait that Docker has registered: an exit that happens from now on is not missed.
#[derive(Debug)]
pub struct Waiting {
    docker: Docker,
    id: String,
    body: Option<Incoming>,
}

impl Docker {
    /// Asks Docker to report the next exit. To be called before `start`; returns when Docker has taken note.
    pub async fn wait(&self, id: &str) -> Result<Waiting, DockerError> {
        let body = self.register_wait(id, "next-exit").await?;
        Ok(Waiting { docker: self.clone(), id: id.to_owned(), body: Some(body) })
    }

    async fn register_wait(&self, id: &str, condition: &str) -> Result<Incoming, DockerError> {
        let path = format!("/containers/{}/wait?condition={condition}", segment(id));
        let ask = async {
            let answer = self
                .transport
                .ask(Method::POST, &path, &[])
                .await
                .map_err(|error| self.send_error(DOING, error))?;
            let status = answer.status();
            if status.is_success() {
                return Ok(answer.into_body());
            }
            let bytes = answer.into_body().collect().await.map_err(|error| self.away(error))?.to_bytes();
            Err(status_error(DOING, status.as_u16(), daemon_words(&bytes)))
        };
        timeout(DOCKER_REGISTER, ask).await.unwrap_or_else(|_| Err(self.slow(DOING, DOCKER_REGISTER)))
    }

    /// Was the container, ended by now, killed for its memory? `false` when Docker does not say within a second:
    /// no terminal update may depend on it.
    pub async fn oom_killed(&self, id: &str) -> bool {
        let inspected = self.inspect_once(id, DOCKER_OUT_OF_MEMORY).await;
        inspected.is_ok_and(|inspected| inspected.oom_killed)
    }
}

impl Waiting {
    /// The exit. `process` brings the container's init as soon as it has been inspected; dropping
    /// its sender means that there is no second source.
    pub async fn exit(mut self, process: oneshot::Receiver<Arc<HostProcess>>) -> Result<Exit, DockerError> {
        let (docker, id) = (self.docker.clone(), self.id.clone());
        tokio::select! {
            // Docker's own answer first: it is the cheaper and the better one.
            biased;
            answer = self.answer() => answer,
            () = gone(process) => {
                match timeout(DOCKER_LAG, self.answer()).await {
                    Ok(answer) => answer,
                    Err(_) => {
                        tracing::warn!("the process is gone, but Docker has not reported its exit code; inspecting the container");
                        exit_of_dead(&docker, &id).await
                    }
                }
            }
        }
    }

    /// Docker's answer to the wait, whatever number of connections it takes. Can be cancelled and called again.
    async fn answer(&mut self) -> Result<Exit, DockerError> {
        loop {
            if let Some(body) = &mut self.body {
                let answer = read_answer(body).await;
                self.body = None;
                match answer {
                    Some(code) => return Ok(Exit { code, oom_killed: None }),
                    None => {
                        tracing::warn!("lost the connection on which Docker reports the container's exit");
                        // A daemon may go on breaking it.
                        sleep(BROKEN).await;
                    }
                }
            }
            match self.docker.inspect_once(&self.id, DOCKER_INSPECT).await {
                Ok(inspected) if inspected.started && !inspected.running => {
                    let code = inspected.exit_code.ok_or(DockerError::ExitUnknown)?;
                    return Ok(Exit { code, oom_killed: Some(inspected.oom_killed) });
                }
                Ok(inspected) => {
                    // Only a container that was started can be waited for by its state alone.
                    let condition = if inspected.started { "not-running" } else { "next-exit" };
                    match self.docker.register_wait(&self.id, condition).await {
                        Ok(body) => self.body = Some(body),
                        Err(error) if error.is_passing() => sleep(Duration::from_secs(1)).await,
                        Err(error) => return Err(error),
                    }
                }
                Err(error) if error.is_passing() => sleep(Duration::from_millis(500)).await,
                Err(error) => return Err(error),
            }
        }
    }
}

/// The code, or `None` when the connection broke first.
async fn read_answer(body: &mut Incoming) -> Option<i64> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.ok()?.data_ref() {
            bytes.extend_from_slice(data);
        }
    }
    let answer: Value = serde_json::from_slice(&bytes).ok()?;
    if let Some(message) = answer.pointer("/Error/Message").and_then(Value::as_str) {
        tracing::warn!("Docker reports an error with the exit code: {message}");
    }
    answer.get("StatusCode")?.as_i64()
}

/// The container's process is dead: whatever inspect says once it does not call it running any more. Where it stays
/// so, Docker has missed the end.
async fn exit_of_dead(docker: &Docker, id: &str) -> Result<Exit, DockerError> {
    let deadline = Instant::now() + DOCKER_EXIT_CODE;
    let mut nudged = Instant::now();
    while Instant::now() < deadline {
        match docker.inspect_once(id, DOCKER_INSPECT).await {
            Ok(inspected) if inspected.started && !inspected.running => {
                let code = inspected.exit_code.ok_or(DockerError::ExitUnknown)?;
                return Ok(Exit { code, oom_killed: Some(inspected.oom_killed) });
            }
            Err(error) if !error.is_passing() => return Err(error),
            Ok(inspected) if inspected.running && nudged.elapsed() > NUDGE_EVERY => {
                if let Ok(Err(error)) = timeout(DOCKER_NUDGE, docker.kill(id)).await {
                    tracing::warn!(
                        "Docker has missed the task's end: {}; inspecting the container again",
                        crate::error::chain(&error)
                    );
                }
                nudged = Instant::now();
            }
            _ => sleep(Duration::from_secs(1)).await,
        }
    }
    Err(DockerError::ExitUnknown)
}

/// Returns when the process is gone; never, when no pid comes.
async fn gone(process: oneshot::Receiver<Arc<HostProcess>>) {
    match process.await {
        Ok(process) => process.gone().await,
        Err(_) => std::future::pending().await,
    }
}
