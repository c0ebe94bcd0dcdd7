//! What a node's launches remember for the next one, so that it needs one trip to etcd.
//!
//! Only a guess: every block that a hint names is read from etcd and checked like any other. So it needs no number for
//! its form either: what another release wrote and this one cannot read is no hint.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::block::Block;
use super::plan::LaunchPlan;
use super::snapshot::Snapshot;
use super::Family;
use crate::host::files;

/// Bytes.
const LONGEST: u64 = 64 << 10;
/// Each one is read from etcd by every launch.
const MOST_BLOCKS: usize = 8;
/// A host's twenty blocks of each family.
const MOST_SPARE: usize = 40;

/// What earlier launches of a node found out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Hint {
    /// The blocks from which the next addresses will come: read together with everything else.
    pub blocks: Vec<IpNet>,
    /// The pools for which the rest holds; see [`Snapshot::pools_mark`].
    pub mark: String,
    /// The datastore's revision at which it was found out. An older datastore is another one, or a restored one.
    pub revision: i64,
    /// Blocks of the node that no other block overlaps.
    pub alone: Vec<IpNet>,
    /// Blocks that had room when they were last read, for when one of `blocks` has none left.
    pub spare: Vec<IpNet>,
    /// Where no new block found a place.
    pub full: Vec<Full>,
}

/// No block can be added to some pools, as long as there are so many blocks.
///
/// Pools have room for a certain number of blocks. Should one have gone and another one have come elsewhere, a launch
/// may borrow an address although it could claim a block: no harm is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Full {
    pub family: Family,
    /// The names of the pools.
    pub pools: Vec<String>,
    /// The number of the family's blocks, in all pools.
    pub blocks: i64,
}

