//! The release: endpoint, addresses and handle go in one transaction.
//!
//! Works from the identity alone and accepts that anything is gone already. Blocks say what is really
//! held: a handle's counts may be wrong, and the handle may be missing altogether.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::block::{self, Block};
use super::hint::Hint;
use super::model::to_json;
use super::overlap::Lengths;
use super::snapshot::{Question, SeenBlock, Snapshot};
use super::store::StoreError;
use super::txn::{Change, Guard, Range, Written};
use super::{files, keys, pool, query, CalicoError, Datastore, Family, Identity, NotReady, ATTEMPTS};
use crate::limits::IPAM_LOCK_RELEASE;

/// What a release found and removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Released {
    pub addresses: Vec<IpAddr>,
    /// The endpoint was there and is gone.
    pub endpoint: bool,
    /// The handle was there and is gone.
    pub handle: bool,
}

/// How often a release whose answer is lost is begun anew. It may be repeated without harm.
const LOST_ATTEMPTS: u32 = 3;

impl Datastore {
    /// Removes the task's endpoint (only when it carries our uid), gives its addresses back, removes its
    /// handle. [`NotReady::Locked`] means that an operator works on the datastore: try again later.
    pub async fn release(&mut self, identity: &Identity) -> Result<Released, CalicoError> {
        Ok(self.release_if(identity, None, &[]).await?.unwrap_or_default())
    }

    /// The same, provided that the endpoint is as it was seen, by its revision; 0: there was none. `None`: it is
    /// not, and everything was left alone. `blocks` were seen to hold addresses of the task.
    pub async fn release_as_seen(
        &mut self,
        identity: &Identity,
        revision: i64,
        blocks: &[IpNet],
    ) -> Result<Option<Released>, CalicoError> {
        self.release_if(identity, Some(revision), blocks).await
    }

    async fn release_if(
        &mut self,
        identity: &Identity,
        seen: Option<i64>,
        holding: &[IpNet],
    ) -> Result<Option<Released>, CalicoError> {
        let _lock = files::ipam_lock(&self.lock_file, IPAM_LOCK_RELEASE).await;
        let hint = Hint::read(&self.hint_file, &identity.node);
        let question = Question {
            node: &identity.node,
            endpoint: identity.endpoint_key(),
            handle: &identity.handle,
            profiles: &[],
            blocks: &hint.blocks,
        };
        let mut ranges = question.ranges();
        let mut snapshot = Snapshot::default();
        self.look(&mut snapshot, &ranges).await?;
        let mut lost = 0;
        // What a write whose answer was lost would have released.
        let mut perhaps = None;
        for _ in 0..ATTEMPTS {
            if seen.is_some_and(|revision| revision != snapshot.revision_of(&identity.endpoint_key())) {
                return Ok(None);
            }
            let mut undo = self.plan_release(identity, holding, &mut snapshot, &mut ranges).await?;
            if undo.changes.is_empty() {
                return Ok(Some(perhaps.unwrap_or(undo.released)));
            }
            if seen.is_some() && !undo.released.endpoint {
                undo.guard(identity.endpoint_key(), &snapshot);
            }
            match self.store.write(&undo.guards, &undo.changes, &ranges).await {
                Ok(Written::Done) => return Ok(Some(undo.released)),
                Ok(Written::Conflict(answer)) => snapshot.absorb(&ranges, answer),
                Err(StoreError::Lost(source)) => {
                    lost += 1;
                    perhaps = Some(undo.released);
                    if lost > LOST_ATTEMPTS {
                        return Err(self.store_error(*source));
                    }
                    self.store.move_on().await.map_err(|source| self.store_error(source))?;
                    self.look(&mut snapshot, &ranges).await?;
                }
                Err(source) => return Err(self.store_error(source)),
            }
        }
        Err(CalicoError::Contended(ATTEMPTS))
    }

    /// Reads what else is needed and works out the write.
    async fn plan_release(
        &mut self,
        identity: &Identity,
        holding: &[IpNet],
        snapshot: &mut Snapshot,
        ranges: &mut Vec<Range>,
    ) -> Result<Undo, CalicoError> {
        if snapshot.readiness() == Err(NotReady::Locked) {
            return Err(CalicoError::NotReady(NotReady::Locked));
        }
        loop {
            let blocks = blocks_to_search(identity, holding, snapshot);
            let unknown = blocks.iter().map(keys::block).filter(|key| !snapshot.is_asked(key));
            let more: Vec<Range> = unknown.map(Range::Key).collect();
            if more.is_empty() {
                return Undo::plan(identity, snapshot, &blocks);
            }
            self.look(snapshot, &more).await?;
            ranges.extend(more);
        }
    }
}

