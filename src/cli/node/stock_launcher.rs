//! Where the agent's own programs lie: the folder from which our launcher folder is made.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::agents::FoundAgent;
use super::launcher_folder::{self, LauncherFolderError, EXECUTOR};

/// Where packages, `make install` and DC/OS put them.
const USUAL: [&str; 4] = [
    "/usr/libexec/mesos",
    "/usr/local/libexec/mesos",
    "/opt/mesos/libexec/mesos",
    "/opt/mesosphere/active/mesos/libexec/mesos",
];

#[derive(Debug, thiserror::Error)]
pub enum LauncherError {
    #[error("no {EXECUTOR} in {}; --from must be the agent's own launcher folder", .0.display())]
    NoLauncher(PathBuf),
    #[error("no folder with Mesos' own programs was found ({}); name it with --from", USUAL.join(", "))]
    NotFound,
    #[error("the agents of this host have several launcher folders ({}); name one with --from", .0.join(", "))]
    Several(Vec<String>),
    #[error("{} is itself a folder of links that calico-mesos made; --from must be the agent's own launcher folder", .0.display())]
    OwnFolder(PathBuf),
}

/// The folder that was named; else that of a running agent, the one that ours was made from
/// before, or one of the usual places.
pub fn find(
    named: Option<&Path>,
    ours: &Path,
    executor: &Path,
    agents: &[FoundAgent],
) -> Result<PathBuf, LauncherFolderError> {
    let from = match named {
        Some(named) => std::path::absolute(named).unwrap_or_else(|_| named.into()),
        None => look(ours, agents)?,
    };
    if !is_launcher(&from) {
        return Err(LauncherError::NoLauncher(from).into());
    }
    let is_ours = from.join(EXECUTOR).canonicalize().is_ok_and(|path| path == executor);
    if is_ours || launcher_folder::source_of(&from)?.is_some() {
        return Err(LauncherError::OwnFolder(from).into());
    }
    Ok(from)
}

fn look(ours: &Path, agents: &[FoundAgent]) -> Result<PathBuf, LauncherFolderError> {
    let agents = agents.iter().filter(|agent| !agent.launches_from(ours));
    let theirs: BTreeSet<&PathBuf> = agents.filter_map(|agent| agent.launcher_dir.as_ref()).collect();
    let mut theirs = theirs.into_iter();
    match (theirs.next(), theirs.next()) {
        (Some(only), None) => return Ok(only.clone()),
        (Some(first), Some(second)) => {
            let all = [first, second].into_iter().chain(theirs);
            return Err(LauncherError::Several(all.map(|dir| dir.display().to_string()).collect()).into());
        }
        (None, _) => {}
    }
    let before = launcher_folder::source_of(ours)?.filter(|dir| is_launcher(dir));
    let usual = || USUAL.iter().map(PathBuf::from).find(|dir| is_launcher(dir));
    Ok(before.or_else(usual).ok_or(LauncherError::NotFound)?)
}

fn is_launcher(dir: &Path) -> bool {
    dir.join(EXECUTOR).exists()
}
