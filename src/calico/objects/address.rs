//! One address, or one block, taken out of Calico's IPAM by an operator.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{json, Value};

use super::ledger::{self, BookedBlock, HeldAddress, Ledger};
use super::pools::IpamError;
use super::{Damaged, Kind};
use crate::calico::block::{self, Block};
use crate::calico::model::{to_json, Handle};
use crate::calico::overlap::Lengths;
use crate::calico::snapshot::{SeenBlock, Snapshot};
use crate::calico::txn::{Change, Guard, Range};
use crate::calico::{keys, CalicoError, Datastore, NotReady, ATTEMPTS};

/// What IPAM has of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub taken: HeldAddress,
    pub block: IpNet,
    /// The node that the block belongs to.
    pub owner: Option<String>,
}

impl Assignment {
    /// As the trail of changes notes it.
    pub fn to_value(&self) -> Value {
        json!({
            "address": self.taken.address, "block": self.block, "handle": self.taken.handle,
            "attributes": self.taken.attributes,
        })
    }
}

/// What IPAM's settings are; Calico's defaults where the datastore has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpamSettings {
    pub strict_affinity: bool,
    pub auto_allocate_blocks: bool,
    pub max_blocks_per_host: u32,
}

impl Datastore {
    /// The allocation of an address, in a block of any size; and the blocks that cannot be read and might have it.
    pub async fn assignment(
        &mut self,
        address: IpAddr,
    ) -> Result<(Option<Assignment>, Vec<Damaged>), CalicoError> {
        let ranges: Vec<Range> =
            Lengths::default().containing(address).iter().map(|cidr| Range::Key(keys::block(cidr))).collect();
        let answer = self.read(&ranges).await?;
        let entries: Vec<_> = answer.ranges.into_iter().flatten().collect();
        let ledger = Ledger::read(&entries);
        let found = ledger.blocks.iter().find_map(|block: &BookedBlock| {
            let taken = block.taken.iter().find(|taken| taken.address == address)?;
            let owner = block.node().map(ToOwned::to_owned);
            Some(Assignment { taken: taken.clone(), block: block.cidr, owner })
        });
        Ok((found, ledger.damaged))
    }

    /// IPAM's settings.
    pub async fn ipam_settings(&mut self) -> Result<IpamSettings, CalicoError> {
        let mut snapshot = Snapshot::default();
        self.look(&mut snapshot, &[Range::Key(keys::ipam_config())]).await?;
        let config = snapshot.ipam_config()?;
        Ok(IpamSettings {
            strict_affinity: config.strict_affinity,
            auto_allocate_blocks: config.auto_allocate_blocks,
            max_blocks_per_host: config.max_blocks_per_host,
        })
    }

    /// Releases an address that nothing uses, and corrects its handle. Refused when an endpoint or a node has it.
    pub async fn release_address(&mut self, address: IpAddr, dry_run: bool) -> Result<Assignment, IpamError> {
        let refused = |text: String| Err(IpamError::Refused(text));
        let endpoints = self.objects(Kind::WorkloadEndpoint).await?;
        let (users, damaged) = ledger::users_of(&endpoints.found);
        if let Some((_, endpoint)) = users.into_iter().find(|(other, _)| *other == address) {
            return refused(format!(
                "{address} is in use ({endpoint}); end that task, or let `calico-mesos gc` remove what an ended one left"
            ));
        }
        for record in endpoints.damaged.iter().chain(&damaged) {
            tracing::warn!("{record}; whether it has {address} is not known");
        }
        for _ in 0..ATTEMPTS {
            let (found, damaged) = self.assignment(address).await?;
            let Some(assignment) = found else {
                return match damaged.into_iter().next() {
                    Some(record) => Err(CalicoError::from(record).into()),
                    None => refused(format!("IP address {address} is not assigned")),
                };
            };
            if let (Some(kind), Some(node)) = (assignment.taken.kind(), assignment.taken.node()) {
                if self.object(Kind::Node, node).await?.is_some() {
                    return refused(format!(
                        "{address} is the {kind} of node {node}; calico/node releases it"
                    ));
                }
            }
            if dry_run || self.write_release(address, &assignment).await? {
                return Ok(assignment);
            }
        }
        Err(CalicoError::Contended(ATTEMPTS).into())
    }

    /// False: another writer was faster.
    async fn write_release(&mut self, address: IpAddr, seen: &Assignment) -> Result<bool, CalicoError> {
        let (cluster, key) = (keys::cluster_information(), keys::block(&seen.block));
        // Calico ignores a carriage return in a handle and all behind it.
        let id = seen.taken.handle.as_deref().and_then(|id| id.split('\r').next());
        let handle_key = id.map(keys::handle);
        let mut ranges = vec![Range::Key(cluster.clone()), Range::Key(key.clone())];
        ranges.extend(handle_key.clone().map(Range::Key));
        let mut snapshot = Snapshot::default();
        self.look(&mut snapshot, &ranges).await?;
        if snapshot.readiness() == Err(NotReady::Locked) {
            return Err(CalicoError::NotReady(NotReady::Locked));
        }
        let mut block = match snapshot.block(&seen.block) {
            SeenBlock::There(block, _) => *block,
            SeenBlock::Broken(reason) => return Err(CalicoError::Unreadable { key, reason }),
            SeenBlock::Absent | SeenBlock::Unknown => return Ok(false),
        };
        let ordinal = block::ordinal(&seen.block, address);
        let same = ordinal.and_then(|ordinal| block.holder(ordinal));
        let (Some(ordinal), true) =
            (ordinal, same.is_some_and(|holder| holder.handle_id == seen.taken.handle))
        else {
            return Ok(false);
        };
        block.free(ordinal);
        let mut changes = Vec::new();
        if let (Some(id), Some(key)) = (id, &handle_key) {
            if let Some(handle) = snapshot.handle(id)? {
                changes.extend(corrected(handle, &block, &seen.block, id, key));
            }
        }
        changes.push(match block.is_empty() && block.affinity.is_none() {
            true => Change::Delete { key: key.clone() },
            false => {
                block.count_write();
                Change::Put { key: key.clone(), value: to_json(&block) }
            }
        });
        let guards: Vec<Guard> = [Some(cluster), Some(key), handle_key]
            .into_iter()
            .flatten()
            .map(|key| Guard::Revision { revision: snapshot.revision_of(&key), key })
            .collect();
        self.written(&guards, &changes).await
    }
}

/// A handle after a release: its account of the block is what the block has of it.
fn corrected(mut handle: Handle, block: &Block, cidr: &IpNet, id: &str, key: &str) -> Option<Change> {
    let before = handle.clone();
    let is_ours = |text: &str| text.parse::<IpNet>().is_ok_and(|other| other == *cidr);
    handle.block.retain(|text, _| !is_ours(text));
    let left = block.held_by(id).len() as u64;
    if left > 0 {
        handle.block.insert(cidr.to_string(), left);
    }
    match handle.block.is_empty() {
        true => Some(Change::Delete { key: key.to_owned() }),
        false if handle.block == before.block => None,
        false => Some(Change::Put { key: key.to_owned(), value: to_json(&handle) }),
    }
}
