//! The processes that belong to a private folder: its daemons, what these started, executors and their tasks.
//!
//! They are known by the environment of their start, which children inherit: daemons are started with [`MARK`],
//! an agent gives executors and tasks the sandbox's path. Processes in containers have the image's environment, so they
//! are known by the cgroup that dockerd was given. A command line proves nothing, and a working directory neither:
//! an editor, a pager or a shell in which a person looks at the folder has these too.

use std::fs;
use std::path::Path;

use super::dockerd::Folders;
use super::stack::DOCKER;
use crate::host::processes::{environment, pids, Stat};

/// Names a path in the folder that a daemon belongs to.
pub(super) const MARK: &str = "CALICO_MESOS_PRIVATE";
/// All variables that do so.
const MARKS: [&str; 3] = [MARK, "MESOS_DIRECTORY", "MESOS_SANDBOX"];

/// Living processes of the private cluster in `folder`, or of an agent whose work directory is in there.
pub fn members(folder: &Path) -> Vec<i32> {
    of(folder, &Folders::below(&folder.join(DOCKER)).cgroup)
}

/// Living processes with a mark of `folder`, or in a cgroup below `cgroup`; never this process itself.
pub(super) fn of(folder: &Path, cgroup: &str) -> Vec<i32> {
    let own = std::process::id() as i32;
    let in_cgroup = format!("{cgroup}/");
    pids()
        .filter(|pid| *pid != own)
        .filter(|pid| {
            is_marked(*pid, folder)
                || fs::read_to_string(format!("/proc/{pid}/cgroup"))
                    .is_ok_and(|text| text.contains(&in_cgroup))
        })
        .filter(|pid| Stat::of(*pid).is_some_and(|stat| !stat.is_dead()))
        .collect()
}

fn is_marked(pid: i32, folder: &Path) -> bool {
    let of_folder = |line: &String| {
        line.split_once('=')
            .is_some_and(|(name, value)| MARKS.contains(&name) && Path::new(value).starts_with(folder))
    };
    environment(pid).is_some_and(|variables| variables.iter().any(of_folder))
}
