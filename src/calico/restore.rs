//! Records of living tasks that the datastore has lost, written again.
//!
//! A datastore that is restored from a backup, or edited by hand, may lack what a launch has written while its task
//! runs on, and may hand the address out a second time. A launch therefore keeps what it has written ([`Kept`]); a
//! cleaner compares ([`Datastore::lacking`], which only reads) and writes what is missing in one guarded transaction
//! ([`Datastore::write_again`]). Nothing that exists is replaced, but for books that have to follow: a block that gets
//! the address back, a handle that counts it. What another holder has by now stays with that holder, and then
//! nothing is written for the task: two endpoints with one address are worse than one that is missing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::block::{self, Attribute, Block};
use super::model::{to_json, Affinity, Extra, Handle};
use super::overlap::overlap;
use super::plan::{holder_of, LaunchPlan, Transaction};
use super::snapshot::{SeenBlock, Snapshot};
use super::store::StoreError;
use super::txn::{Change, Guard, Range, Written};
use super::{
    clock, files, keys, profile, query, CalicoError, Datastore, Family, Holder, Identity, NotReady, Wanted,
    ATTEMPTS,
};
use crate::limits::IPAM_LOCK;

/// Keys a read: etcd takes at most 128 operations in a transaction.
const BATCH: usize = 100;

/// What a launch has written, as far as it does not follow from the task's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The endpoint's record, byte for byte.
    endpoint: String,
    places: Vec<Place>,
    profiles: Vec<String>,
}

/// Where an address was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    address: IpAddr,
    block: IpNet,
    /// The node that had the block; none for a block without affinity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// When the address was taken, as the block carries it.
    since: String,
}

/// One record, or part of one, that is not there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    Endpoint,
    Address(IpAddr),
    Block(IpNet),
    Affinity(IpNet),
    Handle,
    Profile(String),
}

/// An address of a living task that something else holds in the datastore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub address: IpAddr,
    pub holder: Holder,
}

/// How the datastore differs from what a launch has written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lacking {
    pub missing: Vec<Missing>,
    pub conflicts: Vec<Conflict>,
}

impl Lacking {
    /// Everything is as it was written.
    pub fn is_nothing(&self) -> bool {
        self.missing.is_empty() && self.conflicts.is_empty()
    }
}

impl Kept {
    pub(super) fn of(plan: &LaunchPlan, write: &Transaction, wanted: &Wanted, now: SystemTime) -> Self {
        let place = |address: &IpAddr| {
            let drafted = plan.drafts.iter().find(|(cidr, _)| cidr.contains(address));
            let taken = drafted.and_then(|(cidr, (block, _))| block.holder(block::ordinal(cidr, *address)?));
            let since = taken.and_then(|taken| taken.secondary.as_ref()?.get("timestamp").cloned());
            let held = || plan.held.keys().find(|cidr| cidr.contains(address)).copied();
            Some(Place {
                address: *address,
                block: drafted.map(|(cidr, _)| *cidr).or_else(held)?,
                owner: drafted.and_then(|(_, (block, _))| block.node()).map(ToOwned::to_owned),
                since: since.unwrap_or_else(|| clock::go_text(now)),
            })
        };
        Self {
            endpoint: String::from_utf8_lossy(&write.endpoint).into_owned(),
            places: plan.addresses.iter().filter_map(place).collect(),
            profiles: wanted.profiles.clone(),
        }
    }

    /// The profiles of its endpoint.
    pub fn profiles(&self) -> &[String] {
        &self.profiles
    }

    /// The task's addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.places.iter().map(|place| place.address)
    }

    /// What a comparison reads at first.
    fn ranges(&self, identity: &Identity) -> Vec<Range> {
        let mut names =
            vec![keys::cluster_information(), identity.endpoint_key(), keys::handle(&identity.handle)];
        for place in &self.places {
            names.push(keys::block(&place.block));
            names.push(keys::affinity(&identity.node, &place.block));
        }
        names.extend(self.profiles.iter().map(|name| keys::profile(name)));
        names.into_iter().map(Range::Key).collect()
    }
}

