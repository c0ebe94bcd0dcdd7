//! A command as the workload: one process in a session of its own, held until its network is ready.
//!
//! ```text
//!  executor                               child: this program again, as `calico-init`
//!  Blank::spawn ────────────────────────► program, without a task
//!  instruct    ─── instructions ────────► session, namespace, user, directory
//!              ◄── ready, or why not ────
//!  release     ─── go ──────────────────► exec: the command
//!              ◄── end of file, or why not
//!  refuse      ─── end of file ─────────► exit
//! ```
//!
//! The child is a program and not a fork of this process, since a forked runtime must not touch most
//! of what the way to the command needs. Its instructions come over a socket: command line and
//! environment of a process are there for others to read. The end of the executor is an end of file
//! too, so nothing that waits outlives it.
//!
//! What runs already is not tied to the executor's life by a parent-death signal: the kernel forgets
//! that one when the user changes, it would reach the first process alone, and it follows the thread
//! that spawned. The agent destroys the executor's cgroup, and a Calico namespace is emptied by the
//! cleaner that finds its journal.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{lchown, MetadataExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::accounts;
use super::init::{Answer, Instructions, Obstacle, ObstacleKind, GO, NAME};
use super::session;
use super::wait::Exit;
use crate::error::{chain, Code, Failure};

/// The program that becomes the command; the link leads to the right file even after an upgrade.
pub const OWN_PROGRAM: &str = "/proc/self/exe";
/// What the command leaves behind is killed for so long; longer only a broken disk or driver holds it.
const LEFTOVERS: Duration = Duration::from_secs(5);

/// What to run, in plain data. Nothing is inherited: no variable, no open file but the output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandSpec {
    /// The file to execute; looked for in the PATH of `environment` if it has no slash.
    pub program: String,
    /// The whole argv, the name that the program sees itself under included.
    pub arguments: Vec<String>,
    pub environment: BTreeMap<String, String>,
    /// `name`, `uid`, or either with `:group`; `None`: the executor's own.
    pub user: Option<String>,
    /// Where it starts: the sandbox.
    pub directory: PathBuf,
}

/// Where the command's standard output and error go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandOutput {
    /// To the executor's own, which the agent has opened in the sandbox.
    Inherited,
    /// Both to the executor's standard error: output that is not the task's own.
    ToErrors,
}

#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("cannot start a process for the command")]
    Start(#[source] io::Error),
    #[error("cannot encode the instructions for the command's process")]
    Instructions(#[source] serde_json::Error),
    #[error("the process that was to become the command does not answer")]
    Channel(#[source] io::Error),
    #[error("the process that was to become the command ended by itself ({0})")]
    Died(ExitStatus),
    #[error("{0}")]
    Obstacle(Obstacle),
    #[error("cannot find out how the command ended")]
    ExitUnknown(#[source] io::Error),
    #[error("cannot give the sandbox to the user {user}")]
    Directory {
        user: String,
        #[source]
        source: io::Error,
    },
}

impl CommandSpec {
    /// Gives the directory to the command's user, as an agent gives a sandbox to the task's: no other user gets into
    /// it. Only as long as it is root's: the tasks of one executor share it, and what one of them has been given is not
    /// taken away.
    pub fn give_directory(&self) -> Result<(), CommandError> {
        let Some(user) = &self.user else { return Ok(()) };
        // The process that is to become the command reports an unknown user, and what only root can do.
        let Ok(account) = accounts::find(user) else { return Ok(()) };
        let failed = |source| CommandError::Directory { user: user.clone(), source };
        let owner = fs::symlink_metadata(&self.directory).map_err(failed)?.uid();
        if account.uid == 0 || owner != 0 || !geteuid().is_root() {
            return Ok(());
        }
        lchown(&self.directory, Some(account.uid), Some(account.gid)).map_err(failed)
    }
}

impl CommandError {
    /// The failure as the framework gets to see it.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Obstacle(Obstacle { kind, text }) => match kind {
                ObstacleKind::Command => Failure::new(Code::Command, text.clone()),
                ObstacleKind::User => Failure::new(Code::User, text.clone()),
                ObstacleKind::Privilege => Failure::new(Code::Root, text.clone()),
                ObstacleKind::Host => Failure::new(Code::Host, text.clone()),
            },
            _ => Failure::new(Code::Host, chain(self)),
        }
    }
}

/// A process that has no instructions yet. Dropped, it ends.
///
/// To load the program takes milliseconds, in which other parts of a launch are made.
#[derive(Debug)]
pub struct Blank(Held);

impl Blank {
    /// `executor`: [`OWN_PROGRAM`], or the file of `calico-executor` in a process that is not.
    ///
    /// The child's end of the socket is closed here by the way out, or its end would never be seen.
    pub fn spawn(executor: &Path, output: CommandOutput) -> Result<Self, CommandError> {
        Self::spawn_with(executor, output).map_err(CommandError::Start)
    }

