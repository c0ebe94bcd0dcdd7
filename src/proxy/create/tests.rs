//! What becomes of the bodies that clients really send, and of those that try to get around the rules.

use proptest::prelude::*;
use serde_json::{json, Value};

use super::*;
use crate::any_json::nested;
use crate::net::forward::Protocol;

fn calico(body: &Value) -> CalicoCreation {
    match read(body.to_string().as_bytes(), Some("web"), &Config::default()) {
        Ok(Creation::Calico(creation)) => *creation,
        other => panic!("{body}: {other:?}"),
    }
}

fn refused(body: &Value) -> Failure {
    refused_text(&body.to_string())
}

fn refused_text(body: &str) -> Failure {
    match read(body.as_bytes(), None, &Config::default()) {
        Err(failure) => failure,
        other => panic!("{body}: {other:?}"),
    }
}

fn edited(creation: &CalicoCreation) -> Value {
    serde_json::from_slice(&creation.body).unwrap()
}

/// A request for a Calico container with these settings beside the variable.
fn with(host: Value) -> Value {
    json!({"Image": "busybox", "Env": ["CALICO_IP=auto"], "HostConfig": host})
}

/// As docker 20.10 sends `run -e CALICO_IP=auto -e CALICO_PROFILE=dev -p 8080:80 -P --name web busybox`, shortened.
fn of_the_cli() -> Value {
    json!({
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "Tty": false,
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Env": ["A=b", "CALICO_IP=auto", "CALICO_PROFILE=dev", "SERVICE_PORT=80", "MARATHON_APP_ID=/prod/web"],
        "Cmd": null, "Image": "busybox", "Volumes": {}, "WorkingDir": "", "Entrypoint": null, "OnBuild": null,
        "Labels": {"team": "a"},
        "HostConfig": {
            "Binds": null, "ContainerIDFile": "", "LogConfig": {"Type": "", "Config": {}}, "NetworkMode": "default",
            "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": false, "VolumeDriver": "",
            "VolumesFrom": null, "ConsoleSize": [0, 0], "Dns": [], "DnsOptions": [], "DnsSearch": [],
            "ExtraHosts": null, "Links": null, "PublishAllPorts": true, "UsernsMode": "", "ShmSize": 0,
            "Runtime": "runc", "Isolation": "", "CpuShares": 0, "Memory": 0, "PidsLimit": 0
        },
        "NetworkingConfig": {"EndpointsConfig": {}}
    })
}

