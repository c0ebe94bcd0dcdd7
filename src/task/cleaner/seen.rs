//! The results of a survey as plain data, and what follows from them alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use ipnet::IpNet;

use crate::calico::{Allocation, Inventory, Lacking, SeenEndpoint};
use crate::consul::Service;
use crate::names::{ContainerId, ORCHESTRATOR};
use crate::net::forward::Mapping;
use crate::task::record::journal::Record;
use crate::workload::ContainerState;

/// Everything that was seen.
#[derive(Debug, Clone)]
pub struct Survey {
    pub node: String,
    pub now: SystemTime,
    /// The journal's record of each container.
    pub records: BTreeMap<ContainerId, SeenRecord>,
    /// Files in the journal's folder that are no records.
    pub strangers: Vec<(PathBuf, String)>,
    /// Containers that had a record when the survey began.
    pub before: BTreeSet<ContainerId>,
    /// Since when there has been a journal; none: it is missing, or its age is unknown.
    pub journal_since: Option<SystemTime>,
    pub traces: BTreeMap<ContainerId, Trace>,
    /// Endpoints of this node with our orchestrator's name that we did not write.
    pub strange_endpoints: Vec<SeenEndpoint>,
    /// Addresses of this node that are Calico's own, or bear our orchestrator's name and are not of our making.
    pub strange_addresses: Vec<Allocation>,
    /// Blocks of this node that cannot be read, and why.
    pub unreadable_blocks: Vec<(IpNet, String)>,
    /// Blocks of others with addresses of this node; none: only those that were known already were looked at.
    pub borrowed: Option<BTreeSet<IpNet>>,
    /// Addresses that other endpoints of this node show, of any origin.
    pub shown: BTreeSet<IpAddr>,
    pub silent: Vec<Silent>,
}

/// A record of the journal.
#[derive(Debug, Clone, PartialEq)]
pub enum SeenRecord {
    Living(Option<Box<Record>>),
    Dead(Box<Record>, Death),
    Unreadable(String),
}

/// What became of a record's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    Died,
    Rebooted,
    /// The process lives and has let go of the record: a life that panicked.
    LetGo,
}

/// Something that could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silent {
    pub source: &'static str,
    pub why: String,
    /// Nothing that only this source might back may be removed.
    pub essential: bool,
}

/// What was seen of one container.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    pub endpoint: Option<SeenEndpoint>,
    pub addresses: Vec<Allocation>,
    pub container: Option<SeenContainer>,
    pub folder: Option<Folder>,
    /// Links by which calico-runc would find a folder that is not there.
    pub dangling: Vec<PathBuf>,
    /// Its interface on the host.
    pub veth: Option<String>,
    pub ports: Vec<Mapping>,
    /// In Consul.
    pub services: Vec<Service>,
    /// What its executor had registered in Consul before this survey began.
    pub told: Vec<Service>,
    /// How Calico's datastore differs from what the living task has committed there.
    pub lacking: Option<Lacking>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SeenContainer {
    /// The Docker that has it, as in a record.
    pub docker: String,
    pub name: String,
    pub state: ContainerState,
    pub created: Option<SystemTime>,
}

/// The task's volatile folder.
#[derive(Debug, Clone, PartialEq)]
pub struct Folder {
    pub path: PathBuf,
    pub made: Option<SystemTime>,
    /// Its namespace can be seen from here.
    pub bound: bool,
    /// Something lives in its namespace.
    pub inhabited: bool,
}

impl Survey {
    /// Nothing seen yet.
    pub(super) fn new(node: String) -> Self {
        Self {
            node,
            now: SystemTime::now(),
            records: BTreeMap::new(),
            strangers: Vec::new(),
            before: BTreeSet::new(),
            journal_since: None,
            traces: BTreeMap::new(),
            strange_endpoints: Vec::new(),
            strange_addresses: Vec::new(),
            unreadable_blocks: Vec::new(),
            borrowed: None,
            shown: BTreeSet::new(),
            silent: Vec::new(),
        }
    }

