//! A task without CALICO variables runs as with stock Mesos, whatever state our parts are in.

use calico_mesos::mesos::messages::TaskState;
use serde_json::json;

use crate::world::{addresses, app, World};

#[tokio::test]
async fn a_task_without_calico_needs_neither_configuration_nor_etcd() {
    let mut world = World::new().await;
    world.stack.etcd.as_mut().unwrap().kill();
    std::fs::write(&world.stack.config, "this is [not toml").unwrap();
    let task = world.running(&app("/plain", "echo out; echo err >&2; sleep 1000", json!({"A": "b c"}))).await;
    let history = world.agent.history(&task.id);
    let running = history.iter().find(|update| update.status.state() == TaskState::TaskRunning).unwrap();
    let inspect: serde_json::Value = serde_json::from_slice(running.status.data.as_deref().unwrap()).unwrap();
    assert_eq!(inspect[0]["Name"], json!(format!("/{}", task.container())));
    assert_eq!(inspect[0]["HostConfig"]["NetworkMode"], "host");
    assert_eq!(inspect[0]["HostConfig"]["Runtime"], "runc");
    assert_eq!(addresses(&running.status), ["127.0.0.1"], "the agent's own address, as with stock");
    assert_eq!(task.file("stdout").await, "out\n");
    assert!(!world.config.paths.journal().exists() && !world.config.paths.run.join("tasks").exists());

    assert_eq!(task.kill().await.state(), TaskState::TaskKilled);
    let [container] = world.containers().await.try_into().unwrap();
    assert_eq!(container["State"], "exited", "the agent removes it, not we");
}

#[tokio::test]
async fn exit_codes_and_messages_are_those_of_the_stock_executor() {
    let world = World::new().await;
    let good = world.launch(&app("/good", "true", json!({}))).await;
    let bad = world.launch(&app("/bad", "exit 3", json!({}))).await;
    let status = good.ends().await;
    assert_eq!(
        (status.state(), status.message.as_deref()),
        (TaskState::TaskFinished, Some("Container exited with status 0"))
    );
    let status = bad.ends().await;
    assert_eq!(
        (status.state(), status.message.as_deref()),
        (TaskState::TaskFailed, Some("Container exited with status 3"))
    );
    good.executor_exit().await;
    bad.executor_exit().await;
}

#[tokio::test]
async fn the_grace_period_is_the_tasks() {
    let world = World::new().await;
    let mut definition =
        app("/graceful", "trap 'echo bye > /mnt/mesos/sandbox/bye; exit 0' TERM; echo up > /mnt/mesos/sandbox/up; while :; do sleep 0.1; done", json!({}));
    definition["taskKillGracePeriodSeconds"] = json!(20);
    let task = world.running(&definition).await;
    task.file("up").await;
    world.agent.kill(&task.id, None).await.unwrap();
    let status = task.ends().await;
    assert_eq!(
        (status.state(), status.message.as_deref()),
        (TaskState::TaskKilled, Some("Container exited with status 0"))
    );
    assert_eq!(task.file("bye").await, "bye\n");
    task.executor_exit().await;
}
