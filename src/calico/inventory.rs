//! What the datastore holds of a node: for cleaners, who compare it with what lives on a host.
//!
//! Nothing here decides what goes. What is ours differs from what others have written by its form: all of it
//! has to be as [`super::plan`] writes it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::SystemTime;

use ipnet::IpNet;

use super::block::{self, Attribute, Block};
use super::model::to_json;
use super::query::{self, Endpoint};
use super::snapshot::{SeenBlock, Snapshot};
use super::txn::{Change, Guard, Range, ReadKey, Written};
use super::{clock, keys, CalicoError, Datastore, Family, NotReady, ATTEMPTS};
use crate::names::{ContainerId, ORCHESTRATOR};

/// Blocks a read: of the largest size that Calico allows they come to a megabyte each.
const BATCH: usize = 32;
/// Handles of Calico's own allocations begin so.
pub(super) const CALICOS_OWN: [&str; 5] =
    ["ipip-tunnel-addr-", "vxlan-tunnel-addr-", "vxlan-v6-tunnel-addr-", "wireguard-", "windows-reserved-"];

/// One node's share of the datastore.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inventory {
    /// All endpoints in our namespace, of any origin.
    pub endpoints: Vec<SeenEndpoint>,
    /// What is allocated in the node's blocks, for any holder.
    pub allocations: Vec<Allocation>,
    /// The blocks that belong to the node.
    pub blocks: Vec<IpNet>,
    /// Those of them that cannot be read, and why: their content is unknown.
    pub unreadable: Vec<(IpNet, String)>,
}

/// An endpoint at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenEndpoint {
    pub endpoint: Endpoint,
    /// The revision of its key, which shows a change.
    pub revision: i64,
    /// The container, if we wrote the endpoint.
    pub container: Option<ContainerId>,
}

/// An address that is allocated.
#[derive(Debug, Clone, PartialEq)]
pub struct Allocation {
    pub address: IpAddr,
    /// The block that has it allocated: there may be several that contain the address.
    pub block: IpNet,
    pub handle: Option<String>,
    /// For which node it was allocated, which need not be the block's.
    pub node: Option<String>,
    /// Such as `vxlanTunnelAddress`.
    pub kind: Option<String>,
    pub app: Option<String>,
    pub task_id: Option<String>,
    pub since: Option<SystemTime>,
}

/// The signs of a node's life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signs {
    /// Calico has a node of this name.
    pub known: bool,
    /// Its Felix has reported within the last minute and a half. One that does not report may live all the same.
    pub felix: bool,
}

impl Inventory {
    /// Adds what a block holds: all of it in a block of the node, and what the node has in one of others.
    fn look_into(&mut self, entry: &ReadKey, node: &str) {
        let Some(cidr) = keys::cidr_of_key(&entry.key) else { return };
        let own = self.blocks.contains(&cidr);
        let block = match Block::parse(&entry.value, &cidr) {
            Ok(block) => block,
            Err(why) if own => return self.unreadable.push((cidr, why)),
            Err(_) => return,
        };
        let held = Allocation::all(&cidr, &block);
        self.allocations.extend(held.filter(|held| own || held.node.as_deref() == Some(node)));
    }
}

impl Allocation {
    /// All that a block has allocated.
    pub(super) fn all<'a>(cidr: &'a IpNet, block: &'a Block) -> impl Iterator<Item = Self> + 'a {
        (0..block::size(cidr)).filter_map(|ordinal| Some(Self::of(cidr, ordinal, block.holder(ordinal)?)))
    }

    fn of(cidr: &IpNet, ordinal: usize, holder: &Attribute) -> Self {
        let text = |key: &str| holder.secondary.as_ref()?.get(key).filter(|text| !text.is_empty()).cloned();
        Self {
            address: block::address(cidr, ordinal),
            block: *cidr,
            handle: holder.handle_id.clone(),
            node: text("node"),
            kind: text("type"),
            app: text("mesos-app"),
            task_id: text("mesos-task"),
            since: text("timestamp").and_then(|text| clock::from_go_text(&text)),
        }
    }

