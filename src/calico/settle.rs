//! What became of a write whose answer never came.
//!
//! Endpoint and addresses are written together, so the endpoint's uid tells whether the write happened.
//! When it did not, it may still be on its way. It rests on the revisions of the records it changes:
//! moving one of them to a new revision makes sure that it never will.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::block::Block;
use super::launch::Terms;
use super::model::{to_json, Affinity};
use super::store::StoreError;
use super::txn::{Change, Entry, Guard, Range, Written};
use super::{clock, keys, CalicoError, Datastore, Identity, ATTEMPTS};

/// Between two attempts to find out.
const PAUSE: Duration = Duration::from_millis(200);

/// A write that may or may not have happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Of the task it was for.
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

impl Datastore {
    /// Finds out what became of a lost write, and rules it out if it has not happened.
    pub async fn settle(&mut self, identity: &Identity, pending: &Pending) -> Result<Settled, CalicoError> {
        let Some(fence) = pending.fences.first() else { return Ok(Settled::Fenced) };
        let affinity = fence.block.map(|cidr| keys::affinity(&identity.node, &cidr));
        let mut ranges = vec![Range::Key(identity.endpoint_key()), Range::Key(fence.key.clone())];
        ranges.extend(affinity.iter().cloned().map(Range::Key));
        let mut answer = self.read(&ranges).await?;
        for _ in 0..ATTEMPTS {
            let endpoint = answer.ranges.first().and_then(|found| found.first());
            if let Some(addresses) = endpoint.and_then(|entry| addresses_of_ours(entry, &identity.uid)) {
                return Ok(Settled::Committed(addresses));
            }
            let guarded = answer.ranges.get(1).and_then(|found| found.first());
            if guarded.map_or(0, |entry| entry.revision) != fence.revision {
                return Ok(Settled::Fenced);
            }
            let has_affinity = answer.ranges.get(2).is_some_and(|found| !found.is_empty());
            let changes =
                move_on(fence, guarded, affinity.as_ref().filter(|_| !has_affinity), &identity.node);
            let guard = Guard::Revision { key: fence.key.clone(), revision: fence.revision };
            match self.store.write(&[guard], &changes, &ranges).await {
                Ok(Written::Done) => return Ok(Settled::Fenced),
                Ok(Written::Conflict(now)) => answer = now,
                // Carried out or not, looking again tells; a fence that comes late does no harm.
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
            tracing::debug!("cannot find out what became of a write: {}", crate::error::chain(&error));
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
fn addresses_of_ours(entry: &Entry, uid: &str) -> Option<Vec<IpAddr>> {
    let endpoint = super::query::parse(&entry.value)?;
    (endpoint.uid.as_deref() == Some(uid)).then_some(endpoint.addresses)
}

/// A harmless change of the guarded key: the same content, a block's number one higher, or, where there
/// was no block, an empty one that belongs to this node.
fn move_on(fence: &Fence, now: Option<&Entry>, affinity: Option<&String>, node: &str) -> Vec<Change> {
    let mut changes = Vec::new();
    let value = match (now, &fence.block) {
        (Some(entry), Some(cidr)) => match Block::parse(&entry.value, cidr) {
            Ok(mut block) => {
                block.count_write();
                to_json(&block)
            }
            Err(_) => entry.value.clone(),
        },
        (Some(entry), None) => entry.value.clone(),
        (None, Some(cidr)) => {
            if let Some(key) = affinity {
                changes.push(Change::Put { key: key.clone(), value: to_json(&Affinity::confirmed()) });
            }
            let now = std::time::SystemTime::now();
            to_json(&Block::new(cidr, node, clock::unix_nanos(now), clock::rfc3339(now)))
        }
        // A handle that does not exist: written and thus moved; release removes it.
        (None, None) => to_json(&super::model::Handle::default()),
    };
    changes.push(Change::Put { key: fence.key.clone(), value });
    changes
}
