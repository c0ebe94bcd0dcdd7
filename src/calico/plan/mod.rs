//! The plan of one launch: which addresses, and what has to be written for them. Pure.
//!
//! [`make`] looks at a snapshot and either says which keys it still has to see, or yields a [`LaunchPlan`].
//! It is called again after every further read and after every conflict. Rules and their order are
//! Calico's: own blocks first, then a new block, then (unless affinity is strict) other hosts' blocks.

mod around;
mod auto;
mod explicit;
mod write;

pub(super) use explicit::holder_of;
pub(super) use write::Transaction;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::SystemTime;

use ipnet::IpNet;

use super::block::{self, Attribute, Block};
use super::hint::{Full, Hint};
use super::model::{Affinity, Extra, IpamConfig};
use super::overlap::Lengths;
use super::pool::{self, Pool};
use super::snapshot::{SeenBlock, Snapshot};
use super::txn::{Change, Guard, Range};
use super::{clock, keys, AddressRequest, CalicoError, Family, Identity, Wanted};
use crate::config::Limits;
use crate::names::RESOURCE_NAME_MAX;

/// Who gets the addresses.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose<'a> {
    /// A task, which also gets an endpoint.
    Task,
    /// The end of a node's tunnel.
    Tunnel {
        /// The allocation's attribute `type`.
        attribute: &'static str,
        /// The names of the pools that may serve it.
        pools: &'a [String],
    },
}

/// The request of a launch.
pub(super) struct PlanRequest<'a> {
    pub identity: &'a Identity,
    pub wanted: &'a Wanted,
    pub limits: &'a Limits,
    /// Blocks to try first, and what was found out about them earlier.
    pub hint: &'a Hint,
    /// Not to be chosen: other tasks of this host have them.
    pub excluded: &'a [IpAddr],
    pub purpose: Purpose<'a>,
    pub now: SystemTime,
}

/// The next thing to do.
pub(super) enum PlanStep {
    Ready(Box<LaunchPlan>),
    /// Read these and ask again.
    More(Vec<Range>),
}

/// What to write, but for the endpoint's MAC.
#[derive(Debug, Clone, Default)]
pub(super) struct LaunchPlan {
    /// In the order of the request.
    pub addresses: Vec<IpAddr>,
    /// Blocks that change, with the revision they were read at (0: new).
    pub drafts: BTreeMap<IpNet, (Block, i64)>,
    pub guards: Vec<Guard>,
    pub changes: Vec<Change>,
    /// Addresses of the handle by block, those it had before included.
    pub held: BTreeMap<IpNet, u64>,
    /// Blocks that no other overlaps as long as the pools stay as they are.
    pub alone: BTreeSet<IpNet>,
    /// The pools on which that rests.
    pub mark: String,
    /// No empty block of this node is left in a pool that no longer serves the node.
    pub tidy: bool,
    /// Pools in which no new block found a place.
    pub full: Vec<Full>,
}

/// Why planning stops before the end.
enum Halt {
    More(Vec<Range>),
    Error(CalicoError),
}

impl From<CalicoError> for Halt {
    fn from(error: CalicoError) -> Self {
        Self::Error(error)
    }
}

type Found<T> = Result<T, Halt>;

/// Plans the launch on what is known.
pub(super) fn make(request: &PlanRequest, view: &Snapshot) -> Result<PlanStep, CalicoError> {
    match Planner::new(request, view)?.run() {
        Ok(plan) => Ok(PlanStep::Ready(Box::new(plan))),
        Err(Halt::More(ranges)) => Ok(PlanStep::More(ranges)),
        Err(Halt::Error(error)) => Err(error),
    }
}