    /// The container that has it, if we allocated it.
    pub fn container(&self) -> Option<ContainerId> {
        let id = self.handle.as_deref()?.strip_prefix(ORCHESTRATOR)?.strip_prefix('.')?;
        let container = ContainerId::parse(id).ok().filter(|container| container.as_str() == id)?;
        let complete = self.app.is_some() && self.task_id.is_some() && self.kind.is_none();
        complete.then_some(container)
    }

    /// What Calico itself uses it for.
    pub fn calicos_own(&self) -> Option<&str> {
        let handle = self.handle.as_deref().unwrap_or_default();
        match &self.kind {
            Some(kind) => Some(kind),
            None => CALICOS_OWN.iter().any(|prefix| handle.starts_with(prefix)).then_some(handle),
        }
    }
}

impl SeenEndpoint {
    fn of(entry: &ReadKey, node: &str) -> Option<Self> {
        let endpoint = query::parse(&entry.value)?;
        let container = container_of(&endpoint, node).filter(|_| entry.key == keys::endpoint(&endpoint.name));
        Some(Self { endpoint, revision: entry.revision, container })
    }
}

/// The container of an endpoint that is in every respect as we write it.
fn container_of(endpoint: &Endpoint, node: &str) -> Option<ContainerId> {
    let container = ContainerId::parse(&endpoint.container_id).ok()?;
    let app = endpoint.app.as_ref().filter(|_| endpoint.task_id.is_some() && endpoint.uid.is_some())?;
    let ours = endpoint.node == node
        && endpoint.orchestrator == ORCHESTRATOR
        && endpoint.container_id == container.as_str()
        && endpoint.workload == container.workload(app)
        && endpoint.interface == container.interface()
        && endpoint.name == keys::endpoint_name(node, &endpoint.workload);
    ours.then_some(container)
}

impl Datastore {
    /// What a host compares itself with: its endpoints, what its blocks hold, and what it has in these blocks of
    /// others.
    pub async fn inventory(&mut self, node: &str, others: &[IpNet]) -> Result<Inventory, CalicoError> {
        let mut inventory = self.without_allocations(node).await?;
        let blocks: BTreeSet<IpNet> = inventory.blocks.iter().chain(others).copied().collect();
        let blocks: Vec<IpNet> = blocks.into_iter().collect();
        for batch in blocks.chunks(BATCH) {
            let ranges: Vec<Range> = batch.iter().map(|cidr| Range::Key(keys::block(cidr))).collect();
            let answer = self.read(&ranges).await?;
            answer.ranges.iter().flatten().for_each(|entry| inventory.look_into(entry, node));
        }
        Ok(inventory)
    }

    /// The same, and what the node has in blocks of others: reads all blocks of the cluster.
    pub async fn whole_inventory(&mut self, node: &str) -> Result<Inventory, CalicoError> {
        let mut inventory = self.without_allocations(node).await?;
        for family in [Family::V4, Family::V6] {
            let all = self.scan(&keys::blocks(family)).await?;
            all.iter().for_each(|entry| inventory.look_into(entry, node));
        }
        Ok(inventory)
    }

    async fn without_allocations(&mut self, node: &str) -> Result<Inventory, CalicoError> {
        let endpoints = self.seen_endpoints(node).await?;
        Ok(Inventory { endpoints, blocks: self.blocks_of(node).await?, ..Inventory::default() })
    }

    async fn seen_endpoints(&mut self, node: &str) -> Result<Vec<SeenEndpoint>, CalicoError> {
        let prefix = keys::endpoints_of(node);
        let entries = self.scan(&prefix).await?;
        // Another dash: a node with a longer name.
        let its = entries.iter().filter(|entry| !entry.key[prefix.len()..].starts_with('-'));
        Ok(its.filter_map(|entry| SeenEndpoint::of(entry, node)).collect())
    }

    async fn blocks_of(&mut self, node: &str) -> Result<Vec<IpNet>, CalicoError> {
        let names = |family| Range::Names(keys::affinities(node, family));
        let answer = self.read(&[names(Family::V4), names(Family::V6)]).await?;
        let cidrs = answer.ranges.iter().flatten().filter_map(|entry| keys::cidr_of_key(&entry.key));
        Ok(cidrs.collect::<BTreeSet<IpNet>>().into_iter().collect())
    }

