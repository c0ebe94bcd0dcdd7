//! The embedded Mesos agent: launches executors on this machine exactly as a real one would.
//!
//! `calico-mesos run` uses it to try an app definition without a cluster; the tests use it as the
//! executor's peer. One task (`hub`) owns all state; the handle sends it commands. What a real
//! agent was seen to write is written byte for byte; what it was seen to forgive is forgiven but
//! recorded in [`Agent::problems`]. A Docker task gets an executor of its own, the drop-in one; a task
//! that brings its executor is handed to that, which may have several, and either may speak version 0
//! of the executor API or version 1.
//!
//! What only the tests need is in `faults`: orders that a local run does not give, and an agent that goes away and
//! comes back.
//!
//! ```text
//!  launch ─► REGISTERING ──Register──► RUNNING ──Shutdown, Kill──► (executor ends) ─► TERMINATED
//!               │ 1 min                  │ stop(), restart()
//!               ▼                        ▼
//!           TASK_FAILED              RECOVERING ──Reregister within 2 s──► RUNNING
//! ```

mod api;
mod custom;
mod destroy;
mod executor;
mod executor_exits;
mod faults;
pub mod fetch;
mod history;
mod hub;
mod info;
mod launch;
pub mod marathon;
mod options;
pub mod ports;
mod recovery;
mod spawn;
mod to_executor;
mod updates;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, mpsc, oneshot};

