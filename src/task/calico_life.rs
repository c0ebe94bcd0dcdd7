//! The life of a task with a Calico interface: journal, network, gate, and the way back.
//!
//! The journal's record is written before anything is made, and whatever happens afterwards ends in
//! [`teardown`]: there is no path out of [`live`] around it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::calico::{self, AddressRequest, Family, Identity, NamedPort, Wanted};
use crate::config::{Config, Dataplane};
use crate::consul;
use crate::error::{chain, Blame, Failure};
use crate::limits::DOCKER_KILLED;
use crate::trust;

use super::audit;
use super::gate::Gate;
use super::journal::{Entry, Journal, Record};
use super::launch::{Launch, Started};
use super::life;
use super::link::{Change, Command, Ended, Ending, Link, Order, Outcome};
use super::making::Making;
use super::network::{self, EarlyLogin, Interface, Wired};
use super::ports::Keeper;
use super::remapped;
use super::request::CalicoRequest;
use super::retry::host_faults;
use super::services::{Registrar, Registration, Services};
use super::spec::HostPort;
use super::steps::{Step, Steps};
use super::teardown::{self, Claim, Patience, Workload};
use super::work::{self, Ready};

/// Lives the task to its end; nothing is left of it afterwards, or a cleaner is named in the log.
pub(super) async fn live(order: Order, mut link: Link) -> Ended {
    let Begun { config, order, request, entry, steps, early } =
        match link.unless_killed(begin_patiently(order.clone())).await {
            Ok(Ok(begun)) => begun,
            Ok(Err(failure)) => return refused(&order, Outcome::Failed(failure)),
            Err(command) => {
                link.announce(command);
                return refused(&order, command.before_start());
            }
        };
    steps.pass(Step::Recorded).await;
    let mut life = CalicoLife {
        order,
        request: &request,
        config: &config,
        entry,
        steps: steps.clone(),
        claim: Claim::None,
        registrar: None,
        keeper: None,
        registered: false,
        unheard: false,
    };
    let (outcome, workload) = life.up_and_down(early, &mut link).await;
    let outcome = advised(outcome, &life.order);
    let ending = Ending::from(&outcome);
    life.entry.conclude(&ending);
    let consul = life.settle_services(Patience::BEFORE_UPDATE.consul).await;
    if let Some(keeper) = life.keeper.take() {
        keeper.stop().await;
    }
    let CalicoLife { entry, claim, order, unheard, .. } = life;
    let config = as_of_now(&config, &order);
    audit::never_ran(&config, &entry.record, &outcome, &steps);
    let patience = Patience { consul, ..Patience::BEFORE_UPDATE };
    let mut report = teardown::give_back(&entry.record, &config, workload, claim, patience, &steps).await;
    if unheard && report.complete() {
        report.errors.push("consul: it has not answered a registration, which may still come".into());
    }
    let afterwards = Box::pin(async move {
        let record = entry.record.clone();
        let report = teardown::tidy_up(entry, &config, report, &steps).await;
        audit::taken_down(&config, &record, Some(&ending), &report, &steps);
        log_report(&report, &steps);
    });
    Ended { outcome, afterwards }
}

/// An address is usually taken by the task that a framework is about to replace by this one; of Marathon it is known
/// how to have the old one stopped first.
fn advised(outcome: Outcome, order: &Order) -> Outcome {
    match outcome {
        Outcome::Failed(failure) if failure.code == calico::TAKEN && order.description.by_marathon => {
            let advice = "for that set upgradeStrategy minimumHealthCapacity=0, maximumOverCapacity=0";
            let message = format!("{}; {advice}", failure.message);
            Outcome::Failed(Failure { message, ..failure })
        }
        other => other,
    }
}

/// Over before anything was made. Without a configuration nobody knows where the trail is.
fn refused(order: &Order, outcome: Outcome) -> Ended {
    if let Ok(config) = life::load_config(order) {
        audit::refused(&config, order, &outcome);
    }
    outcome.into()
}

/// What a life rests on.
struct Begun {
    config: Config,
    order: Arc<Order>,
    request: CalicoRequest,
    entry: Entry,
    steps: Steps,
    early: EarlyLogin,
}

