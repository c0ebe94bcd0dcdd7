//! The variables of ports and labels, with the values that Marathon's task builder makes.

use super::*;

/// What begins with PORT, but for that prefix.
fn ports(json: &str, assigned: &[u16]) -> BTreeMap<String, String> {
    let all = variables(&task(json, assigned)).into_iter();
    all.filter_map(|(name, value)| Some((name.strip_prefix("PORT")?.to_owned(), value))).collect()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn networked(network: &str, mappings: &str) -> String {
    format!(
        r#"{{"id": "/a", "networks": [{network}],
            "container": {{"docker": {{"image": "x"}}, "portMappings": [{mappings}]}}}}"#
    )
}

const BRIDGE: &str = r#"{"mode": "container/bridge"}"#;
const CALICO: &str = r#"{"mode": "container", "name": "calico"}"#;

#[test]
fn port_definitions_are_known_by_what_they_ask_for() {
    let seen = ports(
        &with(r#""portDefinitions": [{"port": 8080}, {"port": 0, "name": "web-api"}]"#),
        &[31000, 31001],
    );
    let expected = [
        ("", "31000"),
        ("0", "31000"),
        ("1", "31001"),
        ("S", "31000,31001"),
        ("_8080", "31000"),
        ("_31001", "31001"),
        ("_WEB-API", "31001"),
    ];
    assert_eq!(seen, map(&expected));
    let fixed = ports(&with(r#""requirePorts": true, "ports": [8080]"#), &[]);
    assert_eq!(fixed, map(&[("", "8080"), ("0", "8080"), ("S", "8080"), ("_8080", "8080")]));
    assert_eq!(ports(&with(r#""ports": []"#), &[]), map(&[]));
}

#[test]
fn the_default_port_has_a_name_and_its_number() {
    let expected =
        [("", "31000"), ("0", "31000"), ("S", "31000"), ("_31000", "31000"), ("_DEFAULT", "31000")];
    assert_eq!(ports(&with(r#""cpus": 1"#), &[31000]), map(&expected));
}

#[test]
fn mappings_are_known_by_the_containers_port() {
    let seen = ports(&networked(BRIDGE, r#"{"containerPort": 80, "name": "http"}, {}"#), &[31000, 31001]);
    let expected = [
        ("", "31000"),
        ("0", "31000"),
        ("1", "31001"),
        ("S", "31000,31001"),
        ("_80", "31000"),
        ("_31001", "31001"),
        ("_HTTP", "31000"),
    ];
    assert_eq!(seen, map(&expected));
}

#[test]
fn a_container_network_has_no_port_of_the_host() {
    let seen =
        ports(&networked(CALICO, r#"{"containerPort": 80, "name": "http"}, {"containerPort": 81}"#), &[]);
    assert_eq!(
        seen,
        map(&[("0", "80"), ("1", "81"), ("S", ""), ("_80", "80"), ("_81", "81"), ("_HTTP", "80")])
    );
    assert_eq!(ports(&networked(CALICO, ""), &[]), map(&[]));
    let mixed =
        ports(&networked(CALICO, r#"{"containerPort": 80}, {"containerPort": 81, "hostPort": 0}"#), &[31000]);
    assert_eq!((&*mixed[""], &*mixed["S"], &*mixed["_81"]), ("31000", "31000", "31000"));
}

#[test]
fn a_container_that_asks_for_any_port_gets_one_of_its_own() {
    let json = networked(CALICO, r#"{"containerPort": 2000}, {"name": "x"}, {}"#);
    for _ in 0..50 {
        let seen = ports(&json, &[]);
        let (first, second) = (&seen["1"], &seen["2"]);
        assert!(first != second && first != "2000", "{seen:?}");
        assert!([first, second].iter().all(|port| port.parse::<u16>().unwrap() >= 1025));
        assert_eq!((&seen[""], &seen["_X"], &seen[&format!("_{second}")]), (first, first, second));
        assert_eq!(seen["S"], format!("{first},{second}"));
    }
    // An app that says nothing about mappings has one of the name default.
    let seen = ports(
        r#"{"id": "/a", "networks": [{"name": "calico"}], "container": {"docker": {"image": "x"}}}"#,
        &[],
    );
    assert_eq!(seen["_DEFAULT"], seen["0"]);
}

#[test]
fn labels_keep_their_underscores() {
    let long = "v".repeat(512);
    let json =
        with(&format!(r#""labels": {{"a__b": "1", "a-.b": "2", "a/b": "3", "long": "{long}", "é": "4"}}"#));
    let all = variables(&task(&json, &[31000]));
    assert_eq!(all["MARATHON_APP_LABELS"], "A_B A__B _");
    assert_eq!(all["MARATHON_APP_LABEL_A__B"], "1");
    assert_eq!(all["MARATHON_APP_LABEL_A_B"], "3");
    assert_eq!(all["MARATHON_APP_LABEL__"], "4");
    assert!(!all.contains_key("MARATHON_APP_LABEL_LONG"));
}

#[test]
fn resources_are_written_as_java_writes_doubles() {
    let json = with(r#""cpus": 0.0005, "mem": 16777216, "disk": 0"#);
    let all = variables(&task(&json, &[31000]));
    let of = |name: &str| all[&format!("MARATHON_APP_RESOURCE_{name}")].as_str();
    assert_eq!((of("CPUS"), of("MEM"), of("DISK"), of("GPUS")), ("5.0E-4", "1.6777216E7", "0.0", "0"));
}
