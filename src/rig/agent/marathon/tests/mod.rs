//! App definitions as people write them, and what becomes of them.

mod checks;
mod networks;
mod sources;
mod variables;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::any_json::nested;
use crate::mesos::messages::container_info::docker_info;
use crate::mesos::messages::TaskInfo;

const TESTAPP: &str = r#"{"id": "testapp", "instances": 1, "cpus": 0.1, "mem": 32, "uris": [],
 "container": {"type": "DOCKER", "docker": {"image": "busybox"}},
 "env": {"CALICO_IP": "auto", "CALICO_PROFILE": "dev", "SERVICE_PORT": "3000"},
 "cmd": "while sleep 10; do date -u +%T; done"}"#;

fn task(json: &str, ports: &[u16]) -> TaskInfo {
    let app = App::parse(json).unwrap();
    assert_eq!(app.free_ports(), ports.len());
    app.task_info(&AppInstance::new("agent7.example.org", ports.to_vec()))
}

fn variables(task: &TaskInfo) -> BTreeMap<String, String> {
    let environment = task.command.as_ref().unwrap().environment.as_ref().unwrap();
    environment.variables.iter().map(|own| (own.name.clone(), own.value.clone().unwrap())).collect()
}

fn docker(task: &TaskInfo) -> &crate::mesos::messages::container_info::DockerInfo {
    task.container.as_ref().unwrap().docker.as_ref().unwrap()
}

fn with_executor(json: &str) -> Result<App, AppError> {
    App::read(json.as_bytes(), &AppChoice { executor: Some("/x"), app: None })
}

fn refusal(json: &str) -> String {
    crate::error::chain(&App::parse(json).unwrap_err())
}

