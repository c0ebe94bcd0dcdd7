//! The nodes of the cluster, with what each of them has.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::{Damaged, Kind, Object};
use crate::calico::block::Block;
use crate::calico::inventory::Allocation;
use crate::calico::txn::{Range, ReadKey};
use crate::calico::{keys, CalicoError, Datastore, Family};

/// Nodes whose state one read asks for; etcd takes at most 128 operations in a transaction.
const BATCH: usize = 60;

/// A node and what the datastore has of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeView {
    pub name: String,
    /// False: something in the datastore belongs to a node of this name, and there is no such node.
    pub known: bool,
    /// With the length of its network, as BGP announces it.
    pub address: Option<String>,
    pub address6: Option<String>,
    /// Its own AS number.
    pub as_number: Option<String>,
    pub tunnels: Vec<Tunnel>,
    pub labels: BTreeMap<String, String>,
    /// Blocks that belong to it.
    pub blocks: usize,
    /// Addresses that its tasks and tunnels have, also in blocks of others.
    pub addresses: usize,
    pub endpoints: usize,
    /// Its Felix has reported within the last minute and a half.
    pub felix: bool,
    pub seen: Option<Seen>,
    /// The whole record.
    pub record: Value,
}

/// The end of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    pub mode: TunnelMode,
    pub address: String,
}

/// How packets between nodes are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TunnelMode {
    Ipip,
    Vxlan,
    VxlanV6,
    Wireguard,
}

impl TunnelMode {
    pub fn word(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Vxlan => "vxlan",
            Self::VxlanV6 => "vxlan-v6",
            Self::Wireguard => "wireguard",
        }
    }

    /// Where the address stands in a Node's spec.
    pub(in crate::calico) fn pointer(self) -> &'static str {
        match self {
            Self::Ipip => "/bgp/ipv4IPIPTunnelAddr",
            Self::Vxlan => "/ipv4VXLANTunnelAddr",
            Self::VxlanV6 => "/ipv6VXLANTunnelAddr",
            Self::Wireguard => "/wireguard/interfaceIPv4Address",
        }
    }

    pub(super) const ALL: [Self; 4] = [Self::Ipip, Self::Vxlan, Self::VxlanV6, Self::Wireguard];
}

/// The last sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    pub at: SystemTime,
    pub source: SeenBy,
}

/// What shows that a node was alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SeenBy {
    /// It allocated an address then.
    Allocation,
    /// Its Felix reported then.
    Felix,
}

impl SeenBy {
    pub fn word(self) -> &'static str {
        match self {
            Self::Allocation => "address taken",
            Self::Felix => "Felix",
        }
    }
}

/// All nodes in the order of their names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Nodes {
    pub found: Vec<NodeView>,
    pub damaged: Vec<Damaged>,
}

impl NodeView {
    pub(super) fn of(object: &Object) -> Self {
        let spec = object.value.get("spec").cloned().unwrap_or_default();
        let text = |pointer: &str| match spec.pointer(pointer) {
            Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        };
        Self {
            name: object.name.clone(),
            known: true,
            address: text("/bgp/ipv4Address"),
            address6: text("/bgp/ipv6Address"),
            as_number: text("/bgp/asNumber"),
            tunnels: Self::tunnels_of(&object.value),
            labels: object.labels(),
            record: object.value.clone(),
            ..Self::default()
        }
    }

    /// The tunnels of a node's record.
    pub(super) fn tunnels_of(record: &Value) -> Vec<Tunnel> {
        let tunnel = |mode: TunnelMode| {
            let address = record.get("spec")?.pointer(mode.pointer())?.as_str()?;
            (!address.is_empty()).then(|| Tunnel { mode, address: address.to_owned() })
        };
        TunnelMode::ALL.into_iter().filter_map(tunnel).collect()
    }

    pub(super) fn has_tunnel(&self, mode: TunnelMode) -> bool {
        self.tunnels.iter().any(|tunnel| tunnel.mode == mode)
    }

    fn is_seen(&mut self, at: Option<SystemTime>, source: SeenBy) {
        self.seen = self.seen.max(at.map(|at| Seen { at, source }));
    }
}

#[derive(Default)]
struct Gathering {
    nodes: BTreeMap<String, NodeView>,
    damaged: Vec<Damaged>,
}

impl Gathering {
    fn of(&mut self, name: &str) -> &mut NodeView {
        let new = || NodeView { name: name.to_owned(), ..NodeView::default() };
        self.nodes.entry(name.to_owned()).or_insert_with(new)
    }

    fn block(&mut self, entry: &ReadKey) {
        let damaged = |reason: String| Damaged { key: entry.key.clone(), reason };
        let Some(cidr) = keys::cidr_of_key(&entry.key) else {
            return self.damaged.push(damaged("its name is not that of a block".to_owned()));
        };
        let block = match Block::parse(&entry.value, &cidr) {
            Ok(block) => block,
            Err(why) => return self.damaged.push(damaged(why)),
        };
        for held in Allocation::all(&cidr, &block) {
            if let Some(name) = held.node.clone().or_else(|| block.node().map(str::to_owned)) {
                let node = self.of(&name);
                node.addresses += 1;
                node.is_seen(held.since, SeenBy::Allocation);
            }
        }
    }

