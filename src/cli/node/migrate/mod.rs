//! `calico-mesos node migrate`: from programs that were installed by hand to those of the package, under living tasks.
//!
//! ```text
//!  daemon.json ─► Docker reloads ─► launcher folders ─► units ─► programs become links ─► systemd reloads, proxy restarts
//! ```
//!
//! All that could refuse comes first. Each step may be repeated, so that a run that was interrupted is finished by the
//! next one. Executors that run keep their program, and containers that live their runtime's place, by the link there.

mod programs;
mod units;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;

use crate::error::FileError;
use crate::host::processes::{command_line, pids};
use crate::workload::{ContainerState, Listed};

use super::super::output::Out;
use super::super::{programs as beside_us, runtime, Failed};
use super::launcher_folder::{self, LauncherFolder, LauncherFolderError, DEFAULT_DIR};
use super::{agents, exit_code, service, timer, trust, users};

use units::{UnitFolders, UnitStep, PROXY};

pub use programs::links as links_to_us;

/// Where programs are installed by hand.
pub const BY_HAND: &str = "/usr/local/bin";

#[derive(Debug, Args)]
pub struct Migrate {
    /// The folder in which the programs were installed by hand
    #[arg(long, value_name = "DIR", default_value = BY_HAND)]
    from: PathBuf,
    /// A launcher folder that `node install` made; those of running agents are found
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIR)]
    dir: PathBuf,
    /// Docker's configuration file
    #[arg(long, value_name = "FILE", default_value = runtime::DEFAULT_FILE)]
    daemon_json: PathBuf,
    /// Where units were installed by hand
    #[arg(long, value_name = "DIR", default_value = timer::FOLDER)]
    units: PathBuf,
    /// Remove the links that a run before has left in place of the programs; refused while a container needs one
    #[arg(long)]
    drop_links: bool,
    /// Only print what would be changed; exit code 3 when there is something
    #[arg(long, visible_alias = "check")]
    dry_run: bool,
}

#[derive(Debug, thiserror::Error)]
enum MigrateError {
    #[error("{0} is the folder of this program: run the package's, /usr/bin/calico-mesos node migrate")]
    Same(PathBuf),
    #[error("node migrate needs root: it changes Docker's configuration, units and {0} (try sudo)")]
    NotRoot(PathBuf),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Launcher(#[from] LauncherFolderError),
    #[error("cannot find out which containers still need {0}: {1}")]
    Containers(PathBuf, String),
    #[error("{0} is still needed by {1}: Docker stops and removes containers by the runtime with which they were started; end them first")]
    Needed(PathBuf, String),
}

/// Repeating it changes nothing.
pub async fn migrate(arguments: &Migrate, config: &Path, out: &Out) -> Result<ExitCode, Failed> {
    let (executor, runc) = (beside_us::executor(None)?, beside_us::runtime()?);
    let own = executor.parent().unwrap_or(Path::new("/")).to_owned();
    let from = super::absolute(&arguments.from)?;
    if from.canonicalize().is_ok_and(|from| from == own) {
        return Err(MigrateError::Same(from).into());
    }
    if !arguments.dry_run && !nix::unistd::geteuid().is_root() {
        return Err(MigrateError::NotRoot(from).into());
    }
    if arguments.drop_links {
        return drop_links(&from, &own, config, arguments.dry_run, out).await;
    }
    let warnings = trust::look_at(&[&executor, &runc])?;
    let plan = Plan::of(arguments, &from, &own, &executor)?;
    // Once without doing it: what refuses must do so before the first change.
    let runtime_is_ours =
        runtime::registered(&arguments.daemon_json)?.is_some_and(|path| path.parent() == Some(&from));
    if runtime_is_ours {
        runtime::install(&plan.runtime(true))?;
    }
    let mut sentences = warnings;
    if runtime_is_ours {
        sentences.extend(runtime::install(&plan.runtime(arguments.dry_run))?.sentences);
    }
    let found = runtime_is_ours || plan.any();
    sentences.extend(if arguments.dry_run { plan.told() } else { plan.carry_out()? });
    if !found {
        sentences.push(format!("nothing on this host leads to programs in {} any more", from.display()));
    }
    sentences.iter().for_each(|sentence| out.line(sentence));
    Ok(exit_code(arguments.dry_run && found))
}

/// What has to be changed, Docker's configuration apart.
struct Plan<'a> {
    arguments: &'a Migrate,
    folders: Vec<LauncherFolder>,
    units: UnitFolders<'a>,
    unit_steps: Vec<UnitStep>,
    links: Vec<(PathBuf, PathBuf)>,
    own: &'a Path,
    from: &'a Path,
    /// Proxies that run the program in `from`.
    proxies: Vec<i32>,
}

