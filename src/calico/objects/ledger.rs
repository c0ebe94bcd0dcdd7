//! Calico's IPAM records as its own tools read them, with what is wrong in each.
//!
//! A launch refuses a record that it cannot work on without harm (`Block::parse`); here as much of it is read
//! as Calico would read, so that an operator sees what there is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::{Damaged, Kind, Object};
use crate::calico::block::{self, Attribute};
use crate::calico::inventory::CALICOS_OWN;
use crate::calico::model::{Affinity, EndpointSpec, Handle, Resource};
use crate::calico::txn::ReadKey;
use crate::calico::{clock, keys, CalicoError, Datastore, Family};

/// An address that a block has allocated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldAddress {
    pub address: IpAddr,
    /// None: the holder set none, or its attribute is missing.
    pub handle: Option<String>,
    pub attributes: BTreeMap<String, String>,
    /// The allocation names an attribute that is not there.
    pub is_lost: bool,
}

impl HeldAddress {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// The node that it was allocated for.
    pub fn node(&self) -> Option<&str> {
        self.attribute("node")
    }

    /// The app that has it, as Marathon writes it.
    pub fn app(&self) -> Option<&str> {
        self.attribute("mesos-app")
    }

    /// The task that has it.
    pub fn task(&self) -> Option<&str> {
        self.attribute("mesos-task")
    }

    /// What Calico uses it for: `vxlanTunnelAddress`.
    pub fn kind(&self) -> Option<&str> {
        self.attribute("type")
    }

    /// The pod that has it, with its namespace.
    pub fn pod(&self) -> Option<String> {
        Some(format!("{}/{}", self.attribute("namespace").unwrap_or_default(), self.attribute("pod")?))
    }

    pub(super) fn is_calicos_own(&self) -> bool {
        let handle = self.handle.as_deref().unwrap_or_default();
        self.kind().is_some() || CALICOS_OWN.iter().any(|prefix| handle.starts_with(prefix))
    }

    /// Who has it, for messages.
    pub fn holder(&self) -> String {
        let name = self.task().or(self.kind()).or(self.handle.as_deref()).unwrap_or("without a handle");
        match self.node() {
            Some(node) => format!("{name} on {node}"),
            None => name.to_owned(),
        }
    }
}

/// A block as Calico reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookedBlock {
    pub key: String,
    /// From the key.
    pub cidr: IpNet,
    /// As it stands in the block, with bits behind the prefix.
    pub text: String,
    pub affinity: Option<String>,
    pub taken: Vec<HeldAddress>,
    /// What is wrong with its structure; Calico's own check sees none of it.
    pub faults: Vec<String>,
}

#[derive(Deserialize)]
struct Seen {
    cidr: String,
    #[serde(default)]
    affinity: Option<String>,
    #[serde(default)]
    allocations: Option<Vec<Option<usize>>>,
    #[serde(default)]
    unallocated: Option<Vec<i64>>,
    #[serde(default)]
    attributes: Option<Vec<Attribute>>,
    #[serde(default, rename = "sequenceNumber")]
    _sequence: Option<u64>,
    #[serde(default, rename = "sequenceNumberForAllocation")]
    _sequences: Option<BTreeMap<String, u64>>,
    #[serde(default, rename = "deleted")]
    _deleted: Option<bool>,
}

impl BookedBlock {
    fn read(entry: &ReadKey) -> Result<Self, Damaged> {
        let damaged = |reason: String| Damaged { key: entry.key.clone(), reason };
        let cidr = keys::cidr_of_key(&entry.key)
            .ok_or_else(|| damaged("its key does not end with a block such as 10.65.0.0-26".to_owned()))?;
        let seen: Seen = serde_json::from_slice(&entry.value).map_err(|error| damaged(error.to_string()))?;
        let inside: IpNet =
            seen.cidr.parse().map_err(|_| damaged(format!("its cidr '{}' is not a network", seen.cidr)))?;
        let attributes = seen.attributes.unwrap_or_default();
        let allocations = seen.allocations.unwrap_or_default();
        let faults = faults(&cidr, &inside, &allocations, &attributes, seen.unallocated.as_deref());
        // Calico counts from the address that stands there, whether or not that is the block's first one.
        let first = IpNet::new(inside.addr(), inside.max_prefix_len()).unwrap_or(inside);
        let taken = |(ordinal, index): (usize, &Option<usize>)| {
            let attribute = attributes.get((*index)?);
            Some(HeldAddress {
                address: block::address(&first, ordinal),
                handle: attribute.and_then(|attribute| attribute.handle_id.clone()),
                attributes: attribute.and_then(|attribute| attribute.secondary.clone()).unwrap_or_default(),
                is_lost: attribute.is_none(),
            })
        };
        Ok(Self {
            key: entry.key.clone(),
            cidr,
            text: seen.cidr,
            affinity: seen.affinity,
            taken: allocations.iter().enumerate().filter_map(taken).collect(),
            faults,
        })
    }

