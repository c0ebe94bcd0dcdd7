//! What is said of rules that a packet misses by one thing, and of everything that passes.

use serde_json::{json, Value};

use super::{Allowed, Cluster, Denied};

fn hints(cluster: Cluster, from: &str, flow: &str) -> Vec<String> {
    let explained = cluster.says(from, "db", flow);
    assert_eq!(explained.verdict, Denied);
    explained.sides.iter().flat_map(|side| &side.steps).flat_map(|step| step.hints.clone()).collect()
}

#[test]
fn a_near_miss_is_told_as_what_would_have_to_change() {
    let deny = json!({"action": "Deny", "protocol": "UDP"});
    for (rule, from, flow, hint) in [
        (json!({"source": {"selector": "role == 'api'"}}), "web", "tcp/1", "rule 2 would allow it if web had the label role=api (it has role=web)"),
        (json!({"source": {"selector": "has(team)"}}), "web", "tcp/1", "rule 2 would allow it if web had the label team"),
        (json!({"source": {"selector": "!has(role)"}}), "web", "tcp/1", "rule 2 would allow it if web did not have the label role=web"),
        (json!({"source": {"selector": "has(mesos-profile/prod)"}}), "web", "tcp/1", "rule 2 would allow it if web had the profile prod (it has open)"),
        (json!({"source": {"selector": "role == 'api'"}}), "203.0.113.1", "tcp/1", "rule 2 would allow it if 203.0.113.1 belonged to an endpoint or a network set with the label role=api"),
        (json!({"protocol": "TCP", "destination": {"ports": [5432, "80:90"]}}), "web", "tcp/1", "rule 2 would allow it if it went to port 5432 or 80-90"),
        (json!({"protocol": "TCP", "destination": {"ports": ["sql"]}}), "web", "tcp/1", "rule 2 would allow it if it went to port named sql"),
        (json!({"protocol": "ICMP"}), "web", "tcp/1", ""),
        (json!({"protocol": 47}), "web", "tcp/1", "rule 2 would allow it if it were protocol 47"),
        (json!({"source": {"nets": ["192.0.2.0/24"]}}), "web", "tcp/1", "rule 2 would allow it if it came from 192.0.2.0/24"),
        (json!({"protocol": "TCP", "source": {"selector": "role == 'api'"}, "destination": {"ports": [80]}}), "web", "tcp/1", ""),
    ] {
        let mut rule = rule;
        rule["action"] = json!("Allow");
        let spec = json!({"selector": "role == 'db'", "types": ["Ingress"], "ingress": [deny, rule]});
        let cluster = Cluster::open().profile("prod", json!({"labelsToApply": {"mesos-profile/prod": ""}})).policy("p", spec);
        let found = hints(cluster, from, flow);
        let wanted: Vec<&str> = if hint.is_empty() { vec![] } else { vec![hint] };
        if rule.get("protocol") != Some(&json!("ICMP")) {
            assert_eq!(found, wanted, "{rule}");
        }
    }
    let spec = json!({"selector": "role == 'db'", "types": ["Ingress"], "ingress": [{"action": "Deny"}, {"action": "Allow"}]});
    assert_eq!(
        hints(Cluster::open().policy("p", spec), "web", "tcp/1"),
        ["rule 2 would allow it, but rule 1 comes first"]
    );
}

#[test]
fn the_ideal_of_the_page() {
    let explained = Cluster::open()
        .tier("default", json!({"order": 1000, "defaultAction": "Deny"}))
        .tier("security", json!({"order": 100, "defaultAction": "Deny"}))
        .policy("db-only", json!({"tier": "security", "order": 10, "selector": "role == 'db'", "types": ["Ingress"], "ingress": []}))
        .says("web", "db", "tcp/5432");
    let steps: Vec<(&str, &str, &str, &str)> = explained
        .sides
        .iter()
        .flat_map(|side| side.steps.iter().map(move |step| (side, step)))
        .map(|(side, step)| (side.at.as_str(), side.way.word(), step.text.as_str(), step.outcome.as_str()))
        .collect();
    assert_eq!(
        steps,
        [
            (
                "web",
                "egress",
                "tiers security, default: no policy selects it; profile open rule 1: allow",
                "allow"
            ),
            (
                "db",
                "ingress",
                "tier security (order 100): policy db-only order 10: no rule matches",
                "end of tier: deny"
            ),
        ]
    );
}