    fn spawn_with(executor: &Path, output: CommandOutput) -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let channel = BufReader::new(UnixStream::from_std(ours)?);
        let stdout = match output {
            CommandOutput::Inherited => Stdio::inherit(),
            CommandOutput::ToErrors => io::stderr().into(),
        };
        let mut command = Command::new(executor);
        command.arg0(NAME).env_clear().stdin(OwnedFd::from(theirs)).stdout(stdout).stderr(Stdio::inherit());
        // A future that is dropped in the middle of `release` must not leave a command to itself.
        command.kill_on_drop(true);
        let child = command.spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.expect("a process that has not been waited for has a pid");
        Ok(Self(Held { child, pid, channel }))
    }

    /// Returns when the process is in its session, in `namespace` (`None`: the executor's own), is the
    /// command's user and stands in its directory.
    pub async fn instruct(self, spec: &CommandSpec, namespace: Option<&Path>) -> Result<Held, CommandError> {
        let instructions = Instructions { command: spec.clone(), namespace: namespace.map(Path::to_owned) };
        let mut line = serde_json::to_vec(&instructions).map_err(CommandError::Instructions)?;
        line.push(b'\n');
        let Self(mut held) = self;
        held.say(&line).await?;
        match held.listen().await? {
            Some(Answer::Ready) => Ok(held),
            Some(Answer::Failed(obstacle)) => Err(held.gone(obstacle).await),
            None => Err(CommandError::Died(held.child.wait().await.map_err(CommandError::ExitUnknown)?)),
        }
    }
}

/// A process that is ready to become the command, and waits. Dropped, it ends without having done so.
#[derive(Debug)]
pub struct Held {
    child: Child,
    pid: i32,
    channel: BufReader<UnixStream>,
}

impl Held {
    /// A new process, with its instructions: see [`Blank`].
    pub async fn start_by(
        executor: &Path,
        spec: &CommandSpec,
        namespace: Option<&Path>,
        output: CommandOutput,
    ) -> Result<Self, CommandError> {
        Blank::spawn(executor, output)?.instruct(spec, namespace).await
    }

    /// The pid of the waiting process, and of the command that it becomes.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Lets the command begin. `Ok` means that it has; its first instruction may have run.
    pub async fn release(mut self) -> Result<Process, CommandError> {
        self.say(GO).await?;
        match self.listen().await? {
            None => Ok(Process { child: self.child, pid: self.pid }),
            Some(Answer::Failed(obstacle)) => Err(self.gone(obstacle).await),
            Some(Answer::Ready) => Err(CommandError::Channel(io::ErrorKind::InvalidData.into())),
        }
    }

    /// Ends the process without letting the command begin.
    pub async fn refuse(self) {
        let Self { mut child, channel, .. } = self;
        drop(channel);
        if let Err(error) = child.wait().await {
            tracing::warn!("cannot wait for a refused command: {error}");
        }
    }

    /// What cannot be said to a child that is gone, its end will answer.
    async fn say(&mut self, line: &[u8]) -> Result<(), CommandError> {
        unless_gone(self.channel.write_all(line).await)
    }

    /// The child's next word; `None` when it has closed its end, by exec or by its own end.
    async fn listen(&mut self) -> Result<Option<Answer>, CommandError> {
        let mut line = String::new();
        unless_gone(self.channel.read_line(&mut line).await.map(drop))?;
        let read = || serde_json::from_str(&line).map_err(|error| CommandError::Channel(error.into()));
        (!line.is_empty()).then(read).transpose()
    }

    /// Waits for a child that has sent its last message, and returns that message.
    async fn gone(mut self, obstacle: Obstacle) -> CommandError {
        match self.child.wait().await {
            Ok(_) => CommandError::Obstacle(obstacle),
            Err(error) => CommandError::ExitUnknown(error),
        }
    }
}

/// A child that ends with something unread resets the connection, instead of closing it.
fn unless_gone(result: io::Result<()>) -> Result<(), CommandError> {
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            Ok(())
        }
        result => result.map_err(CommandError::Channel),
    }
}

/// A command that runs. Dropped before its end it is killed, as after a panic of its watcher.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: i32,
}

impl Process {
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for the command's end, and ends what it has left in its session.
    pub async fn exit(&mut self) -> Result<Exit, CommandError> {
        let status = self.child.wait().await.map_err(CommandError::ExitUnknown)?;
        let left = session::kill(self.pid, LEFTOVERS).await;
        if !left.is_empty() {
            tracing::warn!("cannot kill processes of the command: {left:?}");
        }
        Ok(Exit { code: code(status), oom_killed: None })
    }

    /// Reaches every process of the command once: its session, and what descends from it.
    pub fn signal(&self, signal: Signal) {
        // A command that has ended and was waited for has no claim on its number any more.
        if self.child.id().is_some() {
            session::signal(self.pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// The exit code as a shell reports it.
fn code(status: ExitStatus) -> i64 {
    let signalled = || status.signal().map(|signal| 128 + signal);
    status.code().or_else(signalled).unwrap_or_default().into()
}