    /// The node that it belongs to.
    pub fn node(&self) -> Option<&str> {
        self.affinity.as_deref()?.strip_prefix("host:")
    }

    /// The owner as calicoctl names it, which also takes a name without `host:`.
    pub fn owner(&self) -> &str {
        let affinity = self.affinity.as_deref().unwrap_or_default();
        match affinity.split(':').collect::<Vec<_>>()[..] {
            [_, name] => name,
            _ => affinity.split(':').next().unwrap_or_default(),
        }
    }

    /// How many addresses it has.
    pub fn size(&self) -> usize {
        block::size(&self.cidr)
    }
}

fn faults(
    cidr: &IpNet,
    inside: &IpNet,
    allocations: &[Option<usize>],
    attributes: &[Attribute],
    unallocated: Option<&[i64]>,
) -> Vec<String> {
    let mut faults = Vec::new();
    let size = block::size(cidr);
    if inside != cidr {
        faults.push(format!("its cidr is {inside}, not {cidr} as its key says"));
    }
    if allocations.len() != size {
        faults.push(format!("it has {} allocations, not {size}", allocations.len()));
    }
    for index in allocations.iter().flatten().filter(|index| **index >= attributes.len()) {
        faults.push(format!("an allocation names attribute {index} of {}", attributes.len()));
    }
    let used = |index: &usize| allocations.contains(&Some(*index));
    for index in (0..attributes.len()).filter(|index| !used(index)) {
        faults.push(format!("no allocation names its attribute {index}"));
    }
    let mut listed = vec![0_u32; size];
    for ordinal in unallocated.unwrap_or_default() {
        match usize::try_from(*ordinal).ok().and_then(|ordinal| listed.get_mut(ordinal)) {
            Some(times) => *times += 1,
            None => faults.push(format!("its unallocated list has {ordinal}, which is not in the block")),
        }
    }
    for (ordinal, times) in listed.iter().enumerate() {
        let address = block::address(cidr, ordinal);
        let is_taken = allocations.get(ordinal).is_some_and(Option::is_some);
        match times {
            0 if !is_taken && ordinal < allocations.len() => {
                faults.push(format!("{address} is free and not in its unallocated list"));
            }
            1.. if is_taken => {
                faults.push(format!(
                    "{address} is allocated and in its unallocated list: it will be given out twice"
                ));
            }
            2.. => faults.push(format!("{address} is in its unallocated list {times} times")),
            _ => {}
        }
    }
    faults
}

/// A node's claim of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockClaim {
    pub key: String,
    pub node: String,
    pub cidr: IpNet,
    /// An empty one is the old form of `confirmed`.
    pub state: String,
}

/// A handle: how many addresses it has in which block, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookedHandle {
    pub key: String,
    pub id: String,
    pub blocks: BTreeMap<String, u64>,
}

/// All of Calico's IPAM at one instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    pub blocks: Vec<BookedBlock>,
    pub claims: Vec<BlockClaim>,
    pub handles: Vec<BookedHandle>,
    pub damaged: Vec<Damaged>,
}

