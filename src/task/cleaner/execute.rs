//! Carries a plan out. It looks at each item again before it removes it, and leaves alone what has changed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use crate::calico::Identity;
use crate::config::{Config, Dataplane};
use crate::consul;
use crate::error::chain;
use crate::limits::ORPHANS;
use crate::names::ContainerId;
use crate::task::record::journal::{self, Backing, Journal, Owner, Peeked, Record};
use crate::task::record::published::Told;
use crate::task::report::audit;
use crate::task::report::steps::Steps;
use crate::task::teardown::{self, Claim, Patience, Report, Workload};

use super::forget::GoneDocker;
use super::plan::{Item, ItemKind, Plan, Verdict};
use super::seen::{Survey, Trace};
use super::{adopted, records, restore};

/// What became of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Not meant to be touched, or a dry run.
    Untouched,
    /// By this run.
    Done,
    /// It was no longer there when its turn came: another one had removed it since the survey.
    Gone,
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
    /// Whether an entry was still missing, and its task still there.
    Registered(Result<bool, String>),
    /// Another process owns the record by now.
    TakenOver,
    /// Another process has finished it.
    Gone,
    /// There was no time for it.
    Postponed,
}

/// Does what the plan says; the fate of each item, in their order.
pub(super) async fn execute(
    config: &Config,
    survey: &Survey,
    plan: &Plan,
    gone: Option<&GoneDocker>,
) -> Vec<Fate> {
    let mut ends = BTreeMap::new();
    let folder = config.paths.journal();
    let path = |container: &ContainerId| journal::path(&folder, container);
    let mut files: Vec<PathBuf> = plan.finish.iter().map(path).collect();
    if folder.exists() {
        files.extend(records::unfinished(&folder));
    }
    for record in records::take_down(config, files, gone).await {
        match record {
            records::TakenDown::Swept(swept) => {
                ends.insert(swept.container.clone(), End::Reported(swept.report));
            }
            unreadable @ records::TakenDown::Unreadable(..) => unreadable.tell(),
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
                false if begun.elapsed() > ORPHANS => End::Postponed,
                false => End::Reported(remove(config, survey, container, trace).await),
            };
            ends.insert(container.clone(), end);
        }
    }
    for container in &plan.register {
        if let Some(trace) = survey.traces.get(container) {
            let registered = register(config, container, trace).await;
            if registered == Ok(true) {
                audit::cleaner_says(config, container.as_str(), "registered in Consul again");
            }
            ends.insert(container.clone(), End::Registered(registered));
        }
    }
    // Behind those that give way.
    let restored = restore::write_again(config, survey, plan).await;
    restore::name_conflicts(config, survey, plan);
    plan.items.iter().map(|item| fate(item, &ends, &restored)).collect()
}

fn fate(
    item: &Item,
    ends: &BTreeMap<ContainerId, End>,
    restored: &BTreeMap<ContainerId, Result<bool, String>>,
) -> Fate {
    match (item.verdict, item.container.as_ref().and_then(|container| restored.get(container))) {
        (Verdict::Restore, Some(Ok(true))) => return Fate::Done,
        (Verdict::Restore, Some(Ok(false))) => return Fate::Gone,
        (Verdict::Restore, Some(Err(why))) => return Fate::Left(why.clone()),
        (Verdict::Conflict, _) => return Fate::Left("an operator has to decide".into()),
        _ => {}
    }
    let end = item.container.as_ref().and_then(|container| ends.get(container));
    let (true, Some(end)) = (item.verdict.is_work(), end) else { return Fate::Untouched };
    match end {
        End::Registered(Ok(true)) => Fate::Done,
        End::Registered(Ok(false)) | End::Gone => Fate::Gone,
        End::Registered(Err(why)) => Fate::Left(why.clone()),
        End::Postponed => Fate::Left("left to the next run: this one has enough to do".into()),
        End::TakenOver => Fate::Left("another executor or cleaner has taken it over meanwhile".into()),
        End::Reported(report) if was_removed(item, report) => Fate::Done,
        End::Reported(report) if report.complete() => Fate::Gone,
        End::Reported(report) => Fate::Left(report.errors.join("; ")),
    }
}

/// Did the teardown find this and remove it?
fn was_removed(item: &Item, report: &Report) -> bool {
    match item.kind {
        ItemKind::Consul => report.services > 0,
        ItemKind::Container => report.container,
        ItemKind::Ports => report.ports > 0,
        ItemKind::Veth => report.interface,
        ItemKind::Folder => {
            let about = ["processes", "namespace", "volatile folder"];
            report.folder
                && !report.errors.iter().any(|error| about.iter().any(|what| error.starts_with(what)))
        }
        ItemKind::Endpoint => report.endpoint,
        ItemKind::Address => report.addresses.iter().any(|address| address.to_string() == item.name),
        ItemKind::Journal => report.complete(),
        ItemKind::Handle | ItemKind::Block | ItemKind::Affinity | ItemKind::Profile => false,
    }
}

