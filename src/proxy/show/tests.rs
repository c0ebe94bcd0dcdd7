//! Answers in the shapes of Docker 20.10 (API 1.41) and of Docker 29.

use proptest::prelude::*;

use super::*;
use crate::any_json::nested;
use crate::proxy::create::ClientSettings;

/// A container on the network `none` as Docker 20.10 reports it, shortened.
fn of_docker_20() -> Value {
    let none = json!({
        "IPAMConfig": null, "Links": null, "Aliases": null, "NetworkID": "n0n3", "EndpointID": "e0",
        "Gateway": "", "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "", "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0, "MacAddress": "", "DriverOpts": null
    });
    json!({
        "Id": "ab", "State": {"Running": true, "Pid": 42},
        "HostConfig": {
            "NetworkMode": "none", "PortBindings": {}, "PublishAllPorts": false, "Runtime": "calico",
            "CpuShares": 102, "Links": null
        },
        "Config": {"ExposedPorts": {"80/tcp": {}, "81/tcp": {}}, "Env": ["CALICO_IP=auto"]},
        "NetworkSettings": {
            "Bridge": "", "SandboxID": "s0", "Ports": {}, "SandboxKey": "/var/run/docker/netns/s0",
            "SecondaryIPAddresses": null, "EndpointID": "", "Gateway": "", "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0, "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "", "MacAddress": "",
            "Networks": {"none": none}
        }
    })
}

/// The same as Docker 29 reports it.
fn of_docker_29() -> Value {
    let none = json!({
        "IPAMConfig": null, "Links": null, "Aliases": null, "DriverOpts": null, "GwPriority": 0,
        "NetworkID": "n0n3", "EndpointID": "e0", "Gateway": "", "IPAddress": "", "MacAddress": "",
        "IPPrefixLen": 0, "IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "DNSNames": null
    });
    let mut answer = of_docker_20();
    answer["NetworkSettings"] =
        json!({"SandboxID": "s0", "SandboxKey": "/x", "Ports": {}, "Networks": {"none": none}});
    answer
}

