//! An automatic address: own blocks, then a new block, then blocks of others.
//!
//! Blocks may be larger than today's pools, or cut otherwise: any block that reaches into a pool may serve, with
//! those of its addresses that the pool contains.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::super::block::Block;
use super::super::hint::Full;
use super::super::overlap::{overlap, Occupied};
use super::super::txn::Change;
use super::super::{clock, keys, pool, CalicoError, Family};
use super::around::Around;
use super::{Found, Halt, Planner, Pool, Range, SeenBlock};

/// Calico's limit where the configuration names none.
const BLOCKS_PER_HOST: usize = 20;
/// Blocks read in one trip when a whole pool has to be searched.
const CHUNK: usize = 32;
/// How long a host may keep an empty block before another takes it; seconds, as in Calico.
const CLAIM_AGE: u64 = 60;
/// Steps of a walk through a pool until it counts as full: a pool of /48 has more blocks than can be
/// looked at, and only reservations of that size could make the walk so long.
const WALK_LIMIT: usize = 1 << 20;
/// The same for places in which blocks of another size have left room: each takes longer to look at.
const GAP_LIMIT: usize = 1 << 12;
/// Blocks given up at once: a transaction has room for some forty of them.
const GIVEN_UP: usize = 20;

impl Planner<'_> {
    pub(super) fn assign_auto(&mut self, family: Family) -> Found<IpAddr> {
        let all = self.pools.clone();
        let serving = pool::choose(&all, family, &self.node_labels, &self.request.limits.pools);
        let named = self.named.clone();
        let pools = match &named {
            Some(named) => of_family(named, family, serving.as_deref().unwrap_or_default())?,
            None => serving.map_err(|reasons| CalicoError::NoPool {
                family,
                node: self.node.to_owned(),
                reasons,
            })?,
        };
        self.guard_all(keys::pools());
        for pool in &pools {
            self.guard(keys::pool(&pool.name));
        }
        self.guard_all(keys::reservations());
        let own = self.own_blocks(family, &pools);
        self.give_up_deselected(&own)?;
        if let Some(address) = self.try_own_blocks(&own, &pools)? {
            return Ok(address);
        }
        let exhausted = |reason: &str| {
            let pools = pools.iter().map(|pool| pool.shown()).collect();
            Halt::Error(CalicoError::Exhausted { family, pools, reason: reason.to_owned() })
        };
        self.check_may_claim(family, &pools).map_err(|reason| exhausted(&reason))?;
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
    fn own_blocks(&self, family: Family, pools: &[&Pool]) -> Vec<IpNet> {
        let known = self.view.affinities(self.node, family).into_iter().map(|(cidr, _)| cidr);
        let mut own: Vec<IpNet> = known.filter(|cidr| reaches(pools, cidr)).collect();
        own.sort_by_key(|cidr| !self.request.hint.blocks.contains(cidr));
        own
    }

    fn try_own_blocks(&mut self, own: &[IpNet], pools: &[&Pool]) -> Found<Option<IpAddr>> {
        for (place, cidr) in own.iter().enumerate() {
            match self.block(cidr) {
                SeenBlock::Unknown => self.require_with_own(&own[place..], &own[place..])?,
                SeenBlock::Broken(_) => {}
                SeenBlock::Absent => {
                    // As a new block: only where nothing overlaps it. One of another size than today's pools have is
                    // made only if these pools were there when it got its affinity.
                    let outdated = !self.is_regular(cidr) && !self.trusts_hint;
                    if outdated || !self.overlapping(cidr)?.is_empty() {
                        self.drop_stale_affinity(cidr);
                    } else if !pool::is_reserved(cidr, &self.reserved) {
                        let block = self.claim_alone(cidr);
                        if let Some(address) = self.take_free(cidr, block, 0, pools, &Around::default()) {
                            return Ok(Some(address));
                        }
                    }
                }
                SeenBlock::There(block, _) if !block.is_affine_to(self.node) => {
                    self.drop_stale_affinity(cidr)
                }
                SeenBlock::There(block, revision) => {
                    if self.free(cidr, &block, pools, &Around::default()).is_none() {
                        continue;
                    }
                    let around = self.around(cidr)?;
                    if let Some(address) = self.take_free(cidr, *block, revision, pools, &around) {
                        self.confirm_affinity(cidr);
                        self.rest_on(around);
                        return Ok(Some(address));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The first address of a block that nothing speaks against.
    fn free(&self, cidr: &IpNet, block: &Block, pools: &[&Pool], around: &Around) -> Option<usize> {
        block.first_free(cidr, |address| {
            pools.iter().any(|pool| pool.cidr.contains(address))
                && !self.reserved.iter().any(|net| net.contains(address))
                && !around.has(address)
        })
    }

    fn take_free(
        &mut self,
        cidr: &IpNet,
        block: Block,
        revision: i64,
        pools: &[&Pool],
        around: &Around,
    ) -> Option<IpAddr> {
        let ordinal = self.free(cidr, &block, pools, around)?;
        Some(self.take(*cidr, block, revision, ordinal))
    }

    /// Empty blocks of this node go back where no pool that they lie in serves the node any longer, so that hosts
    /// which it serves can have them. Looked for once after pools or labels changed: later on a block becomes empty
    /// by a release, which does the same.
    fn give_up_deselected(&mut self, usable: &[IpNet]) -> Found<()> {
        if self.plan.tidy || self.trusts_hint {
            self.plan.tidy = true;
            return Ok(());
        }
        let own = [Family::V4, Family::V6].map(|family| self.view.affinities(self.node, family));
        let own = own.into_iter().flatten().map(|(cidr, _)| cidr);
        let deselected = |cidr: &IpNet| pool::is_deselected(&self.pools, cidr, &self.node_labels);
        let deselected: Vec<IpNet> = own.filter(deselected).collect();
        self.require_with_own(&deselected, usable)?;
        let mut left = GIVEN_UP;
        for cidr in &deselected {
            let is_new = self.plan.drafts.contains_key(cidr);
            match self.block(cidr) {
                SeenBlock::There(block, _) if !block.is_affine_to(self.node) => {
                    self.drop_stale_affinity(cidr)
                }
                SeenBlock::There(block, _) if block.is_empty() && !is_new && left > 0 => {
                    left -= 1;
                    self.drop_stale_affinity(cidr);
                    self.plan.changes.push(Change::Delete { key: keys::block(cidr) });
                }
                SeenBlock::Absent => self.drop_stale_affinity(cidr),
                SeenBlock::There(..) | SeenBlock::Broken(_) | SeenBlock::Unknown => {}
            }
        }
        self.plan.tidy = left > 0;
        Ok(())
    }

    /// The block is not, or no longer, this node's while its affinity is still there.
    fn drop_stale_affinity(&mut self, cidr: &IpNet) {
        let key = keys::affinity(self.node, cidr);
        self.guard(key.clone());
        self.guard(keys::block(cidr));
        let change = Change::Delete { key };
        if !self.plan.changes.contains(&change) {
            self.plan.changes.push(change);
        }
    }

    /// A host at its limit gets no further block and borrows none either. What counts are its blocks in the pools
    /// that this request may use.
    fn check_may_claim(&mut self, family: Family, pools: &[&Pool]) -> Result<(), String> {
        self.guard_all(keys::affinities(self.node, family));
        let limit = match self.config.max_blocks_per_host as usize {
            0 => BLOCKS_PER_HOST,
            limit => limit,
        };
        let gone = |cidr: &IpNet| {
            self.plan.changes.contains(&Change::Delete { key: keys::affinity(self.node, cidr) })
        };
        let known = self.view.affinities(self.node, family).into_iter().map(|(cidr, _)| cidr);
        let mut own: BTreeSet<IpNet> = known.filter(|cidr| !gone(cidr)).collect();
        let new = self.plan.drafts.iter().filter(|(_, (block, _))| block.is_affine_to(self.node));
        own.extend(new.map(|(cidr, _)| *cidr));
        let own = own.iter().filter(|cidr| reaches(pools, cidr)).count();
        if own >= limit {
            return Err(format!(
                "all {own} blocks of this host are full, and maxBlocksPerHost allows no more"
            ));
        }
        if !self.config.auto_allocate_blocks {
            return Err("the blocks of this host are full and IPAM's auto_allocate_blocks is off".into());
        }
        Ok(())
    }

    /// The first block of the walk that nothing overlaps. Where blocks of another size leave no room for a whole one,
    /// the largest part of one that is left.
    fn try_new_block(&mut self, family: Family, pools: &[&Pool]) -> Found<Option<IpAddr>> {
        let Some(names) = self.view.blocks(family) else {
            if self.is_still_full(family, pools) {
                return Ok(None);
            }
            return Err(Halt::More(vec![Range::Names(keys::blocks(family))]));
        };
        let existing = names.iter().filter_map(|key| keys::cidr_of_key(key));
        let taken = Occupied::new(existing.chain(self.plan.drafts.keys().copied()));
        let open = |cidr: &IpNet| !pool::is_reserved(cidr, &self.reserved);
        let whole = |pool: &Pool| {
            pool.walk(self.node).take(WALK_LIMIT).find(|cidr| !taken.touches(cidr) && open(cidr))
        };
        let part = |pool: &Pool| {
            let places = pool.walk(self.node).take(GAP_LIMIT);
            places.filter_map(|cidr| taken.gap(&cidr)).find(open)
        };
        let all = || pools.iter().copied();
        let Some(cidr) = all().find_map(whole).or_else(|| all().find_map(part)) else {
            let blocks = i64::try_from(names.len()).unwrap_or(i64::MAX);
            self.plan.full.push(Full { family, pools: names_of(pools), blocks });
            return Ok(None);
        };
        let block = self.claim_alone(&cidr);
        Ok(self.take_free(&cidr, block, 0, pools, &Around::default()))
    }

    /// An earlier launch found no place for a block, and since then there are as many blocks as before.
    fn is_still_full(&self, family: Family, pools: &[&Pool]) -> bool {
        let Some(blocks) = self.view.block_count(family).filter(|_| self.trusts_hint) else { return false };
        let names = names_of(pools);
        let same = |full: &Full| (full.family, &full.pools, full.blocks) == (family, &names, blocks);
        self.request.hint.full.iter().any(same)
    }

    /// Every block is claimed: one of ours whose affinity was lost, one that may be borrowed from, or,
    /// where borrowing is forbidden, an empty one of another host.
    fn try_any_block(&mut self, family: Family, pools: &[&Pool]) -> Found<Option<IpAddr>> {
        let Some(existing) = self.view.blocks(family).cloned() else {
            // The pools were full at an earlier launch: where that one found an address is the first place to look.
            for cidr in self.request.hint.blocks.iter().filter(|cidr| reaches(pools, cidr)) {
                let SeenBlock::There(block, revision) = self.block(cidr) else { continue };
                if let Some(address) = self.try_claimed(cidr, *block, revision, pools)? {
                    return Ok(Some(address));
                }
            }
            return Err(Halt::More(vec![Range::Names(keys::blocks(family))]));
        };
        let mut claimed: Vec<IpNet> = Vec::new();
        for pool in pools {
            let of_pool = existing.iter().filter_map(|key| keys::cidr_of_key(key));
            let mut of_pool: Vec<IpNet> = of_pool.filter(|cidr| overlap(&pool.cidr, cidr)).collect();
            of_pool.sort();
            let start = pool.walk(self.node).next();
            let turn = of_pool.iter().position(|cidr| Some(*cidr) >= start).unwrap_or(0);
            of_pool.rotate_left(turn);
            claimed.extend(of_pool);
        }
        for (place, cidr) in claimed.iter().enumerate() {
            let (block, revision) = match self.block(cidr) {
                SeenBlock::Unknown => {
                    self.require_blocks(&claimed[place..claimed.len().min(place + CHUNK)])?;
                    continue;
                }
                SeenBlock::There(block, revision) => (*block, revision),
                SeenBlock::Absent | SeenBlock::Broken(_) => continue,
            };
            if let Some(address) = self.try_claimed(cidr, block, revision, pools)? {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    fn try_claimed(
        &mut self,
        cidr: &IpNet,
        block: Block,
        revision: i64,
        pools: &[&Pool],
    ) -> Found<Option<IpAddr>> {
        if self.free(cidr, &block, pools, &Around::default()).is_none() {
            return Ok(None);
        }
        let around = self.around(cidr)?;
        let Some(ordinal) = self.free(cidr, &block, pools, &around) else { return Ok(None) };
        let address = if block.is_affine_to(self.node) {
            self.confirm_affinity(cidr);
            self.take(*cidr, block, revision, ordinal)
        } else if self.config.strict_affinity {
            let age = block.affinity_claim_time.as_deref();
            if !block.is_empty() || !clock::is_older(age, CLAIM_AGE, self.request.now) {
                return Ok(None);
            }
            self.reclaim(cidr, &block, revision, ordinal)?
        } else {
            self.take(*cidr, block, revision, ordinal)
        };
        self.rest_on(around);
        Ok(Some(address))
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

/// The named pools of a family, or that there are none.
fn of_family<'a>(named: &'a [Pool], family: Family, serving: &[&Pool]) -> Result<Vec<&'a Pool>, CalicoError> {
    let fits = |pool: &&Pool| Family::of(pool.cidr.addr()) == family;
    let pools: Vec<&Pool> = named.iter().filter(fits).collect();
    if pools.is_empty() {
        return Err(CalicoError::PoolUnusable {
            pool: named.iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>().join(", "),
            why: format!("which has no {family} addresses"),
            usable: serving.iter().map(|pool| pool.shown()).collect(),
        });
    }
    Ok(pools)
}

fn names_of(pools: &[&Pool]) -> Vec<String> {
    pools.iter().map(|pool| pool.name.clone()).collect()
}

fn reaches(pools: &[&Pool], cidr: &IpNet) -> bool {
    pools.iter().any(|pool| overlap(&pool.cidr, cidr))
}
