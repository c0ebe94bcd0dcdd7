//! Calico's etcdv3 datastore: addresses, endpoints and profiles exactly as libcalico-go keeps them.
//!
//! ```text
//!  prepare ── one read transaction ──► snapshot ──► plan (pure) ──► Prepared
//!                                          ▲          │ needs another block: one more read
//!  commit ─── one write transaction ◄──────┼──────────┘
//!                 │ a guard failed: the answer holds what changed, plan again
//!                 │ no answer: settle ── committed, or fenced so that it never can be
//!  release ── one read, one write: endpoint, addresses and handle go together
//! ```
//!
//! A write touches profile, block, affinity, handle and endpoint in one transaction, so a crash leaves
//! all of them or none, and every reader sees only states that Calico's own writers end with. Other
//! writers are Calico's programs and our own on other hosts; etcd's revisions decide between them.
//! Files: `keys`, `model`, `clock`, `labels`, `selector` are Calico's words; `block`, `pool`, `overlap`, `plan` decide,
//! `policy` decides as Felix does about packets;
//! `store` is etcd, and `members` finds a member of its cluster that answers; `launch`, `release`, `inventory`, `settle`,
//! `query`, `usage`, `local` are what [`Datastore`] can do for tasks and their cleaners, `objects` what it can do for an
//! operator.

mod block;
mod clock;
mod error;
mod files;
mod hint;
mod inventory;
mod keys;
mod labels;
mod launch;
mod local;
mod members;
mod model;
mod objects;
mod overlap;
mod overview;
mod plan;
mod policy;
mod pool;
mod profile;
mod query;
mod release;
mod restore;
mod selector;
mod settle;
mod snapshot;
mod store;
mod txn;
mod usage;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use error::{CalicoError, Holder, NotReady};
pub use files::{endpoint_status_file, node_name};
pub use inventory::{Allocation, Inventory, SeenEndpoint, Signs};
pub use launch::{Committed, HeldHere, Prepared, Terms};
pub use local::Initialised;
pub use objects::{classic_rule, parse_rule, ProfileError, ProfileList, RuleDirection, RulePlace, Tags};
pub use objects::{
    parse_as_number, BgpError, BgpPeer, BgpSettings, Damaged, Edit, Edited, Kind, Made, NodeRest, NodeView,
    Nodes, Object, Objects, PeerScope, PoolMode, Seen, SeenBy, StartUp, StartUpError, Tunnel, TunnelMode,
};
pub use objects::{Assignment, BlockClaim, BookedBlock, BookedHandle, HeldAddress, IpamSettings, Ledger};
pub use objects::{Encapsulation, IpamError, PoolRecord, PoolWish, RemovedPool};
pub use objects::{EndpointFilter, EndpointRecord, EndpointRecords, EndpointStates, ListChange};
pub use objects::{IpamProblem, IpamReport, ProblemKind};
pub use objects::{PolicyRecord, PolicyTier};
pub use overview::Overview;
pub use policy::{
    AllowedFlow, Explanation, Flow, FlowEnd, FlowEndKind, FlowList, FlowWay, HostForward, MeantEnds,
    MeantError, PolicyEndpoint, PolicyHost, PolicySide, PolicyStep, PolicyVerdict, PolicyWorld,
};
pub use profile::validate_name as validate_profile_name;
pub use query::Endpoint;
pub use release::Released;
pub use restore::{Conflict, Kept, Lacking, Missing};
pub use selector::check as check_selector;
pub use settle::{Pending, Settled};
pub use store::{History, StoreError, StoreHealth};
pub use usage::PoolUsage;

use crate::config::{Config, Limits};
use crate::names::ContainerId;
use snapshot::Snapshot;
use store::Store;
use txn::{Range, ReadAnswer};

/// How often a plan is made anew because others changed the same records: far beyond what a hundred
/// simultaneous launches on one host need.
const ATTEMPTS: u32 = 100;

/// IPv4 or IPv6; every record of Calico's IPAM belongs to one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// As it stands in keys.
    fn word(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// One address that a task requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressRequest {
    Auto(Family),
    Explicit(IpAddr),
}

