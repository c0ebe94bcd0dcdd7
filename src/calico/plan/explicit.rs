//! A given address. Calico asks less here: node selector, uses, reservations and block limits do not
//! count, only that an enabled pool contains it, that it is free, and strict affinity.

use std::net::IpAddr;

use super::super::{block, keys, CalicoError, Holder};
use super::{Attribute, Found, Planner, Seen};

impl Planner<'_> {
    pub(super) fn assign_explicit(&mut self, address: IpAddr) -> Found<IpAddr> {
        let cidr = self.block_for(address)?;
        self.require_blocks(&[cidr])?;
        let (draft, revision) = match self.block(&cidr) {
            Seen::Broken(reason) => {
                return Err(CalicoError::Unreadable { key: keys::block(&cidr), reason }.into());
            }
            Seen::Unknown | Seen::Absent => (self.claim(&cidr), 0),
            Seen::There(block, revision) => (*block, revision),
        };
        let outside = || CalicoError::Outside { address, pools: self.enabled_pools() };
        let ordinal = block::ordinal(&cidr, address).ok_or_else(outside)?;
        if let Some(holder) = draft.holder(ordinal) {
            return Err(CalicoError::Taken { address, holder: holder_of(holder) }.into());
        }
        if draft.is_affine_to(self.node) {
            self.confirm_affinity(&cidr);
        } else if self.config.strict_affinity {
            let owner = draft.node().unwrap_or("no host").to_owned();
            return Err(CalicoError::Strict { address, block: cidr, owner }.into());
        }
        Ok(self.take(cidr, draft, revision, ordinal))
    }

    /// The block in which the address has to be taken, if its pool allows it.
    fn block_for(&mut self, address: IpAddr) -> Result<ipnet::IpNet, CalicoError> {
        let limits = self.request.limits;
        let pools: Vec<_> = self.pools.iter().filter(|pool| pool.cidr.contains(&address)).collect();
        let Some(pool) = pools.iter().find(|pool| pool.is_enabled()) else {
            return Err(match pools.first() {
                Some(pool) => CalicoError::PoolDisabled { address, pool: pool.name.clone() },
                None => CalicoError::Outside { address, pools: self.enabled_pools() },
            });
        };
        if !limits.pools.is_empty() && !limits.pools.contains(&pool.name) {
            return Err(CalicoError::NotAllowed(format!(
                "CALICO_IP {address} is refused: tasks may not use IP pool '{}' (limits.pools)",
                pool.name
            )));
        }
        let (name, cidr) = (pool.name.clone(), pool.block_of(address));
        self.guard(keys::pool(&name));
        Ok(cidr)
    }

    fn enabled_pools(&self) -> Vec<String> {
        let enabled = self.pools.iter().filter(|pool| pool.is_enabled());
        enabled.map(|pool| format!("{} {}", pool.name, pool.cidr)).collect()
    }
}

/// As much as the block itself tells; attributes of other programs name a pod or nothing.
pub(in crate::calico) fn holder_of(attribute: &Attribute) -> Holder {
    let secondary = attribute.secondary.clone().unwrap_or_default();
    let text = |key: &str| secondary.get(key).filter(|value| !value.is_empty()).cloned();
    let handle = attribute.handle_id.clone();
    let name = text("mesos-task").or_else(|| text("pod")).or_else(|| handle.clone());
    Holder {
        name: name.unwrap_or_else(|| "somebody who left no name".into()),
        app: text("mesos-app"),
        node: text("node"),
        handle,
    }
}
