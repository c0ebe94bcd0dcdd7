//! `node install-runtime` and `node uninstall-runtime`: `calico-runc` as Docker's runtime `calico`.
//!
//! Nothing is copied: daemon.json gets the program's path. Docker learns of it at its next start, or
//! by SIGHUP (`--reload`), without stopping a container.

mod dockerd;
mod json;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use crate::error::FileError;
use crate::host::files;
use crate::names::RUNTIME;

pub use dockerd::{running as running_daemons, DockerdProcess, DEFAULT_FILE};
pub use json::EditError;

/// How long a daemon gets to reload the file.
const RELOAD_PAUSE: Duration = Duration::from_secs(1);

/// What is asked for on the command line.
#[derive(Debug, Clone, Args)]
pub struct InstallArgs {
    /// Docker's configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_FILE)]
    pub daemon_json: PathBuf,
    /// The calico-runc program; default: the one next to this program
    #[arg(long, value_name = "PROGRAM")]
    pub runtime: Option<PathBuf>,
    /// Make the running Docker daemon reload its configuration (SIGHUP; no container is stopped)
    #[arg(long)]
    pub reload: bool,
    /// Only print what would be changed; exit code 3 when there is something
    #[arg(long, visible_alias = "check")]
    pub dry_run: bool,
}

/// What is asked for on the command line.
#[derive(Debug, Clone, Args)]
pub struct UninstallArgs {
    /// Docker's configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_FILE)]
    pub daemon_json: PathBuf,
    /// Make the running Docker daemon reload its configuration (SIGHUP; no container is stopped)
    #[arg(long)]
    pub reload: bool,
    /// Only print what would be changed; exit code 3 when there is something
    #[arg(long, visible_alias = "check")]
    pub dry_run: bool,
}

/// What was done, or in a dry run would be, for the user to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Was the file changed, or would it be?
    pub changed: bool,
    /// Daemons that were signalled.
    pub reloaded: Vec<i32>,
    /// Sentences: what was done, and what is left to do.
    pub sentences: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum RuntimeSetupError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} is not a program; build calico-runc, or name it with --runtime", .0.display())]
    NoProgram(PathBuf),
    #[error("cannot edit {}", path.display())]
    Edit {
        path: PathBuf,
        #[source]
        source: EditError,
    },
    #[error("dockerd (pid {0}) has '{1} calico' on its command line; remove that and restart it first")]
    CommandLine(i32, &'static str),
    #[error(
        "dockerd (pid {0}) has runtimes on its command line ({1}), which it would drop on a reload; restart it instead of using --reload"
    )]
    WouldForget(i32, String),
    #[error("containers still use the runtime 'calico': {}; remove them first", .0.join(", "))]
    InUse(Vec<String>),
    #[error("cannot find out whether a container still uses the runtime 'calico'")]
    Users(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot signal dockerd (pid {pid}) to read its configuration again")]
    Reload {
        pid: i32,
        #[source]
        source: io::Error,
    },
}

/// Registers the runtime. Repeating it changes nothing.
pub fn install(args: &InstallArgs) -> Result<Done, RuntimeSetupError> {
    let program = program(args.runtime.as_deref())?;
    let file = resolved(&args.daemon_json);
    let daemons = dockerd::readers_of(&file);
    refuse_command_lines(&daemons, args.reload)?;
    let new = json::add(&read(&file)?, &program).map_err(|source| edit(&file, source))?;
    let mut done = Done { changed: new.is_some(), reloaded: Vec::new(), sentences: Vec::new() };
    done.sentences.push(match &new {
        None => format!("{}: runtime 'calico' is {} already", file.display(), program.display()),
        Some(_) if args.dry_run => {
            format!("{}: to add: runtime 'calico', {}", file.display(), program.display())
        }
        Some(text) => {
            replace(&file, text)?;
            format!("{}: runtime 'calico' is {}", file.display(), program.display())
        }
    });
    if args.dry_run {
        return Ok(done);
    }
    finish(&mut done, &file, args.reload)?;
    Ok(done)
}

/// Takes the runtime out again. `users` names the containers that have it, running or not: Docker
/// could neither stop nor remove them without it.
pub fn uninstall(
    args: &UninstallArgs,
    users: impl FnOnce() -> Result<Vec<String>, Box<dyn std::error::Error + Send + Sync>>,
) -> Result<Done, RuntimeSetupError> {
    let file = resolved(&args.daemon_json);
    let daemons = dockerd::readers_of(&file);
    refuse_command_lines(&daemons, args.reload)?;
    let reload = args.reload && !daemons.is_empty();
    let new = json::remove(&read(&file)?, reload).map_err(|source| edit(&file, source))?;
    let mut done = Done { changed: new.is_some(), reloaded: Vec::new(), sentences: Vec::new() };
    let Some(text) = new else {
        done.sentences.push(format!("{}: there is no runtime 'calico'", file.display()));
        return Ok(done);
    };
    let users = users().map_err(RuntimeSetupError::Users)?;
    if !users.is_empty() {
        return Err(RuntimeSetupError::InUse(users));
    }
    if args.dry_run {
        done.sentences.push(format!("{}: to remove: runtime 'calico'", file.display()));
        return Ok(done);
    }
    replace(&file, &text)?;
    done.sentences.push(format!("{}: runtime 'calico' is removed", file.display()));
    finish(&mut done, &file, args.reload)?;
    if reload {
        // A daemon forgets a runtime only while the file still says "runtimes".
        std::thread::sleep(RELOAD_PAUSE);
        if let Some(text) = json::drop_empty(&text).map_err(|source| edit(&file, source))? {
            replace(&file, &text)?;
        }
    }
    remove_if_empty(&file)?;
    Ok(done)
}

