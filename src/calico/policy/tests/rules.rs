//! Each kind of match, in one rule that allows what db lets in.

use serde_json::{json, Value};

use super::{Allowed, Cluster, Denied, PolicyVerdict, Unknown};
use crate::calico::Kind;

/// Verdicts for flows from web to db behind one rule.
#[track_caller]
fn verdicts(cluster: &Cluster, rule: &Value, expected: &[(&str, PolicyVerdict)]) {
    for (flow, verdict) in expected {
        assert_eq!(cluster.clone().db_rule(rule.clone()).is(flow), *verdict, "{rule}: {flow}");
    }
}

#[test]
fn protocols_ports_and_icmp() {
    let cluster = Cluster::open();
    let tcp = |port| json!({"action": "Allow", "protocol": "TCP", "destination": {"ports": port}});
    verdicts(
        &cluster,
        &json!({"action": "Allow"}),
        &[("tcp/1", Allowed), ("icmp", Allowed), ("47", Allowed)],
    );
    verdicts(
        &cluster,
        &tcp(json!([80, "100:200", "sql"])),
        &[
            ("tcp/80", Allowed),
            ("tcp/100", Allowed),
            ("tcp/200", Allowed),
            ("tcp/201", Denied),
            ("tcp/5432", Allowed),
            ("udp/80", Denied),
            ("icmp", Denied),
        ],
    );
    // A name is a port of one protocol: without one in the rule, of that which the endpoint says.
    let dns = json!({"action": "Allow", "destination": {"ports": ["dns"]}});
    verdicts(&cluster, &dns, &[("udp/53", Allowed), ("tcp/53", Denied)]);
    verdicts(&cluster, &tcp(json!(["dns"])), &[("tcp/53", Denied), ("udp/53", Denied)]);
    let not = json!({"action": "Allow", "protocol": "TCP", "destination": {"notPorts": [80, "sql"]}});
    verdicts(
        &cluster,
        &not,
        &[("tcp/80", Denied), ("tcp/5432", Denied), ("tcp/81", Allowed), ("udp/80", Denied)],
    );
    let not = json!({"action": "Allow", "notProtocol": "UDP"});
    verdicts(&cluster, &not, &[("udp/1", Denied), ("tcp/1", Allowed), ("icmp", Allowed)]);
    verdicts(&cluster, &json!({"action": "Allow", "protocol": 47}), &[("47", Allowed), ("tcp/1", Denied)]);
    let icmp = |icmp| json!({"action": "Allow", "protocol": "ICMP", "icmp": icmp});
    verdicts(
        &cluster,
        &icmp(json!({"type": 8})),
        &[("icmp", Allowed), ("icmp/8/3", Allowed), ("icmp/3/0", Denied)],
    );
    verdicts(&cluster, &icmp(json!({"type": 8, "code": 1})), &[("icmp", Denied), ("icmp/8/1", Allowed)]);
    verdicts(&cluster, &icmp(json!({"code": 1})), &[("icmp", Allowed)]);
    let not = json!({"action": "Allow", "protocol": "ICMP", "notICMP": {"type": 8}});
    verdicts(&cluster, &not, &[("icmp", Denied), ("icmp/3/1", Allowed), ("tcp/1", Denied)]);
    verdicts(&cluster, &json!({"action": "Allow", "protocol": "ICMPv6"}), &[("icmp", Denied)]);
    verdicts(&cluster, &json!({"action": "Allow", "ipVersion": 6}), &[("tcp/1", Denied)]);
    verdicts(&cluster, &json!({"action": "Allow", "ipVersion": 4}), &[("tcp/1", Allowed)]);
}

