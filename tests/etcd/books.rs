//! What all blocks of a datastore hold, address by address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::datastore::Dump;

/// Which handles have which address, in blocks of any size.
pub struct Books {
    blocks: Vec<IpNet>,
    held: BTreeMap<IpAddr, Vec<String>>,
}

impl Books {
    /// Checks each block on the way: its lists add up, and its queue holds what is free.
    pub fn of(dump: &Dump) -> Self {
        let (mut blocks, mut held) = (Vec::new(), BTreeMap::<IpAddr, Vec<String>>::new());
        for (key, text) in dump.iter().filter(|(key, _)| key.contains("/assignment/")) {
            let Ok(block) = serde_json::from_str::<Value>(text) else { continue };
            let cidr: IpNet = block["cidr"].as_str().unwrap().parse().unwrap();
            let size = 1 << (cidr.max_prefix_len() - cidr.prefix_len());
            let allocations = block["allocations"].as_array().unwrap();
            assert_eq!(allocations.len(), size, "{key}");
            let mut free: Vec<u64> =
                block["unallocated"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
            free.sort_unstable();
            let expected = (0..size as u64).filter(|n| allocations[*n as usize].is_null());
            assert_eq!(free, expected.collect::<Vec<_>>(), "{key}");
            for (ordinal, index) in allocations.iter().enumerate() {
                let Some(index) = index.as_u64() else { continue };
                let handle = block["attributes"][index as usize]["handle_id"].as_str().unwrap().to_owned();
                held.entry(nth(&cidr, ordinal)).or_default().push(handle);
            }
            blocks.push(cidr);
        }
        Self { blocks, held }
    }

    pub fn blocks(&self) -> &[IpNet] {
        &self.blocks
    }

    /// All addresses that are allocated. Fails where one is allocated twice.
    pub fn addresses(&self) -> BTreeMap<IpAddr, String> {
        let once = |(address, handles): (&IpAddr, &Vec<String>)| {
            assert_eq!(handles.len(), 1, "{address} is held by {handles:?}");
            (*address, handles[0].clone())
        };
        self.held.iter().map(once).collect()
    }

    /// The handles that have an address, in all blocks.
    pub fn holders(&self, address: IpAddr) -> Vec<String> {
        self.held.get(&address).cloned().unwrap_or_default()
    }

    pub fn assert_no_overlap(&self) {
        for (place, block) in self.blocks.iter().enumerate() {
            for other in &self.blocks[place + 1..] {
                assert!(!block.contains(other) && !other.contains(block), "{block} and {other} overlap");
            }
        }
    }
}

fn nth(cidr: &IpNet, ordinal: usize) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(first) => std::net::Ipv4Addr::from(u32::from(first) + ordinal as u32).into(),
        IpAddr::V6(first) => std::net::Ipv6Addr::from(u128::from(first) + ordinal as u128).into(),
    }
}
