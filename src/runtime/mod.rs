//! `calico-runc`: the OCI runtime that Docker calls for containers with an address of their own.
//!
//! ```text
//!  create   a container of the proxy's: asks it for a namespace, and waits
//!           config.json gets the prepared namespace, Docker's own network hook goes ──► exec runc
//!  start    asks the executor at the gate:   open ──────────────────────────────────► exec runc
//!                                            refused ─► kill the init, report, exit 1
//!  delete   a container of the proxy's: tells it that the container is over ───────────► exec runc
//!  run, restore   refused: they would start a workload without namespace and gate
//!  anything else, `features` and `--version` too ───────────────────────────────────► exec runc
//! ```
//!
//! Docker calls it for every step of every such container, so it starts in about a millisecond and
//! links no async runtime. What it did at `create` and `start` stands in its log. Nothing from the task is
//! trusted here: the configuration's place comes from Docker's environment, the namespace from a folder that only root
//! can write.

mod argv;
mod bound;
mod create;
mod oci;
mod report;
mod start;

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::config::{self, Config, ConfigError, DEFAULT_PATH};
use crate::error;
use crate::logging::{Component, Log};

pub use argv::{Call, Subcommand};
pub use oci::{edit, EditedSpec, OciError};

/// Why a container may not be made or started. Each text is a sentence for the owner of the app.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("calico-runc cannot use its configuration")]
    Config(#[source] ConfigError),
    #[error("calico-runc was called without a container id")]
    NoId,
    #[error("'{0}' is not a container id")]
    InvalidId(String),
    #[error(
        "no network namespace was prepared for this container; the runtime 'calico' serves only containers that calico-mesos starts; if calico-mesos proxy died while it made this one, remove it and make it anew"
    )]
    NotPrepared,
    #[error("{} must belong to root and be writable by root only", .0.display())]
    Untrusted(PathBuf),
    #[error(
        "Docker sees the network namespace prepared for this container as a plain file, and the executor, which could hand it over, cannot be reached"
    )]
    NotANamespace,
    #[error("the network namespace prepared for this container is the host's own")]
    HostNamespace,
    #[error("cannot {action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot edit {}", path.display())]
    Oci {
        path: PathBuf,
        #[source]
        source: OciError,
    },
    #[error(
        "the runtime 'calico' does not {0} containers, because that would start the workload without the network that its executor prepares; let Docker create and start it"
    )]
    Ungated(&'static str),
    #[error("{0}")]
    Refused(String),
    #[error("cannot run the runtime beneath, {}", path.display())]
    Exec {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// The whole program; `args` without the program's own name. Returns only when something failed.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let call = Call::parse(args.collect());
    let error = match run(&call) {
        Ok(runtime) => exec(&runtime, &call.args),
        Err(error) => error,
    };
    report::tell(&call, &error::chain(&error));
    ExitCode::FAILURE
}

/// Does our part of the call; the runtime beneath that does the rest.
fn run(call: &Call) -> Result<PathBuf, RuntimeError> {
    let config = match (load_config(), call.subcommand) {
        (Ok(config), _) => config,
        // Even with a broken configuration, containers that run can be listed and stopped.
        (Err(_), Subcommand::Other | Subcommand::Delete) => return Ok("runc".into()),
        (Err(error), subcommand) => {
            if subcommand == Subcommand::Start {
                start::kill_init(call, Path::new("runc"));
            }
            return Err(RuntimeError::Config(error));
        }
    };
    let Some(verb) = call.subcommand.name() else { return Ok(config.runtime.path) };
    let began = Instant::now();
    let result = match call.subcommand {
        Subcommand::Create => create::prepare(call, &config),
        Subcommand::Start => start::wait(call, &config),
        Subcommand::Delete => match bound::say_ended(call, &config) {
            Some(said) => Ok(said),
            None => return Ok(config.runtime.path),
        },
        Subcommand::Restore | Subcommand::Run | Subcommand::Other => Err(RuntimeError::Ungated(verb)),
    };
    if let (Err(refusal), Subcommand::Create | Subcommand::Start) = (&result, call.subcommand) {
        bound::note_refusal(call, &config, refusal);
    }
    let done = match &result {
        Ok(done) => done.clone(),
        Err(error) => format!("refused: {}", error::chain(error)),
    };
    let line = format!("{verb} {} after {:.1?}: {done}", call.id().unwrap_or("-"), began.elapsed());
    Log::of(Component::Runtime, &config).say(&line);
    result.map(|_| config.runtime.path)
}

fn load_config() -> Result<Config, ConfigError> {
    let path = std::env::var_os(config::VARIABLE).unwrap_or_else(|| DEFAULT_PATH.into());
    Config::load(Path::new(&path))
}

/// Becomes the runtime beneath, with the arguments untouched; returns only when that fails.
fn exec(runtime: &Path, args: &[OsString]) -> RuntimeError {
    let source = Command::new(runtime).args(args).exec();
    RuntimeError::Exec { path: runtime.into(), source }
}

/// The folder that the executor prepared for the container.
fn prepared(call: &Call, config: &Config) -> Result<PathBuf, RuntimeError> {
    let id = call.id()?;
    let link = config.paths.container_link(id);
    let containers = link.parent().unwrap_or(&config.paths.run);
    match std::fs::metadata(&link) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(RuntimeError::NotPrepared),
        Err(source) => return Err(RuntimeError::File { action: "look at", path: link, source }),
    }
    for folder in [containers, &link] {
        let meta = std::fs::metadata(folder).map_err(|source| RuntimeError::File {
            action: "look at",
            path: folder.into(),
            source,
        })?;
        if meta.uid() != nix::unistd::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
            return Err(RuntimeError::Untrusted(folder.into()));
        }
    }
    Ok(link)
}
