//! The death of an agent and its return, as executors see them.
//!
//! A returning agent first probes every executor's port, then sends Reconnect over a connection that
//! it closes right after writing, and takes back whoever re-registers within two seconds.

use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use super::executor::{Ending, Phase};
use super::hub::{listen, Alarm, Hub, ACTOR};
use super::AgentError;
use crate::mesos::duration;
use crate::mesos::libprocess::link;
use crate::mesos::libprocess::server::Server;
use crate::mesos::libprocess::Upid;
use crate::mesos::messages::framework_info::capability::Type as Capability;
use crate::mesos::messages::task_status::Reason;
use crate::mesos::messages::{
    ExecutorReregisteredMessage, ReconnectExecutorMessage, ReregisterExecutorMessage,
    ShutdownExecutorMessage, StatusUpdateMessage, TaskState,
};

/// How long our own port may still be taken, and how often it is tried.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
const LISTEN_PAUSE: Duration = Duration::from_millis(5);

impl Hub {
    /// Everything a process loses when it is killed; what is on its disk stays in `executors`.
    pub(super) async fn stop(&mut self) {
        let Some(server) = self.server.take() else { return };
        server.stop().await;
        let ids: Vec<String> = self.executors.keys().cloned().collect();
        for id in &ids {
            let Some(executor) = self.executors.get_mut(id) else { continue };
            executor.link = None;
            executor.stdin = None;
            if self.options.checkpoint || !executor.is_alive() {
                continue;
            }
            // Nothing of it is on disk: the master gives its tasks up at once.
            executor.phase = Phase::Terminated;
            let message = format!("Agent {} disconnected", self.options.hostname);
            for task in executor.living_tasks() {
                self.own_update(id, &task, TaskState::TaskLost, &message, Reason::SlaveDisconnected);
            }
        }
    }

    pub(super) async fn restart(&mut self) -> Result<(), AgentError> {
        if self.server.is_some() {
            return Ok(());
        }
        let listener = self.listen_again().await?;
        self.server = Some(Server::start(listener, ACTOR, self.messages.clone()));
        let alive: Vec<String> = self
            .executors
            .values()
            .filter(|executor| executor.is_alive())
            .map(|own| own.id().to_owned())
            .collect();
        for id in alive {
            self.recover(&id).await;
        }
        Ok(())
    }

    /// A child that is being started has a copy of every descriptor until it executes its program, the old
    /// listener's among them.
    async fn listen_again(&self) -> Result<TcpListener, AgentError> {
        let ends = Instant::now() + LISTEN_AGAIN;
        loop {
            match listen(self.pid.address).await {
                Err(_) if Instant::now() < ends => tokio::time::sleep(LISTEN_PAUSE).await,
                result => return result,
            }
        }
    }

    async fn recover(&mut self, id: &str) {
        let Some(executor) = self.executors.get_mut(id) else { return };
        let probe = match executor.pid.clone().filter(|_| !executor.lost) {
            Some(pid) => link::connect(pid.address).await.ok().map(|_closed_at_once| pid),
            None => None,
        };
        let Some(pid) = probe else {
            executor.ending.message = "Abnormal executor termination: unknown container".into();
            self.end(id);
            return;
        };
        executor.phase = Phase::Recovering;
        let container = executor.container_id.clone();
        let message = ReconnectExecutorMessage { slave_id: self.options.slave_id.as_str().into() };
        if let Err(error) = link::send_once(pid.address, &self.encode(&pid, &message)).await {
            tracing::debug!(%pid, %error, "an executor cannot be reached");
        }
        self.set_alarm(&container, Alarm::Reregistration, self.options.reregistration_timeout);
    }

    pub(super) fn reregister(&mut self, from: &Upid, message: ReregisterExecutorMessage) {
        let id = message.executor_id.value.as_str();
        let known = self.executors.get_mut(id).filter(|executor| executor.phase == Phase::Recovering);
        let Some(executor) = known.filter(|_| message.framework_id.value == self.options.framework_id) else {
            self.shared.problem(format!("unasked re-registration of executor '{id}' from {from}"));
            self.send_to(from, &ShutdownExecutorMessage::default());
            return;
        };
        executor.phase = Phase::Running;
        self.attach(id, from);
        let reregistered = ExecutorReregisteredMessage {
            slave_id: self.options.slave_id.as_str().into(),
            slave_info: self.options.slave_info(self.pid.address.port()),
        };
        self.send(id, &reregistered);
        for update in message.updates {
            self.status_update(StatusUpdateMessage { update, pid: Some(from.to_string()) });
        }
        let known: Vec<&str> = message.tasks.iter().map(|task| task.task_id.value.as_str()).collect();
        let Some(executor) = self.executors.get(id) else { return };
        let staging = executor.tasks.iter().filter(|(_, task)| task.state == TaskState::TaskStaging);
        let dropped: Vec<String> =
            staging.map(|(task, _)| task.clone()).filter(|task| !known.contains(&task.as_str())).collect();
        for task in &dropped {
            let state = self.lost_or(TaskState::TaskDropped);
            self.own_update(id, task, state, "Task launched during agent restart", Reason::SlaveRestarted);
        }
        if !dropped.is_empty() {
            self.shut_down(id);
        }
    }

    pub(super) fn not_reregistered(&mut self, id: &str) {
        let state = self.lost_or(TaskState::TaskGone);
        let window = duration::format(self.options.reregistration_timeout);
        let Some(executor) = self.executors.get_mut(id) else { return };
        executor.ending = Ending {
            state,
            message: format!("Executor did not reregister within {window}; Container killed"),
            reason: Reason::ExecutorReregistrationTimeout,
        };
        executor.terminate();
        self.end(id);
    }

    /// Frameworks that do not know the finer states get TASK_LOST.
    fn lost_or(&self, state: TaskState) -> TaskState {
        match self.options.capabilities.contains(&Capability::PartitionAware) {
            true => state,
            false => TaskState::TaskLost,
        }
    }
}
