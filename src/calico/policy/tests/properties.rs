//! What holds whatever the records are.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{json, Value};

use super::{says, Allowed, Cluster, Denied, Unknown};
use crate::calico::policy::PolicyRule;
use crate::calico::Kind;

fn peer() -> impl Strategy<Value = Value> {
    let selectors = select(vec!["", "role == 'web'", "has(team)", "all()", "!has(role)"]);
    let nets = select(vec![vec![], vec!["10.65.0.0/26"], vec!["192.0.2.0/24"], vec!["fd00::/8"]]);
    (selectors.clone(), selectors, nets.clone(), nets).prop_map(|(selector, not, nets, not_nets)| {
        json!({"selector": selector, "notSelector": not, "nets": nets, "notNets": not_nets})
    })
}

fn rule(actions: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let ports = select(vec![json!([]), json!([80]), json!(["1:100"]), json!(["sql"])]);
    (select(actions), peer(), peer(), select(vec![Value::Null, json!("TCP"), json!("UDP")]), ports).prop_map(
        |(action, source, mut destination, protocol, ports)| {
            if !protocol.is_null() {
                destination["ports"] = ports;
            }
            json!({"action": action, "protocol": protocol, "source": source, "destination": destination})
        },
    )
}

fn policies(actions: &'static [&'static str]) -> impl Strategy<Value = Vec<Value>> {
    let selectors = select(vec!["all()", "role == 'web'", "role == 'db'", "has(team)"]);
    let types = select(vec![json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])]);
    let tiers = select(vec!["default", "security"]);
    let policy = (selectors, types, tiers, 0..5_u8, vec(rule(actions), 0..4), vec(rule(actions), 0..4));
    let spec = |(selector, types, tier, order, ingress, egress): (
        &str,
        Value,
        &str,
        u8,
        Vec<Value>,
        Vec<Value>,
    )| {
        json!({"selector": selector, "types": types, "tier": tier, "order": order, "ingress": ingress, "egress": egress})
    };
    vec(policy.prop_map(spec), 0..5)
}

fn cluster(policies: &[Value], pass: bool) -> Cluster {
    let action = if pass { "Pass" } else { "Deny" };
    let cluster = Cluster::open()
        .tier("default", json!({"order": 1000, "defaultAction": "Deny"}))
        .tier("security", json!({"order": 10, "defaultAction": action}));
    policies
        .iter()
        .enumerate()
        .fold(cluster, |cluster, (index, spec)| cluster.policy(&format!("p{index}"), spec.clone()))
}

const ALL: &[&str] = &["Allow", "Deny", "Pass", "Log"];