fn in_network(mode: &str, network: &str) -> Bound {
    let client = ClientSettings {
        network_mode: mode.into(),
        network: network.into(),
        port_bindings: json!({"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}),
        aliases: vec!["web".into()],
        exposed: ["80/tcp", "81/tcp"].map(str::to_owned).into(),
        ..ClientSettings::default()
    };
    Bound { client, ..Bound::default() }
}

/// Gives the closure what is known of a container with both addresses and one port.
fn with_all<T>(bound: &Bound, running: bool, act: impl FnOnce(&Shown<'_>) -> T) -> T {
    let ids = [("bridge", "b1"), ("shop_default", "5h0p")];
    let ids = ids.map(|(name, id)| (name.to_owned(), id.to_owned())).into();
    let addresses = ["192.168.7.20".parse().unwrap(), "fd00::20".parse().unwrap()];
    let ports = [(80, "tcp".to_owned(), 8080), (80, "tcp".to_owned(), 8081)];
    act(&Shown { bound, addresses: &addresses, ports: &ports, network_ids: &ids, running })
}

/// Where the stock executor of Mesos looks.
fn as_mesos_finds_it(answer: &Value) -> &Value {
    let mode = answer["HostConfig"]["NetworkMode"].as_str().unwrap();
    let mode = if mode == "default" { "bridge" } else { mode };
    &answer["NetworkSettings"]["Networks"][mode]["IPAddress"]
}

#[test]
fn inspect_shows_the_clients_settings_with_calicos_address() {
    for mut answer in [of_docker_20(), of_docker_29()] {
        let before = answer.clone();
        let bound = in_network("shop_default", "shop_default");
        with_all(&bound, true, |shown| inspect(&mut answer, shown));
        let host = &answer["HostConfig"];
        assert_eq!((&host["NetworkMode"], &host["Runtime"]), (&json!("shop_default"), &json!("runc")));
        assert_eq!(host["PortBindings"], bound.client.port_bindings);
        assert_eq!(host["CpuShares"], 102);
        let settings = &answer["NetworkSettings"];
        let networks = settings["Networks"].as_object().unwrap();
        assert_eq!(networks.keys().collect::<Vec<_>>(), ["shop_default"]);
        let end = networks["shop_default"].as_object().unwrap();
        for (key, value) in [
            ("NetworkID", json!("5h0p")),
            ("EndpointID", json!("e0")),
            ("IPAddress", json!("192.168.7.20")),
            ("IPPrefixLen", json!(32)),
            ("Gateway", json!("169.254.1.1")),
            ("GlobalIPv6Address", json!("fd00::20")),
            ("GlobalIPv6PrefixLen", json!(128)),
            ("IPv6Gateway", json!("fe80::ecee:eeff:feee:eeee")),
            ("Aliases", json!(["web"])),
        ] {
            assert_eq!(end[key], value, "{key}");
        }
        // No field that this daemon's endpoints do not have, and none less.
        let fields = |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
        assert_eq!(fields(&networks["shop_default"]), fields(&before["NetworkSettings"]["Networks"]["none"]));
        assert_eq!(fields(settings), fields(&before["NetworkSettings"]));
        let everywhere =
            |port: &str| json!([{"HostIp": "0.0.0.0", "HostPort": port}, {"HostIp": "::", "HostPort": port}]);
        let both: Vec<Value> =
            ["8080", "8081"].iter().flat_map(|port| everywhere(port).as_array().unwrap().clone()).collect();
        assert_eq!(settings["Ports"], json!({"80/tcp": both, "81/tcp": null}));
        if let Some(top) = before["NetworkSettings"].get("IPAddress") {
            assert_eq!((top, &settings["IPAddress"]), (&json!(""), &json!("192.168.7.20")));
        }
    }
}

#[test]
fn a_stock_executor_finds_the_address_for_every_network_mode() {
    for (mode, network) in
        [("", "bridge"), ("default", "bridge"), ("bridge", "bridge"), ("host", "host"), ("none", "none")]
    {
        let mut answer = of_docker_20();
        with_all(&in_network(mode, network), true, |shown| inspect(&mut answer, shown));
        assert_eq!(as_mesos_finds_it(&answer), "192.168.7.20", "{mode}");
        let mut answer = of_docker_29();
        with_all(&in_network(mode, network), true, |shown| inspect(&mut answer, shown));
        assert_eq!(
            (as_mesos_finds_it(&answer), &answer["HostConfig"]["NetworkMode"]),
            (&json!("192.168.7.20"), &json!(network))
        );
    }
}

#[test]
fn a_stopped_container_has_no_addresses() {
    for mut answer in [of_docker_20(), of_docker_29()] {
        let mut expected = answer.clone();
        with_all(&in_network("none", "none"), false, |shown| inspect(&mut answer, shown));
        expected["HostConfig"]["Runtime"] = json!("runc");
        expected["HostConfig"]["PortBindings"] = json!({"80/tcp": [{"HostIp": "", "HostPort": "8080"}]});
        expected["NetworkSettings"]["Networks"]["none"]["NetworkID"] = json!("");
        expected["NetworkSettings"]["Networks"]["none"]["Aliases"] = json!(["web"]);
        assert_eq!(answer, expected);
    }
}

#[test]
fn the_list_shows_the_same() {
    let entry = json!({
        "Id": "ab", "Names": ["/web"], "Ports": [], "State": "running", "HostConfig": {"NetworkMode": "none"},
        "NetworkSettings": {"Networks": of_docker_20()["NetworkSettings"]["Networks"]}, "Mounts": []
    });
    let bound = in_network("default", "bridge");
    let mut running = entry.clone();
    with_all(&bound, true, |shown| listed(&mut running, shown));
    assert_eq!(running["HostConfig"]["NetworkMode"], "default");
    assert_eq!(running["NetworkSettings"]["Networks"]["bridge"]["IPAddress"], "192.168.7.20");
    assert_eq!(running["NetworkSettings"]["Networks"]["bridge"]["NetworkID"], "b1");
    assert_eq!(running["NetworkSettings"]["Networks"].as_object().unwrap().len(), 1);
    assert_eq!(running["Ports"].as_array().unwrap().len(), 5);
    assert_eq!(running["Ports"][4], json!({"PrivatePort": 81, "Type": "tcp"}));
    assert_eq!(
        running["Ports"][0],
        json!({"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"})
    );
    let mut stopped = entry;
    with_all(&bound, false, |shown| listed(&mut stopped, shown));
    assert_eq!(stopped["Ports"], json!([]));
    assert_eq!(stopped["NetworkSettings"]["Networks"]["bridge"]["IPAddress"], "");
}

#[test]
fn an_address_of_one_family_leaves_the_other_empty() {
    let bound = in_network("calico", "calico");
    let mut answer = of_docker_29();
    let (ids, addresses) = (BTreeMap::new(), ["fd00::20".parse().unwrap()]);
    let ports = [(80, "tcp".to_owned(), 8080)];
    inspect(
        &mut answer,
        &Shown { bound: &bound, addresses: &addresses, ports: &ports, network_ids: &ids, running: true },
    );
    let settings = &answer["NetworkSettings"];
    let end = &settings["Networks"]["calico"];
    assert_eq!(
        (&end["IPAddress"], &end["Gateway"], &end["IPPrefixLen"]),
        (&json!(""), &json!(""), &json!(0))
    );
    assert_eq!(end["GlobalIPv6Address"], "fd00::20");
    assert_eq!(settings["Ports"]["80/tcp"], json!([{"HostIp": "::", "HostPort": "8080"}]));
}

proptest! {
    #[test]
    fn no_answer_upsets_what_is_shown(
        answer in any_answer(), mode in "bridge|calico|[a-z]{0,4}", running in any::<bool>(), publish_all in any::<bool>(),
    ) {
        let mut bound = in_network(&mode, &mode);
        bound.client.publish_all = publish_all;
        let (mut inspected, mut entry) = (answer.clone(), answer.clone());
        with_all(&bound, running, |shown| {
            inspect(&mut inspected, shown);
            listed(&mut entry, shown);
        });
        if answer["HostConfig"].is_object() {
            prop_assert_eq!(&inspected["HostConfig"]["PublishAllPorts"], publish_all);
            prop_assert_eq!(&inspected["HostConfig"]["PortBindings"], &bound.client.port_bindings);
        }
        if answer["NetworkSettings"].is_object() {
            prop_assert!(inspected["NetworkSettings"]["Networks"][&mode].is_object());
            // Shown twice is shown once: an answer may have passed through two proxies.
            let mut again = inspected.clone();
            with_all(&bound, running, |shown| inspect(&mut again, shown));
            prop_assert_eq!(again, inspected);
        }
    }
}

fn any_answer() -> impl Strategy<Value = Value> {
    let keys = "HostConfig|NetworkSettings|Networks|none|Ports|Config|ExposedPorts|IPAddress|[a-z]{0,3}";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "none|80/tcp|(?s).{0,6}".prop_map(Value::from),
    ];
    nested(leaf, keys)
}
