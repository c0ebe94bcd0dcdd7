//! The executor's core with a driver that only records, and a way in that refuses every task.

use super::*;
use crate::error::Code;

/// Refuses with a sentence, as for a TaskInfo that cannot run.
struct Refusing;

impl Way for Refusing {
    fn registered(&mut self, _: ExecutorInfo) {}

    fn order(&self, info: &TaskInfo) -> Result<Order, Failure> {
        Err(Failure::new(Code::TaskInvalid, format!("{} makes no sense", info.task_id)))
    }

    fn most_tasks(&self) -> usize {
        usize::MAX
    }

    fn kill_grace(&self) -> Duration {
        Duration::ZERO
    }

    fn shutdown_grace(&self) -> Duration {
        Duration::ZERO
    }
}

/// Runs an executor through these events; the statuses that it sent until it ended by itself.
async fn statuses(script: Vec<Event>) -> Vec<TaskStatus> {
    let (driver, mut recorded) = Driver::recorded();
    let (sender, events) = mpsc::unbounded_channel();
    for event in script {
        sender.send(event).unwrap();
    }
    run(driver, events, Refusing, "agent-17".into()).await;
    let mut statuses = Vec::new();
    while let Some(status) = recorded.recv().await {
        statuses.push(status);
    }
    statuses
}

fn task(id: &str) -> TaskInfo {
    TaskInfo { task_id: id.into(), ..Default::default() }
}

fn kill(id: &str) -> Event {
    Event::Kill { task_id: id.into(), grace: None }
}

fn states(statuses: &[TaskStatus]) -> Vec<(&str, TaskState)> {
    statuses.iter().map(|status| (status.task_id.value.as_str(), status.state())).collect()
}

#[tokio::test]
async fn a_kill_before_any_launch_reports_nothing() {
    assert_eq!(statuses(vec![kill("a")]).await, []);
}

#[tokio::test]
async fn a_shutdown_before_any_task_ends_it() {
    assert_eq!(statuses(vec![Event::Shutdown { reason: "the agent asked for it".into() }]).await, []);
}

#[tokio::test]
async fn nothing_begins_after_a_shutdown() {
    let shutdown = Event::Shutdown { reason: "the agent asked for it".into() };
    let sent = statuses(vec![shutdown, Event::Launch(Box::new(task("a")))]).await;
    assert_eq!(states(&sent), [("a", TaskState::TaskFailed)]);
    assert_eq!(sent[0].message(), "the executor is shutting down [agent-17, CM-KILLED]");
}

#[tokio::test]
async fn a_task_that_makes_no_sense_ends_in_one_sentence() {
    let sent = statuses(vec![
        Event::Malformed { what: "a RunTaskMessage that does not parse".into() },
        Event::Message(b"hello".to_vec()),
        Event::Launch(Box::new(task("a"))),
        kill("nobody"),
    ])
    .await;
    assert_eq!(states(&sent), [("a", TaskState::TaskStarting), ("a", TaskState::TaskFailed)]);
    assert_eq!(sent[1].message(), "a makes no sense [agent-17, CM-TASK-INVALID]");
}

#[tokio::test]
async fn every_task_of_a_group_is_told_its_end() {
    let sent = statuses(vec![Event::LaunchGroup(vec![task("a"), task("b")])]).await;
    for id in ["a", "b"] {
        let own = sent.iter().filter(|status| status.task_id.value == id);
        assert_eq!(own.filter(|status| status.state().is_terminal()).count(), 1, "{sent:?}");
    }
}

#[tokio::test]
async fn a_second_launch_changes_nothing() {
    let sent = statuses(vec![Event::Launch(Box::new(task("a"))), Event::Launch(Box::new(task("a")))]).await;
    assert_eq!(states(&sent), [("a", TaskState::TaskStarting), ("a", TaskState::TaskFailed)]);
}
