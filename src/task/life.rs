//! One task's life: commands come in, changes go out, and exactly one outcome ends it.
//!
//! ```text
//!            ┌───────────── Kill ─────────────┐
//!            │                                ▼
//!  launch ─► set-up ─► start ─► running ─► stopping ─► the way back ─► Outcome
//!               │         │        └── exits by itself ──────▲
//!               └─ fails ─┴────────────────────────────────┘
//! ```
//!
//! The life knows nothing of the way in: drop-in executor, custom executor and proxy all feed it a
//! [`Description`] and translate [`Change`]s into their own words. One async task owns all the state;
//! nobody else mutates it. A task without CALICO variables takes the same road without the journal,
//! the namespace and the gate, and touches neither etcd nor Consul.

use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::{chain, Failure};
use crate::names::ContainerId;
use crate::workload::{Docker, DockerError, Exit, Inspected, Sink};

use super::docker_host::Chosen;
use super::making::Making;
use super::network::Timing;
use super::retry::host_faults_until;
use super::spec::Description;

/// Log output is waited for so long after the workload's end.
const LOG_DRAIN: Duration = Duration::from_secs(2);
/// A stop that Docker refuses or forgets is asked for again.
const STOP_AGAIN: Duration = Duration::from_secs(5);
/// What a shell calls the end by SIGKILL.
const SIGKILLED: i64 = 137;

/// What the way in knows about the task.
#[derive(Clone)]
pub struct Order {
    pub container: ContainerId,
    /// Docker's name of the container, which the agent goes by.
    pub name: String,
    pub description: Description,
    pub docker: Chosen,
    pub config_path: PathBuf,
    pub framework: String,
    /// The agent's address, under which `<app>` is registered.
    pub host_address: Option<IpAddr>,
}

/// What the way in asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Stop the task, with this grace period between SIGTERM and SIGKILL.
    Kill { grace: Duration, announce: bool },
}

/// What happens on the way.
#[derive(Debug)]
pub enum Change {
    /// The workload's first instruction has run, or is about to.
    Running { inspect: Option<String>, addresses: Vec<IpAddr>, timing: Option<Timing> },
    /// A kill has begun.
    Killing,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// By itself, with this status.
    Exited(Exit),
    /// It was asked to stop. The status is there when it had started.
    Killed(Option<Exit>),
    /// It could not be started, or its end could not be learned.
    Failed(Failure),
}

/// A life that is over, with what nobody has to wait for before the outcome is told.
pub struct Ended {
    pub outcome: Outcome,
    /// To be awaited before the process ends.
    pub afterwards: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl From<Outcome> for Ended {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, afterwards: Box::pin(std::future::ready(())) }
    }
}

/// The two ends of a life that talk to the way in.
pub struct Link {
    pub commands: UnboundedReceiver<Command>,
    pub changes: UnboundedSender<Change>,
}

impl Link {
    pub(super) fn tell(&self, change: Change) {
        // Nobody listens any more when the executor is going down: nothing to do about it.
        let _ = self.changes.send(change);
    }

    /// Runs `work` unless a kill comes first.
    pub(super) async fn unless_killed<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Command> {
        tokio::pin!(work);
        tokio::select! {
            biased;
            Some(command) = self.commands.recv() => Err(command),
            result = &mut work => Ok(result),
        }
    }
}

/// Lives the task to its end.
pub async fn live(order: Order, mut link: Link) -> Ended {
    for note in &order.description.notes {
        tracing::warn!("{note}");
    }
    match order.description.calico {
        Some(_) => super::calico_life::live(order, link).await,
        None => plain(Arc::new(order), &mut link).await.into(),
    }
}

/// A task that stock Mesos could run just as well.
async fn plain(order: Arc<Order>, link: &mut Link) -> Outcome {
    let mut creation = Making::start(|cancel| create(order, RETRY_NOTHING, cancel));
    let made = link.unless_killed(creation.made()).await;
    let ready = match made {
        Ok(Ok(ready)) => ready,
        Ok(Err(failure)) => return Outcome::Failed(failure),
        Err(command) => {
            announce(link, command);
            creation.give_up().await;
            return Outcome::Killed(None);
        }
    };
    let mut attached = match ready.attach().await {
        Ok(attached) => attached,
        Err(failure) => return Outcome::Failed(failure),
    };
    if let Err(error) = ready.docker.start(&ready.id).await {
        return Outcome::Failed(error.failure());
    }
    let (seen, first_kill) = ready.look_unless_killed(&mut attached, link).await;
    let (inspect, addresses) = seen.map_or_else(Default::default, |seen| (Some(seen.text), seen.addresses));
    link.tell(Change::Running { inspect, addresses, timing: None });
    let event = match first_kill {
        Some(command) => Err(command),
        None => attached.end_or_kill(link).await,
    };
    let (end, stopped) = match event {
        Ok(end) => (end, false),
        Err(command) => {
            announce(link, command);
            (attached.stop(&ready, command, link, None).await, true)
        }
    };
    attached.drain().await;
    outcome(end, stopped)
}

