//! Completions for shells, and manual pages; both come from the definition of the command line.
//!
//! A shell's script calls this program back for every completion, with [`VARIABLE`] set: so that it knows names out of
//! the datastore and fits the installed version. A datastore that does not answer soon completes nothing.

use std::ffi::OsStr;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Command;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::Shells;
use clap_complete::CompleteEnv;

use crate::calico::{node_name, CalicoError, Datastore, Kind};
use crate::config::Config;
use crate::limits::ETCD_COMPLETION;

use super::output::Out;
use super::Failed;

/// Set by the shells' scripts, to the name of the shell.
const VARIABLE: &str = "CALICO_MESOS_COMPLETE";

#[derive(Debug, clap::Args)]
pub struct CompletionArguments {
    /// The shell whose script to print; load it with: source <(calico-mesos completion bash)
    shell: Shell,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, clap::Args)]
pub struct ManArguments {
    /// The folder for the pages, such as /usr/local/share/man/man1; made where it does not exist
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write the manual pages to {dir}")]
struct PagesError {
    dir: PathBuf,
    #[source]
    source: std::io::Error,
}

/// Answers a shell's script, if one has called. `true`: that was all.
pub fn answer(command: fn() -> Command) -> clap::error::Result<bool> {
    let folder = std::env::current_dir().ok();
    CompleteEnv::with_factory(command).var(VARIABLE).try_complete(std::env::args_os(), folder.as_deref())
}

/// Prints the script of a shell.
pub fn completion(arguments: &CompletionArguments, command: &Command, out: &Out) -> Result<ExitCode, Failed> {
    let shell = match arguments.shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
    };
    let shells = Shells::builtins();
    let script = shells.completer(shell).ok_or("the library knows no such shell")?;
    let name = command.get_name();
    let mut text = Vec::new();
    script.write_registration(VARIABLE, name, name, name, &mut text)?;
    out.part(&String::from_utf8_lossy(&text));
    Ok(ExitCode::SUCCESS)
}

/// Writes a page for the program and for each of its verbs.
pub fn man(arguments: &ManArguments, command: Command, out: &Out) -> Result<ExitCode, Failed> {
    let dir = &arguments.dir;
    let failed = |source| PagesError { dir: dir.clone(), source };
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(command, dir).map_err(failed)?;
    out.line(format!("the manual pages are in {}", dir.display()));
    Ok(ExitCode::SUCCESS)
}

/// Completes the names of a kind of resource.
pub fn names(kind: Kind) -> ArgValueCompleter {
    ArgValueCompleter::new(move |current: &OsStr| {
        from_datastore(current, |mut datastore, _| async move { datastore.names(kind).await })
    })
}

/// Completes the tasks of this host, by their ids.
pub fn tasks() -> ArgValueCompleter {
    ArgValueCompleter::new(move |current: &OsStr| {
        from_datastore(current, |mut datastore, config| async move {
            let endpoints = datastore.list_endpoints(&node_name(&config)?).await?;
            Ok(endpoints.into_iter().filter_map(|endpoint| endpoint.task_id).collect())
        })
    })
}

/// What of the datastore begins with the text; nothing when it does not answer in time.
fn from_datastore<F, Found>(current: &OsStr, find: F) -> Vec<CompletionCandidate>
where
    F: FnOnce(Datastore, Config) -> Found,
    Found: Future<Output = Result<Vec<String>, CalicoError>>,
{
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let look = async {
        let (config, _) = Config::of_shell(configured().as_deref()).ok()?;
        let datastore = Datastore::connect(&config).await.ok()?;
        find(datastore, config).await.ok()
    };
    let found = runtime.block_on(async { tokio::time::timeout(ETCD_COMPLETION, look).await });
    runtime.shutdown_background();
    let start = current.to_string_lossy();
    let fits = |name: &String| name.starts_with(start.as_ref());
    found.ok().flatten().unwrap_or_default().into_iter().filter(fits).map(CompletionCandidate::new).collect()
}

/// The file of a `--config` on the line that is being completed.
fn configured() -> Option<PathBuf> {
    let mut words = std::env::args();
    while let Some(word) = words.next() {
        match word.strip_prefix("--config") {
            Some("") => return words.next().map(PathBuf::from),
            Some(rest) => return rest.strip_prefix('=').map(|path| Path::new(path).to_owned()),
            None => {}
        }
    }
    None
}
