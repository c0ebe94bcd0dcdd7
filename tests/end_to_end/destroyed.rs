//! Executors that their agent destroys: what the agent reports of their tasks stands, and nothing is left.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use calico_mesos::mesos::messages::task_status::Reason;
use calico_mesos::mesos::messages::{CommandInfo, TaskInfo, TaskState};
use calico_mesos::rig::agent::Destruction;
use calico_mesos::task::report::steps::Step;
use nix::sys::signal::Signal;
use serde_json::{json, Value};
use tokio::net::UnixListener;

use crate::audit::{of, trail};
use crate::custom::{command, executor, running, task, CALICO};
use crate::faults::{reached, signal};
use crate::kit::faults::Freeze;
use crate::world::{app, calico, tell_custom_executors, Task, World, LIMIT};

const CONTAINER: [(&str, &str); 1] = [("CALICO_DOCKER_IMAGE", "busybox")];

/// An agent with the cgroups isolators, which destroys an executor at its last terminal update: ExecutorInfos of
/// these tests have no resources, as Marathon's.
async fn world(config: Option<(String, String)>) -> World {
    let agent = |agent: &mut _| {
        tell_custom_executors(agent);
        agent.cgroups_isolation = true;
    };
    World::with(|stack| stack.config.extend(config), agent).await
}

fn batch(line: &str, variables: &[(&str, &str)]) -> TaskInfo {
    TaskInfo { command: Some(command(line, variables)), ..task(&executor(&[], &[])) }
}

async fn is_destroyed(task: &Task<'_>) {
    let exit = task.world.agent.wait_exit(&task.id, LIMIT).await.unwrap();
    assert_eq!(exit.status.unwrap().signal(), Some(Signal::SIGKILL as i32), "{}", task.log());
}

fn teardowns(world: &World, task: &str) -> Vec<(Value, Value, Value)> {
    let lines = trail(world, "audit/tasks/current");
    let lines = of(&lines, task).into_iter().filter(|line| line["event"] == "teardown");
    lines.map(|line| (line["outcome"].clone(), line["code"].clone(), line["by"].clone())).collect()
}

#[tokio::test]
async fn the_agents_state_and_reason_stand() {
    let world = World::new().await;
    for (why, reason) in [
        (Destruction::Preempted, Reason::ContainerPreempted),
        (Destruction::UpdateFailed, Reason::ContainerUpdateFailed),
    ] {
        for env in [json!({}), calico()] {
            let task = world.running(&app("/victim", "sleep 1000", env)).await;
            world.agent.destroy(&task.id, why).await.unwrap();
            let status = task.ends().await;
            assert_eq!((status.state(), status.reason()), (TaskState::TaskGone, reason), "{}", task.log());
            task.executor_exit().await;
            let expected = [TaskState::TaskStarting, TaskState::TaskRunning, TaskState::TaskGone];
            assert_eq!(task.states(), expected, "{}", task.log());
        }
    }
    world.nothing_left().await;
}

/// A shutdown that takes longer than the agent grants.
#[tokio::test]
async fn a_shutdown_that_runs_out_of_time_is_the_agents_to_report() {
    let world = World::with(|_| (), |agent| agent.shutdown_grace = Duration::from_secs(2)).await;
    let task = world.running(&app("/stuck", "trap '' TERM; sleep 1000", calico())).await;
    world.stack.docker.freeze();
    world.agent.shutdown_executor(&task.id).await.unwrap();
    let ended = world.agent.wait_for(&task.id, TaskState::TaskFailed, LIMIT).await;
    world.stack.docker.thaw();
    let status = ended.unwrap_or_else(|error| panic!("{error}\n{}", task.log()));
    assert_eq!((status.message(), status.reason()), ("Container killed", Reason::ExecutorTerminated));
    task.executor_exit().await;
    let ends = task.states().into_iter().filter(|state| state.is_terminal()).count();
    assert_eq!(ends, 1, "{:?}", task.states());
    // An executor that Docker did not answer in time leaves its record to the next cleaner.
    assert!(world.gc().status.success());
    world.nothing_left().await;
}

/// A Ctrl-C is an operator's: no agent reports the end of such a task.
#[tokio::test]
async fn sigint_stops_the_task_and_its_end_is_reported() {
    let world = World::new().await;
    for env in [json!({}), calico()] {
        let task =
            world.running(&app("/interrupted", "trap 'exit 7' TERM; while :; do sleep 0.1; done", env)).await;
        signal(&task, Signal::SIGINT);
        let status = task.ends().await;
        assert_eq!(status.state(), TaskState::TaskKilled, "{status:?}\n{}", task.log());
        assert_eq!(status.reason(), Reason::default(), "the executor's own update");
        assert!(task.log().contains("shutting down: interrupted (SIGINT)"), "{}", task.log());
        task.executor_exit().await;
    }
    world.nothing_left().await;
}

