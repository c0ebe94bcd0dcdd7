//! What all executors have in common: the driver's events go to lives, the lives' changes go to the driver.
//!
//! ```text
//!  agent ── Launch ──► Way::order ──► life::live   (one async task each)
//!        ── Kill, Shutdown, SIGTERM, SIGINT ──► Kill
//!        ◄── TaskStatus ── LifeChange, Outcome
//! ```
//!
//! An agent that destroys an executor sends it SIGTERM, and reports the state and reason of its tasks itself. From then
//! on the executor reports nothing: its update would arrive first and hide the agent's. The teardown is done all the
//! same. SIGINT comes from a Ctrl-C and not from the agent: it is a shutdown, and the ends of the tasks are reported.
//!
//! The executor ends when no task is left and the last update is acknowledged, or a bounded time later. The ways in
//! differ in how an [`Order`] is made of a TaskInfo; that is their [`Way`].

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{sleep, sleep_until, Instant};
use tracing::Instrument;

use crate::error::{chain, Code, Failure};
use crate::limits::AGENT_ACKNOWLEDGEMENT;
use crate::logging;
use crate::mesos::driver::{Driver, Event};
use crate::mesos::messages::framework_info::capability;
use crate::mesos::messages::{ExecutorInfo, FrameworkInfo, TaskInfo, TaskState, TaskStatus};

use crate::task::channel::{Cause, Ended, Kill, LifeChange, LifeChannel, Order, OthersWord, Outcome};
use crate::task::request::Work;
use crate::task::ways_in::status::Statuses;
use crate::task::{cleaner, life};

/// The same after SIGTERM or a shutdown: the agent waits for our exit.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What a shutdown leaves to the agent for reaping, as the stock executor counts it.
const REAP_MARGIN: Duration = Duration::from_secs(2);

/// A way in.
pub trait Way: 'static {
    /// The agent has taken us in, as this executor.
    fn registered(&mut self, executor: ExecutorInfo);
    /// Understands a task.
    fn order(&self, info: &TaskInfo) -> Result<Order, Failure>;
    /// How many tasks may live at once.
    fn most_tasks(&self) -> usize;
    /// The time between SIGTERM and SIGKILL, when neither kill nor task sets it.
    fn kill_grace(&self) -> Duration;
    /// What the agent grants between a shutdown and the end of this process.
    fn shutdown_grace(&self) -> Duration;
}