impl Ledger {
    pub(super) fn read(entries: &[ReadKey]) -> Self {
        let mut ledger = Self::default();
        let blocks = [Family::V4, Family::V6].map(keys::blocks);
        let (handles, hosts) = (keys::handle(""), keys::hosts());
        for entry in entries {
            let done = if blocks.iter().any(|prefix| entry.key.starts_with(prefix)) {
                BookedBlock::read(entry).map(|block| ledger.blocks.push(block))
            } else if entry.key.starts_with(&hosts) {
                claim(entry).map(|claim| ledger.claims.push(claim))
            } else if let Some(id) = entry.key.strip_prefix(&handles) {
                handle(entry, id).map(|handle| ledger.handles.push(handle))
            } else {
                Ok(())
            };
            ledger.damaged.extend(done.err());
        }
        ledger
    }
}

fn claim(entry: &ReadKey) -> Result<BlockClaim, Damaged> {
    let damaged = |reason: String| Damaged { key: entry.key.clone(), reason };
    let rest = entry.key.strip_prefix(&keys::hosts()).and_then(|rest| rest.split_once('/'));
    let (node, cidr) = rest
        .and_then(|(node, _)| Some((node, keys::cidr_of_key(&entry.key)?)))
        .ok_or_else(|| damaged("its key does not end with a block such as 10.65.0.0-26".to_owned()))?;
    let affinity: Affinity = match entry.value.is_empty() {
        true => Affinity::default(),
        false => serde_json::from_slice(&entry.value).map_err(|error| damaged(error.to_string()))?,
    };
    Ok(BlockClaim { key: entry.key.clone(), node: node.to_owned(), cidr, state: affinity.state })
}

fn handle(entry: &ReadKey, id: &str) -> Result<BookedHandle, Damaged> {
    let damaged = |reason: String| Damaged { key: entry.key.clone(), reason };
    if id.contains('/') {
        return Err(damaged(
            "a handle's id cannot have a slash: Calico does not find this record".to_owned(),
        ));
    }
    let handle: Handle = serde_json::from_slice(&entry.value).map_err(|error| damaged(error.to_string()))?;
    Ok(BookedHandle { key: entry.key.clone(), id: id.to_owned(), blocks: handle.block })
}

/// The networks of an endpoint as they stand in its record, if Calico can read the record.
pub(super) fn networks_of(object: &Object) -> Result<Vec<String>, Damaged> {
    let damaged = |reason: String| Damaged { key: object.key().to_owned(), reason };
    // What is null is absent, for Go.
    let record: Resource<EndpointSpec> =
        serde_json::from_value(without_nulls(&object.value)).map_err(|error| damaged(error.to_string()))?;
    match record.metadata.creation_timestamp {
        Some(time) if !clock::is_rfc3339(&time) => {
            Err(damaged(format!("its creationTimestamp '{time}' is not a time such as 2026-08-22T10:11:12Z")))
        }
        _ => Ok(record.spec.ip_networks.unwrap_or_default()),
    }
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        other => other.clone(),
    }
}

/// An address with or without a prefix length.
pub(super) fn parse_address(text: &str) -> Option<(IpAddr, Option<u8>)> {
    match text.parse::<IpNet>() {
        Ok(net) => Some((net.addr(), Some(net.prefix_len()))),
        Err(_) => Some((text.parse().ok()?, None)),
    }
}

/// Each address that an endpoint has, with the endpoint's name and task; and the endpoints that cannot be read.
pub(super) fn users_of(endpoints: &[Object]) -> (Vec<(IpAddr, String)>, Vec<Damaged>) {
    let (mut users, mut damaged) = (Vec::new(), Vec::new());
    for object in endpoints {
        match networks_of(object) {
            Ok(networks) => {
                let addresses = networks.iter().filter_map(|text| parse_address(text));
                users.extend(addresses.map(|(address, _)| (address, shown(object))));
            }
            Err(record) => damaged.push(record),
        }
    }
    (users, damaged)
}

fn shown(object: &Object) -> String {
    let task =
        object.value.pointer("/metadata/annotations/mesos.apache.org~1task-id").and_then(Value::as_str);
    match task {
        Some(task) => format!("task {task}, endpoint {}", object.name),
        None => format!("endpoint {}/{}", object.namespace.as_deref().unwrap_or_default(), object.name),
    }
}

impl Datastore {
    /// All IPAM records at one instant.
    pub async fn ledger(&mut self) -> Result<Ledger, CalicoError> {
        Ok(Ledger::read(&self.scan(&keys::ipam()).await?))
    }