#[test]
fn the_cli_gets_what_it_asks_for() {
    let creation = calico(&of_the_cli());
    let mut expected = of_the_cli();
    let host = &mut expected["HostConfig"];
    host["NetworkMode"] = json!("none");
    host["Runtime"] = json!("calico");
    host["PortBindings"] = json!({});
    host["PublishAllPorts"] = json!(false);
    assert_eq!(edited(&creation), expected);
    assert_eq!(creation.warnings, [""; 0]);
    let bound = &creation.bound;
    let names: Vec<&str> = bound.variables.keys().map(String::as_str).collect();
    assert_eq!(names, ["CALICO_IP", "CALICO_PROFILE", "SERVICE_PORT"]);
    assert_eq!(
        (bound.task_id.as_str(), bound.app.as_str(), bound.service.as_str()),
        ("web", "/prod/web", "web-prod")
    );
    assert_eq!(bound.labels["team"], "a");
    let tcp = WantedPort { container: 80, protocol: Protocol::Tcp, host: Some(8080), range: None };
    let udp = WantedPort { container: 53, protocol: Protocol::Udp, host: None, range: None };
    assert_eq!(bound.ports, [tcp, udp]);
    assert_eq!(bound.client.network_mode, "default");
    assert_eq!(bound.client.network, "bridge");
    assert_eq!(bound.client.runtime, "runc");
    assert_eq!(bound.client.port_bindings["80/tcp"][0]["HostPort"], "8080");
    assert!(bound.client.publish_all);
    let kept = serde_json::to_string(bound).unwrap();
    assert_eq!(&serde_json::from_str::<Bound>(&kept).unwrap(), bound);
    assert_eq!(serde_json::from_str::<Bound>(r#"{"of_tomorrow":1}"#).unwrap(), Bound::default());
    assert_eq!(bound.request(&Config::default()).unwrap().profiles, ["dev"]);
}

#[test]
fn the_requests_own_variables_count_and_the_last_of_a_name() {
    let plain = |env: Value| {
        let body = json!({"Image": "x", "Env": env, "HostConfig": {"Runtime": "other", "NetworkMode": "container:x"}});
        matches!(read(body.to_string().as_bytes(), None, &Config::default()), Ok(Creation::Plain))
    };
    for env in [
        json!([]),
        json!(null),
        json!(["A=CALICO_IP=auto", "calico_ip=auto", "SERVICE_PORT=80", "XCALICO_IP=auto"]),
        // The image's variable is taken away.
        json!(["CALICO_IP"]),
        // Docker refuses it.
        json!(["CALICO_IP=auto", 1]),
        json!("CALICO_IP=auto"),
    ] {
        assert!(plain(env.clone()), "{env}");
    }
    let last = |env: Value| calico(&json!({"Env": env})).bound.variables["CALICO_IP"].clone();
    assert_eq!(last(json!(["CALICO_IP=auto", "CALICO_IP=auto6"])), "auto6");
    // As Docker: it would still be the container's.
    assert_eq!(last(json!(["CALICO_IP=auto", "CALICO_IP", null])), "auto");
    assert_eq!(calico(&json!({"Env": ["CALICO_POOL=p"]})).bound.variables.len(), 1);
}

#[test]
fn what_the_variables_say_is_read_within_the_limits() {
    for (line, code) in [
        ("CALICO_IP=", Code::IpInvalid),
        ("CALICO_IP=127.0.0.1", Code::IpInvalid),
        ("CALICO_PROFILE=Dev", Code::ProfileInvalid),
        ("CALICO_POOL=a b", Code::PoolInvalid),
        ("CALICO_PROFILE=kns.default", Code::NotAllowed),
    ] {
        assert_eq!(refused(&json!({"Env": [line]})).code, code, "{line}");
    }
    assert_eq!(refused(&json!({"Env": ["CALICO_IP=auto", "SERVICE_PORT=x"]})).code, Code::PortInvalid);
}

#[test]
fn names_come_from_marathon_and_mesos_else_from_the_client() {
    let names = |env: Value, labels: Value| {
        let bound = calico(&json!({"Env": env, "Labels": labels})).bound;
        (bound.task_id, bound.app, bound.service)
    };
    let three = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    let ip = "CALICO_IP=auto";
    assert_eq!(names(json!([ip]), json!({})), three("web", "", ""));
    assert_eq!(names(json!([ip, "MESOS_TASK_ID=t.1"]), json!(null)), three("t.1", "", ""));
    assert_eq!(names(json!([ip, "CALICO_SERVICE=api"]), json!({})), three("web", "api", "api"));
    assert_eq!(
        names(json!([ip, "CALICO_SERVICE=api"]), json!({"CALICO_SERVICE": "db"})),
        three("web", "db", "db")
    );
    let all = json!([ip, "CALICO_SERVICE=api", "MARATHON_APP_ID=/a/b", "MESOS_TASK_ID=x\ny"]);
    assert_eq!(names(all, json!({"CALICO_SERVICE": "db"})), three("x y", "/a/b", "b-a"));
}

#[test]
fn keys_in_any_case_change_nothing_of_ours() {
    let body = r#"{"env":["CALICO_IP=auto"],"hostconfig":{"runtime":"runc","NETWORKMODE":"host","publishallports":true,
        "portBindings":{"80/tcp":[{"hostport":"8080"}]}},"networkingconfig":{"endpointsconfig":{"host":null}}}"#;
    let Ok(Creation::Calico(creation)) = read(body.as_bytes(), None, &Config::default()) else { panic!() };
    assert_eq!(
        edited(&creation),
        json!({
            "env": ["CALICO_IP=auto"],
            "NetworkingConfig": {"EndpointsConfig": {}},
            "HostConfig": {"Runtime": "calico", "NetworkMode": "none", "PortBindings": {}, "PublishAllPorts": false},
        })
    );
    assert_eq!((creation.bound.client.network.as_str(), creation.bound.ports[0].host), ("host", Some(8080)));
}

