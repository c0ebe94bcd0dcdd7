//! The writes of a launch: the endpoint with its address, and what makes the interface work with it.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::choose::Choice;
use super::holds::Holds;
use super::interface::Interface;
use super::{felix, join, ports};
use crate::calico::{self, CalicoError, Terms};
use crate::config::{Config, Dataplane};
use crate::error::{chain, Code, Failure};
use crate::limits::ETCD_AT_THE_GATE;
use crate::net::forward::{self, Forward};
use crate::net::{self, local::Local, NetError};

use crate::task::record::journal::JournalEntry;
use crate::task::record::published;
use crate::task::report::audit;
use crate::task::report::steps::{Step, Steps};

/// How long the parts of a launch took, for the log and for `calico-mesos run`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing {
    /// Datastore: read and write.
    pub address: Duration,
    /// Namespace, veth, addresses and routes.
    pub interface: Duration,
    /// How long the container stood at the gate.
    pub gate: Duration,
    /// From the request to start until the workload stood at the gate.
    pub start: Duration,
}

impl fmt::Display for Timing {
    /// In the form that `calico-mesos run` reads in the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [address, interface, gate, start] =
            [self.address, self.interface, self.gate, self.start].map(|part| part.as_millis());
        write!(f, "address {address}, interface {interface}, gate {gate}, start {start}")
    }
}

/// The task has its addresses.
#[derive(Debug, Clone)]
pub struct Wired {
    pub addresses: Vec<IpAddr>,
    pub profiles_created: Vec<String>,
    /// The endpoint's hardware address, where it is known.
    pub mac: Option<String>,
    /// The host's ports that lead to the task, where there are any.
    pub forward: Option<Forward>,
    pub timing: Timing,
}

/// Why a task did not get its addresses.
#[derive(Debug)]
pub struct Unwired {
    pub failure: Failure,
    /// The write whose answer never came: it may still happen.
    pub pending: Option<Box<calico::Pending>>,
}

impl From<Failure> for Unwired {
    fn from(failure: Failure) -> Self {
        Self { failure, pending: None }
    }
}

impl From<CalicoError> for Unwired {
    fn from(error: CalicoError) -> Self {
        let failure = error.failure();
        let pending = match error {
            CalicoError::Lost { pending, .. } => Some(pending),
            _ => None,
        };
        Self { failure, pending }
    }
}

