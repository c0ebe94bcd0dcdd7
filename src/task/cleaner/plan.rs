//! Decides what is to be done about what a survey has seen. Pure: it reads and changes nothing on the host.
//!
//! ```text
//!  its record's owner lives ──► nothing, except for what Consul or the datastore has lost
//!  the owner is dead ─────────► the teardown, from the record
//!  no record:  Calico's own, or not made by calico-mesos ──► never touched
//!              something lives, or may live ───────────────► kept
//!              younger than grace ─────────────────────────► kept
//!              otherwise ──────────────────────────────────► reported, or removed (gc.orphans)
//! ```
//!
//! Two things without a record are removed in any case, if nothing else is left of the task. One is a container that
//! never started: Docker finishes a create whose client has died, maybe after the record was removed. The other is a
//! container that Docker reports as running although nothing of it lives. A young one may belong to a launch under
//! another configuration of this host, whose journal this cleaner does not read.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;

use crate::config::Orphans;
use crate::names::{ContainerId, ORCHESTRATOR};
use crate::task::record::journal::Record;
use crate::workload::ContainerState;

use super::seen::{parse, Death, SeenRecord, Survey, Trace};
use texts::{age, service_name, short, why_dead};

/// After this long a launch has made its interface, by which it is known to live.
const LAUNCHING: Duration = Duration::from_secs(15);
/// How much of a ContainerID distinguishes it for a reader.
const SHORT: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    Remove,
    /// An address goes back to its block.
    Release,
    /// The container is the agent's to remove.
    Stop,
    /// Consul has lost it.
    Register,
    /// Calico's datastore has lost it of a living task.
    Restore,
    /// A living task has it, and the datastore gives it to something else.
    Conflict,
    /// Nothing backs it; see `gc.orphans`.
    Report,
    Keep,
    Unknown,
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Self::Remove => "remove",
            Self::Release => "release",
            Self::Stop => "stop",
            Self::Register => "register",
            Self::Restore => "restore",
            Self::Conflict => "conflict",
            Self::Report => "report",
            Self::Keep => "keep",
            Self::Unknown => "unknown",
        }
    }

    /// Carrying the plan out changes something.
    pub fn is_work(self) -> bool {
        matches!(self, Self::Remove | Self::Release | Self::Stop | Self::Register | Self::Restore)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemKind {
    Consul,
    Container,
    Ports,
    Veth,
    Folder,
    Endpoint,
    Address,
    Handle,
    /// Removed only when a whole node is given up.
    Block,
    Affinity,
    Profile,
    Journal,
}

impl ItemKind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Consul => "consul",
            Self::Container => "container",
            Self::Ports => "ports",
            Self::Veth => "veth",
            Self::Folder => "folder",
            Self::Endpoint => "endpoint",
            Self::Address => "address",
            Self::Handle => "handle",
            Self::Block => "block",
            Self::Affinity => "affinity",
            Self::Profile => "profile",
            Self::Journal => "journal",
        }
    }
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub verdict: Verdict,
    pub kind: ItemKind,
    /// For people.
    pub name: String,
    pub age: Option<Duration>,
    pub why: String,
    pub container: Option<ContainerId>,
}

/// What the operator wants.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub orphans: Orphans,
    pub grace: Duration,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub items: Vec<Item>,
    /// Records to finish.
    pub finish: Vec<ContainerId>,
    /// What no record names, to be removed.
    pub remove: Vec<ContainerId>,
    /// Living tasks that Consul has forgotten.
    pub register: Vec<ContainerId>,
    /// Living tasks of which the datastore has lost something.
    pub restore: Vec<ContainerId>,
    /// Living tasks with an address that the datastore gives to something else.
    pub conflicts: Vec<ContainerId>,
    /// Containers of which something is left that nothing backs, removed or not.
    pub orphans: BTreeSet<ContainerId>,
}

