//! Files on this host: the node's name, Felix's report, and Calico's lock.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{CalicoError, Identity};
use crate::config::Config;
use crate::host::lock::take_file;
use crate::names::{ENDPOINT, NAMESPACE, ORCHESTRATOR};

const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// Calico's name of this host: the configured one, else what calico/node wrote down, else the host name
/// in lower case, the same order in which Calico's own programs look.
pub fn node_name(config: &Config) -> Result<String, CalicoError> {
    if let Some(name) = &config.node.name {
        return Ok(name.clone());
    }
    let path = &config.paths.nodename_file;
    match std::fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(CalicoError::File { path: path.clone(), source }),
    }
    let name = std::fs::read_to_string(HOSTNAME).unwrap_or_default().trim().to_lowercase();
    if name.is_empty() {
        return Err(CalicoError::NoHostName);
    }
    Ok(name)
}

/// The file that Felix writes once it has programmed the endpoint, and removes when it is down.
pub fn endpoint_status_file(config: &Config, identity: &Identity) -> PathBuf {
    let workload = format!("{NAMESPACE}/{}", identity.workload);
    config.paths.endpoint_status.join(status_file_name(ORCHESTRATOR, &workload, ENDPOINT))
}

/// The name of that file; the workload has its namespace before it.
pub(super) fn status_file_name(orchestrator: &str, workload: &str, endpoint: &str) -> String {
    [orchestrator, workload, endpoint].map(|part| part.replace('%', "%25").replace('/', "%2F")).join(" ")
}

/// Takes the lock that Calico's own IPAM plugin takes around its work, waiting for `limit` at most.
///
/// Only a courtesy that spares launches on one host each other's conflicts: nothing depends on it, so a
/// file that cannot be had or stays locked is no error.
pub(super) async fn ipam_lock(path: &Path, limit: Duration) -> Option<File> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(path).ok()?;
    take_file(file, limit).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::limits::{IPAM_LOCK, IPAM_LOCK_RELEASE};

    #[test]
    fn the_node_is_named_in_calicos_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.paths.nodename_file = dir.path().join("nodename");
        let host = std::fs::read_to_string(HOSTNAME).unwrap().trim().to_lowercase();
        assert_eq!(node_name(&config).unwrap(), host);
        std::fs::write(&config.paths.nodename_file, "Agent-1\n").unwrap();
        assert_eq!(node_name(&config).unwrap(), "Agent-1");
        config.node.name = Some("other".into());
        assert_eq!(node_name(&config).unwrap(), "other");
    }

    #[tokio::test(start_paused = true)]
    async fn the_lock_is_waited_for_until_its_time_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ipam.lock");
        let held = ipam_lock(&path, Duration::ZERO).await.unwrap();
        for limit in [IPAM_LOCK, IPAM_LOCK_RELEASE] {
            let begun = Instant::now();
            assert!(ipam_lock(&path, limit).await.is_none());
            let took = begun.elapsed();
            assert!(
                (limit..limit + Duration::from_millis(50)).contains(&took),
                "{took:?} instead of {limit:?}"
            );
        }
        drop(held);
        assert!(ipam_lock(&path, Duration::ZERO).await.is_some());
        assert!(ipam_lock(&dir.path().join("no/such/folder"), Duration::ZERO).await.is_none());
    }
}
