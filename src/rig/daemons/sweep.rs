//! Removing what a private dockerd leaves when it does not end by itself: processes, mounts, cgroups.
//!
//! Containers and their shims outlive a killed dockerd on purpose. [`members`] finds those of a folder.
//!
//! [`abandoned`] does the same for whole folders whose owner was killed so hard that nothing ran. An owner holds
//! a lock on a file in its folder, which the kernel releases when the owner ends, however it ends. Its pid would prove
//! nothing: it cannot be seen from another pid namespace.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{umount2, MntFlags};
use nix::sys::signal::{kill, Signal};
use nix::unistd::{geteuid, Pid};

use super::dockerd::Folders;
use super::members;
use crate::config::Paths;
use crate::error::chain;
use crate::names::ContainerId;
use crate::net::{self, NetError};

/// The file in a private folder that its owner holds locked.
const OWNER: &str = "owner";
/// How its text begins. Earlier builds held no lock on a file of that name: their folders are never swept.
const LOCKED: &str = "locked by process";
/// How private folders begin; short, for socket paths in them must stay below 108 bytes.
pub(super) const PREFIX: &str = crate::host::files::PRIVATE_CLUSTER;

/// Kills every process of the dockerd in `dir` and in its cgroup, and removes their mounts and cgroups.
///
/// Blocking, a few milliseconds as a rule: it also runs when a value is dropped.
pub(super) fn daemon(dir: &Path) {
    let Folders { exec_root, data_root, cgroup } = Folders::below(dir);
    let sockets = shim_sockets(&exec_root);
    end(|| members::of(dir, &cgroup));
    for socket in sockets {
        // A shim that ended by itself has removed it.
        let _ = fs::remove_file(socket);
    }
    unmount_below(&exec_root);
    unmount_below(&data_root);
    remove_cgroups(&cgroup);
}

/// Kills what is left of a cluster's processes: executors, which would make its folders again, and their tasks.
pub(super) fn rest(dir: &Path) {
    end(|| members::members(dir));
}

fn end(living: impl Fn() -> Vec<i32>) {
    let begin = Instant::now();
    loop {
        let left = living();
        if left.is_empty() || begin.elapsed() > Duration::from_secs(5) {
            break;
        }
        for pid in left {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
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

/// Marks a folder as this process's own, as long as the file is held.
pub(super) fn claim(dir: &Path) -> io::Result<File> {
    // Under another name until it is locked: an unlocked one is a dead owner's.
    let new = dir.join("owner.new");
    let mut file = File::create_new(&new)?;
    file.try_lock()?;
    writeln!(file, "{LOCKED} {}", std::process::id())?;
    fs::rename(new, dir.join(OWNER))?;
    Ok(file)
}

/// The folder is kept for people: no sweep removes it.
pub(super) fn disclaim(dir: &Path) {
    let _ = fs::remove_file(dir.join(OWNER));
}

/// Removes the private folders below `base`, with all that still runs from them, whose owners are dead.
/// Returns what was removed.
pub fn abandoned(base: &Path) -> Vec<PathBuf> {
    let mut removed = Vec::new();
    for dir in siblings(base) {
        // Held to the end: another sweep of the same folder leaves it to this one.
        let Some(_lock) = lock_of_the_dead(&dir) else { continue };
        rest(&dir);
        daemon(&dir.join(super::stack::DOCKER));
        unmount_below(&dir);
        if let Err(error) = restore_host(&dir) {
            // The next sweep tries again.
            tracing::warn!(
                "cannot restore what the tasks of {} changed on this host: {error}",
                dir.display()
            );
            continue;
        }
        footprint::remove(&dir);
        if fs::remove_dir_all(&dir).is_ok() {
            removed.push(dir);
        }
    }
    removed
}

/// Restores the host's network settings that tasks of the dead cluster changed, and removes their forwarded ports.
/// Settings that another cluster needs are left to that one.
fn restore_host(dir: &Path) -> Result<(), String> {
    let paths_of = |dir: &Path| Paths { run: dir.join("run"), state: dir.join("state"), ..Paths::default() };
    let paths = paths_of(dir);
    let clusters = siblings(dir.parent().unwrap_or(dir)).into_iter().filter(|other| other != dir);
    let mut others: Vec<PathBuf> = clusters.map(|other| paths_of(&other).local()).collect();
    others.push(Paths::default().local());
    let restore = async {
        net::local::abandon(&paths.local(), &others).await?;
        for record in fs::read_dir(paths.journal()).into_iter().flatten().flatten() {
            let path = record.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            if let Some(container) = stem.and_then(|stem| ContainerId::parse(stem).ok()) {
                net::forward::remove(&container).await?;
            }
        }
        Ok::<_, NetError>(())
    };
    // The caller's runtime cannot be blocked on: a thread with its own.
    std::thread::scope(|scope| {
        let blocking = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|error| error.to_string())?.block_on(restore).map_err(|error| chain(&error))
        });
        blocking.join().unwrap_or_else(|_| Err("an internal error of the sweep".to_owned()))
    })
}

/// The lock of an owner that no longer holds it.
fn lock_of_the_dead(dir: &Path) -> Option<File> {
    let mut file = File::open(dir.join(OWNER)).ok()?;
    file.try_lock().ok()?;
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.starts_with(LOCKED).then_some(file)
}

/// The folders below `base`, this one included, that private daemons of this user use or have left. `base` is
/// open to all users as a rule: what another one put there would decide what is removed.
fn siblings(base: &Path) -> Vec<PathBuf> {
    let user = geteuid().as_raw();
    let is_own = |meta: &fs::Metadata| meta.is_dir() && meta.uid() == user;
    let is_ours = |entry: &fs::DirEntry| {
        entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry.metadata().is_ok_and(|it| is_own(&it))
    };
    fs::read_dir(base).into_iter().flatten().flatten().filter(is_ours).map(|entry| entry.path()).collect()
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

/// dockerd and containerd make a few folders at fixed places, independent of their configuration. A process that finds
/// them missing notes that, and the last one that noted it removes them.
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
        let folders =
            ["cmdev-mine", "cmdev-dead", "cmdev-before", "other"].map(|name| base.path().join(name));
        let [mine, dead, before, other] = &folders;
        folders.iter().for_each(|dir| fs::create_dir(dir).unwrap());
        let _held = claim(mine).unwrap();
        drop((claim(dead).unwrap(), claim(other).unwrap()));
        // Without a lock there, whether the owner lives cannot be known for sure.
        fs::write(before.join(OWNER), "1 1\n").unwrap();
        assert_eq!(abandoned(base.path()), std::slice::from_ref(dead));
        assert!(mine.exists() && before.exists() && other.exists() && !dead.exists());
    }

    /// A private folder of another user, and a link to one of this user's.
    #[test]
    fn folders_of_other_users_are_left_alone() {
        let base = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        drop(claim(elsewhere.path()).unwrap());
        std::os::unix::fs::symlink(elsewhere.path(), base.path().join("cmdev-link")).unwrap();
        let theirs = base.path().join("cmdev-theirs");
        fs::create_dir(&theirs).unwrap();
        drop(claim(&theirs).unwrap());
        // Only root can give a folder away.
        if geteuid().is_root() {
            std::os::unix::fs::chown(&theirs, Some(65_534), None).unwrap();
            assert!(abandoned(base.path()).is_empty());
            assert!(theirs.exists());
            std::os::unix::fs::chown(&theirs, Some(0), None).unwrap();
        }
        assert_eq!(abandoned(base.path()), [theirs]);
        assert!(elsewhere.path().join(OWNER).exists());
    }
}
