//! Way in A: the drop-in `mesos-docker-executor`, which the agent starts once for every Docker task.
//!
//! Translates between the driver's events and one task's [`super::life`]. The executor ends when
//! its task's terminal update is acknowledged, or a bounded time after it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{signal, Signal, SignalKind};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;

use crate::config;
use crate::error::{chain, Failure};
use crate::mesos::driver::{self, Driver, Event};
use crate::mesos::environment::Environment;
use crate::mesos::flags::Flags;
use crate::mesos::messages::framework_info::capability;
use crate::mesos::messages::{FrameworkInfo, TaskInfo, TaskState, TaskStatus};
use crate::names::ContainerId;

use super::life::{self, Change, Command, Ended, Link, Order, Outcome};
use super::status::Statuses;
use super::{docker_host, gc, spec};

/// How long the terminal update's acknowledgement is waited for; the stock executor's bound.
const LAST_ACKNOWLEDGEMENT: Duration = Duration::from_secs(60);
/// The same after SIGTERM: the agent waits for our exit and knows the task's end already.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What a shutdown leaves to the agent for reaping, as the stock executor counts it.
const REAP_MARGIN: Duration = Duration::from_secs(2);

/// Serves one task and returns when it is over.
pub async fn run(
    flags: Flags,
    environment: Environment,
    variables: BTreeMap<OsString, OsString>,
) -> ExitCode {
    let signals =
        signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
    let (mut term, mut int) = match signals {
        Ok(signals) => signals,
        Err(error) => return fail(&format!("cannot listen for signals: {error}")),
    };
    let (driver, mut events) = match driver::connect(&environment).await {
        Ok(connected) => connected,
        Err(error) => return fail(&format!("cannot register with the agent: {}", chain(&error))),
    };
    let mut executor = Executor::new(driver, flags, environment, variables);
    loop {
        let ended = tokio::select! {
            Some(event) = events.recv() => executor.event(event),
            news = news(&mut executor.task) => executor.news(news),
            _ = either(&mut term, &mut int) => executor.terminate(),
            else => true,
        };
        if ended {
            break;
        }
    }
    executor.say_goodbye(&mut events, either(&mut term, &mut int)).await
}

fn fail(message: &str) -> ExitCode {
    tracing::error!("{message}");
    ExitCode::FAILURE
}

