//! Small reads for others: endpoints of a node, the holder of an address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use super::model::{EndpointSpec, Resource};
use super::overlap::Lengths;
use super::plan::holder_of;
use super::snapshot::{SeenBlock, Snapshot};
use super::txn::Range;
use super::{block, keys, CalicoError, Datastore, Holder};

/// A WorkloadEndpoint as it is shown or compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub name: String,
    pub uid: Option<String>,
    pub node: String,
    pub orchestrator: String,
    pub workload: String,
    pub container_id: String,
    pub interface: String,
    pub mac: String,
    pub addresses: Vec<IpAddr>,
    pub profiles: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// As Marathon and Mesos write them; none on endpoints of others.
    pub app: Option<String>,
    pub task_id: Option<String>,
    pub created: Option<SystemTime>,
}

/// Reads an endpoint's record; nothing where it cannot be read.
pub(super) fn parse(value: &[u8]) -> Option<Endpoint> {
    let record: Resource<EndpointSpec> = serde_json::from_slice(value).ok()?;
    let annotations = record.metadata.annotations.unwrap_or_default();
    let networks = record.spec.ip_networks.unwrap_or_default();
    let address = |text: &String| text.split('/').next()?.parse().ok();
    let created = record.metadata.creation_timestamp.and_then(|text| humantime::parse_rfc3339(&text).ok());
    Some(Endpoint {
        created,
        name: record.metadata.name,
        uid: record.metadata.uid,
        node: record.spec.node,
        orchestrator: record.spec.orchestrator,
        workload: record.spec.workload,
        container_id: record.spec.container_id,
        interface: record.spec.interface_name,
        mac: record.spec.mac,
        addresses: networks.iter().filter_map(address).collect(),
        profiles: record.spec.profiles.unwrap_or_default(),
        labels: record.metadata.labels.unwrap_or_default(),
        app: annotations.get("mesos.apache.org/app-id").cloned(),
        task_id: annotations.get("mesos.apache.org/task-id").cloned(),
    })
}

impl Datastore {
    /// All endpoints of a node in our namespace, of any origin.
    pub async fn list_endpoints(&mut self, node: &str) -> Result<Vec<Endpoint>, CalicoError> {
        let prefix = keys::endpoints_of(node);
        let answer = self.read(&[Range::Prefix(prefix.clone())]).await?;
        let ours = answer.ranges.iter().flatten().filter(|entry| !entry.key[prefix.len()..].starts_with('-'));
        Ok(ours.filter_map(|entry| parse(&entry.value)).collect())
    }

    /// Who holds an address, if a block of any size has it allocated.
    pub async fn holder_of(&mut self, address: IpAddr) -> Result<Option<Holder>, CalicoError> {
        let possible = Lengths::default().containing(address);
        let ranges: Vec<Range> = possible.iter().map(|cidr| Range::Key(keys::block(cidr))).collect();
        let mut snapshot = Snapshot::default();
        self.look(&mut snapshot, &ranges).await?;
        let holder = possible.iter().find_map(|cidr| match snapshot.block(cidr) {
            SeenBlock::There(block, _) => block.holder(block::ordinal(cidr, address)?).map(holder_of),
            SeenBlock::Absent | SeenBlock::Broken(_) | SeenBlock::Unknown => None,
        });
        match holder {
            Some(holder) => Ok(Some(self.complete(address, holder).await)),
            None => Ok(None),
        }
    }

    /// What the block leaves open about a holder is looked up among the endpoints of its node. Only for
    /// messages, so that a failure leaves the holder as it is.
    pub(super) async fn complete(&mut self, address: IpAddr, mut holder: Holder) -> Holder {
        let (None, Some(node)) = (&holder.app, holder.node.clone()) else { return holder };
        let endpoints = self.list_endpoints(&node).await.unwrap_or_default();
        if let Some(endpoint) = endpoints.into_iter().find(|endpoint| endpoint.addresses.contains(&address)) {
            holder.name = endpoint.task_id.unwrap_or(match endpoint.workload.is_empty() {
                true => endpoint.name,
                false => endpoint.workload,
            });
            holder.app = endpoint.app;
        }
        holder
    }
}
