//! Ports of the host that lead to a Calico task.

use std::net::TcpListener;

use calico_mesos::mesos::messages::TaskState;
use calico_mesos::rig::daemons::StackOptions;
use serde_json::{json, Value};

use crate::kit::wait::eventually;
use crate::world::{app, calico, sh, Task, World};

/// An address of this host, which every world has.
const HOST: &str = "10.99.0.11";

/// A pool that no other world has: all are on one host, where an address is one task's.
async fn world(pool: &str, config: &[(&str, &str)]) -> World {
    let more = |stack: &mut StackOptions| {
        stack.consul = true;
        stack.pools = vec![pool.parse().unwrap()];
        stack.config.extend(config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    };
    World::with(more, |_| ()).await
}

/// A web server on the port named by the shell word, which says what it has been told.
fn server(id: &str, port: &str) -> Value {
    let script = format!(
        "cd /mnt/mesos/sandbox; echo from {id} > index.html; echo $PORT0 > port; exec httpd -f -p {port}"
    );
    app(id, &script, calico())
}

async fn host_port(task: &Task<'_>) -> u16 {
    task.file("port").await.trim().parse().unwrap()
}

/// What the web server behind the host's port says, which may need a moment to start.
async fn fetched(port: u16) -> String {
    eventually(format!("the web server behind port {port} answers"), async || {
        Some(sh(&format!("curl -s -m 5 http://{HOST}:{port}/"))).filter(|text| !text.is_empty())
    })
    .await
}

/// Ports, with their tags, under which Consul knows the app at the host.
async fn in_consul(world: &World, name: &str) -> Vec<(Value, Value)> {
    world.registered(name).await;
    let entries = world.consul(&format!("/v1/catalog/service/{name}")).await;
    entries.as_array().unwrap().iter().map(|e| (e["ServicePort"].clone(), e["ServiceTags"].clone())).collect()
}

#[tokio::test]
async fn a_task_that_listens_on_port0_is_reached_at_its_host() {
    let world = world("10.201.0.0/24", &[]).await;
    let task = world.running(&server("/web", "$PORT0")).await;
    let port = host_port(&task).await;
    assert_eq!(fetched(port).await, "from /web\n", "{}", task.log());
    // Marathon calls the port of an app that says nothing "default".
    assert_eq!(in_consul(&world, "web").await, [(json!(port), json!(["default"]))]);
    task.kill().await;
    world.nothing_left().await;
    assert_eq!(sh(&format!("curl -s -m 5 http://{HOST}:{port}/; echo $?")), "7\n", "nobody is there");
}

#[tokio::test]
async fn a_port_mapping_leads_to_the_container_port() {
    let world = world("10.201.1.0/24", &[]).await;
    let mut app = server("/mapped", "8080");
    app["networks"] = json!([{"mode": "container/bridge"}]);
    app["container"]["portMappings"] = json!([{"containerPort": 8080, "hostPort": 0, "name": "http"}]);
    let task = world.running(&app).await;
    let port = host_port(&task).await;
    assert_eq!(fetched(port).await, "from /mapped\n", "{}", task.log());
    assert_eq!(in_consul(&world, "mapped").await, [(json!(port), json!(["http"]))]);
    task.kill().await;
    world.nothing_left().await;
}

#[tokio::test]
async fn switched_off_nothing_leads_to_the_task() {
    let world = world("10.201.2.0/24", &[("ports.forward", "false")]).await;
    let task = world.running(&server("/off", "$PORT0")).await;
    assert!(!sh("nft list ruleset").contains(&task.launched.container_id));
    // Registered all the same, as by mesos-consul, without a port.
    assert_eq!(in_consul(&world, "off").await, [(json!(0), json!([]))]);
    task.kill().await;
    world.nothing_left().await;
}

#[tokio::test]
async fn a_port_that_somebody_has_fails_the_task_by_name() {
    let world = world("10.201.3.0/24", &[]).await;
    let fixed = |id: &str, port: u16| {
        let mut app = server(id, "$PORT0");
        app["requirePorts"] = json!(true);
        app["portDefinitions"] = json!([{"port": port}]);
        app
    };
    let first = world.running(&fixed("/first", 30999)).await;
    let second = world.launch(&fixed("/second", 30999)).await;
    let message = second.fails().await;
    for part in ["CM-PORT-TAKEN", "30999/tcp", "/first", &first.id] {
        assert!(message.contains(part), "no {part}: {message}");
    }
    second.executor_exit().await;
    assert_eq!(fetched(30999).await, "from /first\n");
    first.kill().await;
    world.nothing_left().await;

    let listener = TcpListener::bind("127.0.0.1:30998").unwrap();
    let third = world.launch(&fixed("/third", 30998)).await;
    let message = third.fails().await;
    for part in ["CM-PORT-TAKEN", "30998/tcp", &format!("pid {}", std::process::id())] {
        assert!(message.contains(part), "no {part}: {message}");
    }
    third.executor_exit().await;
    // Whoever has the port may be about to end: that is waited for.
    let fourth = world.launch(&fixed("/fourth", 30998)).await;
    fourth.logs("trying again for up to ", 1).await;
    drop(listener);
    fourth.reaches(TaskState::TaskRunning).await;
    fourth.kill().await;
    world.nothing_left().await;
}
