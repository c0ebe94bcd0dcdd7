//! Records written by hand, each with one thing different from what Calico writes: the verbs for profiles and endpoints
//! name what is damaged and go on.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::datastore::{World, RESOURCES};
use crate::desk::Desk;

const NAME: &str = "host1-mesos-web.1-eth0";

#[derive(Deserialize)]
struct Deviation {
    name: String,
    /// What is different from the first, the baseline.
    put: BTreeMap<String, String>,
    delete: Vec<String>,
}

fn deviations() -> Vec<Deviation> {
    let text = include_str!("../fixtures/calico/deviations.jsonl");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What is said of the endpoint, and whether it is listed all the same.
fn expected(name: &str) -> (Option<&'static str>, bool) {
    match name {
        "wep-ct-bad" | "wep-ct-number" | "wep-profiles-string" => (Some("is damaged: "), false),
        "wep-bad-escaping" | "wep-key-name-differ" => {
            (Some("its name is not NODE-ORCHESTRATOR-WORKLOAD-ENDPOINT"), true)
        }
        "wep-ip-29" => (Some("Felix routes all of 10.65.0.0/29"), true),
        "wep-ip-bad" => (Some("'10.65.0.x/32' in its ipNetworks is not an address"), true),
        "wep-missing" => (None, false),
        _ => (None, true),
    }
}

#[tokio::test]
async fn no_deviation_hides_or_panics() {
    let mut desk = Desk::of(World::empty().await);
    let deviations = deviations();
    for deviation in &deviations {
        desk.world.clear().await;
        for (key, value) in &deviations[0].put {
            desk.world.put(key, value).await;
        }
        for key in &deviation.delete {
            desk.world.delete(key).await;
        }
        for (key, value) in &deviation.put {
            desk.world.put(key, value).await;
        }
        let other = format!("{RESOURCES}/workloadendpoints/default/host1-mesos-other-eth0");
        let good = r#"{"metadata":{"name":"host1-mesos-other-eth0"},"spec":{"ipNetworks":["10.65.0.6/32"],"interfaceName":"calib"}}"#;
        desk.world.put(&other, good).await;
        let (warning, listed) = expected(&deviation.name);
        for line in ["endpoint show --detailed", "endpoint show", "profile show --detailed"] {
            let said = desk.run(line);
            assert_eq!(said.code, 0, "{}: {said:?}", deviation.name);
            // A profile that is missing is another matter.
            let warnings: Vec<&str> =
                said.stderr.lines().filter(|line| !line.contains("there is no profile")).collect();
            assert_eq!(warnings.len(), usize::from(warning.is_some()), "{}: {said:?}", deviation.name);
            assert!(
                warnings.iter().all(|line| line.contains(warning.unwrap())),
                "{}: {said:?}",
                deviation.name
            );
            assert!(warnings.iter().all(|line| line.contains("/workloadendpoints/default/")), "{said:?}");
        }
        let said = desk.run("endpoint show -o name");
        assert!(said.stdout.contains("host1-mesos-other-eth0\n"), "{}: {said:?}", deviation.name);
        assert_eq!(said.stdout.lines().count(), 1 + usize::from(listed), "{}: {said:?}", deviation.name);
        let said = desk.run(&format!("endpoint {NAME} profile set projectcalico-default-allow"));
        assert!(said.code < 2 && !said.stderr.contains("panicked"), "{}: {said:?}", deviation.name);
        let said = desk.run("policy show");
        assert_eq!(said.code, 0, "{}: {said:?}", deviation.name);
    }
}

#[tokio::test]
async fn damaged_profiles_are_named_and_kept() {
    let mut desk = Desk::of(World::empty().await);
    let key = |name: &str| format!("{RESOURCES}/profiles/{name}");
    let broken = [
        ("a", "{"),
        ("b", "[]"),
        ("c", r#"{"spec":{"ingress":{}}}"#),
        ("d", r#"{"spec":{"labelsToApply":[]}}"#),
        ("e", r#"{"spec":7}"#),
    ];
    for (name, value) in broken {
        desk.world.put(&key(name), value).await;
    }
    desk.world.put(&key("good"), r#"{"spec":{}}"#).await;
    let before = desk.world.dump().await;
    let said = desk.run("profile show -o name");
    assert_eq!((said.code, said.stdout.as_str()), (0, "c\nd\ngood\n"), "{said:?}");
    for name in ["a", "b", "c", "d", "e"] {
        assert!(said.stderr.contains(&format!("{} is damaged", key(name))), "{said:?}");
    }
    for line in [
        "profile a rule show",
        "profile b tag add x",
        "profile c rule add inbound deny",
        "profile d tag add x",
    ] {
        let said = desk.run(line);
        assert_eq!(said.code, 1, "{line}: {said:?}");
        assert!(said.stderr.contains("/profiles/") && !said.stderr.contains("panicked"), "{said:?}");
    }
    assert_eq!(desk.world.dump().await, before);
}