struct Planner<'a> {
    request: &'a PlanRequest<'a>,
    view: &'a Snapshot,
    node: &'a str,
    node_labels: BTreeMap<String, String>,
    pools: Vec<Pool>,
    /// Those that the task names.
    named: Option<Vec<Pool>>,
    reserved: Vec<IpNet>,
    config: IpamConfig,
    lengths: Lengths,
    /// The pools are those that the hint was written for, and the datastore has not gone back in time since.
    trusts_hint: bool,
    plan: LaunchPlan,
}

impl<'a> Planner<'a> {
    fn new(request: &'a PlanRequest<'a>, view: &'a Snapshot) -> Result<Self, CalicoError> {
        view.readiness().map_err(CalicoError::NotReady)?;
        let node = request.identity.node.as_str();
        let labels = view.node_labels(node)?;
        let node_labels = labels.ok_or_else(|| CalicoError::NoNode(node.to_owned()))?;
        let (mark, pools) = (view.pools_mark(&node_labels), view.pools());
        let asked = &request.wanted.pools;
        let named = match (request.purpose, asked.is_empty()) {
            (Purpose::Tunnel { pools: names, .. }, _) => {
                Some(pools.iter().filter(|pool| names.contains(&pool.name)).cloned().collect())
            }
            (Purpose::Task, true) => None,
            (Purpose::Task, false) => {
                let named = pool::named(&pools, asked, &node_labels, request.limits)?;
                Some(named.into_iter().cloned().collect())
            }
        };
        let excluded = request.excluded.iter().copied().map(IpNet::from);
        Ok(Self {
            request,
            view,
            node,
            node_labels,
            reserved: view.reserved().into_iter().chain(excluded).collect(),
            config: view.ipam_config()?,
            lengths: Lengths::of(&pools),
            pools,
            named,
            trusts_hint: request.hint.mark == mark && request.hint.revision <= view.revision,
            plan: LaunchPlan { mark, ..LaunchPlan::default() },
        })
    }

    fn run(mut self) -> Found<LaunchPlan> {
        if matches!(self.request.purpose, Purpose::Task) {
            self.check_endpoint()?;
        }
        for key in [keys::cluster_information(), keys::node(self.node), keys::ipam_config()] {
            self.guard(key);
        }
        let held = self.held_already()?;
        let wanted = &self.request.wanted.addresses;
        let mut addresses: Vec<Option<IpAddr>> = vec![None; wanted.len()];
        // Explicit ones first: an automatic choice must not take what is asked for by name.
        for explicit in [true, false] {
            for (place, asked) in wanted.iter().enumerate() {
                if matches!(asked, AddressRequest::Explicit(_)) != explicit {
                    continue;
                }
                let free = |address: &&IpAddr| !addresses.contains(&Some(**address));
                let kept = held.iter().filter(free).find(|address| fits(*asked, **address)).copied();
                addresses[place] = Some(match (kept, asked) {
                    (Some(address), _) => address,
                    (None, AddressRequest::Explicit(address)) => self.assign_explicit(*address)?,
                    (None, AddressRequest::Auto(family)) => self.assign_auto(*family)?,
                });
            }
        }
        self.plan.addresses = addresses.into_iter().flatten().collect();
        self.count_held();
        Ok(self.plan)
    }

    /// An endpoint of our name with another uid is not ours to overwrite.
    fn check_endpoint(&self) -> Result<(), CalicoError> {
        let name = self.request.identity.endpoint_name();
        if name.len() > RESOURCE_NAME_MAX {
            return Err(CalicoError::NameTooLong(name.len()));
        }
        match self.view.endpoint(&keys::endpoint(&name))? {
            Some(endpoint)
                if endpoint.metadata.uid.as_deref() != Some(self.request.identity.uid.as_str()) =>
            {
                Err(CalicoError::ForeignEndpoint(name))
            }
            _ => Ok(()),
        }
    }

