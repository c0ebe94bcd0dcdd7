//! Status updates: checked as a real agent checks them, completed, acknowledged, passed on.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Instant, SystemTime};

use uuid::Uuid;

use super::history::Update;
use super::hub::Hub;
use super::to_executor::AgentMessage;
use crate::mesos::messages::task_status::{Reason, Source};
use crate::mesos::messages::{
    network_info, ContainerStatus, Message as _, NetworkInfo, StatusUpdate,
    StatusUpdateAcknowledgementMessage, StatusUpdateMessage, TaskState, TaskStatus,
};

impl Hub {
    pub(super) fn status_update(&mut self, message: StatusUpdateMessage) {
        if self.torn_down {
            return;
        }
        let (update, pid) = (message.update, message.pid);
        let executor = update.executor_id.clone().unwrap_or_default().value;
        let task = update.status.task_id.value.clone();
        let Some(uuid) = self.check(&update, &executor) else { return };
        if pid.is_none() {
            self.shared.problem(format!("update for task '{task}' without a pid is never acknowledged"));
        }
        self.take(update);
        if pid.is_some() {
            self.acknowledge(&executor, pid.as_deref(), &task, uuid);
        }
    }

    /// Stores a checked update and passes it on, unless it is known.
    pub(super) fn take(&mut self, update: StatusUpdate) {
        let at = Instant::now();
        let executor = update.executor_id.clone().unwrap_or_default().value;
        let task = update.status.task_id.value.clone();
        let uuid = update.uuid.clone().unwrap_or_default();
        if let Some(news) = self.is_new(&executor, &task, &uuid) {
            self.store(&executor, &update);
            if news {
                let status = self.complete(&executor, update.status);
                let terminal = status.state().is_terminal();
                self.shared.update(Update { task_id: task, status, at });
                if terminal {
                    self.fit_to_resources(&executor);
                }
            }
        }
    }

    /// The update's uuid, unless a real agent would not take the update.
    fn check(&mut self, update: &StatusUpdate, executor: &str) -> Option<Vec<u8>> {
        let task = &update.status.task_id.value;
        let own = Some(self.options.slave_id.as_str());
        let slave = |id: &Option<crate::mesos::messages::SlaveId>| id.as_ref().map(|id| id.value.clone());
        if slave(&update.slave_id).as_deref() != own || slave(&update.status.slave_id).as_deref() != own {
            self.shared.problem(format!("update for task '{task}' ignored: agent id mismatch"));
            return None;
        }
        let Some(uuid) = update.uuid.clone() else {
            self.shared.problem(format!("update for task '{task}' ignored: no uuid"));
            return None;
        };
        if !Uuid::from_slice(&uuid).is_ok_and(|uuid| (1..=5).contains(&uuid.get_version_num())) {
            self.shared
                .problem(format!("update for task '{task}' with an invalid uuid would kill the agent"));
            return None;
        }
        if TaskState::try_from(update.status.state) == Ok(TaskState::TaskStaging) {
            self.shared.problem(format!("TASK_STAGING from the executor of task '{task}'"));
            self.shut_down(executor);
            return None;
        }
        Some(uuid)
    }

    /// `None`: seen before. `Some(false)`: taken, but not passed on.
    fn is_new(&mut self, executor: &str, task: &str, uuid: &[u8]) -> Option<bool> {
        let own = self.executors.get_mut(executor).and_then(|executor| executor.tasks.get_mut(task));
        let Some(own) = own else {
            self.shared.problem(format!("update for unknown task '{task}' of executor '{executor}'"));
            return Some(true);
        };
        if !own.uuids.insert(uuid.to_vec()) {
            return None;
        }
        if own.state.is_terminal() {
            self.shared.problem(format!("update for task '{task}' behind its terminal one"));
            return Some(false);
        }
        Some(true)
    }

    /// What an agent adds before it passes a status on.
    fn complete(&mut self, executor: &str, mut status: TaskStatus) -> TaskStatus {
        let state = status.state();
        let ip = self.options.ip;
        status.source = Some(Source::Executor.into());
        status.executor_id = Some(executor.into());
        if let Some(known) = self.executors.get_mut(executor) {
            let container_id = known.container_id();
            if let Some(task) = known.tasks.get_mut(&status.task_id.value) {
                task.state = state;
                let container = status.container_status.get_or_insert_with(ContainerStatus::default);
                container.container_id = Some(container_id);
                if container.network_infos.is_empty() {
                    container.network_infos.push(agent_address(ip));
                }
            }
        }
        status
    }

    /// As durable as a simulation needs: written, not synced.
    fn store(&self, executor: &str, update: &StatusUpdate) {
        let Some(executor) = self.executors.get(executor).filter(|_| self.options.checkpoint) else { return };
        let task = &update.status.task_id.value;
        if !executor.tasks.contains_key(task) {
            return;
        }
        let folder = executor.meta.join("tasks").join(task);
        let written = std::fs::create_dir_all(&folder).and_then(|()| {
            let mut file = OpenOptions::new().create(true).append(true).open(folder.join("task.updates"))?;
            file.write_all(&update.encode_length_delimited_to_vec())
        });
        if let Err(error) = written {
            self.shared.problem(format!("cannot checkpoint an update of task '{task}': {error}"));
        }
    }

    /// Goes to the pid in the update, not to the sender.
    fn acknowledge(&self, executor: &str, pid: Option<&str>, task: &str, uuid: Vec<u8>) {
        let known = self.executors.get(executor).and_then(|executor| executor.pid.as_ref());
        match pid.map(str::parse) {
            Some(Ok(pid)) if Some(&pid) == known => {
                self.send_to_executor(executor, AgentMessage::Acknowledge { task: task.to_owned(), uuid });
            }
            Some(Ok(pid)) => {
                self.shared.problem(format!("update for task '{task}' names {pid}, not its executor"));
                let message = StatusUpdateAcknowledgementMessage {
                    slave_id: self.options.slave_id.as_str().into(),
                    framework_id: self.options.framework_id.as_str().into(),
                    task_id: task.into(),
                    uuid,
                };
                self.send_to(&pid, &message);
            }
            _ => self.shared.problem(format!("update for task '{task}' names no address to acknowledge to")),
        }
    }

    /// A status of the agent's own, or of the master's about the agent.
    pub(super) fn own_update(
        &mut self,
        executor: &str,
        task: &str,
        state: TaskState,
        message: &str,
        reason: Reason,
    ) {
        let source = match reason {
            Reason::SlaveDisconnected => Source::Master,
            _ => Source::Slave,
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let status = TaskStatus {
            slave_id: Some(self.options.slave_id.as_str().into()),
            executor_id: Some(executor.into()),
            timestamp: Some(now.as_secs_f64()),
            uuid: Some(Uuid::new_v4().as_bytes().to_vec()),
            source: Some(source.into()),
            reason: Some(reason.into()),
            ..TaskStatus::new(task, state).with_message(message)
        };
        if let Some(own) = self.executors.get_mut(executor).and_then(|executor| executor.tasks.get_mut(task))
        {
            own.state = state;
        }
        self.shared.update(Update { task_id: task.to_owned(), status, at: Instant::now() });
    }
}

fn agent_address(ip: std::net::IpAddr) -> NetworkInfo {
    let address = network_info::IpAddress { protocol: None, ip_address: Some(ip.to_string()) };
    NetworkInfo { ip_addresses: vec![address], ..NetworkInfo::default() }
}
