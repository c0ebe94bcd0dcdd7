//! The admission of a task with a Calico interface: checks the request against the configuration, and writes the
//! journal record.
//!
//! The record is written before anything is made, and every way that the life can take from there ends in a teardown.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use crate::calico::{self, AddressRequest, Family, Identity, NamedPort, Wanted};
use crate::config::{Config, ConfigError, Dataplane};
use crate::consul;
use crate::error::{chain, Blame, Code, Failure};
use crate::host::trust::{self, TrustError};
use crate::task::channel::{Order, Outcome};
use crate::task::life::consul_entries::Services;
use crate::task::network::EarlyLogin;
use crate::task::record::journal::{Backing, Journal, JournalEntry, Record};
use crate::task::report::audit;
use crate::task::report::steps::Steps;
use crate::task::request::calico::CalicoRequest;
use crate::task::request::{CalicoTask, HostPort, Task, Work};
use crate::task::retry::host_faults;
use crate::workload::DockerHost;

/// A task that may be set up, with all that its life needs.
pub(super) struct Admitted {
    pub config: Arc<Config>,
    pub order: Arc<Order>,
    /// The order's, checked against the configuration.
    pub task: Arc<CalicoTask>,
    pub entry: JournalEntry,
    pub steps: Steps,
    /// Taken by the first reads.
    pub early: Mutex<Option<EarlyLogin>>,
}

/// [`admit`], retried: an agent whose configuration is broken must not eat a whole deployment in seconds.
pub(super) async fn admit_with_retries(order: &Order, task: &Arc<CalicoTask>) -> Result<Admitted, Failure> {
    match admit(order, task) {
        Err(failure) if failure.blame() == Blame::Host => {}
        admitted => return admitted,
    }
    let launch = load_config(order).map_or_else(|_| Default::default(), |config| config.launch);
    host_faults(launch.retry_for, || std::future::ready(admit(order, task))).await
}

/// Checks the request against the configuration and takes ownership of the container's names.
fn admit(order: &Order, task: &Arc<CalicoTask>) -> Result<Admitted, Failure> {
    let config = load_config(order)?;
    trust::everything(&config).map_err(|error| unsafe_host(&error))?;
    if let Err(error) = trust::shared_folder(&config.paths.log) {
        // What is written there decides nothing.
        tracing::warn!("others than root can change the logs in {}: {error}", config.paths.log.display());
    }
    let steps = Steps::begin(&config, &order.description.task_id);
    // Not before the configuration is trusted, and as soon as it is: see `EarlyLogin`.
    let early = EarlyLogin::begin(&config);
    let task = Arc::new(CalicoTask::clone(task).within(&config)?);
    let mut order = order.clone();
    order.description.task = Task::Calico(task.clone());
    let node = calico::node_name(&config).map_err(|error| error.failure())?;
    let record = record(&order, &task, &config, &node);
    let entry = Journal::open(&config.paths.journal())
        .and_then(|journal| journal.begin(record))
        .map_err(|error| Failure::new(Code::Journal, chain(&error)))?;
    Ok(Admitted {
        config: Arc::new(config),
        order: Arc::new(order),
        task,
        entry,
        steps,
        early: Mutex::new(Some(early)),
    })
}

fn record(order: &Order, task: &CalicoTask, config: &Config, node: &str) -> Record {
    let description = &order.description;
    let identity = Identity::new(node, &order.container, &description.app, &description.task_id);
    let mut record = Record {
        framework: order.framework.clone(),
        ports: forwarded(task, config).map(|port| port.mapping).collect(),
        local: config.node.dataplane == Dataplane::Local,
        ..Record::new(order.container.clone(), identity).backed_by(backing(&task.work, &order.name))
    };
    record.services = services(order, task, config, &record, &placeholders(&task.request)).ids();
    record
}

/// What teardowns find the workload by.
fn backing(work: &Work, name: &str) -> Backing {
    let container = |docker: &DockerHost, name: &str, adopted| Backing::Container {
        docker: docker.to_string(),
        name: name.to_owned(),
        adopted,
    };
    match work {
        Work::Docker(task) => container(&task.docker.host, name, false),
        Work::Foreign(foreign) => container(&foreign.docker, &foreign.id, true),
        Work::Command(_) => Backing::Process,
    }
}

