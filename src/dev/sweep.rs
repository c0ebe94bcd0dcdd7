//! Removing what a private dockerd leaves when it does not end by itself: processes, mounts, cgroups.
//!
//! Containers and their shims outlive a killed dockerd on purpose. Ours are told from everybody else's
//! by two names that no other daemon has: the cgroup parent given to dockerd, and its exec root, which
//! stands on the command line of every containerd, shim and runtime call that it starts.
//!
//! [`abandoned`] does the same for whole folders whose owner was killed so hard that nothing ran.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{umount2, MntFlags};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use crate::processes::{pids, Stat};

/// The file in a private folder that says whose it is: process id and start time.
const OWNER: &str = "owner";
/// How private folders begin; short, for socket paths in them must stay below 108 bytes.
pub(super) const PREFIX: &str = "cmdev-";

/// Kills every process of that exec root and cgroup parent, and removes their mounts and cgroups.
///
/// Blocking, a few milliseconds as a rule: it also runs when a value is dropped.
pub(super) fn daemon(exec_root: &Path, data_root: &Path, cgroup: &str) {
    let sockets = shim_sockets(exec_root);
    let begin = Instant::now();
    loop {
        let left = processes(exec_root, cgroup);
        if left.is_empty() || begin.elapsed() > Duration::from_secs(5) {
            break;
        }
        for pid in left {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    for socket in sockets {
        // A shim that ended by itself has removed it.
        let _ = fs::remove_file(socket);
    }
    unmount_below(exec_root);
    unmount_below(data_root);
    remove_cgroups(cgroup);
}

/// Shims listen in a folder that all containerds of a machine share; each notes where.
fn shim_sockets(exec_root: &Path) -> Vec<PathBuf> {
    let containers = exec_root.join("containerd/daemon/io.containerd.runtime.v2.task/moby");
    fs::read_dir(containers)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let address = fs::read_to_string(entry.path().join("address")).ok()?;
            Some(PathBuf::from(address.trim().strip_prefix("unix://")?))
        })
        .collect()
}

/// Marks a folder as this process's own.
pub(super) fn claim(dir: &Path) -> io::Result<()> {
    let pid = std::process::id();
    fs::write(dir.join(OWNER), format!("{pid} {}\n", start_time(pid as i32).unwrap_or(0)))
}

/// Removes the private folders below `base`, with all that still runs from them, whose owners are dead.
/// Returns what was removed.
pub fn abandoned(base: &Path) -> Vec<PathBuf> {
    let mut removed = Vec::new();
    for dir in siblings(base) {
        if !owner_is_dead(&dir) {
            continue;
        }
        let docker = super::dockerd::Folders::below(&dir.join(super::stack::DOCKER));
        daemon(&docker.exec_root, &docker.data_root, &docker.cgroup);
        unmount_below(&dir);
        footprint::remove(&dir);
        if fs::remove_dir_all(&dir).is_ok() {
            removed.push(dir);
        }
    }
    removed
}

fn owner_is_dead(dir: &Path) -> bool {
    let Ok(text) = fs::read_to_string(dir.join(OWNER)) else { return false };
    let mut words = text.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(started))) = (words.next(), words.next()) else { return false };
    start_time(pid as i32) != Some(started)
}

fn start_time(pid: i32) -> Option<u64> {
    Stat::of(pid)?.start_time()
}

/// Of the folders below `base`, this one included, those that private daemons use or have left.
fn siblings(base: &Path) -> Vec<PathBuf> {
    let is_ours = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(PREFIX);
    fs::read_dir(base).into_iter().flatten().flatten().filter(is_ours).map(|entry| entry.path()).collect()
}

fn processes(exec_root: &Path, cgroup: &str) -> Vec<i32> {
    let own = std::process::id() as i32;
    let prefix = exec_root.as_os_str().as_bytes();
    let in_cgroup = format!("{cgroup}/");
    pids()
        .filter(|pid| *pid != own)
        .filter(|pid| {
            let of_exec_root = fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.split(|byte| *byte == 0).any(|argument| names(argument, prefix)));
            of_exec_root
                || fs::read_to_string(format!("/proc/{pid}/cgroup"))
                    .is_ok_and(|text| text.contains(&in_cgroup))
        })
        .filter(|pid| Stat::of(*pid).is_some_and(|stat| !stat.is_dead()))
        .collect()
}