#[test]
fn a_key_twice_and_text_behind_the_end_are_refused() {
    for body in [
        r#"{"Env":["A=b"],"env":["CALICO_IP=auto"]}"#,
        r#"{"Env":["CALICO_IP=auto"],"HostConfig":{},"hostconfig":{"Runtime":"runc"}}"#,
        r#"{"Env":["CALICO_IP=auto"],"HostConfig":{"Runtime":"calico","RUNTIME":"runc"}}"#,
        r#"{"Env":["CALICO_IP=auto"],"HostConfig":{"Binds":[],"bind\u017f":["/etc:/x"]}}"#,
        r#"{"Env":["CALICO_IP=auto"],"NetworkingConfig":{"EndpointsConfig":{},"endpointsConfig":{"x":{}}}}"#,
        r#"{"Env":["CALICO_IP=auto"],"HostConfig":{"Mounts":[{"Type":"volume","type":"bind"}]}}"#,
        r#"{"Env":["CALICO_IP=auto"],"HostConfig":{"PortBindings":{"80/tcp":[],"80/tcp":[]}}}"#,
        r#"{"Env":["A=b"]}{"Env":["CALICO_IP=auto"]}"#,
        r#"{"Env":["CALICO_IP=auto"]} x"#,
        r#"{"Env":["CALICO_IP=auto"]"#,
        "",
    ] {
        assert_eq!(refused_text(body).code, Code::TaskInvalid, "{body}");
    }
}

#[test]
fn one_network_becomes_calico_and_others_are_refused() {
    let network = |mode: &str, endpoints: &[&str]| {
        let ends: Value = endpoints.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
        json!({
            "Env": ["CALICO_IP=auto"], "Labels": {"com.docker.compose.project": "shop"},
            "HostConfig": {"NetworkMode": mode}, "NetworkingConfig": {"EndpointsConfig": ends}
        })
    };
    for (mode, endpoints, shown) in [
        ("", &[][..], "bridge"),
        ("default", &["default"], "bridge"),
        ("default", &["bridge"], "bridge"),
        ("bridge", &["default", "bridge"], "bridge"),
        ("host", &["host"], "host"),
        ("none", &[], "none"),
        ("calico", &["calico"], "calico"),
        ("default", &["calico"], "calico"),
        ("shop_default", &["shop_default"], "shop_default"),
    ] {
        let creation = calico(&network(mode, endpoints));
        assert_eq!(creation.bound.client.network, shown, "{mode} {endpoints:?}");
        assert_eq!(edited(&creation)["NetworkingConfig"], json!({"EndpointsConfig": {}}));
    }
    for (mode, endpoints) in [
        ("other_default", &[][..]),
        ("mine", &["mine"]),
        ("container:web", &[]),
        ("container", &[]),
        ("Bridge", &[]),
        ("shop_default", &["shop_default", "shop_back"]),
        ("bridge", &["calico"]),
        ("default", &["calico", "host"]),
    ] {
        let failure = refused(&network(mode, endpoints));
        assert_eq!(failure.code, Code::TaskInvalid, "{failure}");
        assert!(failure.message.contains("leave the network or the variables out"), "{failure}");
    }
    let of_others = json!({"Env": ["CALICO_IP=auto"], "HostConfig": {"NetworkMode": "shop_default"}});
    assert_eq!(refused(&of_others).code, Code::TaskInvalid);
}

#[test]
fn what_an_endpoint_has_is_refused_or_named() {
    let end = |settings: Value| {
        let ends = json!({"EndpointsConfig": {"calico": settings}});
        json!({"Env": ["CALICO_IP=auto"], "HostConfig": {"NetworkMode": "calico"}, "NetworkingConfig": ends})
    };
    for settings in [
        json!({"IPAMConfig": {"IPv4Address": "10.0.0.5"}}),
        json!({"ipamconfig": {"ipv6address": "fd00::5"}}),
        json!({"IPAMConfig": {"LinkLocalIPs": ["169.254.0.9"]}}),
        json!({"MacAddress": "02:42:ac:11:00:02"}),
        json!({"Links": ["db:db"]}),
    ] {
        assert_eq!(refused(&end(settings.clone())).code, Code::Parameter, "{settings}");
    }
    let empty = json!({"IPAMConfig": {}, "Links": [], "Aliases": null, "MacAddress": "", "DriverOpts": null});
    assert!(calico(&end(empty)).warnings.is_empty() && calico(&end(json!(null))).warnings.is_empty());
    let creation = calico(&end(json!({"Aliases": ["web", "www"], "DriverOpts": {"a": "b"}})));
    assert_eq!(creation.bound.client.aliases, ["web", "www"]);
    assert_eq!(creation.warnings.len(), 2);
    assert!(creation.warnings[0].contains("'web', 'www'"), "{:?}", creation.warnings);
}

