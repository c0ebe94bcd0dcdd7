//! How full the pools are, over the whole cluster: for figures, never for a choice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::block::{self, Block};
use super::overlap::overlap;
use super::pool::Pool;
use super::snapshot::Snapshot;
use super::txn::{Range, ReadKey};
use super::{keys, CalicoError, Datastore, Family};

/// One pool. The addresses' three numbers add up to its size, unless there are blocks that cannot be read: what these
/// hold counts nowhere. The blocks' three add up as well, unless there are blocks of another size than the pool's.
/// Each address counts once, also where blocks overlap, and in every pool that contains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolUsage {
    pub name: String,
    pub cidr: IpNet,
    pub enabled: bool,
    pub allocated: u128,
    /// Kept back by reservations, and not allocated.
    pub reserved: u128,
    pub free: u128,
    /// Blocks that belong to a host.
    pub affine_blocks: u128,
    /// Blocks that belong to none, because it is gone or gave them up while they still hold addresses.
    pub loose_blocks: u128,
    /// Blocks that a host could still claim.
    pub free_blocks: u128,
    /// Damaged blocks, among the loose ones; which of their addresses are allocated is unknown.
    pub damaged_blocks: u128,
}

impl Datastore {
    /// Reads all pools and all blocks: some 10 kB a full block.
    pub async fn usage(&mut self) -> Result<Vec<PoolUsage>, CalicoError> {
        let ranges = [Range::Prefix(keys::pools()), Range::Prefix(keys::reservations())];
        let mut snapshot = Snapshot::default();
        self.look(&mut snapshot, &ranges).await?;
        let mut blocks: BTreeMap<IpNet, ReadKey> = BTreeMap::new();
        for family in [Family::V4, Family::V6] {
            let all = self.scan(&keys::blocks(family)).await?;
            blocks.extend(all.into_iter().filter_map(|entry| Some((keys::cidr_of_key(&entry.key)?, entry))));
        }
        let reserved = IpNet::aggregate(&snapshot.reserved());
        Ok(snapshot.pools().iter().map(|pool| usage(pool, &reserved, &blocks)).collect())
    }
}

/// `reserved` without overlaps.
fn usage(pool: &Pool, reserved: &[IpNet], blocks: &BTreeMap<IpNet, ReadKey>) -> PoolUsage {
    let kept: Vec<IpNet> = reserved.iter().filter_map(|net| common(net, &pool.cidr)).collect();
    let is_kept = |address: IpAddr| kept.iter().any(|net| net.contains(&address));
    let mut usage = PoolUsage {
        name: pool.name.clone(),
        cidr: pool.cidr,
        enabled: pool.is_enabled(),
        allocated: 0,
        reserved: kept.iter().map(addresses).sum(),
        free: 0,
        affine_blocks: 0,
        loose_blocks: 0,
        free_blocks: 0,
        damaged_blocks: 0,
    };
    let ours: Vec<(&IpNet, &ReadKey)> = blocks.iter().filter(|(cidr, _)| overlap(&pool.cidr, cidr)).collect();
    let shared = shared(ours.iter().map(|(cidr, _)| **cidr));
    let mut counted = BTreeSet::new();
    let mut unreadable = 0;
    for (cidr, entry) in &ours {
        let Ok(block) = Block::parse(&entry.value, cidr) else {
            unreadable += common(cidr, &pool.cidr).map_or(0, |net| addresses(&net));
            usage.loose_blocks += 1;
            usage.damaged_blocks += 1;
            continue;
        };
        match block.node() {
            Some(_) => usage.affine_blocks += 1,
            None => usage.loose_blocks += 1,
        }
        for ordinal in (0..block.allocations.len()).filter(|ordinal| block.allocations[*ordinal].is_some()) {
            let address = block::address(cidr, ordinal);
            if !pool.cidr.contains(&address) || shared.contains(*cidr) && !counted.insert(address) {
                continue;
            }
            usage.allocated += 1;
            usage.reserved = usage.reserved.saturating_sub(is_kept(address).into());
        }
    }
    let gone = usage.allocated + usage.reserved + unreadable;
    usage.free = addresses(&pool.cidr).saturating_sub(gone);
    usage.free_blocks = blocks_in(&pool.cidr, pool.block_length).saturating_sub(places(pool, &kept, &ours));
    usage
}

/// Those of the networks that share addresses with another one; they come in order.
fn shared(nets: impl Iterator<Item = IpNet>) -> BTreeSet<IpNet> {
    let mut shared = BTreeSet::new();
    let mut before: Option<IpNet> = None;
    for net in nets {
        match before.filter(|wider| wider.contains(&net)) {
            Some(wider) => shared.extend([wider, net]),
            None => before = Some(net),
        }
    }
    shared
}

