//! What is left of a place after it was closed: its folder, mounts in it, processes that belong to it.

use std::path::Path;

use crate::host::processes::command_line;
use crate::rig::daemons::members;

/// One entry a thing; empty when all is gone.
pub fn of(folder: &Path) -> Vec<String> {
    let name = folder.to_string_lossy();
    let mut left = Vec::new();
    if folder.symlink_metadata().is_ok() {
        left.push(format!("folder {name}"));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    left.extend(
        points.filter(|point| Path::new(point).starts_with(folder)).map(|point| format!("mount {point}")),
    );
    for pid in members(folder) {
        // One that has ended meanwhile is not left.
        let Some(words) = command_line(pid) else { continue };
        left.push(format!("process {pid} ({})", words.join(" ").trim()));
    }
    left
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn waiting(set_up: impl FnOnce(&mut Command) -> &mut Command) -> Child {
        let mut command = Command::new("/bin/sh");
        set_up(command.args(["-c", "echo; read line"]));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Its first word: from then on it is the shell, no longer a copy of this process.
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        child
    }

    #[test]
    fn processes_of_the_folder_are_left_behind_and_those_that_look_at_it_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let sandbox = dir.path().join("agent/slaves");
        std::fs::create_dir_all(&sandbox).unwrap();
        let executor = waiting(|command| command.env("MESOS_DIRECTORY", &sandbox).current_dir("/"));
        let names_it = waiting(|command| command.arg(dir.path()));
        let is_in_it = waiting(|command| command.current_dir(&sandbox));
        let left = of(dir.path());
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left[0].starts_with("folder "), "{left:?}");
        assert!(left[1].starts_with(&format!("process {} ", executor.id())), "{left:?}");
        let path = dir.path().to_owned();
        for mut child in [executor, names_it, is_in_it] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        dir.close().unwrap();
        assert!(of(&path).is_empty());
    }
}