    /// `block` is the last time at which it reported, `status` is there as long as it reports.
    fn felix(&mut self, name: &str, status: Option<&ReadKey>, last: Option<&ReadKey>) {
        #[derive(Deserialize)]
        struct Status {
            time: String,
        }
        let time = |entry: &ReadKey| {
            let status: Status = serde_json::from_slice(&entry.value).ok()?;
            humantime::parse_rfc3339_weak(&status.time).ok()
        };
        for entry in status.into_iter().chain(last) {
            match time(entry) {
                Some(at) => self.of(name).is_seen(Some(at), SeenBy::Felix),
                None => self.damaged.push(Damaged {
                    key: entry.key.clone(),
                    reason: "it holds no time at which Felix reported".to_owned(),
                }),
            }
        }
        self.of(name).felix = status.is_some();
    }
}

impl Datastore {
    /// All nodes, and names that something in the datastore belongs to although there is no such node.
    pub async fn nodes(&mut self) -> Result<Nodes, CalicoError> {
        let objects = self.objects(Kind::Node).await?;
        let mut all = Gathering { damaged: objects.damaged, ..Gathering::default() };
        all.nodes.extend(objects.found.iter().map(|object| (object.name.clone(), NodeView::of(object))));
        // What exists under a name whose record is damaged is no node without a record.
        for damaged in &all.damaged {
            if let Some(name) = damaged.key.strip_prefix(&Kind::Node.prefix()) {
                let view = NodeView { name: name.to_owned(), known: true, ..NodeView::default() };
                all.nodes.insert(name.to_owned(), view);
            }
        }
        let names = [Range::Names(keys::all_affinities()), Range::Names(Kind::WorkloadEndpoint.prefix())];
        let answer = self.read(&names).await?;
        let [affinities, endpoints] = [0, 1].map(|index| answer.ranges.get(index).into_iter().flatten());
        for name in affinities.filter_map(|entry| keys::node_of_affinity(&entry.key)) {
            all.of(name).blocks += 1;
        }
        for name in endpoints.filter_map(|entry| keys::node_of_endpoint(&entry.key)) {
            all.of(&name).endpoints += 1;
        }
        for family in [Family::V4, Family::V6] {
            let blocks = self.scan(&keys::blocks(family)).await?;
            blocks.iter().for_each(|entry| all.block(entry));
        }
        let names: Vec<String> = all.nodes.keys().cloned().collect();
        for batch in names.chunks(BATCH) {
            let keys = |name: &String| [keys::felix_status(name), keys::felix_last_status(name)];
            let ranges: Vec<Range> = batch.iter().flat_map(keys).map(Range::Key).collect();
            let answer = self.read(&ranges).await?;
            for (name, found) in batch.iter().zip(answer.ranges.chunks(2)) {
                let first = |index: usize| found.get(index).and_then(|range| range.first());
                all.felix(name, first(0), first(1));
            }
        }
        Ok(Nodes { found: all.nodes.into_values().collect(), damaged: all.damaged })
    }
}

impl Tunnel {
    /// The address alone, without the length that some records have.
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.parse().ok().or_else(|| Some(self.address.parse::<IpNet>().ok()?.addr()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_shows_what_its_record_has() {
        let spec = json!({
            "bgp": {"ipv4Address": "10.0.0.17/24", "asNumber": 64513, "ipv4IPIPTunnelAddr": "10.65.0.1"},
            "ipv4VXLANTunnelAddr": "10.65.0.2"
        });
        let node = NodeView::of(&Object::new(Kind::Node, "agent-17", spec));
        assert_eq!(
            (node.address.as_deref(), node.as_number.as_deref()),
            (Some("10.0.0.17/24"), Some("64513"))
        );
        let tunnels: Vec<_> = node.tunnels.iter().map(|tunnel| (tunnel.mode.word(), tunnel.ip())).collect();
        let ip = |text: &str| text.parse::<IpAddr>().ok();
        assert_eq!(tunnels, [("ipip", ip("10.65.0.1")), ("vxlan", ip("10.65.0.2"))]);
        // Whatever stands there, nothing is made up.
        let odd = NodeView::of(&Object::new(Kind::Node, "a", json!({"bgp": [], "ipv4VXLANTunnelAddr": {}})));
        assert_eq!((odd.address, odd.tunnels), (None, Vec::new()));
    }

    #[test]
    fn the_latest_sign_of_life_counts() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds));
        let mut node = NodeView::default();
        node.is_seen(at(20), SeenBy::Felix);
        node.is_seen(at(30), SeenBy::Allocation);
        node.is_seen(at(25), SeenBy::Felix);
        node.is_seen(None, SeenBy::Felix);
        assert_eq!(node.seen.map(|seen| seen.source), Some(SeenBy::Allocation));
    }
}
