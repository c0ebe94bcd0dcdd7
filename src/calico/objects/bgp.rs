//! BGP: peers of all nodes or of one, and the cluster's own settings (mesh, AS number).

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{json, Value};

use super::{Damaged, Edit, Edited, Kind, Object};
use crate::calico::{CalicoError, Datastore};

/// What Calico takes where no setting names another.
pub const DEFAULT_AS: u32 = 64512;
/// The object of the cluster's own settings.
const DEFAULT: &str = "default";

/// Whose peer it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerScope {
    Global,
    Node(String),
}

/// A BGP peer as its record has it.
#[derive(Debug, Clone, PartialEq)]
pub struct BgpPeer {
    /// Of the record.
    pub name: String,
    /// The one node that has the peer.
    pub node: Option<String>,
    /// The nodes that have it, where they are chosen by labels.
    pub node_selector: Option<String>,
    /// None where the peers are nodes chosen by labels.
    pub address: Option<IpAddr>,
    pub peer_selector: Option<String>,
    pub as_number: Option<u32>,
    /// The whole record.
    pub record: Value,
}

/// The cluster's own settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BgpSettings {
    /// Every node is a peer of every other.
    pub mesh: bool,
    pub as_number: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum BgpError {
    #[error("{0} cannot be a BGP peer: it is not the address of one machine")]
    NotUnicast(IpAddr),
    #[error("there is no BGP peer {address} of {scope}{}", .others.as_ref().map(|others| format!("; there are {others}")).unwrap_or_default())]
    Unknown { address: IpAddr, scope: PeerScope, others: Option<String> },
    #[error(transparent)]
    Calico(#[from] CalicoError),
}

impl std::fmt::Display for PeerScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Global => f.write_str("all nodes"),
            Self::Node(node) => write!(f, "the node {node}"),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node: String,
    node_selector: String,
    #[serde(rename = "peerIP")]
    peer_ip: String,
    peer_selector: String,
    as_number: Value,
}

impl BgpPeer {
    fn of(object: &Object) -> Result<Self, Damaged> {
        let damaged = |reason| Damaged { key: object.key().to_owned(), reason };
        let spec: Spec = object.spec()?;
        let some = |text: String| (!text.is_empty()).then_some(text);
        let address = match some(spec.peer_ip) {
            Some(text) => Some(
                address(&text).ok_or_else(|| damaged(format!("spec.peerIP '{text}' is not an address")))?,
            ),
            None => None,
        };
        let as_number = as_number(&spec.as_number)
            .ok_or_else(|| damaged(format!("spec.asNumber {} is not an AS number", spec.as_number)))?;
        Ok(Self {
            name: object.name.clone(),
            node: some(spec.node),
            node_selector: some(spec.node_selector),
            address,
            peer_selector: some(spec.peer_selector),
            as_number,
            record: object.value.clone(),
        })
    }

    fn is(&self, scope: &PeerScope, address: IpAddr) -> bool {
        self.address == Some(address) && self.is_of(scope)
    }

    /// Whether it is a peer of exactly these nodes.
    pub fn is_of(&self, scope: &PeerScope) -> bool {
        match scope {
            PeerScope::Global => self.node.is_none() && self.node_selector.is_none(),
            PeerScope::Node(node) => self.node.as_ref() == Some(node),
        }
    }
}

/// `10.0.0.1`, `fd00::1`, and both with a port, as Calico allows it.
fn address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|socket| socket.ip());
    text.parse().ok().or_else(with_port)
}

/// A number, or its text, also in the dotted form. Null is `Some(None)`.
fn as_number(value: &Value) -> Option<Option<u32>> {
    match value {
        Value::Null => Some(None),
        Value::Number(number) => Some(Some(u32::try_from(number.as_u64()?).ok()?)),
        Value::String(text) => parse_as_number(text).ok().map(Some),
        _ => None,
    }
}