impl Datastore {
    /// Compares what launches have written with what there is; reads only. In the order of the tasks.
    pub async fn lacking(&mut self, tasks: &[(&Identity, &Kept)]) -> Result<Vec<Lacking>, CalicoError> {
        let mut ranges: Vec<Range> = Vec::new();
        for range in tasks.iter().flat_map(|(identity, kept)| kept.ranges(identity)) {
            if !ranges.contains(&range) {
                ranges.push(range);
            }
        }
        let mut snapshot = Snapshot::default();
        for batch in ranges.chunks(BATCH) {
            self.look(&mut snapshot, batch).await?;
        }
        let mut all = Vec::new();
        for (identity, kept) in tasks {
            all.push(self.plan_again(identity, kept, &mut snapshot, &mut ranges).await?.lacking);
        }
        Ok(all)
    }

    /// Writes again what is missing of a task, in one transaction, unless something else holds one of its addresses.
    /// Returns what was missing; what was written is complete when no conflict is named.
    pub async fn write_again(&mut self, identity: &Identity, kept: &Kept) -> Result<Lacking, CalicoError> {
        let _lock = files::ipam_lock(&self.lock_file, IPAM_LOCK).await;
        let mut ranges = kept.ranges(identity);
        let mut snapshot = Snapshot::default();
        self.look(&mut snapshot, &ranges).await?;
        // The answer to the write was lost: it may have happened.
        let mut perhaps = None;
        for _ in 0..ATTEMPTS {
            if snapshot.readiness() == Err(NotReady::Locked) {
                return Err(CalicoError::NotReady(NotReady::Locked));
            }
            let again = self.plan_again(identity, kept, &mut snapshot, &mut ranges).await?;
            if again.lacking.is_nothing() {
                return Ok(perhaps.unwrap_or(again.lacking));
            }
            if !again.lacking.conflicts.is_empty() {
                return Ok(again.lacking);
            }
            match self.store.write(&again.guards, &again.changes, &ranges).await {
                Ok(Written::Done) => return Ok(again.lacking),
                Ok(Written::Conflict(answer)) => snapshot.absorb(&ranges, answer),
                // Written anew on what is there now, the lost one is ruled out: it rests on the same revisions.
                Err(StoreError::Lost(_)) => {
                    perhaps = Some(again.lacking);
                    self.store.move_on().await.map_err(|source| self.store_error(source))?;
                    self.look(&mut snapshot, &ranges).await?;
                }
                Err(source) => return Err(self.store_error(source)),
            }
        }
        Err(CalicoError::Contended(ATTEMPTS))
    }

    /// Plans, and reads the other blocks of the family where the task's own is gone.
    async fn plan_again(
        &mut self,
        identity: &Identity,
        kept: &Kept,
        snapshot: &mut Snapshot,
        ranges: &mut Vec<Range>,
    ) -> Result<Again, CalicoError> {
        loop {
            let more = match blocks_to_read(&identity.node, kept, snapshot) {
                more if more.is_empty() => {
                    return Ok(Again::plan(identity, kept, snapshot, &self.allow_nets));
                }
                more => more,
            };
            self.look(snapshot, &more).await?;
            ranges.extend(more);
        }
    }
}

/// The block that holds the place of an address, or another one where it would have to be made.
enum Home {
    There(IpNet, Box<Block>, i64),
    /// To be made again.
    Gone,
    /// Cannot be used; the text names it.
    Blocked(String),
}

/// What has to be read besides the kept keys: where a block is gone, its pool may have been cut anew.
fn blocks_to_read(node: &str, kept: &Kept, snapshot: &Snapshot) -> Vec<Range> {
    let gone =
        |place: &&Place| matches!(snapshot.block(&place.block), SeenBlock::Absent | SeenBlock::Unknown);
    let mut more = Vec::new();
    for place in kept.places.iter().filter(gone) {
        let family = Family::of(place.address);
        match snapshot.blocks(family) {
            None => more.push(Range::Names(keys::blocks(family))),
            Some(_) => {
                let others = overlapping(place, snapshot).filter(|cidr| cidr.contains(&place.address));
                let needed = others.flat_map(|cidr| [keys::block(&cidr), keys::affinity(node, &cidr)]);
                more.extend(needed.filter(|key| !snapshot.is_asked(key)).map(Range::Key));
            }
        }
    }
    let mut once = Vec::new();
    for range in more {
        if !once.contains(&range) {
            once.push(range);
        }
    }
    once
}

