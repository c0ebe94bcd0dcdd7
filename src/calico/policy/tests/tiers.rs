//! The order of tiers, policies and profiles, and what happens where none decides.

use serde_json::{json, Value};

use super::{says, Allowed, Cluster, Denied, Unknown};

fn to_db(action: &str) -> Value {
    json!({"selector": "role == 'db'", "types": ["Ingress"], "ingress": [{"action": action}]})
}

fn with(mut spec: Value, more: &[(&str, Value)]) -> Value {
    more.iter().for_each(|(name, value)| spec[*name] = value.clone());
    spec
}

#[test]
fn the_first_policy_in_order_decides() {
    let ordered = |action, order: Value| with(to_db(action), &[("order", order)]);
    let both = |a: Value, b: Value| Cluster::open().policy("a", a).policy("b", b).is("tcp/1");
    assert_eq!(both(ordered("Allow", json!(1)), ordered("Deny", json!(2))), Allowed);
    assert_eq!(both(ordered("Deny", json!(10)), ordered("Allow", json!(2.5))), Allowed);
    assert_eq!(both(ordered("Deny", json!(5)), ordered("Allow", json!(5))), Denied, "by name");
    assert_eq!(both(ordered("Deny", json!(null)), ordered("Allow", json!(1e9))), Allowed, "none is last");
    // Of the same order the name decides, then the namespace.
    let tie = |global: &str, own: &str| {
        Cluster::open().policy(global, to_db("Deny")).policy(own, to_db("Allow")).is("tcp/1")
    };
    assert_eq!((tie("b", "default/a"), tie("a", "default/b")), (Allowed, Denied));
}

#[test]
fn tiers_come_in_order_and_pass_on() {
    let cluster = |action: &str, first: Value| {
        Cluster::open()
            .tier("default", json!({"order": 1_000_000, "defaultAction": "Deny"}))
            .tier("security", json!({"order": 100, "defaultAction": action}))
            .policy("security.db", with(first, &[("tier", json!("security"))]))
    };
    let none = json!({"selector": "role == 'db'", "types": ["Ingress"], "ingress": []});
    assert_eq!(cluster("Deny", none.clone()).is("tcp/1"), Denied, "end of tier");
    assert_eq!(cluster("Pass", none.clone()).is("tcp/1"), Allowed, "the profile allows it");
    assert_eq!(cluster("Pass", none.clone()).policy("later", to_db("Deny")).is("tcp/1"), Denied);
    assert_eq!(cluster("Deny", to_db("Pass")).is("tcp/1"), Allowed);
    assert_eq!(cluster("Deny", to_db("Log")).is("tcp/1"), Denied, "a log decides nothing");
    let explained = cluster("Deny", to_db("Pass")).policy("later", to_db("Deny")).says("web", "db", "tcp/1");
    let steps: Vec<(&str, &str)> =
        explained.sides[1].steps.iter().map(|step| (step.text.as_str(), step.outcome.as_str())).collect();
    assert_eq!(
        steps,
        [
            ("tier security (order 100): policy security.db: rule 1: pass", "pass"),
            ("tier default (order 1000000): policy later: rule 1: deny", "deny"),
        ]
    );
    // A pass leaves out the rest of its tier.
    let passed = cluster("Deny", to_db("Pass"))
        .policy("security.e", with(to_db("Deny"), &[("tier", json!("security"))]));
    assert_eq!(passed.is("tcp/1"), Allowed);
    // The policies of a tier that is missing are applied behind all others, and what they leave is dropped.
    let lost = Cluster::open().policy("x", with(none, &[("tier", json!("lost"))]));
    assert_eq!(lost.is("tcp/1"), Denied);
}

#[test]
fn types_say_which_way_a_policy_governs() {
    let spec = |types: Value| json!({"selector": "all()", "types": types, "ingress": [{"action": "Allow"}]});
    assert_eq!(
        Cluster::new().policy("p", spec(json!(["Ingress"]))).says("203.0.113.1", "db", "tcp/1").verdict,
        Allowed
    );
    assert_eq!(
        Cluster::new().policy("p", spec(json!(["Ingress"]))).is("tcp/1"),
        Denied,
        "web has no profile"
    );
    let only_in = Cluster::open().policy("p", spec(json!(["Ingress"]))).says("web", "db", "tcp/1");
    assert_eq!((only_in.verdict, only_in.sides[0].steps[0].profile.as_deref()), (Allowed, Some("open")));
    // Without types Felix takes a policy as one for both ways, whatever rules it has.
    let neither = Cluster::open().policy("p", spec(json!(null))).says("web", "db", "tcp/1");
    assert_eq!((neither.sides[0].verdict, neither.sides[1].verdict), (Denied, Allowed));
    assert_eq!(Cluster::open().policy("p", spec(json!(["Egress"]))).is("tcp/1"), Denied);
    for early in ["doNotTrack", "preDNAT"] {
        let cluster = Cluster::open()
            .policy("p", with(to_db("Deny"), &[(early, json!(true)), ("applyOnForward", json!(true))]));
        assert_eq!(cluster.is("tcp/1"), Allowed, "{early} is for host endpoints");
    }
}

