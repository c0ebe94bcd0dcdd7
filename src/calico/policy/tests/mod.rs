//! Small clusters of records, and what becomes of packets in them.

mod hints;
mod hosts;
mod properties;
mod rules;
mod tiers;

use serde_json::{json, Value};

use super::{Explanation, Flow, PolicyVerdict, PolicyWorld};
use crate::calico::objects::world::tests::world_of;
use crate::calico::{Damaged, Kind};

/// Records of a cluster.
#[derive(Clone, Default)]
pub(super) struct Cluster(Vec<(Kind, String, Value)>);

impl Cluster {
    /// Two hosts, and on each a task: `web` 10.65.0.1 on agent-1, `db` 10.65.0.65 on agent-2 with the ports sql 5432 and
    /// dns 53. Neither has a profile.
    pub(super) fn new() -> Self {
        let sql = json!([{"name": "sql", "protocol": "TCP", "port": 5432}, {"name": "dns", "protocol": "UDP", "port": 53}]);
        Self::default()
            .node("agent-1", json!({"bgp": {"ipv4Address": "10.0.0.1/24"}}))
            .node("agent-2", json!({"bgp": {"ipv4Address": "10.0.0.2/24"}}))
            .task("web", "agent--1", "10.65.0.1", &[], json!({"role": "web"}), json!([]))
            .task("db", "agent--2", "10.65.0.65", &[], json!({"role": "db"}), sql)
    }

    /// The same, where both tasks have a profile that allows everything.
    pub(super) fn open() -> Self {
        let all = json!([{"action": "Allow"}]);
        let mut cluster = Self::new().profile("open", json!({"ingress": all, "egress": all}));
        for (kind, _, value) in &mut cluster.0 {
            if *kind == Kind::WorkloadEndpoint {
                value["spec"]["profiles"] = json!(["open"]);
            }
        }
        cluster
    }

    pub(super) fn add(mut self, kind: Kind, name: &str, mut value: Value) -> Self {
        if let (Some((namespace, _)), true) = (name.split_once('/'), value["metadata"].is_object()) {
            value["metadata"]["namespace"] = json!(namespace);
        }
        self.0.retain(|(own, old, _)| (*own, old.as_str()) != (kind, name));
        self.0.push((kind, name.to_owned(), value));
        self
    }

    pub(super) fn task(
        self,
        name: &str,
        node: &str,
        address: &str,
        profiles: &[&str],
        labels: Value,
        ports: Value,
    ) -> Self {
        let mut labels = labels;
        labels["projectcalico.org/namespace"] = json!("default");
        let record = json!({
            "metadata": {"labels": labels, "annotations": {"mesos.apache.org/task-id": format!("{name}.1"), "mesos.apache.org/app-id": format!("/{name}")}},
            "spec": {"ipNetworks": [format!("{address}/32")], "interfaceName": format!("cali{name}"), "profiles": profiles, "ports": ports},
        });
        self.add(Kind::WorkloadEndpoint, &format!("default/{node}-mesos-{name}-eth0"), record)
    }

    pub(super) fn node(self, name: &str, spec: Value) -> Self {
        self.add(Kind::Node, name, json!({"spec": spec}))
    }

    pub(super) fn profile(self, name: &str, spec: Value) -> Self {
        self.add(Kind::Profile, name, json!({"spec": spec}))
    }

    pub(super) fn tier(self, name: &str, spec: Value) -> Self {
        self.add(Kind::Tier, name, json!({"spec": spec}))
    }

    /// A GlobalNetworkPolicy, or with a slash in its name a NetworkPolicy.
    pub(super) fn policy(self, name: &str, spec: Value) -> Self {
        let kind = if name.contains('/') { Kind::NetworkPolicy } else { Kind::GlobalNetworkPolicy };
        self.add(kind, name, json!({"metadata": {}, "spec": spec}))
    }

    /// A policy for what `db` lets in, with this one rule.
    pub(super) fn db_rule(self, rule: Value) -> Self {
        self.policy("db", json!({"selector": "role == 'db'", "types": ["Ingress"], "ingress": [rule]}))
    }

    pub(super) fn world(self) -> PolicyWorld {
        let (world, damaged) = self.read();
        assert_eq!(damaged, Vec::new());
        world
    }

    pub(super) fn read(self) -> (PolicyWorld, Vec<Damaged>) {
        world_of(self.0)
    }

    /// What becomes of a flow; with one word, from web to db.
    pub(super) fn says(self, from: &str, to: &str, flow: &str) -> Explanation {
        says(&self.world(), from, to, flow)
    }

    /// Whether web reaches db.
    pub(super) fn is(self, flow: &str) -> PolicyVerdict {
        self.says("web", "db", flow).verdict
    }
}

pub(super) fn says(world: &PolicyWorld, from: &str, to: &str, flow: &str) -> Explanation {
    let end = |word: &str| world.meant(word).unwrap().ends[0].clone();
    world.explain(&end(from), &end(to), Flow::parse(flow).unwrap())
}

pub(super) use PolicyVerdict::{Allowed, Denied, Unknown};
