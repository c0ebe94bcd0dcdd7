//! The addresses of a node's tunnel ends: taken from a pool and written into the Node in one transaction, under the
//! handles and with the attributes that calico/node gives them.

use std::net::IpAddr;
use std::time::SystemTime;

use serde_json::{json, Value};

use super::fresh::tunnel_of;
use super::{fresh, Edited, Kind, NodeView, Object, TunnelMode};
use crate::calico::files;
use crate::calico::hint::Hint;
use crate::calico::model::to_json;
use crate::calico::plan::{self, PlanRequest, PlanStep, Purpose};
use crate::calico::snapshot::{Question, Snapshot};
use crate::calico::txn::{Change, Guard};
use crate::calico::{keys, AddressRequest, CalicoError, Datastore, Family, Identity, Wanted, ATTEMPTS};
use crate::config::Limits;
use crate::limits::IPAM_LOCK;

impl TunnelMode {
    /// The handle under which calico/node allocates the address.
    pub(in crate::calico) fn handle(self, node: &str) -> String {
        let kind = match self {
            Self::Ipip => "ipip",
            Self::Vxlan => "vxlan",
            Self::VxlanV6 => "vxlan-v6",
            Self::Wireguard => "wireguard",
        };
        format!("{kind}-tunnel-addr-{node}")
    }

    /// The allocation's attribute `type`.
    fn attribute(self) -> &'static str {
        match self {
            Self::Ipip => "ipipTunnelAddress",
            Self::Vxlan => "vxlanTunnelAddress",
            Self::VxlanV6 => "vxlanV6TunnelAddress",
            Self::Wireguard => "wireguardTunnelAddress",
        }
    }

    fn family(self) -> Family {
        match self {
            Self::VxlanV6 => Family::V6,
            Self::Ipip | Self::Vxlan | Self::Wireguard => Family::V4,
        }
    }

    /// The tunnel as the holder of an address.
    pub(in crate::calico) fn identity(self, node: &str) -> Identity {
        Identity {
            node: node.to_owned(),
            workload: String::new(),
            handle: self.handle(node),
            uid: String::new(),
            interface: String::new(),
            container_id: String::new(),
            app: String::new(),
            task_id: String::new(),
        }
    }
}

impl Datastore {
    /// The tunnels that the node needs for the enabled pools that serve it, with the names of these pools; `new_pool`
    /// is one that is only to be made.
    pub(super) async fn tunnels_needed(
        &mut self,
        node: &Object,
        new_pool: Option<&Object>,
    ) -> Result<Vec<(TunnelMode, Vec<String>)>, CalicoError> {
        let pools = self.objects(Kind::IpPool).await?;
        let labels = node.labels();
        let mut needed: Vec<(TunnelMode, Vec<String>)> = Vec::new();
        for object in pools.found.iter().chain(new_pool) {
            let Some(pool) = object.pool().filter(|pool| pool.serves_tunnels(&labels)) else { continue };
            let Some(mode) = tunnel_of(fresh::pool_mode(&object.value["spec"]), &pool.cidr) else { continue };
            match needed.iter_mut().find(|(known, _)| *known == mode) {
                Some((_, names)) => names.push(pool.name),
                None => needed.push((mode, vec![pool.name])),
            }
        }
        Ok(needed)
    }

    /// Gives the node the address of a tunnel's end, unless it has one. A dry run plans it all the same.
    pub(super) async fn give_tunnel(
        &mut self,
        node: &str,
        mode: TunnelMode,
        pools: &[String],
        dry_run: bool,
    ) -> Result<Edited, CalicoError> {
        let identity = mode.identity(node);
        let wanted = Wanted { addresses: vec![AddressRequest::Auto(mode.family())], ..Wanted::default() };
        let (limits, hint) = (Limits::default(), Hint::default());
        let _lock = files::ipam_lock(&self.lock_file, IPAM_LOCK).await;
        let question = Question {
            node,
            endpoint: identity.endpoint_key(),
            handle: &identity.handle,
            profiles: &[],
            blocks: &[],
        };
        let purpose = Purpose::Tunnel { attribute: mode.attribute(), pools };
        for _ in 0..ATTEMPTS {
            let mut snapshot = Snapshot::default();
            self.look(&mut snapshot, &question.ranges()).await?;
            let key = keys::node(node);
            let entry = snapshot.entry(&key).ok_or_else(|| CalicoError::NoNode(node.to_owned()))?;
            let mut object = Object::read(Kind::Node, entry)?;
            let before = object.value.clone();
            if NodeView::of(&object).has_tunnel(mode) {
                return Ok(Edited { before: Some(before.clone()), after: Some(before) });
            }
            let request = PlanRequest {
                identity: &identity,
                wanted: &wanted,
                limits: &limits,
                hint: &hint,
                excluded: &[],
                purpose,
                now: SystemTime::now(),
            };
            let plan = loop {
                match plan::make(&request, &snapshot)? {
                    PlanStep::Ready(plan) => break plan,
                    PlanStep::More(ranges) => self.look(&mut snapshot, &ranges).await?,
                }
            };
            if let Some(address) = plan.addresses.first() {
                set_tunnel(&mut object, mode, *address);
            }
            let edited = Edited { before: Some(before), after: Some(object.value.clone()) };
            if dry_run {
                return Ok(edited);
            }
            let mut write = plan.books(&identity.handle, &snapshot);
            let guard = Guard::Revision { revision: snapshot.revision_of(&key), key: key.clone() };
            if !write.guards.contains(&guard) {
                write.guards.push(guard);
            }
            write.changes.push(Change::Put { key, value: to_json(&object.value) });
            if self.written(&write.guards, &write.changes).await? {
                return Ok(edited);
            }
        }
        Err(CalicoError::Contended(ATTEMPTS))
    }

    /// Gives the addresses of all tunnels of a node back; those that there were.
    pub(super) async fn release_tunnels(&mut self, node: &str) -> Result<Vec<IpAddr>, CalicoError> {
        let mut addresses = Vec::new();
        for mode in TunnelMode::ALL {
            addresses.extend(self.release(&mode.identity(node)).await?.addresses);
        }
        Ok(addresses)
    }
}

/// Writes the address where calico/node does.
fn set_tunnel(object: &mut Object, mode: TunnelMode, address: IpAddr) {
    let spec = object.spec_mut();
    let mut path: Vec<&str> = mode.pointer().split('/').filter(|part| !part.is_empty()).collect();
    let Some(last) = path.pop() else { return };
    let mut parent = spec;
    for part in path {
        let child = parent.entry(part).or_insert_with(|| json!({}));
        if !child.is_object() {
            *child = json!({});
        }
        let Value::Object(child) = child else { return };
        parent = child;
    }
    parent.insert(last.to_owned(), address.to_string().into());
}
