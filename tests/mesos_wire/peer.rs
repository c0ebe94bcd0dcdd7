//! An embedded agent whose executor is a sleeping shell, so that the test itself can be the executor
//! with the real driver, from the very environment the agent made.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use calico_mesos::mesos::driver::{self, Driver, Event};
use calico_mesos::mesos::environment::Environment;
use calico_mesos::mesos::messages::{
    container_info, CommandInfo, ContainerInfo, TaskInfo, TaskState, TaskStatus, Wire,
};
use calico_mesos::rig::agent::{Agent, AgentOptions, Launched};
use tokio::sync::mpsc;

use crate::kit::wait::within;

pub const SOON: Duration = Duration::from_secs(10);

/// Keeps the sandbox as long as the test runs.
pub struct Peer {
    pub agent: Agent,
    pub launched: Launched,
    pub driver: Driver,
    pub events: mpsc::UnboundedReceiver<Event>,
    pub task: String,
    _dir: tempfile::TempDir,
}

/// Writes its command line and environment into the sandbox, then does nothing until it is ended.
const STAND_IN: &str = "#!/bin/sh\nprintf '%s\\n' \"$@\" > argv\n\
                        tr '\\000' '\\n' < /proc/self/environ > environ.new\nmv environ.new environ\n\
                        exec sleep 1000\n";

pub fn stand_in(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("stand-in");
    fs::write(&path, STAND_IN).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

pub fn task(id: &str) -> TaskInfo {
    TaskInfo {
        name: id.into(),
        task_id: id.into(),
        command: Some(CommandInfo { value: Some("sleep 9".into()), shell: Some(true), ..Default::default() }),
        container: Some(ContainerInfo {
            r#type: container_info::Type::Docker.into(),
            docker: Some(container_info::DockerInfo { image: "busybox".into(), ..Default::default() }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The environment of the executor process, once it has written it down.
pub async fn environment(sandbox: &Path) -> BTreeMap<String, String> {
    let file = sandbox.join("environ");
    let read = async || std::fs::read_to_string(&file);
    let text = within(SOON, "the stand-in has started", read).await;
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.into(), value.into())).collect()
}

pub async fn connect(sandbox: &Path) -> (Driver, mpsc::UnboundedReceiver<Event>) {
    let variables =
        environment(sandbox).await.into_iter().map(|(a, b)| (OsString::from(a), OsString::from(b)));
    driver::connect(&Environment::from(variables).unwrap()).await.unwrap()
}

impl Peer {
    pub async fn launch(change: impl FnOnce(&mut AgentOptions), task: TaskInfo) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = AgentOptions::new(dir.path().join("work"), stand_in(dir.path()));
        change(&mut options);
        let agent = Agent::start(options).await.unwrap();
        let id = task.task_id.value.clone();
        let launched = agent.launch(task).await.unwrap();
        let (driver, events) = connect(&launched.sandbox).await;
        Self { agent, launched, driver, events, task: id, _dir: dir }
    }

    /// Up to the launch of the task.
    pub async fn running(change: impl FnOnce(&mut AgentOptions)) -> Self {
        let mut peer = Self::launch(change, task("t.1")).await;
        assert!(matches!(peer.event().await, Event::Registered { .. }));
        assert!(matches!(peer.event().await, Event::Launch(task) if task.task_id.value == "t.1"));
        peer
    }

    pub async fn event(&mut self) -> Event {
        tokio::time::timeout(SOON, self.events.recv())
            .await
            .expect("no event came")
            .expect("the driver ended")
    }

    /// Sends a status and waits for its acknowledgement.
    pub async fn acknowledged(&mut self, state: TaskState) {
        let uuid = self.driver.update(TaskStatus::new(self.task.as_str(), state));
        let expected = Event::Acknowledged { task_id: self.task.clone(), uuid };
        assert_eq!(self.event().await, expected);
    }

    pub async fn saw(&self, state: TaskState) -> TaskStatus {
        self.agent.wait_for(&self.task, state, SOON).await.unwrap()
    }

    /// Names of the messages so far, without their package, `>` to the executor.
    pub fn conversation(&self) -> Vec<String> {
        use calico_mesos::rig::agent::Direction;
        let arrow = |direction| if direction == Direction::ToExecutor { '>' } else { '<' };
        let short =
            |name: &str| name.trim_start_matches("mesos.internal.").trim_end_matches("Message").to_owned();
        let line = |record: calico_mesos::rig::agent::HistoryRecord| {
            format!("{} {}", arrow(record.direction), short(&record.name))
        };
        self.agent.records().into_iter().map(line).collect()
    }
}

/// The last message of its kind, in either direction.
pub fn body<M: Wire>(peer: &Peer) -> M {
    let records = peer.agent.records();
    let record = records.iter().rev().find(|record| record.name == M::NAME).unwrap();
    M::decode(record.body.as_slice()).unwrap()
}