/// The task's Consul entries at these addresses. Their ids depend on the families only, so that the journal has
/// them before the addresses are chosen.
pub(super) fn services(
    order: &Order,
    task: &CalicoTask,
    config: &Config,
    record: &Record,
    addresses: &[IpAddr],
) -> Services {
    let description = &order.description;
    let ports: Vec<(u16, Option<String>)> =
        task.request.ports.iter().map(|port| (port.port, port.name.clone())).collect();
    let instance = consul::Instance {
        name: &description.service,
        app_id: &description.app,
        task_id: &description.task_id,
        container: &order.container,
        node: &record.identity.node,
        since: &record.written,
        addresses,
        ports: &ports,
    };
    let host = config.node.host_address.or(order.host_address).filter(|_| config.consul.host_service);
    let forwarded = forwarded(task, config).map(|port| (port.mapping.host, port.name.clone())).collect();
    let host = host.map(|host| instance.host(host, &forwarded));
    Services { direct: instance.direct(), host: host.unwrap_or_default() }
}

/// The host's ports that lead to the task.
fn forwarded<'a>(task: &'a CalicoTask, config: &Config) -> std::slice::Iter<'a, HostPort> {
    if config.ports.forward {
        task.host_ports.iter()
    } else {
        [].iter()
    }
}

/// An address of each family that is asked for, in place of those that are not known yet.
fn placeholders(request: &CalicoRequest) -> Vec<IpAddr> {
    let family = |address: &AddressRequest| match address {
        AddressRequest::Auto(family) => *family,
        AddressRequest::Explicit(address) => Family::of(*address),
    };
    request
        .addresses
        .iter()
        .map(|address| match family(address) {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        })
        .collect()
}

/// What a life goes on with whose record stands, and has had another owner. What others may ask for has been decided
/// when it began.
pub(super) fn go_on(entry: JournalEntry, order: Order) -> Result<Admitted, Failure> {
    let config = load_config(&order)?;
    let Some(task) = order.description.task.calico().cloned() else {
        return Err(Failure::new(Code::Internal, "only a task with an interface has a record"));
    };
    Ok(Admitted {
        steps: Steps::begin(&config, &order.description.task_id),
        config: Arc::new(config),
        order: Arc::new(order),
        task,
        entry,
        early: Mutex::new(None),
    })
}

impl Admitted {
    /// For the next start of the same container.
    pub fn again(mut self) -> Self {
        self.entry.reopen();
        self.steps = Steps::begin(&self.config, &self.order.description.task_id);
        self
    }

    /// The same with the addresses that the container had last, where it asks for any and has had some.
    pub fn wanted_again(&self) -> Option<Wanted> {
        let Work::Foreign(container) = &self.task.work else { return None };
        let mut wanted = self.wanted();
        let mut again = false;
        for request in &mut wanted.addresses {
            let AddressRequest::Auto(family) = *request else { continue };
            if let Some(last) = container.last.iter().find(|last| Family::of(**last) == family) {
                (*request, again) = (AddressRequest::Explicit(*last), true);
            }
        }
        again.then_some(wanted)
    }

    /// What the datastore is asked for.
    pub fn wanted(&self) -> Wanted {
        let named = self.task.request.ports.iter().filter_map(|port| {
            let name = port.name.clone()?;
            Some(NamedPort { name, protocol: "TCP".into(), port: port.port })
        });
        Wanted {
            addresses: self.task.request.addresses.clone(),
            profiles: self.task.request.profiles.clone(),
            pools: self.task.request.pools.clone(),
            labels: self.task.labels.clone(),
            ports: named.collect(),
        }
    }
}

/// Endpoints and credentials may have been replaced in a long life; the folders are those that were used.
pub(super) fn as_of_now(config: &Config, order: &Order) -> Config {
    match load_config(order) {
        Ok(Config { etcd, consul, .. }) => Config { etcd, consul, ..config.clone() },
        Err(failure) => {
            tracing::warn!("{failure}; the task is taken down with the configuration of its start");
            config.clone()
        }
    }
}

/// Over before anything was made. Without a configuration it is not known where the trail is.
pub(super) fn refused(order: &Order, outcome: &Outcome) {
    if let Ok(config) = load_config(order) {
        audit::refused(&config, order, outcome);
    }
}

/// The configuration, which only Calico tasks read.
fn load_config(order: &Order) -> Result<Config, Failure> {
    Config::load(&order.config_path).map_err(|error| match error {
        ConfigError::Unsafe(error) => unsafe_host(&error),
        error => Failure::new(Code::Config, format!("{}; correct it on the agent", chain(&error))),
    })
}

/// Others than root could change what this host does, or learn its secrets.
fn unsafe_host(error: &TrustError) -> Failure {
    Failure::new(Code::Unsafe, chain(error))
}