    /// Everything below a prefix, however much that is.
    pub(super) async fn scan(&mut self, prefix: &str) -> Result<Vec<ReadKey>, CalicoError> {
        match self.store.scan(prefix).await {
            Ok(entries) => Ok(entries),
            Err(source) => Err(self.store_error(source)),
        }
    }

    /// The same entry by entry.
    pub(super) async fn scan_each(
        &mut self,
        prefix: &str,
        visit: impl FnMut(ReadKey),
    ) -> Result<(), CalicoError> {
        match self.store.scan_each(prefix, visit).await {
            Ok(()) => Ok(()),
            Err(source) => Err(self.store_error(source)),
        }
    }

    /// The signs of a node's life in Calico's datastore.
    pub async fn signs_of_life(&mut self, node: &str) -> Result<Signs, CalicoError> {
        let answer = self.read(&[Range::Key(keys::node(node)), Range::Key(keys::felix_status(node))]).await?;
        let is_there = |index: usize| answer.ranges.get(index).is_some_and(|range| !range.is_empty());
        Ok(Signs { known: is_there(0), felix: is_there(1) })
    }

    /// Gives up a block of a node that is gone, if the block is empty; as Calico does it when a node is deleted.
    /// `false`: an address in it is in use.
    pub async fn give_up_block(&mut self, node: &str, cidr: &IpNet) -> Result<bool, CalicoError> {
        self.part_block(node, cidr, |_| None).await
    }

    /// The same, and a block that still has addresses is left without a node, as Calico does when a pool goes.
    pub(super) async fn let_go_of_block(&mut self, node: &str, cidr: &IpNet) -> Result<(), CalicoError> {
        let without_node = |mut block: Block| {
            block.affinity = None;
            block.affinity_claim_time = None;
            block.count_write();
            Some(to_json(&block))
        };
        self.part_block(node, cidr, without_node).await.map(drop)
    }

    /// Parts a block from its node: an empty one goes, of another one `used` says what stays. `false`: nothing may stay
    /// of it, and nothing was written.
    async fn part_block(
        &mut self,
        node: &str,
        cidr: &IpNet,
        used: impl Fn(Block) -> Option<Vec<u8>>,
    ) -> Result<bool, CalicoError> {
        let (block, affinity) = (keys::block(cidr), keys::affinity(node, cidr));
        let cluster = keys::cluster_information();
        let ranges = [&cluster, &block, &affinity].map(|key| Range::Key(key.clone()));
        for _ in 0..ATTEMPTS {
            let mut snapshot = Snapshot::default();
            self.look(&mut snapshot, &ranges).await?;
            if snapshot.readiness() == Err(NotReady::Locked) {
                return Err(CalicoError::NotReady(NotReady::Locked));
            }
            let mut changes = Vec::new();
            match snapshot.block(cidr) {
                SeenBlock::There(seen, _) if seen.is_affine_to(node) => match seen.is_empty() {
                    true => changes.push(Change::Delete { key: block.clone() }),
                    false => match used(*seen) {
                        Some(value) => changes.push(Change::Put { key: block.clone(), value }),
                        None => return Ok(false),
                    },
                },
                // It belongs to another node by now; only this node's affinity still names it.
                SeenBlock::There(..) | SeenBlock::Absent | SeenBlock::Unknown => {}
                SeenBlock::Broken(reason) => return Err(CalicoError::Unreadable { key: block, reason }),
            }
            changes.extend(snapshot.entry(&affinity).map(|_| Change::Delete { key: affinity.clone() }));
            let guard =
                |key: &String| Guard::Revision { revision: snapshot.revision_of(key), key: key.clone() };
            let guards = [&cluster, &block, &affinity].map(guard);
            if changes.is_empty() || self.written(&guards, &changes).await? {
                return Ok(true);
            }
        }
        Err(CalicoError::Contended(ATTEMPTS))
    }

