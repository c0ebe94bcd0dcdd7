//! The death of an agent and its return, as executors see them.
//!
//! A returning agent recovers its containers first, and refuses every call meanwhile. The
//! DockerContainerizer keeps only executors of version 0 whose port answers. Those then get a Reconnect,
//! over a connection that is closed right after writing; executors of version 1 have to come by
//! themselves. An executor that is not back within two seconds is destroyed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::api;
use super::executor::{Containerizer, ExecutorEnding, ExecutorPhase};
use super::hub::{listen, open_socket, Alarm, Hub, Internal, ACTOR};
use super::to_executor::AgentMessage;
use super::AgentError;
use crate::mesos::duration;
use crate::mesos::libprocess::link;
use crate::mesos::libprocess::server::Server;
use crate::mesos::libprocess::Upid;
use crate::mesos::messages::framework_info::capability::Type as Capability;
use crate::mesos::messages::task_status::Reason;
use crate::mesos::messages::{
    ReconnectExecutorMessage, ReregisterExecutorMessage, ShutdownExecutorMessage, StatusUpdateMessage,
    TaskState,
};

/// How long our own port may still be taken, and how often it is tried.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
const LISTEN_PAUSE: Duration = Duration::from_millis(5);

/// How far a restarted agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recovery {
    Containers,
    /// Executors may come back.
    Executors,
    Done,
}

/// What has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecoveryStep {
    Containers,
    Executors,
}

impl Hub {
    /// Everything a process loses when it is killed; what is on its disk stays in `executors`.
    pub(super) async fn stop(&mut self) {
        let Some(server) = self.server.take() else { return };
        server.stop().await;
        if let Some(socket) = self.socket.take() {
            socket.stop().await;
        }
        self.recoveries += 1;
        self.recovery = Recovery::Done;
        let ids: Vec<String> = self.executors.keys().cloned().collect();
        for id in &ids {
            let Some(executor) = self.executors.get_mut(id) else { continue };
            executor.link = None;
            executor.stdin = None;
            if self.options.checkpoint || !executor.is_alive() {
                continue;
            }
            // Nothing of it is on disk: the master gives its tasks up at once.
            executor.phase = ExecutorPhase::Terminated;
            let message = format!("Agent {} disconnected", self.options.hostname);
            for task in executor.living_tasks() {
                self.own_update(id, &task, TaskState::TaskLost, &message, Reason::SlaveDisconnected);
            }
        }
    }

    /// Answered when the window for re-registration has opened.
    pub(super) async fn restart(&mut self, reply: oneshot::Sender<Result<(), AgentError>>) {
        let opened = match self.server {
            Some(_) => Err(Ok(())),
            None => self.open().await.map_err(Err),
        };
        if let Err(answer) = opened {
            // The caller may have stopped waiting.
            let _ = reply.send(answer);
            return;
        }
        self.restarting = Some(reply);
        self.recovery = Recovery::Containers;
        match self.options.containerizer_recovery {
            Duration::ZERO => self.recovery_step(RecoveryStep::Containers).await,
            busy => self.later(busy, RecoveryStep::Containers),
        }
    }

    async fn open(&mut self) -> Result<(), AgentError> {
        let listener = self.listen_again().await?;
        self.socket = open_socket(&self.options, &self.internal)?;
        let api = api::over_tcp(self.internal.clone());
        self.server = Some(Server::with_api(listener, ACTOR, self.messages.clone(), api));
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

    fn later(&self, after: Duration, step: RecoveryStep) {
        let (internal, number) = (self.internal.clone(), self.recoveries);
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let _ = internal.send(Internal::Recovery(number, step));
        });
    }

    pub(super) async fn recovery_step(&mut self, step: RecoveryStep) {
        if step == RecoveryStep::Executors {
            self.recovery = Recovery::Done;
            return;
        }
        let alive = self.executors.values().filter(|executor| executor.is_alive());
        let alive: Vec<String> = alive.map(|own| own.id().to_owned()).collect();
        for id in alive {
            self.recover(&id).await;
        }
        self.recovery = Recovery::Executors;
        self.later(self.options.reregistration_timeout, RecoveryStep::Executors);
        if let Some(reply) = self.restarting.take() {
            let _ = reply.send(Ok(()));
        }
    }

    async fn recover(&mut self, id: &str) {
        let Some(executor) = self.executors.get_mut(id) else { return };
        let probe = match executor.pid.clone().filter(|_| !executor.lost) {
            Some(pid) => link::connect(pid.address).await.ok().map(|_closed_at_once| pid),
            None => None,
        };
        if executor.lost || (probe.is_none() && executor.containerizer == Containerizer::Docker) {
            executor.ending.message = "Abnormal executor termination: unknown container".into();
            self.end(id);
            return;
        }
        executor.phase = ExecutorPhase::Recovering;
        let container = executor.container_id.clone();
        if let Some(pid) = probe {
            let message = ReconnectExecutorMessage { slave_id: self.options.slave_id.as_str().into() };
            if let Err(error) = link::send_once(pid.address, &self.encode(&pid, &message)).await {
                tracing::debug!(%pid, %error, "an executor cannot be reached");
            }
        }
        self.set_alarm(&container, Alarm::Reregistration, self.options.reregistration_timeout);
    }

    pub(super) fn reregister(&mut self, from: &Upid, message: ReregisterExecutorMessage) {
        let id = message.executor_id.value.as_str();
        let known = self.executors.get_mut(id).filter(|executor| executor.phase == ExecutorPhase::Recovering);
        let Some(executor) = known.filter(|_| message.framework_id.value == self.options.framework_id) else {
            self.shared.problem(format!("unasked re-registration of executor '{id}' from {from}"));
            self.send_to(from, &ShutdownExecutorMessage::default());
            return;
        };
        executor.phase = ExecutorPhase::Running;
        self.attach(id, from);
        self.send_to_executor(id, AgentMessage::Reregistered);
        for update in message.updates {
            self.status_update(StatusUpdateMessage { update, pid: Some(from.to_string()) });
        }
        let known = message.tasks.iter().map(|task| task.task_id.value.as_str()).collect();
        if self.drop_unknown(id, &known) {
            self.shut_down(id);
        }
    }

    /// Tasks that were handed over and never arrived; true when there are any.
    pub(super) fn drop_unknown(&mut self, id: &str, known: &BTreeSet<&str>) -> bool {
        let Some(executor) = self.executors.get(id) else { return false };
        let staging = executor.tasks.iter().filter(|(_, task)| task.state == TaskState::TaskStaging);
        let dropped: Vec<String> =
            staging.map(|(task, _)| task.clone()).filter(|task| !known.contains(task.as_str())).collect();
        for task in &dropped {
            let state = self.lost_or(TaskState::TaskDropped);
            self.own_update(id, task, state, "Task launched during agent restart", Reason::SlaveRestarted);
        }
        !dropped.is_empty()
    }

    pub(super) fn not_reregistered(&mut self, id: &str) {
        let state = self.lost_or(TaskState::TaskGone);
        let window = duration::format(self.options.reregistration_timeout);
        let Some(executor) = self.executors.get_mut(id) else { return };
        executor.ending = ExecutorEnding {
            state,
            message: format!("Executor did not reregister within {window}; Container killed"),
            reason: Reason::ExecutorReregistrationTimeout,
        };
        executor.destroy();
        self.end(id);
    }

    /// Frameworks without the finer states get TASK_LOST.
    fn lost_or(&self, state: TaskState) -> TaskState {
        match self.options.capabilities.contains(&Capability::PartitionAware) {
            true => state,
            false => TaskState::TaskLost,
        }
    }
}