impl Hint {
    /// The hint for a node; an empty one where there is none.
    pub(super) fn read(path: &Path, node: &str) -> Self {
        let Ok(meta) = std::fs::metadata(path) else { return Self::default() };
        if meta.uid() != nix::unistd::geteuid().as_raw() {
            return Self::default();
        }
        let mut text = Vec::new();
        let read = File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut text));
        if read.is_err() {
            return Self::default();
        }
        let mut nodes: BTreeMap<String, Self> = serde_json::from_slice(&text).unwrap_or_default();
        let mut hint = nodes.remove(node).unwrap_or_default();
        hint.blocks.truncate(MOST_BLOCKS);
        hint.spare.truncate(MOST_SPARE);
        hint.full.truncate(MOST_BLOCKS);
        hint
    }

    /// Remembers it; a failure only costs the next launch a trip.
    pub(super) fn write(&self, path: &Path, node: &str) {
        let text = serde_json::to_vec(&BTreeMap::from([(node, self)])).unwrap_or_default();
        // With an owner of its own: a hint that belongs to another user is not read.
        if let Err(error) = files::replace_as(path, 0o600, |new| new.write_all(&text)) {
            tracing::debug!("cannot write the block for the next launch to {}: {error}", path.display());
        }
    }

    /// What the next launch should have, after one that was written as planned. The same hint where nothing is new
    /// that would be worth a file's write.
    pub(super) fn after(&self, node: &str, snapshot: &Snapshot, plan: &LaunchPlan) -> Self {
        let still_holds = self.mark == plan.mark && self.revision <= snapshot.revision;
        let (blocks, spare) = self.next_blocks(node, snapshot, plan);
        let own = [Family::V4, Family::V6].map(|family| snapshot.affinities(node, family));
        let own: BTreeSet<IpNet> = own.into_iter().flatten().map(|(cidr, _)| cidr).collect();
        let matters =
            |cidr: &IpNet| own.contains(cidr) || plan.drafts.contains_key(cidr) || spare.contains(cidr);
        let mut alone: BTreeSet<IpNet> = plan.alone.iter().copied().filter(matters).collect();
        if still_holds {
            alone.extend(self.alone.iter().copied().filter(matters));
        }
        let alone = alone.into_iter().collect();
        match (still_holds, plan.tidy) {
            (true, _) => Self { blocks, spare, alone, full: self.next_full(plan), ..self.clone() },
            (false, true) => {
                let (mark, revision) = (plan.mark.clone(), snapshot.revision);
                Self { blocks, mark, revision, alone, spare, full: plan.full.clone() }
            }
            // Empty blocks to be given up under these pools have not been looked for yet.
            (false, false) => Self { blocks, spare, ..self.clone() },
        }
    }

    /// The blocks that served this launch come first next time, as long as they have room; then another one, of those
    /// that this launch has read or an earlier one has left.
    fn next_blocks(&self, node: &str, snapshot: &Snapshot, plan: &LaunchPlan) -> (Vec<IpNet>, Vec<IpNet>) {
        let (mut blocks, mut spare) = (Vec::new(), Vec::new());
        for family in [Family::V4, Family::V6] {
            let of_family = |cidr: &&IpNet| Family::of(cidr.addr()) == family;
            let served: Vec<IpNet> = plan.drafts.keys().filter(of_family).copied().collect();
            let before = self.spare.iter().filter(of_family).copied();
            if served.is_empty() {
                blocks.extend(self.blocks.iter().filter(of_family));
                spare.extend(before);
                continue;
            }
            let seen = snapshot.blocks_beside(family, &plan.drafts);
            let is_own = |block: &Block| block.is_affine_to(node);
            let borrows =
                served.iter().any(|cidr| plan.drafts.get(cidr).is_some_and(|(block, _)| !is_own(block)));
            let serving =
                seen.iter().filter(|(cidr, block)| has_room(cidr, block) && (borrows || is_own(block)));
            let unseen = |cidr: &IpNet| {
                !plan.drafts.contains_key(cidr) && !seen.iter().any(|(other, _)| other == cidr)
            };
            let others = serving.map(|(cidr, _)| *cidr).chain(before.filter(unseen));
            let mut others: Vec<IpNet> = others.take(MOST_SPARE / 2).collect();
            let mut roomy = served.clone();
            roomy.retain(|cidr| plan.drafts.get(cidr).is_some_and(|(block, _)| has_room(cidr, block)));
            blocks.extend(match (roomy.is_empty(), others.is_empty()) {
                (false, _) => roomy,
                (true, false) => vec![others.remove(0)],
                // What it gets back is found at once.
                (true, true) => served,
            });
            spare.extend(others);
        }
        (blocks, spare)
    }

    /// Where a block was claimed there is room again.
    fn next_full(&self, plan: &LaunchPlan) -> Vec<Full> {
        let claims = |family| {
            plan.drafts
                .iter()
                .any(|(cidr, (_, revision))| *revision == 0 && Family::of(cidr.addr()) == family)
        };
        let mut full = plan.full.clone();
        let replaced =
            |old: &Full| plan.full.iter().any(|new| (new.family, &new.pools) == (old.family, &old.pools));
        full.extend(self.full.iter().filter(|old| !replaced(old) && !claims(old.family)).cloned());
        full.truncate(MOST_BLOCKS);
        full
    }
}

fn has_room(cidr: &IpNet, block: &Block) -> bool {
    block.first_free(cidr, |_| true).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_kept_for_its_node_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hint.json");
        assert_eq!(Hint::read(&path, "a"), Hint::default());
        let blocks = vec!["10.0.0.0/26".parse().unwrap(), "fd00::/122".parse().unwrap()];
        let full = vec![Full { family: Family::V4, pools: vec!["a".into()], blocks: 4 }];
        let (spare, alone) = (blocks.clone(), blocks.clone());
        let hint = Hint { blocks, mark: "pools".into(), revision: 7, alone, spare, full };
        hint.write(&path, "a");
        assert_eq!(Hint::read(&path, "a"), hint);
        assert_eq!(Hint::read(&path, "b"), Hint::default());
        // The last one is how the release before wrote it.
        for unreadable in ["garbage", "{\"a\": 1}", "{\"a\": [\"10.0.0.0/26\", \"fd00::/122\"]}"] {
            std::fs::write(&path, unreadable).unwrap();
            let hint = Hint::read(&path, "a");
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
            proptest::prop_assert!(Hint::read(file.path(), "a").blocks.len() <= MOST_BLOCKS);
        }
    }
}
