//! `node init` and `node remove`.

use std::fs;

use serde_json::{json, Value};

use crate::datastore::{auto, task, Dump, World, IPAM, RESOURCES};
use crate::desk::{Desk, NODE};
use crate::netlab;

const ADDRESS: &str = "10.77.1.1";

/// An address of this host that is not loopback's, with its route.
fn host() {
    netlab::require_private_network();
    netlab::run("ip", &["address", "replace", &format!("{ADDRESS}/24"), "dev", "lo"]);
}

fn record(dump: &Dump, path: &str) -> Value {
    let key = format!("{RESOURCES}/{path}");
    serde_json::from_str(dump.get(&key).unwrap_or_else(|| panic!("{key} is missing: {dump:#?}"))).unwrap()
}

#[tokio::test]
async fn a_node_gets_what_calicos_start_up_makes_and_nothing_twice() {
    host();
    let mut desk = Desk::of(World::empty().await);
    let line = format!("node init --ip {ADDRESS} --pool 10.65.0.0/16 --mode vxlan");
    let said = desk.run(&format!("{line} --dry-run"));
    assert_eq!(said.code, 3);
    let tunnel = "to make: Node agent-1, vxlan address (one of the pool mesos-10-65-0-0-16)\n";
    assert!(said.stdout.contains(tunnel), "{said:?}");
    assert!(desk.world.dump().await.is_empty() && !desk.dir().join("nodename").exists());
    let said = desk.done(&line);
    assert!(said.lines().all(|line| !line.contains("is there")), "{said}");
    let dump = desk.world.dump().await;
    let node = record(&dump, &format!("nodes/{NODE}"));
    assert_eq!(node["spec"]["bgp"], json!({"ipv4Address": format!("{ADDRESS}/24")}));
    assert_eq!(record(&dump, "clusterinformations/default")["spec"]["datastoreReady"], true);
    let tier = json!({"order": 1_000_000, "defaultAction": "Deny"});
    assert_eq!(record(&dump, "tiers/default")["spec"], tier);
    let felix = record(&dump, &format!("felixconfigurations/node.{NODE}"));
    assert_eq!(felix["spec"], json!({"defaultEndpointToHostAction": "Return"}));
    let pool = &record(&dump, "ippools/mesos-10-65-0-0-16")["spec"];
    assert_eq!((&pool["vxlanMode"], &pool["ipipMode"]), (&json!("Always"), &json!("Never")));
    assert_eq!(fs::read_to_string(desk.dir().join("nodename")).unwrap(), NODE);

    // The tunnel's address: in a block of the node, under Calico's handle and attributes.
    let address = node["spec"]["ipv4VXLANTunnelAddr"].as_str().unwrap();
    let handle: Value =
        serde_json::from_str(&dump[&format!("{IPAM}/handle/vxlan-tunnel-addr-{NODE}")]).unwrap();
    let (block, count) = handle["block"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(count, 1);
    assert!(address.starts_with(block.rsplit_once('.').unwrap().0), "{address} is not in {block}");
    let block: Value =
        serde_json::from_str(&dump[&format!("{IPAM}/assignment/ipv4/block/{}", block.replace('/', "-"))])
            .unwrap();
    assert_eq!(block["affinity"], format!("host:{NODE}"));
    let attribute = &block["attributes"][0];
    assert_eq!(attribute["handle_id"], format!("vxlan-tunnel-addr-{NODE}"));
    assert_eq!(attribute["secondary"], json!({"node": NODE, "type": "vxlanTunnelAddress"}));

    let again = desk.done(&line);
    assert!(again.lines().all(|line| line.ends_with("is there")), "{again}");
    assert_eq!(desk.run(&format!("{line} --dry-run")).code, 0);
    assert_eq!(desk.world.dump().await, dump);
    assert_eq!(desk.trail().len(), 7, "{:#?}", desk.trail());
    let shown = desk.json("node show");
    assert_eq!(shown[0]["tunnels"], json!([{"mode": "vxlan", "address": address}]));
    // Tasks start here, and their addresses are others.
    let committed = desk.world.launch(&task(NODE), &auto()).await.unwrap();
    assert_ne!(committed.addresses[0].to_string(), address);
}

#[tokio::test]
async fn what_is_there_stays() {
    host();
    let mut desk = Desk::new(&[], &[("mine", r#"{"cidr":"10.65.0.0/16","vxlanMode":"CrossSubnet"}"#)]).await;
    let node = json!({
        "metadata": {"name": NODE, "labels": {"rack": "r1"}},
        "spec": {"bgp": {"ipv4Address": "10.9.9.9/16", "asNumber": 65000}, "future": [1]}
    });
    let felix = r#"{"metadata":{},"spec":{"defaultEndpointToHostAction":"Drop"}}"#;
    desk.world.put(&format!("{RESOURCES}/nodes/{NODE}"), &node.to_string()).await;
    desk.world.put(&format!("{RESOURCES}/felixconfigurations/node.{NODE}"), felix).await;
    let line = format!("node init --ip {ADDRESS} --pool 10.65.0.0/16 --mode vxlan");
    // Where node and pool are there, a dry run names the address.
    let planned = desk.run(&format!("{line} --dry-run")).stdout;
    assert!(planned.contains("to complete: Node agent-1, vxlan address (10.65."), "{planned}");
    desk.done(&line);
    let dump = desk.world.dump().await;
    let mut after = record(&dump, &format!("nodes/{NODE}"));
    let tunnel = after["spec"].as_object_mut().unwrap().remove("ipv4VXLANTunnelAddr");
    assert!(tunnel.is_some() && after == node, "{after}");
    assert!(planned.contains(&format!("({})", tunnel.unwrap().as_str().unwrap())), "{planned}");
    assert_eq!(dump[&format!("{RESOURCES}/felixconfigurations/node.{NODE}")], felix);
    assert_eq!(dump.keys().filter(|key| key.contains("/ippools/")).count(), 1);
}

#[tokio::test]
async fn what_cannot_work_is_refused_before_anything_is_written() {
    host();
    let pools = [("mine", r#"{"cidr":"10.65.0.0/16"}"#)];
    let mut desk = Desk::new(&[], &pools).await;
    let other = json!({"metadata": {}, "spec": {"bgp": {"ipv4Address": "127.0.0.1/8"}}});
    desk.world.put(&format!("{RESOURCES}/nodes/other"), &other.to_string()).await;
    let before = desk.world.dump().await;
    for (arguments, words) in [
        ("--ip 127.0.0.1", &["127.0.0.1", "the node other"][..]),
        ("--ip 192.0.2.9", &["192.0.2.9 belongs to no interface", ADDRESS]),
        ("--ip ::1", &["::1 is not an IPv4 address"]),
        ("--pool 10.77.0.0/16 --mode vxlan", &["10.77.0.0/16 overlaps addresses or routes", "10.77.1.0/24"]),
        ("--pool 10.65.4.0/24 --mode vxlan", &["10.65.4.0/24 overlaps the pool mine (10.65.0.0/16)"]),
        ("--pool 10.65.0.0/16 --mode vxlan", &["mine (10.65.0.0/16)", "bgp instead of vxlan", "pool add"]),
        ("--pool 10.66.0.1/16 --mode bgp", &["10.66.0.1/16", "bits set"]),
        ("--pool fd00:65::/64 --mode ipip", &["IPIP"]),
    ] {
        let ip = if arguments.contains("--ip") { String::new() } else { format!("--ip {ADDRESS}") };
        let refused = desk.refused(&format!("node init {ip} {arguments}"));
        assert!(words.iter().all(|word| refused.contains(word)), "{arguments}: {refused}");
    }
    for senseless in
        ["node init --pool 10.66.0.0/16", "node init --mode vxlan", "node init --pool x --mode bgp"]
    {
        assert_eq!(desk.run(senseless).code, 64, "{senseless}");
    }
    fs::write(desk.dir().join("nodename"), "another").unwrap();
    let refused = desk.refused(&format!("node init --ip {ADDRESS}"));
    assert!(refused.contains("names this node another") && refused.contains(NODE), "{refused}");
    assert_eq!(desk.world.dump().await, before);
}

/// Where the kernel has IPIP, the pool is made instead.
#[tokio::test]
async fn ipip_without_the_kernels_support_is_refused_and_vxlan_named() {
    host();
    let mut desk = Desk::new(&[], &[]).await;
    let said = desk.run(&format!("node init --ip {ADDRESS} --pool 10.65.0.0/16 --mode ipip"));
    let pools = desk.world.dump().await.keys().filter(|key| key.contains("/ippools/")).count();
    match calico_mesos::host::kernel::has_ipip() {
        true => assert_eq!((said.code, pools), (0, 1), "{said:?}"),
        false => {
            assert_eq!((said.code, pools), (1, 0), "{said:?}");
            assert!(said.stderr.contains("no IPIP") && said.stderr.contains("--mode vxlan"), "{said:?}");
        }
    }
}

#[tokio::test]
async fn a_locked_datastore_is_left_alone() {
    host();
    let mut desk = Desk::new(&[], &[]).await;
    let key = format!("{RESOURCES}/clusterinformations/default");
    desk.world.put(&key, r#"{"metadata":{},"spec":{"datastoreReady":false}}"#).await;
    let before = desk.world.dump().await;
    let refused = desk.refused(&format!("node init --ip {ADDRESS}"));
    assert!(refused.contains("unlock"), "{refused}");
    assert_eq!(desk.world.dump().await, before);
}

#[tokio::test]
async fn a_dead_node_goes_with_all_that_is_its_own() {
    let pools = [("a", r#"{"cidr":"10.65.0.0/16","blockSize":28,"vxlanMode":"Always"}"#)];
    let mut desk = Desk::new(&[NODE, "agent-2"], &pools).await;
    let dead = "dead-1";
    desk.world.put(&format!("{RESOURCES}/nodes/{dead}"), r#"{"metadata":{"name":"dead-1"},"spec":{}}"#).await;
    let mut datastore = desk.world.connect(dead).await;
    let wanted = calico_mesos::calico::StartUp {
        node: dead.into(),
        address: "10.0.0.9/24".parse().ok(),
        address6: None,
        pool: None,
    };
    datastore.start_up(&wanted, false).await.unwrap();
    desk.world.launch(&task(dead), &auto()).await.unwrap();
    for (kind, name) in [("bgppeers", "its"), ("hostendpoints", "its"), ("bgppeers", "other")] {
        let node = if name == "its" { dead } else { NODE };
        let value = json!({"metadata": {"name": name}, "spec": {"node": node, "peerIP": "10.0.0.1"}});
        desk.world.put(&format!("{RESOURCES}/{kind}/{name}"), &value.to_string()).await;
    }
    let before = desk.world.dump().await;

    let refused = desk.refused("node remove dead-2");
    assert!(refused.contains("'dead-2'") && refused.contains("'dead-1'"), "{refused}");
    assert!(desk.refused(&format!("node remove {NODE}")).contains("is this host"));
    // Its endpoint was made a moment ago: a sign of life.
    assert!(desk.refused("node remove dead-1").contains("shows signs of life"));
    let said = desk.run("node remove dead-1 --dry-run");
    assert!(said.code == 3 && said.stdout.contains("to remove: Node dead-1"), "{said:?}");
    assert_eq!(desk.world.dump().await, before);
    let said = desk.done("node remove dead-1 --yes");
    assert!(said.contains("Node dead-1 is removed"), "{said}");
    let left: Vec<String> = desk.world.dump().await.into_keys().filter(|key| key.contains(dead)).collect();
    assert_eq!(left, Vec::<String>::new());
    let dump = desk.world.dump().await;
    assert!(!dump.keys().any(|key| key.contains("/block/") || key.contains("/handle/")), "{dump:#?}");
    assert!(dump.keys().any(|key| key.ends_with("/bgppeers/other")), "{dump:#?}");
    assert!(!dump.keys().any(|key| key.ends_with("/its")), "{dump:#?}");
    let objects: Vec<String> = desk.trail().iter().map(|line| line["object"].to_string()).collect();
    assert!(objects.contains(&"\"Node dead-1\"".to_owned()), "{objects:?}");
}

/// What other tools have there is theirs.
#[tokio::test]
async fn a_node_with_endpoints_of_others_stays() {
    let pools = [("a", r#"{"cidr":"10.65.0.0/16","blockSize":28}"#)];
    let mut desk = Desk::new(&[NODE, "dead"], &pools).await;
    let foreign = json!({
        "metadata": {"name": "dead-k8s-pod-eth0", "namespace": "default", "uid": "u"},
        "spec": {"node": "dead", "orchestrator": "k8s", "workload": "pod", "endpoint": "eth0"}
    });
    let key = format!("{RESOURCES}/workloadendpoints/default/dead-k8s-pod-eth0");
    desk.world.put(&key, &foreign.to_string()).await;
    desk.world.launch(&task("dead"), &auto()).await.unwrap();
    let before = desk.world.dump().await;
    assert!(desk.refused("node remove dead").contains("shows signs of life"));
    for line in ["node remove dead --yes", "node remove dead --yes --dry-run"] {
        let refused = desk.refused(line);
        assert!(
            refused.contains("1 endpoint") && refused.contains("calicoctl delete node dead"),
            "{refused}"
        );
    }
    assert_eq!(desk.world.dump().await, before);
}