/// `PATH…`, as containerd and its children are called, or dockerd's own `--exec-root=PATH`.
fn names(argument: &[u8], path: &[u8]) -> bool {
    argument.strip_prefix(b"--exec-root=").unwrap_or(argument).starts_with(path)
}

/// Detaches every mount at or below `dir`, the innermost first.
pub(super) fn unmount_below(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| Some(PathBuf::from(line.split(' ').nth(4)?.replace("\\040", " "))))
        .filter(|point| point.starts_with(dir))
        .collect();
    points.sort();
    for point in points.iter().rev() {
        let _ = umount2(point, MntFlags::MNT_DETACH);
    }
}

/// Removes the cgroup of that name from every hierarchy, with the empty ones inside it.
fn remove_cgroups(cgroup: &str) {
    let base = Path::new("/sys/fs/cgroup");
    let name = cgroup.trim_start_matches('/');
    let mut tops = vec![base.join(name)];
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        tops.push(entry.path().join(name));
    }
    for top in tops {
        remove_cgroup(&top);
    }
}

/// A cgroup is removed like an empty folder; its files vanish with it.
fn remove_cgroup(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let begin = Instant::now();
    // Busy for a moment after its last process has gone.
    while dir.exists() && fs::remove_dir(dir).is_err() && begin.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// dockerd and containerd make a few folders at fixed places, whatever they are told. Who finds them
/// missing notes that, and the last one that notes it removes them.
pub(super) mod footprint {
    use super::*;

    const FILE: &str = "footprint";
    /// The innermost first, for a folder is removed only when empty.
    const PLACES: [&str; 9] = [
        "/etc/docker/key.json",
        "/etc/docker",
        "/opt/containerd/bin",
        "/opt/containerd/lib",
        "/opt/containerd",
        "/run/containerd/s",
        "/run/containerd",
        "/run/docker/plugins",
        "/run/docker",
    ];

    /// Called before a dockerd is started for `dir`.
    pub fn note(dir: &Path) -> io::Result<()> {
        let of_others = noted_by_others(dir);
        let missing =
            |place: &&str| !Path::new(place).exists() || of_others.iter().any(|other| other == place);
        let lines: Vec<&str> = PLACES.into_iter().filter(missing).collect();
        fs::write(dir.join(FILE), lines.join("\n"))
    }

    /// Called after it has ended.
    pub fn remove(dir: &Path) {
        let noted = fs::read_to_string(dir.join(FILE)).unwrap_or_default();
        let of_others = noted_by_others(dir);
        for place in noted.lines().filter(|place| !of_others.iter().any(|other| other == place)) {
            let _ = match place {
                "/etc/docker/key.json" => fs::remove_file(place),
                _ => fs::remove_dir(place),
            };
        }
        // From now on a sibling that ends later is the last.
        let _ = fs::remove_file(dir.join(FILE));
    }

    fn noted_by_others(dir: &Path) -> Vec<String> {
        let others = siblings(dir.parent().unwrap_or(dir)).into_iter().filter(|other| other != dir);
        others
            .filter_map(|other| fs::read_to_string(other.join(FILE)).ok())
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_dead_owners_are_removed() {
        let base = tempfile::tempdir().unwrap();
        let (mine, dead, other) =
            (base.path().join("cmdev-mine"), base.path().join("cmdev-dead"), base.path().join("other"));
        for dir in [&mine, &dead, &other] {
            fs::create_dir(dir).unwrap();
            claim(dir).unwrap();
        }
        // The same number, but a process that started at another time.
        fs::write(dead.join(OWNER), format!("{} 1\n", std::process::id())).unwrap();
        assert_eq!(abandoned(base.path()), std::slice::from_ref(&dead));
        assert!(mine.exists() && other.exists() && !dead.exists());
    }
}