/// In how many places of a pool no block can be claimed: something is there, or all of the place is reserved.
fn places(pool: &Pool, reserved: &[IpNet], blocks: &[(&IpNet, &ReadKey)]) -> u128 {
    let whole = reserved.iter().filter(|net| net.prefix_len() <= pool.block_length).copied();
    let there = blocks.iter().filter_map(|(cidr, _)| match cidr.prefix_len() < pool.block_length {
        true => common(cidr, &pool.cidr),
        false => Some(pool.block_of(cidr.network())),
    });
    IpNet::aggregate(&whole.chain(there).collect()).iter().map(|net| blocks_in(net, pool.block_length)).sum()
}

/// What two networks have in common: the smaller one, or nothing.
fn common(a: &IpNet, b: &IpNet) -> Option<IpNet> {
    match (b.contains(a), a.contains(b)) {
        (true, _) => Some(*a),
        (_, true) => Some(*b),
        _ => None,
    }
}

fn addresses(net: &IpNet) -> u128 {
    blocks_in(net, net.max_prefix_len())
}

/// How many networks of that length there are in a larger one.
fn blocks_in(net: &IpNet, length: u8) -> u128 {
    1_u128.checked_shl(u32::from(length.saturating_sub(net.prefix_len()))).unwrap_or(u128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(cidr: &str) -> Pool {
        Pool::parse(format!(r#"{{"spec":{{"cidr":"{cidr}","blockSize":29}}}}"#).as_bytes(), "p").unwrap()
    }

    /// A block with so many addresses in use, from the first one on.
    fn block(cidr: &str, node: &str, used: usize) -> (IpNet, ReadKey) {
        let cidr: IpNet = cidr.parse().unwrap();
        let mut block = Block::new(&cidr, node, 1, String::new());
        (0..used).for_each(|ordinal| block.assign(ordinal, block::Attribute::default()));
        if node.is_empty() {
            block.affinity = None;
        }
        (cidr, ReadKey { key: keys::block(&cidr), value: serde_json::to_vec(&block).unwrap(), revision: 1 })
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        IpNet::aggregate(&texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn every_address_and_block_counts_once() {
        let blocks = BTreeMap::from([
            block("10.0.0.0/29", "a", 3),
            block("10.0.0.8/29", "", 1),
            block("10.1.0.0/29", "a", 8),
        ]);
        // .0 is allocated all the same; 10.0.0.16 to .31 are two blocks, in parts that add up.
        let reserved = nets(&["10.0.0.0/31", "10.0.0.16/29", "10.0.0.24/30", "10.0.0.28/30", "10.9.0.0/16"]);
        let usage = usage(&pool("10.0.0.0/26"), &reserved, &blocks);
        assert_eq!((usage.allocated, usage.reserved, usage.free), (4, 16, 44));
        assert_eq!((usage.affine_blocks, usage.loose_blocks, usage.free_blocks), (1, 1, 4));
        assert!(usage.enabled);
    }

    #[test]
    fn a_block_that_cannot_be_read_gives_nothing() {
        let (cidr, entry) = block("10.0.0.0/29", "a", 0);
        let blocks = BTreeMap::from([(cidr, ReadKey { value: b"{}".to_vec(), ..entry })]);
        let usage = usage(&pool("10.0.0.0/28"), &[], &blocks);
        assert_eq!((usage.allocated, usage.free, usage.free_blocks), (0, 8, 1));
        assert_eq!((usage.loose_blocks, usage.damaged_blocks), (1, 1));
    }

    #[test]
    fn blocks_of_other_sizes_count_no_address_twice() {
        // A smaller block in a larger one, two in one place, one in a larger one that takes four places.
        let blocks = BTreeMap::from([
            block("10.0.0.0/28", "a", 3),
            block("10.0.0.0/30", "b", 4),
            block("10.0.0.16/30", "", 1),
            block("10.0.0.20/30", "a", 2),
            block("10.0.0.32/31", "a", 1),
            block("10.0.0.32/27", "a", 0),
        ]);
        let usage = usage(&pool("10.0.0.0/26"), &nets(&["10.0.0.3/32"]), &blocks);
        assert_eq!((usage.allocated, usage.reserved, usage.free), (8, 0, 56));
        assert_eq!((usage.affine_blocks, usage.loose_blocks, usage.free_blocks), (5, 1, 1));
        let around = BTreeMap::from([block("10.0.0.0/26", "a", 20)]);
        let usage = super::usage(&pool("10.0.0.16/28"), &[], &around);
        assert_eq!((usage.allocated, usage.free, usage.affine_blocks, usage.free_blocks), (4, 12, 1, 0));
    }

    #[test]
    fn the_largest_pool_has_a_number() {
        let pool = Pool::parse(br#"{"spec":{"cidr":"::/0"}}"#, "p").unwrap();
        let usage = usage(&pool, &nets(&["::/0"]), &BTreeMap::new());
        assert_eq!((usage.free, usage.free_blocks), (0, 0));
    }
}
