//! Ports of the host that lead to a task's address: what Docker's port mappings are for its own networks.
//!
//! One nft table a family, of our own, with one map that holds every port, so that
//! `nft list map ip calico-mesos-ports forwards` answers the question where a port of the host leads:
//!
//! ```text
//!  another machine, a neighbour, the task itself ─► prerouting ┐  to an address of this host:
//!  the host itself ───────────────────────────────► output ────┴► protocol . port ─► task . port
//! ```
//!
//! The client's address stays as it is, for network policies and logs: the answer comes back through this
//! host anyhow, since every task's next hop is its host. Two clients cannot keep theirs: a task that reaches
//! itself through its host would throw a packet from its own address away, and 127.0.0.1 means nothing
//! outside a host. These two are masqueraded.
//!
//! Loopback: the kernel lets a packet from 127.0.0.1 out only through an interface with `route_localnet`,
//! which Felix sets on the tasks'. It is not set here: with it a task that may send raw packets reaches what
//! the host offers on loopback alone, as soon as a firewall forgets to prevent it. For `::1` there is no such
//! setting. What cannot work is left out of the rules, and is refused rather than lost.
//!
//! Each entry's comment names its container, so that a task removes its own entries only. An entry whose task has no
//! interface any more leads nowhere and is taken over. The tables go with their last entry.
//!
//! Every change is one transaction of the kernel's, under one lock file. Processes that only add or remove their own
//! elements share the lock, so that a hundred tasks at once do not wait for each other; one that writes rules, takes an
//! entry over or removes a table has it alone.

mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::netfilter::NetfilterFamily;
use super::sockets::{self, Listener};
use super::{conntrack, lock, nftables, NetError};
use crate::error::chain;
use crate::names::ContainerId;
use table::{ForwardRules, Table, FORWARDS, HAIRPINS, TABLE};

/// Fixed, because the tables are: whatever folders an executor is configured for, it shares them.
const LOCK: &str = "/run/calico-mesos-ports.lock";
/// How often a running task looks whether the tables are still the ones it wrote to.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp = 6,
    Udp = 17,
    Sctp = 132,
}

impl Protocol {
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// By its name in lower case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// `host` leads to `task`, the port at the task's own address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mapping {
    pub protocol: Protocol,
    pub host: u16,
    pub task: u16,
}

/// One task's wishes.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    pub container: ContainerId,
    /// Ports are forwarded to the first address of each family.
    pub addresses: Vec<IpAddr>,
    pub mappings: Vec<Mapping>,
    /// 127.0.0.1 too: the tasks' interfaces have `route_localnet`.
    pub loopback: bool,
}

/// A port that cannot be had, and who has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub protocol: Protocol,
    pub port: u16,
    pub holder: PortHolder,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortHolder {
    /// It leads to another task.
    Task(ContainerId),
    /// A program listens on the host.
    Listener(Listener),
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}/{} of the host ", self.port, self.protocol.name())?;
        match &self.holder {
            PortHolder::Task(container) => write!(f, "leads to the task in container {container}"),
            PortHolder::Listener(listener) => write!(f, "is taken by {listener}"),
        }
    }
}

/// Finds out whether the ports can be had, as far as that can be known beforehand.
pub async fn check(container: &ContainerId, mappings: &[Mapping]) -> Result<(), NetError> {
    for table in Table::existing().await? {
        table.refuse_others(container, mappings).await?;
    }
    let ports: Vec<_> = mappings.iter().map(|mapping| (mapping.protocol, mapping.host)).collect();
    let found = tokio::task::spawn_blocking(move || sockets::first_listener(&ports)).await;
    match found {
        Ok(Some((protocol, port, listener))) => {
            Err(NetError::PortTaken(Taken { protocol, port, holder: PortHolder::Listener(listener) }))
        }
        _ => Ok(()),
    }
}

/// Leads the ports to the task; may be repeated, also with other ports for the same addresses.
pub async fn add(forward: &Forward) -> Result<(), NetError> {
    if !join(forward).await? {
        if let Err(error) = write(forward).await {
            // A removal that gave way to this may have left an empty table.
            let _ = tidy().await;
            return Err(error);
        }
    }
    for mapping in forward.mappings.iter().filter(|mapping| mapping.protocol == Protocol::Udp) {
        for family in forward.families() {
            // A client that sent before the task could answer would otherwise stay without an answer.
            logged(conntrack::forget_port(family, Protocol::Udp as u8, mapping.host));
        }
    }
    Ok(())
}

