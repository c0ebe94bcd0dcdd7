//! A plan carried out: everything is looked at again before it goes, and what has changed is left alone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::calico::Identity;
use crate::config::{Config, Dataplane};
use crate::consul;
use crate::error::chain;
use crate::names::ContainerId;
use crate::task::audit;
use crate::task::journal::{self, Journal, Owner, Peeked, Record};
use crate::task::steps::Steps;
use crate::task::teardown::{self, Claim, Patience, Report, Workload};
use crate::task::told::Told;

use super::plan::{Item, Kind, Plan};
use super::records;
use super::seen::{Survey, Trace};

/// What no record names can wait; those who die meanwhile cannot.
const ORPHANS_LIMIT: Duration = Duration::from_secs(10);

/// What became of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Not meant to be touched, or a dry run.
    Untouched,
    Done,
    Left(String),
}

impl Fate {
    /// It was to be done, and could not be.
    pub fn is_left(&self) -> bool {
        matches!(self, Self::Left(_))
    }
}

/// What became of one container.
enum End {
    Reported(Report),
    Registered(Result<(), String>),
    /// Somebody else owns the record by now.
    TakenOver,
    /// Somebody else has finished it.
    Gone,
    /// There was no time for it.
    Postponed,
}

/// Does what the plan says; the fate of each item, in their order.
pub(super) async fn execute(config: &Config, survey: &Survey, plan: &Plan) -> Vec<Fate> {
    let mut ends = BTreeMap::new();
    let folder = config.paths.journal();
    let path = |container: &ContainerId| journal::path(&folder, container);
    let mut files: Vec<PathBuf> = plan.finish.iter().map(path).collect();
    if folder.exists() {
        files.extend(records::unfinished(&folder));
    }
    for record in records::take_down(config, files).await {
        match record {
            records::Record::Swept(swept) => {
                ends.insert(swept.container.clone(), End::Reported(swept.report));
            }
            records::Record::Unreadable(path, why) => {
                tracing::warn!("{} is left alone: {why}", path.display());
            }
        }
    }
    for container in &plan.finish {
        ends.entry(container.clone()).or_insert(match path(container).exists() {
            true => End::TakenOver,
            false => End::Gone,
        });
    }
    let begun = Instant::now();
    for container in &plan.remove {
        if let Some(trace) = survey.traces.get(container) {
            let end = match path(container).exists() {
                true => End::TakenOver,
                false if begun.elapsed() > ORPHANS_LIMIT => End::Postponed,
                false => End::Reported(remove(config, survey, container, trace).await),
            };
            ends.insert(container.clone(), end);
        }
    }
    for container in &plan.register {
        if let Some(trace) = survey.traces.get(container) {
            let registered = register(config, container, trace).await;
            if registered.is_ok() {
                audit::cleaner_says(config, container.as_str(), "registered in Consul again");
            }
            ends.insert(container.clone(), End::Registered(registered));
        }
    }
    plan.items.iter().map(|item| fate(item, &ends)).collect()
}

fn fate(item: &Item, ends: &BTreeMap<ContainerId, End>) -> Fate {
    let end = item.container.as_ref().and_then(|container| ends.get(container));
    let (true, Some(end)) = (item.verdict.is_work(), end) else { return Fate::Untouched };
    match end {
        End::Registered(Ok(())) | End::Gone => Fate::Done,
        End::Registered(Err(why)) => Fate::Left(why.clone()),
        End::Postponed => Fate::Left("left to the next run: this one has other things to do".into()),
        End::TakenOver => Fate::Left("somebody else has taken it over meanwhile".into()),
        End::Reported(report) if report.complete() || is_gone(item, report) => Fate::Done,
        End::Reported(report) => Fate::Left(report.errors.join("; ")),
    }
}

/// Of a task of which something is left: was this taken away all the same?
fn is_gone(item: &Item, report: &Report) -> bool {
    match item.kind {
        Kind::Consul => report.services > 0,
        Kind::Container => report.container,
        Kind::Ports => report.ports > 0,
        Kind::Veth => report.interface,
        Kind::Folder => {
            let about = ["processes", "namespace", "volatile folder"];
            !report.errors.iter().any(|error| about.iter().any(|what| error.starts_with(what)))
        }
        Kind::Endpoint => report.endpoint,
        Kind::Address => report.addresses.iter().any(|address| address.to_string() == item.name),
        Kind::Block | Kind::Journal => false,
    }
}

/// The way back of a task without a record, from what was seen of it.
async fn remove(config: &Config, survey: &Survey, container: &ContainerId, trace: &Trace) -> Report {
    let record = record(config, survey, container, trace);
    let revision = trace.endpoint.as_ref().map_or(0, |seen| seen.revision);
    let steps = Steps::begin(config, &record.identity.task_id);
    let (workload, claim) = (Workload::Unknown, Claim::Seen(revision));
    let mut report = teardown::give_back(&record, config, workload, claim, Patience::CLEANER, &steps).await;
    teardown::restore_host(&record, config, &mut report).await;
    audit::taken_down(config, &record, None, &report, &steps);
    report
}

/// The record that the task would have.
pub(super) fn record(config: &Config, survey: &Survey, container: &ContainerId, trace: &Trace) -> Record {
    let endpoint = trace.endpoint.as_ref().map(|seen| &seen.endpoint);
    let task_id = endpoint.and_then(|endpoint| endpoint.task_id.clone());
    let from_address = || trace.addresses.iter().find_map(|allocation| allocation.task_id.clone());
    let task_id = task_id.or_else(from_address).unwrap_or_else(|| container.to_string());
    let identity = Identity {
        // Without an endpoint there is none to compare with: nothing of that name is touched.
        uid: endpoint.and_then(|endpoint| endpoint.uid.clone()).unwrap_or_default(),
        ..Identity::new(&survey.node, container, trace.app().unwrap_or_default(), &task_id)
    };
    Record {
        container_name: trace.container.as_ref().map(|its| its.name.clone()).unwrap_or_default(),
        docker: trace.container.as_ref().map(|its| its.docker.clone()),
        services: trace.services.iter().map(|service| service.id.clone()).collect(),
        ports: trace.ports.clone(),
        local: config.node.dataplane == Dataplane::Local,
        // Nobody's: what is written down about it is a cleaner's work.
        owner: Owner { pid: 0, ..Owner::current() },
        ..Record::new(container.clone(), identity)
    }
}

/// Tells Consul anew what it has lost of a living task.
async fn register(config: &Config, container: &ContainerId, trace: &Trace) -> Result<(), String> {
    let told = Told::of(config, container);
    // As it is now: a health check's state may have changed.
    let Some((wanted, _)) = told.read() else { return Ok(()) };
    let client = consul::Client::new(config).map_err(|error| chain(&error))?;
    for service in wanted.iter().filter(|wanted| !trace.services.iter().any(|its| its.id == wanted.id)) {
        client.register(service).await.map_err(|error| chain(&error))?;
        if !still_wanted(config, container, &told) {
            // Its executor has removed it meanwhile, or is dead and its cleaner may have been.
            client.deregister(&service.id).await.map_err(|error| chain(&error))?;
        }
    }
    Ok(())
}

fn still_wanted(config: &Config, container: &ContainerId, told: &Told) -> bool {
    let path = journal::path(&config.paths.journal(), container);
    told.is_there() && matches!(Journal::peek(&path), Ok(Some(Peeked::Owned(_))))
}
