//! What other blocks hold of a block's addresses. An address is free only when no block that contains it, of any
//! size or owner, has it allocated.
//!
//! A block is *regular* when every pool that reaches into it contains it and is cut into blocks of its size. As long
//! as the pools stay as they are, no program of Calico's makes a block that overlaps a regular one. So a regular block
//! that was once found alone stays alone until the pools change, and the hint remembers that. It is a fact of the
//! datastore, not of the host: a hint that another host wrote is as good, and one for other pools counts for nothing.
//! All other blocks are compared with their surroundings at every launch, and the write rests on these.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::overlap::{overlap, prefixes_inside};
use super::super::{block, keys, Family};
use super::{Block, Found, Guard, Halt, Planner, Range, SeenBlock};

/// Ranges of one read: etcd's own limit is 128 operations a transaction.
const MOST_RANGES: usize = 100;

/// The blocks that share addresses with a block.
#[derive(Default)]
pub(super) struct Around {
    /// Nothing in place of one that cannot be read.
    blocks: Vec<(IpNet, Option<Box<Block>>)>,
    guards: Vec<Guard>,
}

impl Around {
    /// May another block have given this address away?
    pub(super) fn has(&self, address: &IpAddr) -> bool {
        self.blocks.iter().filter(|(cidr, _)| cidr.contains(address)).any(|(cidr, block)| {
            let ordinal = block::ordinal(cidr, *address);
            block.as_ref().zip(ordinal).is_none_or(|(block, ordinal)| block.holder(ordinal).is_some())
        })
    }
}

impl Planner<'_> {
    /// The blocks around one that exists. The write has to rest on them: see [`Planner::rest_on`].
    pub(super) fn around(&mut self, cidr: &IpNet) -> Found<Around> {
        if self.is_known_alone(cidr) {
            return Ok(Around::default());
        }
        let overlapping = self.overlapping(cidr)?;
        if overlapping.is_empty() && self.is_regular(cidr) {
            self.plan.alone.insert(*cidr);
            return Ok(Around::default());
        }
        self.require_blocks(&overlapping)?;
        let guards = self.guards_around(cidr, &overlapping);
        let blocks = overlapping.into_iter().map(|other| match self.block(&other) {
            SeenBlock::There(block, _) => (other, Some(block)),
            SeenBlock::Broken(_) | SeenBlock::Absent | SeenBlock::Unknown => (other, None),
        });
        Ok(Around { blocks: blocks.collect(), guards })
    }

    /// The write rests on what these blocks hold, and on no other overlapping block having been made.
    pub(super) fn rest_on(&mut self, around: Around) {
        for guard in around.guards {
            if !self.plan.guards.contains(&guard) {
                self.plan.guards.push(guard);
            }
        }
    }

    /// A new block of this node, with all its addresses free: nothing may overlap it when it is written either.
    pub(super) fn claim_alone(&mut self, cidr: &IpNet) -> Block {
        let guards = self.guards_around(cidr, &[]);
        self.rest_on(Around { blocks: Vec::new(), guards });
        if self.is_regular(cidr) {
            self.plan.alone.insert(*cidr);
        }
        self.claim(cidr)
    }

    /// Is a block cut as today's pools are cut where it lies?
    pub(super) fn is_regular(&self, cidr: &IpNet) -> bool {
        let mut near = self.pools.iter().filter(|pool| overlap(&pool.cidr, cidr)).peekable();
        let fits = |pool: &super::Pool| pool.cidr.contains(cidr) && pool.block_length == cidr.prefix_len();
        near.peek().is_some() && near.all(fits)
    }

    fn is_known_alone(&self, cidr: &IpNet) -> bool {
        let remembered = self.trusts_hint && self.request.hint.alone.contains(cidr);
        (remembered || self.plan.alone.contains(cidr)) && self.is_regular(cidr)
    }

    /// The other blocks that share addresses with this one, by their names, those that this plan makes included.
    pub(super) fn overlapping(&self, cidr: &IpNet) -> Found<Vec<IpNet>> {
        let missing = || Halt::More(self.surroundings(cidr));
        let inside = self.view.blocks_inside(cidr, &prefixes_inside(cidr)).ok_or_else(missing)?;
        let mut found: Vec<IpNet> = inside.into_iter().collect();
        let names = self.view.blocks(Family::of(cidr.addr()));
        for wider in self.lengths.wider(cidr) {
            match (names, self.view.block(&wider)) {
                (Some(names), _) if !names.contains(&keys::block(&wider)) => {}
                (None, SeenBlock::Unknown) => return Err(missing()),
                (None, SeenBlock::Absent) => {}
                _ => found.push(wider),
            }
        }
        let new = self.plan.drafts.keys().filter(|draft| overlap(draft, cidr) && *draft != cidr);
        let new: Vec<IpNet> = new.filter(|draft| !found.contains(draft)).copied().collect();
        found.extend(new);
        Ok(found)
    }

    /// What has to be read to know which blocks overlap this one.
    fn surroundings(&self, cidr: &IpNet) -> Vec<Range> {
        let wider = self.lengths.wider(cidr).into_iter().map(|wider| keys::block(&wider));
        let wider = wider.filter(|key| !self.view.is_asked(key)).map(Range::Key);
        let prefixes = prefixes_inside(cidr).into_iter();
        let inside = prefixes.filter(|prefix| self.view.names_revision(prefix).is_none()).map(Range::Names);
        wider.chain(inside).collect()
    }

    fn guards_around(&self, cidr: &IpNet, overlapping: &[IpNet]) -> Vec<Guard> {
        let mut blocks = self.lengths.wider(cidr);
        blocks.extend(overlapping.iter().filter(|other| cidr.contains(*other)));
        let blocks = blocks.iter().map(keys::block);
        let as_read = blocks.map(|key| Guard::Revision { revision: self.view.revision_of(&key), key });
        let inside = prefixes_inside(cidr).into_iter().map(|prefix| Guard::NoneCreated {
            revision: self.view.names_revision(&prefix).unwrap_or(self.view.revision),
            prefix,
        });
        as_read.chain(inside).collect()
    }

    /// Stops planning until these blocks have been read, and on the same trip own ones, with what surrounds those that
    /// are not known to be alone.
    pub(super) fn require_with_own(&self, cidrs: &[IpNet], own: &[IpNet]) -> Found<()> {
        let Err(Halt::More(mut ranges)) = self.require_blocks(cidrs) else { return Ok(()) };
        if let Err(Halt::More(more)) = self.require_blocks(own) {
            ranges.extend(more);
        }
        let around = own.iter().filter(|cidr| !self.is_known_alone(cidr));
        ranges.extend(around.flat_map(|cidr| self.surroundings(cidr)));
        let mut asked: Vec<Range> = Vec::new();
        for range in ranges.into_iter().take(MOST_RANGES) {
            if !asked.contains(&range) {
                asked.push(range);
            }
        }
        Err(Halt::More(asked))
    }

    /// Stops planning until all these blocks have been read.
    pub(super) fn require_blocks(&self, cidrs: &[IpNet]) -> Found<()> {
        let unknown = cidrs.iter().map(keys::block).filter(|key| !self.view.is_asked(key));
        let ranges: Vec<Range> = unknown.map(Range::Key).take(MOST_RANGES).collect();
        if ranges.is_empty() {
            return Ok(());
        }
        Err(Halt::More(ranges))
    }
}