/// Where the rules are as this release writes them: adds the task's elements, beside other tasks that do the same.
/// False when an element is there already, or when there are no such rules.
async fn join(forward: &Forward) -> Result<bool, NetError> {
    let has_rules =
        || forward.families().all(|family| ForwardRules::new(family, forward.loopback).are_there());
    if !has_rules() {
        return Ok(false);
    }
    let _lock = lock::share(Path::new(LOCK)).await?;
    if !has_rules() {
        return Ok(false);
    }
    let script: String = forward.families().map(|family| forward.elements(family)).collect();
    match nftables::apply(&script).await {
        Ok(()) => Ok(true),
        Err(NetError::Firewall { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes rules and elements, while no other process changes any; refuses ports of tasks that live.
async fn write(forward: &Forward) -> Result<(), NetError> {
    let _lock = lock::take(Path::new(LOCK)).await?;
    let mut script = String::new();
    for family in forward.families() {
        script.push_str(&ForwardRules::new(family, forward.loopback).script());
        if let Some(table) = Table::read(family).await? {
            let stale = table.refuse_others(&forward.container, &forward.mappings).await?;
            script.push_str(&table.deletions(&forward.container, &stale, forward.address(family)));
        }
        script.push_str(&forward.elements(family));
    }
    nftables::apply(&script).await
}

/// Removes what leads to this container, and tables and lock with the last entry; how many ports that was.
pub async fn remove(container: &ContainerId) -> Result<usize, NetError> {
    if NetfilterFamily::BOTH.iter().all(|family| matches!(nftables::table(*family, TABLE), Ok(None))) {
        return Ok(0);
    }
    let lock = lock::share(Path::new(LOCK)).await?;
    let tables = Table::existing().await?;
    let script: String = tables.iter().map(|table| table.deletions(container, &[], None)).collect();
    if !script.is_empty() {
        nftables::apply(&script).await?;
    }
    drop(lock);
    tidy().await?;
    let removed: Vec<_> =
        tables.into_iter().flat_map(|table| table.entries).filter(|entry| entry.is_of(container)).collect();
    let addresses = removed.iter().filter(|entry| entry.map == HAIRPINS);
    for address in addresses.filter_map(|entry| entry.key.split(" . ").next()?.parse().ok()) {
        logged(conntrack::forget_address(address));
    }
    Ok(removed.iter().filter(|entry| entry.map == FORWARDS).count())
}

/// Removes tables without entries, and the lock with the last one. The task that removes the last entry finds the table
/// empty here: without the lock, which others may hold for their own entries.
async fn tidy() -> Result<(), NetError> {
    let is_empty = |table: &Table| table.entries.is_empty();
    if !Table::existing().await?.iter().any(is_empty) {
        return Ok(());
    }
    let _lock = lock::take(Path::new(LOCK)).await?;
    let (empty, used): (Vec<_>, Vec<_>) = Table::existing().await?.into_iter().partition(is_empty);
    if !empty.is_empty() {
        let delete = |table: &Table| format!("delete table {} {TABLE}\n", table.family.name());
        nftables::apply(&empty.iter().map(delete).collect::<String>()).await?;
    }
    if used.is_empty() {
        // It guards nothing now; the next process makes it anew.
        let _ = fs::remove_file(LOCK);
    }
    Ok(())
}

/// The ports and the containers that they lead to, for every configuration of this host.
pub async fn all() -> Result<BTreeMap<ContainerId, Vec<Mapping>>, NetError> {
    let mut all: BTreeMap<ContainerId, Vec<Mapping>> = BTreeMap::new();
    for entry in Table::existing().await?.into_iter().flat_map(|table| table.entries) {
        let (Some(container), Some(mapping)) = (entry.container, entry.mapping) else { continue };
        let mappings = all.entry(container).or_default();
        if !mappings.contains(&mapping) {
            mappings.push(mapping);
        }
    }
    Ok(all)
}

/// Restores the entries whenever the tables have been removed, as by a reload of the host's firewall, until it is
/// stopped.
pub fn keep(forward: Forward, stop: CancellationToken) -> impl Future<Output = ()> + Send {
    // As they are now, not when the future is first looked at.
    let known = forward.tables();
    keep_known(forward, known, stop)
}

async fn keep_known(forward: Forward, mut known: Vec<Option<u64>>, stop: CancellationToken) {
    let mut complained = false;
    while stop.run_until_cancelled(tokio::time::sleep(LOOK_AGAIN)).await.is_some() {
        if forward.tables() == known {
            continue;
        }
        match add(&forward).await {
            Ok(()) => {
                tracing::warn!("the host's firewall was reset; the host ports lead to the task again");
                known = forward.tables();
                complained = false;
            }
            Err(error) if !complained => {
                tracing::warn!("the host's firewall was reset, and the host ports cannot be forwarded again: {}; this is retried", chain(&error));
                complained = true;
            }
            Err(_) => {}
        }
    }
}

impl Forward {
    fn address(&self, family: NetfilterFamily) -> Option<IpAddr> {
        self.addresses.iter().find(|address| address.is_ipv4() == (family == NetfilterFamily::Ip)).copied()
    }

    fn families(&self) -> impl Iterator<Item = NetfilterFamily> + use<'_> {
        NetfilterFamily::BOTH.into_iter().filter(|family| self.address(*family).is_some())
    }

    /// The part of a script that adds this task's elements; fails when one of them is there.
    fn elements(&self, family: NetfilterFamily) -> String {
        let Some(address) = self.address(family) else { return String::new() };
        let (name, comment) = (family.name(), format!("comment \"{}\"", self.container));
        let forwards = self.mappings.iter().map(|Mapping { protocol, host, task }| {
            format!(
                "create element {name} {TABLE} {FORWARDS} {{ {} . {host} {comment} : {address} . {task} }}\n",
                protocol.name()
            )
        });
        let hairpin =
            format!("create element {name} {TABLE} {HAIRPINS} {{ {address} . {address} {comment} }}\n");
        forwards.chain([hairpin]).collect()
    }

    /// The kernel's numbers of the tables that this task is in.
    fn tables(&self) -> Vec<Option<u64>> {
        self.families().map(|family| nftables::table(family, TABLE).ok().flatten()).collect()
    }
}

/// Connections that the kernel still remembers are a nuisance, not a failure.
fn logged(forgotten: io::Result<()>) {
    if let Err(error) = forgotten {
        tracing::debug!("cannot delete the kernel's entries of earlier connections: {error}");
    }
}