/// The program that the file names for the runtime.
pub fn registered(daemon_json: &Path) -> Result<Option<PathBuf>, RuntimeSetupError> {
    let file = resolved(daemon_json);
    let path = json::registered(&read(&file)?).map_err(|source| edit(&file, source))?;
    Ok(path.map(PathBuf::from))
}

/// The runtime's program: the one that was named, else the one next to this program.
pub fn program(named: Option<&Path>) -> Result<PathBuf, RuntimeSetupError> {
    let program = match named {
        Some(program) => program.to_owned(),
        None => {
            let own =
                std::env::current_exe().map_err(|source| file_error("find", "/proc/self/exe", source))?;
            own.with_file_name("calico-runc")
        }
    };
    let program = fs::canonicalize(&program).map_err(|_| RuntimeSetupError::NoProgram(program.clone()))?;
    let meta = fs::metadata(&program).map_err(|source| file_error("look at", &program, source))?;
    if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
        return Err(RuntimeSetupError::NoProgram(program));
    }
    Ok(program)
}

fn refuse_command_lines(daemons: &[DockerdProcess], reload: bool) -> Result<(), RuntimeSetupError> {
    for dockerd in daemons {
        if dockerd.runtimes.iter().any(|name| name == RUNTIME) {
            return Err(RuntimeSetupError::CommandLine(dockerd.pid, "--add-runtime"));
        }
        if dockerd.default_runtime.as_deref() == Some(RUNTIME) {
            return Err(RuntimeSetupError::CommandLine(dockerd.pid, "--default-runtime"));
        }
        if reload && !dockerd.runtimes.is_empty() {
            return Err(RuntimeSetupError::WouldForget(dockerd.pid, dockerd.runtimes.join(", ")));
        }
    }
    Ok(())
}

/// Signals the daemons that read the file as it is now, or says how. Looked for anew: one whose daemon.json is mounted
/// as a single file keeps the file that was replaced.
fn finish(done: &mut Done, file: &Path, reload: bool) -> Result<(), RuntimeSetupError> {
    let daemons = dockerd::readers_of(file);
    for DockerdProcess { pid, runtimes, .. } in &daemons {
        if reload {
            kill(Pid::from_raw(*pid), Signal::SIGHUP)
                .map_err(|errno| RuntimeSetupError::Reload { pid: *pid, source: errno.into() })?;
            done.reloaded.push(*pid);
            done.sentences.push(format!("dockerd (pid {pid}) reads it again (SIGHUP)"));
        } else if done.changed && runtimes.is_empty() {
            done.sentences.push(format!(
                "now make dockerd (pid {pid}) read it: kill -HUP {pid}, or run this again with --reload"
            ));
        } else if done.changed {
            done.sentences.push(format!("now restart dockerd (pid {pid})"));
        }
    }
    for DockerdProcess { pid, config, .. } in dockerd::running() {
        let elsewhere = config == file && !daemons.iter().any(|reader| reader.pid == pid);
        if elsewhere && (reload || done.changed) {
            done.sentences.push(format!(
                "dockerd (pid {pid}) is not signalled: it runs in another mount namespace, where {} is another file",
                file.display()
            ));
        }
    }
    if daemons.is_empty() && done.changed {
        done.sentences.push("no running dockerd reads this file; the next one to start will".to_owned());
    }
    Ok(())
}

/// Through links, so that a link that configuration management made stays one.
fn resolved(file: &Path) -> PathBuf {
    fs::canonicalize(file).unwrap_or_else(|_| file.to_owned())
}

fn read(file: &Path) -> Result<String, RuntimeSetupError> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        result => result.map_err(|source| file_error("read", file, source)),
    }
}

/// Safe from a loss of power.
fn replace(file: &Path, text: &str) -> Result<(), RuntimeSetupError> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    let write = |new: &mut File| new.write_all(text.as_bytes()).and_then(|()| new.sync_all());
    fs::create_dir_all(folder)
        .and_then(|()| files::replace(file, write))
        .map_err(|source| file_error("write", file, source))
}

/// At Docker's own place an empty file and none are the same; a file named on the command line must exist.
fn remove_if_empty(file: &Path) -> Result<(), RuntimeSetupError> {
    if file == Path::new(DEFAULT_FILE) && read(file)?.trim() == "{}" {
        fs::remove_file(file).map_err(|source| file_error("remove", file, source))?;
    }
    Ok(())
}

fn edit(file: &Path, source: EditError) -> RuntimeSetupError {
    RuntimeSetupError::Edit { path: file.into(), source }
}

fn file_error(action: &'static str, path: impl AsRef<Path>, source: io::Error) -> RuntimeSetupError {
    FileError::on(action, path.as_ref())(source).into()
}