/// Serves the driver until no task is left.
pub async fn run(
    driver: Driver,
    mut events: UnboundedReceiver<Event>,
    way: impl Way,
    agent: String,
) -> ExitCode {
    let signals =
        signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
    let (mut term, mut int) = match signals {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!("cannot listen for signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    let (changes, mut changed) = mpsc::unbounded_channel();
    let mut executor = Executor::new(driver, way, agent, changes);
    let mut goodbye: Option<Pin<Box<dyn Future<Output = ()>>>> = None;
    loop {
        if executor.is_idle() && goodbye.is_none() {
            executor.launched = false;
            goodbye = Some(Box::pin(executor.goodbye()));
        }
        tokio::select! {
            biased;
            _ = term.recv() => executor.terminate(),
            _ = int.recv() => executor.shutdown("interrupted (SIGINT)"),
            Some((task, change)) = changed.recv() => executor.change(&task, change),
            Some(ended) = executor.lives.join_next_with_id() => executor.ended(ended),
            Some(event) = events.recv() => executor.event(event),
            // What is left to do by then is the next cleaner's.
            () = until(executor.ends_at) => break,
            () = done(&mut goodbye) => {
                if executor.is_idle() && !executor.launched {
                    break;
                }
                // Another task came meanwhile; what that one leaves to do has not been waited for.
                goodbye = None;
            }
        }
    }
    ExitCode::SUCCESS
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

async fn done(work: &mut Option<Pin<Box<dyn Future<Output = ()>>>>) {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

/// One task, while it lives.
struct Task {
    statuses: Statuses,
    grace: Option<Duration>,
    /// Where a Calico task's configuration is.
    calico: Option<PathBuf>,
    kills: UnboundedSender<Kill>,
    /// Its fellows share its fate; see [`Executor::launch_group`].
    group: Option<usize>,
    /// It has been asked to end.
    stopping: bool,
    life: Id,
    /// Lines about the whole executor name it as long as it is here.
    _named: logging::Named,
}

struct Executor<W> {
    driver: Driver,
    way: W,
    framework: Option<FrameworkInfo>,
    /// Its host name for messages, its address until that is known.
    agent: String,
    tasks: BTreeMap<String, Task>,
    lives: JoinSet<Ended>,
    changes: UnboundedSender<(String, LifeChange)>,
    groups: usize,
    /// A first task has come, or none will come any more.
    served: bool,
    /// A task has come since the last goodbye began.
    launched: bool,
    /// What lives have left to do once their outcome is reported.
    afterwards: JoinSet<()>,
    /// The agent waits for our exit.
    ends_at: Option<Instant>,
    hurried: bool,
    /// By SIGTERM: the agent reports the ends of the tasks.
    destroyed: bool,
}

impl<W: Way> Executor<W> {
    fn new(driver: Driver, way: W, agent: String, changes: UnboundedSender<(String, LifeChange)>) -> Self {
        Self {
            driver,
            way,
            framework: None,
            agent,
            tasks: BTreeMap::new(),
            lives: JoinSet::new(),
            changes,
            groups: 0,
            served: false,
            launched: false,
            afterwards: JoinSet::new(),
            ends_at: None,
            hurried: false,
            destroyed: false,
        }
    }

    fn is_idle(&self) -> bool {
        self.served && self.tasks.is_empty()
    }

    /// All that has to be waited for once no task is left.
    fn goodbye(&mut self) -> impl Future<Output = ()> + use<W> {
        let driver = self.driver.clone();
        let mut afterwards = std::mem::take(&mut self.afterwards);
        if self.hurried {
            self.ends_at = Some(Instant::now() + LAST_WORDS);
        }
        async move {
            let acknowledged = async {
                if !driver.drained(AGENT_ACKNOWLEDGEMENT).await {
                    tracing::warn!("the agent has not acknowledged the last update");
                }
            };
            let afterwards = async { while afterwards.join_next().await.is_some() {} };
            tokio::join!(acknowledged, afterwards);
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Registered { framework, agent, executor, .. } => {
                tracing::info!("registered with agent {}", agent.hostname);
                self.agent = agent.hostname;
                self.framework = Some(*framework);
                self.way.registered(*executor);
            }
            Event::Reregistered => tracing::info!("registered again with agent {}", self.agent),
            Event::Launch(task) => self.launch(*task, None),
            Event::LaunchGroup(tasks) => self.launch_group(tasks),
            Event::Kill { task_id, grace } => self.kill(&task_id, grace),
            Event::Acknowledged { task_id, .. } => tracing::debug!(task = task_id, "update acknowledged"),
            Event::Message(data) => tracing::info!("a framework message of {} bytes is ignored", data.len()),
            Event::Shutdown { reason } => self.shutdown(&reason),
            Event::Malformed { what } => tracing::warn!("a message is ignored: {what}"),
        }
    }

    /// Tasks of a group start together, and when one of them does not end well the others are stopped, as
    /// Mesos' own default executor does it.
    fn launch_group(&mut self, tasks: Vec<TaskInfo>) {
        self.groups += 1;
        for task in tasks {
            self.launch(task, Some(self.groups));
        }
    }

    fn launch(&mut self, info: TaskInfo, group: Option<usize>) {
        self.served = true;
        self.launched = true;
        let id = info.task_id.value.clone();
        if self.tasks.contains_key(&id) {
            // An update about it would be taken for the end of the one that lives.
            return tracing::warn!(task = id, "a second launch of the task is ignored");
        }
        if let Some(refused) = self.refuse() {
            tracing::warn!(task = id, "{refused}");
            let message = refused.on(&self.agent);
            self.report(TaskStatus::new(info.task_id, TaskState::TaskFailed).with_message(message));
            return;
        }
        let mut statuses = Statuses::new(&id, &self.agent, info.container.as_ref());
        self.report(statuses.starting());
        let (kills, receiver) = mpsc::unbounded_channel();
        let (changes, others) = (self.changes.clone(), OthersWord::default());
        let channel = LifeChannel { task_id: id.clone(), kills: receiver, others, changes };
        let in_task = logging::task(&id);
        let named = logging::Named::begin(&id);
        let (grace, calico, life) = match in_task.in_scope(|| self.way.order(&info)) {
            Ok(order) => {
                let description = &order.description;
                // Before anything is made: the sandbox says what has this name.
                tracing::info!(
                    task = id,
                    "launching as container {} ({})",
                    order.container,
                    description.summary()
                );
                if matches!(description.task.work(), Work::Command(_)) {
                    statuses = statuses.of_command();
                }
                let calico = description.task.calico().is_some().then(|| order.config_path.clone());
                if let Some(limit) = description.max_completion {
                    in_task.in_scope(|| logging::spawn(overdue(kills.clone(), limit)));
                }
                (
                    description.kill_grace,
                    calico,
                    self.lives.spawn(life::live(order, channel).instrument(in_task)).id(),
                )
            }
            Err(failure) => (None, None, self.lives.spawn(async { Outcome::Failed(failure).into() }).id()),
        };
        self.tasks
            .insert(id, Task { statuses, grace, calico, kills, group, stopping: false, life, _named: named });
    }

    fn refuse(&self) -> Option<Failure> {
        if self.hurried {
            // There would be no executor left to stop it.
            return Some(Failure::new(Code::Killed, "the executor is shutting down"));
        }
        let (first, _) = self.tasks.first_key_value()?;
        (self.tasks.len() >= self.way.most_tasks()).then(|| {
            Failure::new(Code::Busy, format!("attempted to run a second task; this executor runs {first}"))
        })
    }

    fn change(&mut self, id: &str, change: LifeChange) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        match change {
            LifeChange::Running { inspect, addresses } => {
                let status = task.statuses.running(inspect, addresses);
                let calico = task.calico.clone();
                self.report(status);
                if let Some(config) = calico {
                    // What dead executors left behind, one cleaner at a time on a host.
                    tokio::spawn(cleaner::sweep_in_background(config).instrument(logging::task(id)));
                }
            }
            LifeChange::Health { healthy, kill } => {
                let status = task.statuses.health(healthy);
                self.report(status);
                if kill {
                    self.stop(id, None, Cause::Unhealthy);
                }
            }
            // Only of adopted containers, which come another way.
            LifeChange::Prepared => {}
            LifeChange::Killing => {
                tracing::info!(task = id, "killing");
                let status = task.statuses.killing();
                self.report(status);
            }
        }
    }

    fn ended(&mut self, ended: Result<(Id, Ended), JoinError>) {
        let (life, result) = match ended {
            Ok((life, ended)) => (life, Ok(ended)),
            Err(error) => (error.id(), Err(error)),
        };
        let found = self.tasks.iter().find(|(_, task)| task.life == life);
        let Some(task) = found.map(|(id, _)| id.clone()).and_then(|id| self.tasks.remove_entry(&id)) else {
            return;
        };
        let (id, task) = task;
        let Ended { outcome, afterwards, .. } = result.unwrap_or_else(|panic| {
            let message = format!("an internal error of the executor: {}", chain(&panic));
            let outcome = Outcome::Failed(Failure::new(Code::Internal, message));
            match task.calico {
                // The life's lock went with it: its record is found like that of a dead executor.
                Some(config) => {
                    Ended { afterwards: Box::pin(cleaner::sweep_in_background(config)), ..outcome.into() }
                }
                None => outcome.into(),
            }
        });
        let status = task.statuses.terminal(&outcome);
        tracing::info!(task = id, "{}", status.message.as_deref().unwrap_or("over"));
        if let (Some(group), true) = (task.group, status.state() != TaskState::TaskFinished) {
            self.stop_group(group);
        }
        self.report(status);
        self.afterwards.spawn(afterwards.instrument(logging::task(&id)));
    }

    fn report(&self, status: TaskStatus) {
        if self.destroyed {
            let (task, state) = (&status.task_id.value, status.state().as_str_name());
            return tracing::info!(
                task,
                "{state} is not reported: the agent destroys this executor and reports the task's end itself"
            );
        }
        self.driver.update(status);
    }

    fn stop_group(&mut self, group: usize) {
        let is_to_stop = |task: &Task| task.group == Some(group) && !task.stopping;
        let fellows: Vec<String> =
            self.tasks.iter().filter(|(_, task)| is_to_stop(task)).map(|(id, _)| id.clone()).collect();
        for id in fellows {
            tracing::info!(task = id, "stopping, because another task of its group did not end well");
            self.stop(&id, None, Cause::Asked);
        }
    }

    /// The framework's kill.
    fn kill(&mut self, id: &str, grace: Option<Duration>) {
        if self.tasks.contains_key(id) {
            return self.stop(id, grace, Cause::Asked);
        }
        match self.tasks.first_key_value() {
            Some((other, _)) => tracing::warn!(task = id, "its kill is ignored: this executor runs {other}"),
            None => {
                // The launch will not come any more; the agent cleans up when we are gone.
                tracing::warn!(task = id, "its kill came before its launch");
                self.served = true;
            }
        }
    }

    fn shutdown(&mut self, reason: &str) {
        tracing::info!("shutting down: {reason}");
        self.stop_all(self.way.shutdown_grace().saturating_sub(REAP_MARGIN));
    }

    fn terminate(&mut self) {
        tracing::info!("asked to terminate");
        self.destroyed = true;
        self.stop_all(Duration::ZERO);
    }

    /// Nothing comes after it: the agent waits for our exit.
    fn stop_all(&mut self, grace: Duration) {
        self.served = true;
        self.hurried = true;
        let ids: Vec<String> = self.tasks.keys().cloned().collect();
        for id in ids {
            self.stop(&id, Some(grace), Cause::Asked);
        }
        if self.tasks.is_empty() {
            self.ends_at.get_or_insert_with(|| Instant::now() + LAST_WORDS);
        }
    }

    fn stop(&mut self, id: &str, grace: Option<Duration>, cause: Cause) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.stopping = true;
        let grace = grace.or(task.grace).unwrap_or_else(|| self.way.kill_grace());
        let announce = self
            .framework
            .as_ref()
            .is_some_and(|framework| framework.has(capability::Type::TaskKillingState));
        // A life that listens no more is over: its outcome is about to be reported.
        let _ = task.kills.send(Kill { grace, announce, cause });
    }
}

/// Stops a task that takes longer than it may, at once and without announcement, as the stock executor does.
async fn overdue(kills: UnboundedSender<Kill>, limit: Duration) {
    tokio::select! {
        () = sleep(limit) => {
            let kill = Kill { grace: Duration::ZERO, announce: false, cause: Cause::Overdue };
            // Over in time after all.
            let _ = kills.send(kill);
        }
        () = kills.closed() => {}
    }
}

#[cfg(test)]
mod tests;