impl Plan {
    pub fn make(survey: &Survey, rules: &Rules) -> Self {
        let mut planner = Planner { survey, rules, plan: Self::default() };
        for (container, seen) in &survey.records {
            let trace = survey.traces.get(container).cloned().unwrap_or_default();
            match seen {
                SeenRecord::Living(_) => planner.living(container, &trace),
                SeenRecord::Dead(record, death) => planner.dead(container, record, *death, &trace),
                SeenRecord::Unreadable(why) => planner.unreadable(container, why),
            }
        }
        // A task that had a record when the survey began has ended since.
        let known = |container: &ContainerId| {
            survey.records.contains_key(container) || survey.before.contains(container)
        };
        for (container, trace) in survey.traces.iter().filter(|(container, _)| !known(container)) {
            // Some give way to living tasks already.
            if !planner.plan.remove.contains(container) {
                planner.without_record(container, trace);
            }
        }
        planner.strange();
        let mut plan = planner.plan;
        // Within a task they stay in the order of the teardown.
        plan.items.sort_by_key(|item| match item.verdict {
            verdict if verdict.is_work() => Verdict::Remove,
            other => other,
        });
        plan
    }

    /// For a node that is gone for good: all of ours goes, at any age.
    pub(super) fn of_dead_node(survey: &Survey, blocks: &[(IpNet, Vec<IpAddr>)]) -> Self {
        // Age and switch concern what may be mistaken for an orphan; here nothing is guessed.
        let rules = Rules { orphans: Orphans::Remove, grace: Duration::ZERO };
        let mut planner = Planner { survey, rules: &rules, plan: Self::default() };
        for (container, trace) in &survey.traces {
            let workload = short(&trace.workload(container), container);
            let mut items = planner.of(container, &workload, trace);
            let shown = trace.all_addresses().find(|address| survey.shown.contains(address));
            for item in &mut items {
                item.why = match shown {
                    Some(address) => format!("another endpoint shows {address}"),
                    None => format!("the node is given up{}", item.why),
                };
                if shown.is_some() {
                    item.verdict = Verdict::Keep;
                }
            }
            if shown.is_none() {
                planner.plan.remove.push(container.clone());
            }
            planner.plan.items.extend(items);
        }
        planner.strange();
        let mut plan = planner.plan;
        let traces = plan.remove.iter().filter_map(|container| survey.traces.get(container));
        let held = traces.flat_map(|trace| &trace.addresses);
        let released: BTreeSet<IpAddr> = held.map(|allocation| allocation.address).collect();
        let readable = |cidr: &IpNet| survey.unreadable_blocks.iter().all(|(broken, _)| broken != cidr);
        for (cidr, held) in blocks.iter().filter(|(cidr, _)| readable(cidr)) {
            let others = held.iter().find(|address| !released.contains(address));
            let (verdict, why) = match others {
                None => (Verdict::Remove, "nothing is left in it".to_owned()),
                Some(address) => (Verdict::Keep, format!("{address} in it belongs to something else")),
            };
            let name = cidr.to_string();
            plan.items.push(Item { verdict, kind: ItemKind::Block, name, age: None, why, container: None });
        }
        plan
    }

    pub fn count(&self, of: impl Fn(Verdict) -> bool) -> usize {
        self.items.iter().filter(|item| of(item.verdict)).count()
    }
}

struct Planner<'a> {
    survey: &'a Survey,
    rules: &'a Rules,
    plan: Plan,
}

