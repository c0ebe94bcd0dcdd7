//! An embedded agent whose custom executor is a sleeping shell, so that the test itself can be the
//! executor with the real driver, from the very environment the agent made.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use calico_mesos::mesos::driver::{Driver, Event};
use calico_mesos::mesos::environment::HttpEnvironment;
use calico_mesos::mesos::http;
use calico_mesos::mesos::messages::{CommandInfo, ExecutorInfo, TaskInfo, TaskState, TaskStatus};
use calico_mesos::rig::agent::{Agent, AgentOptions, Direction, Launched};
use tokio::sync::mpsc;

use crate::kit::wait::within;

pub const SOON: Duration = Duration::from_secs(10);

/// Writes down its environment, then does nothing until it is ended.
const STAND_IN: &str =
    "tr '\\000' '\\n' < /proc/self/environ > environ.new && mv environ.new environ; sleep 1000";

/// Keeps the sandbox as long as the test runs.
pub struct Peer {
    pub agent: Agent,
    pub launched: Launched,
    pub driver: Driver,
    pub events: mpsc::UnboundedReceiver<Event>,
    _dir: tempfile::TempDir,
}

pub fn executor() -> ExecutorInfo {
    ExecutorInfo {
        executor_id: "e".into(),
        command: Some(CommandInfo { value: Some(STAND_IN.into()), ..CommandInfo::default() }),
        ..ExecutorInfo::default()
    }
}

pub fn task(id: &str) -> TaskInfo {
    TaskInfo { name: id.into(), task_id: id.into(), executor: Some(executor()), ..TaskInfo::default() }
}

/// The environment of the executor process, once it has written it down.
pub async fn environment(sandbox: &Path) -> BTreeMap<String, String> {
    let file = sandbox.join("environ");
    let read = async || std::fs::read_to_string(&file);
    let text = within(SOON, "the stand-in has started", read).await;
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.into(), value.into())).collect()
}

pub fn connect(variables: BTreeMap<String, String>) -> (Driver, mpsc::UnboundedReceiver<Event>) {
    let variables = variables.into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    http::connect(&HttpEnvironment::from(variables).unwrap()).unwrap()
}

pub async fn next(events: &mut mpsc::UnboundedReceiver<Event>) -> Event {
    tokio::time::timeout(SOON, events.recv()).await.expect("no event came").expect("the driver ended")
}

impl Peer {
    /// `change` gets the folder too, for a socket in it.
    pub async fn launch(change: impl FnOnce(&mut AgentOptions, &Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = AgentOptions::new(dir.path().join("work"), "/nowhere");
        change(&mut options, dir.path());
        let agent = Agent::start(options).await.unwrap();
        let launched = agent.launch(task("t.1")).await.unwrap();
        let (driver, events) = connect(environment(&launched.sandbox).await);
        Self { agent, launched, driver, events, _dir: dir }
    }

    /// Up to the launch of the task.
    pub async fn running(change: impl FnOnce(&mut AgentOptions, &Path)) -> Self {
        let mut peer = Self::launch(change).await;
        let Event::Registered { container, .. } = peer.event().await else { panic!("not registered") };
        assert_eq!(container.as_ref(), Some(&peer.launched.container_id));
        assert!(matches!(peer.event().await, Event::Launch(task) if task.task_id.value == "t.1"));
        peer
    }

    pub async fn event(&mut self) -> Event {
        next(&mut self.events).await
    }

    /// Sends a status and waits for its acknowledgement.
    pub async fn acknowledged(&mut self, task: &str, state: TaskState) {
        let uuid = self.driver.update(TaskStatus::new(task, state));
        assert_eq!(self.event().await, Event::Acknowledged { task_id: task.into(), uuid });
    }

    pub async fn saw(&self, state: TaskState) -> TaskStatus {
        self.agent.wait_for("t.1", state, SOON).await.unwrap()
    }

    /// Names so far, `>` to the executor.
    pub fn conversation(&self) -> Vec<String> {
        let line = |record: calico_mesos::rig::agent::HistoryRecord| {
            let arrow = if record.direction == Direction::ToExecutor { '>' } else { '<' };
            format!("{arrow} {}", record.name.rsplit('.').next().unwrap())
        };
        self.agent.records().into_iter().map(line).collect()
    }
}
