//! The tasks of one run, from their launch to the end of their executors.
//!
//! ```text
//!  launch ──► settle (all RUNNING, or one is over) ──► watch ──► stop ──► executors gone
//!                 └── Ctrl-C ─────────────────────────────┴───────► stop, the second one: in haste
//! ```

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::broadcast::{error::RecvError, Receiver};
use tokio::time::{interval, timeout, Instant, MissedTickBehavior};

use crate::cli::interrupt::Interrupt;
use crate::cli::output::{count, Out};
use crate::mesos::messages::TaskInfo;
use crate::rig::agent::{fetch, kill_all, Agent, AgentError, Update};

use super::place::RunPlace;
use super::task::{short_ids, RunTask};
use super::timing::{describe, Parts};
use super::waiting;

/// How often a task's output is looked for.
const POLL: Duration = Duration::from_millis(100);
/// What a task gets between SIGTERM and SIGKILL when its app definition says nothing: a shell as
/// process 1 ignores SIGTERM, and the user waits for the end.
const GRACE: Duration = Duration::from_secs(1);
/// What stopping may take on top of the grace before the executors are killed.
const STOPPING: Duration = Duration::from_secs(30);
/// The same after the second Ctrl-C.
const HASTE: Duration = Duration::from_secs(3);
/// How long executors whose task is over may take to end.
const GOODBYE: Duration = Duration::from_secs(5);
/// A launch that takes longer is explained by the last line of the executor's log.
const PATIENCE: Duration = Duration::from_secs(4);

pub struct LocalRun<'a> {
    agent: Agent,
    updates: Receiver<Update>,
    pub tasks: Vec<RunTask>,
    out: &'a Out,
    interrupt: &'a Interrupt,
}

impl<'a> LocalRun<'a> {
    pub async fn start(
        place: &RunPlace,
        executor: PathBuf,
        out: &'a Out,
        interrupt: &'a Interrupt,
    ) -> Result<Self, AgentError> {
        let agent = Agent::start(place.agent(executor)).await?;
        Ok(Self { updates: agent.updates(), agent, tasks: Vec::new(), out, interrupt })
    }

    /// Launches all tasks, each with its files fetched. After an error the tasks before it run, and have to be stopped.
    pub async fn launch(&mut self, infos: Vec<TaskInfo>, place: &RunPlace) -> Result<(), AgentError> {
        let ids: Vec<&str> = infos.iter().map(|info| info.task_id.value.as_str()).collect();
        let shorts = short_ids(&ids);
        for (info, short) in infos.into_iter().zip(shorts) {
            let uris = fetch::uris(&info).filter(|uri| fetch::obstacle(uri).is_none());
            for uri in uris {
                self.out.line(format!("  {short}  fetching {}", fetch::shown(uri)));
            }
            let fetched = tokio::select! {
                fetched = self.agent.fetch(&info) => fetched?,
                () = self.interrupt.asked() => return Ok(()),
            };
            let launched = self.agent.launch_with(info.clone(), fetched).await?;
            let link = place.folder.join(&short);
            let sandbox = match std::os::unix::fs::symlink(&launched.sandbox, &link) {
                Ok(()) => link,
                // Only a shorter way to the same place.
                Err(_) => launched.sandbox.clone(),
            };
            self.tasks.push(RunTask::new(&info, short, &launched, sandbox));
        }
        Ok(())
    }

    /// Waits until every task runs or is over, or the user interrupts.
    pub async fn settle(&mut self) {
        let mut reminder = interval(PATIENCE);
        reminder.set_missed_tick_behavior(MissedTickBehavior::Delay);
        reminder.tick().await;
        while !self.tasks.iter().all(|task| task.is_running() || task.is_over()) {
            tokio::select! {
                update = self.updates.recv() => self.on_update(update),
                _ = reminder.tick() => self.explain(),
                () = self.interrupt.asked() => return,
            }
        }
    }

    /// Prints the tasks' output until all are over, `limit` has passed, or the user interrupts.
    pub async fn watch(&mut self, limit: Option<Duration>) {
        let end = limit.map(|limit| Instant::now() + limit);
        let mut poll = interval(POLL);
        while !self.tasks.iter().all(RunTask::is_over) {
            tokio::select! {
                update = self.updates.recv() => self.on_update(update),
                _ = poll.tick() => self.print_output(false),
                () = self.interrupt.asked() => break,
                () = until(end) => break,
            }
        }
        self.print_output(self.tasks.iter().all(RunTask::is_over));
    }

