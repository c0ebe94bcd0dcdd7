//! `calico-mesos node …`: what a host needs before its first task, and the removal of that.
//!
//! ```text
//!  install:    all that could refuse ─► runtime into daemon.json ─► folder made ─► flags for the agent, printed
//!  uninstall:  all that could refuse ─► runtime out of daemon.json ─► folder removed
//! ```
//!
//! The runtime comes first: without it a Calico task fails, without the folder none reaches us.

mod advice;
pub(super) mod agents;
mod init;
pub(super) mod launcher_folder;
mod migrate;
mod remove;
mod service;
mod show;
mod stock_launcher;
mod timer;
mod trust;
mod users;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use crate::config::{Config, DEFAULT_PATH};
use crate::error::FileError;
use crate::host::files;
use crate::task::cleaner::living_tasks;
use crate::workload::DockerHost;

use super::output::Out;
use super::runtime::{self, Done, RuntimeSetupError};
use super::session::Session;
use super::{bgp, programs, Failed};

use launcher_folder::{LauncherFolder, DEFAULT_DIR};

pub(super) use show::UnknownNode;

/// How long the proxy takes for what it does when it holds a container's things no longer.
const LINGERING: Duration = Duration::from_secs(5);
/// A dry run found something.
const FOUND: u8 = 3;

#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Make the agent's launcher folder, register the runtime, and print the flags that the agent needs.
    Install(Install),
    /// Undo `node install`; refused while an agent or a container still needs it.
    Uninstall(Uninstall),
    /// Move a host with programs that were installed by hand over to these, while its tasks live on.
    Migrate(migrate::Migrate),
    /// Register calico-runc with Docker as the runtime 'calico'.
    InstallRuntime(runtime::InstallArgs),
    /// Remove the runtime 'calico' from Docker.
    UninstallRuntime(runtime::UninstallArgs),
    /// Write the units with which systemd runs `calico-mesos gc` every half minute.
    InstallTimer(timer::TimerArgs),
    /// Remove the units that `node install-timer` wrote.
    UninstallTimer(timer::TimerArgs),
    /// BGP peers of this node alone.
    #[command(subcommand)]
    Bgppeer(bgp::PeerVerb),
    /// List the nodes, with their addresses, tunnels, tasks and last signs of life.
    Show(show::ShowArguments),
    /// Write calico/node's settings and start it, where systemd has a unit for it.
    Start(service::StartArguments),
    /// Make this node's records where calico/node's start-up does not: the node, its tunnels' addresses, a pool.
    Init(init::InitArguments),
    /// Remove a dead node, with all that Calico holds for its tasks; run it on another host.
    Remove(remove::RemoveArguments),
    /// Stop calico/node; refused while tasks live here.
    Stop(service::StopArguments),
}

#[derive(Debug, Args)]
pub struct Install {
    /// The folder to make, for the agent's --launcher_dir
    #[arg(long, default_value = DEFAULT_DIR)]
    dir: PathBuf,
    /// The agent's own launcher folder; default: the running agent's, or a usual place
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// The executor; default: calico-executor next to this program
    #[arg(long, value_name = "PROGRAM")]
    executor: Option<PathBuf>,
    #[command(flatten)]
    runtime: runtime::InstallArgs,
}

#[derive(Debug, Args)]
pub struct Uninstall {
    /// The folder that `node install` made
    #[arg(long, default_value = DEFAULT_DIR)]
    dir: PathBuf,
    /// Before these programs are removed: refuse while a task or a container needs them, and remove links to them
    #[arg(long)]
    with_programs: bool,
    #[command(flatten)]
    runtime: runtime::UninstallArgs,
}

#[derive(Debug, thiserror::Error)]
enum NodeError {
    #[error("node {0} needs root: it changes Docker's configuration and {1} (try sudo)")]
    NotRoot(&'static str, PathBuf),
    #[error(
        "the Mesos agent (pid {0}) still launches from {1}; restart it with its own --launcher_dir first"
    )]
    AgentUses(i32, PathBuf),
    #[error("cannot resolve the folder {0}")]
    Folder(PathBuf, #[source] std::io::Error),
    #[error("tasks still live here and need these programs: {}; end them first", .0.join(", "))]
    TasksLive(Vec<String>),
}

