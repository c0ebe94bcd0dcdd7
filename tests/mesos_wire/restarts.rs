//! The agent goes away and comes back, or does not.

use std::time::Duration;

use calico_mesos::mesos::driver::Event;
use calico_mesos::mesos::messages::task_status::Reason;
use calico_mesos::mesos::messages::{
    ExecutorReregisteredMessage, ReregisterExecutorMessage, TaskState, TaskStatus,
};

use super::peer::{body, Peer, SOON};

use crate::kit::wait::within;

/// life2: the agent dies, the task ends meanwhile, the agent comes back.
#[tokio::test]
async fn an_agent_restart_with_a_pending_update() {
    let mut peer = Peer::running(|_| {}).await;
    peer.acknowledged(TaskState::TaskStarting).await;
    peer.acknowledged(TaskState::TaskRunning).await;
    let before = peer.conversation().len();
    peer.agent.stop().await.unwrap();
    let uuid = peer.driver.update(TaskStatus::new("t.1", TaskState::TaskFinished));
    assert!(!peer.driver.drained(Duration::from_millis(300)).await);
    peer.agent.restart().await.unwrap();
    assert_eq!(peer.event().await, Event::Reregistered);
    assert_eq!(peer.event().await, Event::Acknowledged { task_id: "t.1".into(), uuid });
    assert!(peer.driver.drained(SOON).await);
    peer.saw(TaskState::TaskFinished).await;
    assert_eq!(
        peer.conversation()[before..],
        [
            "> ReconnectExecutor",
            "< ReregisterExecutor",
            "> ExecutorReregistered",
            "> StatusUpdateAcknowledgement",
        ]
    );
    let again: ReregisterExecutorMessage = body(&peer);
    assert_eq!((again.updates.len(), again.tasks.len()), (1, 0));
    let reregistered: ExecutorReregisteredMessage = body(&peer);
    assert_eq!(reregistered.slave_info.hostname, "localhost");
    assert_eq!(peer.agent.problems(), Vec::<String>::new());
}

/// life3: nothing pending; and it works more than once.
#[tokio::test]
async fn agent_restarts_with_nothing_pending() {
    let mut peer = Peer::running(|_| {}).await;
    peer.acknowledged(TaskState::TaskRunning).await;
    for _ in 0..3 {
        peer.agent.stop().await.unwrap();
        peer.agent.restart().await.unwrap();
        assert_eq!(peer.event().await, Event::Reregistered);
        let again: ReregisterExecutorMessage = body(&peer);
        assert_eq!((again.updates.len(), again.tasks.len()), (0, 0));
    }
    peer.agent.kill("t.1", None).await.unwrap();
    assert_eq!(peer.event().await, Event::Kill { task_id: "t.1".into(), grace: None });
    peer.acknowledged(TaskState::TaskKilled).await;
    assert_eq!(peer.agent.problems(), Vec::<String>::new());
}

/// A task of which nothing was acknowledged is carried along and survives.
#[tokio::test]
async fn a_restart_before_the_first_update() {
    let mut peer = Peer::running(|_| {}).await;
    peer.agent.stop().await.unwrap();
    peer.agent.restart().await.unwrap();
    assert_eq!(peer.event().await, Event::Reregistered);
    assert_eq!(body::<ReregisterExecutorMessage>(&peer).tasks[0].task_id.value, "t.1");
    peer.acknowledged(TaskState::TaskRunning).await;
    assert!(peer.agent.history("t.1").iter().all(|update| update.status.state() == TaskState::TaskRunning));
}

#[tokio::test]
async fn without_checkpoint_the_end_of_the_agent_is_the_end() {
    let mut peer = Peer::running(|options| options.checkpoint = false).await;
    peer.acknowledged(TaskState::TaskRunning).await;
    peer.agent.stop().await.unwrap();
    assert!(matches!(peer.event().await, Event::Shutdown { .. }));
    peer.driver.update(TaskStatus::new("t.1", TaskState::TaskKilled));
    // An agent that will not come back is not waited for.
    let drained = tokio::time::timeout(SOON, peer.driver.drained(100 * SOON)).await;
    assert_eq!(drained, Ok(false));
    let lost = peer.agent.history("t.1").pop().unwrap().status;
    assert_eq!((lost.state(), lost.reason()), (TaskState::TaskLost, Reason::SlaveDisconnected));
}

#[tokio::test]
async fn one_that_comes_back_too_late() {
    let mut peer = Peer::running(|options| options.reregistration_timeout = Duration::from_millis(100)).await;
    peer.acknowledged(TaskState::TaskRunning).await;
    peer.agent.stop().await.unwrap();
    // The port answers the probe, but nobody speaks any more.
    let address = peer.driver.pid().unwrap().address;
    drop(std::mem::replace(&mut peer.events, tokio::sync::mpsc::unbounded_channel().1));
    let Peer { agent, driver, launched: _keep, .. } = peer;
    drop(driver);
    let bind = async || tokio::net::TcpListener::bind(address).await;
    let listener = within(SOON, "the driver's port is free", bind).await;
    agent.restart().await.unwrap();
    let gone = agent.wait_for("t.1", TaskState::TaskGone, SOON).await.unwrap();
    assert_eq!(gone.reason(), Reason::ExecutorReregistrationTimeout);
    drop(listener);
}

#[tokio::test]
async fn an_executor_that_is_gone_after_a_restart() {
    let mut peer = Peer::running(|_| {}).await;
    peer.acknowledged(TaskState::TaskRunning).await;
    peer.agent.stop().await.unwrap();
    let pid = nix::unistd::Pid::from_raw(peer.launched.executor_pid.try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    peer.agent.wait_exit("t.1", SOON).await.unwrap();
    peer.agent.restart().await.unwrap();
    let failed = peer.saw(TaskState::TaskFailed).await;
    assert_eq!(failed.message(), "Abnormal executor termination: unknown container");
}