impl Choice {
    /// Writes endpoint and address, and makes the interface work. Runs beside `docker start`.
    pub async fn wire(
        self,
        interface: Interface,
        config: &Config,
        entry: &JournalEntry,
        steps: &Steps,
        give_up: CancellationToken,
    ) -> Result<Wired, Unwired> {
        let Self { mut datastore, claim, took } = self;
        let mut timing = Timing { address: took, interface: interface.took, ..Timing::default() };
        let profiles = claim.profiles().to_vec();
        let Interface { namespace, veth, .. } = interface;
        let (begun, started) = (tokio::time::Instant::now(), Instant::now());
        let own = Holds::new(config, &entry.record);
        let holds = &own;
        let terms = Terms {
            note: Box::new(|pending| entry.expect(pending)),
            hold: Box::new(|addresses| Box::pin(async move { holds.take(&addresses).await })),
            patience: config.launch.retry_for.min(ETCD_AT_THE_GATE),
            give_up: give_up.clone(),
        };
        // Beside the write: nothing leads into the namespace before the host's side is set up, which waits for it.
        let planned = claim.addresses.clone();
        let mut host = HostSide::new(config, &veth.host, &claim);
        let assign = |addresses| net::assign(&namespace, &veth.container, addresses);
        let commit = Box::pin(datastore.commit(claim, &veth.mac, terms));
        let (committed, mut assigned, prepared) = tokio::join!(commit, assign(&planned), host.begin());
        match &committed {
            Ok(committed) => {
                audit::given(config, &entry.record, &committed.addresses, &profiles);
                entry.given(&committed.addresses);
                published::CommittedNote::of(config, &entry.record.container).note(&committed.kept);
            }
            Err(CalicoError::Lost { .. }) => {}
            Err(_) => entry.settled(),
        }
        let committed = committed?;
        // The connection has done its work: a running task holds none.
        drop(datastore);
        steps.pass(Step::Claimed).await;
        timing.address += started.elapsed();
        log_addresses(&committed, &profiles);

        let started = Instant::now();
        if committed.addresses != planned {
            // Another task took a planned address first.
            assigned = assign(&committed.addresses).await;
        }
        assigned.map_err(|error| {
            Failure::new(Code::Net, format!("cannot configure the task's interface: {}", chain(&error)))
        })?;
        let enabled = match prepared {
            Ok(()) => host.enable(&committed).await,
            Err(error) => Err(error),
        };
        enabled.map_err(|error| {
            Failure::new(Code::Net, format!("cannot set up the host's side: {}", chain(&error)))
        })?;
        steps.pass(Step::Addressed).await;
        let ports = entry.record.ports.clone();
        let forward = ports::forward(config, &entry.record.container, ports, &committed.addresses);
        let forwarding = async {
            let result = match &forward {
                Some(forward) => forward::add(forward).await,
                None => Ok(()),
            };
            timing.interface += started.elapsed();
            steps.pass(Step::Forwarded).await;
            result.map_err(|error| ports::failure(config, &error))
        };
        let felix = async {
            felix::wait(config, &entry.record.identity, &committed.addresses, begun, &give_up).await?;
            steps.pass(Step::Programmed).await;
            Ok(())
        };
        // Neither is dropped half done.
        let (forwarded, felix) = tokio::join!(forwarding, felix);
        forwarded.and(felix)?;
        let calico::Committed { addresses, profiles_created, .. } = committed;
        Ok(Wired { addresses, profiles_created, mac: Some(veth.mac), forward, timing })
    }
}

/// Sets the addresses of the life before anew: its workload may have changed them. Endpoint and host's side are held.
pub async fn rewire(config: &Config, wired: Wired, interface: Interface) -> Result<Wired, Failure> {
    let Interface { namespace, veth, took } = interface;
    let started = Instant::now();
    net::assign(&namespace, &veth.container, &wired.addresses).await.map_err(|error| {
        Failure::new(Code::Net, format!("cannot configure the task's interface: {}", chain(&error)))
    })?;
    if let Some(forward) = &wired.forward {
        forward::add(forward).await.map_err(|error| ports::failure(config, &error))?;
    }
    let timing = Timing { interface: took + started.elapsed(), ..Timing::default() };
    Ok(Wired { timing, ..wired })
}

/// The host's side of an interface, which is ours with `dataplane = "local"` alone.
struct HostSide(Option<Local>);

impl HostSide {
    fn new(config: &Config, link: &str, claim: &calico::Prepared) -> Self {
        Self((config.node.dataplane == Dataplane::Local).then(|| Local {
            link: link.to_owned(),
            addresses: claim.addresses.clone(),
            pools: claim.pools(),
            state_dir: config.paths.local(),
        }))
    }

    async fn begin(&self) -> Result<(), NetError> {
        match &self.0 {
            Some(local) => net::local::begin(local).await,
            None => Ok(()),
        }
    }

    async fn enable(&mut self, committed: &calico::Committed) -> Result<(), NetError> {
        let Some(local) = &mut self.0 else { return Ok(()) };
        (local.addresses, local.pools) = (committed.addresses.clone(), committed.pools.clone());
        net::local::enable(local).await
    }
}

fn log_addresses(committed: &calico::Committed, profiles: &[String]) {
    let pool = |address| committed.pools.iter().find(|pool| pool.contains(address));
    let pool = committed.addresses.iter().find_map(pool);
    tracing::info!(
        "address {}{}, profile {} ({})",
        join(&committed.addresses),
        pool.map_or(String::new(), |pool| format!(" from pool {pool}")),
        profiles.join(", "),
        if committed.profiles_created.is_empty() { "existing" } else { "new" },
    );
}