impl<'a> Plan<'a> {
    fn of(
        arguments: &'a Migrate,
        from: &'a Path,
        own: &'a Path,
        executor: &Path,
    ) -> Result<Self, MigrateError> {
        let mut dirs: Vec<PathBuf> =
            agents::running().into_iter().filter_map(|agent| agent.launcher_dir).collect();
        dirs.push(arguments.dir.clone());
        dirs.sort();
        dirs.dedup();
        let mut folders = Vec::new();
        for dir in dirs {
            let Some((agents_own, theirs)) = launcher_folder::made_of(&dir)? else { continue };
            if theirs.parent() == Some(from) {
                folders.push(LauncherFolder::of(&dir, &agents_own, executor)?);
            }
        }
        // What is in the way is found before anything changes.
        folders.iter().try_for_each(|folder| folder.steps().map(drop))?;
        let units = UnitFolders {
            by_hand: &arguments.units,
            packaged: Path::new(timer::PACKAGED),
            old: from.join("calico-mesos"),
            new: own.join("calico-mesos"),
        };
        Ok(Self {
            arguments,
            folders,
            unit_steps: units.steps()?,
            units,
            links: programs::to_link(from, own)?,
            own,
            from,
            proxies: proxies(from),
        })
    }

    fn runtime(&self, dry_run: bool) -> runtime::InstallArgs {
        runtime::InstallArgs {
            daemon_json: self.arguments.daemon_json.clone(),
            runtime: Some(self.own.join("calico-runc")),
            reload: true,
            dry_run,
        }
    }

    fn any(&self) -> bool {
        !self.folders.is_empty()
            || !self.unit_steps.is_empty()
            || !self.links.is_empty()
            || !self.proxies.is_empty()
    }

    fn told(&self) -> Vec<String> {
        let folders = self.folders.iter().map(|folder| format!("to change: {}", folder.dir().display()));
        let units = self.unit_steps.iter().map(|step| match step {
            UnitStep::Remove(path) => format!("to remove: {}, as the package has the same", path.display()),
            UnitStep::Rewrite(path, _) => format!("to change: {}", path.display()),
        });
        let links = self.links.iter().map(|(place, target)| {
            format!("to replace: {} by a link to {}", place.display(), target.display())
        });
        let proxies = self.proxies.iter().map(|pid| format!("to restart: the proxy (pid {pid})"));
        folders.chain(units).chain(links).chain(proxies).collect()
    }

    fn carry_out(&self) -> Result<Vec<String>, MigrateError> {
        let mut sentences = Vec::new();
        for folder in &self.folders {
            folder.make()?;
            sentences.push(format!("{} leads to {}", folder.dir().display(), self.own.display()));
        }
        self.units.apply(&self.unit_steps)?;
        for step in &self.unit_steps {
            sentences.push(match step {
                UnitStep::Remove(path) => {
                    format!("{} is removed, as the package has the same", path.display())
                }
                UnitStep::Rewrite(path, _) => {
                    format!(
                        "{} calls the program in {}; its other lines stay",
                        path.display(),
                        self.own.display()
                    )
                }
            });
        }
        programs::link(&self.links)?;
        for (place, target) in &self.links {
            sentences.push(format!("{} is a link to {}", place.display(), target.display()));
        }
        if !self.links.is_empty() {
            sentences.push(format!(
                "the links serve containers that live and apps that name the old path: when there are none, remove them with \
                 {}/calico-mesos node migrate --drop-links",
                self.own.display()
            ));
        }
        sentences.extend(self.systemd());
        Ok(sentences)
    }

