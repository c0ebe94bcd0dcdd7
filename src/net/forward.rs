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
//! Each entry's comment names its container, so nobody removes what is not his. An entry whose task has no
//! interface any more leads nowhere and is taken over. The tables go with their last entry. All changes are
//! made under one lock file, each in one transaction.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::link::find;
use super::netfilter::Family;
use super::netlink::Netlink;
use super::sockets::{self, Listener};
use super::{conntrack, lock, nftables, NetError};
use crate::error::chain;
use crate::names::ContainerId;

const TABLE: &str = "calico-mesos-ports";
const FORWARDS: &str = "forwards";
const HAIRPINS: &str = "hairpins";
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
    /// Of each family the first is forwarded to.
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
    pub holder: Holder,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// It leads to another task.
    Task(ContainerId),
    /// Somebody listens on the host.
    Listener(Listener),
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}/{} of the host ", self.port, self.protocol.name())?;
        match &self.holder {
            Holder::Task(container) => write!(f, "leads to the task in container {container}"),
            Holder::Listener(listener) => write!(f, "is taken by {listener}"),
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
            Err(NetError::PortTaken(Taken { protocol, port, holder: Holder::Listener(listener) }))
        }
        _ => Ok(()),
    }
}

/// Leads the ports to the task; may be repeated, also with other addresses or ports.
pub async fn add(forward: &Forward) -> Result<(), NetError> {
    let _lock = lock::take(Path::new(LOCK)).await?;
    let mut script = String::new();
    for family in Family::BOTH {
        let Some(address) = forward.address(family) else { continue };
        script.push_str(&skeleton(family, forward.loopback));
        if let Some(table) = Table::read(family).await? {
            let stale = table.refuse_others(&forward.container, &forward.mappings).await?;
            script.push_str(&table.deletions(&forward.container, &stale, Some(address)));
        }
        let name = family.name();
        let comment = format!("comment \"{}\"", forward.container);
        for Mapping { protocol, host, task } in &forward.mappings {
            script.push_str(&format!(
                "create element {name} {TABLE} {FORWARDS} {{ {} . {host} {comment} : {address} . {task} }}\n",
                protocol.name()
            ));
        }
        script.push_str(&format!(
            "create element {name} {TABLE} {HAIRPINS} {{ {address} . {address} {comment} }}\n"
        ));
    }
    nftables::apply(&script).await?;
    for mapping in forward.mappings.iter().filter(|mapping| mapping.protocol == Protocol::Udp) {
        for family in Family::BOTH.into_iter().filter(|family| forward.address(*family).is_some()) {
            // Somebody who sent before there was anybody to answer would stay unheard.
            told(conntrack::forget_port(family, Protocol::Udp as u8, mapping.host));
        }
    }
    Ok(())
}

/// Takes away what leads to this container, and tables and lock with the last entry; how many ports that was.
pub async fn remove(container: &ContainerId) -> Result<usize, NetError> {
    if Family::BOTH.iter().all(|family| matches!(nftables::table(*family, TABLE), Ok(None))) {
        return Ok(0);
    }
    let _lock = lock::take(Path::new(LOCK)).await?;
    let mut script = String::new();
    let mut removed = Vec::new();
    let mut tables_left = false;
    for table in Table::existing().await? {
        if table.entries.iter().all(|entry| entry.is_of(container)) {
            script.push_str(&format!("delete table {} {TABLE}\n", table.family.name()));
        } else {
            script.push_str(&table.deletions(container, &[], None));
            tables_left = true;
        }
        removed.extend(table.entries.into_iter().filter(|entry| entry.is_of(container)));
    }
    if !script.is_empty() {
        nftables::apply(&script).await?;
    }
    if !tables_left {
        // It guards nothing any more; whoever comes next makes it anew.
        let _ = fs::remove_file(LOCK);
    }
    let addresses = removed.iter().filter(|entry| entry.map == HAIRPINS);
    for address in addresses.filter_map(|entry| entry.key.split(" . ").next()?.parse().ok()) {
        told(conntrack::forget_address(address));
    }
    Ok(removed.iter().filter(|entry| entry.map == FORWARDS).count())
}

/// Which ports lead to which container, whoever's configuration it was made for.
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

/// Restores the entries whenever somebody has taken the tables away, as a reload of the host's firewall does,
/// until it is told to stop.
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
                tracing::warn!("the host's firewall was reset; its ports lead to the task again");
                known = forward.tables();
                complained = false;
            }
            Err(error) if !complained => {
                tracing::warn!("the host's firewall was reset: {}; trying on", chain(&error));
                complained = true;
            }
            Err(_) => {}
        }
    }
}

impl Forward {
    fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().find(|address| address.is_ipv4() == (family == Family::Ip)).copied()
    }

    /// The kernel's numbers of the tables that this task is in.
    fn tables(&self) -> Vec<Option<u64>> {
        let used = Family::BOTH.into_iter().filter(|family| self.address(*family).is_some());
        used.map(|family| nftables::table(family, TABLE).ok().flatten()).collect()
    }
}

