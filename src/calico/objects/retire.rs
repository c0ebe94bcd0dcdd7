//! The end of a node: what Calico's own `delete node` removes, once nothing of the node's tasks is left.

use serde_json::{json, Value};

use super::start_up::Made;
use super::{fresh, Edit, Edited, Kind, Object};
use crate::calico::inventory::Allocation;
use crate::calico::{keys, CalicoError, Datastore};

/// What a node has that neither its tasks nor its tunnels have.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeRest {
    /// Keys of endpoints that others wrote, or that cannot be read.
    pub endpoints: Vec<String>,
    /// What others have allocated for the node.
    pub allocations: Vec<Allocation>,
}

impl Datastore {
    /// What keeps a node from being removed.
    pub async fn node_rest(&mut self, node: &str) -> Result<NodeRest, CalicoError> {
        let mut inventory = self.whole_inventory(node).await?;
        inventory.endpoints.retain(|seen| seen.container.is_some());
        let is_ours =
            |key: &str| inventory.endpoints.iter().any(|seen| keys::endpoint(&seen.endpoint.name) == key);
        let all = self.objects(Kind::WorkloadEndpoint).await?;
        let found = all.found.iter().map(|object| object.key().to_owned());
        let keys = found.chain(all.damaged.into_iter().map(|damaged| damaged.key));
        let foreign = |key: &String| keys::node_of_endpoint(key).as_deref() == Some(node) && !is_ours(key);
        let endpoints = keys.filter(foreign).collect();
        let foreign = |held: &Allocation| {
            let ours = held.container().is_some() || held.calicos_own().is_some();
            !ours && held.node.as_deref() == Some(node)
        };
        Ok(NodeRest { endpoints, allocations: inventory.allocations.into_iter().filter(foreign).collect() })
    }

    /// Removes the node with its tunnels' addresses, its blocks and all that is set for it alone. A block in which
    /// others have addresses stays for them and belongs to no node any longer, as with Calico.
    pub async fn retire(&mut self, node: &str, dry_run: bool) -> Result<Vec<Made>, CalicoError> {
        let mut removed = Vec::new();
        let inventory = self.whole_inventory(node).await?;
        let tunnels = inventory.allocations.iter().filter(|held| {
            let of_node = held.node.as_deref() == Some(node);
            held.calicos_own().is_some() && of_node
        });
        let before: Vec<Value> = tunnels.map(|held| json!(held.address)).collect();
        if !before.is_empty() {
            if !dry_run {
                self.release_tunnels(node).await?;
            }
            let edited = Edited { before: Some(before.into()), after: None };
            let object = format!("tunnel addresses of {node}");
            removed.push(Made { object, name: node.to_owned(), edited, detail: None });
        }
        for cidr in &inventory.blocks {
            if !dry_run {
                self.let_go_of_block(node, cidr).await?;
            }
            let edited = Edited { before: Some(json!({ "affinity": node })), after: None };
            removed.push(Made::of("block", &cidr.to_string(), edited));
        }
        for (kind, name) in self.settings_of(node).await? {
            let edited = self
                .edit(kind, &name, dry_run, |object| {
                    Ok::<_, CalicoError>(if object.is_some() { Edit::Delete } else { Edit::Keep })
                })
                .await?;
            if edited.is_change() {
                removed.push(Made::of(kind.word(), &name, edited));
            }
        }
        Ok(removed)
    }

    /// The objects that are for this node alone, the node last.
    async fn settings_of(&mut self, node: &str) -> Result<Vec<(Kind, String)>, CalicoError> {
        let mut found = Vec::new();
        for kind in [Kind::BgpPeer, Kind::HostEndpoint] {
            let its =
                |object: &Object| object.value.pointer("/spec/node").and_then(Value::as_str) == Some(node);
            let objects = self.objects(kind).await?.found;
            found.extend(objects.into_iter().filter(its).map(|object| (kind, object.name)));
        }
        for kind in [Kind::FelixConfiguration, Kind::BgpConfiguration] {
            found.push((kind, fresh::node_scoped(node)));
        }
        found.push((Kind::Node, node.to_owned()));
        Ok(found)
    }
}