/// Repeating any of them changes nothing and is no error.
pub async fn node(verb: Verb, file: Option<&Path>, out: &Out) -> Result<ExitCode, Failed> {
    // What belongs to this host's executors goes by their file alone, as they do.
    let config = file.unwrap_or(Path::new(DEFAULT_PATH));
    let session = || Session::open(file, out);
    match verb {
        Verb::Install(arguments) => install(&arguments, config, out),
        Verb::Uninstall(arguments) => uninstall(&arguments, config, out).await,
        Verb::Migrate(arguments) => migrate::migrate(&arguments, config, out).await,
        Verb::InstallRuntime(arguments) => {
            let done = runtime::install(&arguments)?;
            tell(&done, out);
            Ok(exit_code(arguments.dry_run && done.changed))
        }
        Verb::UninstallRuntime(arguments) => {
            let done = without_runtime(&arguments, config).await?;
            tell(&done, out);
            Ok(exit_code(arguments.dry_run && done.changed))
        }
        Verb::InstallTimer(arguments) => {
            let changed = timer::install(&arguments, &absolute(config)?)?;
            Ok(tell_timer(&changed, arguments.dry_run, out))
        }
        Verb::UninstallTimer(arguments) => {
            let changed = timer::uninstall(&arguments)?;
            Ok(tell_timer(&changed, arguments.dry_run, out))
        }
        Verb::Bgppeer(verb) => bgp::node_peers(&verb, &session()?).await,
        Verb::Show(arguments) => show::show(&arguments, &session()?).await,
        Verb::Start(arguments) => service::start(&arguments, &session()?),
        Verb::Init(arguments) => init::init(&arguments, &session()?).await,
        Verb::Remove(arguments) => remove::remove(&arguments, &session()?).await,
        Verb::Stop(arguments) => service::stop(&arguments, &session()?),
    }
}

fn tell_timer(changed: &timer::Changed, dry_run: bool, out: &Out) -> ExitCode {
    for sentence in &changed.sentences {
        out.line(sentence);
    }
    exit_code(dry_run && changed.any)
}

fn install(arguments: &Install, config: &Path, out: &Out) -> Result<ExitCode, Failed> {
    let (dir, dry_run) = (absolute(&arguments.dir)?, arguments.runtime.dry_run);
    require_root("install", &dir, dry_run)?;
    let agents = agents::running();
    let executor = programs::executor(arguments.executor.as_deref())?;
    let runc = runtime::program(arguments.runtime.runtime.as_deref())?;
    let warnings = trust::look_at(&[&executor, &runc])?;
    let from = stock_launcher::find(arguments.from.as_deref(), &dir, &executor, &agents)?;
    let folder = LauncherFolder::of(&dir, &from, &executor)?;
    let mut steps = folder.steps()?;
    let done = runtime::install(&arguments.runtime)?;
    if !dry_run {
        steps = folder.make()?;
    }
    tell(&done, out);
    let told = launcher_folder::told(&steps, dry_run).unwrap_or_else(|| "is up to date".to_owned());
    out.line(format!("{} (links to {}): {told}", dir.display(), from.display()));
    for line in warnings.into_iter().chain(advice::advice(&dir, docker_elsewhere(config).as_ref(), &agents)) {
        out.line(line);
    }
    if !timer::is_installed() {
        out.line("the host needs a cleaner that runs every half minute: calico-mesos node install-timer");
    }
    Ok(exit_code(dry_run && (done.changed || !steps.is_empty())))
}

