//! Each kind of bad input ends in one TASK_FAILED with a sentence and a code, and leaves nothing.

use serde_json::{json, Value};

use crate::kit::wait::eventually;
use crate::world::{app, calico, task_info, with, World};

/// The id of an image that the host does not have. Docker says so without a registry, which tests do not reach.
const NO_IMAGE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

struct Case {
    app: Value,
    code: &'static str,
    says: &'static str,
}

fn case(app: Value, code: &'static str, says: &'static str) -> Case {
    Case { app, code, says }
}

fn variables(name: &str, value: &str) -> Value {
    app("/bad", "sleep 1000", with(calico(), name, value))
}

#[tokio::test]
async fn the_apps_own_faults_fail_at_once() {
    let world = World::new().await;
    let mut no_image = app("/bad", "sleep 1000", calico());
    no_image["container"]["docker"]["image"] = json!(NO_IMAGE);
    let mut no_command = app("/bad", "x", calico());
    no_command["args"] = json!(["/no/such/program"]);
    no_command.as_object_mut().unwrap().remove("cmd");
    let mut parameter = app("/bad", "sleep 1000", calico());
    parameter["container"]["docker"]["parameters"] = json!([{"key": "runtime", "value": "runc"}]);
    let cases = [
        case(variables("CALICO_IP", "banana"), "CM-IP-INVALID", "banana"),
        case(variables("CALICO_IP", "10.255.255.1"), "CM-IP-OUTSIDE", "10.255.255.1"),
        case(variables("CALICO_PROFILE", "no spaces"), "CM-PROFILE-INVALID", "no spaces"),
        case(variables("SERVICE_PORT", "70000"), "CM-PORT-INVALID", "70000"),
        case(no_image, "CM-IMAGE", NO_IMAGE),
        case(no_command, "CM-COMMAND", "/no/such/program"),
        case(parameter, "CM-PARAMETER", "runtime"),
    ];
    for Case { app, code, says } in cases {
        let task = world.launch(&app).await;
        let message = task.fails().await;
        assert!(
            message.contains(says) && message.ends_with(&format!("[localhost, {code}]")),
            "{code}: {message}\n{}",
            task.log()
        );
        task.executor_exit().await;
    }
    world.nothing_left().await;
}

#[tokio::test]
async fn a_refusal_that_overtakes_the_making_of_the_interface() {
    let world = World::new().await;
    let mut tasks = Vec::new();
    for _ in 0..12 {
        tasks.push(world.launch(&variables("CALICO_IP", "10.255.255.1")).await);
    }
    for task in &tasks {
        assert!(task.fails().await.contains("CM-IP-OUTSIDE"));
        task.executor_exit().await;
    }
    world.nothing_left().await;
}

#[tokio::test]
async fn a_task_without_container_and_a_second_task() {
    let world = World::new().await;
    let mut info = {
        let task = world.running(&app("/one", "sleep 1000", calico())).await;
        let second = task_info(&app("/two", "true", calico()));
        let second_id = second.task_id.value.clone();
        world.agent.launch_on(&task.id, second.clone()).await.unwrap();
        let update = async || world.agent.history(&second_id).pop();
        let message = eventually("the second task has an update", update).await.status.message.unwrap();
        assert!(message.contains("CM-BUSY"), "{message}");
        task.kill().await;
        second
    };
    info.container = None;
    info.task_id = "naked.1".to_owned().into();
    let task = world.launch_info(info).await;
    let message = task.fails().await;
    assert!(message.contains("CM-TASK-INVALID"), "{message}");
    task.executor_exit().await;
    world.nothing_left().await;
}

#[tokio::test]
async fn the_clusters_faults_are_retried_and_then_told() {
    let mut world = World::new().await;
    world.stack.etcd.as_mut().unwrap().kill();
    let task = world.launch(&app("/early", "sleep 1000", calico())).await;
    let message = task.fails().await;
    let endpoint = world.stack.etcd_endpoint.clone();
    assert!(
        message.contains("CM-ETCD") && message.contains(&endpoint) && message.contains("tried for"),
        "{message}"
    );
    task.executor_exit().await;
    // Nothing was ever written, so nothing waits for etcd either.
    let journal = world.config.paths.journal();
    assert_eq!(std::fs::read_dir(&journal).unwrap().count(), 0, "a record is left in {}", journal.display());

    // It comes back within the time: the launch goes through as if nothing had been.
    let late = world.launch(&app("/late", "sleep 1000", calico())).await;
    late.logs("trying again", 1).await;
    let late = late.id.clone();
    world.stack.etcd.as_mut().unwrap().restart().await.unwrap();
    world
        .agent
        .wait_for(&late, calico_mesos::mesos::messages::TaskState::TaskRunning, crate::world::LIMIT)
        .await
        .unwrap();
    world.agent.kill(&late, None).await.unwrap();
    world.agent.wait_exit(&late, crate::world::LIMIT).await.unwrap();
    world.nothing_left().await;
}

#[tokio::test]
async fn docker_without_our_runtime() {
    let world = World::with(|stack| stack.runtime = None, |_| ()).await;
    let task = world.launch(&app("/norun", "sleep 1000", calico())).await;
    let message = task.fails().await;
    assert!(message.contains("CM-RUNTIME") && message.contains("install-runtime"), "{message}");
    task.executor_exit().await;
    world.nothing_left().await;
}

#[tokio::test]
async fn another_program_under_our_runtimes_name() {
    let runc = crate::world::sh("command -v runc");
    let world = World::with(|stack| stack.runtime = Some(runc.trim().into()), |_| ()).await;
    let task = world.launch(&app("/ungated", "sleep 1000", calico())).await;
    let message = task.fails().await;
    assert!(message.contains("CM-RUNTIME") && message.contains("is not calico-runc"), "{message}");
    task.executor_exit().await;
    world.nothing_left().await;
}

#[tokio::test]
async fn a_configuration_that_is_mended_in_time() {
    let world = World::new().await;
    let good = std::fs::read(&world.stack.config).unwrap();
    std::fs::write(&world.stack.config, "no = [toml").unwrap();
    let task = world.launch(&app("/patient", "sleep 1000", calico())).await;
    task.logs("trying again", 1).await;
    std::fs::write(&world.stack.config, good).unwrap();
    task.reaches(calico_mesos::mesos::messages::TaskState::TaskRunning).await;
    task.kill().await;
    world.nothing_left().await;
}

#[tokio::test]
async fn docker_at_an_address_where_nothing_answers() {
    let world = World::with(
        |_| (),
        |agent| {
            agent.executor_environment.insert("DOCKER_HOST".into(), "localhost:1".into());
        },
    )
    .await;
    let task = world.launch(&app("/nodocker", "sleep 1000", json!({}))).await;
    let message = task.fails().await;
    assert!(
        message.contains("localhost:1")
            && message.contains("--executor_environment_variables")
            && message.contains("CM-DOCKER"),
        "{message}"
    );
    task.executor_exit().await;
    // The task's own value counts for nothing.
    let task = world.launch(&app("/own", "sleep 1000", json!({"DOCKER_HOST": "unix:///nonexistent"}))).await;
    task.reaches(calico_mesos::mesos::messages::TaskState::TaskRunning).await;
    task.kill().await;
}