    /// False: a guard did not hold.
    pub(super) async fn written(
        &mut self,
        guards: &[Guard],
        changes: &[Change],
    ) -> Result<bool, CalicoError> {
        match self.store.write(guards, changes, &[]).await {
            Ok(Written::Done) => Ok(true),
            Ok(Written::Conflict(_)) => Ok(false),
            Err(source) => Err(self.store_error(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, Value};

    use super::*;

    const ID: &str = "5f3cbe1e-77aa-4d1b-8b0e-0c1f2a3b4c5d";

    fn endpoint() -> Value {
        json!({
            "kind": "WorkloadEndpoint",
            "metadata": {
                "name": format!("a-mesos-web.{}-eth0", ID.replace('-', "--")),
                "uid": "u", "creationTimestamp": "2026-08-22T10:11:12Z",
                "annotations": {"mesos.apache.org/app-id": "/web", "mesos.apache.org/task-id": "web.1"}
            },
            "spec": {
                "orchestrator": "mesos", "workload": format!("web.{ID}"), "node": "a", "containerID": ID,
                "endpoint": "eth0", "ipNetworks": ["10.0.0.1/32"], "interfaceName": "cali5f3cbe1e77a"
            }
        })
    }

    fn container(value: &Value) -> Option<ContainerId> {
        let name = value["metadata"]["name"].as_str().unwrap_or_default();
        let entry = ReadKey { key: keys::endpoint(name), value: value.to_string().into(), revision: 7 };
        SeenEndpoint::of(&entry, "a").unwrap().container
    }

    #[test]
    fn an_endpoint_is_ours_only_as_we_write_it() {
        assert_eq!(container(&endpoint()), ContainerId::parse(ID).ok());
        for (pointer, other) in [
            ("/metadata/name", json!("a-mesos-web-eth0")),
            ("/metadata/uid", Value::Null),
            ("/metadata/annotations/mesos.apache.org~1app-id", json!("/other")),
            ("/metadata/annotations/mesos.apache.org~1task-id", Value::Null),
            ("/spec/orchestrator", json!("libnetwork")),
            ("/spec/workload", json!("web")),
            ("/spec/node", json!("b")),
            ("/spec/containerID", json!(ID.to_uppercase())),
            ("/spec/interfaceName", json!("cali0")),
        ] {
            let mut changed = endpoint();
            *changed.pointer_mut(pointer).unwrap() = other;
            if let Some(annotations) = changed["metadata"]["annotations"].as_object_mut() {
                annotations.retain(|_, value| !value.is_null());
            }
            assert_eq!(container(&changed), None, "{pointer}");
        }
    }

    fn allocation(handle: &str, secondary: Value) -> Allocation {
        let attribute = json!({"handle_id": handle, "secondary": secondary});
        Allocation::of(&"10.0.0.0/26".parse().unwrap(), 1, &serde_json::from_value(attribute).unwrap())
    }

    #[test]
    fn an_allocation_is_ours_only_as_we_write_it() {
        let ours = json!({
            "mesos-app": "/web", "mesos-task": "web.1", "node": "a",
            "timestamp": "2026-08-22 10:11:12.345 +0000 UTC"
        });
        let seen = allocation(&format!("mesos.{ID}"), ours.clone());
        assert_eq!((seen.container(), seen.calicos_own()), (ContainerId::parse(ID).ok(), None));
        assert!(seen.since.is_some());
        assert_eq!(allocation("mesos.legacy", ours.clone()).container(), None);
        assert_eq!(allocation(&format!("mesosnet.{ID}"), ours.clone()).container(), None);
        assert_eq!(allocation(&format!("mesos.{}", ID.to_uppercase()), ours).container(), None);
        assert_eq!(allocation(&format!("mesos.{ID}"), json!({"node": "a"})).container(), None);
    }

    #[test]
    fn calicos_own_addresses_are_known() {
        let tunnel = allocation("vxlan-tunnel-addr-a", json!({"node": "a", "type": "vxlanTunnelAddress"}));
        assert_eq!((tunnel.container(), tunnel.calicos_own()), (None, Some("vxlanTunnelAddress")));
        for handle in ["ipip-tunnel-addr-a", "wireguard-tunnel-addr-a", "windows-reserved-ipam-handle"] {
            assert_eq!(allocation(handle, json!({"node": "a"})).calicos_own(), Some(handle));
        }
        assert_eq!(allocation("k8s-pod-network.1", json!({"node": "a"})).calicos_own(), None);
    }
}