impl AddressRequest {
    /// The address, if it is one in particular.
    fn given(self) -> Option<IpAddr> {
        match self {
            Self::Explicit(address) => Some(address),
            Self::Auto(_) => None,
        }
    }
}

/// Who the endpoint is for; known before anything is written, and kept in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Calico's name of this host.
    pub node: String,
    /// `ContainerId::workload`.
    pub workload: String,
    /// `ContainerId::handle`.
    pub handle: String,
    /// UUID of the endpoint; it distinguishes our endpoint from any other of the same name.
    pub uid: String,
    /// `ContainerId::interface`.
    pub interface: String,
    pub container_id: String,
    /// The app's id as Marathon writes it.
    pub app: String,
    pub task_id: String,
}

impl Identity {
    /// The identity of a new task on this node: all its names derive from the ContainerID, and its endpoint gets a new
    /// uid.
    pub fn new(node: &str, container: &ContainerId, app: &str, task_id: &str) -> Self {
        Self {
            node: node.to_owned(),
            workload: container.workload(app),
            handle: container.handle(),
            uid: uuid::Uuid::new_v4().to_string(),
            interface: container.interface(),
            container_id: container.to_string(),
            app: app.to_owned(),
            task_id: task_id.to_owned(),
        }
    }

    /// The name of its WorkloadEndpoint.
    pub fn endpoint_name(&self) -> String {
        keys::endpoint_name(&self.node, &self.workload)
    }

    fn endpoint_key(&self) -> String {
        keys::endpoint(&self.endpoint_name())
    }
}

/// A port of the task that policies may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPort {
    pub name: String,
    /// `TCP`, `UDP` or `SCTP` in any case.
    pub protocol: String,
    pub port: u16,
}

/// The contents of the endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    pub addresses: Vec<AddressRequest>,
    pub profiles: Vec<String>,
    /// Names or CIDRs of the IP pools that all addresses come from; empty: any.
    pub pools: Vec<String>,
    /// Mesos labels as the app has them; brought into Calico's form here.
    pub labels: BTreeMap<String, String>,
    pub ports: Vec<NamedPort>,
}

/// A connection to Calico's datastore; dropping it leaves no connection behind.
pub struct Datastore {
    store: Store,
    /// For messages.
    endpoints: String,
    limits: Limits,
    /// Sources that profiles made by us let in.
    allow_nets: Vec<IpNet>,
    hint_file: PathBuf,
    lock_file: PathBuf,
}

impl Datastore {
    /// Connects to the first endpoint that answers. Endpoints, certificates and password are read anew.
    pub async fn connect(config: &Config) -> Result<Self, CalicoError> {
        let endpoints = config.etcd.endpoints.join(", ");
        let store = Store::connect(&config.etcd).await.map_err(|source| CalicoError::Store {
            endpoints: endpoints.clone(),
            source: Box::new(source),
        })?;
        Ok(Self {
            store,
            endpoints,
            limits: config.limits.clone(),
            allow_nets: config.profile.allow_nets.clone(),
            hint_file: config.paths.state.join("ipam-hint.json"),
            lock_file: config.paths.ipam_lock.clone(),
        })
    }

    /// Requests sent to etcd over this connection, for tests and figures.
    pub fn requests(&self) -> u64 {
        self.store.requests()
    }

    async fn read(&mut self, ranges: &[Range]) -> Result<ReadAnswer, CalicoError> {
        match self.store.read(ranges).await {
            Ok(answer) => Ok(answer),
            Err(source) => Err(self.store_error(source)),
        }
    }

    /// Reads into a snapshot.
    async fn look(&mut self, snapshot: &mut Snapshot, ranges: &[Range]) -> Result<(), CalicoError> {
        let answer = self.read(ranges).await?;
        snapshot.absorb(ranges, answer);
        Ok(())
    }

    fn store_error(&self, source: StoreError) -> CalicoError {
        CalicoError::Store { endpoints: self.endpoints.clone(), source: Box::new(source) }
    }
}

#[cfg(test)]
mod tests;
