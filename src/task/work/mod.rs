//! The workload of a task, in the stages of its life.
//!
//! ```text
//!  create ──► Ready ──attach──► Attached ──start──► exit ──► drain
//!              exists            nothing is missed     ▲
//!                                                     stop
//! ```
//!
//! Docker runs a container; one that others made is left to them. The init process itself is the second source of the container's end, and the last resort
//! when Docker does not stop it. A command is a child of this process.

mod adopted;
mod command;
mod docker;
pub(super) mod gate_listener;
pub mod remapped;
mod stop;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::{chain, Code, Failure};
use crate::limits::DOCKER_FAILED_START;
use crate::workload::{Exit, HostProcess};

use self::gate_listener::Gate;
use crate::task::channel::Order;
use crate::task::health::{Check, Checks, Exec, Target};
use crate::task::request::{ForeignContainer, Work};
use adopted::AdoptedContainer;
use command::{Control, StagedCommand};
use docker::Container;

pub(super) use stop::{ask, kill_process};

/// What can be started.
pub(super) enum Ready {
    Container(Container),
    Adopted(AdoptedContainer),
    Command(StagedCommand),
}

/// Brings the workload to the point where it can be started.
pub(super) async fn create(
    order: Arc<Order>,
    namespace: Option<PathBuf>,
    retry_for: Duration,
    cancel: CancellationToken,
) -> Result<Ready, Failure> {
    match order.description.task.work() {
        Work::Docker(task) => docker::create(&order, task, retry_for, cancel).await.map(Ready::Container),
        Work::Foreign(container) => Ok(Ready::adopted(container)),
        Work::Command(spec) => StagedCommand::create(spec, namespace).map(Ready::Command),
    }
}

/// Log output is waited for so long after the workload's end.
const LOG_DRAIN: Duration = Duration::from_secs(2);

/// How the workload ended, or why that cannot be learned.
pub(super) type End = Result<Exit, Failure>;

/// Output and end of a workload, asked for before it starts so that nothing is missed.
pub(super) struct Attached {
    logs: JoinHandle<()>,
    exit: JoinHandle<End>,
    /// Takes the process, the second source of the end, to the task that waits for the end.
    watcher: Option<oneshot::Sender<Arc<HostProcess>>>,
    process: Option<Arc<HostProcess>>,
    /// A command's; a container is stopped by Docker.
    control: Option<Control>,
}

/// What is known of a workload that runs; empty where Docker could not be asked.
#[derive(Default)]
pub(super) struct SeenWorkload {
    /// What `docker inspect` prints.
    pub inspect: Option<String>,
    /// Addresses that Docker gave.
    pub addresses: Vec<IpAddr>,
}

impl Ready {
    /// A container that others make and start.
    pub fn adopted(container: &ForeignContainer) -> Self {
        Self::Adopted(AdoptedContainer::new(container))
    }

    /// Publishes Docker's id, by which its runtime finds the task; a command has none.
    pub fn publish(
        &self,
        publish: impl Fn(&str) -> Result<(), Failure> + Send + Sync + 'static,
    ) -> Result<(), Failure> {
        match self {
            Self::Container(container) => container.publish(Box::new(publish)),
            Self::Adopted(container) => publish(container.id()),
            Self::Command(_) => Ok(()),
        }
    }

    /// The task's names, where it has a hosts file of its own.
    pub fn host_names(&self) -> String {
        match self {
            Self::Container(container) => container.host_names(),
            Self::Adopted(container) => container.host_names(),
            Self::Command(_) => String::new(),
        }
    }

    /// Until `cancel`, where nothing is half done. `over` is the word of others that an adopted container has ended.
    pub async fn attach(
        &self,
        over: CancellationToken,
        cancel: &CancellationToken,
    ) -> Result<Attached, Failure> {
        match self {
            Self::Container(container) => container.attach(cancel).await,
            Self::Adopted(container) => Ok(container.attach(over)),
            Self::Command(command) => Ok(command.attach()),
        }
    }

    /// Returns when the first instruction has run: when the gate has opened, if there is one.
    ///
    /// `limit` is Docker's; a command's start is this process's own work.
    pub async fn start(
        &self,
        attached: &mut Attached,
        gate: Option<&Gate>,
        limit: Duration,
    ) -> Result<(), Failure> {
        match self {
            Self::Container(container) => container.start(attached, limit).await,
            // The states have no such job.
            Self::Adopted(_) => {
                Err(Failure::new(Code::Internal, "an adopted container is its maker's to start"))
            }
            Self::Command(command) => command.start(attached, gate).await,
        }
    }

    /// How a health check's command gets beside it; Docker checks an adopted container.
    fn exec(&self) -> Option<Exec> {
        match self {
            Self::Container(container) => Some(container.exec()),
            Self::Command(command) => Some(command.exec()),
            Self::Adopted(_) => None,
        }
    }

    /// What is to be seen of the workload that has started.
    pub async fn look(&self) -> (SeenWorkload, Option<HostProcess>) {
        match self {
            Self::Container(container) => container.look().await,
            Self::Adopted(container) => container.look(),
            Self::Command(_) => (SeenWorkload::default(), None),
        }
    }

    /// Kills what a failed start may have left running; the outcome waits only a few seconds for that.
    pub async fn end_at_once(&self) {
        let Self::Container(container) = self else { return };
        match tokio::time::timeout(DOCKER_FAILED_START, container.kill()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("{}", chain(&error)),
            Err(_) => tracing::warn!("Docker does not answer; the container is left to the agent"),
        }
    }

    /// Removes a container that no agent removes; no update waits for it.
    pub async fn remove(&self) {
        let Self::Container(container) = self else { return };
        if let Err(error) = container.remove().await {
            tracing::warn!("the container stays: {}", chain(&error));
        }
    }

    /// Adds to an exit what only Docker can report: whether the kernel killed for memory.
    pub async fn explain(&self, exit: Exit) -> Exit {
        match self {
            Self::Container(container) => container.explain(exit).await,
            Self::Adopted(_) | Self::Command(_) => exit,
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // A life that fails before it runs leaves no task behind that waits for Docker.
        self.logs.abort();
        self.exit.abort();
    }
}

impl Attached {
    /// The process that has been found: the second source of the workload's end. None: there will be none.
    pub fn watch(&mut self, process: Option<HostProcess>) {
        let Some(process) = process.map(Arc::new) else {
            self.watcher = None;
            return;
        };
        if let Some(watcher) = self.watcher.take() {
            // The workload may have ended already.
            let _ = watcher.send(process.clone());
        }
        self.process = Some(process);
    }

    /// Begins the health checks of a workload that runs and has been looked at. Without a `namespace` that is
    /// known from elsewhere they go to that of its first process.
    pub fn begin_checks(
        &self,
        ready: &Ready,
        check: &Check,
        namespace: Option<PathBuf>,
        addresses: Vec<IpAddr>,
    ) -> Option<Checks> {
        let namespace = namespace.or_else(|| self.process.as_ref().map(|process| process.network()));
        Some(Checks::begin(check.clone(), Target { namespace, addresses, exec: ready.exec()? }))
    }

    /// The workload's end, once.
    pub async fn exit(&mut self) -> End {
        (&mut self.exit).await.unwrap_or_else(|panic| {
            Err(Failure::new(
                Code::Internal,
                format!("an internal error of the executor while it waited for the task: {panic}"),
            ))
        })
    }

    /// Waits for the rest of the output.
    pub async fn drain(mut self) {
        if tokio::time::timeout(LOG_DRAIN, &mut self.logs).await.is_err() {
            tracing::warn!("the task's output continues after the task's end; it is cut off");
        }
    }
}
