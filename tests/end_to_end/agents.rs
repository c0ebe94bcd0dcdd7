//! Agents as operators set them up, and as they were years ago.

use std::process::Command;

use calico_mesos::names::ContainerId;
use serde_json::json;

use crate::world::{app, calico, sh, World, CLI};

/// `node install` makes the folder from which this agent launches.
#[tokio::test]
async fn an_agent_launches_from_the_launcher_folder() {
    let host = tempfile::tempdir().unwrap();
    let path = |name: &str| host.path().join(name);
    std::fs::create_dir(path("libexec")).unwrap();
    for name in ["mesos-docker-executor", "mesos-fetcher"] {
        std::fs::write(path("libexec").join(name), "stock").unwrap();
    }
    let farm = path("farm");
    let install = || {
        let mut command = Command::new(CLI);
        command.args(["node", "install", "--from"]).arg(path("libexec")).arg("--dir").arg(&farm);
        let output = command.arg("--daemon-json").arg(path("daemon.json")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    install();

    let world = World::with(
        |_| (),
        |agent| {
            agent.launcher_dir = farm.clone();
            agent.executor = farm.join("mesos-docker-executor");
        },
    )
    .await;
    let task = world.running(&app("/web", "echo up; sleep 1000", calico())).await;
    assert_eq!(task.file("stdout").await, "up\n");
    assert_eq!(task.addresses().len(), 1);
    assert_eq!(std::fs::read_to_string(farm.join("mesos-fetcher")).unwrap(), "stock");
    // Repeated by configuration management while tasks run.
    install();
    task.kill().await;
    world.nothing_left().await;
}

/// Mesos 0.23 to 1.3 put the agent's id before the container's.
#[tokio::test]
async fn an_agent_that_names_containers_in_the_old_way_is_served() {
    let id = ContainerId::random();
    let name = format!("mesos-6db1c143-c75d-491b-8705-250fa686fc69-S0.{id}");
    let flag = format!("--container={name}");
    let world = World::with(|_| (), |agent| agent.extra_flags.push(flag)).await;
    let task = world.running(&app("/old", "sleep 1000", calico())).await;
    let [container] = world.containers().await.try_into().unwrap();
    assert_eq!(container["Names"], json!([format!("/{name}")]));
    let [endpoint] = world.endpoints().await.try_into().unwrap();
    assert_eq!(endpoint["spec"]["workload"], json!(format!("old.{id}")));
    assert!(sh("ip -o link").contains(&id.interface()));
    task.kill().await;
    world.nothing_left().await;
    assert!(!sh("ip -o link").contains(&id.interface()));
}

/// `--executor_environment_variables` leads to Docker; the agent's socket and config.toml do not.
#[tokio::test]
async fn an_agent_whose_docker_has_another_address_is_served() {
    let world = World::with(
        |stack| drop(stack.config.insert("docker.host".into(), "\"unix:///nowhere/config.sock\"".into())),
        |agent| {
            let socket = std::mem::replace(&mut agent.docker_socket, "/nowhere/agent.sock".into());
            agent.executor_environment.insert("DOCKER_HOST".into(), format!("unix://{socket}"));
        },
    )
    .await;
    let task = world.running(&app("/elsewhere", "sleep 1000", calico())).await;
    assert_eq!(world.containers().await.len(), 1);
    task.kill().await;
    world.nothing_left().await;
}
