//! `policy explain`: what is printed of a packet's way, for people and for programs, and the exit codes.

use std::collections::BTreeMap;

use calico_mesos::calico::{Identity, NamedPort, Wanted};
use calico_mesos::names::ContainerId;
use serde_json::{json, Value};

use crate::datastore::{auto, RESOURCES};
use crate::desk::{Desk, Said, NODE};

const POOL: (&str, &str) = ("tasks", r#"{"cidr":"10.65.0.0/24","blockSize":29,"natOutgoing":true}"#);
const OTHER: &str = "agent-2";

/// A task of an app; its id begins with the app's name and a number.
async fn launch(desk: &Desk, node: &str, app: &str, number: u8, role: &str, profile: &str) -> Identity {
    let container = ContainerId::random();
    let identity = Identity::new(node, &container, &format!("/{app}"), &format!("{app}.instance-{number}"));
    let sql = NamedPort { name: "sql".into(), protocol: "tcp".into(), port: 5432 };
    let labels = BTreeMap::from([("role".to_owned(), role.to_owned())]);
    let wanted = Wanted { labels, profiles: vec![profile.into()], ports: vec![sql], ..auto() };
    desk.world.launch(&identity, &wanted).await.unwrap();
    identity
}

async fn put(desk: &mut Desk, path: &str, spec: Value) {
    let name = path.rsplit('/').next().unwrap();
    desk.world
        .put(&format!("{RESOURCES}/{path}"), &json!({"metadata": {"name": name}, "spec": spec}).to_string())
        .await;
}

/// Two hosts, `web` with the profile dev on one of them, `db` with prod on the other, and a tier that guards db.
async fn desk() -> Desk {
    let mut desk = Desk::new(&[NODE, OTHER], &[POOL]).await;
    for (node, address) in [(NODE, "10.0.0.1/24"), (OTHER, "10.0.0.2/24")] {
        put(&mut desk, &format!("nodes/{node}"), json!({"bgp": {"ipv4Address": address}})).await;
    }
    put(&mut desk, "tiers/default", json!({"order": 1_000_000, "defaultAction": "Deny"})).await;
    put(&mut desk, "tiers/security", json!({"order": 100, "defaultAction": "Deny"})).await;
    let rules = json!([
        {"action": "Allow", "protocol": "TCP", "source": {"selector": "role == 'admin'"}, "destination": {"ports": [22]}},
        {"action": "Allow", "protocol": "TCP", "source": {"selector": "role == 'api'"}, "destination": {"ports": ["sql"]}},
    ]);
    let spec = json!({"tier": "security", "order": 10, "selector": "role == 'db'", "types": ["Ingress"], "ingress": rules});
    put(&mut desk, "globalnetworkpolicies/db-only", spec).await;
    launch(&desk, NODE, "web", 1, "web", "dev").await;
    launch(&desk, OTHER, "db", 1, "db", "prod").await;
    desk
}

fn addresses(desk: &Desk) -> (String, String) {
    let all = desk.json("endpoint show");
    let of = |app: &str| {
        let endpoint = all.as_array().unwrap().iter().find(|own| own["app"] == app).unwrap();
        endpoint["addresses"][0].as_str().unwrap().trim_end_matches("/32").to_owned()
    };
    (of("/web"), of("/db"))
}

/// It must end with this code, without a warning; what it printed.
fn ends(desk: &Desk, code: i32, line: &str) -> String {
    let said: Said = desk.run(line);
    assert_eq!((said.code, said.stderr.as_str()), (code, ""), "{line}: {said:?}");
    said.stdout
}

#[tokio::test]
async fn a_denied_packet_is_followed_to_the_rule_that_stops_it() {
    let mut desk = desk().await;
    let (web, db) = addresses(&desk);
    let text = ends(&desk, 2, "policy explain web. /db --port tcp/5432");
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let tier = "tier security (order 100): policy db-only order 10: no rule matches";
    let profile = "tiers security, default: no policy selects it; profile dev rule 1: allow";
    let width = profile.len();
    assert_eq!(
        lines,
        [
            format!("web.instance-1 ({web}, dev)  ->  db.instance-1 ({db}, prod)  tcp/5432      DENIED at db, ingress"),
            format!("  web  egress    {profile:width$}      allow"),
            format!("  db   ingress   {tier:width$}      end of tier: deny"),
            "                 > rule 2 would allow it if web had the label role=api (it has role=web)".to_owned(),
        ]
    );

    launch(&desk, NODE, "api", 1, "api", "dev").await;
    let text = ends(&desk, 0, "policy explain api.instance-1 db --port tcp/5432");
    assert!(text.contains("ALLOWED") && text.contains("rule 2: allow"), "{text}");
    // An address alone says the same of the task that has it.
    assert!(
        ends(&desk, 2, &format!("policy explain {web} {db} -p tcp/5432")).contains("DENIED at db, ingress")
    );
    assert!(ends(&desk, 0, "policy explain agent-2 db -p tcp/1").contains("never filters"));
    assert!(ends(&desk, 2, "policy explain agent-1 db -p tcp/5432")
        .contains("belonged to an endpoint or a network set"));
    assert!(
        ends(&desk, 0, "policy explain web 203.0.113.1 -p udp/53").contains("natOutgoing of the pool tasks")
    );
    assert!(
        ends(&desk, 1, "policy explain web agent-1 -p tcp/80").contains("CANNOT TELL at agent-1, ingress")
    );

    let accounts = json!([{"action": "Allow", "source": {"serviceAccounts": {"names": ["x"]}}}]);
    let spec = json!({"tier": "security", "order": 5, "selector": "role == 'db'", "types": ["Ingress"], "ingress": accounts});
    put(&mut desk, "globalnetworkpolicies/first", spec).await;
    let text = ends(&desk, 1, "policy explain web db -p tcp/5432");
    assert!(
        text.contains("! policy first rule 1 (allow) has serviceAccounts, which is not evaluated here"),
        "{text}"
    );
}

#[tokio::test]
async fn without_a_port_all_that_may_pass_is_listed() {
    let desk = desk().await;
    let text = ends(&desk, 2, "policy explain web db");
    assert!(text.contains("DENIED, whatever it is") && text.contains("all"), "{text}");
    launch(&desk, NODE, "api", 1, "api", "dev").await;
    let text = ends(&desk, 0, "policy explain api db");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].ends_with("may send:"), "{text}");
    assert!(
        lines[1].starts_with("  tcp/5432  ") && lines[1].contains("policy db-only order 10: rule 2"),
        "{text}"
    );
    assert!(lines[2].starts_with("  all else  denied: ") && lines[2].contains("end of tier: deny"), "{text}");
    let list = desk.json("policy explain api db");
    let allowed: Vec<&Value> = list["outcomes"][0]["flows"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|flow| flow["verdict"] == "allowed")
        .collect();
    assert_eq!((allowed.len(), &allowed[0]["flow"]), (1, &json!("tcp/5432")));
}

