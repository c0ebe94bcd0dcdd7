//! Files on this host: the node's name, Felix's report, Calico's lock, and our hint.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{CalicoError, Identity};
use crate::config::Config;
use crate::host::files;
use crate::host::lock::take_file;
use crate::names::{ENDPOINT, NAMESPACE, ORCHESTRATOR};

/// A hint names a block or two; each one that is believed is read from etcd.
const LONGEST_HINT: u64 = 64 << 10;
const MOST_HINTS: usize = 8;
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

/// What earlier launches of a node found out. Only a guess: every block that it names is read from etcd and
/// checked like any other. So it needs no number for its form either: what another release wrote and this one cannot
/// read is no hint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Hint {
    /// The blocks from which the last addresses came: read together with everything else, so that an ordinary launch
    /// needs one trip.
    pub blocks: Vec<IpNet>,
    /// The pools for which the rest holds; see [`super::snapshot::Snapshot::pools_mark`].
    pub mark: String,
    /// The datastore's revision at which it was found out. An older datastore is another one, or a restored one.
    pub revision: i64,
    /// Blocks of the node that no other block overlaps.
    pub alone: Vec<IpNet>,
}

/// The hint for a node; an empty one where there is none.
pub(super) fn read_hint(path: &Path, node: &str) -> Hint {
    let Ok(meta) = std::fs::metadata(path) else { return Hint::default() };
    if meta.uid() != nix::unistd::geteuid().as_raw() {
        return Hint::default();
    }
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_HINT).read_to_end(&mut text));
    if read.is_err() {
        return Hint::default();
    }
    let mut nodes: BTreeMap<String, Hint> = serde_json::from_slice(&text).unwrap_or_default();
    let mut hint = nodes.remove(node).unwrap_or_default();
    hint.blocks.truncate(MOST_HINTS);
    hint
}

/// Remembers a hint; a failure only costs the next launch a trip.
pub(super) fn write_hint(path: &Path, node: &str, hint: &Hint) {
    let text = serde_json::to_vec(&BTreeMap::from([(node, hint)])).unwrap_or_default();
    // With an owner of its own: a hint that belongs to another user is not read.
    if let Err(error) = files::replace_as(path, 0o600, |new| new.write_all(&text)) {
        tracing::debug!("cannot write the block for the next launch to {}: {error}", path.display());
    }
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

    #[test]
    fn a_hint_is_kept_for_its_node_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hint.json");
        assert_eq!(read_hint(&path, "a"), Hint::default());
        let blocks = vec!["10.0.0.0/26".parse().unwrap(), "fd00::/122".parse().unwrap()];
        let hint = Hint { alone: blocks.clone(), blocks, mark: "pools".into(), revision: 7 };
        write_hint(&path, "a", &hint);
        assert_eq!(read_hint(&path, "a"), hint);
        assert_eq!(read_hint(&path, "b"), Hint::default());
        // The last one is how the release before wrote it.
        for unreadable in ["garbage", "{\"a\": 1}", "{\"a\": [\"10.0.0.0/26\", \"fd00::/122\"]}"] {
            std::fs::write(&path, unreadable).unwrap();
            let hint = read_hint(&path, "a");
            assert!(hint.mark.is_empty() && hint.alone.is_empty(), "{hint:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_content_of_the_hint_file_is_read_as_a_hint_or_as_none(text in proptest::prop_oneof![
            "(?s).{0,60}", "\\{\"a\": \\{\"blocks\": \\[(\"[0-9a-f.:/]{0,15}\",?){0,12}\\]\\}\\}",
        ]) {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            proptest::prop_assert!(read_hint(file.path(), "a").blocks.len() <= MOST_HINTS);
        }
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
