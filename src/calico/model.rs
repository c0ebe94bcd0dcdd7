//! Calico's objects as they stand in etcd.
//!
//! Fields are in the order in which Go writes them, so that our text equals Calico's for the same
//! content. What a newer Calico may add is kept in `extra` where we rewrite an object of others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(super) type Extra = Map<String, Value>;

/// JSON text as Go's encoder writes it: compact, with the characters that matter in HTML escaped.
pub(super) fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    // Maps with text keys and plain data: serialising cannot fail. An empty value would be refused by
    // every reader, so even then nothing wrong could come of it.
    let text = serde_json::to_string(value).unwrap_or_default();
    let escaped: String = text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
        out
    });
    escaped.into_bytes()
}

/// The envelope of every resource.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Resource<S> {
    #[serde(default)]
    pub kind: String,
    #[serde(default, rename = "apiVersion")]
    pub api_version: String,
    #[serde(default)]
    pub metadata: Metadata,
    pub spec: S,
    #[serde(flatten)]
    pub extra: Extra,
}

impl<S> Resource<S> {
    pub(super) fn new(kind: &str, metadata: Metadata, spec: S) -> Self {
        Self {
            kind: kind.into(),
            api_version: "projectcalico.org/v3".into(),
            metadata,
            spec,
            extra: Extra::new(),
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    #[serde(default)]
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Calico's tools refuse to edit an object without uid or creation time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
    #[serde(default, skip_serializing_if = "is_none_or_empty")]
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "is_none_or_empty")]
    pub annotations: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    pub extra: Extra,
}

fn is_none_or_empty(map: &Option<BTreeMap<String, String>>) -> bool {
    map.as_ref().is_none_or(BTreeMap::is_empty)
}

/// A WorkloadEndpoint's spec; Go leaves out whatever is empty.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct EndpointSpec {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub orchestrator: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workload: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    #[serde(skip_serializing_if = "String::is_empty", rename = "containerID")]
    pub container_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    #[serde(skip_serializing_if = "is_null_or_empty")]
    pub ip_networks: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_null_or_empty")]
    pub profiles: Option<Vec<String>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub interface_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    #[serde(skip_serializing_if = "is_null_or_empty")]
    pub ports: Option<Vec<Port>>,
    #[serde(flatten)]
    pub extra: Extra,
}

fn is_null_or_empty<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Port {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// "TCP" or a number.
    pub protocol: Value,
    pub port: u16,
    #[serde(flatten)]
    pub extra: Extra,
}

#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProfileSpec {
    pub ingress: Vec<Rule>,
    pub egress: Vec<Rule>,
    pub labels_to_apply: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Rule {
    pub action: String,
    pub source: Peer,
    pub destination: Peer,
}

#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Peer {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nets: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selector: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ClusterInformationSpec {
    #[serde(rename = "clusterGUID", skip_serializing_if = "String::is_empty")]
    pub cluster_guid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_type: String,
    /// `false`: an operator has locked the datastore. Absent: its set-up is not finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datastore_ready: Option<bool>,
    #[serde(flatten)]
    pub extra: Extra,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PoolSpec {
    pub cidr: String,
    pub disabled: bool,
    pub block_size: Option<u8>,
    pub node_selector: String,
    pub namespace_selector: String,
    pub allowed_uses: Option<Vec<String>>,
    pub assignment_mode: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct PoolStatus {
    pub conditions: Option<Vec<Condition>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ReservationSpec {
    #[serde(rename = "reservedCIDRs")]
    pub reserved_cidrs: Option<Vec<String>>,
}

/// IPAM's settings. A missing key means "not strict, claim blocks, no limit"; in a key that is there an
/// absent boolean is false.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct IpamConfig {
    pub strict_affinity: bool,
    pub auto_allocate_blocks: bool,
    #[serde(rename = "maxBlocksPerHost")]
    pub max_blocks_per_host: u32,
}

/// Who advertises a block. An empty value or state is the old form of `confirmed`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Affinity {
    pub state: String,
    pub deleted: bool,
    #[serde(flatten)]
    pub extra: Extra,
}

impl Affinity {
    pub(super) fn confirmed() -> Self {
        Self { state: "confirmed".into(), ..Self::default() }
    }

    /// The state of a block that is about to be claimed: Calico's BGP does not advertise it yet.
    pub(super) fn pending() -> Self {
        Self { state: "pending".into(), ..Self::default() }
    }

    pub(super) fn is_confirmed(&self) -> bool {
        self.state.is_empty() || self.state == "confirmed"
    }
}

/// How many addresses a handle has in which block.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Handle {
    pub block: BTreeMap<String, u64>,
    pub deleted: bool,
    #[serde(flatten)]
    pub extra: Extra,
}