/// Reads an AS number, `64512` or `1.10`; 0 is reserved.
pub fn parse_as_number(text: &str) -> Result<u32, String> {
    let number = match text.split_once('.') {
        Some((high, low)) => {
            let half = |text: &str| text.parse::<u16>().ok().map(u32::from);
            half(high).zip(half(low)).map(|(high, low)| high << 16 | low)
        }
        None => text.parse().ok(),
    };
    number
        .filter(|number| *number != 0)
        .ok_or_else(|| "not an AS number from 1 to 4294967295 (or 0.1 to 65535.65535)".to_owned())
}

/// The name under which a peer is made: always the same for the same peer.
fn peer_name(scope: &PeerScope, address: IpAddr) -> String {
    let text = match address {
        IpAddr::V4(address) => address.to_string().replace('.', "-"),
        // In full: a name must not begin with a dash.
        IpAddr::V6(address) => address.segments().map(|part| format!("{part:x}")).join("-"),
    };
    match scope {
        PeerScope::Global => format!("peer-{text}"),
        PeerScope::Node(node) => format!("{node}.peer-{text}"),
    }
}

impl Datastore {
    /// All BGP peers in the order of their names.
    pub async fn bgp_peers(&mut self) -> Result<(Vec<BgpPeer>, Vec<Damaged>), CalicoError> {
        let objects = self.objects(Kind::BgpPeer).await?;
        let (mut peers, mut damaged) = (Vec::new(), objects.damaged);
        for object in &objects.found {
            match BgpPeer::of(object) {
                Ok(peer) => peers.push(peer),
                Err(record) => damaged.push(record),
            }
        }
        Ok((peers, damaged))
    }

    /// Makes a peer, or gives one that is there another AS number; returns the record's name too.
    pub async fn add_bgp_peer(
        &mut self,
        scope: &PeerScope,
        address: IpAddr,
        as_number: u32,
        dry_run: bool,
    ) -> Result<(String, Edited), BgpError> {
        let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() || broadcast {
            return Err(BgpError::NotUnicast(address));
        }
        let (peers, _) = self.bgp_peers().await?;
        let known = peers.into_iter().find(|peer| peer.is(scope, address)).map(|peer| peer.name);
        let name = known.unwrap_or_else(|| peer_name(scope, address));
        let change = |object: Option<Object>| {
            let mut object = object.unwrap_or_else(|| {
                let mut spec = json!({ "peerIP": address.to_string() });
                if let PeerScope::Node(node) = scope {
                    spec = json!({ "node": node, "peerIP": address.to_string() });
                }
                Object::new(Kind::BgpPeer, &name, spec)
            });
            if object.exists()
                && BgpPeer::of(&object).map_err(CalicoError::from)?.as_number == Some(as_number)
            {
                return Ok(Edit::Keep);
            }
            object.spec_mut().insert("asNumber".into(), as_number.into());
            Ok::<_, BgpError>(Edit::Put(object))
        };
        let edited = self.edit(Kind::BgpPeer, &name, dry_run, change).await?;
        Ok((name, edited))
    }

    /// Removes a peer, all its records.
    pub async fn remove_bgp_peer(
        &mut self,
        scope: &PeerScope,
        address: IpAddr,
        dry_run: bool,
    ) -> Result<Vec<(String, Edited)>, BgpError> {
        let (peers, _) = self.bgp_peers().await?;
        let mut removed = Vec::new();
        for peer in peers.iter().filter(|peer| peer.is(scope, address)) {
            let change = |object: Option<Object>| match object {
                Some(object) if BgpPeer::of(&object).is_ok_and(|peer| peer.is(scope, address)) => {
                    Ok::<_, BgpError>(Edit::Delete)
                }
                _ => Ok(Edit::Keep),
            };
            let edited = self.edit(Kind::BgpPeer, &peer.name, dry_run, change).await?;
            removed.push((peer.name.clone(), edited));
        }
        if removed.is_empty() {
            let of_scope = peers.iter().filter(|peer| peer.is_of(scope)).filter_map(|peer| peer.address);
            let others: Vec<String> = of_scope.map(|address| address.to_string()).collect();
            let others = (!others.is_empty()).then(|| others.join(", "));
            return Err(BgpError::Unknown { address, scope: scope.clone(), others });
        }
        Ok(removed)
    }