#[test]
fn source_ports_are_those_of_clients() {
    let rule =
        |field: &str, ports: Value| json!({"action": "Allow", "protocol": "TCP", "source": {field: ports}});
    let cluster = Cluster::open();
    verdicts(&cluster, &rule("ports", json!(["1024:65535"])), &[("tcp/1", Allowed)]);
    verdicts(&cluster, &rule("ports", json!([80, "sql"])), &[("tcp/1", Denied)]);
    verdicts(&cluster, &rule("ports", json!(["40000:41000"])), &[("tcp/1", Unknown)]);
    verdicts(&cluster, &rule("notPorts", json!(["1024:65535"])), &[("tcp/1", Denied)]);
    verdicts(&cluster, &rule("notPorts", json!([80])), &[("tcp/1", Allowed)]);
    verdicts(&cluster, &rule("notPorts", json!([40000])), &[("tcp/1", Unknown), ("udp/1", Denied)]);
}

#[test]
fn networks() {
    let cluster = Cluster::open();
    let rule = |source: Value| json!({"action": "Allow", "source": source});
    for (source, verdict) in [
        (json!({"nets": ["10.65.0.0/26"]}), Allowed),
        (json!({"nets": ["10.65.0.1"]}), Allowed),
        (json!({"nets": ["10.66.0.0/16", "10.65.0.1/26"]}), Allowed),
        (json!({"nets": ["10.66.0.0/16"]}), Denied),
        (json!({"nets": ["fd00::/8"]}), Denied),
        (json!({"nets": ["fd00::/8", "10.65.0.0/16"]}), Allowed),
        (json!({"notNets": ["10.65.0.0/26"]}), Denied),
        (json!({"notNets": ["10.66.0.0/16"]}), Allowed),
        (json!({"nets": ["10.65.0.0/16"], "notNets": ["10.65.0.1/32"]}), Denied),
        // Felix renders no rule of these for IPv4.
        (json!({"notNets": ["fd00::/8"]}), Denied),
        (json!({"notNets": ["0.0.0.0/0"]}), Denied),
        (json!({"nets": []}), Allowed),
    ] {
        verdicts(&cluster, &rule(source), &[("tcp/1", verdict)]);
    }
    let to = |destination: Value| json!({"action": "Allow", "destination": destination});
    verdicts(&cluster, &to(json!({"nets": ["10.65.0.65/32"]})), &[("tcp/1", Allowed)]);
    verdicts(&cluster, &to(json!({"notNets": ["10.65.0.65/32"]})), &[("tcp/1", Denied)]);
}

#[test]
fn selectors_stand_for_endpoints_and_sets() {
    let set = |labels: Value, nets: &[&str]| json!({"metadata": {"labels": labels}, "spec": {"nets": nets}});
    let cluster = Cluster::open()
        .add(Kind::GlobalNetworkSet, "office", set(json!({"place": "office"}), &["192.0.2.0/24", "bad"]))
        .add(Kind::NetworkSet, "default/lab", set(json!({"place": "lab"}), &["198.51.100.7"]))
        .add(Kind::NetworkSet, "other/lab", set(json!({"place": "lab"}), &["198.51.100.8/32"]));
    let cases: [(Value, &[(&str, PolicyVerdict)]); 9] = [
        (json!({"selector": "role == 'web'"}), &[("web", Allowed), ("192.0.2.9", Denied)]),
        (
            json!({"notSelector": "role == 'web'"}),
            &[("web", Denied), ("192.0.2.9", Allowed), ("203.0.113.1", Allowed)],
        ),
        (json!({"selector": "all()"}), &[("web", Allowed), ("192.0.2.9", Allowed), ("203.0.113.1", Denied)]),
        (
            json!({"selector": "all()", "notSelector": "has(role)"}),
            &[("web", Denied), ("192.0.2.9", Allowed), ("203.0.113.1", Denied)],
        ),
        (
            json!({"selector": "place in {'office', 'lab'}"}),
            &[("192.0.2.1", Allowed), ("198.51.100.7", Allowed)],
        ),
        // Endpoints outside Kubernetes have a namespace, and no labels of it.
        (
            json!({"namespaceSelector": "all()"}),
            &[("web", Allowed), ("198.51.100.8", Allowed), ("192.0.2.9", Denied)],
        ),
        (
            json!({"namespaceSelector": "global()"}),
            &[("web", Denied), ("198.51.100.8", Denied), ("192.0.2.9", Allowed)],
        ),
        (
            json!({"namespaceSelector": "name == 'default'", "selector": "all()"}),
            &[("web", Denied), ("192.0.2.9", Denied)],
        ),
        (
            json!({"namespaceSelector": "!has(team)", "selector": "place == 'lab'"}),
            &[("web", Denied), ("198.51.100.8", Allowed)],
        ),
    ];
    for (source, expected) in cases {
        for (from, verdict) in expected {
            let rule = json!({"action": "Allow", "source": source});
            assert_eq!(
                cluster.clone().db_rule(rule).says(from, "db", "tcp/1").verdict,
                *verdict,
                "{source}: {from}"
            );
        }
    }
    // Of a NetworkPolicy, selectors are those of its namespace.
    let spec =
        |source: &Value| json!({"types": ["Ingress"], "ingress": [{"action": "Allow", "source": source}]});
    for (source, from, verdict) in [
        (json!({"selector": "place == 'lab'"}), "198.51.100.7", Allowed),
        (json!({"selector": "place == 'lab'"}), "198.51.100.8", Denied),
        (json!({"selector": "place == 'lab'", "namespaceSelector": "all()"}), "198.51.100.8", Allowed),
        (json!({"notSelector": "has(nothing)"}), "203.0.113.1", Denied),
        (json!({"notSelector": "has(nothing)"}), "web", Allowed),
        (json!({}), "203.0.113.1", Allowed),
    ] {
        let cluster = cluster.clone().policy("default/in", spec(&source));
        assert_eq!(cluster.says(from, "db", "tcp/1").verdict, verdict, "{source}: {from}");
    }
    let elsewhere = cluster.policy("other/in", spec(&json!({"selector": "has(nothing)"})));
    assert_eq!(elsewhere.is("tcp/1"), Allowed, "it selects endpoints of its own namespace alone");
}

