//! `ipam show`, `ipam release`, `ipam check`.

use serde_json::{json, Value};

use crate::datastore::{auto, explicit, six, task, IPAM, RESOURCES};
use crate::desk::{Desk, NODE};

const WEB: (&str, &str) = ("web", r#"{"cidr":"10.65.0.0/26","blockSize":29}"#);
const SIX: (&str, &str) = ("six", r#"{"cidr":"fd80:24e2:f998:72d6::/120","blockSize":125}"#);

/// The cells of a framed table, without its header.
fn cells(table: &str) -> Vec<Vec<String>> {
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(1);
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

#[tokio::test]
async fn show_has_calicoctls_tables() {
    let mut desk = Desk::new(&[NODE, "agent-2"], &[WEB, SIX]).await;
    desk.world.launch(&task(NODE), &explicit("10.65.0.0")).await.unwrap();
    desk.world.launch(&task(NODE), &auto()).await.unwrap();
    desk.world.launch(&task("agent-2"), &explicit("10.65.0.5")).await.unwrap();
    desk.world.launch(&task(NODE), &six()).await.unwrap();
    let table = desk.done("ipam show");
    assert!(table.contains("| GROUPING |") && table.contains(" IPS IN USE "), "{table}");
    let rows = cells(&table);
    assert_eq!(rows[0], ["IP Pool", "fd80:24e2:f998:72d6::/120", "256", "1 (0%)", "255 (100%)"]);
    assert_eq!(rows[1], ["IP Pool", "10.65.0.0/26", "64", "3 (5%)", "61 (95%)"]);
    let rows = cells(&desk.done("ipam show --show-blocks"));
    assert_eq!(rows[3], ["Block", "10.65.0.0/29", "8", "3 (38%)", "5 (62%)"]);
    let json = desk.json("ipam show --show-blocks");
    assert_eq!((&json[3]["grouping"], &json[3]["inUse"]), (&json!("Block"), &json!(3)));

    let table = desk.done("ipam show --show-borrowed");
    assert!(table.contains(" BORROWING-NODE ") && table.contains(" ALLOCATED-TO "), "{table}");
    assert_eq!(cells(&table), [["10.65.0.5", "agent-2", "10.65.0.0/29", NODE, "", ""]]);
    let rows = cells(&desk.done("ipam show --show-configuration"));
    assert_eq!(
        rows,
        [["StrictAffinity", "false"], ["AutoAllocateBlocks", "true"], ["MaxBlocksPerHost", "0"]]
    );
    desk.world.put(&format!("{IPAM}/config"), r#"{"strict_affinity":true,"maxBlocksPerHost":3}"#).await;
    let rows = cells(&desk.done("ipam show --show-configuration"));
    assert_eq!(
        rows,
        [["StrictAffinity", "true"], ["AutoAllocateBlocks", "false"], ["MaxBlocksPerHost", "3"]]
    );
    assert_eq!(desk.run("ipam show --show-blocks --show-borrowed").code, 64);
}

#[tokio::test]
async fn show_of_an_address_says_who_has_it() {
    let mut desk = Desk::new(&[NODE], &[WEB]).await;
    let holder = task(NODE);
    desk.world.launch(&holder, &explicit("10.65.0.9")).await.unwrap();
    let text = desk.done("ipam show --ip=10.65.0.9");
    let mut lines = text.lines();
    assert_eq!((lines.next(), lines.next()), (Some("IP 10.65.0.9 is in use"), Some("Attributes:")));
    assert!(text.contains(&format!("  mesos-task: {}\n  node: {NODE}\n", holder.task_id)), "{text}");
    assert!(desk.done("ipam show --ip=10.65.0.9 -o wide").contains(&format!("Handle ID: {}", holder.handle)));
    assert_eq!(desk.done("ipam show --ip 10.65.0.10"), "10.65.0.10 is not assigned\n");
    assert_eq!(desk.done("ipam show --ip 172.30.0.1"), "172.30.0.1 is not assigned\n");
    assert_eq!(desk.json("ipam show --ip 10.65.0.9")["handle"], json!(holder.handle));
    let free = json!({"address": "10.65.0.10", "inUse": false, "endpoints": []});
    assert_eq!(desk.json("ipam show --ip 10.65.0.10"), free);
    assert_eq!(desk.run("ipam show --ip here").code, 64);
    // No block has the address, and a task does.
    let other = r#"{"metadata":{"annotations":{"mesos.apache.org/task-id":"web.7"}},"spec":{"ipNetworks":["10.65.0.60/32"]}}"#;
    desk.world.put(&format!("{RESOURCES}/workloadendpoints/default/agent--1-mesos-w-eth0"), other).await;
    let said = desk.run("ipam show --ip 10.65.0.60");
    assert_eq!((said.code, said.stdout.as_str()), (0, "10.65.0.60 is not assigned\n"), "{said:?}");
    assert!(said.stderr.contains("task web.7") && said.stderr.contains("`ipam check`"), "{said:?}");
    let said = desk.run("ipam show --ip 10.65.0.60 -o json");
    assert!(said.stdout.contains("task web.7, endpoint agent--1-mesos-w-eth0"), "{said:?}");
}

#[tokio::test]
async fn show_warns_of_blocks_whose_structure_is_wrong() {
    let mut desk = Desk::new(&[NODE], &[WEB]).await;
    for (key, unallocated) in [("10.65.0.0-31", json!([0])), ("10.65.0.2-31", json!([0, 0, 1]))] {
        let block = json!({
            "cidr": key.replace('-', "/"), "allocations": [null, null], "unallocated": unallocated, "attributes": []
        });
        desk.world.put(&format!("{IPAM}/assignment/ipv4/block/{key}"), &block.to_string()).await;
    }
    for line in ["ipam show", "ipam show --show-blocks -o json", "ipam show --show-borrowed"] {
        let said = desk.run(line);
        let warning = "calico-mesos: warning: 2 blocks have structural errors; `ipam check` lists them\n";
        assert_eq!((said.code, said.stderr.as_str()), (0, warning), "{line}: {said:?}");
    }
}

#[tokio::test]
async fn an_address_that_nothing_uses_is_released_and_its_handle_follows() {
    let mut desk = Desk::new(&[NODE], &[WEB, SIX]).await;
    let (living, dead) = (task(NODE), task(NODE));
    let both = [
        calico_mesos::calico::AddressRequest::Explicit("10.65.0.9".parse().unwrap()),
        calico_mesos::calico::AddressRequest::Explicit("fd80:24e2:f998:72d6::9".parse().unwrap()),
    ];
    desk.world.launch(&living, &explicit("10.65.0.8")).await.unwrap();
    desk.world.launch(&dead, &crate::datastore::wants(&both)).await.unwrap();
    let refused = desk.refused("ipam release --ip 10.65.0.8");
    assert!(refused.contains(&living.task_id), "{refused}");
    assert!(desk.refused("ipam release --ip 10.65.0.10").contains("IP address 10.65.0.10 is not assigned"));
    let endpoints = desk.world.dump().await.into_keys().filter(|key| key.contains("/workloadendpoints/"));
    let its = endpoints.into_iter().find(|key| key.contains(&dead.container_id.replace('-', "--"))).unwrap();
    desk.world.delete(&its).await;

    let before = desk.world.dump().await;
    assert_eq!(desk.run("ipam release").code, 64);
    assert_eq!(desk.run("ipam release 10.65.0.9 --dry-run").code, 3);
    let said = desk.run("ipam release --ip 10.65.0.9 --dry-run");
    assert_eq!((said.code, said.stdout.contains(&dead.task_id)), (3, true), "{said:?}");
    assert_eq!((desk.world.dump().await, desk.trail().len()), (before, 0));
    assert_eq!(desk.done("ipam release --ip 10.65.0.9"), "Successfully released IP address 10.65.0.9\n");
    let dump = desk.world.dump().await;
    let block: Value =
        serde_json::from_str(&dump[&format!("{IPAM}/assignment/ipv4/block/10.65.0.8-29")]).unwrap();
    assert_eq!(block["allocations"], json!([0, null, null, null, null, null, null, null]));
    assert_eq!((&block["unallocated"][6], block["attributes"].as_array().unwrap().len()), (&json!(1), 1));
    assert_eq!(block["sequenceNumberForAllocation"].as_object().unwrap().len(), 1);
    let key = format!("{IPAM}/handle/{}", dead.handle);
    let handle: Value = serde_json::from_str(&dump[&key]).unwrap();
    assert_eq!(handle["block"], json!({"fd80:24e2:f998:72d6::8/125": 1}));
    desk.done("ipam release --ip fd80:24e2:f998:72d6::9");
    assert!(!desk.world.dump().await.contains_key(&key));
    desk.refused("ipam release --ip 10.65.0.9");
    let trail = desk.trail();
    assert_eq!((trail.len(), &trail[0]["object"]), (2, &json!("IP address 10.65.0.9")), "{trail:#?}");
    assert_eq!((&trail[0]["before"]["handle"], &trail[0]["after"]), (&json!(dead.handle), &Value::Null));
    assert!(desk.done("ipam check").ends_with("Check complete; found 0 problems.\n"));
}

#[tokio::test]
async fn the_tunnel_address_of_a_node_is_not_released() {
    let mut desk = Desk::new(&[NODE], &[WEB]).await;
    let block = json!({
        "cidr": "10.65.0.0/29", "affinity": format!("host:{NODE}"), "unallocated": [1, 2, 3, 4, 5, 6, 7],
        "allocations": [0, null, null, null, null, null, null, null],
        "attributes": [{"handle_id": format!("vxlan-tunnel-addr-{NODE}"), "secondary": {"node": NODE, "type": "vxlanTunnelAddress"}}],
    });
    desk.world.put(&format!("{IPAM}/assignment/ipv4/block/10.65.0.0-29"), &block.to_string()).await;
    let refused = desk.refused("ipam release --ip 10.65.0.0");
    assert!(refused.contains("vxlanTunnelAddress of node"), "{refused}");
    // A block of no node goes with its last address.
    let mut loose = block;
    loose["affinity"] = Value::Null;
    loose["attributes"][0]["secondary"]["node"] = json!("gone");
    desk.world.put(&format!("{IPAM}/assignment/ipv4/block/10.65.0.0-29"), &loose.to_string()).await;
    desk.done("ipam release --ip 10.65.0.0");
    assert!(!desk.world.dump().await.keys().any(|key| key.contains("/assignment/")));
}

#[tokio::test]
async fn the_check_finds_what_is_leaked_foreign_and_twice() {
    let mut desk = Desk::new(&[NODE], &[WEB]).await;
    let (leaked, twice) = (task(NODE), task(NODE));
    desk.world.launch(&leaked, &explicit("10.65.0.1")).await.unwrap();
    desk.world.launch(&twice, &explicit("10.65.0.2")).await.unwrap();
    assert!(desk.done("ipam check").contains("Found 2 workload IPs."));
    let dump = desk.world.dump().await;
    let of = |id: &str| {
        let found = dump
            .iter()
            .find(|(key, _)| key.contains("/workloadendpoints/") && key.contains(&id.replace('-', "--")));
        let (key, text) = found.unwrap();
        (key.clone(), serde_json::from_str::<Value>(text).unwrap())
    };
    let (key, _) = of(&leaked.container_id);
    desk.world.delete(&key).await;
    let (_, record) = of(&twice.container_id);
    for (name, networks) in [("a", json!(["10.65.0.2/32"])), ("b", json!(["172.30.0.1/32", "10.65.0.60/32"]))]
    {
        let mut other = record.clone();
        other["metadata"]["name"] = json!(name);
        other["spec"]["ipNetworks"] = networks;
        desk.world.put(&format!("{RESOURCES}/workloadendpoints/default/{name}"), &other.to_string()).await;
    }
    let said = desk.run("ipam check");
    assert_eq!((said.code, said.stderr.as_str()), (1, ""), "{said:?}");
    for words in [
        "  10.65.0.1 leaked; allocated to prod_web.",
        "Found 1 IPs that are allocated in IPAM but not actually in use.",
        "  172.30.0.1 in use by Workload(default/b) is not in any active IP pool",
        "Found 1 in-use IPs that are not in active IP pools.",
        "  10.65.0.60 in use by Workload(default/b) and in active IPAM pool but has no IPAM allocation",
        "Found 1 in-use IPs that are in active IP pools but have no corresponding IPAM allocation.",
        "  10.65.0.2 is used by Workload(default/a) and Workload(default/",
        "Found 1 IPs that are allocated or used twice.",
        "Check complete; found 4 problems.",
    ] {
        assert!(said.stdout.contains(words), "{words}: {}", said.stdout);
    }
    let said = desk.run("ipam check -o json");
    let report: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((said.code, report["problems"].as_array().unwrap().len()), (1, 4), "{report:#}");
    assert_eq!(report["problems"][0]["kind"], "leaked");
    assert_eq!(desk.run("ipam check -o name").stdout, "10.65.0.1\n172.30.0.1\n10.65.0.60\n10.65.0.2\n");
}