    /// The cluster's settings, with Calico's defaults where there are none.
    pub async fn bgp_settings(&mut self) -> Result<BgpSettings, CalicoError> {
        let object = self.object(Kind::BgpConfiguration, DEFAULT).await?;
        Ok(object.map(|object| settings(&object)).transpose()?.unwrap_or(BgpSettings::USUAL))
    }

    /// Changes the cluster's settings; what is given as `None` stays.
    pub async fn set_bgp(
        &mut self,
        mesh: Option<bool>,
        as_number: Option<u32>,
        dry_run: bool,
    ) -> Result<Edited, CalicoError> {
        let change = |object: Option<Object>| {
            let mut object =
                object.unwrap_or_else(|| Object::new(Kind::BgpConfiguration, DEFAULT, json!({})));
            let before = settings(&object)?;
            let wanted = BgpSettings {
                mesh: mesh.unwrap_or(before.mesh),
                as_number: as_number.unwrap_or(before.as_number),
            };
            if wanted == before {
                return Ok(Edit::Keep);
            }
            let spec = object.spec_mut();
            if let Some(mesh) = mesh {
                spec.insert("nodeToNodeMeshEnabled".into(), mesh.into());
            }
            if let Some(as_number) = as_number {
                spec.insert("asNumber".into(), as_number.into());
            }
            Ok::<_, CalicoError>(Edit::Put(object))
        };
        self.edit(Kind::BgpConfiguration, DEFAULT, dry_run, change).await
    }
}

impl BgpSettings {
    const USUAL: Self = Self { mesh: true, as_number: DEFAULT_AS };
}

fn settings(object: &Object) -> Result<BgpSettings, Damaged> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Settings {
        node_to_node_mesh_enabled: Option<bool>,
        as_number: Value,
    }
    let spec: Settings = object.spec()?;
    let number = as_number(&spec.as_number).ok_or_else(|| Damaged {
        key: object.key().to_owned(),
        reason: format!("spec.asNumber {} is not an AS number", spec.as_number),
    })?;
    Ok(BgpSettings {
        mesh: spec.node_to_node_mesh_enabled.unwrap_or(true),
        as_number: number.unwrap_or(DEFAULT_AS),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_numbers() {
        for (text, number) in [("1", 1), ("64512", 64512), ("4294967295", u32::MAX), ("1.10", 65546)] {
            assert_eq!(parse_as_number(text), Ok(number));
            assert_eq!(as_number(&json!(text)), Some(Some(number)));
            assert_eq!(as_number(&json!(number)), Some(Some(number)));
        }
        for text in ["", "0", "4294967296", "-1", "1.65536", "1.2.3", "x"] {
            assert!(parse_as_number(text).is_err(), "{text}");
        }
        assert_eq!(as_number(&Value::Null), Some(None));
        assert_eq!(as_number(&json!([1])), None);
    }

    #[test]
    fn names_follow_from_node_and_address() {
        let name = |scope, address: &str| peer_name(&scope, address.parse().unwrap());
        assert_eq!(name(PeerScope::Global, "10.0.0.1"), "peer-10-0-0-1");
        assert_eq!(name(PeerScope::Node("agent-1".into()), "::1"), "agent-1.peer-0-0-0-0-0-0-0-1");
        assert!(crate::names::is_resource_name(&name(PeerScope::Global, "fd00::1")));
    }

    #[test]
    fn a_peer_is_read_from_its_record_or_called_damaged() {
        let peer = |spec| BgpPeer::of(&Object::new(Kind::BgpPeer, "p", spec));
        let read = peer(json!({"node": "a", "peerIP": "[fd00::1]:1790", "asNumber": "1.10"})).unwrap();
        let address: IpAddr = "fd00::1".parse().unwrap();
        assert!(read.is(&PeerScope::Node("a".into()), address) && !read.is(&PeerScope::Global, address));
        assert_eq!(read.as_number, Some(65546));
        assert!(peer(json!({"peerSelector": "rr"})).unwrap().is_of(&PeerScope::Global));
        for bad in [json!({"peerIP": "here"}), json!({"peerIP": 7}), json!({"asNumber": -1}), json!(7)] {
            assert!(peer(bad.clone()).is_err(), "{bad}");
        }
    }
}