    /// Takes the updates that come while something else is waited for.
    pub async fn listen(&mut self) -> std::convert::Infallible {
        loop {
            let update = self.updates.recv().await;
            self.on_update(update);
        }
    }

    /// Kills what runs and waits for the executors' end. The second Ctrl-C cuts every grace short.
    pub async fn stop(&mut self) {
        let living: Vec<usize> =
            (0..self.tasks.len()).filter(|index| !self.tasks[*index].is_over()).collect();
        if !living.is_empty() {
            self.out.part(&format!("stopping {} ...", count(living.len(), "task")));
            for index in &living {
                self.kill(*index, None).await;
            }
            if !self.over_within(STOPPING, true).await {
                self.out.part(" at once ...");
                for index in &living {
                    self.kill(*index, Some(Duration::ZERO)).await;
                }
                self.over_within(HASTE, false).await;
            }
            let states = living
                .iter()
                .map(|index| self.tasks[*index].state().map_or("UNKNOWN", |state| state.short()));
            self.out.line(format!(" {}", states.collect::<Vec<_>>().join(" ")));
        }
        self.wait_for_executors().await;
    }

    async fn kill(&self, index: usize, grace: Option<Duration>) {
        let task = &self.tasks[index];
        let grace = grace.or((!task.has_kill_policy).then_some(GRACE));
        // It may have ended this very moment; what counts is waited for below.
        let _ = self.agent.kill(&task.id, grace).await;
    }

    /// True when all tasks were over in time.
    async fn over_within(&mut self, limit: Duration, until_urged: bool) -> bool {
        let interrupt = self.interrupt.clone();
        let waiting = async {
            while !self.tasks.iter().all(RunTask::is_over) {
                let update = self.updates.recv().await;
                self.note(update);
            }
        };
        tokio::select! {
            result = timeout(limit, waiting) => result.is_ok(),
            () = interrupt.urged(), if until_urged => false,
        }
    }

    /// Waits for the executors; one that does not end is killed, and its journal then has no owner.
    async fn wait_for_executors(&mut self) {
        let limit = if self.interrupt.count() > 1 { HASTE } else { GOODBYE };
        for task in &self.tasks {
            if task.is_over() && self.agent.wait_exit(&task.id, limit).await.is_ok() {
                continue;
            }
            if let Ok(pid) = i32::try_from(task.executor_pid) {
                kill_all(pid);
            }
            // A killed process ends; the limit is for the case that even that goes wrong.
            let _ = self.agent.wait_exit(&task.id, limit).await;
        }
        // Also for tasks that never sent a status.
        self.tasks.iter_mut().for_each(RunTask::learn);
    }

    fn on_update(&mut self, update: Result<Update, RecvError>) {
        let Some(index) = self.note(update) else { return };
        let task = &self.tasks[index];
        let Some(state) = task.state() else { return };
        if task.is_running() && task.states.len() <= 2 {
            let parts = Parts::read(&task.sandbox.join("stderr"));
            let took = describe(task.launched.elapsed(), parts, task.kind);
            self.out.line(format!("  {}  {}  {took}", task.short, task.story()));
        } else if state.is_terminal() {
            let message = task.message.as_deref().unwrap_or_default();
            let line = format!("  {}  {}  {message}", task.short, task.story());
            self.out.line(line.trim_end());
        }
    }

    /// The task whose state has changed.
    fn note(&mut self, update: Result<Update, RecvError>) -> Option<usize> {
        let missed = match update {
            Ok(update) => vec![update],
            // Too many at once for the channel: the agent remembers them all.
            Err(_) => self.tasks.iter().filter_map(|task| self.agent.history(&task.id).pop()).collect(),
        };
        let mut changed = None;
        for update in missed {
            let Some(index) = self.tasks.iter().position(|task| task.id == update.task_id) else { continue };
            let before = self.tasks[index].states.len();
            self.tasks[index].apply(&update);
            if self.tasks[index].states.len() > before {
                changed = Some(index);
            }
        }
        changed
    }

    /// What the executors of waiting tasks are busy with.
    fn explain(&self) {
        for task in self.tasks.iter().filter(|task| !task.is_running() && !task.is_over()) {
            let what = waiting::describe(&task.sandbox.join("stderr"), task.launched.elapsed());
            self.out.line(format!("  {}  {what}", task.short));
        }
    }

    fn print_output(&mut self, last: bool) {
        for task in &mut self.tasks {
            let lines = if last { task.output.last_lines() } else { task.output.lines() };
            for line in lines {
                self.out.line(format!("{} | {line}", task.short));
            }
        }
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}