#[tokio::test]
async fn an_app_with_several_endpoints_shows_each_way_once() {
    let desk = desk().await;
    for number in 2..5 {
        launch(&desk, OTHER, "web", number, "web", "dev").await;
    }
    let said = desk.run("policy explain /web /db --port tcp/5432 -o json");
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((said.code, &document["verdict"], &document["schema"]), (2, &json!("denied"), &json!(1)));
    let outcomes = document["outcomes"].as_array().unwrap();
    assert_eq!((outcomes.len(), &outcomes[0]["pairs"]), (1, &json!(4)));
    let outcome = &outcomes[0];
    assert_eq!((&outcome["from"]["app"], &outcome["to"]["host"]), (&json!("/web"), &json!(OTHER)));
    let step = &outcome["sides"][1]["steps"][0];
    assert_eq!(
        (&step["tier"], &step["policy"], &step["outcome"]),
        (&json!("security"), &Value::Null, &json!("end of tier: deny"))
    );
    assert_eq!(step["hints"].as_array().unwrap().len(), 1);
    // One of them is allowed, and the others are not.
    launch(&desk, NODE, "web", 9, "api", "dev").await;
    let text = ends(&desk, 2, "policy explain /web /db --port tcp/5432");
    assert_eq!(
        (text.matches("  ->  ").count(), text.matches("4 pairs of endpoints fare alike").count()),
        (2, 1),
        "{text}"
    );
    assert_eq!(ends(&desk, 2, "policy explain web.instance-2 db -p tcp/1 -o name"), "denied\n");

    let refused = desk.refused("policy explain web.instance db");
    assert!(refused.contains("fits 5 endpoints"), "{refused}");
    let refused = desk.refused("policy explain agent-3 db");
    assert!(refused.contains("did you mean"), "{refused}");
    let said = desk.run("policy explain web db --port http");
    assert_eq!(said.code, 64, "{said:?}");
    assert!(said.stderr.contains("is not a protocol"), "{said:?}");
}

#[tokio::test]
async fn records_that_felix_ignores_are_named_and_left_out() {
    let mut desk = desk().await;
    let bad = json!({"tier": "security", "order": 1, "types": ["Ingress"], "ingress": [{"action": "Allow", "destination": {"ports": [80]}}]});
    put(&mut desk, "globalnetworkpolicies/bad", bad).await;
    let said = desk.run("policy explain web db -p tcp/80");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr.contains("globalnetworkpolicies/bad is damaged: Felix ignores it: its ingress rule 1"),
        "{said:?}"
    );
}
