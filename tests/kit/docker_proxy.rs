//! The Docker API proxy before a world's dockerd, and the docker command as a client.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use calico_mesos::rig::daemons::free_port;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use super::wait::eventually;
use super::world::{World, CLI};

/// One that runs, or has run.
pub struct DockerProxy {
    pub socket: PathBuf,
    /// On loopback.
    pub port: u16,
    config: PathBuf,
    log: PathBuf,
    process: Option<Child>,
}

impl DockerProxy {
    /// Writes into the world's configuration where the proxy listens, where Docker is and how long it holds what has
    /// ended. It does not run yet.
    pub fn configure(world: &World, linger: Duration) -> Self {
        let (socket, port) = (world.stack.dir.join("proxy.sock"), free_port().unwrap());
        world.configure("proxy.listen", &format!("\"127.0.0.1:{port}\""));
        world.configure("proxy.socket", &format!("\"{}\"", socket.display()));
        world.configure("proxy.docker", &format!("\"unix://{}\"", world.stack.docker.socket.display()));
        world.configure("proxy.linger", &format!("\"{}ms\"", linger.as_millis()));
        let (config, log) = (world.stack.config.clone(), world.stack.dir.join("proxy.log"));
        Self { socket, port, config, log, process: None }
    }

    /// Starts it, and waits until it answers.
    pub async fn start(&mut self) {
        self.start_program(Path::new(CLI)).await;
    }

    /// The same with a program of another release.
    pub async fn start_program(&mut self, program: &Path) {
        assert!(self.process.is_none(), "it runs");
        let log = std::fs::File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = Command::new(program);
        command.arg("--config").arg(&self.config).arg("proxy");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        eventually("the proxy answers", async || match self.docker(&["version"]).status.success() {
            true => Ok(()),
            false => Err(self.log()),
        })
        .await;
    }

    /// Ends it by a signal.
    pub fn end(&mut self, signal: Signal) {
        let mut process = self.process.take().expect("it does not run");
        kill(Pid::from_raw(i32::try_from(process.id()).unwrap()), signal).unwrap();
        process.wait().unwrap();
    }

    /// SIGKILL, if it runs.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts another one where it has died.
    pub async fn revive(&mut self) {
        let is_dead = |process: &mut Child| !matches!(process.try_wait(), Ok(None));
        if self.process.as_mut().is_none_or(is_dead) {
            self.kill();
            self.start().await;
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it does not run").id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The docker command through it.
    pub fn docker(&self, arguments: &[&str]) -> Output {
        docker_at(&self.socket, arguments).output().unwrap()
    }
}

impl Drop for DockerProxy {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The docker command at this socket.
pub fn docker_at(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.arg("-H").arg(format!("unix://{}", socket.display())).args(arguments).stdin(Stdio::null());
    command
}