    pub fn living(&self) -> usize {
        self.records.values().filter(|seen| matches!(seen, SeenRecord::Living(_))).count()
    }

    /// Since when the longest-lived task of ours lives, in a journal or not.
    pub(super) fn oldest_living(&self) -> Option<SystemTime> {
        let lives = |trace: &Trace| {
            let may_live = [ContainerState::NeverStarted, ContainerState::Living];
            let container = trace.container.as_ref().filter(|its| may_live.contains(&its.state));
            let folder = trace.folder.as_ref().filter(|folder| folder.inhabited);
            [container.and_then(|its| its.created), folder.and_then(|folder| folder.made)]
        };
        self.traces.values().flat_map(lives).flatten().min()
    }

    pub(super) fn trace(&mut self, container: ContainerId) -> &mut Trace {
        self.traces.entry(container).or_default()
    }

    pub(super) fn cannot(&mut self, source: &'static str, essential: bool, why: String) {
        self.silent.push(Silent { source, why, essential });
    }

    /// Distinguishes what is ours from what looks like it.
    pub(super) fn sort(&mut self, inventory: Inventory) {
        self.unreadable_blocks = inventory.unreadable;
        for seen in inventory.endpoints {
            match seen.container.clone() {
                Some(container) => self.trace(container).endpoint = Some(seen),
                None => {
                    self.shown.extend(&seen.endpoint.addresses);
                    if seen.endpoint.orchestrator == ORCHESTRATOR {
                        self.strange_endpoints.push(seen);
                    }
                }
            }
        }
        let prefix = format!("{ORCHESTRATOR}.");
        let node = self.node.clone();
        let here = |allocation: &Allocation| allocation.node.as_deref() == Some(node.as_str());
        for allocation in inventory.allocations.into_iter().filter(here) {
            let named_like_ours = allocation.handle.as_deref().is_some_and(|id| id.starts_with(&prefix));
            match allocation.container() {
                Some(container) => self.trace(container).addresses.push(allocation),
                None if named_like_ours || allocation.calicos_own().is_some() => {
                    self.strange_addresses.push(allocation);
                }
                None => {}
            }
        }
    }
}

impl Trace {
    /// As its endpoint has it, or would have it.
    pub fn workload(&self, container: &ContainerId) -> String {
        container.workload(self.app().unwrap_or_default())
    }

    /// Those that hold its addresses.
    pub fn blocks(&self) -> Vec<IpNet> {
        self.addresses.iter().map(|allocation| allocation.block).collect()
    }

    pub fn app(&self) -> Option<&str> {
        let endpoint = self.endpoint.as_ref().and_then(|seen| seen.endpoint.app.as_deref());
        let address = self.addresses.iter().find_map(|allocation| allocation.app.as_deref());
        endpoint.or(address).or_else(|| self.services.first()?.meta.get("mesos-app").map(String::as_str))
    }

    pub(super) fn all_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let shown = self.endpoint.iter().flat_map(|seen| seen.endpoint.addresses.iter().copied());
        let held = self.addresses.iter().map(|allocation| allocation.address);
        shown.chain(held)
    }

    /// Every time that is known of it.
    pub(super) fn times(&self) -> Vec<SystemTime> {
        let endpoint = self.endpoint.iter().filter_map(|seen| seen.endpoint.created);
        let addresses = self.addresses.iter().filter_map(|allocation| allocation.since);
        let container = self.container.iter().filter_map(|its| its.created);
        let folder = self.folder.iter().filter_map(|folder| folder.made);
        let services = self.services.iter().filter_map(|service| service.since().and_then(parse));
        endpoint.chain(addresses).chain(container).chain(folder).chain(services).collect()
    }

    /// A container in this state, and nothing else.
    pub(super) fn is_merely(&self, state: ContainerState) -> bool {
        self.container.as_ref().is_some_and(|its| its.state == state)
            && self.endpoint.is_none()
            && self.addresses.is_empty()
            && self.folder.is_none()
            && self.veth.is_none()
            && self.ports.is_empty()
            && self.services.is_empty()
    }
}

/// The time of records and of Consul's entries.
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok()
}
