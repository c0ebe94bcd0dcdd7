//! One block of addresses: pure arithmetic on its record, no datastore.
//!
//! An address is named by its ordinal, the distance from the block's first address; Calico reserves none.
//! `unallocated` is a queue: assigned from the head, released to the tail. Calico's own code trusts it
//! blindly and hands an address out twice when it is wrong, so it is checked against `allocations` here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::model::Extra;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Block {
    pub cidr: String,
    /// `host:<node>`, or nothing when no host advertises the block.
    #[serde(default)]
    pub affinity: Option<String>,
    /// Calico 3.32 and later take away empty blocks that were claimed more than a minute ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_claim_time: Option<String>,
    /// One entry an ordinal: an index into `attributes`, or nothing for a free address.
    pub allocations: Vec<Option<usize>>,
    pub unallocated: Vec<usize>,
    /// `null` in a block that Go has just made.
    pub attributes: Option<Vec<Attribute>>,
    /// Grows by one with every write; begins with the time in nanoseconds, far beyond 2^53.
    #[serde(default, rename = "sequenceNumber")]
    pub sequence_number: u64,
    /// The block's number when the ordinal was assigned. Stale entries stay behind, so an entry does not show use.
    #[serde(default, rename = "sequenceNumberForAllocation")]
    pub sequence_number_for_allocation: Option<BTreeMap<String, u64>>,
    #[serde(default)]
    pub deleted: bool,
    #[serde(flatten)]
    pub extra: Extra,
}

/// Who holds an address.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Attribute {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secondary: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    pub extra: Extra,
}

impl Attribute {
    /// Calico ignores a carriage return in a handle and all behind it.
    fn belongs_to(&self, handle: &str) -> bool {
        self.handle_id.as_deref().is_some_and(|id| id.split('\r').next() == Some(handle))
    }
}

impl Block {
    /// An empty block. `sequence` is the time in nanoseconds, `claimed` the same as RFC 3339.
    pub(super) fn new(cidr: &IpNet, node: &str, sequence: u64, claimed: String) -> Self {
        let size = size(cidr);
        Self {
            cidr: cidr.trunc().to_string(),
            affinity: Some(host(node)),
            affinity_claim_time: Some(claimed),
            allocations: vec![None; size],
            unallocated: (0..size).collect(),
            attributes: None,
            sequence_number: sequence,
            sequence_number_for_allocation: Some(BTreeMap::new()),
            deleted: false,
            extra: Extra::new(),
        }
    }

    /// Reads a block and refuses one that cannot be worked on without harm: Calico's own programs panic
    /// on a list of the wrong length or an index without attribute.
    pub(super) fn parse(value: &[u8], cidr: &IpNet) -> Result<Self, String> {
        let block: Self = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        if block.cidr.parse::<IpNet>().ok() != Some(*cidr) {
            return Err(format!("its cidr is '{}', not {cidr}", block.cidr));
        }
        if block.allocations.len() != size(cidr) {
            return Err(format!("it has {} allocations, not {}", block.allocations.len(), size(cidr)));
        }
        let attributes = block.attributes().len();
        if let Some(index) = block.allocations.iter().flatten().find(|index| **index >= attributes) {
            return Err(format!("an allocation names attribute {index} of {attributes}"));
        }
        Ok(block)
    }

    pub(super) fn attributes(&self) -> &[Attribute] {
        self.attributes.as_deref().unwrap_or_default()
    }

    pub(super) fn is_affine_to(&self, node: &str) -> bool {
        self.affinity.as_deref().is_some_and(|affinity| affinity == host(node))
    }

    /// The node that the block belongs to, if any.
    pub(super) fn node(&self) -> Option<&str> {
        self.affinity.as_deref()?.strip_prefix("host:")
    }

    pub(super) fn is_empty(&self) -> bool {
        self.allocations.iter().all(Option::is_none)
    }

    /// The free ordinals in the order in which they are handed out: the queue as it stands, without what
    /// is wrong in it, then ordinals that it has lost.
    fn queue(&self) -> Vec<usize> {
        let mut seen = BTreeSet::new();
        let free = |ordinal: &usize| self.allocations.get(*ordinal).is_some_and(Option::is_none);
        let listed = self.unallocated.iter().copied();
        listed.chain(0..self.allocations.len()).filter(free).filter(|ordinal| seen.insert(*ordinal)).collect()
    }

    /// The first free ordinal whose address may be used, in the order in which they are handed out.
    pub(super) fn first_free(&self, cidr: &IpNet, usable: impl Fn(&IpAddr) -> bool) -> Option<usize> {
        self.queue().into_iter().find(|ordinal| usable(&address(cidr, *ordinal)))
    }