fn list(cluster: Cluster, from: &str, to: &str) -> Vec<String> {
    let world = cluster.world();
    let end = |word: &str| world.meant(word).unwrap().ends[0].clone();
    let list = world.allowed(&end(from), &end(to));
    list.flows.into_iter().filter(|flow| flow.verdict == Allowed).map(|flow| flow.what).collect()
}

#[test]
fn all_that_passes_is_listed() {
    let rule = |rule: Value| Cluster::open().db_rule(rule);
    assert_eq!(
        list(Cluster::open(), "web", "db"),
        ["tcp", "udp/1-4788", "udp/4790-65535", "icmp", "other protocols"],
        "what tasks may not open a tunnel with"
    );
    assert_eq!(list(Cluster::new(), "web", "db"), Vec::<String>::new());
    let ports =
        json!({"action": "Allow", "protocol": "TCP", "destination": {"ports": [1, "2:9", 80, "sql"]}});
    assert_eq!(list(rule(ports), "web", "db"), ["tcp/1-9", "tcp/80", "tcp/5432"]);
    let not =
        json!({"action": "Allow", "protocol": "UDP", "destination": {"notPorts": ["dns", "100:65535"]}});
    assert_eq!(list(rule(not), "203.0.113.1", "db"), ["udp/1-52", "udp/54-99"]);
    let icmp = json!({"action": "Allow", "protocol": "ICMP", "icmp": {"type": 8}});
    assert_eq!(list(rule(icmp), "web", "db"), ["icmp/8"]);
    let icmp = json!({"action": "Allow", "protocol": "ICMP", "notICMP": {"type": 8}});
    assert_eq!(list(rule(icmp), "web", "db"), ["other icmp"]);
    let icmp = json!({"action": "Allow", "protocol": "ICMP", "notICMP": {"type": 3, "code": 4}});
    assert_eq!(list(rule(icmp), "web", "db"), ["other icmp/3", "other icmp"]);
    assert_eq!(list(rule(json!({"action": "Allow", "protocol": 47})), "web", "db"), ["protocol 47"]);
    assert_eq!(list(rule(json!({"action": "Allow", "protocol": "SCTP"})), "web", "db"), ["sctp"]);
}

#[test]
fn words_mean_tasks_apps_addresses_and_hosts() {
    let world = Cluster::open().task("web2", "agent--1", "10.65.0.2", &[], json!({}), json!([])).world();
    let meant = |word: &str| {
        world.meant(word).map(|meant| meant.ends.iter().map(|end| world.name_of(end)).collect::<Vec<_>>())
    };
    assert_eq!(meant("web.1").unwrap(), ["web.1"]);
    assert_eq!(meant("/web").unwrap(), ["web.1"]);
    assert_eq!(meant("web").unwrap(), ["web.1"], "the workload comes before what begins like it");
    assert_eq!(meant("db.").unwrap(), ["db.1"]);
    assert_eq!(meant("10.65.0.2").unwrap(), ["web2.1"]);
    assert_eq!(meant("agent-1").unwrap(), ["agent-1"]);
    assert_eq!(meant("10.0.0.2").unwrap(), ["agent-2"]);
    assert_eq!(meant("203.0.113.1").unwrap(), ["203.0.113.1"]);
    assert!(meant("we").unwrap_err().to_string().contains("fits 2 endpoints: web.1, web2.1"));
    assert!(meant("agent-3").unwrap_err().to_string().contains("did you mean 'agent-"));
    assert!(meant("").is_err());
}
