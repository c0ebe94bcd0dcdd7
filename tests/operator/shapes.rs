//! What changing verbs print for programs: one document, whatever is changed.

use serde_json::{json, Value};

use crate::datastore::{auto, explicit, task, RESOURCES};
use crate::desk::{Desk, NODE};
use crate::netlab;

const WEB: (&str, &str) = ("web", r#"{"cidr":"10.65.0.0/26","blockSize":29}"#);

/// The document, whose shape is looked at.
fn document(desk: &Desk, line: &str, code: i32) -> Value {
    let said = desk.run(line);
    assert_eq!((said.code, said.stderr.as_str()), (code, ""), "{line}: {said:?}");
    let document: Value =
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{line}: {error}: {said:?}"));
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&document), ["changed", "dry_run", "objects"], "{line}");
    for object in document["objects"].as_array().unwrap() {
        assert_eq!(keys(object), ["object", "name", "changed", "before", "after"], "{line}");
        assert_eq!(object["changed"], json!(object["before"] != object["after"]), "{line}");
    }
    document
}

#[tokio::test]
async fn changing_verbs_print_one_document() {
    netlab::require_private_network();
    let mut desk = Desk::new(&[NODE, "dead"], &[WEB]).await;
    let holder = task(NODE);
    desk.world.launch(&holder, &auto()).await.unwrap();
    desk.world.launch(&task("dead"), &explicit("10.65.0.40")).await.unwrap();
    let init = format!("node init --ip {}", "127.0.0.1");
    for (line, object) in [
        ("profile add web", "Profile web"),
        ("profile web rule add inbound deny", "Profile web"),
        ("profile web rule remove inbound --at 1", "Profile web"),
        ("profile web tag add dev", "Profile web"),
        ("profile web tag remove dev", "Profile web"),
        (
            &format!("endpoint {} profile append web", holder.task_id),
            "WorkloadEndpoint default/agent--1-mesos",
        ),
        (
            &format!("endpoint {} profile remove web", holder.task_id),
            "WorkloadEndpoint default/agent--1-mesos",
        ),
        ("profile remove web", "Profile web"),
        ("pool add 10.66.0.0/16 --name six", "IPPool six"),
        ("pool disable six", "IPPool six"),
        ("pool enable six", "IPPool six"),
        ("pool remove six", "IPPool six"),
        ("bgppeer add 10.0.0.1 as 64512", "BGPPeer peer-10-0-0-1"),
        ("bgppeer remove 10.0.0.1", "BGPPeer peer-10-0-0-1"),
        ("node bgppeer add 10.0.0.1 as 64512", "BGPPeer agent-1.peer-10-0-0-1"),
        ("bgp-node-mesh off", "BGPConfiguration default"),
        ("default-node-as 65000", "BGPConfiguration default"),
        (&init, "ClusterInformation default"),
        ("node remove dead --yes", "endpoint mesos/prod-web."),
    ] {
        let planned = document(&desk, &format!("{line} --dry-run -o json"), 3);
        assert_eq!((&planned["changed"], &planned["dry_run"]), (&json!(true), &json!(true)), "{line}");
        let done = document(&desk, &format!("{line} -o json"), 0);
        assert_eq!((&done["changed"], &done["dry_run"]), (&json!(true), &json!(false)), "{line}");
        let first = &done["objects"][0];
        assert!(first["object"].as_str().unwrap().starts_with(object), "{line}: {first}");
    }
    // What is as it should be has the same shape.
    let again = document(&desk, "bgp-node-mesh off -o json", 0);
    assert_eq!((&again["changed"], &again["objects"][0]["name"]), (&json!(false), &json!("default")));
    assert_eq!(desk.json("bgp-node-mesh"), json!({"node_to_node_mesh": false}));
    assert_eq!(desk.done("profile add web -o name"), "web\n");
    assert_eq!(desk.done("profile add web -o name"), "web\n");
    let yaml = desk.done("profile remove web -o yaml");
    assert!(yaml.starts_with("changed: true\ndry_run: false\nobjects:\n"), "{yaml}");
    assert_eq!(document(&desk, "pool add 10.65.0.0/26 -o json", 0)["changed"], json!(false));
    // A released address, and the link.
    let key = desk
        .world
        .dump()
        .await
        .into_keys()
        .find(|key| key.starts_with(&format!("{RESOURCES}/workloadendpoints/")));
    desk.world.delete(&key.unwrap()).await;
    let taken = desk.run("ipam check -o name").stdout;
    let released = document(&desk, &format!("ipam release {} -o json", taken.trim()), 0);
    assert_eq!(released["objects"][0]["object"], json!(format!("IP address {}", taken.trim())));
    let link = format!("calicoctl install --dir {} -o json", desk.dir().display());
    assert_eq!(document(&desk, &link, 0)["objects"][0]["name"], json!(desk.dir().join("calicoctl")));
}