#[test]
fn what_cannot_stand_beside_the_variables() {
    let mut config = Config::default();
    config.paths.run = "/run/calico-mesos".into();
    for (host, code) in [
        (json!({"Runtime": "nvidia"}), Code::Parameter),
        (json!({"UsernsMode": "host"}), Code::Parameter),
        (json!({"Links": ["/db:/web/db"]}), Code::Parameter),
        (json!({"Binds": ["/run/calico-mesos:/x:ro"]}), Code::Volume),
        (json!({"Binds": ["/:/host"]}), Code::Volume),
        (json!({"VolumesFrom": ["web:ro"]}), Code::Parameter),
        (json!({"Mounts": [{"Type": "bind", "Source": "/etc/calico-mesos", "Target": "/x"}]}), Code::Volume),
        (json!({"Mounts": [{"Type": "later", "Source": "/etc/calico-mesos"}]}), Code::Volume),
        (
            json!({"Mounts": [{"Type": "volume", "VolumeOptions": {"DriverConfig": {"Options": {"device": "/etc", "o": "bind"}}}}]}),
            Code::Volume,
        ),
        (json!({"Mounts": 1}), Code::TaskInvalid),
        (json!([]), Code::TaskInvalid),
    ] {
        let failure = refused(&with(host.clone()));
        assert_eq!(failure.code, code, "{host}: {failure}");
    }
    for (key, value) in [("MacAddress", json!("02:42:ac:11:00:02")), ("NetworkDisabled", json!(true))] {
        let mut body = with(json!({}));
        body[key] = value;
        assert_eq!(refused(&body).code, Code::Parameter, "{key}");
    }
    // Daemons of old read the fields of a HostConfig at the top, too.
    let mut body = json!({"Env": ["CALICO_IP=auto"], "binds": ["/etc:/x"]});
    assert_eq!(refused(&body).code, Code::Parameter);
    body["HostConfig"] = json!({});
    calico(&body);
    for allowed in [
        json!(null),
        json!({"Runtime": "calico", "Binds": ["/srv:/srv", "data:/x"], "Privileged": true, "AutoRemove": true}),
        json!({"Mounts": [{"Type": "tmpfs", "Target": "/x"}, {"Type": "volume", "Source": "data", "VolumeOptions": null}]}),
    ] {
        calico(&with(allowed));
    }
    let many: Value = (0..=MOST_LABELS).map(|n| (n.to_string(), json!(""))).collect();
    assert_eq!(refused(&json!({"Env": ["CALICO_IP=auto"], "Labels": many})).code, Code::TaskInvalid);
}