fn with(extra: &str) -> String {
    format!(r#"{{"id": "/a", "container": {{"docker": {{"image": "x"}}}}, {extra}}}"#)
}

#[test]
fn what_no_program_can_be_started_with_is_refused() {
    let sized = |bytes: usize| with(&format!(r#""cmd": "x", "env": {{"BIG": "{}"}}"#, "x".repeat(bytes)));
    assert!(App::parse(&sized((128 << 10) - 5)).is_ok());
    let message = refusal(&sized((128 << 10) - 4));
    assert!(
        message.contains("env.BIG has 131072 bytes") && message.contains("less than 131072"),
        "{message}"
    );
    let line = "x".repeat(128 << 10);
    assert!(refusal(&with(&format!(r#""cmd": "{line}""#))).contains("cmd has 131072 bytes"));
    assert!(refusal(&with(&format!(r#""args": ["a", "{line}"]"#))).contains("args has 131072 bytes"));
    let labels: Vec<String> = (0..300).map(|n| format!(r#""{n}-{}": """#, "x".repeat(480))).collect();
    let labels = format!(r#""cmd": "x", "labels": {{{}}}"#, labels.join(","));
    assert!(refusal(&with(&labels)).contains("env.MARATHON_APP_LABELS"));
}

#[test]
fn the_testapp_of_the_user_is_read_unmodified() {
    let task = task(TESTAPP, &[31005]);
    let id = task.task_id.value.clone();
    assert!(id.starts_with("testapp.instance-") && id.ends_with("._app.1"), "{id}");
    assert_eq!(task.name, "testapp");
    let command = task.command.as_ref().unwrap();
    assert!(command.shell() && command.value() == "while sleep 10; do date -u +%T; done");
    assert_eq!(docker(&task).network(), docker_info::Network::Host);
    assert_eq!(docker(&task).parameters[0].value, format!("MESOS_TASK_ID={id}"));
    assert!(docker(&task).port_mappings.is_empty());
    let variables = variables(&task);
    for (name, value) in [
        ("CALICO_IP", "auto"),
        ("MARATHON_APP_ID", "/testapp"),
        ("MARATHON_APP_DOCKER_IMAGE", "busybox"),
        ("MARATHON_APP_RESOURCE_CPUS", "0.1"),
        ("MARATHON_APP_RESOURCE_MEM", "32.0"),
        ("MARATHON_APP_LABELS", ""),
        ("HOST", "agent7.example.org"),
        ("PORT", "31005"),
        ("PORT0", "31005"),
        ("PORTS", "31005"),
        ("MESOS_TASK_ID", id.as_str()),
    ] {
        assert_eq!(variables.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(task.resources.len(), 3);
    assert_eq!(task.resources[2].ranges.as_ref().unwrap().range[0].begin, 31005);
}

#[test]
fn networks_of_the_newer_schema_are_read() {
    let task = task(
        r#"{"id": "/shop/cart/web", "args": ["-v"], "labels": {"team-x": "blue"},
            "networks": [{"mode": "container/bridge"}],
            "container": {"type": "DOCKER", "docker": {"image": "reg/web:1"}, "portMappings": [
              {"containerPort": 8080, "hostPort": 0, "name": "http"},
              {"containerPort": 53, "hostPort": 31053, "protocol": "udp,tcp"}]},
            "env": {"PORT0": "mine"}, "taskKillGracePeriodSeconds": 7}"#,
        &[31005],
    );
    assert_eq!(task.name, "web.cart.shop");
    assert!(task.task_id.value.starts_with("shop_cart_web.instance-"));
    let command = task.command.as_ref().unwrap();
    assert_eq!(
        (command.shell, command.value.is_none(), &command.arguments[..]),
        (Some(false), true, &["-v".to_owned()][..])
    );
    let variables = variables(&task);
    assert_eq!(variables["PORT_8080"], "31005");
    assert_eq!(variables["PORT_HTTP"], "31005");
    assert_eq!(variables["PORT0"], "mine");
    assert_eq!(variables["PORTS"], "31005,31053");
    assert_eq!(variables["MARATHON_APP_LABELS"], "TEAM_X");
    assert_eq!(variables["MARATHON_APP_LABEL_TEAM_X"], "blue");
    let mappings = &docker(&task).port_mappings;
    assert_eq!(mappings.len(), 3);
    assert_eq!(
        (mappings[0].host_port, mappings[0].container_port, mappings[0].protocol()),
        (31005, 8080, "tcp")
    );
    assert_eq!(task.kill_policy.unwrap().grace(), Some(std::time::Duration::from_secs(7)));
    assert_eq!(task.discovery.unwrap().ports.unwrap().ports.len(), 3);
}

#[test]
fn a_user_network_in_both_schemas() {
    let new = task(&with(r#""networks": [{"mode": "container", "name": "calico"}]"#), &[]);
    let old = task(
        r#"{"id": "/a", "container": {"docker": {"image": "x", "network": "USER"}}, "ipAddress": {"networkName": "calico"}}"#,
        &[],
    );
    for task in [new, old] {
        assert_eq!(docker(&task).network(), docker_info::Network::User);
        assert_eq!(task.container.unwrap().network_infos[0].name(), "calico");
    }
}

#[test]
fn networks_of_the_older_schema_are_read() {
    let task = task(
        r#"{"id": "a", "container": {"type": "DOCKER", "docker": {"image": "x", "network": "BRIDGE",
             "portMappings": [{"containerPort": 80}]}, "volumes": [{"containerPath": "/d", "hostPath": "/h", "mode": "RO"}]},
             "uris": ["http://h/x.tgz"],
             "healthChecks": [{"protocol": "HTTP"}, {"protocol": "MESOS_HTTP", "portIndex": 0, "path": "/ok"}]}"#,
        &[31000],
    );
    assert_eq!(docker(&task).port_mappings[0].container_port, 80);
    assert_eq!(task.container.as_ref().unwrap().volumes[0].host_path(), "/h");
    assert!(task.command.as_ref().unwrap().uris[0].extract());
    let http = task.health_check.unwrap().http.unwrap();
    assert_eq!((http.port, http.path()), (80, "/ok"));
}

#[test]
fn refusals_name_the_field() {
    for (json, parts) in [
        ("[]".to_owned(), ["list", "--app ID"]),
        (r#"{"id": "/", "apps": []}"#.to_owned(), ["group", "--app ID"]),
        ("{".to_owned(), ["JSON", "line"]),
        ("7".to_owned(), ["object", "id"]),
        ("{}".to_owned(), ["id", "missing"]),
        (r#"{"id": "/Web"}"#.to_owned(), ["id", "/Web"]),
        (r#"{"id": "/../x"}"#.to_owned(), ["id", "invalid"]),
        (r#"{"id": "/a"}"#.to_owned(), ["container is missing", "--executor"]),
        (r#"{"id": "/a", "container": {"type": "MESOS"}}"#.to_owned(), ["container.type MESOS", "no image"]),
        (
            r#"{"id": "/a", "container": {"type": "mesos", "docker": {"image": "x"}}}"#.to_owned(),
            ["container.type MESOS", r#"with "type": "DOCKER" Docker runs the same image"#],
        ),
        (r#"{"id": "/a", "container": {"type": "DOCKER"}}"#.to_owned(), ["container.docker", "missing"]),
        (r#"{"id": "/a", "container": {"docker": {}}}"#.to_owned(), ["container.docker.image", "missing"]),
        (with(r#""cpus": "1""#), ["cpus", "number"]),
        (with(r#""mem": -1"#), ["mem", "negative"]),
        (with(r#""env": {"A": {"secret": "s"}}"#), ["env.A", "secret"]),
        (with(r#""env": {"A": 7}"#), ["env.A", "string"]),
        (with(r#""secrets": {"s": {"source": "x"}}"#), ["secrets", "secret store"]),
        (with(r#""cmd": "a", "args": ["b"]"#), ["args", "exclude"]),
        (with(r#""executor": "/opt/x""#), ["executor", "/opt/x"]),
        (with(r#""networks": [{"mode": "overlay"}]"#), ["networks[0].mode", "overlay"]),
        (with(r#""networks": [{"mode": "container"}]"#), ["networks[0].name", "missing"]),
        (with(r#""networks": [{"mode": "host"}], "ipAddress": {}"#), ["networks", "exclude"]),
        (with(r#""ports": [1], "portDefinitions": [{"port": 2}]"#), ["ports", "exclude"]),
        (with(r#""uris": ["/a"], "fetch": [{"uri": "/b"}]"#), ["uris", "exclude"]),
        (with(r#""portDefinitions": [{"port": 99999}]"#), ["portDefinitions[0].port", "65535"]),
        (with(r#""ports": ["a"]"#), ["ports[0]", "port"]),
        (with(r#""healthChecks": [{"protocol": "SMTP"}]"#), ["healthChecks[0].protocol", "SMTP"]),
        (with(r#""healthChecks": [{"protocol": "COMMAND"}]"#), ["healthChecks[0].command", "missing"]),
    ] {
        let text = refusal(&json);
        assert!(parts.iter().all(|part| text.contains(part)), "{json}: {text}");
    }
}

#[test]
fn fields_that_only_steer_marathon_are_let_be() {
    let json = with(
        r#""constraints": [["hostname", "UNIQUE"]], "upgradeStrategy": {"maximumOverCapacity": 0}, "secrets": {},
           "backoffSeconds": 1, "acceptedResourceRoles": ["*"], "version": "x", "dependencies": [], "cmd": null"#,
    );
    assert!(App::parse(&json).is_ok());
}

fn anything() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        prop_oneof![
            "[ -~]{0,12}",
            Just("DOCKER".to_owned()),
            Just("BRIDGE".to_owned()),
            Just("container".to_owned())
        ]
        .prop_map(Into::into),
        (0u64..70000).prop_map(Into::into),
    ];
    let names = prop_oneof![
        Just("id"),
        Just("container"),
        Just("docker"),
        Just("image"),
        Just("network"),
        Just("networks"),
        Just("mode"),
        Just("name"),
        Just("portMappings"),
        Just("containerPort"),
        Just("hostPort"),
        Just("env"),
        Just("healthChecks"),
        Just("protocol"),
        Just("portDefinitions"),
        Just("port"),
        Just("labels"),
        Just("volumes"),
        Just("fetch"),
        Just("uri"),
        Just("resourceLimits"),
        Just("taskKillGracePeriodSeconds"),
    ]
    .prop_map(str::to_owned);
    nested(leaf, names)
}

proptest! {
    #[test]
    fn parsing_never_panics(value in anything()) {
        let mut value = value;
        if let Some(map) = value.as_object_mut() {
            map.insert("id".into(), "/a".into());
            map.entry("container").or_insert_with(|| serde_json::json!({"docker": {"image": "x"}}));
        }
        if let Ok(app) = App::parse(&value.to_string()) {
            let instance = AppInstance::new("h", vec![31000; app.free_ports()]);
            prop_assert!(app.task_info(&instance).container.is_some());
        }
    }
}

#[test]
fn an_app_with_a_path_executor_is_read() {
    let app = r#"{"id": "/shop/web", "executor": "/opt/our executor", "cmd": "serve --port $PORT0", "env": {"A": "b"}}"#;
    let task = task(app, &[31000]);
    assert!(task.command.is_none() && task.container.is_none());
    let executor = task.executor.unwrap();
    assert_eq!(executor.executor_id.value, format!("marathon-{}", task.task_id));
    let command = executor.command.unwrap();
    let line = "chmod ug+rx '/opt/our executor' && exec '/opt/our executor' serve --port $PORT0";
    assert!(command.shell());
    assert_eq!(command.value(), line);
    let names: Vec<_> = command.environment.unwrap().variables.into_iter().map(|own| own.name).collect();
    assert!(names.contains(&"A".to_owned()) && names.contains(&"MARATHON_APP_ID".to_owned()));
    assert!(!names.contains(&"MARATHON_APP_DOCKER_IMAGE".to_owned()));
}

#[test]
fn marathons_own_executor_by_default() {
    let json = r#"{"id": "a", "cmd": "x"}"#;
    assert_eq!(with_executor(json).unwrap().executor.as_deref(), Some("/x"));
    let json = r#"{"id": "a", "cmd": "x", "executor": "//cmd", "container": {"docker": {"image": "x"}}}"#;
    assert_eq!(with_executor(json).unwrap().executor, None);
}

#[test]
fn features_that_a_path_executor_lacks_are_refused() {
    for (rest, words) in [
        (r#""cmd": "x", "container": {"docker": {"image": "x"}}"#, "CALICO_DOCKER_IMAGE"),
        (r#""cmd": "x", "container": {"type": "DOCKER", "docker": {"image": "x"}}"#, "mesos-docker-executor"),
        (r#""cmd": "x", "container": {"type": "MESOS", "volumes": []}"#, "type MESOS"),
        (r#""args": ["x"]"#, "needs a cmd"),
        (r#""cmd": " ""#, "needs a cmd"),
        (r#""cmd": "x", "networks": [{"mode": "container", "name": "n"}]"#, "host's network"),
    ] {
        let told = refusal(&format!(r#"{{"id": "a", "executor": "/x", {rest}}}"#));
        assert!(told.contains("executor '/x'") && told.contains(words), "{told}");
    }
    assert!(refusal(r#"{"id": "a", "executor": "/it's", "cmd": "x"}"#).contains("single quote"));
}
