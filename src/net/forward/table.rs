//! The tables as they are in the kernel: their rules, and their entries read back.

use std::net::IpAddr;

use serde_json::Value;

use crate::names::{fingerprint, ContainerId};
use crate::net::link::find;
use crate::net::netfilter::NetfilterFamily;
use crate::net::netlink::Netlink;
use crate::net::{nftables, NetError};

use super::{Mapping, PortHolder, Protocol, Taken};

pub(super) const TABLE: &str = "calico-mesos-ports";
pub(super) const FORWARDS: &str = "forwards";
pub(super) const HAIRPINS: &str = "hairpins";

/// The rules of one family.
pub(super) struct ForwardRules {
    family: NetfilterFamily,
    text: String,
    /// A chain without rules, whose name says which text the table's rules have.
    mark: String,
}

impl ForwardRules {
    pub fn new(family: NetfilterFamily, loopback: bool) -> Self {
        let (f, not_loopback, loopback_out) = match family {
            NetfilterFamily::Ip if loopback => {
                ("ip", "", "oifname \"cali*\" ct status dnat ip saddr 127.0.0.0/8 masquerade")
            }
            NetfilterFamily::Ip => ("ip", "ip daddr != 127.0.0.0/8 ", ""),
            NetfilterFamily::Ip6 => ("ip6", "ip6 daddr != ::1 ", ""),
        };
        let lead = format!("fib daddr type local dnat {f} to meta l4proto . th dport map @{FORWARDS}");
        let text = format!(
            "  chain prerouting {{
    {lead}
  }}
  chain output {{
    {not_loopback}{lead}
  }}
  chain postrouting {{
    ct status dnat {f} saddr . {f} daddr @{HAIRPINS} masquerade
    {loopback_out}
  }}
"
        );
        let mark = format!("rules-{}", fingerprint(&text));
        Self { family, text, mark }
    }

    /// Whether the table has them, and exactly these.
    pub fn are_there(&self) -> bool {
        matches!(nftables::has_chain(self.family, TABLE, &self.mark), Ok(true))
    }

    /// Makes the table, or writes its rules anew and leaves its entries as they are.
    pub fn script(&self) -> String {
        let (f, kind) = match self.family {
            NetfilterFamily::Ip => ("ip", "ipv4_addr"),
            NetfilterFamily::Ip6 => ("ip6", "ipv6_addr"),
        };
        let Self { text, mark, .. } = self;
        format!(
            "table {f} {TABLE} {{
  map {FORWARDS} {{ type inet_proto . inet_service : {kind} . inet_service; }}
  set {HAIRPINS} {{ type {kind} . {kind}; }}
  chain prerouting {{ type nat hook prerouting priority -100; policy accept; }}
  chain output {{ type nat hook output priority -100; policy accept; }}
  chain postrouting {{ type nat hook postrouting priority 100; policy accept; }}
  chain {mark} {{ }}
}}
flush table {f} {TABLE}
table {f} {TABLE} {{
{text}}}
"
        )
    }
}

/// One family's table as it is.
pub(super) struct Table {
    pub family: NetfilterFamily,
    pub entries: Vec<SetElement>,
}

/// An element of the map or of the set.
#[derive(Debug, PartialEq)]
pub(super) struct SetElement {
    pub map: &'static str,
    /// As nft writes it: `tcp . 31000`.
    pub key: String,
    /// It belongs to no task, if it was put there by hand.
    pub container: Option<ContainerId>,
    /// What it does, in the map.
    pub mapping: Option<Mapping>,
}

impl Table {
    pub async fn existing() -> Result<Vec<Self>, NetError> {
        let mut tables = Vec::new();
        for family in NetfilterFamily::BOTH {
            tables.extend(Self::read(family).await?);
        }
        Ok(tables)
    }

    pub async fn read(family: NetfilterFamily) -> Result<Option<Self>, NetError> {
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
            elements.flatten().filter_map(move |element| SetElement::read(name, element))
        });
        Ok(Some(Self { family, entries: entries.collect() }))
    }

    /// The entries of dead tasks that are in the way; those of living ones are an error.
    pub async fn refuse_others(
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
                    let holder = PortHolder::Task(holder.clone());
                    return Err(NetError::PortTaken(Taken { protocol, port, holder }));
                }
                _ => stale.push(key),
            }
        }
        Ok(stale)
    }

    /// The part of a script that removes the container's entries, and of others' these ports and what they have
    /// for this address: who gets an address from the IPAM is the only one to have it.
    pub fn deletions(&self, container: &ContainerId, ports: &[String], address: Option<IpAddr>) -> String {
        let hairpin = address.map(|address| format!("{address} . {address}"));
        let gone = |entry: &&SetElement| {
            entry.is_of(container)
                || entry.map == FORWARDS && ports.contains(&entry.key)
                || entry.map == HAIRPINS && hairpin.as_ref() == Some(&entry.key)
        };
        let delete = |entry: &SetElement| {
            format!("delete element {} {TABLE} {} {{ {} }}\n", self.family.name(), entry.map, entry.key)
        };
        self.entries.iter().filter(gone).map(delete).collect()
    }
}

impl SetElement {
    pub fn is_of(&self, container: &ContainerId) -> bool {
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