/// Stock retries nothing at this place, and neither do we for a task that is not ours to improve.
pub(super) const RETRY_NOTHING: Duration = Duration::ZERO;

/// A container that exists and has not been started.
pub(super) struct Ready {
    pub docker: Docker,
    pub id: String,
    pub name: String,
}

/// Connects to Docker and creates the container, for which the image is brought where it is missing.
pub(super) async fn create(
    order: Arc<Order>,
    retry_for: Duration,
    cancel: CancellationToken,
) -> Result<Ready, Failure> {
    let description = &order.description;
    let lost = AtomicBool::new(false);
    host_faults_until(&cancel, retry_for, || async {
        let docker = Docker::connect(&order.docker.host, &order.docker.source.to_string())
            .await
            .map_err(|error| error.failure())?;
        if description.calico.is_some() {
            refuse_remote(&docker).await?;
        }
        if description.force_pull {
            bring_image(&docker, &order, &cancel).await?;
        }
        let create = || docker.create(&order.name, &description.container);
        let id = match create().await {
            // Nearly always the image is there: that is not asked beforehand.
            Err(DockerError::Image { .. }) if !description.force_pull => {
                bring_image(&docker, &order, &cancel).await?;
                create().await
            }
            // The answer to an earlier try was lost; what it made is ours.
            Err(DockerError::NameTaken { name }) if lost.load(Ordering::Relaxed) => {
                docker.inspect(&name).await.and_then(|seen| match seen.started {
                    false => Ok(seen.id),
                    true => Err(DockerError::NameTaken { name }),
                })
            }
            created => created,
        };
        if matches!(id, Err(DockerError::Away { .. } | DockerError::Slow { .. })) {
            lost.store(true, Ordering::Relaxed);
        }
        let id = id.map_err(|error| error.failure())?;
        tracing::info!("created container {} ({})", order.name, id.get(..12).unwrap_or(&id));
        Ok(Ready { docker, id, name: order.name.clone() })
    })
    .await
}

/// A namespace made here is of no use to a daemon elsewhere.
async fn refuse_remote(docker: &Docker) -> Result<(), Failure> {
    if docker.is_local().await.map_err(|error| error.failure())? {
        return Ok(());
    }
    Err(Failure::host(
        "CM-DOCKER",
        format!(
            "Docker at {} runs on another machine, but a Calico task needs that of its agent",
            docker.address()
        ),
    ))
}

/// Pulls the image, unless the task is killed meanwhile.
async fn bring_image(docker: &Docker, order: &Order, cancel: &CancellationToken) -> Result<(), Failure> {
    let Description { container, force_pull, .. } = &order.description;
    let mut progress = |line: &str| tracing::info!("{line}");
    tokio::select! {
        pulled = docker.ensure_image(&container.image, *force_pull, &mut progress) => {
            pulled.map_err(|error| error.failure())
        }
        () = cancel.cancelled() => Err(Failure::host("CM-KILLED", "the task was killed")),
    }
}

/// Output and end of a container, asked for before it starts so that nothing is missed.
pub(super) struct Attached {
    logs: JoinHandle<()>,
    exit: JoinHandle<End>,
    /// Where the second source of the end, the process itself, is told.
    pid: Option<oneshot::Sender<i32>>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        // A life that fails before it runs leaves nobody behind who waits for Docker.
        self.logs.abort();
        self.exit.abort();
    }
}

impl Ready {
    pub(super) async fn attach(&self) -> Result<Attached, Failure> {
        let (output, waiting) = tokio::try_join!(self.docker.attach(&self.id), self.docker.wait(&self.id))
            .map_err(|error| error.failure())?;
        let own = |sink: std::io::Result<Sink>| {
            sink.map_err(|error| Failure::host("CM-HOST", format!("cannot write the task's output: {error}")))
        };
        let logs = tokio::spawn(output.pump(own(Sink::stdout())?, own(Sink::stderr())?));
        let (pid, process) = oneshot::channel();
        let exit = tokio::spawn(async move { waiting.exit(process).await.map_err(|error| error.failure()) });
        Ok(Attached { logs, exit, pid: Some(pid) })
    }