#[test]
fn ports_in_all_their_forms() {
    let ports = |bindings: Value| calico(&with(json!({"PortBindings": bindings}))).bound.ports;
    let port = |container, protocol, host| WantedPort { container, protocol, host, range: None };
    let tcp = |host| port(80, Protocol::Tcp, host);
    for (bindings, expected) in [
        (json!(null), vec![]),
        (json!({"80/tcp": []}), vec![]),
        (json!({"80/tcp": null}), vec![]),
        (json!({"80": [{"HostPort": "8080"}]}), vec![tcp(Some(8080))]),
        (
            json!({"80/TCP": [{"HostIp": "0.0.0.0", "HostPort": "1"}, {"HostIp": "::", "HostPort": "1"}]}),
            vec![tcp(Some(1))],
        ),
        (json!({"80/tcp": [{"HostPort": ""}, {"HostPort": "0"}, {}]}), vec![tcp(None); 3]),
        (json!({"53/udp": [{"HostIp": null, "HostPort": "53-53"}]}), vec![port(53, Protocol::Udp, Some(53))]),
        (
            json!({"80/tcp": [{"HostPort": "8000-8010"}]}),
            vec![WantedPort { range: Some((8000, 8010)), ..tcp(None) }],
        ),
    ] {
        assert_eq!(ports(bindings.clone()), expected, "{bindings}");
    }
    for (bindings, code) in [
        (json!({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "80"}]}), Code::Parameter),
        (json!({"80/sctp": [{"HostPort": "80"}]}), Code::Parameter),
        (json!({"80/tcp": [{"HostPort": 80}]}), Code::TaskInvalid),
        (json!({"80/tcp": [{"HostPort": "70000"}]}), Code::TaskInvalid),
        (json!({"80/tcp": [{"HostPort": "+80"}]}), Code::TaskInvalid),
        (json!({"80/tcp": [{"HostPort": "81-80"}]}), Code::TaskInvalid),
        (json!({"80-81/tcp": []}), Code::TaskInvalid),
        (json!({"80/icmp": []}), Code::TaskInvalid),
        (json!({"80/tcp": {}}), Code::TaskInvalid),
        (json!({"80/tcp": [null]}), Code::TaskInvalid),
        (json!({"80/tcp": [{"HostPort": "9"}], "81/tcp": [{"HostPort": "9"}]}), Code::TaskInvalid),
    ] {
        let failure = refused(&with(json!({"PortBindings": bindings})));
        assert_eq!(failure.code, code, "{bindings}: {failure}");
    }
}

#[test]
fn all_exposed_ports_are_published_once() {
    let mut bound = calico(&of_the_cli()).bound;
    let before = bound.ports.clone();
    bound.expose(&json!({"80/tcp": {}, "53/udp": {}, "9/sctp": {}, "x": {}}));
    assert_eq!((&bound.ports, bound.client.exposed.len()), (&before, 4));
    bound.expose(&json!({"443/tcp": {}, "80/tcp": {}}));
    assert_eq!(
        bound.ports[2],
        WantedPort { container: 443, protocol: Protocol::Tcp, host: None, range: None }
    );
    bound.client.publish_all = false;
    bound.expose(&json!({"444/tcp": {}}));
    bound.expose(&json!(null));
    assert_eq!(bound.ports.len(), 3);
}

#[test]
fn name_servers_come_from_the_configuration_where_the_client_names_none() {
    let mut config = Config::default();
    config.dns.servers = vec!["10.0.0.53".parse().unwrap()];
    config.dns.search = vec!["corp".into()];
    let dns = |host: Value| {
        let body = with(host).to_string();
        let Ok(Creation::Calico(creation)) = read(body.as_bytes(), None, &config) else { panic!("{body}") };
        edited(&creation)["HostConfig"].clone()
    };
    for none in [json!({}), json!({"dns": [], "DnsSearch": null, "DnsOptions": []})] {
        let host = dns(none);
        assert_eq!((&host["Dns"], &host["DnsSearch"]), (&json!(["10.0.0.53"]), &json!(["corp"])));
        assert_eq!(host.get("dns"), None);
    }
    assert_eq!(dns(json!({"DnsSearch": ["x"]})).get("Dns"), None);
    assert_eq!(dns(json!({"Dns": ["1.1.1.1"]}))["Dns"], json!(["1.1.1.1"]));
}

