//! One executor as its agent sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use tokio::process::ChildStdin;
use tokio::sync::mpsc;

use super::destroy;
use crate::mesos::libprocess::{link, Upid};
use crate::mesos::messages::task_status::Reason;
use crate::mesos::messages::{ContainerId, ExecutorInfo, TaskInfo, TaskState};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExecutorPhase {
    Registering,
    Running,
    /// After a restart of the agent, until it has re-registered.
    Recovering,
    /// It was asked to end, or is being ended.
    Terminating,
    Terminated,
}

/// What becomes of tasks that are not terminal when the executor ends.
#[derive(Debug, Clone)]
pub(super) struct ExecutorEnding {
    pub state: TaskState,
    pub message: String,
    pub reason: Reason,
}

impl Default for ExecutorEnding {
    fn default() -> Self {
        Self {
            state: TaskState::TaskFailed,
            message: "Container terminated".into(),
            reason: Reason::ExecutorTerminated,
        }
    }
}

/// How an executor is spoken to.
#[derive(Debug)]
pub(super) enum ExecutorLink {
    /// Version 0: messages to its actor.
    Actor(link::PeerLink),
    /// Version 1: events into its stream.
    Stream(mpsc::UnboundedSender<Vec<u8>>),
}

/// Who holds the executor's process, which decides how it is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Containerizer {
    /// SIGTERM, and then waiting.
    Docker,
    /// SIGKILL to everything in the container, without a warning.
    Mesos,
}

/// What is handed over at once.
#[derive(Debug)]
pub(super) enum Queued {
    Task(Box<TaskInfo>),
    Group(Vec<TaskInfo>),
}

impl Queued {
    pub fn tasks(&self) -> &[TaskInfo] {
        match self {
            Queued::Task(task) => std::slice::from_ref(&**task),
            Queued::Group(tasks) => tasks,
        }
    }

    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.tasks().iter().map(|task| task.task_id.value.as_str())
    }
}

#[derive(Debug)]
pub(super) struct AgentExecutor {
    pub info: ExecutorInfo,
    pub containerizer: Containerizer,
    pub container_id: String,
    pub sandbox: PathBuf,
    /// Where a real agent keeps what it needs after a restart.
    pub meta: PathBuf,
    pub phase: ExecutorPhase,
    /// Known once it has registered.
    pub pid: Option<Upid>,
    pub link: Option<ExecutorLink>,
    pub tasks: BTreeMap<String, AgentTask>,
    /// To be handed over at the registration.
    pub queued: Vec<Queued>,
    /// It has been handed a task.
    pub used: bool,
    /// What it has to show, where agents ask for it.
    pub token: Option<String>,
    pub process: u32,
    pub ending: ExecutorEnding,
    /// Its process group, as long as the process has not been reaped.
    pub group: Option<i32>,
    /// The executor sees the end of it when the agent dies.
    pub stdin: Option<ChildStdin>,
    /// Ended while the agent was down.
    pub lost: bool,
}

#[derive(Debug)]
pub(super) struct AgentTask {
    pub state: TaskState,
    pub uuids: BTreeSet<Vec<u8>>,
}

impl Default for AgentTask {
    fn default() -> Self {
        Self { state: TaskState::TaskStaging, uuids: BTreeSet::new() }
    }
}

impl AgentExecutor {
    pub fn id(&self) -> &str {
        &self.info.executor_id.value
    }

    pub fn is_alive(&self) -> bool {
        self.phase != ExecutorPhase::Terminated
    }

    pub fn container_id(&self) -> ContainerId {
        ContainerId { value: self.container_id.clone(), parent: None }
    }

    /// As its agent ends an executor that does not end by itself.
    pub fn destroy(&self) {
        let Some(group) = self.group else { return };
        match self.containerizer {
            Containerizer::Docker => self.terminate(),
            Containerizer::Mesos => destroy::kill_all(group),
        }
    }

    /// SIGTERM to the whole group.
    pub fn terminate(&self) {
        if let Some(group) = self.group {
            let group = nix::unistd::Pid::from_raw(group);
            // Already gone is what is wanted.
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGTERM);
        }
    }

    /// Tasks that have not ended yet.
    pub fn living_tasks(&self) -> Vec<String> {
        self.tasks.iter().filter(|(_, task)| !task.state.is_terminal()).map(|(id, _)| id.clone()).collect()
    }
}