#[test]
fn what_is_not_evaluated_here_is_named_and_matters_only_where_it_decides() {
    let accounts = |action: &str| json!({"action": action, "source": {"serviceAccounts": {"names": ["a"]}}});
    let explained = Cluster::open().db_rule(accounts("Allow")).says("web", "db", "tcp/1");
    assert_eq!(explained.verdict, Unknown);
    let step = explained.sides[1].steps[0].clone();
    assert!(step.not_evaluated[0].contains("rule 1 (allow) has serviceAccounts"), "{step:?}");
    assert_eq!(Cluster::open().db_rule(accounts("Deny")).is("tcp/1"), Denied, "denied in either case");
    assert_eq!(Cluster::open().db_rule(accounts("Log")).is("tcp/1"), Denied);
    // On to the profile, which allows it, or to the end of the tier.
    assert_eq!(Cluster::open().db_rule(accounts("Pass")).is("tcp/1"), Unknown);
    let rule = json!({"action": "Allow", "protocol": "UDP", "http": {"methods": ["GET"]}});
    assert_eq!(Cluster::open().db_rule(rule).is("tcp/1"), Denied, "it is no UDP anyhow");
    let rule = json!({"action": "Allow", "destination": {"services": {"name": "x", "namespace": "y"}}});
    assert_eq!(Cluster::open().db_rule(rule).is("tcp/1"), Unknown);
}

#[test]
fn felix_ignores_a_policy_that_it_cannot_render() {
    for rule in [
        json!({"action": "Permit"}),
        json!({"action": "Deny", "destination": {"ports": [80]}}),
        json!({"action": "Deny", "protocol": "ICMP", "destination": {"ports": [80]}}),
        json!({"action": "Deny", "protocol": "TCP", "destination": {"ports": ["9:8"]}}),
        json!({"action": "Deny", "protocol": "nonsense"}),
        json!({"action": "Deny", "source": {"selector": "role ="}}),
    ] {
        let (world, damaged) = Cluster::open().db_rule(rule.clone()).read();
        assert_eq!(damaged.len(), 1, "{rule}");
        assert_eq!(super::says(&world, "web", "db", "tcp/1").verdict, Allowed, "{rule}");
    }
}