pub use self::destroy::kill_all;
pub use self::executor_exits::Destruction;
use self::history::Shared;
pub use self::history::{Direction, ExecutorExit, HistoryRecord, Update};
use self::hub::{Hub, HubCommand};
pub use self::options::AgentOptions;
use crate::mesos::libprocess::Upid;
use crate::mesos::messages::{TaskInfo, TaskState, TaskStatus};

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("cannot listen on {address}")]
    Listen {
        address: std::net::SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot open the domain socket {path}")]
    Socket {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot prepare the sandbox {path}")]
    Sandbox {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot fetch {uri} for task '{task}'")]
    Fetch {
        task: String,
        uri: String,
        #[source]
        source: fetch::FetchError,
    },
    #[error("cannot start the executor {program}")]
    Spawn {
        program: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("task '{0}' exists already")]
    Duplicate(String),
    #[error("executor '{executor}' {problem}")]
    Executor { executor: String, problem: &'static str },
    #[error("no such task '{0}'")]
    Unknown(String),
    #[error("the agent is stopped")]
    Stopped,
    #[error("task '{task}' became {state} while {wanted} was waited for: {message}")]
    Ended { task: String, wanted: &'static str, state: &'static str, message: String },
    #[error("task '{task}' is not {wanted} after {waited:?} (last seen: {last})")]
    Timeout { task: String, wanted: &'static str, waited: Duration, last: &'static str },
}

/// What a launch has led to so far: a running executor that has not registered yet.
#[derive(Debug, Clone)]
pub struct Launched {
    pub container_id: String,
    pub sandbox: PathBuf,
    /// The instant at which a real agent logs "Launching task".
    pub at: Instant,
    pub executor_pid: u32,
}

/// Files that wait for the sandbox of a task, see [`Agent::fetch`].
#[derive(Debug)]
pub struct Fetched {
    folder: tempfile::TempDir,
}

/// A running agent. Dropped, it ends its executors with SIGTERM.
#[derive(Debug)]
pub struct Agent {
    commands: mpsc::UnboundedSender<HubCommand>,
    shared: Arc<Shared>,
    options: Arc<AgentOptions>,
    pid: Upid,
}

impl Agent {
    pub async fn start(options: AgentOptions) -> Result<Self, AgentError> {
        let options = Arc::new(options);
        let shared = Arc::new(Shared::default());
        let (commands, queue) = mpsc::unbounded_channel();
        let hub = Hub::start(options.clone(), shared.clone()).await?;
        let pid = hub.pid().clone();
        tokio::spawn(hub.run(queue));
        Ok(Self { commands, shared, options, pid })
    }

    /// Starts an executor for the task, or hands it to its own executor if that runs already; the
    /// task's agent id is filled in here.
    pub async fn launch(&self, task: TaskInfo) -> Result<Launched, AgentError> {
        self.launch_with(task, None).await
    }

    /// The same, with files that lie in the sandbox before the executor starts.
    pub async fn launch_with(
        &self,
        task: TaskInfo,
        fetched: Option<Fetched>,
    ) -> Result<Launched, AgentError> {
        self.ask(|reply| HubCommand::Launch { task: Box::new(task), fetched, reply }).await?
    }

    /// Fetches the URIs of a task that is launched next, but for those with an [`fetch::obstacle`].
    ///
    /// A real agent does this between launch and executor. Here it is a step of its own, which can be given up by
    /// dropping the future.
    pub async fn fetch(&self, task: &TaskInfo) -> Result<Option<Fetched>, AgentError> {
        let uris: Vec<_> = fetch::uris(task).filter(|uri| fetch::obstacle(uri).is_none()).collect();
        if uris.is_empty() {
            return Ok(None);
        }
        let work = &self.options.work_dir;
        let wrong = |source| AgentError::Sandbox { path: work.clone(), source };
        std::fs::create_dir_all(work).map_err(wrong)?;
        let folder = tempfile::Builder::new().prefix("fetch-").tempdir_in(work).map_err(wrong)?;
        for uri in uris {
            fetch::fetch(uri, folder.path()).await.map_err(|source| AgentError::Fetch {
                task: task.task_id.value.clone(),
                uri: fetch::shown(uri),
                source,
            })?;
        }
        Ok(Some(Fetched { folder }))
    }

    /// The scheduler's KILL; `grace` becomes its kill policy.
    pub async fn kill(&self, task: &str, grace: Option<Duration>) -> Result<(), AgentError> {
        let task = task.to_owned();
        self.ask(|reply| HubCommand::Kill { task, grace, reply }).await?
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> HubCommand) -> Result<T, AgentError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).map_err(|_| AgentError::Stopped)?;
        answer.await.map_err(|_| AgentError::Stopped)
    }

    /// The agent's own address, `slave(1)@127.0.0.1:5051`.
    pub fn pid(&self) -> &Upid {
        &self.pid
    }

    pub fn options(&self) -> &AgentOptions {
        &self.options
    }

    /// Every status as the master would get it, from now on.
    pub fn updates(&self) -> broadcast::Receiver<Update> {
        self.shared.updates.subscribe()
    }

    /// Every end of an executor from now on; the place to remove its container, which a real agent
    /// does `--docker_remove_delay` later.
    pub fn exits(&self) -> broadcast::Receiver<ExecutorExit> {
        self.shared.exits.subscribe()
    }

    /// Every status of a task so far.
    pub fn history(&self, task: &str) -> Vec<Update> {
        self.shared
            .read(|history| history.updates.iter().filter(|update| update.task_id == task).cloned().collect())
    }

    /// Every message that came or went, oldest first.
    pub fn records(&self) -> Vec<HistoryRecord> {
        self.shared.read(|history| history.records.iter().cloned().collect())
    }

    /// What executors did that the protocol forbids.
    pub fn problems(&self) -> Vec<String> {
        self.shared.read(|history| history.problems.clone())
    }

    /// Waits until the task was in `state`; fails as soon as it has ended in another one.
    pub async fn wait_for(
        &self,
        task: &str,
        state: TaskState,
        limit: Duration,
    ) -> Result<TaskStatus, AgentError> {
        let found = self.shared.wait(limit, |history| history.look_for(task, state)).await;
        match found {
            Some(Ok(status)) => Ok(*status),
            Some(Err(status)) => Err(AgentError::Ended {
                task: task.to_owned(),
                wanted: state.short(),
                state: status.state().short(),
                message: status.message.unwrap_or_default(),
            }),
            None => Err(AgentError::Timeout {
                task: task.to_owned(),
                wanted: state.short(),
                waited: limit,
                last: self.history(task).last().map_or("nothing", |update| update.status.state().short()),
            }),
        }
    }

    /// Waits until the executor of the task has ended.
    pub async fn wait_exit(&self, task: &str, limit: Duration) -> Result<ExecutorExit, AgentError> {
        let has = |exit: &&ExecutorExit| exit.tasks.iter().any(|own| own == task);
        let found = |history: &history::AgentHistory| history.exits.iter().find(has).cloned();
        self.shared.wait(limit, found).await.ok_or_else(|| AgentError::Timeout {
            task: task.to_owned(),
            wanted: "without its executor",
            waited: limit,
            last: "executor alive",
        })
    }
}