/// Blocks of another size that have addresses in common with the place's.
fn overlapping<'a>(place: &'a Place, snapshot: &'a Snapshot) -> impl Iterator<Item = IpNet> + 'a {
    let names = snapshot.blocks(Family::of(place.address)).into_iter().flatten();
    let others = names.filter_map(|key| keys::cidr_of_key(key)).filter(|cidr| *cidr != place.block);
    others.filter(|cidr| overlap(cidr, &place.block))
}

/// One task's write, on a snapshot. Pure.
#[derive(Default)]
struct Again {
    lacking: Lacking,
    guards: Vec<Guard>,
    changes: Vec<Change>,
}

impl Again {
    fn plan(identity: &Identity, kept: &Kept, snapshot: &Snapshot, allow_nets: &[IpNet]) -> Self {
        let mut again = Self::default();
        again.guard(keys::cluster_information(), snapshot);
        again.endpoint(identity, kept, snapshot);
        let mut drafts = BTreeMap::new();
        for place in &kept.places {
            again.place(identity, place, snapshot, &mut drafts);
        }
        let mut held = BTreeMap::new();
        for (cidr, draft) in drafts {
            held.insert(cidr.to_string(), draft.block.held_by(&identity.handle).len() as u64);
            again.draft(identity, cidr, draft, snapshot);
        }
        again.handle(identity, held, snapshot);
        let now = SystemTime::now();
        for name in kept.profiles.iter().filter(|name| !profile::is_built_in(name)) {
            let key = keys::profile(name);
            if snapshot.entry(&key).is_none()
                && !again.lacking.missing.contains(&Missing::Profile(name.clone()))
            {
                again.lacking.missing.push(Missing::Profile(name.clone()));
                let new = profile::new(name, allow_nets, Uuid::new_v4().to_string(), clock::rfc3339(now));
                again.put(key, snapshot, to_json(&new));
            }
        }
        again
    }

    fn endpoint(&mut self, identity: &Identity, kept: &Kept, snapshot: &Snapshot) {
        let key = identity.endpoint_key();
        let Some(entry) = snapshot.entry(&key) else {
            self.lacking.missing.push(Missing::Endpoint);
            return self.put(key, snapshot, kept.endpoint.clone().into_bytes());
        };
        self.guard(key, snapshot);
        let uid = query::parse(&entry.value).and_then(|endpoint| endpoint.uid);
        if uid.as_deref() != Some(identity.uid.as_str()) {
            let name = format!("another endpoint of the name {}", identity.endpoint_name());
            let holder = Holder { name, node: Some(identity.node.clone()), ..Holder::default() };
            let conflicts = kept.addresses().map(|address| Conflict { address, holder: holder.clone() });
            self.lacking.conflicts.extend(conflicts);
        }
    }

    fn place(
        &mut self,
        identity: &Identity,
        place: &Place,
        snapshot: &Snapshot,
        drafts: &mut BTreeMap<IpNet, Draft>,
    ) {
        let (cidr, fresh) = match home(place, snapshot) {
            Home::There(cidr, block, revision) => (cidr, Draft { block: *block, revision, changed: false }),
            Home::Gone => (place.block, Draft { block: made_again(place), revision: 0, changed: true }),
            Home::Blocked(name) => {
                let holder = Holder { name, ..Holder::default() };
                return self.lacking.conflicts.push(Conflict { address: place.address, holder });
            }
        };
        let draft = drafts.entry(cidr).or_insert(fresh);
        let Some(ordinal) = block::ordinal(&cidr, place.address) else { return };
        match draft.block.holder(ordinal) {
            None => {
                self.lacking.missing.push(Missing::Address(place.address));
                draft.block.assign(ordinal, attribute(identity, &place.since));
                draft.changed = true;
            }
            Some(holder) if !draft.block.held_by(&identity.handle).contains(&ordinal) => {
                let holder = holder_of(holder);
                self.lacking.conflicts.push(Conflict { address: place.address, holder });
            }
            Some(_) => {}
        }
    }

