//! A given address. Calico asks less here: node selector, uses, reservations and block limits do not
//! count, only that an enabled pool contains it, that it is free, and strict affinity.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::{block, keys, CalicoError, Holder};
use super::{Attribute, Block, Found, Halt, Planner, Pool, SeenBlock};

impl Planner<'_> {
    pub(super) fn assign_explicit(&mut self, address: IpAddr) -> Found<IpAddr> {
        let length = self.block_length_for(address)?;
        let (cidr, block, revision) = match self.block_with(address, length)? {
            Some(found) => found,
            None => {
                let cidr = self.room_for(address, length)?;
                (cidr, self.claim_alone(&cidr), 0)
            }
        };
        if block.is_affine_to(self.node) {
            self.confirm_affinity(&cidr);
        } else if self.config.strict_affinity {
            let owner = block.node().unwrap_or("no host").to_owned();
            return Err(CalicoError::Strict { address, block: cidr, owner }.into());
        }
        let outside = || CalicoError::Outside { address, pools: self.enabled_pools() };
        let ordinal = block::ordinal(&cidr, address).ok_or_else(outside)?;
        Ok(self.take(cidr, block, revision, ordinal))
    }

    /// The block from which a free address is taken, if there is one that contains it: this node's own where
    /// several do, else the one that is cut as its pool is today. None of them may have the address allocated.
    fn block_with(&mut self, address: IpAddr, length: u8) -> Found<Option<(IpNet, Block, i64)>> {
        let possible = self.lengths.containing(address);
        self.require_blocks(&possible)?;
        let mut found: Vec<(IpNet, Block, i64)> = Vec::new();
        for cidr in possible {
            self.guard(keys::block(&cidr));
            match self.block(&cidr) {
                SeenBlock::There(block, revision) => {
                    let holder = block::ordinal(&cidr, address).and_then(|ordinal| block.holder(ordinal));
                    if let Some(holder) = holder {
                        return Err(CalicoError::Taken { address, holder: holder_of(holder) }.into());
                    }
                    found.push((cidr, *block, revision));
                }
                SeenBlock::Broken(reason) => {
                    return Err(CalicoError::Unreadable { key: keys::block(&cidr), reason }.into());
                }
                SeenBlock::Absent | SeenBlock::Unknown => {}
            }
        }
        found.sort_by_key(|(cidr, block, _)| (!block.is_affine_to(self.node), cidr.prefix_len() != length));
        Ok(found.into_iter().next())
    }

    /// The largest new block around an address that no smaller one overlaps, none that contains the address being
    /// there: as large as its pool's blocks, if possible.
    fn room_for(&self, address: IpAddr, length: u8) -> Found<IpNet> {
        let alone = |cidr: IpNet| match self.overlapping(&cidr) {
            Ok(others) => others.is_empty().then_some(Ok(cidr)),
            Err(halt) => Some(Err(halt)),
        };
        let nets = (length..=IpNet::from(address).max_prefix_len())
            .filter_map(|length| IpNet::new(address, length).ok());
        let outside = || Halt::Error(CalicoError::Outside { address, pools: self.enabled_pools() });
        nets.map(|net| net.trunc()).find_map(alone).ok_or_else(outside)?
    }

    /// How large the blocks are around the address today, if its pool allows it.
    fn block_length_for(&mut self, address: IpAddr) -> Result<u8, CalicoError> {
        let allowed = &self.request.limits.pools;
        let is_allowed = |pool: &Pool| allowed.is_empty() || allowed.contains(&pool.name);
        let pools: Vec<_> = self.pools.iter().filter(|pool| pool.cidr.contains(&address)).collect();
        let enabled = || pools.iter().filter(|pool| pool.is_enabled());
        let Some(pool) = enabled().find(|pool| is_allowed(pool)).or_else(|| enabled().next()) else {
            return Err(match pools.first() {
                Some(pool) => CalicoError::PoolDisabled { address, pool: pool.name.clone() },
                None => CalicoError::Outside { address, pools: self.enabled_pools() },
            });
        };
        if !is_allowed(pool) {
            return Err(CalicoError::NotAllowed(format!(
                "CALICO_IP {address} is refused: tasks may not use IP pool '{}' (limits.pools)",
                pool.name
            )));
        }
        if let Some(named) =
            self.named.as_ref().filter(|named| named.iter().all(|named| named.name != pool.name))
        {
            let pools = named.iter().map(Pool::shown).collect();
            return Err(CalicoError::OutsideNamed { address, pools });
        }
        let (key, length) = (keys::pool(&pool.name), pool.block_length);
        self.guard(key);
        Ok(length)
    }

    fn enabled_pools(&self) -> Vec<String> {
        let enabled = self.pools.iter().filter(|pool| pool.is_enabled());
        enabled.map(|pool| format!("{} {}", pool.name, pool.cidr)).collect()
    }
}

/// The holder, as far as the block itself names it; attributes of other programs name a pod or nothing.
pub(in crate::calico) fn holder_of(attribute: &Attribute) -> Holder {
    let secondary = attribute.secondary.clone().unwrap_or_default();
    let text = |key: &str| secondary.get(key).filter(|value| !value.is_empty()).cloned();
    let handle = attribute.handle_id.clone();
    let name = text("mesos-task").or_else(|| text("pod")).or_else(|| handle.clone());
    Holder {
        name: name.unwrap_or_else(|| "an unknown holder".into()),
        app: text("mesos-app"),
        node: text("node"),
        handle,
    }
}