proptest! {
    /// A policy of a first tier that passes everything changes nothing.
    #[test]
    fn passing_everything_on_changes_nothing(specs in policies(ALL), pass: bool, port in 1..200_u16) {
        let flow = format!("tcp/{port}");
        let before = cluster(&specs, pass).is(&flow);
        let all = json!([{"action": "Pass"}]);
        let after = cluster(&specs, pass)
            .tier("first", json!({"order": 1}))
            .policy("first", json!({"tier": "first", "types": ["Ingress", "Egress"], "ingress": all, "egress": all}));
        prop_assert_eq!(after.is(&flow), before);
    }

    /// A first rule decides alone: allow everything, deny everything.
    #[test]
    fn the_first_rule_of_the_first_tier_decides(specs in policies(ALL), pass: bool) {
        for (action, verdict) in [("Allow", Allowed), ("Deny", Denied)] {
            let all = json!([{"action": action}]);
            let first = cluster(&specs, pass)
                .tier("first", json!({"order": 1}))
                .policy("first", json!({"tier": "first", "types": ["Ingress", "Egress"], "ingress": all, "egress": all}));
            prop_assert_eq!(first.is("tcp/80"), verdict);
        }
    }

    /// Without a rule that denies, in tiers that pass, only more is allowed by one more rule that allows.
    #[test]
    fn one_more_allow_takes_nothing_away(specs in policies(&["Allow", "Pass"]), more in rule(&["Allow"]), at in 0..5_usize) {
        let before = cluster(&specs, true).is("tcp/80");
        let mut specs = specs;
        if let Some(spec) = specs.get_mut(at) {
            for field in ["ingress", "egress"] {
                spec[field].as_array_mut().unwrap().insert(0, more.clone());
            }
        }
        prop_assert!(before != Allowed || cluster(&specs, true).is("tcp/80") == Allowed);
    }

    /// Logging decides nothing.
    #[test]
    fn a_log_changes_nothing(specs in policies(ALL), log in rule(&["Log"]), pass: bool) {
        let before = cluster(&specs, pass).is("tcp/80");
        let mut specs = specs;
        for spec in &mut specs {
            for field in ["ingress", "egress"] {
                spec[field].as_array_mut().unwrap().insert(0, log.clone());
            }
        }
        prop_assert_eq!(cluster(&specs, pass).is("tcp/80"), before);
    }

    /// What is listed as allowed is what is allowed, port by port.
    #[test]
    fn the_list_is_what_each_packet_gets(specs in policies(ALL), pass: bool, ports in vec(1..6000_u16, 8)) {
        let world = cluster(&specs, pass).world();
        let end = |word: &str| world.meant(word).unwrap().ends[0].clone();
        let list = world.allowed(&end("web"), &end("db"));
        for (protocol, port) in ports.iter().flat_map(|port| [("tcp", *port), ("udp", *port)]) {
            let covers = |what: &str| match what.strip_prefix(protocol) {
                Some("") => true,
                Some(range) => match range.trim_start_matches('/').split_once('-') {
                    Some((first, last)) => (first.parse().unwrap()..=last.parse().unwrap()).contains(&port),
                    None => range.trim_start_matches('/').parse() == Ok(port),
                },
                None => false,
            };
            let entry = list.flows.iter().find(|flow| covers(&flow.what)).unwrap();
            prop_assert_eq!(entry.verdict, says(&world, "web", "db", &format!("{protocol}/{port}")).verdict);
        }
    }

    /// An unknown rule makes a verdict unknown, and never another one.
    #[test]
    fn what_cannot_be_evaluated_never_turns_a_verdict(specs in policies(ALL), pass: bool, at in 0..5_usize, action in select(ALL)) {
        let before = cluster(&specs, pass).is("tcp/80");
        let with = |rule: Value| {
            let mut specs = specs.clone();
            if let Some(spec) = specs.get_mut(at) {
                spec["ingress"].as_array_mut().unwrap().insert(0, rule);
            }
            cluster(&specs, pass).is("tcp/80")
        };
        let taken = with(json!({"action": action}));
        let unknown = with(json!({"action": action, "http": {"methods": ["GET"]}}));
        prop_assert!(unknown == Unknown || (unknown == before && unknown == taken), "{before:?} {taken:?} {unknown:?}");
        prop_assert!(unknown != Unknown || before != taken);
    }

    #[test]
    fn no_record_panics(
        value in crate::any_json::nested(
            prop_oneof![Just(json!(null)), Just(json!("TCP")), Just(json!(80)), Just(json!("Allow")), Just(json!("10.0.0.0/8"))],
            select(vec!["action", "source", "ports", "nets", "selector", "icmp", "protocol", "spec", "ingress", "labelsToApply"]).prop_map(str::to_owned),
        ),
    ) {
        let _ = PolicyRule::read(&value, None);
        if value.get("spec").is_none_or(Value::is_object) && value.is_object() {
            for kind in [Kind::Profile, Kind::GlobalNetworkPolicy, Kind::GlobalNetworkSet, Kind::HostEndpoint, Kind::Node, Kind::IpPool, Kind::FelixConfiguration] {
                let (world, _) = Cluster::open().add(kind, "x", value.clone()).read();
                says(&world, "web", "db", "tcp/80");
            }
        }
    }
}