impl Planner<'_> {
    fn living(&mut self, container: &ContainerId, trace: &Trace) {
        self.lacking(container, trace);
        // A Consul that did not answer has not forgotten anything.
        if self.survey.silent.iter().any(|silent| silent.source == "Consul") {
            return;
        }
        let lost = trace.told.iter().filter(|told| !trace.services.iter().any(|its| its.id == told.id));
        let items: Vec<Item> = lost
            .map(|service| Item {
                verdict: Verdict::Register,
                kind: ItemKind::Consul,
                name: service_name(service, container),
                age: age(self.survey, service.since().and_then(parse)),
                why: "Consul has lost it, and the task lives".into(),
                container: Some(container.clone()),
            })
            .collect();
        if !items.is_empty() {
            self.plan.register.push(container.clone());
            self.plan.items.extend(items);
        }
    }

    fn dead(&mut self, container: &ContainerId, record: &Record, death: Death, trace: &Trace) {
        let why = why_dead(record, death, trace);
        let workload = short(&record.identity.workload, container);
        let written = age(self.survey, parse(&record.written));
        let mut items = self.of(container, &workload, trace);
        items.push(item(Verdict::Remove, ItemKind::Journal, workload, container));
        let mut told = Some(why);
        for item in &mut items {
            item.age = item.age.or(written);
            item.why = told.take().unwrap_or_else(|| "same task".to_owned() + &item.why);
        }
        self.plan.finish.push(container.clone());
        self.plan.items.extend(items);
    }

    fn unreadable(&mut self, container: &ContainerId, why: &str) {
        let name = short(container.as_str(), container);
        self.plan
            .items
            .push(Item { why: why.to_owned(), ..item(Verdict::Keep, ItemKind::Journal, name, container) });
    }

    fn without_record(&mut self, container: &ContainerId, trace: &Trace) {
        let workload = trace.workload(container);
        let mut items = self.of(container, &short(&workload, container), trace);
        if items.is_empty() {
            return;
        }
        let (verdict, why) = self.judge(trace);
        let mut told = Some(why);
        for item in &mut items {
            if !verdict.is_work() {
                item.verdict = verdict;
            }
            item.why = told.take().unwrap_or_else(|| "same task".to_owned() + &item.why);
        }
        match verdict {
            Verdict::Remove => self.plan.remove.push(container.clone()),
            Verdict::Report => {}
            _ => return self.plan.items.extend(items),
        }
        self.plan.orphans.insert(container.clone());
        self.plan.items.extend(items);
    }

    /// What is done about something of ours that no record names.
    fn judge(&self, trace: &Trace) -> (Verdict, String) {
        let keep = |why: &str| (Verdict::Keep, why.to_owned());
        if let Some(why) = self.may_live(trace) {
            return (Verdict::Keep, format!("in no journal, but {why}"));
        }
        if trace.services.iter().any(|service| service.node() != Some(self.survey.node.as_str())) {
            return keep("in no journal, but its entry in Consul names no node, or another one");
        }
        let mut addresses = trace.all_addresses();
        if let Some(address) = addresses.find(|address| self.survey.shown.contains(address)) {
            return (Verdict::Keep, format!("in no journal, but another endpoint shows {address}"));
        }
        let ages = trace.times().into_iter().map(|time| age(self.survey, Some(time)).unwrap_or_default());
        let youngest = ages.min().unwrap_or(Duration::MAX);
        if trace.is_merely(ContainerState::NeverStarted) {
            return match youngest < self.rules.grace.min(LAUNCHING) {
                true => keep("just created, and in no journal yet"),
                false => (Verdict::Remove, "created and never started, in no journal".into()),
            };
        }
        if youngest < self.rules.grace {
            return keep("younger than grace");
        }
        if trace.is_merely(ContainerState::Lost) {
            let why = "Docker has missed its end: nothing of it lives, and it is in no journal";
            return (Verdict::Remove, why.into());
        }
        match self.rules.orphans {
            Orphans::Remove => (Verdict::Remove, "in no journal, and nothing of it lives".into()),
            Orphans::Report => {
                (Verdict::Report, "in no journal, and nothing of it lives; gc.orphans = \"report\"".into())
            }
        }
    }

    /// Why something that no record names may live all the same.
    fn may_live(&self, trace: &Trace) -> Option<String> {
        if let Some(silent) = self.survey.silent.iter().find(|silent| silent.essential) {
            return Some(format!("{} could not be queried", silent.source));
        }
        let folder = trace.folder.as_ref();
        let unseen = trace.veth.is_some() && !folder.is_some_and(|folder| folder.bound);
        let why = match self.survey.journal_since {
            None => "the journal itself is missing",
            Some(since) if self.survey.oldest_living().is_some_and(|oldest| oldest < since) => {
                "the journal is younger than the oldest living task"
            }
            _ if trace.container.as_ref().is_some_and(|its| its.state == ContainerState::Living) => {
                "its container runs"
            }
            _ if folder.is_some_and(|folder| folder.inhabited) => "something lives in its namespace",
            _ if unseen => "something may live behind its interface",
            _ => return None,
        };
        Some(why.to_owned())
    }

    /// All that is there of a container, in the order of the teardown, each with what would become of it.
    fn of(&self, container: &ContainerId, workload: &str, trace: &Trace) -> Vec<Item> {
        let survey = self.survey;
        let item = |verdict, kind, name: String, time: Option<SystemTime>| Item {
            age: age(survey, time),
            ..item(verdict, kind, name, container)
        };
        let mut items = Vec::new();
        for service in &trace.services {
            let since = service.since().and_then(parse);
            items.push(item(Verdict::Remove, ItemKind::Consul, service_name(service, container), since));
        }
        if let Some(its) = &trace.container {
            let verdict = match its.state {
                ContainerState::NeverStarted => Some(Verdict::Remove),
                ContainerState::Living | ContainerState::Lost => Some(Verdict::Stop),
                // The agent's to remove.
                ContainerState::Exited => None,
            };
            let name = short(&its.name, container);
            items.extend(verdict.map(|verdict| item(verdict, ItemKind::Container, name, its.created)));
        }
        for port in &trace.ports {
            let name = format!("{}/{}", port.host, port.protocol.name());
            items.push(item(Verdict::Remove, ItemKind::Ports, name, None));
        }
        let veth = trace.veth.iter().map(|veth| item(Verdict::Remove, ItemKind::Veth, veth.clone(), None));
        items.extend(veth);
        if let Some(folder) = &trace.folder {
            let name = format!("tasks/{}", short(container.as_str(), container));
            items.push(item(Verdict::Remove, ItemKind::Folder, name, folder.made));
        }
        for link in &trace.dangling {
            let name = link.file_name().unwrap_or_default().to_string_lossy();
            let folder = link.parent().and_then(|folder| folder.file_name()).unwrap_or_default();
            let folder = folder.to_string_lossy();
            let cut = if folder == "containers" { 12 } else { usize::MAX };
            let name = format!("{folder}/{}", name.chars().take(cut).collect::<String>());
            items.push(item(Verdict::Remove, ItemKind::Folder, name, None));
        }
        if let Some(seen) = &trace.endpoint {
            let name = format!("{ORCHESTRATOR}/{workload}/{}", crate::names::ENDPOINT);
            items.push(item(Verdict::Remove, ItemKind::Endpoint, name, seen.endpoint.created));
        }
        let handle = format!(", handle {}", short(&container.handle(), container));
        let addresses: BTreeMap<_, _> = trace.all_addresses().map(|address| (address, None)).collect();
        let known = trace.addresses.iter().map(|allocation| (allocation.address, allocation.since));
        for (address, since) in addresses.into_iter().chain(known).collect::<BTreeMap<_, _>>() {
            let since = since.or(trace.endpoint.as_ref().and_then(|seen| seen.endpoint.created));
            let item = item(Verdict::Release, ItemKind::Address, address.to_string(), since);
            items.push(Item { why: handle.clone(), ..item });
        }
        items
    }

    /// What is there of others, as far as it could be taken for ours.
    fn strange(&mut self) {
        let survey = self.survey;
        for allocation in &survey.strange_addresses {
            let (verdict, why) = match allocation.calicos_own() {
                Some(what) => (Verdict::Keep, format!("Calico's own ({what})")),
                None => (Verdict::Unknown, NOT_OURS.to_owned()),
            };
            self.plan.items.push(Item {
                verdict,
                kind: ItemKind::Address,
                name: allocation.address.to_string(),
                age: age(survey, allocation.since),
                why,
                container: None,
            });
        }
        for seen in &survey.strange_endpoints {
            let endpoint = &seen.endpoint;
            self.plan.items.push(Item {
                verdict: Verdict::Unknown,
                kind: ItemKind::Endpoint,
                name: format!("{}/{}/{}", endpoint.orchestrator, endpoint.workload, crate::names::ENDPOINT),
                age: age(survey, endpoint.created),
                why: NOT_OURS.to_owned(),
                container: None,
            });
        }
        for (cidr, why) in &survey.unreadable_blocks {
            self.plan.items.push(Item {
                verdict: Verdict::Keep,
                kind: ItemKind::Block,
                name: cidr.to_string(),
                age: None,
                why: format!("its content cannot be read: {why}"),
                container: None,
            });
        }
        for (path, why) in &survey.strangers {
            self.plan.items.push(Item {
                verdict: Verdict::Unknown,
                kind: ItemKind::Journal,
                name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                age: None,
                why: why.clone(),
                container: None,
            });
        }
    }
}

const NOT_OURS: &str = "not written by calico-mesos: never touched";

fn item(verdict: Verdict, kind: ItemKind, name: String, container: &ContainerId) -> Item {
    Item { verdict, kind, name, age: None, why: String::new(), container: Some(container.clone()) }
}

mod restore;
#[cfg(test)]
mod tests;
mod texts;