/// [`begin`], retried: an agent whose configuration is broken must not eat a whole deployment in seconds.
async fn begin_patiently(order: Order) -> Result<Begun, Failure> {
    match begin(order.clone()) {
        Err(failure) if failure.blame == Blame::Host => {}
        begun => return begun,
    }
    let launch = life::load_config(&order).map_or_else(|_| Default::default(), |config| config.launch);
    host_faults(launch.retry_for, || std::future::ready(begin(order.clone()))).await
}

/// Endpoints and credentials may have been replaced in a long life; the folders are those that were used.
fn as_of_now(config: &Config, order: &Order) -> Config {
    match life::load_config(order) {
        Ok(Config { etcd, consul, .. }) => Config { etcd, consul, ..config.clone() },
        Err(failure) => {
            tracing::warn!("{failure}; the task is taken down with the configuration of its start");
            config.clone()
        }
    }
}

/// Holds the request against the configuration and takes ownership of the container's names.
fn begin(mut order: Order) -> Result<Begun, Failure> {
    let config = life::load_config(&order)?;
    trust::everything(&config).map_err(|error| life::unsafe_host(&error))?;
    if let Err(error) = trust::shared_folder(&config.paths.log) {
        // What is told there decides nothing.
        tracing::warn!("the logs in {} can be changed by others: {error}", config.paths.log.display());
    }
    let steps = Steps::begin(&config, &order.description.task_id);
    // Not before the configuration is trusted, and as soon as it is: see `EarlyLogin`.
    let early = EarlyLogin::begin(&config);
    order.description = order.description.within(&config)?;
    let request = order.description.calico.clone().unwrap_or_default();
    let node = calico::node_name(&config).map_err(|error| error.failure())?;
    let record = record(&order, &request, &config, &node);
    let entry = Journal::open(&config.paths.journal())
        .and_then(|journal| journal.begin(record))
        .map_err(|error| Failure::host("CM-JOURNAL", chain(&error)))?;
    Ok(Begun { config, order: Arc::new(order), request, entry, steps, early })
}

fn record(order: &Order, request: &CalicoRequest, config: &Config, node: &str) -> Record {
    let description = &order.description;
    let identity = Identity::new(node, &order.container, &description.app, &description.task_id);
    let mut record = Record {
        container_name: order.name.clone(),
        docker: order.docker.as_ref().map(|docker| docker.host.to_string()),
        framework: order.framework.clone(),
        ports: forwarded(order, config).map(|port| port.mapping).collect(),
        local: config.node.dataplane == Dataplane::Local,
        ..Record::new(order.container.clone(), identity)
    };
    record.services = services(order, request, config, &record, &placeholders(request)).ids();
    record
}

/// The task's Consul entries at these addresses. Their ids depend on the families only, so that the journal
/// knows them before the addresses are chosen.
fn services(
    order: &Order,
    request: &CalicoRequest,
    config: &Config,
    record: &Record,
    addresses: &[IpAddr],
) -> Services {
    let description = &order.description;
    let ports: Vec<(u16, Option<String>)> =
        request.ports.iter().map(|port| (port.port, port.name.clone())).collect();
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
    let forwarded = forwarded(order, config).map(|port| (port.mapping.host, port.name.clone())).collect();
    let host = host.map(|host| instance.host(host, &forwarded));
    Services { direct: instance.direct(), host: host.unwrap_or_default() }
}

/// The host's ports that lead to the task.
fn forwarded<'a>(order: &'a Order, config: &Config) -> std::slice::Iter<'a, HostPort> {
    if config.ports.forward {
        order.description.host_ports.iter()
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

struct CalicoLife<'a> {
    order: Arc<Order>,
    request: &'a CalicoRequest,
    config: &'a Config,
    entry: Entry,
    steps: Steps,
    claim: Claim,
    registrar: Option<Registrar>,
    keeper: Option<Keeper>,
    /// Consul may know of the task.
    registered: bool,
    /// A registration was not answered: it may overtake its removal.
    unheard: bool,
}

