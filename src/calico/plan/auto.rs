//! An automatic address: own blocks, then a new block, then blocks of others.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::block::Block;
use super::super::txn::Change;
use super::super::{clock, keys, pool, CalicoError, Family};
use super::{Found, Halt, Planner, Pool, Range, Seen};

/// Calico's limit where the configuration names none.
const BLOCKS_PER_HOST: usize = 20;
/// Blocks read in one trip when a whole pool has to be searched.
const CHUNK: usize = 32;
/// How long a host may keep an empty block before another takes it; seconds, as in Calico.
const CLAIM_AGE: u64 = 60;
/// Steps of a walk through a pool until it counts as full: a pool of /48 has more blocks than can be
/// looked at, and only reservations of that size could make the walk so long.
const WALK_LIMIT: usize = 1 << 20;

impl Planner<'_> {
    pub(super) fn assign_auto(&mut self, family: Family) -> Found<IpAddr> {
        let all = self.pools.clone();
        let pools = pool::choose(&all, family, &self.node_labels, &self.request.limits.pools)
            .map_err(|reasons| CalicoError::NoPool { family, node: self.node.to_owned(), reasons })?;
        self.guard_all(keys::pools());
        for pool in &pools {
            self.guard(keys::pool(&pool.name));
        }
        self.guard_all(keys::reservations());
        if let Some(address) = self.try_own_blocks(family, &pools)? {
            return Ok(address);
        }
        let exhausted = |reason: &str| {
            let pools = pools.iter().map(|pool| format!("{} ({})", pool.name, pool.cidr)).collect();
            Halt::Error(CalicoError::Exhausted { family, pools, reason: reason.to_owned() })
        };
        self.check_may_claim(family).map_err(|reason| exhausted(&reason))?;
        if let Some(address) = self.try_new_block(family, &pools)? {
            return Ok(address);
        }
        match self.try_any_block(family, &pools)? {
            Some(address) => Ok(address),
            None if self.config.strict_affinity => {
                Err(exhausted("every block is taken, and strict affinity forbids to borrow from other hosts"))
            }
            None => Err(exhausted("every block is full")),
        }
    }

    /// The hinted block, then all others in the order of their keys.
    fn try_own_blocks(&mut self, family: Family, pools: &[&Pool]) -> Found<Option<IpAddr>> {
        let known = self.view.affinities(self.node, family).into_iter().map(|(cidr, _)| cidr);
        let mut own: Vec<IpNet> = known.filter(|cidr| within(pools, cidr)).collect();
        own.sort_by_key(|cidr| !self.request.hints.contains(cidr));
        for cidr in &own {
            let (block, revision) = match self.block(cidr) {
                Seen::Unknown => {
                    self.require_blocks(&own)?;
                    continue;
                }
                Seen::Broken(_) => continue,
                Seen::Absent if pool::is_reserved(cidr, &self.reserved) => continue,
                Seen::Absent => (self.claim(cidr), 0),
                Seen::There(block, _) if !block.is_affine_to(self.node) => {
                    self.drop_stale_affinity(cidr);
                    continue;
                }
                Seen::There(block, revision) => (*block, revision),
            };
            if let Some(ordinal) = block.first_free(cidr, &self.reserved) {
                self.confirm_affinity(cidr);
                return Ok(Some(self.take(*cidr, block, revision, ordinal)));
            }
        }
        Ok(None)
    }

    /// The block went to another host, or to none, while our affinity stayed behind.
    fn drop_stale_affinity(&mut self, cidr: &IpNet) {
        let key = keys::affinity(self.node, cidr);
        self.guard(key.clone());
        self.guard(keys::block(cidr));
        let change = Change::Delete { key };
        if !self.plan.changes.contains(&change) {
            self.plan.changes.push(change);
        }
    }

    /// A host at its limit gets no further block and borrows none either.
    fn check_may_claim(&mut self, family: Family) -> Result<(), String> {
        self.guard_all(keys::affinities(self.node, family));
        let limit = match self.config.max_blocks_per_host as usize {
            0 => BLOCKS_PER_HOST,
            limit => limit,
        };
        let stale = self.plan.changes.iter().filter(|change| matches!(change, Change::Delete { .. })).count();
        let own = self.view.affinities(self.node, family).len().saturating_sub(stale);
        if own >= limit {
            return Err(format!(
                "all {own} blocks of this host are full and it may have no more (maxBlocksPerHost)"
            ));
        }
        if !self.config.auto_allocate_blocks {
            return Err("the blocks of this host are full and IPAM's auto_allocate_blocks is off".into());
        }
        Ok(())
    }

    /// The first block of the walk that does not exist.
    fn try_new_block(&mut self, family: Family, pools: &[&Pool]) -> Found<Option<IpAddr>> {
        let Some(existing) = self.view.blocks(family) else {
            return Err(Halt::More(vec![Range::Names(keys::blocks(family))]));
        };
        for pool in pools {
            let free =
                |cidr: &IpNet| !existing.contains(&keys::block(cidr)) && !self.plan.drafts.contains_key(cidr);
            let walk = pool.walk(self.node).take(WALK_LIMIT);
            let Some(cidr) =
                walk.into_iter().find(|cidr| free(cidr) && !pool::is_reserved(cidr, &self.reserved))
            else {
                continue;
            };
            let block = self.claim(&cidr);
            if let Some(ordinal) = block.first_free(&cidr, &self.reserved) {
                return Ok(Some(self.take(cidr, block, 0, ordinal)));
            }
        }
        Ok(None)
    }

    /// Every block is claimed: one of ours whose affinity was lost, one that may be borrowed from, or,
    /// where borrowing is forbidden, an empty one of another host.
    fn try_any_block(&mut self, family: Family, pools: &[&Pool]) -> Found<Option<IpAddr>> {
        let existing = self.view.blocks(family).cloned().unwrap_or_default();
        let mut claimed: Vec<IpNet> = Vec::new();
        for pool in pools {
            let of_pool = existing.iter().filter_map(|key| keys::cidr_of_key(key));
            let mut of_pool: Vec<IpNet> = of_pool.filter(|cidr| pool.cidr.contains(cidr)).collect();
            of_pool.sort();
            let start = pool.walk(self.node).next();
            let turn = of_pool.iter().position(|cidr| Some(*cidr) >= start).unwrap_or(0);
            of_pool.rotate_left(turn);
            claimed.extend(of_pool);
        }
        for (place, cidr) in claimed.iter().enumerate() {
            let (block, revision) = match self.block(cidr) {
                Seen::Unknown => {
                    self.require_blocks(&claimed[place..claimed.len().min(place + CHUNK)])?;
                    continue;
                }
                Seen::There(block, revision) => (*block, revision),
                Seen::Absent | Seen::Broken(_) => continue,
            };
            if let Some(address) = self.try_claimed(cidr, block, revision)? {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    fn try_claimed(&mut self, cidr: &IpNet, block: Block, revision: i64) -> Found<Option<IpAddr>> {
        let Some(ordinal) = block.first_free(cidr, &self.reserved) else { return Ok(None) };
        if block.is_affine_to(self.node) {
            self.confirm_affinity(cidr);
        } else if self.config.strict_affinity {
            let age = block.affinity_claim_time.as_deref();
            if !block.is_empty() || !clock::is_older(age, CLAIM_AGE, self.request.now) {
                return Ok(None);
            }
            return self.reclaim(cidr, &block, revision, ordinal).map(Some);
        }
        Ok(Some(self.take(*cidr, block, revision, ordinal)))
    }

    /// Takes over an empty block: its owner's affinity goes in the same transaction.
    fn reclaim(&mut self, cidr: &IpNet, old: &Block, revision: i64, ordinal: usize) -> Found<IpAddr> {
        if let Some(owner) = old.node() {
            let key = keys::affinity(owner, cidr);
            if !self.view.is_asked(&key) {
                return Err(Halt::More(vec![Range::Key(key)]));
            }
            self.guard(key.clone());
            if self.view.entry(&key).is_some() {
                self.plan.changes.push(Change::Delete { key });
            }
        }
        let mut block = self.claim(cidr);
        // Numbers never go back, even where a clock does.
        block.sequence_number = block.sequence_number.max(old.sequence_number.wrapping_add(1));
        Ok(self.take(*cidr, block, revision, ordinal))
    }
}

fn within(pools: &[&Pool], cidr: &IpNet) -> bool {
    pools.iter().any(|pool| pool.cidr.contains(cidr))
}