/// The blocks that may hold an address of the task: those that were seen to, those its handle names, when there is no
/// handle all of this node, and for each address that its endpoint shows and none of these holds for it, every block
/// that could contain it.
fn blocks_to_search(identity: &Identity, holding: &[IpNet], snapshot: &Snapshot) -> Vec<IpNet> {
    let mut blocks: Vec<IpNet> = holding.to_vec();
    // An unreadable handle counts as a missing one.
    let handle = snapshot.handle(&identity.handle).ok().flatten();
    match &handle {
        Some(handle) => blocks.extend(handle.block.keys().filter_map(|text| text.parse::<IpNet>().ok())),
        None => {
            for family in [Family::V4, Family::V6] {
                blocks.extend(snapshot.affinities(&identity.node, family).iter().map(|(cidr, _)| *cidr));
            }
        }
    }
    let mut held: BTreeSet<IpAddr> = BTreeSet::new();
    for cidr in &blocks {
        if let SeenBlock::There(block, _) = snapshot.block(cidr) {
            held.extend(block.held_by(&identity.handle).iter().map(|ordinal| block::address(cidr, *ordinal)));
        }
    }
    let lengths = Lengths::of(&snapshot.pools());
    let endpoint = snapshot.entry(&identity.endpoint_key()).and_then(|entry| query::parse(&entry.value));
    let shown = endpoint.map(|endpoint| endpoint.addresses).unwrap_or_default();
    blocks.extend(
        shown
            .into_iter()
            .filter(|address| !held.contains(address))
            .flat_map(|address| lengths.containing(address)),
    );
    blocks.sort();
    blocks.dedup();
    blocks
}

/// One release, ready to be written.
#[derive(Default)]
struct Undo {
    guards: Vec<Guard>,
    changes: Vec<Change>,
    released: Released,
}

impl Undo {
    fn plan(identity: &Identity, snapshot: &Snapshot, blocks: &[IpNet]) -> Result<Self, CalicoError> {
        let mut undo = Self::default();
        let key = identity.endpoint_key();
        let endpoint = snapshot.entry(&key).and_then(|entry| query::parse(&entry.value));
        if endpoint.is_some_and(|endpoint| endpoint.uid.as_deref() == Some(identity.uid.as_str())) {
            undo.released.endpoint = true;
            undo.delete(key, snapshot);
        }
        for cidr in blocks {
            undo.free(identity, snapshot, cidr)?;
        }
        let key = keys::handle(&identity.handle);
        if snapshot.entry(&key).is_some() {
            undo.released.handle = true;
            undo.delete(key, snapshot);
        }
        if !undo.changes.is_empty() {
            // Locking the datastore between look and write must be noticed.
            undo.guard(keys::cluster_information(), snapshot);
        }
        Ok(undo)
    }

    fn free(&mut self, identity: &Identity, snapshot: &Snapshot, cidr: &IpNet) -> Result<(), CalicoError> {
        let key = keys::block(cidr);
        let mut block = match snapshot.block(cidr) {
            SeenBlock::There(block, _) => *block,
            SeenBlock::Broken(reason) => {
                let entry = snapshot.entry(&key);
                let concerns_us = entry
                    .is_some_and(|entry| String::from_utf8_lossy(&entry.value).contains(&identity.handle));
                // A broken block of this node must not keep tasks of other blocks from going.
                return match concerns_us {
                    true => Err(CalicoError::Unreadable { key, reason }),
                    false => Ok(()),
                };
            }
            SeenBlock::Absent | SeenBlock::Unknown => return Ok(()),
        };
        let freed = block.release(&identity.handle);
        if freed.is_empty() {
            return Ok(());
        }
        self.released.addresses.extend(freed.iter().map(|ordinal| block::address(cidr, *ordinal)));
        if !block.is_empty() {
            self.put(key, snapshot, block);
        } else if block.affinity.is_none() {
            self.delete(key, snapshot);
        } else if let Some(owner) = given_up_by(&block, cidr, snapshot, &identity.node) {
            self.delete(key, snapshot);
            self.delete(keys::affinity(owner, cidr), snapshot);
        } else {
            self.put(key, snapshot, block);
        }
        Ok(())
    }

    fn put(&mut self, key: String, snapshot: &Snapshot, mut block: Block) {
        block.count_write();
        self.guard(key.clone(), snapshot);
        self.changes.push(Change::Put { key, value: to_json(&block) });
    }

    fn delete(&mut self, key: String, snapshot: &Snapshot) {
        self.guard(key.clone(), snapshot);
        self.changes.push(Change::Delete { key });
    }

    fn guard(&mut self, key: String, snapshot: &Snapshot) {
        self.guards.push(Guard::Revision { revision: snapshot.revision_of(&key), key });
    }
}

/// An empty block of this node in a pool that no longer selects the node is given up, so that hosts
/// which the pool does serve can have it. In doubt it stays.
fn given_up_by<'a>(block: &Block, cidr: &IpNet, snapshot: &Snapshot, node: &'a str) -> Option<&'a str> {
    let labels = snapshot.node_labels(node).ok().flatten()?;
    (block.is_affine_to(node) && pool::is_deselected(&snapshot.pools(), cidr, &labels)).then_some(node)
}
