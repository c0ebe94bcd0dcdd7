//! `calico-init`: what becomes the command of a task. See `command` for the other side.
//!
//! This is the whole of a process of its own, with one thread and no runtime. Every obstacle is reported over the
//! channel; nothing is ever printed, because standard output and error are the task's.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sched::{setns, CloneFlags};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{umask, Mode};
use nix::unistd::{self, geteuid, Gid, Uid};
use serde::{Deserialize, Serialize};

use super::accounts;
use super::command::CommandSpec;

/// The name (the first argument) that makes `calico-executor` this program.
pub const NAME: &str = "calico-init";
/// The word that lets the command begin.
pub(super) const GO: &[u8] = b"go\n";

const NETWORK: &str = "/proc/self/ns/net";
/// Where a program is looked for by a task without a PATH.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What runs a command that is a line of shell.
pub const SHELL: &str = "/bin/sh";

/// The one line that the child gets before it is let go.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Instructions {
    pub command: CommandSpec,
    pub namespace: Option<PathBuf>,
}

/// A line of the child.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Ready,
    Failed(Obstacle),
}

/// Why the child cannot become the command, in a sentence for the owner of the app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Obstacle {
    pub kind: ObstacleKind,
    pub text: String,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ObstacleKind {
    /// The command or its directory.
    Command,
    /// The command's user.
    User,
    /// The executor is not root, but what is asked for needs it.
    Privilege,
    /// This machine.
    Host,
}

/// The program. Returns when the command was refused or cannot be.
pub fn main() -> ExitCode {
    // Without the channel there is no receiver for a report.
    let Ok(mut channel) = Channel::open() else { return ExitCode::FAILURE };
    match live(&mut channel) {
        Ok(()) => ExitCode::SUCCESS,
        Err(obstacle) => {
            // An executor that is gone needs no answer.
            let _ = channel.say(&Answer::Failed(obstacle));
            ExitCode::FAILURE
        }
    }
}

/// `Ok`: refused.
fn live(channel: &mut Channel) -> Result<(), Obstacle> {
    let Some(Instructions { command, namespace }) = channel.instructions()? else { return Ok(()) };
    // It was forked a moment ago and leads no group yet.
    unistd::setsid().map_err(|errno| host("create a session", errno))?;
    umask(Mode::from_bits_truncate(0o022));
    if let Some(namespace) = &namespace {
        enter(namespace)?;
    }
    if let Some(user) = &command.user {
        become_user(user)?;
        // A root that came out of a setuid program could leave the namespace, which is what keeps the task to
        // its address. A command without one is as free as under Mesos itself.
        if namespace.is_some() && !geteuid().is_root() {
            prctl::set_no_new_privs().map_err(|errno| host("give up privileges", errno))?;
        }
    }
    unistd::chdir(&command.directory).map_err(|errno| {
        obstacle(
            ObstacleKind::Command,
            format!("cannot start the command in {}: {}", command.directory.display(), errno.desc()),
        )
    })?;
    let target = Target::of(&command)?;
    channel.say(&Answer::Ready).map_err(|error| host("answer", error))?;
    match channel.released() {
        true => target.exec().map(|never| match never {}),
        false => Ok(()),
    }
}

/// The socket that came as standard input.
struct Channel(BufReader<UnixStream>);

impl Channel {
    fn open() -> io::Result<Self> {
        close_inherited()?;
        // The copy is closed by the exec, which is how the executor learns of it.
        let channel = io::stdin().as_fd().try_clone_to_owned()?;
        unistd::dup2_stdin(File::open("/dev/null")?)?;
        Ok(Self(BufReader::new(channel.into())))
    }

    /// `None`: the executor ended before it had said anything.
    fn instructions(&mut self) -> Result<Option<Instructions>, Obstacle> {
        let mut line = Vec::new();
        match self.0.read_until(b'\n', &mut line) {
            Ok(_) if line.ends_with(b"\n") => {
                let read =
                    serde_json::from_slice(&line).map_err(|error| host("read its instructions", error))?;
                Ok(Some(read))
            }
            // Cut off, or reset: there is no receiver for a report.
            _ => Ok(None),
        }
    }

    fn say(&mut self, answer: &Answer) -> io::Result<()> {
        let mut line = serde_json::to_vec(answer)?;
        line.push(b'\n');
        self.0.get_mut().write_all(&line)
    }

    /// Waits for the word; anything else, the executor's end too, is a refusal.
    fn released(&mut self) -> bool {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).is_ok() && line == GO
    }
}

/// Whatever came with the executor from elsewhere: a lock held here would outlive its owner.
fn close_inherited() -> io::Result<()> {
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // The folder's own is among them, and is closed already.
        let _ = unistd::close(fd);
    }
    Ok(())
}

fn enter(namespace: &Path) -> Result<(), Obstacle> {
    let failed = |error: io::Error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => not_root("join a network namespace"),
        // What is not a network namespace the kernel calls an invalid argument.
        Some(Errno::EINVAL) => {
            obstacle(ObstacleKind::Host, format!("{} is not a network namespace", namespace.display()))
        }
        _ => host(&format!("enter the network namespace {}", namespace.display()), error),
    };
    let file = File::open(namespace).map_err(failed)?;
    let before = fs::read_link(NETWORK).map_err(failed)?;
    #[expect(
        clippy::disallowed_methods,
        reason = "this process has one thread, no runtime, and becomes the task"
    )]
    setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.into()))?;
    if fs::read_link(NETWORK).map_err(failed)? == before {
        return Err(obstacle(
            ObstacleKind::Host,
            format!("{} is the network namespace of the host", namespace.display()),
        ));
    }
    Ok(())
}

