//! What a task is registered as, and what is read back.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::any_json::nested;

fn ids(addresses: &[&str], ports: &[(u16, Option<String>)]) -> Vec<(String, Option<u16>, Vec<String>)> {
    let container = ContainerId::parse("5f3cbe1e-77aa-4d1b-8b0e-0c1f2a3b4c5d").unwrap();
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let instance = Instance {
        name: "web-prod",
        app_id: "/prod/web",
        task_id: "prod_web.1",
        container: &container,
        node: "agent-1",
        since: "2026-08-22T10:11:12Z",
        addresses: &addresses,
        ports,
    };
    let services = instance.direct();
    assert!(services.iter().all(|service| service.name == "web-prod-direct"));
    let short = |id: String| id.replace("calico-mesos-5f3cbe1e-77aa-4d1b-8b0e-0c1f2a3b4c5d-", "");
    services.into_iter().map(|service| (short(service.id), service.port, service.tags)).collect()
}

#[test]
fn each_address_and_port_has_an_entry() {
    assert_eq!(ids(&["10.0.0.1"], &[]), [("direct".into(), None, vec![])]);
    assert_eq!(
        ids(&["10.0.0.1", "fd00::1"], &[(80, None), (443, Some("https".into()))]),
        [
            ("80".into(), Some(80), vec![]),
            ("443".into(), Some(443), vec!["https".into()]),
            ("80-v6".into(), Some(80), vec![]),
            ("443-v6".into(), Some(443), vec!["https".into()]),
        ]
    );
}

#[test]
fn an_entry_has_a_check_only_for_a_task_with_one() {
    let host = |health| Service { health, ..serde_json::from_str(LISTED).unwrap() };
    let json = |service| serde_json::to_value(service).unwrap();
    assert_eq!(json(host(None)).get("Check"), None);
    let check = json(host(Some(Health { healthy: false, why: "not yet".into() })))["Check"].clone();
    assert_eq!((&check["Status"], &check["TTL"]), (&"critical".into(), &"87600h".into()));
}

#[test]
fn an_entry_tells_whose_it_is() {
    let entry = |id: &str| Service { id: id.into(), ..serde_json::from_str(LISTED).unwrap() };
    let id = "5f3cbe1e-77aa-4d1b-8b0e-0c1f2a3b4c5d";
    let ours = entry(&format!("{PREFIX}{id}-host-31000")).container();
    assert_eq!(ours.map(|container| container.to_string()), Some(id.to_owned()));
    for tail in ["", "-", "80", "-/../web", "-80?x", "-%2e%2e", "-80\n", "-é"] {
        let other = format!("{PREFIX}{id}{tail}");
        assert_eq!(entry(&other).container(), None, "{other}");
    }
    for other in ["web", PREFIX, &format!("{PREFIX}{}-80", id.to_uppercase())] {
        assert_eq!(entry(other).container(), None, "{other}");
    }
}

/// Half of what Consul could answer, and what it never would.
fn json() -> impl Strategy<Value = Value> {
    let key = "ID|Service|Address|Port|Tags|Meta|Check|Status|Notes|ServiceID|[a-z]{0,4}";
    let text = "calico-mesos-[0-9a-f-]{36}-[0-9a-z/.]{0,6}|10\\.0\\.0\\.[0-9]{1,3}|(?s).{0,12}";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    nested(leaf, key)
}

proptest! {
    #[test]
    fn any_answer_is_read_or_refused_without_a_panic(answer in json(), text in "(?s).{0,60}") {
        let _ = serde_json::from_str::<Listed>(&text);
        if let Ok(listed) = serde_json::from_value::<Listed>(answer) {
            for service in with_address(listed) {
                prop_assert!(service.port != Some(0));
            }
        }
    }

    #[test]
    fn an_unreadable_entry_hides_no_other(odd in json()) {
        let listed = Listed::from([
            ("odd".to_owned(), odd),
            ("x".to_owned(), serde_json::from_str(LISTED).unwrap()),
        ]);
        prop_assert!(with_address(listed).iter().any(|service| service.id == "x"));
    }

    #[test]
    fn what_a_cleaner_asks_for_stays_in_its_path(
        id in "calico-mesos-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}-[a-z0-9-]{0,9}[/.%?#]{0,2}",
    ) {
        let service = Service { id: id.clone(), ..serde_json::from_str(LISTED).unwrap() };
        if service.container().is_some() {
            let url = url::Url::parse(&format!("http://h/v1/agent/service/deregister/{id}")).unwrap();
            let last = url.path_segments().unwrap().next_back();
            prop_assert_eq!((last, url.query(), url.fragment()), (Some(id.as_str()), None, None));
        }
    }
}

#[test]
fn what_was_registered_is_read_back_whole() {
    let health = Some(Health { healthy: true, why: "well".into() });
    let service = Service { health, ..serde_json::from_str(LISTED).unwrap() };
    let text = serde_json::to_string(&service).unwrap();
    assert_eq!(serde_json::from_str::<Service>(&text).unwrap(), service);
}

const LISTED: &str =
    r#"{"ID":"x","Service":"web","Address":"10.0.0.1","Port":0,"Tags":[],"Meta":{},"Weights":{"Passing":1}}"#;

#[test]
fn the_hosts_entry_has_the_ports_that_lead_to_the_task() {
    let container = ContainerId::parse("5f3cbe1e-77aa-4d1b-8b0e-0c1f2a3b4c5d").unwrap();
    let instance = Instance {
        name: "web",
        app_id: "/web",
        task_id: "web.1",
        container: &container,
        node: "agent-1",
        since: "2026-08-22T10:11:12Z",
        addresses: &[],
        ports: &[(80, None)],
    };
    let host = "10.0.0.17".parse().unwrap();
    let [alone] = instance.host(host, &BTreeMap::new()).try_into().unwrap();
    assert_eq!((alone.id, alone.port), (format!("{PREFIX}{container}-host"), None));
    let ports = BTreeMap::from([(31001, Some("admin".to_owned())), (31000, None)]);
    let seen =
        instance.host(host, &ports).into_iter().map(|service| (service.id, service.port, service.tags));
    assert_eq!(
        seen.collect::<Vec<_>>(),
        [
            (format!("{PREFIX}{container}-host-31000"), Some(31000), vec![]),
            (format!("{PREFIX}{container}-host-31001"), Some(31001), vec!["admin".to_owned()]),
        ]
    );
}

#[test]
fn a_listed_entry_is_read_back() {
    let service: Service = serde_json::from_str(LISTED).unwrap();
    assert_eq!((service.name.as_str(), service.port, service.container()), ("web", None, None));
}

#[test]
fn an_apps_own_addresses_are_no_other_apps_name() {
    let container = ContainerId::parse("5f3cbe1e-77aa-4d1b-8b0e-0c1f2a3b4c5d").unwrap();
    let of = |name: &str| {
        let instance = Instance {
            name,
            app_id: "/x",
            task_id: "x.1",
            container: &container,
            node: "agent-17",
            since: "2026-11-25T00:00:00Z",
            addresses: &["10.0.0.1".parse().unwrap()],
            ports: &[],
        };
        let all = [instance.direct(), instance.host("10.0.0.17".parse().unwrap(), &BTreeMap::new())];
        all.concat().into_iter().map(|service| service.name).collect::<Vec<_>>()
    };
    assert_eq!(of("other"), ["other-direct", "other"]);
    assert_eq!(of("other-direct"), ["other-direct-direct"]);
    assert_eq!(of(""), [""; 0]);
}
