//! `bgppeer`, `node bgppeer`, `bgp-node-mesh`, `default-node-as`.

use serde_json::{json, Value};

use crate::datastore::RESOURCES;
use crate::desk::{Desk, NODE};

#[tokio::test]
async fn peers_of_all_nodes_and_of_this_one_are_added_shown_and_removed() {
    let mut desk = Desk::new(&[NODE], &[]).await;
    assert_eq!(
        desk.done("bgppeer show"),
        "No Global IPv4 BGP Peers defined.\nNo Global IPv6 BGP Peers defined.\n"
    );
    assert_eq!(desk.run("bgppeer add 10.0.0.1 as 64512 --dry-run").code, 3);
    assert!(desk.trail().is_empty());
    desk.done("bgppeer add 10.0.0.1 as 64512");
    desk.done("bgppeer add fd00::1 as 1.10");
    desk.done("node bgppeer add 10.0.0.2 as 64513");
    let record = |dump: &crate::datastore::Dump, name: &str| -> Value {
        serde_json::from_str(&dump[&format!("{RESOURCES}/bgppeers/{name}")]).unwrap()
    };
    let dump = desk.world.dump().await;
    assert_eq!(record(&dump, "peer-10-0-0-1")["spec"], json!({"peerIP": "10.0.0.1", "asNumber": 64512}));
    let of_node = record(&dump, &format!("{NODE}.peer-10-0-0-2"));
    assert_eq!(of_node["spec"], json!({"node": NODE, "peerIP": "10.0.0.2", "asNumber": 64513}));
    let table = desk.done("bgppeer show --ipv4");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[1], "| Global IPv4 BGP Peer | AS Num |");
    assert_eq!(lines[3], "| 10.0.0.1             | 64512  |");
    assert!(lines.len() == 5 && lines[0].starts_with("+--") && lines[4] == lines[0], "{table}");
    assert!(desk.done("bgppeer show --ipv6").contains("| fd00::1              | 65546  |"));
    assert!(desk.done("node bgppeer show").contains("Node specific IPv4 BGP Peer"));
    assert_eq!(desk.json("bgppeer show").as_array().unwrap().len(), 2);
    assert_eq!(desk.done("node bgppeer show -o name"), format!("{NODE}.peer-10-0-0-2\n"));

    // Another AS number changes the record and leaves what else is in it.
    let mut edited = record(&dump, "peer-10-0-0-1");
    edited["spec"]["keepOriginalNextHop"] = json!(true);
    desk.world.put(&format!("{RESOURCES}/bgppeers/peer-10-0-0-1"), &edited.to_string()).await;
    assert!(desk.done("bgppeer add 10.0.0.1 as 64999").contains("is changed"));
    assert!(desk.done("bgppeer add 10.0.0.1 as 64999").contains("is there already"));
    let spec = record(&desk.world.dump().await, "peer-10-0-0-1")["spec"].clone();
    assert_eq!(spec, json!({"peerIP": "10.0.0.1", "asNumber": 64999, "keepOriginalNextHop": true}));

    let refused = desk.refused("bgppeer remove 10.0.0.2");
    assert!(refused.contains("10.0.0.2 of all nodes") && refused.contains("10.0.0.1"), "{refused}");
    assert_eq!(desk.run("bgppeer remove 10.0.0.1 --dry-run").code, 3);
    desk.done("bgppeer remove 10.0.0.1");
    desk.done("bgppeer remove fd00::1");
    desk.done("node bgppeer remove 10.0.0.2");
    assert!(!desk.world.dump().await.keys().any(|key| key.contains("/bgppeers/")));
    let trail = desk.trail();
    assert_eq!(trail.len(), 7, "{trail:#?}");
    assert_eq!(trail[0]["object"], "BGPPeer peer-10-0-0-1");
    assert_eq!((&trail[0]["before"], &trail[0]["sudo_user"]), (&Value::Null, &json!("operator")));
    assert_eq!(trail[3]["after"]["spec"]["asNumber"], 64999);
}

#[tokio::test]
async fn a_senseless_peer_is_refused_before_anything_is_written() {
    let mut desk = Desk::new(&[NODE], &[]).await;
    let before = desk.world.dump().await;
    for line in [
        "bgppeer add 10.0.0.1 as 0",
        "bgppeer add here as 1",
        "bgppeer add 10.0.0.1 64512",
        "bgp-node-mesh maybe",
    ] {
        assert_eq!(desk.run(line).code, 64, "{line}");
    }
    for line in ["bgppeer add 0.0.0.0 as 1", "bgppeer add 224.0.0.1 as 1", "bgppeer add ::1 as 1"] {
        assert!(desk.refused(line).contains("not the address of one machine"), "{line}");
    }
    assert_eq!(desk.world.dump().await, before);
}

#[tokio::test]
async fn a_damaged_peer_is_named_and_hides_no_other() {
    let mut desk = Desk::new(&[NODE], &[]).await;
    desk.done("bgppeer add 10.0.0.1 as 64512");
    for (name, value) in
        [("a", "{"), ("b", r#"{"spec":{"peerIP":"here"}}"#), ("c", r#"{"spec":{"peerIP":7}}"#)]
    {
        desk.world.put(&format!("{RESOURCES}/bgppeers/{name}"), value).await;
    }
    let said = desk.run("bgppeer show");
    assert!(said.code == 0 && said.stdout.contains("10.0.0.1"), "{said:?}");
    for name in ["a", "b", "c"] {
        assert!(said.stderr.contains(&format!("/bgppeers/{name} is damaged")), "{said:?}");
    }
    desk.done("bgppeer remove 10.0.0.1");
}

#[tokio::test]
async fn the_mesh_and_the_as_number_have_calicos_defaults() {
    let mut desk = Desk::new(&[NODE], &[]).await;
    assert_eq!((desk.done("bgp-node-mesh"), desk.done("default-node-as")), ("on\n".into(), "64512\n".into()));
    assert!(desk.done("bgp-node-mesh on").contains("already"));
    assert!(!desk.world.dump().await.keys().any(|key| key.contains("bgpconfigurations")));
    assert_eq!(desk.run("bgp-node-mesh off --dry-run").code, 3);
    desk.done("bgp-node-mesh off");
    desk.done("default-node-as 65000");
    assert_eq!(
        (desk.done("bgp-node-mesh"), desk.json("default-node-as")),
        ("off\n".into(), json!({"as_number": 65000}))
    );
    let key = format!("{RESOURCES}/bgpconfigurations/default");
    let record: Value = serde_json::from_str(&desk.world.dump().await[&key]).unwrap();
    assert_eq!(record["spec"], json!({"nodeToNodeMeshEnabled": false, "asNumber": 65000}));
    assert_eq!(desk.trail().len(), 2);

    desk.world.put(&key, r#"{"spec":{"asNumber":"many"}}"#).await;
    assert!(desk.refused("default-node-as").contains(&key));
    assert!(desk.refused("bgp-node-mesh on").contains(&key));
}
