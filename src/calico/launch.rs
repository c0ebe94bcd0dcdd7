//! A launch: look, plan, write.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::BoxFuture;
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;

use super::hint::Hint;
use super::overlap::{prefixes_beside, Lengths};
use super::plan::{self, LaunchPlan, PlanRequest, PlanStep, Purpose};
use super::restore::Kept;
use super::settle::{Pending, Settled};
use super::snapshot::{Question, Snapshot};
use super::store::StoreError;
use super::txn::{Guard, Range, Written};
use super::{
    files, keys, AddressRequest, CalicoError, Datastore, Family, Holder, Identity, Wanted, ATTEMPTS,
};
use crate::limits::{ETCD_KILLED, IPAM_LOCK};

/// A launch that has been looked at and planned; nothing is written or held yet.
pub struct Prepared {
    /// What the task will get unless others are quicker.
    pub addresses: Vec<IpAddr>,
    identity: Identity,
    wanted: Wanted,
    hint: Hint,
    snapshot: Snapshot,
    plan: Box<LaunchPlan>,
    took: Duration,
}

/// See [`Terms::note`].
pub type PendingNote<'a> = Box<dyn Fn(&Pending) -> io::Result<()> + Send + Sync + 'a>;

/// Addresses that other tasks of this host have, with those tasks.
pub type HeldHere = Vec<(IpAddr, Holder)>;

/// See [`Terms::hold`].
pub type Hold<'a> = Box<dyn Fn(Vec<IpAddr>) -> BoxFuture<'a, io::Result<HeldHere>> + Send + Sync + 'a>;

/// On what terms a write is sent.
pub struct Terms<'a> {
    /// Receives every write before it is sent. If this process dies before the answer, its successor rules the write
    /// out. An error keeps the write from being sent.
    pub note: PendingNote<'a>,
    /// Takes the planned addresses on this host before they are written, all of them or none; returns those that other
    /// tasks here hold, independent of the datastore. An error keeps the write from being sent.
    pub hold: Hold<'a>,
    /// How long an etcd that goes away in between is waited for, to learn what became of the write.
    pub patience: Duration,
    /// Ends that waiting.
    pub give_up: CancellationToken,
}

impl Default for Terms<'_> {
    /// A caller that records nothing and waits for nothing.
    fn default() -> Self {
        Self {
            note: Box::new(|_| Ok(())),
            hold: Box::new(|_| Box::pin(std::future::ready(Ok(Vec::new())))),
            patience: Duration::ZERO,
            give_up: CancellationToken::new(),
        }
    }
}

/// An endpoint that stands in the datastore, with its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// In the order of the request.
    pub addresses: Vec<IpAddr>,
    /// Profiles that did not exist before.
    pub profiles_created: Vec<String>,
    /// All enabled pools: what a local dataplane masquerades, and does not masquerade to.
    pub pools: Vec<IpNet>,
    /// What was written, to be written again should the datastore lose it.
    pub kept: Box<Kept>,
    /// Time spent on the datastore, from the first read on.
    pub took: Duration,
}

impl Prepared {
    /// All enabled pools, as [`Committed::pools`].
    pub fn pools(&self) -> Vec<IpNet> {
        enabled_pools(&self.snapshot)
    }

    /// What the endpoint will have.
    pub fn profiles(&self) -> &[String] {
        &self.wanted.profiles
    }
}

impl Datastore {
    /// Finds out what the task would get, in one trip to etcd (more only when the remembered block is
    /// full, or for explicit addresses). Writes nothing.
    pub async fn prepare(&mut self, identity: &Identity, wanted: &Wanted) -> Result<Prepared, CalicoError> {
        let started = Instant::now();
        self.check_profiles(wanted)?;
        let hint = Hint::read(&self.hint_file, &identity.node);
        let mut snapshot = Snapshot::default();
        let ranges = question(identity, wanted, &hint);
        self.look(&mut snapshot, &ranges).await?;
        let plan = self.plan(identity, wanted, &hint, &[], &mut snapshot).await?;
        Ok(Prepared {
            addresses: plan.addresses.clone(),
            identity: identity.clone(),
            wanted: wanted.clone(),
            hint,
            snapshot,
            plan,
            took: started.elapsed(),
        })
    }

