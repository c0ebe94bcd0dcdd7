//! What an operator does with `calicoctl` to tasks that run.

use calico_mesos::mesos::messages::TaskState;
use serde_json::{json, Value};

use crate::lab::{interface, Lab, NODE};
use crate::world::{app, calico, with};

/// Nobody answers for Felix here.
const NO_WAIT: [(&str, &str); 1] = [("policy.wait", "\"off\"")];

async fn endpoint_name(lab: &Lab) -> String {
    let [endpoint] = lab.world.endpoints().await.try_into().unwrap();
    endpoint["metadata"]["name"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn calicoctl_shows_what_runs() {
    let lab = Lab::new(&NO_WAIT).await;
    lab.peers.check_ipam().await;
    let task = lab.world.running(&app("/prod/web", "sleep 1000", with(calico(), "SERVICE_PORT", "80"))).await;
    let [address] = task.addresses().try_into().unwrap();

    let wide = lab.peers.calicoctl("get wep -o wide").await;
    let row = wide.lines().find(|line| line.contains(&task.launched.container_id)).expect(&wide);
    for part in [NODE, &format!("{address}/32"), &interface(&task), "dev"] {
        assert!(row.contains(part), "{part} is missing in {row}");
    }
    let yaml = lab.peers.calicoctl("get wep -o yaml").await;
    for part in ["orchestrator: mesos", "endpoint: eth0", &task.id, "projectcalico.org/orchestrator: mesos"] {
        assert!(yaml.contains(part), "{part} is missing in\n{yaml}");
    }
    assert!(lab.peers.calicoctl("get profile").await.lines().any(|line| line.trim() == "dev"));
    let held = lab.peers.calicoctl(&format!("ipam show --ip={address}")).await;
    assert!(held.contains(&task.id) && held.contains(NODE), "{held}");
    let blocks = lab.peers.calicoctl("ipam show --show-blocks").await;
    assert!(blocks.contains("Block") && blocks.contains("IP Pool"), "{blocks}");
    eprintln!("{wide}\n{held}\n{blocks}");
    lab.peers.check_ipam().await;

    task.kill().await;
    lab.nothing_left(&[&task]).await;
    lab.peers.check_ipam().await;
    let free = lab.peers.calicoctl(&format!("ipam show --ip={address}")).await;
    assert!(free.contains("not assigned"), "{free}");
}

/// A label, an applied edit: the endpoint stays ours, and goes with the task.
#[tokio::test]
async fn an_edited_endpoint_goes_with_its_task() {
    let lab = Lab::new(&NO_WAIT).await;
    let task = lab.world.running(&app("/prod/web", "sleep 1000", calico())).await;
    let name = endpoint_name(&lab).await;
    let before = lab.peers.get(&format!("wep {name}")).await;
    lab.peers.calicoctl(&format!("label wep {name} seen=yes")).await;
    let mut edited = lab.peers.get(&format!("wep {name}")).await;
    edited["metadata"]["labels"]["edited"] = json!("yes");
    edited["spec"]["profiles"] = json!(["other"]);
    lab.peers.apply(&edited).await;
    let after = lab.peers.get(&format!("wep {name}")).await;
    for field in ["uid", "creationTimestamp", "annotations"] {
        assert_eq!(after["metadata"][field], before["metadata"][field], "{field}");
    }
    assert_ne!(before["metadata"]["uid"], Value::Null);
    let labels = &after["metadata"]["labels"];
    assert_eq!((&labels["seen"], &labels["edited"]), (&json!("yes"), &json!("yes")));

    assert_eq!(task.kill().await.state(), TaskState::TaskKilled);
    lab.nothing_left(&[&task]).await;
    lab.peers.check_ipam().await;
}

#[tokio::test]
async fn what_an_operator_took_away_is_not_missed() {
    let lab = Lab::new(&NO_WAIT).await;
    for what in ["delete wep", "ipam release"] {
        let task = lab.world.running(&app("/prod/web", "sleep 1000", calico())).await;
        let [address] = task.addresses().try_into().unwrap();
        match what {
            "delete wep" => lab.peers.calicoctl(&format!("delete wep {}", endpoint_name(&lab).await)).await,
            _ => lab.peers.calicoctl(&format!("ipam release --ip={address}")).await,
        };
        assert_eq!(task.kill().await.state(), TaskState::TaskKilled, "{what}\n{}", task.log());
        lab.nothing_left(&[&task]).await;
        lab.peers.check_ipam().await;
    }
}

/// `datastore migrate lock`: nobody changes the datastore until it is unlocked.
#[tokio::test]
async fn a_locked_datastore_is_left_alone() {
    let lab = Lab::new(&NO_WAIT).await;
    let ends = lab.world.running(&app("/ends", "sleep 1000", calico())).await;
    lab.peers.calicoctl("datastore migrate lock").await;
    let keys = lab.world.task_keys().await;

    let refused = lab.world.launch(&app("/refused", "sleep 1000", calico())).await;
    let message = refused.fails().await;
    assert!(message.contains("CM-NOT-READY"), "{message}");
    eprintln!("{message}");
    refused.executor_exit().await;
    // The workload ends in time; address and endpoint wait in the journal.
    assert_eq!(ends.kill().await.state(), TaskState::TaskKilled);
    let gc = lab.world.gc();
    assert!(!gc.status.success(), "{gc:?}");
    assert!(String::from_utf8_lossy(&gc.stdout).contains("migrate unlock"), "{gc:?}");
    assert_eq!(lab.world.task_keys().await, keys, "somebody wrote into a locked datastore");
    let left = lab.world.leftovers().await;
    assert!(left.iter().any(|line| line.contains(&ends.launched.container_id)), "{left:#?}");
    assert!(!left.iter().any(|line| line.contains(&refused.launched.container_id)), "{left:#?}");

    lab.peers.calicoctl("datastore migrate unlock").await;
    assert!(lab.world.gc().status.success());
    lab.nothing_left(&[&ends]).await;
    lab.peers.check_ipam().await;
}

/// A node that is deleted by mistake: what runs ends well, nothing new starts until it is back.
#[tokio::test]
async fn a_deleted_node_refuses_launches_and_lets_tasks_end() {
    let lab = Lab::new(&NO_WAIT).await;
    let task = lab.world.running(&app("/old", "sleep 1000", calico())).await;
    let mut node = lab.peers.get(&format!("node {NODE}")).await;
    lab.peers.calicoctl(&format!("delete node {NODE}")).await;
    let refused = lab.world.launch(&app("/new", "sleep 1000", calico())).await;
    let message = refused.fails().await;
    assert!(message.contains(NODE), "{message}");
    eprintln!("{message}");
    refused.executor_exit().await;
    task.kill().await;
    lab.nothing_left(&[&task]).await;
    lab.peers.check_ipam().await;

    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        node["metadata"].as_object_mut().unwrap().remove(field);
    }
    lab.peers.apply(&node).await;
    let again = lab.world.running(&app("/again", "sleep 1000", calico())).await;
    again.kill().await;
    lab.nothing_left(&[&again]).await;
    lab.peers.check_ipam().await;
}

/// Reserved addresses are given to nobody who did not name them.
#[tokio::test]
async fn reserved_addresses_are_not_assigned() {
    let lab = Lab::new(&NO_WAIT).await;
    let first = lab.world.running(&app("/first", "sleep 1000", calico())).await;
    let [address] = first.addresses().try_into().unwrap();
    let block: std::net::Ipv4Addr = address.parse().unwrap();
    let reserved = format!("{}/28", std::net::Ipv4Addr::from(u32::from(block) & !15));
    lab.peers
        .apply(&json!({
            "apiVersion": "projectcalico.org/v3", "kind": "IPReservation", "metadata": {"name": "ours"},
            "spec": {"reservedCIDRs": [reserved]},
        }))
        .await;
    let second = lab.world.running(&app("/second", "sleep 1000", calico())).await;
    let reserved: ipnet::Ipv4Net = reserved.parse().unwrap();
    let [address] = second.addresses().try_into().unwrap();
    assert!(!reserved.contains(&address.parse::<std::net::Ipv4Addr>().unwrap()), "{address} is reserved");
    first.kill().await;
    second.kill().await;
    lab.nothing_left(&[&first, &second]).await;
    lab.peers.check_ipam().await;
}

/// A pool that is disabled while its tasks run takes no new ones, and gets its addresses back.
#[tokio::test]
async fn a_disabled_pool_takes_no_new_task_and_gets_its_addresses_back() {
    let lab = Lab::new(&NO_WAIT).await;
    let task = lab.world.running(&app("/old", "sleep 1000", calico())).await;
    let mut pool = lab.peers.get("ippool tasks").await;
    pool["spec"]["disabled"] = json!(true);
    lab.peers.apply(&pool).await;
    let refused = lab.world.launch(&app("/new", "sleep 1000", calico())).await;
    let message = refused.fails().await;
    eprintln!("{message}");
    refused.executor_exit().await;
    task.kill().await;
    lab.nothing_left(&[&task]).await;
    lab.peers.check_ipam().await;
}