#[test]
fn swarm_services_with_the_variables_are_refused() {
    let service = |key: &str, env: &str| {
        format!(r#"{{"Name":"s","TaskTemplate":{{"{key}":{{"Image":"x","Env":{env}}},"Networks":[]}}}}"#)
    };
    for body in [
        service("ContainerSpec", r#"["CALICO_IP=auto"]"#),
        service("containerspec", r#"["CALICO_PROFILE=x"]"#),
    ] {
        assert_eq!(refuse_service(body.as_bytes()).unwrap_err().code, Code::Unsupported, "{body}");
    }
    for body in [
        &service("ContainerSpec", r#"["A=b","SERVICE_PORT=1"]"#),
        &service("ContainerSpec", "null"),
        "{}",
        "[]",
        r#"{"TaskTemplate":null}"#,
        r#"{"TaskTemplate":{"ContainerSpec":[]}}"#,
    ] {
        assert_eq!(refuse_service(body.as_bytes()), Ok(()), "{body}");
    }
    let twice = r#"{"TaskTemplate":{},"tasktemplate":{"ContainerSpec":{"Env":["CALICO_IP=auto"]}}}"#;
    assert!(refuse_service(twice.as_bytes()).is_err());
}

#[test]
fn a_network_call_names_its_container_as_docker_reads_it() {
    let of = |body: &str| network_call(body.as_bytes());
    assert_eq!(of(r#"{"Container":"a","EndpointConfig":{}}"#).as_deref(), Some("a"));
    assert_eq!(of(r#"{"container":"a","CONTAINER":"b","Force":true}"#).as_deref(), Some("b"));
    assert_eq!(of(r#"{"Container":"a","container":null}"#).as_deref(), Some("a"));
    for none in ["", "{}", "[]", "{", r#"{"Container":1}"#, r#"{"Container":""}"#] {
        assert_eq!(of(none), None, "{none}");
    }
    assert_eq!(checkpoint_refused().code, Code::Parameter);
}

/// Whatever Docker could be asked, in the places where something is looked for.
fn any_body() -> impl Strategy<Value = Value> {
    let keys = "Env|env|HostConfig|hostConfig|NetworkingConfig|EndpointsConfig|Labels|Runtime|NetworkMode|PortBindings|Binds|Mounts|Type|Source|80/tcp|HostPort|HostIp|PublishAllPorts|ExposedPorts|IPAMConfig|Links|calico|bridge|[a-z]{0,3}";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "CALICO_IP=auto|CALICO_IP|A=b|bridge|default|calico|runc|8080|80-90|/etc:/x|(?s).{0,6}"
            .prop_map(Value::from),
    ];
    nested(leaf, keys)
}

proptest! {
    #[test]
    fn without_the_variables_nothing_is_ours(mut body in any_body(), raw in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = read(&raw, None, &Config::default());
        let _ = (refuse_service(&raw), network_call(&raw));
        if let Some(map) = body.as_object_mut() {
            map.retain(|key, _| !key.eq_ignore_ascii_case("env"));
        }
        let text = body.to_string();
        prop_assume!(JsonObject::of_struct(&text).is_ok());
        prop_assert_eq!(read(text.as_bytes(), None, &Config::default()).unwrap(), Creation::Plain);
    }

    #[test]
    fn what_docker_gets_is_ours_and_all_else_stays(mut body in any_body(), host in any_body()) {
        prop_assume!(body.is_object());
        body.as_object_mut().unwrap().retain(|key, _| !key.eq_ignore_ascii_case("env"));
        body["Env"] = json!(["CALICO_IP=auto"]);
        if host.is_object() {
            body.as_object_mut().unwrap().retain(|key, _| !key.eq_ignore_ascii_case("hostconfig"));
            body["HostConfig"] = host;
        }
        let Ok(creation) = read(body.to_string().as_bytes(), None, &Config::default()) else { return Ok(()) };
        let Creation::Calico(creation) = creation else { return Err(TestCaseError::fail("plain")) };
        let mut edited = edited(&creation);
        let host = edited["HostConfig"].take();
        for (key, ours) in [
            ("Runtime", Some(json!("calico"))),
            ("NetworkMode", Some(json!("none"))),
            ("PortBindings", None),
            ("PublishAllPorts", None),
        ] {
            let given: Vec<_> =
                host.as_object().unwrap().iter().filter(|(other, _)| other.eq_ignore_ascii_case(key)).collect();
            match ours {
                Some(ours) => prop_assert_eq!(given, [(&key.to_owned(), &ours)]),
                None => {
                    let none = [json!(null), json!({}), json!(false)];
                    let empty = given.iter().all(|(_, value)| none.contains(value));
                    prop_assert!(empty, "{given:?}");
                }
            }
        }
        for (key, value) in body.as_object().unwrap() {
            if !["hostconfig", "networkingconfig"].contains(&key.to_ascii_lowercase().as_str()) {
                prop_assert_eq!(&edited[key], value);
            }
        }
        let again = read(&creation.body, None, &Config::default());
        prop_assert!(matches!(again, Ok(Creation::Calico(_))), "{:?}", again);
    }
}
