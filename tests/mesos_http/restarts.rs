//! The agent goes away and comes back, or does not; or only the stream does.

use std::time::Duration;

use calico_mesos::mesos::driver::Event;
use calico_mesos::mesos::messages::task_status::Reason;
use calico_mesos::mesos::messages::{TaskState, TaskStatus};

use super::peer::{connect, environment, next, Peer, SOON};

#[tokio::test]
async fn an_agent_restart_with_a_pending_update() {
    let mut peer = Peer::running(|_, _| ()).await;
    peer.acknowledged("t.1", TaskState::TaskRunning).await;
    for _ in 0..2 {
        peer.agent.stop().await.unwrap();
        let uuid = peer.driver.update(TaskStatus::new("t.1", TaskState::TaskRunning));
        peer.agent.restart().await.unwrap();
        // Ahead of SUBSCRIBED, as a real agent may do it.
        assert_eq!(peer.event().await, Event::Acknowledged { task_id: "t.1".into(), uuid });
        assert_eq!(peer.event().await, Event::Reregistered);
    }
    assert!(peer.driver.drained(SOON).await);
    assert_eq!(peer.agent.problems(), Vec::<String>::new());
}

/// Calls are refused while the agent recovers: first all of them, then those of the executors that are back.
#[tokio::test]
async fn updates_wait_for_the_end_of_the_recovery() {
    let mut peer = Peer::running(|options, _| {
        options.containerizer_recovery = Duration::from_millis(400);
        options.reregistration_timeout = Duration::from_secs(1);
    })
    .await;
    peer.acknowledged("t.1", TaskState::TaskRunning).await;
    peer.agent.stop().await.unwrap();
    peer.agent.restart().await.unwrap();
    assert_eq!(peer.event().await, Event::Reregistered);
    peer.acknowledged("t.1", TaskState::TaskFinished).await;
    // Again and again with the same uuid, and told to the scheduler once.
    let finished = peer
        .agent
        .history("t.1")
        .into_iter()
        .filter(|update| update.status.state() == TaskState::TaskFinished);
    assert_eq!(finished.count(), 1);
    let updates = peer.conversation().into_iter().filter(|line| line == "< UPDATE").count();
    assert!(updates > 2, "only {updates} tries");
    assert_eq!(peer.agent.problems(), Vec::<String>::new());
}

/// A task of which nothing was acknowledged is carried along and survives.
#[tokio::test]
async fn a_restart_before_the_first_update() {
    let mut peer = Peer::running(|_, _| ()).await;
    peer.agent.stop().await.unwrap();
    peer.agent.restart().await.unwrap();
    assert_eq!(peer.event().await, Event::Reregistered);
    peer.acknowledged("t.1", TaskState::TaskRunning).await;
    assert_eq!(peer.agent.history("t.1").len(), 1);
}

#[tokio::test]
async fn a_stream_that_broke_by_itself() {
    let mut peer = Peer::running(|_, _| ()).await;
    peer.acknowledged("t.1", TaskState::TaskRunning).await;
    peer.agent.cut("t.1").await.unwrap();
    assert_eq!(peer.event().await, Event::Reregistered);
    peer.agent.kill("t.1", None).await.unwrap();
    assert_eq!(peer.event().await, Event::Kill { task_id: "t.1".into(), grace: None });
    peer.acknowledged("t.1", TaskState::TaskKilled).await;
}

#[tokio::test]
async fn without_checkpoint_the_end_of_the_agent_is_the_end() {
    let mut peer = Peer::running(|options, _| options.checkpoint = false).await;
    peer.acknowledged("t.1", TaskState::TaskRunning).await;
    peer.agent.stop().await.unwrap();
    assert!(matches!(peer.event().await, Event::Shutdown { .. }));
    peer.driver.update(TaskStatus::new("t.1", TaskState::TaskKilled));
    assert!(!peer.driver.drained(SOON).await);
    let lost = peer.agent.history("t.1").pop().unwrap().status;
    assert_eq!((lost.state(), lost.reason()), (TaskState::TaskLost, Reason::SlaveDisconnected));
}

#[tokio::test]
async fn one_that_comes_back_too_late() {
    let peer = Peer::running(|options, _| options.reregistration_timeout = Duration::from_millis(100)).await;
    let variables = environment(&peer.launched.sandbox).await;
    peer.agent.stop().await.unwrap();
    let Peer { agent, driver, events, .. } = peer;
    drop((driver, events));
    agent.restart().await.unwrap();
    let gone = agent.wait_for("t.1", TaskState::TaskGone, SOON).await.unwrap();
    assert_eq!(gone.reason(), Reason::ExecutorReregistrationTimeout);
    // SHUTDOWN is all it gets, and the end of the stream; what it has to say is taken all the same.
    let (driver, mut events) = connect(variables);
    driver.update(TaskStatus::new("t.1", TaskState::TaskKilled));
    assert!(matches!(next(&mut events).await, Event::Shutdown { .. }));
    assert!(driver.drained(SOON).await);
}

#[tokio::test]
async fn an_agent_that_has_forgotten_the_executor() {
    let peer = Peer::running(|_, _| ()).await;
    let mut variables = environment(&peer.launched.sandbox).await;
    variables.insert("MESOS_EXECUTOR_ID".into(), "another".into());
    let (_driver, mut events) = connect(variables);
    let Event::Shutdown { reason } = next(&mut events).await else { panic!("known") };
    assert!(reason.contains("Executor cannot be found"), "{reason}");
}
