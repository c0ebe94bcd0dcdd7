//! What a container leaves on the host when its containerd was killed before it could clean up: the shim, and the
//! container's cgroups.
//!
//! Neither Docker nor containerd finds them again once they have dropped the container: a containerd that starts
//! cleans up behind shims that it has on record, but not where the shim had not been asked to create anything; and
//! `runc create` that is killed with its containerd leaves cgroups of which not even runc has a record.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{umount2, MntFlags};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use super::process::HostProcess;

/// A shim usually ends a moment after its container, and its cgroups a moment after that.
const LAG: Duration = Duration::from_secs(2);
/// How long a cgroup may stay busy after its last process was killed.
const BUSY: Duration = Duration::from_secs(1);
/// How long a killed shim may take: one that hangs in the kernel is left to the next cleaner.
const DYING: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);
const CGROUPS: &str = "/sys/fs/cgroup";
/// Length of Docker's ids, in hexadecimal digits.
const ID: usize = 64;

/// The folder of all bundles below containerd's state, in which each has its container's id as its name.
const BUNDLES: &str = "io.containerd.runtime.v2.task";

/// What could not be ended or removed.
#[derive(Debug, thiserror::Error)]
pub enum RemainsError {
    #[error(
        "cannot remove the cgroup {path} of a container that has ended; `rmdir {path}` does once it is empty"
    )]
    CgroupStays {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("the shim of container {id} was killed and has not ended; the kernel may hold it in a call to a device")]
    ShimStays { id: String },
}

/// Ends the shim of a container that Docker does not run any more, and removes its cgroups; waits a moment first,
/// since both usually go by themselves. True when something had to be ended.
pub async fn end_remains(id: &str) -> Result<bool, RemainsError> {
    // The id becomes part of a path that is removed.
    if id.len() != ID || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(false);
    }
    let mut ended = false;
    if let Some(shim) = HostProcess::shim(id) {
        let bundle = shim.folder();
        ended = tokio::time::timeout(LAG, shim.gone()).await.is_err() && shim.kill();
        if ended {
            if tokio::time::timeout(DYING, shim.gone()).await.is_err() {
                return Err(RemainsError::ShimStays { id: id.to_owned() });
            }
            if let Some(bundle) = bundle.filter(|bundle| is_blank(bundle, id)) {
                remove_bundle(&bundle);
            }
            tracing::warn!("ended the shim of container {id}, which Docker does not run any more");
        }
    }
    let begun = Instant::now();
    loop {
        match in_background(id, find).await {
            Some(left) if !left.is_empty() && begun.elapsed() < LAG => tokio::time::sleep(POLL).await,
            Some(left) if !left.is_empty() => break,
            _ => return Ok(ended),
        }
    }
    let remove_all = |id: &str| find(id).iter().try_for_each(|path| remove(path));
    in_background(id, remove_all).await.unwrap_or(Ok(()))?;
    tracing::warn!("removed the cgroups of container {id}, which Docker does not run any more");
    Ok(true)
}

/// The bundle of a shim that has created nothing: containerd cannot clean it up, for it first looks into the file
/// `runtime`, which a shim writes when it is asked to create.
fn is_blank(bundle: &Path, id: &str) -> bool {
    bundle.file_name().is_some_and(|name| name == id)
        && bundle.ancestors().any(|folder| folder.file_name().is_some_and(|name| name == BUNDLES))
        && !bundle.join("runtime").exists()
}

fn remove_bundle(bundle: &Path) {
    // Nothing is mounted there as a rule.
    let _ = umount2(&bundle.join("rootfs"), MntFlags::MNT_DETACH);
    match fs::remove_dir_all(bundle) {
        Ok(()) => tracing::warn!("removed {}, which containerd cannot clean up", bundle.display()),
        // It holds nothing but a few files in memory, and a restart of the host clears it away.
        Err(error) if bundle.exists() => tracing::warn!("{} stays: {error}", bundle.display()),
        Err(_) => {}
    }
}

/// Looking through all cgroups of a host takes milliseconds.
async fn in_background<T: Send + 'static>(
    id: &str,
    work: impl FnOnce(&str) -> T + Send + 'static,
) -> Option<T> {
    let id = id.to_owned();
    // None after a panic, which its hook has reported, or when the runtime ends.
    tokio::task::spawn_blocking(move || work(&id)).await.ok()
}

/// The container's cgroups in every hierarchy, as both of Docker's drivers name them.
fn find(id: &str) -> Vec<PathBuf> {
    let names = [id.to_owned(), format!("docker-{id}.scope")];
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(CGROUPS)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            // A symbolic link is another name of a hierarchy, such as `cpu` for `cpu,cpuacct`.
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            match names.iter().any(|name| entry.file_name() == name.as_str()) {
                true => found.push(entry.path()),
                false => folders.push(entry.path()),
            }
        }
    }
    found
}

/// Kills what is in the cgroup and removes it, the innermost first.
fn remove(path: &Path) -> Result<(), RemainsError> {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    let begun = Instant::now();
    loop {
        let inside = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        for pid in inside.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0) {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) if begun.elapsed() < BUSY => std::thread::sleep(POLL),
            Err(source) => {
                return Err(RemainsError::CgroupStays { path: path.display().to_string(), source })
            }
            Ok(()) => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_not_an_id_of_docker_is_never_looked_for() {
        for id in ["", "docker", "../..", &"g".repeat(ID), &"a".repeat(ID - 1)] {
            assert!(!end_remains(id).await.unwrap(), "{id}");
        }
        assert!(find(&"0".repeat(ID)).is_empty());
    }

    #[test]
    fn only_bundles_that_containerd_cannot_clean_up_are_removed() {
        let base = tempfile::tempdir().unwrap();
        let (id, other) = ("a".repeat(ID), "b".repeat(ID));
        let bundle = base.path().join(BUNDLES).join("moby").join(&id);
        fs::create_dir_all(bundle.join("rootfs")).unwrap();
        fs::write(bundle.join("config.json"), "{}").unwrap();
        assert!(is_blank(&bundle, &id));
        assert!(
            !is_blank(&bundle, &other)
                && !is_blank(base.path(), &id)
                && !is_blank(&base.path().join(&id), &id)
        );
        remove_bundle(&bundle);
        assert!(!bundle.exists() && bundle.parent().unwrap().exists());
        fs::create_dir_all(&bundle).unwrap();
        fs::write(bundle.join("runtime"), "runc").unwrap();
        assert!(!is_blank(&bundle, &id), "its shim has created something");
    }
}
