//! Both network schemas, mixed as people mix them: what Marathon makes of it.

use super::*;
use docker_info::Network::{Bridge, Host, User};

/// An app with these fields, and with these in its container and its Docker part.
fn app(top: &str, container: &str, docker: &str) -> String {
    format!(
        r#"{{"id": "/a", {top} "container": {{"type": "DOCKER", {container} "docker": {{{docker} "image": "x"}}}}}}"#
    )
}

/// The network and the mappings of the first instance, which gets the ports from 31000 on.
fn seen(json: &str) -> (docker_info::Network, Vec<(u32, u32)>) {
    let app = App::parse(json).unwrap_or_else(|error| panic!("{json}: {error}"));
    let ports = (31000..).take(app.free_ports()).collect();
    let task = app.task_info(&AppInstance::new("h", ports));
    let mappings = docker(&task).port_mappings.iter().map(|own| (own.host_port, own.container_port));
    (docker(&task).network(), mappings.collect())
}

#[test]
fn pairs_that_say_the_same_are_accepted() {
    let mapped = r#""portMappings": [{"containerPort": 80, "hostPort": 0}],"#;
    let bridge = (Bridge, vec![(31000, 80)]);
    for (json, expected) in [
        (app(r#""networks": [],"#, "", &format!(r#""network": "BRIDGE", {mapped}"#)), bridge.clone()),
        (app(r#""networks": [{"mode": "container/bridge"}],"#, "", mapped), bridge.clone()),
        (app("", mapped, r#""network": "BRIDGE", "portMappings": [],"#), bridge.clone()),
        (app(r#""ipAddress": {"networkName": "mesos-bridge"},"#, mapped, ""), bridge.clone()),
        (app(r#""ipAddress": {},"#, mapped, r#""network": "BRIDGE","#), bridge),
        (app(r#""networks": [], "ipAddress": {"networkName": "calico"},"#, "", ""), (User, vec![])),
        (app(r#""ipAddress": {"networkName": "calico"},"#, "", mapped), (User, vec![(31000, 80)])),
        (app(r#""ipAddress": {},"#, "", r#""network": "HOST","#), (Host, vec![])),
        (
            app(r#""ports": [8080], "portDefinitions": [{"port": 8080, "name": "http"}],"#, "", ""),
            (Host, vec![]),
        ),
    ] {
        assert_eq!(seen(&json), expected, "{json}");
    }
    let both = task(
        &app(r#""ports": [8080], "portDefinitions": [{"port": 8080, "name": "http"}],"#, "", ""),
        &[31000],
    );
    assert_eq!(variables(&both)["PORT_HTTP"], "31000");
}

#[test]
fn pairs_that_differ_are_refused() {
    let other = r#""portMappings": [{"containerPort": 81}],"#;
    for json in [
        app(r#""networks": [{"mode": "host"}],"#, "", r#""network": "HOST","#),
        app(
            r#""networks": [{"mode": "container", "name": "a"}], "ipAddress": {"networkName": "a"},"#,
            "",
            "",
        ),
        app("", other, r#""network": "BRIDGE", "portMappings": [{"containerPort": 80}],"#),
    ] {
        assert!(refusal(&json).contains("exclude each other"), "{json}: {}", refusal(&json));
    }
}

#[test]
fn a_bridge_without_mappings_gets_one_port_or_as_many_as_the_app_has() {
    let bridge = r#""network": "BRIDGE","#;
    // The container's port is the host's.
    assert_eq!(seen(&app("", "", bridge)), (Bridge, vec![(31000, 31000)]));
    assert_eq!(variables(&task(&app("", "", bridge), &[31000]))["PORT_DEFAULT"], "31000");
    let three = vec![(31000, 31000), (31001, 31001), (31002, 31002)];
    assert_eq!(seen(&app(r#""ports": [0, 9, 10],"#, "", bridge)), (Bridge, three.clone()));
    assert_eq!(seen(&app(r#""portDefinitions": [{}, {}, {}],"#, "", bridge)), (Bridge, three));
    let first = r#""portMappings": [{"containerPort": 80}],"#;
    assert_eq!(seen(&app(r#""ports": [7, 8],"#, first, bridge)), (Bridge, vec![(31000, 80), (31001, 31001)]));
    // None, outright.
    assert_eq!(seen(&app("", r#""portMappings": [],"#, bridge)), (Bridge, vec![]));
}

#[test]
fn mappings_on_the_hosts_network_are_ignored_with_a_note() {
    for networks in ["", r#""networks": [{"mode": "host"}],"#] {
        let json = app(networks, r#""portMappings": [{"containerPort": 80}],"#, "");
        assert_eq!(seen(&json), (Host, vec![]));
        let notes = App::parse(&json).unwrap().notes;
        assert!(notes.len() == 1 && notes[0].starts_with("portMappings are ignored"), "{notes:?}");
    }
}

#[test]
fn enumerations_are_read_in_any_case() {
    let json = r#"{"id": "/a", "networks": [{"mode": "Container/Bridge"}],
        "container": {"type": "docker", "docker": {"image": "x"}, "portMappings": [{"protocol": "TCP"}],
                      "volumes": [{"containerPath": "/c", "hostPath": "/h", "mode": "ro"}]},
        "healthChecks": [{"protocol": "mesos_http", "ipProtocol": "ipv4"}]}"#;
    let read = task(json, &[31000]);
    assert_eq!(docker(&read).network(), Bridge);
    assert_eq!(docker(&read).port_mappings[0].protocol(), "tcp");
    assert_eq!(read.container.unwrap().volumes[0].mode(), crate::mesos::messages::volume::Mode::Ro);
    assert_eq!(read.health_check.unwrap().http.unwrap().port, 31000);
    assert_eq!(seen(&app("", "", r#""network": "bridge","#)).0, Bridge);
}

#[test]
fn a_container_network_tells_its_ports_by_name() {
    let json =
        app(r#""networks": [{"name": "calico"}],"#, r#""portMappings": [{"containerPort": 80}, {}],"#, "");
    let ports = task(&json, &[]).discovery.unwrap().ports.unwrap().ports;
    let numbers: Vec<_> = ports.iter().map(|port| port.number).collect();
    assert_eq!(numbers, [80, 0]);
    let labels = &ports[0].labels.as_ref().unwrap().labels;
    let labels: Vec<_> =
        labels.iter().map(|label| (label.key.as_str(), label.value.as_deref().unwrap())).collect();
    assert_eq!(labels, [("network-name", "calico"), ("network-scope", "container")]);
}