async fn either(term: &mut Signal, int: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

/// The one task, while it lives.
struct Task {
    statuses: Statuses,
    id: String,
    grace: Option<Duration>,
    /// Where a Calico task's configuration is.
    calico: Option<PathBuf>,
    commands: UnboundedSender<Command>,
    changes: UnboundedReceiver<Change>,
    life: JoinHandle<Ended>,
}

/// What a life has to say.
enum News {
    Change(Change),
    Over(Ended),
}

/// The life's next word; none ever comes without a task.
async fn news(task: &mut Option<Task>) -> News {
    let Some(task) = task else { return std::future::pending().await };
    tokio::select! {
        biased;
        Some(change) = task.changes.recv() => News::Change(change),
        outcome = &mut task.life => News::Over(outcome.unwrap_or_else(|error| {
            let message = format!("the executor's own fault: {}", chain(&error));
            let outcome = Outcome::Failed(Failure::host("CM-INTERNAL", message));
            match task.calico.take() {
                // The life's lock went with it: its record is found like that of a dead executor.
                Some(config) => Ended { outcome, afterwards: Box::pin(gc::sweep_in_background(config)) },
                None => outcome.into(),
            }
        })),
    }
}

struct Executor {
    driver: Driver,
    flags: Flags,
    environment: Environment,
    /// This process's environment as it was at the start.
    variables: BTreeMap<OsString, OsString>,
    framework: Option<FrameworkInfo>,
    agent: String,
    task: Option<Task>,
    /// SIGTERM has come: be quick.
    terminated: bool,
    /// What the life has left to do once its outcome is told.
    afterwards: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Executor {
    fn new(
        driver: Driver,
        flags: Flags,
        environment: Environment,
        variables: BTreeMap<OsString, OsString>,
    ) -> Self {
        let agent = environment.slave_pid.address.ip().to_string();
        Self {
            driver,
            flags,
            environment,
            variables,
            framework: None,
            agent,
            task: None,
            terminated: false,
            afterwards: None,
        }
    }

    /// True when the executor has nothing more to do.
    fn event(&mut self, event: Event) -> bool {
        match event {
            Event::Registered { framework, agent } => {
                tracing::info!("registered with agent {}", agent.hostname);
                self.agent = agent.hostname;
                self.framework = Some(*framework);
            }
            Event::Reregistered => tracing::info!("registered again after the agent's restart"),
            Event::Launch(task) => self.launch(*task),
            Event::Kill { task_id, grace } => return self.kill(&task_id, grace),
            Event::Acknowledged { task_id, .. } => tracing::debug!(task = task_id, "update acknowledged"),
            Event::Message(data) => tracing::info!("a framework message of {} bytes is ignored", data.len()),
            Event::Shutdown { reason } => return self.shutdown(&reason),
            Event::Malformed { what } => tracing::warn!("a message is ignored: {what}"),
        }
        false
    }

    fn launch(&mut self, info: TaskInfo) {
        let id = info.task_id.value.clone();
        if let Some(task) = &self.task {
            let message = Failure::app(
                "CM-BUSY",
                format!("attempted to run a second task; this executor runs {}", task.id),
            );
            tracing::warn!(task = id, "{message}");
            let message = message.on(&self.agent);
            self.driver.update(TaskStatus::new(info.task_id, TaskState::TaskFailed).with_message(message));
            return;
        }
        tracing::info!(task = id, "starting");
        let statuses = Statuses::new(&id, &self.agent, info.container.as_ref());
        self.driver.update(statuses.starting());
        let (commands, command_receiver) = mpsc::unbounded_channel();
        let (change_sender, changes) = mpsc::unbounded_channel();
        let link = Link { commands: command_receiver, changes: change_sender };
        let (grace, calico, life) = match self.order(&info) {
            Ok(order) => {
                let calico = order.description.calico.is_some().then(|| order.config_path.clone());
                (order.description.kill_grace, calico, tokio::spawn(life::live(order, link)))
            }
            Err(failure) => (None, None, tokio::spawn(async { Outcome::Failed(failure).into() })),
        };
        self.task = Some(Task { statuses, id, grace, calico, commands, changes, life });
    }

    fn order(&self, info: &TaskInfo) -> Result<Order, Failure> {
        let description = spec::describe(info, &self.flags, spec::total_memory())?;
        let config_path = self.config_path();
        let task_sets_it = info
            .command
            .iter()
            .filter_map(|command| command.environment.as_ref())
            .flat_map(|environment| &environment.variables)
            .any(|variable| variable.name == "DOCKER_HOST");
        let docker = docker_host::choose(
            self.variables.get(OsStr::new("DOCKER_HOST")).and_then(|value| value.to_str()),
            task_sets_it,
            &config_path,
            Some(&self.flags.docker_socket),
        )?;
        let container = match self.flags.container_id() {
            // Names are made from it for Calico tasks only.
            Err(_) if description.calico.is_none() => ContainerId::random(),
            id => id.map_err(|error| Failure::host("CM-AGENT-FLAGS", chain(&error)))?,
        };
        Ok(Order {
            container,
            name: self.flags.container.clone(),
            description,
            docker,
            config_path,
            framework: self.environment.framework_id.clone(),
            host_address: self.host_address(),
        })
    }

    fn config_path(&self) -> PathBuf {
        self.flags.config.clone().unwrap_or_else(|| config::DEFAULT_PATH.into())
    }

    fn host_address(&self) -> Option<IpAddr> {
        Some(self.environment.slave_pid.address.ip()).filter(|ip| !ip.is_unspecified())
    }

    fn change(&mut self, change: Change) {
        let Some(task) = &mut self.task else { return };
        match change {
            Change::Running { inspect, addresses, timing } => {
                match timing {
                    Some(timing) => tracing::info!(
                        task = task.id,
                        "running (address {} ms, interface {} ms, gate waited {} ms)",
                        timing.address.as_millis(),
                        timing.interface.as_millis(),
                        timing.gate.as_millis()
                    ),
                    None => tracing::info!(task = task.id, "running"),
                }
                let calico = timing.is_some();
                self.driver.update(task.statuses.running(inspect, addresses));
                if calico {
                    // What dead executors left behind, one cleaner at a time on a host.
                    tokio::spawn(gc::sweep_in_background(self.config_path()));
                }
            }
            Change::Killing => {
                tracing::info!(task = task.id, "killing");
                self.driver.update(task.statuses.killing());
            }
        }
    }

    fn news(&mut self, news: News) -> bool {
        match news {
            News::Change(change) => {
                self.change(change);
                false
            }
            News::Over(ended) => {
                self.outcome(&ended.outcome);
                self.afterwards = Some(ended.afterwards);
                true
            }
        }
    }

    fn outcome(&mut self, outcome: &Outcome) {
        let Some(task) = self.task.take() else { return };
        let status = task.statuses.terminal(outcome);
        tracing::info!(task = task.id, "{}", status.message.as_deref().unwrap_or("over"));
        self.driver.update(status);
    }

    /// The framework's kill.
    fn kill(&mut self, task_id: &str, grace: Option<Duration>) -> bool {
        match &self.task {
            Some(task) if task.id == task_id => {
                let grace = grace.or(task.grace).unwrap_or_else(|| self.shutdown_grace());
                self.command(grace);
                false
            }
            Some(task) => {
                tracing::warn!("a kill for {task_id} is ignored: this executor runs {}", task.id);
                false
            }
            None => {
                // The launch will not come any more; the agent cleans up when we are gone.
                tracing::warn!("a kill for {task_id} came before its launch");
                true
            }
        }
    }

    fn shutdown(&mut self, reason: &str) -> bool {
        tracing::info!("shutting down: {reason}");
        let grace = self.shutdown_grace().saturating_sub(REAP_MARGIN);
        self.command(grace)
    }

    fn terminate(&mut self) -> bool {
        tracing::info!("asked to terminate");
        self.terminated = true;
        self.command(Duration::ZERO)
    }

    /// True when there is no task to stop.
    fn command(&mut self, grace: Duration) -> bool {
        let announce = self
            .framework
            .as_ref()
            .is_some_and(|framework| framework.has(capability::Type::TaskKillingState));
        match &self.task {
            Some(task) => {
                // A life that listens no more is over: its outcome has to be told yet.
                let _ = task.commands.send(Command::Kill { grace, announce });
                false
            }
            None => true,
        }
    }

    fn shutdown_grace(&self) -> Duration {
        self.environment.shutdown_grace.max(self.flags.stop_timeout)
    }

    /// Waits for the acknowledgement of the last update; a shutdown or SIGTERM cuts the wait short.
    async fn say_goodbye(
        self,
        events: &mut UnboundedReceiver<Event>,
        signalled: impl Future<Output = ()>,
    ) -> ExitCode {
        let limit = if self.terminated { LAST_WORDS } else { LAST_ACKNOWLEDGEMENT };
        let cut_short = async {
            tokio::select! {
                () = signalled => {}
                () = shut_down(events) => {}
            }
            tokio::time::sleep(LAST_WORDS).await;
        };
        let acknowledged = async {
            if !self.driver.drained(limit).await {
                tracing::warn!("the agent has not acknowledged the last update");
            }
        };
        let afterwards = async {
            if let Some(work) = self.afterwards {
                work.await;
            }
        };
        tokio::select! {
            _ = futures_util::future::join(acknowledged, afterwards) => {},
            // What is not done by then is the next cleaner's.
            () = cut_short => {}
        }
        ExitCode::SUCCESS
    }
}

async fn shut_down(events: &mut UnboundedReceiver<Event>) {
    while let Some(event) = events.recv().await {
        if let Event::Shutdown { .. } = event {
            return;
        }
    }
    std::future::pending().await
}