    /// [`Ready::look`], which a busy Docker can make last: a kill does not wait for it.
    pub(super) async fn look_unless_killed(
        &self,
        attached: &mut Attached,
        link: &mut Link,
    ) -> (Option<Inspected>, Option<Command>) {
        match link.unless_killed(self.look(attached)).await {
            Ok(seen) => (seen, None),
            Err(command) => (None, Some(command)),
        }
    }

    /// What Docker says of the running container; without it the task runs all the same.
    async fn look(&self, attached: &mut Attached) -> Option<Inspected> {
        match self.docker.inspect(&self.id).await {
            Ok(inspected) => {
                if let (Some(process), Some(pid)) = (attached.pid.take(), inspected.pid) {
                    // Nobody listens any more when the container has ended already.
                    let _ = process.send(pid);
                }
                Some(inspected)
            }
            Err(error) => {
                tracing::warn!("{}", chain(&error));
                None
            }
        }
    }
}

/// How the workload ended, or why that cannot be learned.
pub(super) type End = Result<Exit, Failure>;

impl Attached {
    /// Waits until the workload ends by itself, or a kill comes.
    pub(super) async fn end_or_kill(&mut self, link: &mut Link) -> Result<End, Command> {
        tokio::select! {
            end = &mut self.exit => Ok(told(end)),
            Some(command) = link.commands.recv() => Err(command),
        }
    }

    /// Asks Docker to stop the container until it has ended; a later kill brings its own grace period.
    ///
    /// `patience`: so long after the grace period it is left to the caller, who can kill without Docker.
    pub(super) async fn stop(
        &mut self,
        ready: &Ready,
        first: Command,
        link: &mut Link,
        patience: Option<Duration>,
    ) -> End {
        let Command::Kill { mut grace, .. } = first;
        let mut ends = Instant::now() + grace;
        loop {
            tracing::info!("stopping {} with a grace period of {grace:?}", ready.name);
            let stopping = async {
                if let Err(error) = ready.docker.stop(&ready.id, grace).await {
                    tracing::warn!("{}; asking again", chain(&error));
                }
                tokio::time::sleep(STOP_AGAIN).await;
            };
            tokio::select! {
                end = &mut self.exit => return told(end),
                Some(Command::Kill { grace: later, .. }) = link.commands.recv() => {
                    grace = later;
                    ends = Instant::now() + grace;
                }
                () = stopping => {
                    if patience.is_some_and(|patience| ends.elapsed() > patience) {
                        tracing::warn!("Docker does not stop {}; it is killed without Docker", ready.name);
                        return Ok(Exit { code: SIGKILLED, oom_killed: None });
                    }
                    grace = ends.saturating_duration_since(Instant::now());
                }
            }
        }
    }

    /// Waits for the rest of the output.
    pub(super) async fn drain(mut self) {
        if tokio::time::timeout(LOG_DRAIN, &mut self.logs).await.is_err() {
            tracing::warn!("the container's output goes on after its end; it is cut off");
        }
    }
}

fn told(end: Result<End, JoinError>) -> End {
    end.unwrap_or_else(|panic| {
        Err(Failure::host(
            "CM-INTERNAL",
            format!("the executor's own fault while waiting for the container: {panic}"),
        ))
    })
}

/// What the end means; a task that was asked to stop is killed, whatever its exit code.
pub(super) fn outcome(end: End, stopped: bool) -> Outcome {
    match end {
        end if stopped => Outcome::Killed(end.ok()),
        Ok(exit) => Outcome::Exited(exit),
        Err(failure) => Outcome::Failed(failure),
    }
}

pub(super) fn announce(link: &Link, command: Command) {
    let Command::Kill { announce, .. } = command;
    if announce {
        link.tell(Change::Killing);
    }
}

/// The configuration, which only Calico tasks read.
pub(super) fn load_config(order: &Order) -> Result<Config, Failure> {
    Config::load(&order.config_path)
        .map_err(|error| Failure::host("CM-CONFIG", format!("{}; mend it on the agent", chain(&error))))
}
