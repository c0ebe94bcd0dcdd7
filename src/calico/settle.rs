//! What became of a write whose answer never came.
//!
//! Endpoint and addresses are written together, so the endpoint's uid shows whether the write happened.
//! When it did not, it may still be on its way. It rests on the revisions of the records it changes:
//! moving one of them to a new revision makes sure that it never will. A block that exists is such a record. A block
//! that would be new is not made for that, because others may have made one of another size there meanwhile: the
//! task's handle is moved. A handle goes with its task, though, and a write that rests on its absence could then
//! happen after all. So the node's affinity for the new block is moved as well, in the state `pending`: the next
//! launch claims the block, and anything else that removes that affinity invalidates the write, too.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::block::Block;
use super::launch::Terms;
use super::model::{to_json, Affinity, Handle};
use super::store::StoreError;
use super::txn::{Change, Guard, Range, ReadKey, Written};
use super::{keys, CalicoError, Datastore, Identity, ATTEMPTS};

/// Between two attempts to find out.
const PAUSE: Duration = Duration::from_millis(200);

/// A write that may or may not have happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The identity of the task it was for.
    pub handle: String,
    pub(super) fences: Vec<Fence>,
}

/// A key that the write changes, and the revision on which it rests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fence {
    pub key: String,
    pub revision: i64,
    /// Set when the key is that of a block.
    pub block: Option<IpNet>,
}

/// The end of the uncertainty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It happened: these are the endpoint's addresses.
    Committed(Vec<IpAddr>),
    /// It did not happen and never will.
    Fenced,
}

impl Pending {
    /// The record to move: a block that existed, or the handle.
    fn fence(&self) -> Option<&Fence> {
        self.fences.iter().find(|fence| fence.block.is_none() || fence.revision != 0)
    }

    /// The block that the write would make, if nothing but the handle's absence stands against it.
    fn new_block(&self) -> Option<IpNet> {
        self.fence().filter(|fence| fence.revision == 0)?;
        self.fences.iter().find_map(|fence| fence.block)
    }
}

impl Datastore {
    /// Finds out what became of a lost write, and rules it out if it has not happened.
    pub async fn settle(&mut self, identity: &Identity, pending: &Pending) -> Result<Settled, CalicoError> {
        let Some(fence) = pending.fence() else { return Ok(Settled::Fenced) };
        let mut ranges = vec![Range::Key(identity.endpoint_key()), Range::Key(fence.key.clone())];
        let new = pending.new_block().map(|cidr| (keys::block(&cidr), keys::affinity(&identity.node, &cidr)));
        if let Some((block, affinity)) = &new {
            ranges.extend([block, affinity].map(|key| Range::Key(key.clone())));
        }
        let mut answer = self.read(&ranges).await?;
        for _ in 0..ATTEMPTS {
            let found = |place: usize| answer.ranges.get(place).and_then(|found| found.first());
            if let Some(addresses) = found(0).and_then(|entry| addresses_of_ours(entry, &identity.uid)) {
                return Ok(Settled::Committed(addresses));
            }
            let revision = |place: usize| found(place).map_or(0, |entry| entry.revision);
            // A block that is there by now stands in the way of the write for good.
            if revision(1) != fence.revision || revision(2) != 0 {
                return Ok(Settled::Fenced);
            }
            let mut guards = vec![Guard::Revision { key: fence.key.clone(), revision: fence.revision }];
            let mut changes = vec![Change::Put { key: fence.key.clone(), value: moved(fence, found(1)) }];
            if let Some((block, affinity)) = &new {
                guards.push(Guard::Revision { key: block.clone(), revision: 0 });
                guards.push(Guard::Revision { key: affinity.clone(), revision: revision(3) });
                let value =
                    found(3).map_or_else(|| to_json(&Affinity::pending()), |entry| entry.value.clone());
                changes.push(Change::Put { key: affinity.clone(), value });
            }
            match self.store.write(&guards, &changes, &ranges).await {
                Ok(Written::Done) => return Ok(Settled::Fenced),
                Ok(Written::Conflict(now)) => answer = now,
                // A new look shows whether it was carried out; a fence that comes late does no harm.
                Err(StoreError::Lost(_)) => answer = self.read(&ranges).await?,
                Err(source) => return Err(self.store_error(source)),
            }
        }
        Err(CalicoError::Contended(ATTEMPTS))
    }

    /// [`Datastore::settle`] over new connections, right after the answer was lost: an election takes a second or
    /// two, a restart little more.
    pub(super) async fn settle_lost(
        &mut self,
        identity: &Identity,
        pending: Pending,
        lost: StoreError,
        terms: &Terms<'_>,
    ) -> Result<Settled, CalicoError> {
        let ends = Instant::now() + terms.patience;
        loop {
            let settled = match self.store.move_on().await {
                Ok(()) => self.settle(identity, &pending).await,
                Err(source) => Err(self.store_error(source)),
            };
            let error = match settled {
                Ok(settled) => return Ok(settled),
                Err(error) => error,
            };
            tracing::debug!("cannot find out whether a write succeeded: {}", crate::error::chain(&error));
            if Instant::now() >= ends || timeout(PAUSE, terms.give_up.cancelled()).await.is_ok() {
                return Err(CalicoError::Lost {
                    endpoints: self.endpoints.clone(),
                    pending: Box::new(pending),
                    source: Box::new(lost),
                });
            }
        }
    }
}

/// The addresses of an endpoint if it carries our uid.
fn addresses_of_ours(entry: &ReadKey, uid: &str) -> Option<Vec<IpAddr>> {
    let endpoint = super::query::parse(&entry.value)?;
    (endpoint.uid.as_deref() == Some(uid)).then_some(endpoint.addresses)
}

/// A harmless change of the guarded key: the same content, a block's number one higher.
fn moved(fence: &Fence, now: Option<&ReadKey>) -> Vec<u8> {
    // A handle that does not exist: written and thus moved; release removes it.
    let Some(entry) = now else { return to_json(&Handle::default()) };
    match fence.block.map(|cidr| Block::parse(&entry.value, &cidr)) {
        Some(Ok(mut block)) => {
            block.count_write();
            to_json(&block)
        }
        Some(Err(_)) | None => entry.value.clone(),
    }
}