    /// All blocks, and those whose records cannot be read.
    pub async fn booked_blocks(&mut self) -> Result<(Vec<BookedBlock>, Vec<Damaged>), CalicoError> {
        let mut ledger = Ledger::default();
        for family in [Family::V4, Family::V6] {
            let part = Ledger::read(&self.scan(&keys::blocks(family)).await?);
            ledger.blocks.extend(part.blocks);
            ledger.damaged.extend(part.damaged);
        }
        Ok((ledger.blocks, ledger.damaged))
    }

    /// The endpoints that have an address, whatever IPAM has of it.
    pub async fn users_of(&mut self, address: IpAddr) -> Result<Vec<String>, CalicoError> {
        let endpoints = self.objects(Kind::WorkloadEndpoint).await?;
        let (users, _) = users_of(&endpoints.found);
        Ok(users.into_iter().filter(|(own, _)| *own == address).map(|(_, endpoint)| endpoint).collect())
    }

    /// All claims of blocks, and those whose records cannot be read.
    pub(super) async fn affinities(&mut self) -> Result<(Vec<BlockClaim>, Vec<Damaged>), CalicoError> {
        let ledger = Ledger::read(&self.scan(&keys::hosts()).await?);
        Ok((ledger.claims, ledger.damaged))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(key: &str, value: &Value) -> Result<BookedBlock, Damaged> {
        let key = format!("{}{key}", keys::blocks(Family::V4));
        BookedBlock::read(&ReadKey { key, value: value.to_string().into_bytes(), revision: 1 })
    }

    fn good() -> Value {
        json!({
            "cidr": "10.65.0.0/30", "affinity": "host:host1", "allocations": [0, null, null, null],
            "unallocated": [1, 2, 3], "attributes": [{"handle_id": "h", "secondary": {"node": "host1"}}],
            "sequenceNumber": 1787393472345678901_u64, "sequenceNumberForAllocation": {"0": 7}, "deleted": false,
        })
    }

    #[test]
    fn what_is_wrong_in_a_block_is_named() {
        let block = read("10.65.0.0-30", &good()).unwrap();
        assert_eq!(
            (block.faults.len(), block.taken.len(), block.node(), block.size()),
            (0, 1, Some("host1"), 4)
        );
        for (field, value, words) in [
            ("cidr", json!("10.65.0.1/30"), "not 10.65.0.0/30 as its key says"),
            ("allocations", json!([0, null]), "2 allocations, not 4"),
            ("allocations", json!([7, null, null, null]), "names attribute 7 of 1"),
            ("allocations", json!([null, null, null, null]), "no allocation names its attribute 0"),
            ("unallocated", json!([1, 2, 3, 3]), "10.65.0.3 is in its unallocated list 2 times"),
            ("unallocated", json!([1, 2]), "10.65.0.3 is free and not in"),
            ("unallocated", json!([0, 1, 2, 3]), "10.65.0.0 is allocated and in"),
            ("unallocated", json!([1, 2, 3, 9]), "9, which is not in the block"),
            ("unallocated", json!([1, 2, 3, -1]), "-1, which is not in the block"),
        ] {
            let mut block = good();
            block[field] = value;
            let faults = read("10.65.0.0-30", &block).unwrap().faults.join("; ");
            assert!(faults.contains(words), "{faults}");
        }
        let mut shifted = good();
        shifted["cidr"] = json!("10.65.0.1/30");
        let address = read("10.65.0.0-30", &shifted).unwrap().taken[0].address;
        assert_eq!(address.to_string(), "10.65.0.1");
    }

    #[test]
    fn what_calico_cannot_read_is_damaged() {
        assert!(read("10.65.0.0/30", &good()).is_err());
        for (field, value) in [
            ("cidr", json!("x")),
            ("sequenceNumber", json!("7")),
            ("sequenceNumber", json!(1.5e18)),
            ("attributes", json!([{"secondary": {"node": 7}}])),
        ] {
            let mut block = good();
            block[field] = value;
            assert!(read("10.65.0.0-30", &block).is_err(), "{field}");
        }
        assert!(read("10.65.0.0-30", &json!({"cidr": "10.65.0.0/30"})).is_ok());
    }
}