#[tokio::test]
async fn sigterm_to_a_custom_executor_is_the_agents_to_report() {
    let world = crate::custom::world().await;
    let executor = executor(&[], &[]);
    let member =
        |line: &str| TaskInfo { executor: None, command: Some(command(line, &CALICO)), ..task(&executor) };
    let members = [member("exec sleep 1000"), member("trap '' TERM; while :; do sleep 0.1; done")];
    let ids = members.clone().map(|member| member.task_id.value);
    let launched = world.agent.launch_group(executor.clone(), members.into()).await.unwrap();
    for id in &ids {
        world.agent.wait_for(id, TaskState::TaskRunning, LIMIT).await.unwrap();
    }
    let first = Task { world: &world, id: ids[0].clone(), launched };
    signal(&first, Signal::SIGTERM);
    for id in &ids {
        let status = world.agent.wait_for(id, TaskState::TaskFailed, LIMIT).await.unwrap();
        assert_eq!((status.message(), status.reason()), ("Executor terminated", Reason::ExecutorTerminated));
    }
    first.executor_exit().await;
    assert!(!first.states().contains(&TaskState::TaskKilling), "{:?}", first.states());
    world.nothing_left().await;
}

#[tokio::test]
async fn a_custom_executor_finishes_its_teardown_before_the_last_update() {
    let world = world(None).await;
    let image = [&CALICO[..], &CONTAINER].concat();
    for (line, variables, outcome) in [
        ("exit 3", &CALICO[..], ("exited", json!(3))),
        ("exit 0", &image, ("exited", json!(0))),
        ("exec sleep 1000", &image, ("killed", json!(137))),
        ("exit 5", &CONTAINER, ("", Value::Null)),
    ] {
        let task = world.launch_info(batch(line, variables)).await;
        if outcome.0 == "killed" {
            task.reaches(TaskState::TaskRunning).await;
            world.agent.kill(&task.id, Some(Duration::ZERO)).await.unwrap();
        }
        task.ends().await;
        is_destroyed(&task).await;
        assert_eq!(world.leftovers().await, Vec::<String>::new(), "{}", task.log());
        assert!(world.containers().await.is_empty(), "no agent would remove it");
        let expected = (json!(outcome.0), outcome.1, json!("executor"));
        let expected = if variables == CONTAINER { Vec::new() } else { vec![expected] };
        assert_eq!(teardowns(&world, &task.id), expected, "{}", task.log());
    }
    let nothing =
        CommandInfo { shell: Some(false), value: Some("no-such-program".into()), ..command("", &CALICO) };
    let task = world.launch_info(TaskInfo { command: Some(nothing), ..batch("", &[]) }).await;
    task.fails().await;
    is_destroyed(&task).await;
    let expected = (json!("failed"), json!("CM-COMMAND"), json!("executor"));
    assert_eq!(teardowns(&world, &task.id), [expected]);
    world.nothing_left().await;
}

#[tokio::test]
async fn a_cleaner_reports_the_outcome_of_an_executor_that_was_destroyed() {
    let folder = tempfile::tempdir().unwrap();
    let steps = folder.path().join("steps");
    let listener = UnixListener::bind(&steps).unwrap();
    let world = world(Some(("paths.steps".to_owned(), format!("{:?}", steps.display().to_string())))).await;
    let task = world.launch_info(batch("exit 3", &CALICO)).await;
    // The teardown takes longer than the update may wait for it.
    let held = reached(&listener, Step::Tidied).await;
    let status = task.ends().await;
    assert_eq!(status.message(), "Command exited with status 3", "{}", task.log());
    is_destroyed(&task).await;
    drop((held, listener));
    assert_eq!(teardowns(&world, &task.id), []);
    assert!(world.gc().status.success());
    assert_eq!(teardowns(&world, &task.id), [(json!("exited"), json!(3), json!("gc"))]);
    world.nothing_left().await;
}

/// The executor that is destroyed with several tasks is not: the others' resources are left.
#[tokio::test]
async fn an_executor_with_another_task_goes_on() {
    let world = world(None).await;
    let executor = executor(&[], &[]);
    let first = TaskInfo { command: Some(command("exec sleep 1000", &CALICO)), ..task(&executor) };
    let first = running(&world, first).await;
    let second = TaskInfo { command: Some(command("exit 4", &CALICO)), ..task(&executor) };
    let second = world.launch_info(second).await;
    assert_eq!(second.ends().await.message(), "Command exited with status 4");
    world.agent.kill(&first.id, Some(Duration::ZERO)).await.unwrap();
    assert_eq!(first.ends().await.state(), TaskState::TaskKilled, "{}", first.log());
    is_destroyed(&first).await;
    world.nothing_left().await;
}