    /// Makes systemd read the units, and the proxy run the new program.
    fn systemd(&self) -> Vec<String> {
        let by_systemd =
            self.arguments.units == Path::new(timer::FOLDER) && Path::new("/run/systemd/system").exists();
        let mut sentences = Vec::new();
        let mut call = |words: &[&str]| {
            let done = service::systemctl_succeeds(words);
            let line = format!("systemctl {}", words.join(" "));
            sentences.push(if done {
                format!("done: {line}")
            } else {
                format!("warning: '{line}' failed: run it again")
            });
        };
        if by_systemd && !self.unit_steps.is_empty() {
            call(&["daemon-reload"]);
        }
        if by_systemd && !self.proxies.is_empty() {
            call(&["try-restart", PROXY]);
        }
        for pid in proxies(self.from).iter().filter(|pid| self.proxies.contains(pid)) {
            sentences.push(format!(
                "the proxy (pid {pid}) still runs the program in {}: start it anew",
                self.from.display()
            ));
        }
        sentences
    }
}

/// Proxies that were started as a program in this folder.
fn proxies(from: &Path) -> Vec<i32> {
    let program = from.join("calico-mesos");
    let is_one = |pid: &i32| {
        command_line(*pid).is_some_and(|words| {
            words.first().is_some_and(|first| Path::new(first) == program)
                && words.iter().any(|word| word == "proxy")
        })
    };
    pids().filter(is_one).collect()
}

async fn drop_links(
    from: &Path,
    own: &Path,
    config: &Path,
    dry_run: bool,
    out: &Out,
) -> Result<ExitCode, Failed> {
    let mut links = programs::links(from, own)?;
    // `calicoctl` is no remnant: that name is for the operator.
    links.retain(|link| link.file_name().is_some_and(|name| name != programs::FRONT_END));
    if let Some(link) = links.iter().find(|link| link.file_name().is_some_and(|name| name == "calico-runc")) {
        let containers = users::containers(config)
            .await
            .map_err(|problem| MigrateError::Containers(link.clone(), problem))?;
        let needy = started_by(&containers, programs::made(link));
        if !needy.is_empty() {
            return Err(MigrateError::Needed(link.clone(), needy.join(", ")).into());
        }
    }
    for link in &links {
        if !dry_run {
            crate::host::files::remove(link).map_err(FileError::on("remove", link))?;
        }
        let words = if dry_run { "to remove: " } else { "removed: " };
        out.line(format!("{words}{}", link.display()));
    }
    Ok(exit_code(dry_run && !links.is_empty()))
}

/// The containers that live and are older than the link. One that was started again since is counted too: it waits for
/// the next run.
fn started_by(containers: &[Listed], made: Option<SystemTime>) -> Vec<String> {
    let older = |container: &&Listed| {
        container.state == ContainerState::Living
            && match (container.created, made) {
                (Some(created), Some(made)) => created <= made,
                _ => true,
            }
    };
    containers.iter().filter(older).map(|container| container.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_living_containers_that_are_older_need_the_link() {
        let made = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let container = |name: &str, created: u64, state| Listed {
            id: name.to_owned(),
            name: name.to_owned(),
            state,
            created: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(created)),
            isolated: true,
            healthy: None,
        };
        let containers = [
            container("old", 50, ContainerState::Living),
            container("ended", 50, ContainerState::Exited),
            container("new", 150, ContainerState::Living),
        ];
        assert_eq!(started_by(&containers, Some(made)), ["old"]);
        assert_eq!(started_by(&containers, None), ["old", "new"]);
    }
}