#[test]
fn selectors_of_policies() {
    for (selectors, verdict) in [
        (json!({"selector": "role == 'web'"}), Allowed),
        (json!({"selector": ""}), Denied),
        (json!({"selector": "all()", "namespaceSelector": "all()"}), Denied),
        (json!({"selector": "all()", "namespaceSelector": "global()"}), Denied),
        (json!({"selector": "role == 'db'", "namespaceSelector": "name == 'default'"}), Allowed),
        (json!({"selector": "role == 'db'", "serviceAccountSelector": "name == 'default'"}), Allowed),
        (json!({"selector": "role == 'db'", "serviceAccountSelector": "!has(name)"}), Denied),
    ] {
        let mut spec = to_db("Deny");
        spec.as_object_mut().unwrap().remove("selector");
        spec.as_object_mut().unwrap().extend(selectors.as_object().unwrap().clone());
        assert_eq!(Cluster::open().policy("p", spec).is("tcp/1"), verdict, "{selectors}");
    }
    let own = with(to_db("Deny"), &[("selector", json!("all()"))]);
    assert_eq!(Cluster::open().policy("default/p", own.clone()).is("tcp/1"), Denied);
    assert_eq!(Cluster::open().policy("other/p", own).is("tcp/1"), Allowed);
}

#[test]
fn profiles_come_in_order_after_the_policies() {
    let allow = json!({"ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}]});
    let rule = |action: &str| json!({"ingress": [{"action": action}]});
    let db = |profiles: &[&str]| {
        Cluster::open()
            .profile("allow", allow.clone())
            .profile("deny", rule("Deny"))
            .profile("pass", rule("Pass"))
            .profile("empty", json!({}))
            .task("db", "agent--2", "10.65.0.65", profiles, json!({"role": "db"}), json!([]))
    };
    for (profiles, verdict) in [
        (&[][..], Denied),
        (&["allow"], Allowed),
        (&["empty"], Denied),
        (&["deny", "allow"], Denied),
        (&["empty", "allow", "deny"], Allowed),
        (&["pass", "allow"], Allowed),
        (&["missing", "allow"], Denied),
        (&["allow", "missing"], Allowed),
        (&["projectcalico-default-allow"], Allowed),
    ] {
        assert_eq!(db(profiles).is("tcp/1"), verdict, "{profiles:?}");
    }
    assert_eq!(db(&["allow"]).policy("p", to_db("Pass")).is("tcp/1"), Allowed);
    // One that Felix cannot read is missing.
    let (world, damaged) = db(&["allow"]).profile("allow", rule("Permit")).read();
    assert_eq!((says(&world, "web", "db", "tcp/1").verdict, damaged.len()), (Denied, 1));
}

#[test]
fn profiles_apply_labels_and_the_first_wins() {
    let member = json!({"labelsToApply": {"team": "a", "role": "other"}, "egress": [{"action": "Allow"}]});
    let cluster = Cluster::open()
        .profile("a", member)
        .profile("b", json!({"labelsToApply": {"team": "b", "zone": "z"}}))
        .task("web", "agent--1", "10.65.0.1", &["a", "b"], json!({"role": "web"}), json!([]));
    let is = |selector: &str| {
        cluster.clone().db_rule(json!({"action": "Allow", "source": {"selector": selector}})).is("tcp/1")
    };
    assert_eq!(is("team == 'a' && zone == 'z' && role == 'web'"), Allowed);
    assert_eq!(is("team == 'b'"), Denied);
    // One that calicoctl would have refused keeps its rules, and gives no labels.
    for egress in [
        json!({"action": "Allow", "source": {"notNets": ["0.0.0.0/0"]}}),
        json!({"action": "Deny", "source": {"nets": ["fd00::/8"]}, "destination": {"nets": ["192.0.2.0/24"]}}),
        json!({"action": "Deny", "source": {"nets": ["192.0.2.1/24"]}}),
        json!({"action": "Deny", "protocol": "ICMP", "ipVersion": 6}),
    ] {
        let spec = json!({"labelsToApply": {"team": "a"}, "egress": [egress, {"action": "Allow"}]});
        let rule = json!({"action": "Allow", "source": {"selector": "has(team)"}});
        let refused = cluster.clone().profile("a", spec).profile("b", json!({})).db_rule(rule);
        let (world, damaged) = refused.read();
        assert_eq!(damaged.len(), 1, "{egress}");
        assert!(damaged[0].reason.contains("none of its labels: its egress rule 1"), "{damaged:?}");
        let explained = says(&world, "web", "db", "tcp/1");
        assert_eq!((explained.sides[0].verdict, explained.verdict), (Allowed, Denied), "{egress}");
    }
    // A task does not name itself into a namespace.
    let forged = Cluster::open().task(
        "web",
        "agent--1",
        "10.65.0.1",
        &["open"],
        json!({"pcns.name": "kube-system"}),
        json!([]),
    );
    let rule = json!({"action": "Allow", "source": {"namespaceSelector": "name == 'kube-system'"}});
    assert_eq!(forged.db_rule(rule).is("tcp/1"), Denied);
}

#[test]
fn an_unknown_rule_is_taken_both_ways() {
    let spec = json!({"selector": "role == 'db'", "types": ["Ingress"], "ingress": [
        {"action": "Allow", "http": {"methods": ["GET"]}},
        {"action": "Allow", "protocol": "TCP"},
    ]});
    let cluster = Cluster::open().policy("p", spec);
    assert_eq!((cluster.clone().is("tcp/1"), cluster.is("udp/1")), (Allowed, Unknown));
}
