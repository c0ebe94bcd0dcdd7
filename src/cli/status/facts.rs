//! What `status` reads, as plain data; `verdict` judges it.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::calico::{PoolUsage, StoreHealth};
use crate::net::Filters;

use super::bird::Bird;
use crate::cli::node::agents::FoundAgent;

/// Everything about one host at one moment. A text in place of a result is why it could not be read.
#[derive(Debug, Clone)]
pub struct HostFacts {
    pub now: SystemTime,
    pub node: NodeFacts,
    pub store: Result<StoreFacts, String>,
    pub felix: FelixFacts,
    pub tasks: Result<TaskFacts, String>,
    pub bird: Bird,
    pub bird6: Bird,
    pub docker: Result<DockerFacts, String>,
    /// Entries of Calico tasks; none: `consul.enabled = false`.
    pub consul: Option<Result<usize, String>>,
    pub agents: Vec<AgentFacts>,
    pub mtu: Option<u32>,
}

/// This host.
#[derive(Debug, Clone, Default)]
pub struct NodeFacts {
    pub host: String,
    /// Its name in Calico.
    pub name: String,
    /// Where the choice of the datastore comes from.
    pub origin: String,
    /// `dataplane = "local"`: calico-mesos programs routes itself, without policy.
    pub local: bool,
    /// `policy.wait = "required"`.
    pub policy_required: bool,
}

/// Calico's datastore.
#[derive(Debug, Clone)]
pub struct StoreFacts {
    pub health: StoreHealth,
    pub cluster: Option<ClusterFacts>,
    /// This host's Node; none where there is none of its name.
    pub record: Option<NodeRecord>,
    /// Names of all nodes.
    pub nodes: usize,
    pub pools: Vec<PoolFacts>,
    /// FelixConfiguration programs the routes of the cluster without BIRD.
    pub felix_routes: bool,
    /// The keys of damaged records of all kinds.
    pub damaged: Vec<String>,
}

/// ClusterInformation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterFacts {
    pub guid: String,
    /// Without the `v`.
    pub version: Option<String>,
    pub ready: Option<bool>,
}

/// What a Node says about its addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeRecord {
    pub ipv4: Option<String>,
    pub ipv6: Option<String>,
    pub as_number: String,
    /// The AS number is the cluster's, not the node's own.
    pub inherited: bool,
}

/// A pool with how its packets travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolFacts {
    pub usage: PoolUsage,
    pub vxlan: bool,
    pub ipip: bool,
}

/// Felix on this host.
#[derive(Debug, Clone, Default)]
pub struct FelixFacts {
    /// How long its process has lived.
    pub process: Option<(i32, Duration)>,
    /// Whether all processes of the host can be seen from here.
    pub all_seen: bool,
    /// None: not read, because that needs root.
    pub filters: Option<Result<Filters, String>>,
    /// Where it reports endpoints.
    pub folder: PathBuf,
    pub folder_exists: bool,
}

/// The journal's tasks.
#[derive(Debug, Clone, Default)]
pub struct TaskFacts {
    pub living: Vec<TaskFact>,
    pub dead: Vec<String>,
    pub unreadable: Vec<String>,
}

/// A living task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskFact {
    pub id: String,
    pub version: String,
    /// Its launch is over: Felix had time for it.
    pub settled: bool,
    /// Each of its addresses has its route on this host.
    pub routed: bool,
    /// Felix has reported it.
    pub reported: bool,
}

/// The Docker daemon.
#[derive(Debug, Clone, Default)]
pub struct DockerFacts {
    pub version: String,
    /// The program of the runtime `calico`, where it is registered.
    pub runtime: Option<String>,
    /// What is wrong with that program.
    pub fault: Option<String>,
    /// It is the program next to this one, so that its version is this one's.
    pub ours: bool,
    /// The file that a running daemon reads, and the program that it names for the runtime.
    pub file: Option<(PathBuf, Option<String>)>,
}

/// A Mesos agent of this host.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AgentFacts {
    pub agent: FoundAgent,
    /// Its launcher folder is one that `node install` made.
    pub wired: bool,
}
