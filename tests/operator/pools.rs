//! `pool …`: what it shows, and what it writes.

use serde_json::{json, Value};

use crate::datastore::{auto, explicit, task, Dump, World, RESOURCES};
use crate::desk::{Desk, NODE};
use crate::netlab;

const WEB: (&str, &str) =
    ("web", r#"{"cidr":"10.65.0.0/26","blockSize":29,"ipipMode":"Always","natOutgoing":true}"#);
const SIX: (&str, &str) = ("six", r#"{"cidr":"fd00:65::/112","vxlanMode":"CrossSubnet"}"#);

fn spec(dump: &Dump, name: &str) -> Value {
    let record: Value = serde_json::from_str(&dump[&format!("{RESOURCES}/ippools/{name}")]).unwrap();
    record["spec"].clone()
}

#[tokio::test]
async fn two_tables_in_calicoctls_form() {
    let mut desk = Desk::new(&[NODE], &[WEB, SIX]).await;
    desk.world.launch(&task(NODE), &auto()).await.unwrap();
    let table = desk.done("pool show");
    let expected = "\
+--------------+-------------------+
|   IPv4 CIDR  |      Options      |
+--------------+-------------------+
| 10.65.0.0/26 | ipip,nat-outgoing |
+--------------+-------------------+
+---------------+--------------------+
|   IPv6 CIDR   |       Options      |
+---------------+--------------------+
| fd00:65::/112 | vxlan=cross-subnet |
+---------------+--------------------+
";
    assert_eq!(table, expected);
    assert!(!desk.done("pool show --ipv4").contains("IPv6"));
    assert!(!desk.done("pool show --ipv6").contains("IPv4"));
    let wide = desk.done("pool show --ipv4 -o wide");
    let row = wide.lines().nth(3).unwrap();
    let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
    assert_eq!(cells, ["10.65.0.0/26", "ipip,nat-outgoing", "web", "29", "yes", "all()", "1", "1"]);
    assert_eq!(desk.done("pool show -o name"), "six\nweb\n");
    let json = desk.json("pool show");
    assert_eq!((&json[1]["inUse"], &json[1]["apps"]), (&json!(1), &json!(["/prod/web"])));
    assert_eq!(json.as_array().unwrap().len(), 2);

    // Tables of a cluster without pools have their headers.
    desk.world.clear().await;
    assert!(desk.done("pool show").contains("IPv6 CIDR"));
    assert_eq!(desk.json("pool show"), json!([]));
}

#[tokio::test]
async fn a_pool_is_made_as_calicos_tools_make_it_and_changed_where_a_flag_says_so() {
    let mut desk = Desk::new(&[NODE], &[]).await;
    assert_eq!(desk.run("pool add 10.65.0.0/16 --dry-run").code, 3);
    assert!(desk.trail().is_empty());
    desk.done("pool add 10.65.0.0/16 --ipip --nat-outgoing --block-size 28");
    let name = "10-65-0-0-16";
    let record: Value =
        serde_json::from_str(&desk.world.dump().await[&format!("{RESOURCES}/ippools/{name}")]).unwrap();
    assert_eq!((&record["kind"], &record["apiVersion"]), (&json!("IPPool"), &json!("projectcalico.org/v3")));
    assert!(record["metadata"]["uid"].is_string() && record["metadata"]["creationTimestamp"].is_string());
    assert_eq!(
        record["spec"],
        json!({
            "cidr": "10.65.0.0/16", "vxlanMode": "Never", "ipipMode": "Always", "natOutgoing": true, "blockSize": 28,
            "nodeSelector": "all()", "allowedUses": ["Workload", "Tunnel"],
        })
    );
    assert!(desk.done("pool add 10.65.0.0/16").contains("is like that already"));
    let mut odd = record.clone();
    odd["spec"]["ours"] = json!({"a": 1});
    desk.world.put(&format!("{RESOURCES}/ippools/{name}"), &odd.to_string()).await;
    assert!(desk.done("pool add 10.65.0.0/16 --ipip=cross-subnet").contains("is changed"));
    let mut expected = odd["spec"].clone();
    expected["ipipMode"] = json!("CrossSubnet");
    assert_eq!(spec(&desk.world.dump().await, name), expected);
    desk.done("pool add 10.65.0.0/16 --ipip=never --vxlan --nat-outgoing=false --node-selector has(rack)");
    desk.done("pool add fd00:65::/64 --name six --vxlan");
    let dump = desk.world.dump().await;
    assert_eq!(spec(&dump, name)["vxlanMode"], "Always");
    assert_eq!(
        (&spec(&dump, "six")["blockSize"], &spec(&dump, "six")["cidr"]),
        (&json!(122), &json!("fd00:65::/64"))
    );

    let trail = desk.trail();
    assert_eq!(trail.len(), 4, "{trail:#?}");
    assert_eq!((&trail[0]["object"], &trail[0]["before"]), (&json!("IPPool 10-65-0-0-16"), &Value::Null));
    assert_eq!(trail[1]["before"]["spec"]["ipipMode"], "Always");
    assert_eq!(trail[1]["after"]["spec"]["ipipMode"], "CrossSubnet");
}

#[tokio::test]
async fn what_calico_would_refuse_is_refused_before_anything_is_written() {
    let mut desk = Desk::new(&[NODE], &[WEB, SIX]).await;
    desk.world.launch(&task(NODE), &explicit("10.65.0.9")).await.unwrap();
    desk.world.put("/calico/ipam/v2/assignment/ipv4/block/10.99.0.0-29", "{}").await;
    let before = desk.world.dump().await;
    for (line, words) in [
        ("pool add 10.65.0.32/27 --block-size 28", "overlaps the pool web (10.65.0.0/26)"),
        ("pool add 10.0.0.0/8", "overlaps the pool web"),
        ("pool add 10.66.0.1/16", "its network is 10.66.0.0/16"),
        ("pool add 10.66.0.0/28", "smaller than a block of /26"),
        ("pool add 10.66.0.0", "'10.66.0.0' is not a network"),
        ("pool add here", "'here' is not a network"),
        ("pool add 169.254.0.0/17", "link-local"),
        ("pool add fd66::/64 --ipip", "no IPIP"),
        ("pool add 10.66.0.0/16 --ipip --vxlan", "both IPIP and VXLAN"),
        ("pool add 10.65.0.0/26 --vxlan", "both IPIP and VXLAN"),
        ("pool add 10.65.0.0/26 --block-size 28", "cannot change the block size"),
        ("pool add 10.66.0.0/16 --block-size 19", "20 to 32"),
        ("pool add 10.66.0.0/16 --node-selector rack==", "--node-selector"),
        ("pool add 10.66.0.0/16 --name Web", "not a valid name"),
        ("pool add 10.66.0.0/16 --name web", "belongs to the pool web (10.65.0.0/26)"),
        ("pool add 10.65.0.0/26 --name other", "cannot rename"),
        ("pool add 10.99.0.0/16", "--block-size 29"),
        ("pool remove 10.65.0.0/26", "10.65.0.9"),
        ("pool remove wep", "did you mean web (10.65.0.0/26)?"),
        ("pool disable 10.1.0.0/16", "there is no IP pool '10.1.0.0/16'"),
        ("pool enable nothing-like-it", "six (fd00:65::/112), web (10.65.0.0/26)"),
    ] {
        let refused = desk.refused(line);
        assert!(refused.contains(words), "{line}: {refused}");
    }
    for line in
        ["pool add", "pool add 10.66.0.0/16 --ipip=sometimes", "pool show --ipv4 --ipv6", "pool remove"]
    {
        assert_eq!(desk.run(line).code, 64, "{line}");
    }
    assert_eq!(desk.world.dump().await, before);
    assert!(desk.trail().is_empty());
}

#[tokio::test]
async fn a_disabled_pool_gives_out_nothing_and_counts_what_is_left() {
    let mut desk = Desk::new(&[NODE], &[WEB]).await;
    let task_ = task(NODE);
    desk.world.launch(&task_, &auto()).await.unwrap();
    let said = desk.run("pool disable web --dry-run");
    assert_eq!(
        (said.code, said.stdout.contains("would be disabled; 1 address of it")),
        (3, true),
        "{said:?}"
    );
    assert!(desk.done("pool disable 10.65.0.0/26").contains("is disabled; 1 address of it is still in use"));
    assert!(desk.done("pool disable web").contains("is disabled already"));
    assert!(desk.done("pool show").contains("ipip,nat-outgoing,disabled"));
    desk.world.launch(&task(NODE), &auto()).await.unwrap_err();
    desk.world.connect(NODE).await.release(&task_).await.unwrap();
    assert!(desk.done("pool disable web").ends_with("no address of it is in use\n"));
    assert!(desk.done("pool enable web").contains("is enabled"));
    assert!(!spec(&desk.world.dump().await, "web").as_object().unwrap().contains_key("disabled"));
    desk.world.launch(&task(NODE), &auto()).await.unwrap();
}

#[tokio::test]
async fn a_removed_pool_leaves_nothing_but_the_tunnel_addresses_of_others() {
    let mut desk = Desk::new(&[NODE, "agent-2"], &[WEB, SIX]).await;
    let tasks = [task(NODE), task("agent-2")];
    for task in &tasks {
        desk.world.launch(task, &auto()).await.unwrap();
    }
    let refused = desk.refused("pool remove web");
    assert!(refused.contains("has 2 addresses in use") && refused.contains(&tasks[1].task_id), "{refused}");
    assert!(!spec(&desk.world.dump().await, "web").as_object().unwrap().contains_key("disabled"));
    for task in &tasks {
        desk.world.connect(&task.node).await.release(task).await.unwrap();
    }
    // An address of Calico's own in one of the blocks.
    let dump = desk.world.dump().await;
    let (key, text) =
        dump.iter().find(|(key, _)| key.contains("/ipv4/block/") && key.contains("/assignment/")).unwrap();
    let mut block: Value = serde_json::from_str(text).unwrap();
    block["allocations"][0] = json!(0);
    block["unallocated"] = json!([1, 2, 3, 4, 5, 6, 7]);
    block["attributes"] = json!([{"handle_id": "ipip-tunnel-addr-agent-2", "secondary": {"node": "agent-2", "type": "ipipTunnelAddress"}}]);
    let key = key.clone();
    desk.world.put(&key, &block.to_string()).await;

    let said = desk.run("pool remove web --dry-run");
    assert_eq!((said.code, said.stdout.contains("would be removed with 2 blocks")), (3, true), "{said:?}");
    let kept = desk.world.dump().await;
    assert!(kept.contains_key(&format!("{RESOURCES}/ippools/web")));
    let said = desk.run("pool remove 10.65.0.0/26");
    assert!(said.code == 0 && said.stdout.contains("is removed with 2 blocks"), "{said:?}");
    assert_eq!(said.stderr.lines().count(), 1, "{said:?}");
    assert!(said.stderr.contains("a node's tunnel address (ipipTunnelAddress on agent-2)"), "{said:?}");
    let dump = desk.world.ipam().await;
    let left: Vec<&String> = dump.keys().filter(|key| key.contains("/block/")).collect();
    assert_eq!(left, [&key]);
    let block: Value = serde_json::from_str(&dump[&key]).unwrap();
    assert_eq!((&block["affinity"], &block["allocations"][0]), (&Value::Null, &json!(0)));
    let dump = desk.world.dump().await;
    assert!(!dump.contains_key(&format!("{RESOURCES}/ippools/web")));
    assert!(dump.contains_key(&format!("{RESOURCES}/ippools/six")));
    let trail = desk.trail();
    assert_eq!((trail.len(), &trail[0]["after"]), (1, &Value::Null), "{trail:#?}");
    assert_eq!(trail[0]["before"]["spec"]["cidr"], "10.65.0.0/26");
}

#[tokio::test]
async fn a_damaged_pool_is_named_and_hides_no_other() {
    let mut desk = Desk::new(&[NODE], &[WEB, ("bent", r#"{"cidr":"here"}"#)]).await;
    desk.world.put(&format!("{RESOURCES}/ippools/torn"), "{").await;
    for line in ["pool show", "pool show -o wide", "pool show -o json", "ipam show"] {
        let said = desk.run(line);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.stdout.contains("10.65.0.0/26"), "{said:?}");
        for name in ["bent", "torn"] {
            assert!(said.stderr.contains(&format!("/ippools/{name} is damaged")), "{said:?}");
        }
    }
    let said = desk.run("pool remove bent");
    assert_eq!((said.code, said.stderr.contains("/ippools/bent")), (1, true), "{said:?}");
    let said = desk.run("pool add 10.77.0.0/16 --name torn");
    assert_eq!((said.code, said.stderr.contains("/ippools/torn")), (1, true), "{said:?}");
}

#[tokio::test]
async fn a_locked_datastore_is_shown_and_not_written() {
    let mut desk = Desk::of(World::new(&[NODE], &[WEB]).await);
    desk.done("pool disable web");
    let locked = r#"{"metadata":{"name":"default"},"spec":{"datastoreReady":false}}"#;
    desk.world.put(&format!("{RESOURCES}/clusterinformations/default"), locked).await;
    let before = desk.world.dump().await;
    for line in ["pool add 10.77.0.0/16", "pool enable web", "pool remove web"] {
        assert!(desk.refused(line).contains("locked"), "{line}");
    }
    assert!(desk.done("pool show").contains("10.65.0.0/26"));
    assert_eq!(desk.world.dump().await, before);
}

/// The routes of tasks, tunnels and blocks are Calico's own, and none that a pool has to keep clear of.
#[tokio::test]
async fn a_pool_does_not_overlap_this_host() {
    netlab::require_private_network();
    let ip = |words: &str| netlab::run("ip", &words.split_whitespace().collect::<Vec<_>>());
    let mut desk = Desk::new(&[NODE], &[]).await;
    ip("link add uplink type veth peer name uplink-peer");
    ip("address add 10.201.1.1/24 dev uplink");
    ip("link set uplink-peer up");
    ip("link set uplink up");
    ip("route add 10.202.0.0/26 via 10.201.1.2");
    ip("link add cali0123 type veth peer name cali0123-peer");
    ip("link set cali0123-peer up");
    ip("link set cali0123 up");
    ip("address add 10.203.0.9/32 dev cali0123");
    ip("route add 10.203.0.1/32 dev cali0123");
    ip("route add blackhole 10.203.0.64/26");
    let before = desk.world.dump().await;
    for (line, what) in [
        ("pool add 10.201.0.0/16", "10.201.1.0/24"),
        ("pool add 10.201.0.0/16 --dry-run", "10.201.1.1/32"),
        ("pool add 10.202.0.0/16 --name x", "10.202.0.0/26"),
        ("pool add 10.203.0.0/16", "of this host: 10.203.0.64/26;"),
    ] {
        let refused = desk.refused(line);
        assert!(refused.contains("overlaps addresses or routes of this host"), "{line}: {refused}");
        assert!(refused.contains(what), "{line}: {refused}");
    }
    assert_eq!(desk.world.dump().await, before);
    // The block of an earlier pool, and the way to one of another node.
    for block in ["10.203.0.64-26", "10.202.0.0-26"] {
        desk.world.put(&format!("/calico/ipam/v2/assignment/ipv4/block/{block}"), "{}").await;
    }
    for line in ["pool add 10.203.0.0/16", "pool add 10.202.0.0/16"] {
        assert!(desk.done(line).contains("is made"), "{line}");
    }
    ip("link del uplink");
    ip("link del cali0123");
    ip("route del blackhole 10.203.0.64/26");
}
