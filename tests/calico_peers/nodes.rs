//! What `node init` and the verbs for BGP write, and what Calico's own programs make of it.

use std::process::Command;

use serde_json::{json, Value};

use crate::felix::Felix;
use crate::kit::wait::eventually;
use crate::lab::{shell, Lab, HOST, NODE};

const POOL: &str = "10.166.0.0/16";

/// The program with a configuration of its own beside the lab's; what it printed.
fn program(lab: &Lab, line: &str) -> String {
    let folder = lab.calico();
    let config = folder.join("operator.toml");
    let text = format!(
        "[etcd]\nendpoints = [\"{}\"]\n[node]\nname = \"{NODE}\"\n[consul]\nenabled = false\n[paths]\nrun = \"{1}/run\"\n\
         state = \"{1}/state\"\nlog = \"{1}/log\"\nnodename_file = \"{1}/nodename\"\nipam_lock = \"{1}/ipam.lock\"\n",
        lab.world.stack.etcd_endpoint,
        folder.display(),
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_calico-mesos"));
    command.arg("--config").arg(config).args(line.split_whitespace());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The lab without what it applied itself: no node, no pool.
async fn bare() -> Lab {
    let lab = Lab::new(&[("policy.wait", "\"off\"")]).await;
    lab.peers.calicoctl(&format!("delete node {NODE}")).await;
    lab.peers.calicoctl("delete ippool tasks").await;
    lab
}

#[tokio::test]
async fn felix_sets_up_vxlan_after_node_init() {
    let lab = bare().await;
    let said = program(&lab, &format!("node init --pool {POOL} --mode vxlan"));
    assert!(said.contains(&format!("Node {NODE} is made")), "{said}");
    lab.peers.check_ipam().await;
    let node = lab.peers.get(&format!("node {NODE}")).await;
    assert_eq!(node["spec"]["bgp"]["ipv4Address"], format!("{HOST}/24"));
    let address = node["spec"]["ipv4VXLANTunnelAddr"].as_str().unwrap().to_owned();
    let shown = lab.peers.calicoctl(&format!("ipam show --ip={address}")).await;
    assert!(shown.contains("vxlanTunnelAddress") && shown.contains(NODE), "{shown}");
    for kind in ["nodes", "tiers", "felixconfigurations", "ippools"] {
        let yaml = lab.peers.calicoctl(&format!("get {kind} -o yaml")).await;
        eprintln!("{yaml}");
    }

    let felix = Felix::start(&lab.peers, NODE, &lab.calico(), &[]).await;
    eventually("Felix has made vxlan.calico with its address", async || {
        shell("ip -o -4 address show dev vxlan.calico").await.1.contains(&format!("{address}/32"))
    })
    .await;
    // Repeating it changes nothing, with Felix' routes on the host.
    let again = program(&lab, &format!("node init --pool {POOL} --mode vxlan"));
    assert!(again.lines().all(|line| line.ends_with("is there")), "{again}");
    assert_eq!(felix.failures(), Vec::<String>::new());
    drop(felix);
    shell("ip link delete vxlan.calico").await;
}

/// An export of what we wrote is applied again without a complaint.
#[tokio::test]
async fn calicoctl_takes_our_nodes_peers_and_settings_for_its_own() {
    let lab = bare().await;
    program(&lab, &format!("node init --pool {POOL} --mode bgp"));
    program(&lab, "bgppeer add 10.99.9.1 as 64513");
    program(&lab, "bgppeer add fd00:99::9 as 1.10");
    program(&lab, "node bgppeer add 10.99.9.2 as 64514");
    program(&lab, "bgp-node-mesh off");
    program(&lab, "default-node-as 65001");
    let items = |list: Value| list["items"].as_array().cloned().unwrap_or_default();
    for kind in ["nodes", "ippools", "bgppeers", "bgpconfigurations"] {
        let exported = lab.peers.get(kind).await;
        let ours = items(exported.clone());
        assert!(!ours.is_empty(), "{kind}: {exported}");
        lab.peers.apply(&exported).await;
    }
    lab.peers.apply(&lab.peers.get(&format!("felixconfiguration node.{NODE}")).await).await;

    // The same peers, told by both.
    let theirs: Vec<(Value, Value, Value)> = items(lab.peers.get("bgppeers").await)
        .iter()
        .map(|peer| {
            (peer["spec"]["node"].clone(), peer["spec"]["peerIP"].clone(), peer["spec"]["asNumber"].clone())
        })
        .collect();
    let ours = |line: &str| -> Vec<Value> {
        serde_json::from_str(&program(&lab, &format!("{line} show -o json"))).unwrap()
    };
    let mut all: Vec<(Value, Value, Value)> = [ours("bgppeer"), ours("node bgppeer")]
        .concat()
        .iter()
        .map(|peer| (peer["node"].clone(), peer["address"].clone(), peer["as_number"].clone()))
        .collect();
    for peer in theirs {
        let place = all.iter().position(|known| *known == peer);
        all.remove(place.unwrap_or_else(|| panic!("{peer:?} is missing in {all:?}")));
    }
    assert!(all.is_empty(), "{all:?}");
    let settings = lab.peers.get("bgpconfiguration default").await;
    assert_eq!(settings["spec"]["nodeToNodeMeshEnabled"], json!(false));
    assert_eq!(settings["spec"]["asNumber"], json!(65001));
    let wide = lab.peers.calicoctl("get nodes -o wide").await;
    assert!(wide.contains(NODE) && wide.contains(&format!("{HOST}/24")), "{wide}");
    assert!(program(&lab, "node show").contains(&format!("{HOST}/24")));
    lab.peers.check_ipam().await;
}

/// The front end is another program's door: `calicoctl get` through it is Calico's own.
#[tokio::test]
async fn the_front_end_leaves_verbs_to_the_real_calicoctl() {
    let lab = bare().await;
    program(&lab, "node init");
    let config = lab.calico().join("operator.toml");
    let link = lab.calico().join("calicoctl");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_calico-mesos"), &link).unwrap();
    let folder = lab.peers.path("calicoctl").parent().unwrap().to_owned();
    let mut command = Command::new(link);
    command.env_clear().env("PATH", folder).arg("--config").arg(config).arg("--allow-version-mismatch");
    let output = command.args(["get", "nodes", "-o", "json"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let nodes: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(nodes["items"][0]["metadata"]["name"], NODE);
}
