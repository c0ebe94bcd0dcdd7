//! A plan turned into the one transaction that carries it out.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::super::model::{to_json, EndpointSpec, Handle, Metadata, Port, Resource};
use super::super::settle::Fence;
use super::super::{clock, keys, labels, profile};
use super::{Change, Guard, LaunchPlan, PlanRequest, Snapshot};
use crate::names::{ENDPOINT, NAMESPACE, ORCHESTRATOR};

/// Everything of one write.
pub(in crate::calico) struct Transaction {
    pub guards: Vec<Guard>,
    pub changes: Vec<Change>,
    pub profiles_created: Vec<String>,
    /// What has to be moved so that this write can never happen after all.
    pub fences: Vec<Fence>,
    /// The endpoint's record, which is among the changes.
    pub endpoint: Vec<u8>,
}

impl LaunchPlan {
    pub(in crate::calico) fn transaction(
        &self,
        request: &PlanRequest,
        view: &Snapshot,
        allow_nets: &[IpNet],
        mac: &str,
    ) -> Transaction {
        let identity = request.identity;
        let mut all = self.books(&identity.handle, view);
        all.endpoint = to_json(&endpoint(request, view, &self.addresses, mac));
        all.add_profiles(request, view, allow_nets);
        let key = identity.endpoint_key();
        all.put(key.clone(), view.revision_of(&key), all.endpoint.clone());
        all
    }

    /// The part about addresses: blocks, affinities, and the handle that counts what it has in them.
    pub(in crate::calico) fn books(&self, handle: &str, view: &Snapshot) -> Transaction {
        let mut all = Transaction {
            guards: self.guards.clone(),
            changes: self.changes.clone(),
            profiles_created: Vec::new(),
            fences: Vec::new(),
            endpoint: Vec::new(),
        };
        for (cidr, (block, revision)) in &self.drafts {
            let mut block = block.clone();
            block.count_write();
            let key = keys::block(cidr);
            all.fences.push(Fence { key: key.clone(), revision: *revision, block: Some(*cidr) });
            all.put(key, *revision, to_json(&block));
        }
        let key = keys::handle(handle);
        let revision = view.revision_of(&key);
        // An unreadable handle is replaced: it is ours by name, and no release could use it.
        let mut record = view.handle(handle).ok().flatten().unwrap_or_default();
        record.block = self.held.iter().map(|(cidr, count)| (cidr.to_string(), *count)).collect();
        record = Handle { deleted: false, ..record };
        all.fences.push(Fence { key: key.clone(), revision, block: None });
        all.put(key, revision, to_json(&record));
        all
    }
}

impl Transaction {
    fn put(&mut self, key: String, revision: i64, value: Vec<u8>) {
        let guard = Guard::Revision { key: key.clone(), revision };
        if !self.guards.contains(&guard) {
            self.guards.push(guard);
        }
        self.changes.push(Change::Put { key, value });
    }

    /// Profiles are created where they are missing and otherwise left alone: those that are there must still be there
    /// at the write, so that no endpoint names a profile that was removed meanwhile.
    fn add_profiles(&mut self, request: &PlanRequest, view: &Snapshot, allow_nets: &[IpNet]) {
        for name in &request.wanted.profiles {
            let key = keys::profile(name);
            if let Some(entry) = view.entry(&key) {
                self.guards.push(Guard::Revision { key, revision: entry.revision });
                continue;
            }
            if self.profiles_created.contains(name) || profile::is_built_in(name) {
                continue;
            }
            let uid = uuid::Uuid::new_v4().to_string();
            let new = profile::new(name, allow_nets, uid, clock::rfc3339(request.now));
            self.put(key, 0, to_json(&new));
            self.profiles_created.push(name.clone());
        }
    }
}

/// The endpoint as Felix and calicoctl read it; one that exists keeps its time of creation.
fn endpoint(
    request: &PlanRequest,
    view: &Snapshot,
    addresses: &[IpAddr],
    mac: &str,
) -> Resource<EndpointSpec> {
    let identity = request.identity;
    let before = view.endpoint(&identity.endpoint_key()).ok().flatten();
    let created = before.and_then(|endpoint: Resource<Value>| endpoint.metadata.creation_timestamp);
    let annotations =
        [("mesos.apache.org/app-id", &identity.app), ("mesos.apache.org/task-id", &identity.task_id)];
    let metadata = Metadata {
        name: identity.endpoint_name(),
        namespace: Some(NAMESPACE.into()),
        uid: Some(identity.uid.clone()),
        creation_timestamp: Some(created.unwrap_or_else(|| clock::rfc3339(request.now))),
        labels: Some(labels::endpoint_labels(&request.wanted.labels)),
        annotations: Some(annotations.map(|(key, value)| (key.to_owned(), value.clone())).into()),
        ..Metadata::default()
    };
    let ports = request.wanted.ports.iter().map(|port| Port {
        name: port.name.clone(),
        protocol: Value::String(port.protocol.to_uppercase()),
        port: port.port,
        ..Port::default()
    });
    let spec = EndpointSpec {
        orchestrator: ORCHESTRATOR.into(),
        workload: identity.workload.clone(),
        node: identity.node.clone(),
        container_id: identity.container_id.clone(),
        endpoint: ENDPOINT.into(),
        // Felix routes the whole net it finds here to the task: always the address alone.
        ip_networks: Some(addresses.iter().map(|address| IpNet::from(*address).to_string()).collect()),
        profiles: Some(request.wanted.profiles.clone()),
        interface_name: identity.interface.clone(),
        mac: mac.to_owned(),
        ports: Some(ports.collect()),
        ..EndpointSpec::default()
    };
    Resource::new("WorkloadEndpoint", metadata, spec)
}