/// The table without entries; where it is there already only the rules are written anew.
fn skeleton(family: Family, loopback: bool) -> String {
    let (f, kind, not_loopback, loopback_out) = match family {
        Family::Ip if loopback => {
            ("ip", "ipv4_addr", "", "oifname \"cali*\" ct status dnat ip saddr 127.0.0.0/8 masquerade")
        }
        Family::Ip => ("ip", "ipv4_addr", "ip daddr != 127.0.0.0/8 ", ""),
        Family::Ip6 => ("ip6", "ipv6_addr", "ip6 daddr != ::1 ", ""),
    };
    let lead = format!("fib daddr type local dnat {f} to meta l4proto . th dport map @{FORWARDS}");
    format!(
        "table {f} {TABLE} {{
  map {FORWARDS} {{ type inet_proto . inet_service : {kind} . inet_service; }}
  set {HAIRPINS} {{ type {kind} . {kind}; }}
  chain prerouting {{ type nat hook prerouting priority -100; policy accept; }}
  chain output {{ type nat hook output priority -100; policy accept; }}
  chain postrouting {{ type nat hook postrouting priority 100; policy accept; }}
}}
flush table {f} {TABLE}
table {f} {TABLE} {{
  chain prerouting {{
    {lead}
  }}
  chain output {{
    {not_loopback}{lead}
  }}
  chain postrouting {{
    ct status dnat {f} saddr . {f} daddr @{HAIRPINS} masquerade
    {loopback_out}
  }}
}}
"
    )
}

/// One family's table as it is.
struct Table {
    family: Family,
    entries: Vec<Entry>,
}

/// An element of the map or of the set.
#[derive(Debug, PartialEq)]
struct Entry {
    map: &'static str,
    /// As nft writes it: `tcp . 31000`.
    key: String,
    /// Nobody's, if somebody has put it there by hand.
    container: Option<ContainerId>,
    /// What it does, in the map.
    mapping: Option<Mapping>,
}

impl Table {
    async fn existing() -> Result<Vec<Self>, NetError> {
        let mut tables = Vec::new();
        for family in Family::BOTH {
            tables.extend(Self::read(family).await?);
        }
        Ok(tables)
    }

    async fn read(family: Family) -> Result<Option<Self>, NetError> {
        if matches!(nftables::table(family, TABLE), Ok(None)) {
            return Ok(None);
        }
        let objects = match nftables::list(&["list", "table", family.name(), TABLE]).await {
            Ok(objects) => objects,
            // It has just been taken away.
            Err(_) if matches!(nftables::table(family, TABLE), Ok(None)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let entries = [("map", FORWARDS), ("set", HAIRPINS)].into_iter().flat_map(|(kind, name)| {
            let found = objects.iter().filter_map(move |object| object.get(kind));
            let elements =
                found.filter(move |found| found["name"] == name).filter_map(|found| found["elem"].as_array());
            elements.flatten().filter_map(move |element| Entry::read(name, element))
        });
        Ok(Some(Self { family, entries: entries.collect() }))
    }

    /// The entries of dead tasks that are in the way; those of living ones are an error.
    async fn refuse_others(
        &self,
        container: &ContainerId,
        mappings: &[Mapping],
    ) -> Result<Vec<String>, NetError> {
        let here = Netlink::here()?;
        let mut stale = Vec::new();
        for Mapping { protocol, host: port, .. } in mappings.iter().copied() {
            let key = format!("{} . {port}", protocol.name());
            let Some(entry) = self.entries.iter().find(|entry| entry.map == FORWARDS && entry.key == key)
            else {
                continue;
            };
            match &entry.container {
                Some(holder) if holder == container => {}
                Some(holder) if find(&here, &holder.interface()).await?.is_some() => {
                    let holder = Holder::Task(holder.clone());
                    return Err(NetError::PortTaken(Taken { protocol, port, holder }));
                }
                _ => stale.push(key),
            }
        }
        Ok(stale)
    }

    /// The part of a script that removes the container's entries, and of others' these ports and what they have
    /// for this address: who gets an address from the IPAM is the only one to have it.
    fn deletions(&self, container: &ContainerId, ports: &[String], address: Option<IpAddr>) -> String {
        let hairpin = address.map(|address| format!("{address} . {address}"));
        let gone = |entry: &&Entry| {
            entry.is_of(container)
                || entry.map == FORWARDS && ports.contains(&entry.key)
                || entry.map == HAIRPINS && hairpin.as_ref() == Some(&entry.key)
        };
        let delete = |entry: &Entry| {
            format!("delete element {} {TABLE} {} {{ {} }}\n", self.family.name(), entry.map, entry.key)
        };
        self.entries.iter().filter(gone).map(delete).collect()
    }
}

impl Entry {
    fn is_of(&self, container: &ContainerId) -> bool {
        self.container.as_ref() == Some(container)
    }

    /// `{"elem": {"val": {"concat": [...]}, "comment": "..."}}`, in a map with what it leads to behind it.
    fn read(map: &'static str, element: &Value) -> Option<Self> {
        let leads_to = element.pointer("/1/concat/1").and_then(Value::as_u64);
        let element = element.get(0).unwrap_or(element);
        let comment = element.pointer("/elem/comment").and_then(Value::as_str).unwrap_or_default();
        let key = element.pointer("/elem/val").unwrap_or(element).get("concat")?.as_array()?;
        let words = key.iter().map(|word| match word.as_u64() {
            // Hosts without /etc/protocols have no names for them.
            Some(number) => {
                let protocol = Protocol::ALL.into_iter().find(|protocol| *protocol as u64 == number);
                protocol.filter(|_| key[0] == *word).map_or(number.to_string(), |known| known.name().into())
            }
            None => word.as_str().unwrap_or_default().to_owned(),
        });
        let words = words.collect::<Vec<_>>();
        let mapping = || {
            let [protocol, host] = words.as_slice() else { return None };
            let task = u16::try_from(leads_to?).ok()?;
            Some(Mapping { protocol: Protocol::parse(protocol)?, host: host.parse().ok()?, task })
        };
        let mapping = mapping();
        Some(Self { map, key: words.join(" . "), container: ContainerId::parse(comment).ok(), mapping })
    }
}

/// Connections that the kernel still remembers are a nuisance, not a failure.
fn told(forgotten: io::Result<()>) {
    if let Err(error) = forgotten {
        tracing::debug!("the kernel keeps what it knows of earlier connections: {error}");
    }
}