    /// Addresses that an earlier attempt of the same launch has got: kept rather than doubled.
    fn held_already(&mut self) -> Found<Vec<IpAddr>> {
        let handle = &self.request.identity.handle;
        let Some(record) = self.view.handle(handle)? else { return Ok(Vec::new()) };
        let cidrs: Vec<IpNet> = record.block.keys().filter_map(|text| text.parse().ok()).collect();
        self.require_blocks(&cidrs)?;
        let mut held = Vec::new();
        for cidr in cidrs {
            if let SeenBlock::There(block, _) = self.view.block(&cidr) {
                let ordinals = block.held_by(handle);
                self.guard(keys::block(&cidr));
                held.extend(ordinals.iter().map(|ordinal| block::address(&cidr, *ordinal)));
                self.plan.held.insert(cidr, ordinals.len() as u64);
            }
        }
        Ok(held)
    }

    /// The handle's counts follow what the blocks really hold.
    fn count_held(&mut self) {
        let handle = &self.request.identity.handle;
        for (cidr, (block, _)) in &self.plan.drafts {
            self.plan.held.insert(*cidr, block.held_by(handle).len() as u64);
        }
        self.plan.held.retain(|_, count| *count > 0);
    }

    /// The block as this plan has left it so far.
    fn block(&self, cidr: &IpNet) -> SeenBlock {
        match self.plan.drafts.get(cidr) {
            Some((block, revision)) => SeenBlock::There(Box::new(block.clone()), *revision),
            None => self.view.block(cidr),
        }
    }

    /// The write rests on this key being as it was read.
    fn guard(&mut self, key: String) {
        let guard = Guard::Revision { revision: self.view.revision_of(&key), key };
        if !self.plan.guards.contains(&guard) {
            self.plan.guards.push(guard);
        }
    }

    /// The write rests on nothing below this prefix having been added or changed.
    fn guard_all(&mut self, prefix: String) {
        let guard = Guard::NoneNewer { prefix, revision: self.view.revision };
        if !self.plan.guards.contains(&guard) {
            self.plan.guards.push(guard);
        }
    }

    /// Makes the block this node's own where the record does not say so yet.
    fn confirm_affinity(&mut self, cidr: &IpNet) {
        let key = keys::affinity(self.node, cidr);
        self.guard(key.clone());
        let known = self.view.affinities(self.node, Family::of(cidr.addr()));
        let confirmed = known.iter().any(|(other, affinity)| other == cidr && affinity.is_confirmed());
        let change = Change::Put { key, value: super::model::to_json(&Affinity::confirmed()) };
        if !confirmed && !self.plan.changes.contains(&change) {
            self.plan.changes.push(change);
        }
    }

    /// A new block of this node, claimed in the same transaction.
    fn claim(&mut self, cidr: &IpNet) -> Block {
        self.confirm_affinity(cidr);
        Block::new(cidr, self.node, clock::unix_nanos(self.request.now), clock::rfc3339(self.request.now))
    }

    /// Takes an address out of a block for this task.
    fn take(&mut self, cidr: IpNet, mut block: Block, revision: i64, ordinal: usize) -> IpAddr {
        let identity = self.request.identity;
        let secondary: Vec<(&str, String)> = match self.request.purpose {
            Purpose::Task => vec![
                ("mesos-app", identity.app.clone()),
                ("mesos-task", identity.task_id.clone()),
                ("node", self.node.to_owned()),
                ("timestamp", clock::go_text(self.request.now)),
            ],
            Purpose::Tunnel { attribute, .. } => {
                vec![("node", self.node.to_owned()), ("type", attribute.to_owned())]
            }
        };
        block.assign(
            ordinal,
            Attribute {
                handle_id: Some(identity.handle.clone()),
                secondary: Some(secondary.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
                extra: Extra::new(),
            },
        );
        self.plan.drafts.insert(cidr, (block, revision));
        block::address(&cidr, ordinal)
    }
}

fn fits(asked: AddressRequest, address: IpAddr) -> bool {
    match asked {
        AddressRequest::Auto(family) => Family::of(address) == family,
        AddressRequest::Explicit(wanted) => wanted == address,
    }
}
