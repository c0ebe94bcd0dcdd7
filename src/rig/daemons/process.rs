//! One daemon as a child process: started, watched until it is ready, ended by its process id.
//!
//! All children are started by one thread that lives as long as this process: the kernel's
//! parent-death signal follows the *thread* that forked, and a test's or runtime's thread may end early.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{mpsc, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, killpg, Signal};
use nix::unistd::Pid;

use super::DevError;
use crate::workload::init::DEFAULT_PATH;

const POLL: Duration = Duration::from_millis(10);

/// What is needed to start the daemon, again and again.
pub(super) struct Recipe {
    pub name: &'static str,
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    /// Beside PATH, HOME and TMPDIR nothing else is handed on: no ETCD_*, CONSUL_*, DOCKER_* or proxies.
    pub environment: BTreeMap<String, OsString>,
    pub log: PathBuf,
    pub netns: Netns,
    /// What the kernel sends when this process dies, if anything.
    pub parent_death: Option<Signal>,
}

/// The network namespace to start in.
pub(super) enum Netns {
    /// Where this process is.
    Here,
    /// Bound at this path.
    At(PathBuf),
    /// A new one, gone with the daemon.
    Fresh,
}

pub(super) struct Daemon {
    recipe: Recipe,
    child: Option<Child>,
}

impl Daemon {
    /// Starts it and waits until `ready` is true; an early end or a missed limit is reported with the log's end.
    pub async fn start<F, R>(recipe: Recipe, limit: Duration, ready: F) -> Result<Self, DevError>
    where
        F: Fn() -> R,
        R: Future<Output = bool>,
    {
        let mut daemon = Self { recipe, child: None };
        daemon.restart(limit, ready).await?;
        Ok(daemon)
    }

    /// Starts it again with the same arguments; the log goes on in the same file.
    pub async fn restart<F, R>(&mut self, limit: Duration, ready: F) -> Result<(), DevError>
    where
        F: Fn() -> R,
        R: Future<Output = bool>,
    {
        self.kill();
        let name = self.recipe.name;
        self.child = Some(launch(&self.recipe).map_err(DevError::io(format!("start {name}")))?);
        let begin = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                self.child = None;
                let tail = tail(&self.recipe.log);
                return Err(DevError::Exited { name, status, log: self.recipe.log.clone(), tail });
            }
            if ready().await {
                return Ok(());
            }
            if begin.elapsed() > limit {
                self.kill();
                let (seconds, tail) = (limit.as_secs(), tail(&self.recipe.log));
                return Err(DevError::NotReady { name, seconds, log: self.recipe.log.clone(), tail });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// SIGTERM, and SIGKILL for the whole process group when that does not help within `patience`.
    pub async fn stop(&mut self, patience: Duration) {
        self.signal(Signal::SIGTERM);
        let begin = Instant::now();
        while begin.elapsed() < patience && self.child.is_some() && self.ended().is_none() {
            tokio::time::sleep(POLL).await;
        }
        self.kill();
    }

    /// SIGKILL for the process group, as in a crash; nothing happens when it is gone already.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // The group exists as long as the leader has not been waited for, so the number is still ours.
        let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
        let _ = child.wait();
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            let _ = kill(Pid::from_raw(child.id() as i32), signal);
        }
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A program of PATH or of the system's usual folders.
pub(super) fn find_program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path())
        .map(|folder| folder.join(name))
        .find(|path| nix::unistd::access(path.as_path(), nix::unistd::AccessFlags::X_OK).is_ok())
}

/// Where `scripts/setup.sh` and `scripts/consul.sh` put what no package installs.
pub(super) fn cache() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    Some(base.join("calico-mesos"))
}

fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":");
    // Daemons lie in sbin, which a user's PATH may lack.
    path.push(DEFAULT_PATH);
    path
}

fn launch(recipe: &Recipe) -> io::Result<Child> {
    let log = File::options().create(true).append(true).open(&recipe.log)?;
    let mut words: Vec<OsString> = Vec::new();
    // All three of util-linux replace themselves by the program, so its process id is the child's.
    let tool = |name| find_program(name).ok_or_else(|| io::Error::other(format!("{name} was not found")));
    match &recipe.netns {
        Netns::Here => (),
        Netns::Fresh => words.extend([tool("unshare")?.into(), "--net".into(), "--".into()]),
        Netns::At(path) => {
            let mut net = OsString::from("--net=");
            net.push(path);
            words.extend([tool("nsenter")?.into(), net, "--".into()]);
        }
    }
    if let (Some(setpriv), Some(signal)) = (find_program("setpriv"), recipe.parent_death) {
        let signal = signal.as_str().trim_start_matches("SIG");
        words.extend([setpriv.into(), "--pdeathsig".into(), signal.into(), "--".into()]);
    }
    words.push(recipe.program.clone().into());
    words.extend(recipe.arguments.iter().cloned());

    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env_clear().env("PATH", search_path());
    for name in ["HOME", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    // Children inherit it: whose they are is seen by it when the daemon itself has gone.
    command.env(super::members::MARK, &recipe.log);
    command.envs(&recipe.environment).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.process_group(0);
    spawn_by_keeper(command)
}

type Request = (Command, mpsc::Sender<io::Result<Child>>);

fn spawn_by_keeper(command: Command) -> io::Result<Child> {
    static KEEPER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<Request>();
        let started = std::thread::Builder::new().name("daemon-keeper".into()).spawn(move || {
            while let Ok((mut command, answer)) = requests.recv() {
                let _ = answer.send(command.spawn());
            }
        });
        // Without the thread the receiver is gone, and every request below fails: nothing to report here.
        drop(started);
        sender
    });
    let (answer, child) = mpsc::channel();
    let gone = || io::Error::other("the thread that starts daemons is gone");
    keeper.send((command, answer)).map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

/// The last words of a daemon, on one line.
fn tail(log: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(6)..].join(" | ")
}