fn become_user(user: &str) -> Result<(), Obstacle> {
    let account = accounts::find(user).map_err(|text| obstacle(ObstacleKind::User, text))?;
    if !geteuid().is_root() {
        return match geteuid().as_raw() == account.uid {
            true => Ok(()),
            false => Err(not_root(&format!("run a command as {user}"))),
        };
    }
    let groups: Vec<Gid> = account.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    unistd::setgroups(&groups)
        .and_then(|()| unistd::setresgid(gid, gid, gid))
        .and_then(|()| unistd::setresuid(uid, uid, uid))
        .map_err(|errno| host(&format!("become the user {user}"), errno))
}

/// The command as the kernel wants it.
struct Target {
    program: String,
    candidates: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Target {
    fn of(command: &CommandSpec) -> Result<Self, Obstacle> {
        let text = |text: &str| {
            let nul = |_| {
                obstacle(
                    ObstacleKind::Command,
                    "the command or its environment contains a NUL character".into(),
                )
            };
            CString::new(text).map_err(nul)
        };
        let path = command.environment.get("PATH").map_or(DEFAULT_PATH, String::as_str);
        let candidates: Vec<String> = match command.program.contains('/') {
            true => vec![command.program.clone()],
            // An empty entry means the current folder, as everywhere.
            false => path
                .split(':')
                .map(|folder| match folder {
                    "" => format!("./{}", command.program),
                    folder => format!("{folder}/{}", command.program),
                })
                .collect(),
        };
        let environment = command.environment.iter().map(|(name, value)| format!("{name}={value}"));
        Ok(Self {
            program: command.program.clone(),
            candidates: candidates.iter().map(|path| text(path)).collect::<Result<_, _>>()?,
            arguments: command.arguments.iter().map(|argument| text(argument)).collect::<Result<_, _>>()?,
            environment: environment.map(|line| text(&line)).collect::<Result<_, _>>()?,
        })
    }

    /// Becomes the command. The file is looked for as execvp(3) does it, in the task's own PATH.
    fn exec(&self) -> Result<Infallible, Obstacle> {
        let program = &self.program;
        let wrong =
            |text: String| Err(obstacle(ObstacleKind::Command, format!("cannot start the command: {text}")));
        reset_signals().map_err(|error| host("reset signals", error))?;
        let mut denied = None;
        for candidate in &self.candidates {
            let path = candidate.to_string_lossy();
            let Err(errno) = unistd::execve(candidate, &self.arguments, &self.environment);
            match errno {
                Errno::ENOENT if Path::new(&*path).exists() => {
                    return wrong(format!("the interpreter that {path} names does not exist"))
                }
                Errno::ENOENT | Errno::ENOTDIR => {}
                Errno::EACCES => denied = denied.or(Some(path)),
                Errno::ENOEXEC if is_text(&path) => {
                    let Err(errno) = self.exec_by_shell(candidate);
                    return wrong(format!("{SHELL}: {}", errno.desc()));
                }
                Errno::ENOEXEC => return wrong(format!("{path} is not a program for this machine")),
                Errno::E2BIG => return wrong("its arguments and environment are too long".into()),
                errno => return wrong(format!("{path}: {}", errno.desc())),
            }
        }
        match denied {
            Some(path) => wrong(format!("{path} may not be executed by the user {}", geteuid())),
            None if program.contains('/') => wrong(format!("{program} does not exist")),
            None => wrong(format!("{program} is not in its PATH")),
        }
    }

    /// A script without a first line that says so is one for the shell.
    fn exec_by_shell(&self, script: &CString) -> nix::Result<Infallible> {
        let shell = CString::new(SHELL).map_err(|_| Errno::EINVAL)?;
        let mut arguments = vec![shell.clone(), script.clone()];
        arguments.extend(self.arguments.iter().skip(1).cloned());
        unistd::execve(&shell, &arguments, &self.environment)
    }
}

/// Would a shell try to run it? What has a NUL character near its beginning is a program for another machine.
fn is_text(path: &str) -> bool {
    const HEAD: u64 = 256;
    let mut head = Vec::new();
    let read =
        File::open(path).and_then(|file| io::Read::read_to_end(&mut io::Read::take(file, HEAD), &mut head));
    read.is_ok() && !head.contains(&0)
}

/// The signals as they are after a boot: Rust ignores SIGPIPE, and the process that started the agent may have ignored
/// or blocked others.
fn reset_signals() -> io::Result<()> {
    SigSet::empty().thread_set_mask()?;
    let caught = Arc::new(AtomicBool::new(false));
    for signal in Signal::iterator().map(|signal| signal as i32) {
        if !signal_hook::consts::FORBIDDEN.contains(&signal) {
            // The kernel keeps ignored signals ignored over an exec, and gives up every handler.
            signal_hook::flag::register(signal, caught.clone())?;
        }
    }
    Ok(())
}

fn obstacle(kind: ObstacleKind, text: String) -> Obstacle {
    Obstacle { kind, text }
}

fn host(action: &str, error: impl std::fmt::Display) -> Obstacle {
    obstacle(ObstacleKind::Host, format!("cannot start the command: the executor cannot {action}: {error}"))
}

fn not_root(action: &str) -> Obstacle {
    obstacle(
        ObstacleKind::Privilege,
        format!("the executor does not run as root, which it needs to {action}; set the app's user to root, or run the agent with --no-switch_user"),
    )
}