    /// Writes profile, block, affinity, handle and endpoint in one transaction.
    ///
    /// Where others were quicker the plan is made anew on what the refused transaction brought back; the
    /// addresses may then differ from the prepared ones. Calico's lock is held meanwhile, but not since
    /// [`Datastore::prepare`]: that would line up all launches of a host behind each other's containers.
    pub async fn commit(
        &mut self,
        prepared: Prepared,
        mac: &str,
        terms: Terms<'_>,
    ) -> Result<Committed, CalicoError> {
        let last = Mutex::new(None);
        let note = |pending: &Pending| {
            (terms.note)(pending)?;
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(pending.clone()));
            Ok(())
        };
        let noted = Terms {
            note: Box::new(note),
            hold: Box::new(|addresses| (terms.hold)(addresses)),
            patience: terms.patience,
            give_up: terms.give_up.clone(),
        };
        let given_up = async {
            terms.give_up.cancelled().await;
            // Nearly always the answer is on its way.
            tokio::time::sleep(ETCD_KILLED).await;
        };
        tokio::select! {
            biased;
            result = self.commit_patiently(prepared, mac, &noted) => return result,
            () = given_up => {}
        }
        let silent = StoreError::Timeout(ETCD_KILLED);
        drop(noted);
        match last.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(pending) => Err(CalicoError::Lost {
                endpoints: self.endpoints.clone(),
                pending,
                source: Box::new(silent),
            }),
            None => Err(self.store_error(silent)),
        }
    }

    async fn commit_patiently(
        &mut self,
        prepared: Prepared,
        mac: &str,
        terms: &Terms<'_>,
    ) -> Result<Committed, CalicoError> {
        let started = Instant::now();
        let Prepared { identity, wanted, hint, mut snapshot, mut plan, took, .. } = prepared;
        let _lock = files::ipam_lock(&self.lock_file, IPAM_LOCK).await;
        let mut excluded = Vec::new();
        for _ in 0..ATTEMPTS {
            // Each round excludes at least one address more, so that it comes to an end.
            while exclude(&mut excluded, &wanted, (terms.hold)(plan.addresses.clone()).await)? {
                plan = self.plan(&identity, &wanted, &hint, &excluded, &mut snapshot).await?;
            }
            let request = self.request(&identity, &wanted, &hint, &excluded);
            let write = plan.transaction(&request, &snapshot, &self.allow_nets, mac);
            let otherwise = ranges_again(&identity, &wanted, &hint, &plan);
            let kept = Box::new(Kept::of(&plan, &write, &wanted, request.now));
            let pending = Pending { handle: identity.handle.clone(), fences: write.fences };
            (terms.note)(&pending).map_err(CalicoError::Unnoted)?;
            match self.store.write(&write.guards, &write.changes, &otherwise).await {
                Ok(Written::Done) => {
                    self.remember(&identity.node, &hint, &snapshot, &plan);
                    return Ok(Committed {
                        addresses: plan.addresses,
                        profiles_created: write.profiles_created,
                        pools: enabled_pools(&snapshot),
                        kept,
                        took: took + started.elapsed(),
                    });
                }
                Ok(Written::Conflict(answer)) => snapshot.absorb(&otherwise, answer),
                Err(StoreError::Lost(source)) => {
                    if let Settled::Committed(addresses) =
                        self.settle_lost(&identity, pending, *source, terms).await?
                    {
                        return Ok(Committed {
                            addresses,
                            profiles_created: write.profiles_created,
                            pools: enabled_pools(&snapshot),
                            kept,
                            took: took + started.elapsed(),
                        });
                    }
                    self.look(&mut snapshot, &otherwise).await?;
                }
                Err(source) => return Err(self.store_error(source)),
            }
            plan = self.plan(&identity, &wanted, &hint, &excluded, &mut snapshot).await?;
        }
        Err(CalicoError::Contended(ATTEMPTS))
    }

    /// Plans, reading further keys as the plan asks for them.
    async fn plan(
        &mut self,
        identity: &Identity,
        wanted: &Wanted,
        hint: &Hint,
        excluded: &[IpAddr],
        snapshot: &mut Snapshot,
    ) -> Result<Box<LaunchPlan>, CalicoError> {
        loop {
            let step = plan::make(&self.request(identity, wanted, hint, excluded), snapshot);
            match step {
                Ok(PlanStep::Ready(plan)) => return Ok(plan),
                Ok(PlanStep::More(ranges)) => self.look(snapshot, &ranges).await?,
                Err(CalicoError::Taken { address, holder }) => {
                    let holder = self.complete(address, holder).await;
                    return Err(CalicoError::Taken { address, holder });
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn request<'a>(
        &'a self,
        identity: &'a Identity,
        wanted: &'a Wanted,
        hint: &'a Hint,
        excluded: &'a [IpAddr],
    ) -> PlanRequest<'a> {
        PlanRequest {
            identity,
            wanted,
            limits: &self.limits,
            hint,
            excluded,
            purpose: Purpose::Task,
            now: SystemTime::now(),
        }
    }

    fn remember(&self, node: &str, hint: &Hint, snapshot: &Snapshot, plan: &LaunchPlan) {
        let next = hint.after(node, snapshot, plan);
        if next != *hint {
            next.write(&self.hint_file, node);
        }
    }

    /// Names are checked before they become part of a key. Which ones a task may use has been decided before.
    fn check_profiles(&self, wanted: &Wanted) -> Result<(), CalicoError> {
        wanted.profiles.iter().try_for_each(|name| super::validate_profile_name(name))
    }
}

/// Notes addresses that tasks of this host have; true when there are any, and the plan has to be made anew without
/// them. One that was asked for by name is an error.
fn exclude(
    excluded: &mut Vec<IpAddr>,
    wanted: &Wanted,
    held: io::Result<HeldHere>,
) -> Result<bool, CalicoError> {
    let held = held.map_err(CalicoError::Unheld)?;
    let found = !held.is_empty();
    for (address, holder) in held {
        let by_name = wanted.addresses.contains(&AddressRequest::Explicit(address));
        if by_name || excluded.contains(&address) {
            return Err(CalicoError::Taken { address, holder });
        }
        excluded.push(address);
    }
    Ok(found)
}

/// All that a launch reads first: for an address that is given, the blocks of every size that may contain it, and
/// the names of those beside it.
fn question(identity: &Identity, wanted: &Wanted, hint: &Hint) -> Vec<Range> {
    let given: Vec<IpAddr> = wanted.addresses.iter().filter_map(|asked| asked.given()).collect();
    let mut blocks = hint.blocks.clone();
    blocks.extend(given.iter().flat_map(|address| Lengths::default().containing(*address)));
    let question = Question {
        node: &identity.node,
        endpoint: identity.endpoint_key(),
        handle: &identity.handle,
        profiles: &wanted.profiles,
        blocks: &blocks,
    };
    let mut ranges = question.ranges();
    ranges.extend(given.into_iter().flat_map(prefixes_beside).map(Range::Names));
    let families: BTreeSet<Family> = hint.full.iter().map(|full| full.family).collect();
    let wanted =
        families.into_iter().filter(|family| wanted.addresses.contains(&AddressRequest::Auto(*family)));
    ranges.extend(wanted.map(|family| Range::Count(keys::blocks(family))));
    ranges
}

/// What a refused write brings back: all that the plan rests on.
fn ranges_again(identity: &Identity, wanted: &Wanted, hint: &Hint, plan: &LaunchPlan) -> Vec<Range> {
    let mut ranges = question(identity, wanted, hint);
    let guarded = plan.guards.iter().filter_map(|guard| match guard {
        Guard::Revision { key, .. } => Some(Range::Key(key.clone())),
        Guard::NoneCreated { prefix, .. } => Some(Range::Names(prefix.clone())),
        // Pools, reservations and affinities: part of the question.
        Guard::NoneNewer { .. } => None,
    });
    let drafts = plan.drafts.keys().map(|cidr| Range::Key(keys::block(cidr)));
    for range in guarded.chain(drafts) {
        let covered = ranges.iter().any(|known| match (known, &range) {
            (Range::Prefix(prefix), Range::Key(key)) => key.starts_with(prefix.as_str()),
            _ => *known == range,
        });
        if !covered {
            ranges.push(range);
        }
    }
    ranges
}

fn enabled_pools(snapshot: &Snapshot) -> Vec<IpNet> {
    snapshot.pools().iter().filter(|pool| pool.is_enabled()).map(|pool| pool.cidr).collect()
}
