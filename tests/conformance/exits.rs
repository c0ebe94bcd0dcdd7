//! How the end of a container is told.

use calico_mesos::mesos::messages::task_status::Reason;
use calico_mesos::mesos::messages::{DurationInfo, TaskState};
use serde_json::json;

use crate::plain_and_calico;
use crate::world::{app, task_info, World};

const SECOND: i64 = 1_000_000_000;

#[tokio::test]
async fn every_exit_has_its_state_and_words() {
    let world = World::new().await;
    for (number, env) in plain_and_calico().into_iter().enumerate() {
        for (cmd, state, words) in [
            ("true", TaskState::TaskFinished, "Container exited with status 0"),
            ("exit 7", TaskState::TaskFailed, "Container exited with status 7"),
            // Process 1 has no default action for signals, so its child dies and its status is told on.
            ("sh -c 'kill -SEGV $$'; exit $?", TaskState::TaskFailed, "Container exited with status 139"),
        ] {
            let task = world.launch(&app(&format!("/exit-{number}"), cmd, env.clone())).await;
            let status = task.ends().await;
            assert_eq!((status.state(), status.message.as_deref()), (state, Some(words)), "{}", task.log());
            assert_eq!(status.healthy, None);
            task.executor_exit().await;
        }
    }
    world.nothing_left().await;
}

#[tokio::test]
async fn one_terminal_update_however_it_ends() {
    let world = World::new().await;
    let task = world.running(&app("/once", "sleep 0.3; exit 3", json!({}))).await;
    // A kill beside the exit, a second one behind it. Nothing announces an exit, so nothing can be awaited.
    tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    let _ = world.agent.kill(&task.id, Some(std::time::Duration::ZERO)).await;
    task.ends().await;
    let _ = world.agent.kill(&task.id, None).await;
    task.executor_exit().await;
    assert_eq!(task.states().iter().filter(|state| state.is_terminal()).count(), 1, "{:?}", task.states());
    assert_eq!(world.agent.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn a_task_that_takes_too_long_fails_without_being_announced() {
    let world = World::new().await;
    for env in plain_and_calico() {
        let mut info = task_info(&app("/overdue", "trap '' TERM; sleep 1000", env));
        info.max_completion_time = Some(DurationInfo { nanoseconds: 2 * SECOND });
        info.kill_policy = Some(calico_mesos::mesos::messages::KillPolicy {
            grace_period: Some(DurationInfo { nanoseconds: 600 * SECOND }),
        });
        let task = world.launch_info(info).await;
        let status = task.ends().await;
        assert_eq!(status.state(), TaskState::TaskFailed, "{status:?}\n{}", task.log());
        assert_eq!(status.reason(), Reason::MaxCompletionTimeReached);
        assert!(!task.states().contains(&TaskState::TaskKilling), "{:?}", task.states());
        task.executor_exit().await;
    }
    world.nothing_left().await;
}

#[tokio::test]
async fn a_task_that_is_out_of_memory_says_so() {
    let world = World::new().await;
    for env in plain_and_calico() {
        // `tail` keeps what it reads until a line ends, which never happens here.
        let task =
            world.launch(&app("/greedy", "head -c 200000000 /dev/zero | tail; sleep 1; exit 9", env)).await;
        let status = task.ends().await;
        assert_eq!(status.state(), TaskState::TaskFailed, "{status:?}\n{}", task.log());
        assert_eq!(status.reason(), Reason::ContainerLimitationMemory, "{status:?}\n{}", task.log());
        assert!(status.message().contains("out of memory"), "{}", status.message());
        task.executor_exit().await;
    }
    world.nothing_left().await;
}
