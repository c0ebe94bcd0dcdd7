//! The operator's verbs beside the real calicoctl: it accepts what they write, and lists what they list.

use std::process::Command;

use serde_json::{json, Value};

use calico_mesos::calico::Wanted;

use crate::kit::datastore::{auto, task, World};
use crate::programs::Peers;

const NODE: &str = "agent-1";
const POOL: &str =
    r#"{"cidr":"10.65.0.0/24","blockSize":29,"ipipMode":"Never","vxlanMode":"Never","nodeSelector":"all()"}"#;

/// Our program and the real one on one datastore.
struct Desk {
    world: World,
    peers: Peers,
}

impl Desk {
    async fn new() -> Self {
        let world = World::new(&[NODE], &[("web", POOL)]).await;
        let text = format!(
            "[etcd]\nendpoints = [\"{}\"]\n[node]\nname = \"{NODE}\"\n[paths]\nlog = \"{}/log\"\n",
            world.etcd.endpoint,
            world.dir.path().display()
        );
        std::fs::write(world.dir.path().join("config.toml"), text).unwrap();
        let peers = Peers::new(&world.etcd.endpoint);
        Self { world, peers }
    }

    fn ours(&self, line: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_calico-mesos"));
        command.arg("--config").arg(self.world.dir.path().join("config.toml")).args(line.split_whitespace());
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{line}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    fn json(&self, line: &str) -> Vec<Value> {
        serde_json::from_str(&self.ours(&format!("{line} -o json"))).unwrap()
    }

    /// The real calicoctl takes its own export back.
    async fn round(&self, what: &str) -> Value {
        let object = self.peers.get(what).await;
        self.peers.apply(&object).await;
        object
    }
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// Rules without an empty source or destination, which not every version prints.
fn without_empty(rules: &Value) -> Vec<Value> {
    let mut rules = rules.as_array().unwrap().clone();
    for rule in rules.iter_mut().filter_map(Value::as_object_mut) {
        rule.retain(|_, value| *value != json!({}));
    }
    rules
}

#[tokio::test]
async fn profiles_that_the_commands_write_are_calicoctls_too() {
    let desk = Desk::new().await;
    desk.ours("profile add dev");
    desk.ours("profile add web");
    for words in [
        "inbound allow tcp from ports 1:2,80,http tag web",
        "inbound --at=1 deny icmp type 8 code 0 from 10.0.0.0/8",
        "inbound allow icmpv6 type 254 from fd00::/8",
        "outbound deny udp to ports 53,123 tag dev 192.168.1.1",
        "outbound allow sctp to ports 65535",
        "outbound allow udplite",
    ] {
        desk.ours(&format!("profile dev rule add {words}"));
    }
    desk.ours("profile dev tag add web");
    desk.ours("profile dev tag add new");
    let shown = desk.ours("profile dev rule show");
    desk.round("profile web").await;
    let dev = desk.round("profile dev").await;
    // What the real one has written itself reads the same.
    assert_eq!(desk.ours("profile dev rule show"), shown);
    let rules: Value = serde_json::from_str(&desk.ours("profile dev rule json")).unwrap();
    for field in ["ingress", "egress"] {
        assert_eq!(without_empty(&rules[field]), without_empty(&dev["spec"][field]), "{field}");
    }
    let mut real = names(&desk.peers.get("profile").await);
    real.retain(|name| name != "projectcalico-default-allow");
    assert_eq!(desk.ours("profile show -o name").lines().collect::<Vec<_>>(), real);
    desk.ours("profile dev rule remove inbound --at=1");
    desk.ours("profile dev tag remove new");
    desk.round("profile dev").await;
    desk.ours("profile remove web");
    assert_eq!(desk.ours("profile show -o name"), "dev\n");
}

#[tokio::test]
async fn endpoints_are_listed_and_changed_as_calicoctl_has_them() {
    let desk = Desk::new().await;
    desk.peers.prepare_check().await;
    let tasks = [task(NODE), task(NODE)];
    for task in &tasks {
        desk.world.launch(task, &auto()).await.unwrap();
    }
    desk.ours("profile add web");
    desk.ours(&format!("endpoint {} profile append web", tasks[0].task_id));
    desk.ours(&format!("endpoint {} profile set web dev", tasks[1].container_id));
    desk.ours(&format!("endpoint {} profile remove dev", tasks[1].container_id));
    let real = desk.peers.get("wep -a").await;
    let ours = desk.json("endpoint show --detailed");
    let items = real["items"].as_array().unwrap();
    assert_eq!(ours.len(), items.len());
    for item in items {
        desk.peers.apply(item).await;
        let own = ours.iter().find(|own| own["name"] == item["metadata"]["name"]).unwrap();
        for (field, path) in [
            ("host", "node"),
            ("orchestrator", "orchestrator"),
            ("workload", "workload"),
            ("endpoint", "endpoint"),
            ("addresses", "ipNetworks"),
            ("mac", "mac"),
            ("interface", "interfaceName"),
            ("profiles", "profiles"),
        ] {
            assert_eq!(own[field], item["spec"][path], "{field}");
        }
        assert_eq!(own["labels"], item["metadata"]["labels"]);
    }
    desk.ours(&format!("endpoint {} profile set dev", tasks[1].task_id));
    desk.peers.check_ipam().await;
}

#[tokio::test]
async fn policies_are_listed_under_calicoctls_names() {
    let desk = Desk::new().await;
    let labelled = Wanted { labels: [("app".to_owned(), "web".to_owned())].into(), ..auto() };
    desk.world.launch(&task(NODE), &labelled).await.unwrap();
    desk.world.launch(&task(NODE), &auto()).await.unwrap();
    let policy = |kind: &str, name: &str, spec: Value| {
        let mut metadata = json!({"name": name});
        if kind == "NetworkPolicy" {
            metadata["namespace"] = json!("default");
        }
        json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec})
    };
    let rule = json!({"action": "Allow"});
    desk.peers.apply(&policy("Tier", "early", json!({"order": 10}))).await;
    for (kind, name, spec) in [
        (
            "GlobalNetworkPolicy",
            "web-in",
            json!({"selector": "app == 'web'", "order": 20, "ingress": [rule]}),
        ),
        ("GlobalNetworkPolicy", "b", json!({"order": 10, "egress": [rule]})),
        ("GlobalNetworkPolicy", "early.a", json!({"tier": "early", "selector": "has(mesos-profile/dev)"})),
        ("NetworkPolicy", "all", json!({"types": ["Ingress", "Egress"]})),
    ] {
        desk.peers.apply(&policy(kind, name, spec)).await;
    }
    let ours = desk.json("policy show");
    let shown: Vec<(&str, &str, u64)> = ours
        .iter()
        .filter(|row| row["policy"].is_object())
        .map(|row| {
            let text = |path: &str| row.pointer(path).unwrap().as_str().unwrap();
            (text("/tier/name"), text("/policy/name"), row["policy"]["endpoints"].as_u64().unwrap())
        })
        .collect();
    let expected =
        [("early", "early.a", 2), ("default", "b", 2), ("default", "web-in", 1), ("default", "all", 2)];
    assert_eq!(shown, expected);
    for kind in ["globalnetworkpolicy", "networkpolicy -a"] {
        for item in desk.peers.get(kind).await["items"].as_array().unwrap() {
            let name = item["metadata"]["name"].as_str().unwrap();
            let own = ours.iter().find(|row| row["policy"]["name"] == name).expect(name);
            assert_eq!(
                (&own["policy"]["types"], &own["tier"]["name"]),
                (&item["spec"]["types"], &item["spec"]["tier"]),
                "{name}"
            );
        }
    }
    let tiers: Vec<String> = names(&desk.peers.get("tier").await);
    assert!(tiers.iter().all(|tier| ours.iter().any(|row| row["tier"]["name"] == *tier)), "{tiers:?}");
}
