//! Errors of Calico's datastore, and the failures that the owner of an app sees.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::store::StoreError;
use super::{Family, Pending};
use crate::error::{chain, Code, Failure};
use crate::names::RESOURCE_NAME_MAX;

/// Why an address, an endpoint or a release was not to be had.
#[derive(Debug, thiserror::Error)]
pub enum CalicoError {
    #[error("cannot use Calico's datastore at {endpoints}")]
    Store {
        endpoints: String,
        #[source]
        source: Box<StoreError>,
    },
    /// The answer to a write did not come: until [`super::Datastore::settle`] succeeds, the write may have happened.
    #[error("the datastore at {endpoints} did not answer the write of {}", pending.handle)]
    Lost {
        endpoints: String,
        pending: Box<Pending>,
        #[source]
        source: Box<StoreError>,
    },
    /// Nothing was written.
    #[error("cannot record the write of an endpoint before it is sent")]
    Unnoted(#[source] std::io::Error),
    /// Nothing was written.
    #[error("cannot reserve the task's address on this host")]
    Unheld(#[source] std::io::Error),
    #[error("other writers changed the same records {0} times in a row")]
    Contended(u32),
    #[error("Calico's datastore is not ready: {0}")]
    NotReady(NotReady),
    #[error("Calico has no node named '{0}'")]
    NoNode(String),
    #[error("no IP pool gives {family} addresses to tasks on node '{node}'{}", because(.reasons))]
    NoPool { family: Family, node: String, reasons: Vec<String> },
    #[error("no {family} address is free in {}: {reason}", named(.pools))]
    Exhausted { family: Family, pools: Vec<String>, reason: String },
    #[error("{address} is in no enabled IP pool ({})", named(.pools))]
    Outside { address: IpAddr, pools: Vec<String> },
    #[error("{address} belongs to IP pool '{pool}', which is disabled")]
    PoolDisabled { address: IpAddr, pool: String },
    #[error("{address} lies in none of the IP pools that CALICO_POOL names: {}", named(.pools))]
    OutsideNamed { address: IpAddr, pools: Vec<String> },
    /// A pool that the task names cannot serve it.
    #[error("names {pool}, {why}; pools that this task can use: {}", named(.usable))]
    PoolUnusable { pool: String, why: String, usable: Vec<String> },
    #[error("{address} is still held by {holder}")]
    Taken { address: IpAddr, holder: Holder },
    #[error("{address} lies in block {block} of {owner}, and strict affinity forbids to borrow it")]
    Strict { address: IpAddr, block: IpNet, owner: String },
    #[error("{0}")]
    NotAllowed(String),
    #[error("'{0}' is not a valid profile name: use lower-case letters, digits, dashes and dots, at most {max}, and begin and end with a letter or digit", max = RESOURCE_NAME_MAX)]
    ProfileName(String),
    #[error("cannot use {key} in Calico's datastore: {reason}; repair or delete that record")]
    Unreadable { key: String, reason: String },
    #[error("the endpoint {0} exists already and does not belong to this task")]
    ForeignEndpoint(String),
    #[error("the name of the endpoint would have {0} characters; Calico allows {max}", max = RESOURCE_NAME_MAX)]
    NameTooLong(usize),
    #[error("cannot read {path}")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot find out this host's name for Calico; set node.name in the configuration")]
    NoHostName,
}

/// Why the whole datastore is not to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    #[error("there is no ClusterInformation 'default' in it; calico/node or `calicoctl` creates it")]
    Missing,
    #[error(
        "an operator has locked it (datastoreReady is false); `calicoctl datastore migrate unlock` unlocks it"
    )]
    Locked,
    #[error("its ClusterInformation has no field datastoreReady; start calico/node once")]
    Unset,
}

/// The holder of an address, as far as block and endpoint name it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holder {
    /// A task id, a workload, or the handle when nothing else is known.
    pub name: String,
    pub app: Option<String>,
    pub node: Option<String>,
    pub handle: Option<String>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        if let Some(app) = &self.app {
            write!(f, " ({app})")?;
        }
        if let Some(node) = &self.node {
            write!(f, " on {node}")?;
        }
        Ok(())
    }
}