    /// The attribute of an ordinal in use.
    pub(super) fn holder(&self, ordinal: usize) -> Option<&Attribute> {
        self.attributes().get((*self.allocations.get(ordinal)?)?)
    }

    /// The ordinals that a handle holds.
    pub(super) fn held_by(&self, handle: &str) -> Vec<usize> {
        let held = |ordinal: &usize| self.holder(*ordinal).is_some_and(|holder| holder.belongs_to(handle));
        (0..self.allocations.len()).filter(held).collect()
    }

    /// Gives a free ordinal to `holder`; an equal attribute is shared. Does nothing to one in use.
    pub(super) fn assign(&mut self, ordinal: usize, holder: Attribute) {
        let mut queue = self.queue();
        let Some(place) = queue.iter().position(|free| *free == ordinal) else { return };
        queue.remove(place);
        self.unallocated = queue;
        let attributes = self.attributes.get_or_insert_with(Vec::new);
        let index = attributes.iter().position(|known| *known == holder).unwrap_or_else(|| {
            attributes.push(holder);
            attributes.len() - 1
        });
        self.allocations[ordinal] = Some(index);
        let numbers = self.sequence_number_for_allocation.get_or_insert_with(BTreeMap::new);
        numbers.insert(ordinal.to_string(), self.sequence_number);
    }

    /// Frees everything that a handle holds and returns the ordinals.
    pub(super) fn release(&mut self, handle: &str) -> Vec<usize> {
        let freed = self.held_by(handle);
        if freed.is_empty() {
            return freed;
        }
        self.unallocated = self.queue();
        for ordinal in &freed {
            self.allocations[*ordinal] = None;
            self.unallocated.push(*ordinal);
        }
        self.drop_unused_attributes();
        freed
    }

    /// Frees an ordinal in use, and forgets when it was assigned; Calico does so on a release by address.
    pub(super) fn free(&mut self, ordinal: usize) {
        if self.allocations.get(ordinal).is_none_or(Option::is_none) {
            return;
        }
        self.unallocated = self.queue();
        self.allocations[ordinal] = None;
        self.unallocated.push(ordinal);
        if let Some(numbers) = &mut self.sequence_number_for_allocation {
            numbers.remove(&ordinal.to_string());
        }
        self.drop_unused_attributes();
    }

    /// Attributes that no allocation names go; the order of the others stays.
    fn drop_unused_attributes(&mut self) {
        let used: BTreeSet<usize> = self.allocations.iter().copied().flatten().collect();
        let renumbered: BTreeMap<usize, usize> =
            used.iter().enumerate().map(|(new, old)| (*old, new)).collect();
        let old = self.attributes.take().unwrap_or_default();
        let kept = old.into_iter().enumerate().filter(|(index, _)| used.contains(index));
        self.attributes = Some(kept.map(|(_, attribute)| attribute).collect());
        for index in self.allocations.iter_mut().flatten() {
            *index = renumbered[index];
        }
    }

    /// Every write carries the next number.
    pub(super) fn count_write(&mut self) {
        self.sequence_number = self.sequence_number.wrapping_add(1);
    }
}

fn host(node: &str) -> String {
    format!("host:{node}")
}

/// How many addresses a block has. Calico's blocks are at most 4096 addresses long; what is longer is
/// cut there, so that a broken record cannot eat the memory of a host.
pub(super) fn size(cidr: &IpNet) -> usize {
    let bits = cidr.max_prefix_len() - cidr.prefix_len();
    1 << bits.min(16)
}

/// The address of an ordinal.
pub(super) fn address(cidr: &IpNet, ordinal: usize) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(first) => Ipv4Addr::from(u32::from(first).wrapping_add(ordinal as u32)).into(),
        IpAddr::V6(first) => Ipv6Addr::from(u128::from(first).wrapping_add(ordinal as u128)).into(),
    }
}

/// The ordinal of an address in a block that contains it.
pub(super) fn ordinal(cidr: &IpNet, address: IpAddr) -> Option<usize> {
    let distance = match (cidr.network(), address) {
        (IpAddr::V4(first), IpAddr::V4(address)) => u128::from(u32::from(address).checked_sub(first.into())?),
        (IpAddr::V6(first), IpAddr::V6(address)) => u128::from(address).checked_sub(first.into())?,
        _ => return None,
    };
    usize::try_from(distance).ok().filter(|ordinal| *ordinal < size(cidr))
}

#[cfg(test)]
mod tests;
