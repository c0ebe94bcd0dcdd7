//! A health check of each kind.

use calico_mesos::mesos::messages::task_status::Reason;

use crate::kit::wait::eventually;
use crate::world::{addresses, sh, Task};
use crate::{fetched, world, world_with_consul, Example, HOST};

/// Waits for the update that says so.
pub async fn becomes_well(task: &Task<'_>) {
    let status = task.update("a healthy update", |status| status.healthy == Some(true)).await;
    assert_eq!(status.reason, Some(Reason::TaskHealthCheckStatusUpdated.into()));
    assert_eq!(addresses(&status), task.addresses());
}

fn address(task: &Task<'_>) -> String {
    let [address] = task.addresses().try_into().unwrap();
    address
}

pub async fn health_http(example: Example) {
    let world = world_with_consul().await;
    let task = example.running(&world).await;
    becomes_well(&task).await;
    assert_eq!(fetched(&format!("http://{}:8080/health", address(&task))).await, "well\n");
    // Others find it there, and only because it is healthy.
    eventually("it is healthy in Consul", async || {
        let passing = world.consul("/v1/health/service/http-health-direct?passing").await;
        (!passing.as_array().unwrap().is_empty()).then_some(()).ok_or(&task)
    })
    .await;
    task.is_over().await;
}

pub async fn health_https(example: Example) {
    let world = world().await;
    let task = example.running(&world).await;
    becomes_well(&task).await;
    let page = fetched(&format!("https://{}:8443/", address(&task))).await;
    assert!(page.contains("s_server"), "{page}");
    assert!(world.containers().await.is_empty());
    task.is_over().await;
}

pub async fn health_assigned_port(example: Example) {
    let world = world().await;
    let [assigned] = example.ports().try_into().unwrap();
    let check = example.info.health_check.as_ref().and_then(|check| check.http.as_ref());
    assert_eq!(check.map(|http| http.port), Some(assigned.into()));
    let task = example.running(&world).await;
    becomes_well(&task).await;
    assert_eq!(fetched(&format!("http://{}:{assigned}/health", address(&task))).await, "well\n");
    assert_eq!(fetched(&format!("http://{HOST}:{assigned}/health")).await, "well\n");
    task.is_over().await;
}

pub async fn health_tcp(example: Example) {
    let world = world().await;
    let task = example.running(&world).await;
    becomes_well(&task).await;
    // It takes one connection after the other, and the check's own may come in between.
    eventually("it answers", async || {
        let answer = sh(&format!("echo hello | busybox nc -w 5 {} 6379", address(&task)));
        (answer == "hello\n").then_some(()).ok_or(&task)
    })
    .await;
    task.is_over().await;
}

pub async fn health_command(example: Example) {
    let world = world().await;
    let task = example.running(&world).await;
    becomes_well(&task).await;
    task.is_over().await;
}

/// The test plays Marathon, which knows the agent and the port, and not the task's address.
pub async fn health_marathon_http(example: Example) {
    let world = world().await;
    assert_eq!(example.info.health_check, None, "Marathon keeps it to itself");
    let check = &example.app["healthChecks"][0];
    let port = example.ports()[usize::try_from(check["portIndex"].as_u64().unwrap()).unwrap()];
    let task = example.running(&world).await;
    let url = format!("http://{HOST}:{port}{}", check["path"].as_str().unwrap());
    assert_eq!(fetched(&url).await, "well\n");
    task.is_over().await;
}
