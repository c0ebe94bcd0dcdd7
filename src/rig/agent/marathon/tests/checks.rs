//! Health checks: whose they are, and which port they look at.

use super::*;

fn port_of(json: &str, ports: &[u16]) -> u32 {
    let check = task(json, ports).health_check.unwrap();
    check.http.map(|http| http.port).or(check.tcp.map(|tcp| tcp.port)).unwrap()
}

#[test]
fn a_check_looks_at_the_containers_port_or_else_at_the_assigned_one() {
    let http = r#""healthChecks": [{"protocol": "MESOS_HTTP", "portIndex": 1}]"#;
    let tcp = r#""healthChecks": [{"protocol": "MESOS_TCP"}]"#;
    // On the host's network the task listens on $PORT1.
    assert_eq!(port_of(&with(&format!(r#""ports": [0, 0], {http}"#)), &[31000, 31007]), 31007);
    assert_eq!(port_of(&with(tcp), &[31000]), 31000);
    assert_eq!(port_of(&with(&format!(r#""requirePorts": true, "ports": [9999], {tcp}"#)), &[]), 9999);
    let mapped = |mappings: &str, check: &str| {
        format!(
            r#"{{"id": "/a", "networks": [{{"mode": "container/bridge"}}], {check},
                "container": {{"docker": {{"image": "x"}}, "portMappings": [{mappings}]}}}}"#
        )
    };
    assert_eq!(port_of(&mapped(r#"{"containerPort": 80}"#, tcp), &[31000]), 80);
    // Inside and outside the same one.
    assert_eq!(port_of(&mapped(r#"{"containerPort": 0}"#, tcp), &[31005]), 31005);
    assert_eq!(port_of(&mapped("{}, {}", http), &[31000, 31005]), 31005);
    let given = r#""healthChecks": [{"protocol": "MESOS_HTTP", "port": 8443, "portIndex": 0}]"#;
    assert_eq!(port_of(&mapped("{}", given), &[31005]), 8443);
}

#[test]
fn a_port_without_any_number_cannot_be_checked() {
    let json = r#"{"id": "/a", "networks": [{"mode": "container", "name": "calico"}],
        "container": {"docker": {"image": "x"}}, "healthChecks": [{"protocol": "MESOS_TCP"}]}"#;
    assert!(refusal(json).contains("healthChecks[0].port is missing"), "{}", refusal(json));
    let json = with(r#""healthChecks": [{"protocol": "MESOS_TCP", "portIndex": 1}]"#);
    assert!(refusal(&json).contains("healthChecks[0].portIndex 1 is not the index"), "{}", refusal(&json));
}

#[test]
fn checks_that_nothing_here_makes_are_noted() {
    let app = App::parse(&with(
        r#""healthChecks": [{"path": "/"}, {"protocol": "tcp"}, {"protocol": "mesos_tcp"}, {"protocol": "COMMAND",
           "command": {"value": "true"}}], "readinessChecks": [{"name": "r"}]"#,
    ))
    .unwrap();
    let expected = [
        "healthChecks[0] is left out: Marathon itself makes HTTP checks; MESOS_HTTP is what the executor makes",
        "healthChecks[1] is left out: Marathon itself makes TCP checks; MESOS_TCP is what the executor makes",
        "healthChecks[3] is left out: a task has one health check of Mesos'",
        "readinessChecks are left out: Marathon itself makes them",
    ];
    assert_eq!(app.notes, expected);
    assert!(app.health_check.is_some());
    assert_eq!(App::parse(TESTAPP).unwrap().notes, [""; 0]);
}