/// The teardown of a task without a record, from what was seen of it.
async fn remove(config: &Config, survey: &Survey, container: &ContainerId, trace: &Trace) -> Report {
    let record = record(config, survey, container, trace);
    let revision = trace.endpoint.as_ref().map_or(0, |seen| seen.revision);
    let steps = Steps::begin(config, &record.identity.task_id);
    let (workload, claim) = (Workload::Unknown, Claim::Seen(revision, trace.blocks()));
    let mut report = teardown::give_back(&record, config, workload, claim, Patience::CLEANER, &steps).await;
    teardown::settle(&record, config, Patience::CLEANER.docker, &mut report).await;
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
        backing: trace.container.as_ref().map_or(Backing::Process, |its| Backing::Container {
            docker: its.docker.clone(),
            name: its.name.clone(),
            adopted: false,
        }),
        services: trace.services.iter().map(|service| service.id.clone()).collect(),
        ports: trace.ports.clone(),
        local: config.node.dataplane == Dataplane::Local,
        // No executor owns it: a cleaner takes down what its record names.
        owner: Owner { pid: 0, ..Owner::current() },
        ..Record::new(container.clone(), identity)
    }
}

/// Registers anew what Consul has lost of a living task; false when the task has ended meanwhile.
async fn register(config: &Config, container: &ContainerId, trace: &Trace) -> Result<bool, String> {
    let told = Told::of(config, container);
    // As it is now: a health check's state may have changed.
    let Some((wanted, _)) = told.read() else { return Ok(false) };
    let client = consul::Client::new(config).map_err(|error| chain(&error))?;
    for service in wanted.iter().filter(|wanted| !trace.services.iter().any(|its| its.id == wanted.id)) {
        client.register(service).await.map_err(|error| chain(&error))?;
        if !still_wanted(config, container, &told) {
            // Its executor has removed it meanwhile, or is dead and its cleaner may have been.
            client.deregister(&service.id).await.map_err(|error| chain(&error))?;
            return Ok(false);
        }
    }
    Ok(true)
}

fn still_wanted(config: &Config, container: &ContainerId, told: &Told) -> bool {
    let path = journal::path(&config.paths.journal(), container);
    let lives = match Journal::peek(&path) {
        Ok(Some(Peeked::Owned(_))) => true,
        Ok(Some(Peeked::Orphan(record))) => adopted::lives(config, &record),
        _ => false,
    };
    told.is_there() && lives
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::cleaner::plan::Verdict;

    fn item(verdict: Verdict, kind: ItemKind, name: &str, container: &ContainerId) -> Item {
        let name = name.to_owned();
        Item { verdict, kind, name, age: None, why: String::new(), container: Some(container.clone()) }
    }

    #[test]
    fn only_what_was_still_there_counts_as_removed() {
        let container = ContainerId::random();
        let item = |verdict, kind, name| item(verdict, kind, name, &container);
        let items = [
            item(Verdict::Remove, ItemKind::Consul, "web"),
            item(Verdict::Stop, ItemKind::Container, "mesos-x"),
            item(Verdict::Remove, ItemKind::Ports, "80/tcp"),
            item(Verdict::Remove, ItemKind::Veth, "cali0"),
            item(Verdict::Remove, ItemKind::Folder, "tasks/x"),
            item(Verdict::Remove, ItemKind::Endpoint, "mesos/x"),
            item(Verdict::Release, ItemKind::Address, "10.9.0.1"),
            item(Verdict::Release, ItemKind::Address, "fd00::9"),
            item(Verdict::Remove, ItemKind::Journal, "x"),
        ];
        let fates = |end: End| {
            let ends = BTreeMap::from([(container.clone(), end)]);
            items.iter().map(|item| fate(item, &ends, &BTreeMap::new())).collect::<Vec<_>>()
        };
        let all = Report {
            services: 1,
            container: true,
            ports: 1,
            interface: true,
            folder: true,
            endpoint: true,
            addresses: vec!["10.9.0.1".parse().unwrap(), "fd00::9".parse().unwrap()],
            ..Report::default()
        };
        assert_eq!(fates(End::Reported(all)), [const { Fate::Done }; 9]);
        // Its executor was quicker with all but the folder and one address.
        let rest = Report { folder: true, addresses: vec!["10.9.0.1".parse().unwrap()], ..Report::default() };
        let wanted = [false, false, false, false, true, false, true, false, true];
        let wanted = wanted.map(|done| if done { Fate::Done } else { Fate::Gone });
        assert_eq!(fates(End::Reported(rest)), wanted);
        assert_eq!(fates(End::Gone), [const { Fate::Gone }; 9]);
        // What is not there any more and could not be given up for another reason is not gone.
        let failed = Report { errors: vec!["address: etcd is away".to_owned()], ..Report::default() };
        assert!(fates(End::Reported(failed)).iter().all(Fate::is_left));
    }

    #[test]
    fn only_what_was_missing_counts_as_registered() {
        let container = ContainerId::random();
        let lost = item(Verdict::Register, ItemKind::Consul, "web", &container);
        let of =
            |end| fate(&lost, &BTreeMap::from([(container.clone(), End::Registered(end))]), &BTreeMap::new());
        assert_eq!(of(Ok(true)), Fate::Done);
        assert_eq!(of(Ok(false)), Fate::Gone);
        assert_eq!(of(Err("it is away".into())), Fate::Left("it is away".into()));
    }
}
