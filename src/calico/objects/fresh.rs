//! Objects as calico/node's start-up and calicoctl would write them, for a cluster or a node that has none yet.

use ipnet::IpNet;
use serde_json::{json, Value};
use uuid::Uuid;

use super::{Kind, Object, TunnelMode};

/// The one object of the kinds of which there is one.
pub(in crate::calico) const DEFAULT: &str = "default";

/// How a pool's packets go from node to node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    Ipip,
    Vxlan,
    /// As they are, by routes that BGP distributes.
    Bgp,
}

impl PoolMode {
    pub fn word(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Vxlan => "vxlan",
            Self::Bgp => "bgp",
        }
    }
}

pub(in crate::calico) fn cluster_information() -> Object {
    let guid = Uuid::new_v4().simple().to_string();
    let spec = json!({ "clusterGUID": guid, "clusterType": "mesos", "datastoreReady": true });
    Object::new(Kind::ClusterInformation, DEFAULT, spec)
}

/// The tier of policies that name none. Calico takes the same values where there is no such object.
pub(in crate::calico) fn default_tier() -> Object {
    Object::new(Kind::Tier, DEFAULT, json!({ "order": 1_000_000, "defaultAction": "Deny" }))
}

/// Without it Felix drops what tasks send to their own host, Mesos' agent among it.
pub(in crate::calico) fn felix_configuration(node: &str) -> Object {
    Object::new(
        Kind::FelixConfiguration,
        &node_scoped(node),
        json!({ "defaultEndpointToHostAction": "Return" }),
    )
}

/// The name of an object that holds one node's settings.
pub(in crate::calico) fn node_scoped(node: &str) -> String {
    format!("node.{node}")
}

/// A node without an address: that is for those to find out who start Calico on it.
pub(in crate::calico) fn node(name: &str) -> Object {
    let mut object = Object::new(Kind::Node, name, json!({}));
    if let Some(record) = object.value.as_object_mut() {
        record.insert("status".into(), json!({}));
    }
    object
}

pub(in crate::calico) fn pool(name: &str, cidr: &IpNet, mode: PoolMode) -> Object {
    let usual = if cidr.addr().is_ipv4() { 26 } else { 122 };
    let always = |on: bool| if on { "Always" } else { "Never" };
    let spec = json!({
        "cidr": cidr.trunc().to_string(),
        "vxlanMode": always(mode == PoolMode::Vxlan),
        "ipipMode": always(mode == PoolMode::Ipip),
        "natOutgoing": true,
        "blockSize": usual.max(cidr.prefix_len()),
        "nodeSelector": "all()",
        "allowedUses": ["Workload", "Tunnel"],
    });
    Object::new(Kind::IpPool, name, spec)
}

/// `192.168.0.0/16` becomes `mesos-192-168-0-0-16`.
pub(in crate::calico) fn pool_name(cidr: &IpNet) -> String {
    format!("mesos-{}", cidr.trunc().to_string().replace(['.', ':', '/'], "-"))
}

/// The mode of a pool's record.
pub(in crate::calico) fn pool_mode(spec: &Value) -> PoolMode {
    let is_on = |field: &str| spec[field].as_str().is_some_and(|mode| !mode.is_empty() && mode != "Never");
    match (is_on("ipipMode"), is_on("vxlanMode")) {
        (true, _) => PoolMode::Ipip,
        (false, true) => PoolMode::Vxlan,
        (false, false) => PoolMode::Bgp,
    }
}

/// The tunnel whose address a node needs for a pool.
pub(in crate::calico) fn tunnel_of(mode: PoolMode, cidr: &IpNet) -> Option<TunnelMode> {
    match (mode, cidr.addr().is_ipv4()) {
        (PoolMode::Ipip, _) => Some(TunnelMode::Ipip),
        (PoolMode::Vxlan, true) => Some(TunnelMode::Vxlan),
        (PoolMode::Vxlan, false) => Some(TunnelMode::VxlanV6),
        (PoolMode::Bgp, _) => None,
    }
}
