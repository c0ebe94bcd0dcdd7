//! Kills, shutdowns and their grace periods.
//!
//! A grace period that must not count is ten minutes long: a test that waits for it fails.

use std::time::Duration;

use calico_mesos::mesos::messages::framework_info::capability::Type as Capability;
use calico_mesos::mesos::messages::{DurationInfo, KillPolicy, TaskInfo, TaskState};
use serde_json::{json, Value};

use crate::kit::faults::Freeze;
use crate::plain_and_calico;
use crate::world::{app, task_info, Task, World, LIMIT};

const LONG: Duration = Duration::from_secs(600);
const STUBBORN: &str =
    "trap 'echo again >> /mnt/mesos/sandbox/asked' TERM; echo up > /mnt/mesos/sandbox/up; while :; do sleep 0.1; done";

fn stubborn(env: Value, grace: Option<Duration>) -> TaskInfo {
    let mut info = task_info(&app("/stubborn", STUBBORN, env));
    info.kill_policy =
        grace.map(|grace| KillPolicy { grace_period: Some(DurationInfo::from_duration(grace)) });
    info
}

async fn up<'a>(world: &'a World, info: TaskInfo) -> Task<'a> {
    let task = world.launch_info(info).await;
    task.reaches(TaskState::TaskRunning).await;
    task.file("up").await;
    task
}

async fn is_killed(task: &Task<'_>) {
    let status = task.ends().await;
    assert_eq!(status.state(), TaskState::TaskKilled, "{status:?}\n{}", task.log());
    task.executor_exit().await;
}

#[tokio::test]
async fn the_kills_grace_goes_before_the_tasks() {
    let world = World::with(|_| (), |agent| agent.shutdown_grace = LONG).await;
    for env in plain_and_calico() {
        let task = up(&world, stubborn(env, Some(LONG))).await;
        world.agent.kill(&task.id, Some(Duration::from_secs(1))).await.unwrap();
        is_killed(&task).await;
        assert_eq!(task.file("asked").await, "again\n", "it was not asked politely, or twice");
    }
    world.nothing_left().await;
}

#[tokio::test]
async fn the_tasks_grace_goes_before_the_agents() {
    let world = World::with(|_| (), |agent| agent.shutdown_grace = LONG).await;
    let task = up(&world, stubborn(json!({}), Some(Duration::from_secs(1)))).await;
    world.agent.kill(&task.id, None).await.unwrap();
    is_killed(&task).await;
}

#[tokio::test]
async fn without_any_policy_the_agents_grace_counts() {
    let world = World::with(|_| (), |agent| agent.shutdown_grace = Duration::from_secs(1)).await;
    let task = up(&world, stubborn(json!({}), None)).await;
    world.agent.kill(&task.id, None).await.unwrap();
    is_killed(&task).await;
}

#[tokio::test]
async fn a_later_kill_only_shortens() {
    let world = World::new().await;
    for env in plain_and_calico() {
        for (first, second) in [(LONG, Duration::ZERO), (Duration::from_secs(1), LONG)] {
            let task = up(&world, stubborn(env.clone(), None)).await;
            world.agent.kill(&task.id, Some(first)).await.unwrap();
            task.file("asked").await;
            world.agent.kill(&task.id, Some(second)).await.unwrap();
            is_killed(&task).await;
            let killing = task.states().iter().filter(|state| **state == TaskState::TaskKilling).count();
            assert_eq!(killing, 1, "{:?}", task.states());
        }
    }
    world.nothing_left().await;
}

#[tokio::test]
async fn killing_is_told_only_to_those_who_know_it() {
    let world =
        World::with(|_| (), |agent| agent.capabilities.retain(|own| *own != Capability::TaskKillingState))
            .await;
    let task = world.running(&app("/quiet", "sleep 1000", json!({}))).await;
    task.kill().await;
    assert_eq!(
        task.states(),
        [TaskState::TaskStarting, TaskState::TaskRunning, TaskState::TaskKilled],
        "{}",
        task.log()
    );
}

#[tokio::test]
async fn a_shutdown_leaves_the_agent_time_to_reap() {
    // Less than the two seconds that are kept back: the grace must not become negative.
    let world = World::with(|_| (), |agent| agent.shutdown_grace = Duration::from_secs(1)).await;
    for env in plain_and_calico() {
        let task = up(&world, stubborn(env, None)).await;
        world.agent.shutdown_executor(&task.id).await.unwrap();
        is_killed(&task).await;
    }
    world.nothing_left().await;
}

#[tokio::test]
async fn a_docker_that_hangs_cannot_keep_a_task_alive() {
    for env in plain_and_calico() {
        let world = World::new().await;
        let task = up(&world, stubborn(env, None)).await;
        let id = (task.id.clone(), task.launched.container_id.clone());
        world.stack.docker.freeze();
        world.agent.kill(&id.0, Some(Duration::ZERO)).await.unwrap();
        let status = world.agent.wait_for(&id.0, TaskState::TaskKilled, 2 * LIMIT).await;
        world.stack.docker.thaw();
        status.unwrap_or_else(|error| panic!("{error}\n{}", task.log()));
        task.executor_exit().await;
        world.nothing_left().await;
    }
}

#[tokio::test]
async fn a_docker_that_is_restarted_takes_its_containers_with_it() {
    for env in plain_and_calico() {
        let mut world = World::new().await;
        let id = up(&world, stubborn(env, None)).await.id;
        world.stack.docker.stop().await;
        world.stack.docker.restart().await.unwrap();
        let status = world.agent.wait_for(&id, TaskState::TaskFailed, LIMIT).await.unwrap();
        assert!(status.message().starts_with("Container exited with status "), "{}", status.message());
        world.agent.wait_exit(&id, LIMIT).await.unwrap();
        world.nothing_left().await;
    }
}