impl CalicoLife<'_> {
    /// Everything between the journal's first and its last word.
    async fn up_and_down(&mut self, early: EarlyLogin, link: &mut Link) -> (Outcome, Workload) {
        let gate = match network::listen(self.config, &self.order.container) {
            Ok(gate) => gate,
            Err(failure) => return (Outcome::Failed(failure), Workload::NeverStarted),
        };
        self.steps.pass(Step::Listening).await;
        let (order, config, id) = (self.order.clone(), self.config.clone(), self.order.container.clone());
        let retry_for = config.launch.retry_for;
        let namespace = Some(network::namespace(&config, &id));
        let mut container = Making::start(|cancel| work::create(order, namespace, retry_for, cancel));
        let steps = self.steps.clone();
        let ipv6 = self.request.wants_ipv6();
        let mut interface = Making::start(|cancel| network::make_interface(config, id, ipv6, steps, cancel));
        let given_up = match self.prepare(&mut container, &mut interface, early, link).await {
            Ok(Ok((ready, prepared))) => {
                let result = self.start_and_run(&ready, prepared, &gate, link).await;
                // Closed before teardown begins: nothing can start in what is being taken down.
                gate.close("the task is over");
                return result;
            }
            Ok(Err(failure)) => Outcome::Failed(failure),
            Err(command) => {
                link.announce(command);
                command.before_start()
            }
        };
        gate.close("the task is over");
        let (container, interface) =
            tokio::join!(container.give_up(DOCKER_KILLED), interface.give_up(DOCKER_KILLED));
        if interface.is_err() {
            tracing::warn!("the kernel has not finished the task's interface; it is taken away as it is");
        }
        (given_up, if container.is_ok() { Workload::NeverStarted } else { Workload::Unheard })
    }

    /// Journal to disk, datastore's reads, interface and container, all at once.
    async fn prepare(
        &self,
        container: &mut Making<Ready>,
        interface: &mut Making<Interface>,
        early: EarlyLogin,
        link: &mut Link,
    ) -> Result<Result<(Ready, network::Prepared), Failure>, Command> {
        let sync = self.entry.syncer();
        let journal = async {
            let sync = sync.map_err(|error| Failure::host("CM-JOURNAL", chain(&error)))?;
            match tokio::task::spawn_blocking(sync).await {
                Ok(Ok(())) => {
                    self.steps.pass(Step::Synced).await;
                    Ok(())
                }
                Ok(Err(error)) => Err(Failure::host("CM-JOURNAL", chain(&error))),
                Err(error) => Err(Failure::host("CM-INTERNAL", chain(&error))),
            }
        };
        let wanted = self.wanted();
        let work = async {
            let network =
                network::prepare(self.config, &self.entry.record, &wanted, interface, early, &self.steps);
            let container = async {
                let ready = container.made().await?;
                self.steps.pass(Step::Created).await;
                Ok(ready)
            };
            // Beside the creation, which it must not hold up; the address is claimed only afterwards.
            let suits = async {
                match &self.order.docker {
                    Some(docker) => remapped::refuse(self.config, docker).await,
                    None => Ok(()),
                }
            };
            let (ready, prepared, (), ()) = tokio::try_join!(container, network, journal, suits)?;
            let (config, container) = (self.config.clone(), self.order.container.clone());
            ready.publish(move |id| network::publish(&config, &container, id))?;
            self.steps.pass(Step::Published).await;
            Ok((ready, prepared))
        };
        link.unless_killed(work).await
    }

    fn wanted(&self) -> Wanted {
        let named = self.request.ports.iter().filter_map(|port| {
            let name = port.name.clone()?;
            Some(NamedPort { name, protocol: "TCP".into(), port: port.port })
        });
        Wanted {
            addresses: self.request.addresses.clone(),
            profiles: self.request.profiles.clone(),
            labels: self.order.description.labels.clone(),
            ports: named.collect(),
        }
    }

    async fn start_and_run(
        &mut self,
        ready: &Ready,
        prepared: network::Prepared,
        gate: &Gate,
        link: &mut Link,
    ) -> (Outcome, Workload) {
        let mut attached = match link.unless_killed(ready.attach()).await {
            Ok(Ok(attached)) => attached,
            Ok(Err(failure)) => return (Outcome::Failed(failure), Workload::NeverStarted),
            Err(command) => {
                link.announce(command);
                return (command.before_start(), Workload::NeverStarted);
            }
        };
        self.steps.pass(Step::Attached).await;
        self.claim = Claim::Possible;
        let launch = Launch {
            config: self.config,
            ready,
            attached: &mut attached,
            entry: &self.entry,
            gate,
            claim: &mut self.claim,
            steps: &self.steps,
        };
        let (first_kill, addresses) = match launch.run(prepared, &mut link.commands).await {
            Started::Running(wired) => {
                let Wired { addresses, timing, forward, .. } = *wired;
                let record = &self.entry.record;
                let services = services(&self.order, self.request, self.config, record, &addresses);
                let checked = self.order.description.health.is_some();
                self.registrar = Registrar::start(self.config, &self.order.container, services, checked);
                self.keeper = forward.map(Keeper::start);
                let (seen, first_kill) = attached.look_unless_killed(ready, link).await;
                self.steps.pass(Step::Running).await;
                audit::runs(self.config, record, &addresses, &self.steps);
                link.tell(Change::Running {
                    inspect: seen.inspect,
                    addresses: addresses.clone(),
                    timing: Some(timing),
                });
                (first_kill, addresses)
            }
            Started::Failed(failure, workload) => return (Outcome::Failed(failure), workload),
            Started::KilledRunning(command) => (Some(command), Vec::new()),
            Started::Killed(command, workload) => {
                link.announce(command);
                return (command.before_start(), workload);
            }
        };
        let event = match first_kill {
            Some(command) => Err(command),
            None => {
                let namespace = network::namespace(self.config, &self.order.container);
                let check = self.order.description.health.as_ref();
                let checks = attached.begin_checks(ready, check, Some(namespace), addresses);
                let registrar = self.registrar.as_ref();
                attached
                    .end_or_kill(link, checks, |verdict| {
                        if let Some(registrar) = registrar {
                            registrar.tell(verdict.healthy, &verdict.why);
                        }
                    })
                    .await
            }
        };
        let (end, stopped) = match event {
            Ok(end) => (end, None),
            Err(command) => {
                link.announce(command);
                let mut leaving = std::pin::pin!(self.leave_consul());
                let left = tokio::time::timeout(Patience::BEFORE_UPDATE.consul, &mut leaving).await.is_ok();
                let stopping = attached.stop(ready, command, link, true);
                let end = match left {
                    true => stopping.await,
                    // A Consul that is slow takes nothing from the task's grace period.
                    false => tokio::join!(leaving, stopping).1,
                };
                (end, Some(command))
            }
        };
        let workload = match attached.is_confirmed(&end) {
            true => Workload::Exited,
            false => Workload::Unconfirmed,
        };
        (life::finish(attached, ready, end, stopped).await, workload)
    }

    /// Nobody shall be sent to a task that is being stopped.
    async fn leave_consul(&mut self) {
        let left = self.settle_services(Patience::BEFORE_UPDATE.consul).await;
        let record = &mut self.entry.record;
        if teardown::deregister(record, self.config, left).await.is_some() && !self.unheard {
            record.services.clear();
        }
    }

    /// Ends the registration within `limit`; what is left of that for the removal. What was never registered need not
    /// be removed: on a host without Consul there is no agent that could do it.
    async fn settle_services(&mut self, limit: Duration) -> Duration {
        let begun = Instant::now();
        if let Some(registrar) = self.registrar.take() {
            let stopped = registrar.stop(limit).await;
            self.registered = stopped != Registration::None;
            self.unheard = stopped == Registration::Unheard;
        }
        if !self.registered {
            self.entry.record.services.clear();
        }
        limit.saturating_sub(begun.elapsed())
    }
}

fn log_report(report: &teardown::Report, steps: &Steps) {
    let addresses =
        if report.addresses.is_empty() { "no address".into() } else { network::join(&report.addresses) };
    if report.complete() {
        let way_back: Vec<_> =
            steps.passed().into_iter().skip_while(|(step, _)| *step != Step::Ended).collect();
        let took = way_back.windows(2).map(|pair| {
            let [(_, before), (step, at)] = pair else { return String::new() };
            format!("{} {:.1} ms", step.name(), at.saturating_sub(*before).as_secs_f64() * 1000.0)
        });
        tracing::info!(
            "the way back is done: {addresses} given back ({})",
            took.collect::<Vec<_>>().join(", ")
        );
    }
    for error in &report.errors {
        tracing::warn!("left for the next cleaner: {error}");
    }
}