async fn uninstall(arguments: &Uninstall, config: &Path, out: &Out) -> Result<ExitCode, Failed> {
    let (dir, dry_run) = (absolute(&arguments.dir)?, arguments.runtime.dry_run);
    require_root("uninstall", &dir, dry_run)?;
    if let Some(agent) = agents::running().iter().find(|agent| agent.launches_from(&dir)) {
        return Err(NodeError::AgentUses(agent.pid, dir).into());
    }
    if arguments.with_programs {
        refuse_users(&arguments.runtime.daemon_json, config).await?;
    }
    let there = launcher_folder::remove_folder(&dir, true)?;
    let done = without_runtime(&arguments.runtime, config).await?;
    if !dry_run {
        launcher_folder::remove_folder(&dir, false)?;
    }
    tell(&done, out);
    out.line(match (there, dry_run) {
        (false, _) => format!("{}: there is no such launcher folder", dir.display()),
        (true, true) => format!("to remove: {}", dir.display()),
        (true, false) => format!("{} is removed", dir.display()),
    });
    let links = if arguments.with_programs { links_to_us()? } else { Vec::new() };
    for link in &links {
        if !dry_run {
            files::remove(link).map_err(FileError::on("remove", link))?;
        }
        out.line(format!("{}: {}", if dry_run { "to remove" } else { "removed" }, link.display()));
    }
    Ok(exit_code(dry_run && (done.changed || there || !links.is_empty())))
}

/// Also where Docker's configuration does not name the runtime any more.
async fn refuse_users(daemon_json: &Path, config: &Path) -> Result<(), Failed> {
    let containers = users::users(config, daemon_json)
        .await
        .map_err(|problem| RuntimeSetupError::Users(problem.into()))?;
    if !containers.is_empty() {
        return Err(RuntimeSetupError::InUse(containers).into());
    }
    // A configuration that cannot be read does not keep the programs here.
    let config = Config::load(config).unwrap_or_default();
    // The proxy holds what a container had for this long after its end.
    let begun = Instant::now();
    loop {
        let tasks = living_tasks(&config)?;
        if tasks.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > config.proxy.linger + LINGERING {
            return Err(NodeError::TasksLive(tasks).into());
        }
        tokio::time::sleep(LINGERING / 10).await;
    }
}

/// Links that `calicoctl install` and `node migrate` have left where programs are installed by hand.
fn links_to_us() -> Result<Vec<PathBuf>, Failed> {
    let own = std::env::current_exe().map_err(FileError::on("find", Path::new("/proc/self/exe")))?;
    Ok(migrate::links_to_us(Path::new(migrate::BY_HAND), own.parent().unwrap_or(Path::new("/")))?)
}

async fn without_runtime(arguments: &runtime::UninstallArgs, config: &Path) -> Result<Done, Failed> {
    // Asked beforehand, because the question is asked over the network and the removal is not.
    let users = users::users(config, &arguments.daemon_json).await;
    Ok(runtime::uninstall(arguments, || users.map_err(Into::into))?)
}

/// A dry run only reads.
fn require_root(verb: &'static str, dir: &Path, dry_run: bool) -> Result<(), NodeError> {
    match dry_run || nix::unistd::geteuid().is_root() {
        true => Ok(()),
        false => Err(NodeError::NotRoot(verb, dir.into())),
    }
}

fn absolute(dir: &Path) -> Result<PathBuf, NodeError> {
    std::path::absolute(dir).map_err(|source| NodeError::Folder(dir.into(), source))
}

/// Exit code 3 for a dry run that found something.
pub(super) fn exit_code(found: bool) -> ExitCode {
    if found {
        ExitCode::from(FOUND)
    } else {
        ExitCode::SUCCESS
    }
}

fn tell(done: &Done, out: &Out) {
    for sentence in &done.sentences {
        out.line(sentence);
    }
}

/// The address that is set; one that cannot be understood is a task's failure, not ours.
fn docker_elsewhere(config: &Path) -> Option<DockerHost> {
    let address = std::env::var("DOCKER_HOST").ok().or_else(|| Config::docker_only(config).host)?;
    DockerHost::parse(&address).ok()
}