fn named(names: &[String]) -> String {
    if names.is_empty() {
        return "none exists".into();
    }
    names.join(", ")
}

fn because(reasons: &[String]) -> String {
    if reasons.is_empty() {
        return "; there is no IP pool".into();
    }
    format!(" ({})", reasons.join("; "))
}

impl CalicoError {
    /// An explicit address that another task still holds: worth waiting for.
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Taken { .. })
    }

    /// What calico/node makes on a host that has it, and `dataplane = "local"` elsewhere.
    pub fn is_uninitialised(&self) -> bool {
        matches!(self, Self::NotReady(_) | Self::NoNode(_) | Self::NoPool { .. })
    }

    /// The failure when an address did not become free within `waited`.
    pub fn failure_after(&self, waited: Duration) -> Failure {
        let Self::Taken { address, holder } = self else { return self.failure() };
        taken(&format!("{address} is still held by {holder} after {} s", waited.as_secs()))
    }

    /// The sentence, the code and the blame for the framework.
    pub fn failure(&self) -> Failure {
        let told = chain(self);
        match self {
            Self::Store { source, .. } | Self::Lost { source, .. } => {
                Failure::new(Code::Etcd, format!("{told}; {}", source.advice()))
            }
            Self::Unnoted(_) => Failure::new(Code::Journal, told),
            Self::Unheld(_) => Failure::new(Code::Host, format!("{told}; check `paths.run` in config.toml")),
            Self::Contended(_) => Failure::new(Code::Contended, format!("{told}; start the task again")),
            Self::NotReady(_) => Failure::new(Code::NotReady, told),
            Self::NoNode(node) => Failure::new(
                Code::NoNode,
                format!("{told}; calico/node registers it when it starts on this host with NODENAME={node}"),
            ),
            Self::NoPool { .. } => {
                Failure::new(Code::NoPool, format!("{told}; make or enable one with `calicoctl`"))
            }
            Self::Exhausted { .. } => {
                Failure::new(Code::Exhausted, format!("{told}; add an IP pool or end other tasks"))
            }
            Self::Outside { .. } => Failure::new(
                Code::IpOutside,
                format!("CALICO_IP {told}; use CALICO_IP=auto or an address of a pool"),
            ),
            Self::OutsideNamed { .. } => Failure::new(
                Code::IpOutside,
                format!("CALICO_IP {told}; use CALICO_IP=auto, an address of these pools, or leave CALICO_POOL out"),
            ),
            Self::PoolDisabled { .. } => Failure::new(
                Code::PoolDisabled,
                format!("CALICO_IP {told}; use CALICO_IP=auto or an address of another pool"),
            ),
            Self::PoolUnusable { .. } => Failure::new(Code::PoolInvalid, format!("CALICO_POOL {told}")),
            Self::Taken { .. } => taken(&told),
            Self::Strict { .. } => {
                Failure::new(Code::IpStrict, format!("CALICO_IP {told}; use CALICO_IP=auto"))
            }
            Self::NotAllowed(_) => Failure::new(Code::NotAllowed, told),
            Self::ProfileName(_) => Failure::new(Code::ProfileInvalid, format!("CALICO_PROFILE {told}")),
            Self::ForeignEndpoint(_) => Failure::new(Code::Endpoint, told),
            // All of the name but the node's part has a fixed length.
            Self::NameTooLong(_) => {
                Failure::new(Code::Config, format!("{told}; set a shorter node.name in config.toml"))
            }
            Self::Unreadable { .. } => Failure::new(Code::Data, told),
            Self::File { .. } | Self::NoHostName => Failure::new(Code::Config, told),
        }
    }
}

/// Adds the remedy: usually the old instance of a rolling upgrade has the address.
fn taken(told: &str) -> Failure {
    let remedy = "use CALICO_IP=auto, or stop the task that holds it before this one starts";
    Failure::new(Code::IpTaken, format!("CALICO_IP {told}; {remedy}"))
}

impl From<&CalicoError> for Failure {
    fn from(error: &CalicoError) -> Self {
        error.failure()
    }
}
