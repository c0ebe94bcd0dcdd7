//! What a scheduler asks of its agent: launch, kill, message, shutdown.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::process::Child;
use uuid::Uuid;

use super::executor::{AgentExecutor, AgentTask, Containerizer, ExecutorEnding, ExecutorPhase, Queued};
use super::hub::{Alarm, Hub, Internal};
use super::spawn::{self, ExecutorContainer, ExecutorFolders, Program};
use super::to_executor::AgentMessage;
use super::{fetch, info, AgentError, Fetched, Launched};
use crate::mesos::messages::task_status::Reason;
use crate::mesos::messages::{DurationInfo, ExecutorInfo, KillPolicy, TaskInfo, TaskState};

/// A real agent polls for the end of its children; an executor's last words arrive before that.
const REAP: Duration = Duration::from_millis(100);

/// Whether a folder below the agent's may have this name.
pub(super) fn is_file_name(id: &str) -> bool {
    !id.is_empty() && id != "." && id != ".." && !id.contains(['/', '\0'])
}

impl Hub {
    pub(super) fn launch(
        &mut self,
        mut task: TaskInfo,
        fetched: Option<&Fetched>,
    ) -> Result<Launched, AgentError> {
        let at = Instant::now();
        self.admit(&mut task)?;
        if let Some(executor) = task.executor.clone() {
            return self.launch_custom(executor, Queued::Task(Box::new(task)), fetched);
        }
        let id = task.task_id.value.clone();
        let info = info::executor_info(&self.options, &task);
        let options = self.options.clone();
        let program = |container: &ExecutorContainer| Program {
            path: options.executor.clone(),
            argv: spawn::argv(&options, &container.id, &container.folders.sandbox),
        };
        let mut executor = self.start_executor(info, Containerizer::Docker, fetched, program)?;
        executor.tasks = BTreeMap::from([(id.clone(), AgentTask::default())]);
        executor.queued.push(Queued::Task(Box::new(task)));
        let launched = executor.launched(at);
        self.executors.insert(id, executor);
        Ok(launched)
    }

    /// Whether the task can be taken on; its agent is filled in.
    pub(super) fn admit(&self, task: &mut TaskInfo) -> Result<(), AgentError> {
        let id = &task.task_id.value;
        if self.server.is_none() {
            return Err(AgentError::Stopped);
        }
        if !is_file_name(id) {
            return Err(AgentError::Unknown(id.clone()));
        }
        if self.executors.values().any(|executor| executor.tasks.contains_key(id)) {
            return Err(AgentError::Duplicate(id.clone()));
        }
        task.slave_id = self.options.slave_id.as_str().into();
        Ok(())
    }

    /// Folders, environment, process; what it is to do comes later.
    pub(super) fn start_executor(
        &self,
        info: ExecutorInfo,
        containerizer: Containerizer,
        fetched: Option<&Fetched>,
        program: impl FnOnce(&ExecutorContainer) -> Program,
    ) -> Result<AgentExecutor, AgentError> {
        let id = Uuid::new_v4().hyphenated().to_string();
        let folders = ExecutorFolders::of(&self.options, &info.executor_id.value, &id);
        let container = ExecutorContainer { id, folders };
        container.folders.create()?;
        if let Some(fetched) = fetched {
            let sandbox = &container.folders.sandbox;
            fetch::deliver(fetched.folder.path(), sandbox)
                .map_err(|source| AgentError::Sandbox { path: sandbox.clone(), source })?;
        }
        let token = self.options.authenticate_http_executors.then(|| Uuid::new_v4().simple().to_string());
        let environment = spawn::environment(
            &self.options,
            &self.pid,
            &info,
            (containerizer == Containerizer::Mesos, token.as_deref()),
            &container.folders.sandbox,
        );
        let mut child = spawn::spawn(&program(&container), &environment, &container.folders)?;
        let process = child.id().unwrap_or_default();
        let stdin = child.stdin.take();
        let ExecutorContainer { id, folders } = container;
        self.reap(id.clone(), child);
        self.set_alarm(&id, Alarm::Registration, self.options.registration_timeout);
        Ok(AgentExecutor {
            info,
            containerizer,
            container_id: id,
            sandbox: folders.sandbox,
            meta: folders.meta,
            phase: ExecutorPhase::Registering,
            pid: None,
            link: None,
            tasks: BTreeMap::new(),
            queued: Vec::new(),
            used: false,
            token,
            process,
            ending: ExecutorEnding::default(),
            group: i32::try_from(process).ok(),
            stdin,
            lost: false,
        })
    }

    pub(super) fn launch_on(&mut self, executor: &str, mut task: TaskInfo) -> Result<(), AgentError> {
        task.slave_id = self.options.slave_id.as_str().into();
        let executor =
            self.executors.get_mut(executor).ok_or_else(|| AgentError::Unknown(executor.to_owned()))?;
        executor.tasks.insert(task.task_id.value.clone(), AgentTask::default());
        let queued = Queued::Task(Box::new(task));
        match executor.phase {
            ExecutorPhase::Registering | ExecutorPhase::Recovering => executor.queued.push(queued),
            _ => {
                let id = executor.id().to_owned();
                self.hand_over(&id, queued);
            }
        }
        Ok(())
    }

    pub(super) fn hand_over(&mut self, executor: &str, queued: Queued) {
        if let Some(executor) = self.executors.get_mut(executor) {
            executor.used = true;
        }
        let message = match queued {
            Queued::Task(task) => AgentMessage::Run(task),
            Queued::Group(tasks) => AgentMessage::RunGroup(tasks),
        };
        self.send_to_executor(executor, message);
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
        let (internal, container, number) = (self.internal.clone(), container.to_owned(), self.recoveries);
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let _ = internal.send(Internal::Alarm(container, alarm, number));
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
        if let Some(at) = executor.queued.iter().position(|queued| queued.ids().any(|own| own == task)) {
            // A group lives and dies as one.
            let queued = executor.queued.remove(at);
            let message = "Task killed before it was handed to its executor";
            for task in queued.ids() {
                self.own_update(&id, task, TaskState::TaskKilled, message, Reason::TaskKilledDuringLaunch);
            }
            return Ok(());
        }
        let policy = |grace| KillPolicy { grace_period: Some(DurationInfo::from_duration(grace)) };
        self.send_to_executor(&id, AgentMessage::Kill { task: task.to_owned(), policy: grace.map(policy) });
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
        self.send_to_executor(&id, AgentMessage::Message(data));
        Ok(())
    }

    /// Sends the shutdown and arms what follows when it is ignored.
    pub(super) fn shut_down(&mut self, executor: &str) {
        self.send_to_executor(executor, AgentMessage::Shutdown);
        let Some(executor) = self.executors.get_mut(executor).filter(|executor| executor.is_alive()) else {
            return;
        };
        executor.phase = ExecutorPhase::Terminating;
        let grace = executor.info.shutdown_grace_period.as_ref().and_then(|grace| grace.to_duration());
        let container = executor.container_id.clone();
        self.set_alarm(&container, Alarm::ShutdownGrace, grace.unwrap_or(self.options.shutdown_grace));
    }
}
