//! What a scheduler asks of its agent: launch, kill, message, shutdown.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::process::Child;
use uuid::Uuid;

use super::executor::{Ending, Executor, Phase, Task};
use super::hub::{Alarm, Hub, Internal};
use super::spawn::{self, Folders};
use super::{info, AgentError, Launched};
use crate::mesos::messages::task_status::Reason;
use crate::mesos::messages::{
    DurationInfo, FrameworkToExecutorMessage, KillPolicy, KillTaskMessage, RunTaskMessage,
    ShutdownExecutorMessage, TaskInfo, TaskState,
};

/// A scheduler that speaks HTTP has no address of this kind.
const SCHEDULER: &str = "@0.0.0.0:0";
/// A real agent polls for the end of its children; an executor's last words arrive before that.
const REAP: Duration = Duration::from_millis(100);

impl Hub {
    pub(super) fn launch(&mut self, mut task: TaskInfo) -> Result<Launched, AgentError> {
        let at = Instant::now();
        let id = task.task_id.value.clone();
        if self.server.is_none() {
            return Err(AgentError::Stopped);
        }
        if id.is_empty() || id == "." || id == ".." || id.contains(['/', '\0']) {
            return Err(AgentError::Unknown(id));
        }
        if self.executors.contains_key(&id) {
            return Err(AgentError::Duplicate(id));
        }
        task.slave_id = self.options.slave_id.as_str().into();
        let container_id = Uuid::new_v4().hyphenated().to_string();
        let info = info::executor_info(&self.options, &task);
        let folders = Folders::of(&self.options, &id, &container_id);
        folders.create()?;
        let argv = spawn::argv(&self.options, &container_id, &folders.sandbox);
        let environment = spawn::environment(&self.options, &self.pid, &info, &task, &folders.sandbox);
        let mut child = spawn::spawn(&self.options, &argv, &environment, &folders)?;
        let executor_pid = child.id().unwrap_or_default();
        let uris = task.command.iter().flat_map(|command| &command.uris);
        let not_fetched = uris.map(|uri| uri.value.clone()).collect();
        self.executors.insert(
            id.clone(),
            Executor {
                info,
                container_id: container_id.clone(),
                meta: folders.meta,
                phase: Phase::Registering,
                pid: None,
                link: None,
                tasks: BTreeMap::from([(id, Task::default())]),
                queued: vec![task],
                ending: Ending::default(),
                group: i32::try_from(executor_pid).ok(),
                stdin: child.stdin.take(),
                lost: false,
            },
        );
        self.reap(container_id.clone(), child);
        self.set_alarm(&container_id, Alarm::Registration, self.options.registration_timeout);
        Ok(Launched { container_id, sandbox: folders.sandbox, at, executor_pid, not_fetched })
    }

    pub(super) fn launch_on(&mut self, executor: &str, mut task: TaskInfo) -> Result<(), AgentError> {
        task.slave_id = self.options.slave_id.as_str().into();
        let executor =
            self.executors.get_mut(executor).ok_or_else(|| AgentError::Unknown(executor.to_owned()))?;
        executor.tasks.insert(task.task_id.value.clone(), Task::default());
        match executor.phase {
            Phase::Registering | Phase::Recovering => executor.queued.push(task),
            _ => {
                let id = executor.id().to_owned();
                self.run_task(&id, task);
            }
        }
        Ok(())
    }

    pub(super) fn run_task(&mut self, executor: &str, task: TaskInfo) {
        let framework = self.options.framework_info();
        let message =
            RunTaskMessage { framework, pid: Some(SCHEDULER.into()), task, ..RunTaskMessage::default() };
        self.send(executor, &message);
    }

    fn reap(&self, container: String, mut child: Child) {
        let internal = self.internal.clone();
        tokio::spawn(async move {
            let status = child.wait().await.ok();
            tokio::time::sleep(REAP).await;
            let _ = internal.send(Internal::Exited(container, status));
        });
    }

    pub(super) fn set_alarm(&self, container: &str, alarm: Alarm, after: Duration) {
        let (internal, container) = (self.internal.clone(), container.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let _ = internal.send(Internal::Alarm(container, alarm));
        });
    }

    /// The executor that has this task.
    pub(super) fn executor_of(&self, task: &str) -> Result<String, AgentError> {
        if self.server.is_none() {
            return Err(AgentError::Stopped);
        }
        let found = self.executors.values().find(|executor| executor.tasks.contains_key(task));
        found.map(|executor| executor.id().to_owned()).ok_or_else(|| AgentError::Unknown(task.to_owned()))
    }

    pub(super) fn kill(&mut self, task: &str, grace: Option<Duration>) -> Result<(), AgentError> {
        let id = self.executor_of(task)?;
        let executor = self.executors.get_mut(&id).ok_or_else(|| AgentError::Unknown(task.to_owned()))?;
        let queued = executor.queued.len();
        executor.queued.retain(|queued| queued.task_id.value != task);
        if executor.queued.len() < queued {
            let message = "Task killed before it was handed to its executor";
            self.own_update(&id, task, TaskState::TaskKilled, message, Reason::TaskKilledDuringLaunch);
            return Ok(());
        }
        let policy = |grace| KillPolicy { grace_period: Some(DurationInfo::from_duration(grace)) };
        let message = KillTaskMessage {
            framework_id: self.options.framework_id.as_str().into(),
            task_id: task.into(),
            kill_policy: grace.map(policy),
        };
        self.send(&id, &message);
        Ok(())
    }

    pub(super) fn shutdown(&mut self, task: &str) -> Result<(), AgentError> {
        let id = self.executor_of(task)?;
        self.shut_down(&id);
        Ok(())
    }

    pub(super) fn tear_down(&mut self) {
        self.torn_down = true;
        let ids: Vec<String> = self.executors.keys().cloned().collect();
        ids.iter().for_each(|id| self.shut_down(id));
    }

    pub(super) fn message(&mut self, task: &str, data: Vec<u8>) -> Result<(), AgentError> {
        let id = self.executor_of(task)?;
        let message = FrameworkToExecutorMessage {
            slave_id: self.options.slave_id.as_str().into(),
            framework_id: self.options.framework_id.as_str().into(),
            executor_id: id.as_str().into(),
            data,
        };
        self.send(&id, &message);
        Ok(())
    }

    /// Sends the shutdown and arms what follows when it is ignored.
    pub(super) fn shut_down(&mut self, executor: &str) {
        self.send(executor, &ShutdownExecutorMessage::default());
        let Some(executor) = self.executors.get_mut(executor).filter(|executor| executor.is_alive()) else {
            return;
        };
        executor.phase = Phase::Terminating;
        let grace = executor.info.shutdown_grace_period.as_ref().and_then(|grace| grace.to_duration());
        let container = executor.container_id.clone();
        self.set_alarm(&container, Alarm::ShutdownGrace, grace.unwrap_or(self.options.shutdown_grace));
    }
}