    fn draft(&mut self, identity: &Identity, cidr: IpNet, draft: Draft, snapshot: &Snapshot) {
        let Draft { mut block, revision, changed } = draft;
        let owner = block.node().map(ToOwned::to_owned);
        if revision == 0 {
            self.lacking.missing.push(Missing::Block(cidr));
            // Nor one of another size that overlaps it.
            let prefix = keys::blocks(Family::of(cidr.addr()));
            let revision = snapshot.names_revision(&prefix).unwrap_or_default();
            self.guards.push(Guard::NoneNewer { prefix, revision });
        }
        if let Some(owner) = owner.filter(|owner| *owner == identity.node || revision == 0) {
            let key = keys::affinity(&owner, &cidr);
            // That of another node is read nowhere; it is written with the block, as a launch there would.
            let known = snapshot.entry(&key).and_then(|entry| serde_json::from_slice(&entry.value).ok());
            let empty = snapshot.entry(&key).is_some_and(|entry| entry.value.is_empty());
            if !empty && !known.is_some_and(|affinity: Affinity| affinity.is_confirmed()) {
                self.lacking.missing.push(Missing::Affinity(cidr));
                match owner == identity.node {
                    true => self.put(key, snapshot, to_json(&Affinity::confirmed())),
                    false => self.changes.push(Change::Put { key, value: to_json(&Affinity::confirmed()) }),
                }
            }
        }
        let key = keys::block(&cidr);
        if changed {
            block.count_write();
            self.put(key, snapshot, to_json(&block));
        } else {
            self.guard(key, snapshot);
        }
    }

    fn handle(&mut self, identity: &Identity, held: BTreeMap<String, u64>, snapshot: &Snapshot) {
        let key = keys::handle(&identity.handle);
        let known = snapshot.handle(&identity.handle).ok().flatten();
        if known.as_ref().is_some_and(|handle| handle.block == held) {
            return self.guard(key, snapshot);
        }
        self.lacking.missing.push(Missing::Handle);
        let handle = Handle { block: held, deleted: false, ..known.unwrap_or_default() };
        self.put(key, snapshot, to_json(&handle));
    }

    fn guard(&mut self, key: String, snapshot: &Snapshot) {
        self.guards.push(Guard::Revision { revision: snapshot.revision_of(&key), key });
    }

    fn put(&mut self, key: String, snapshot: &Snapshot, value: Vec<u8>) {
        self.guard(key.clone(), snapshot);
        self.changes.push(Change::Put { key, value });
    }
}

/// A block as this write leaves it.
struct Draft {
    block: Block,
    revision: i64,
    changed: bool,
}

fn home(place: &Place, snapshot: &Snapshot) -> Home {
    match snapshot.block(&place.block) {
        SeenBlock::There(block, revision) => return Home::There(place.block, block, revision),
        SeenBlock::Broken(reason) => return unusable(&place.block, &reason),
        SeenBlock::Absent | SeenBlock::Unknown => {}
    }
    for cidr in overlapping(place, snapshot) {
        match snapshot.block(&cidr) {
            SeenBlock::There(block, revision) if cidr.contains(&place.address) => {
                return Home::There(cidr, block, revision);
            }
            SeenBlock::Broken(reason) => return unusable(&cidr, &reason),
            // Gone since its name was read.
            SeenBlock::Absent => {}
            SeenBlock::There(..) | SeenBlock::Unknown => {
                return Home::Blocked(format!("the block {cidr}, which overlaps the task's {}", place.block));
            }
        }
    }
    Home::Gone
}

fn unusable(cidr: &IpNet, reason: &str) -> Home {
    Home::Blocked(format!("the block {cidr}, which cannot be read: {reason}"))
}

fn made_again(place: &Place) -> Block {
    let now = SystemTime::now();
    let node = place.owner.as_deref().unwrap_or_default();
    let block = Block::new(&place.block, node, clock::unix_nanos(now), clock::rfc3339(now));
    match place.owner {
        Some(_) => block,
        None => Block { affinity: None, affinity_claim_time: None, ..block },
    }
}

/// The same as a launch gives an address, with the time of that launch.
fn attribute(identity: &Identity, since: &str) -> Attribute {
    let secondary = [
        ("mesos-app", identity.app.as_str()),
        ("mesos-task", identity.task_id.as_str()),
        ("node", identity.node.as_str()),
        ("timestamp", since),
    ];
    Attribute {
        handle_id: Some(identity.handle.clone()),
        secondary: Some(secondary.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        extra: Extra::new(),
    }
}
