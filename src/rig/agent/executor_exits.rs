//! How executors end: by themselves, too late, or by force.

use std::process::ExitStatus;
use std::time::Instant;

use super::executor::{Containerizer, ExecutorEnding, ExecutorPhase};
use super::history::ExecutorExit;
use super::hub::{Alarm, Hub};
use super::AgentError;
use crate::mesos::duration;
use crate::mesos::messages::framework_info::capability;
use crate::mesos::messages::task_status::Reason;
use crate::mesos::messages::TaskState;

/// Why an agent destroys an executor whose tasks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destruction {
    /// The QoS controller wants its resources for others.
    Preempted,
    /// The container could not be fitted to its resources.
    UpdateFailed,
}

impl Destruction {
    fn ending(self, state: TaskState) -> ExecutorEnding {
        let (message, reason) = match self {
            Self::Preempted => ("Container preempted by QoS correction", Reason::ContainerPreempted),
            Self::UpdateFailed => (
                "Failed to update resources for container: No cpus resource given",
                Reason::ContainerUpdateFailed,
            ),
        };
        ExecutorEnding { state, message: message.to_owned(), reason }
    }
}

impl Hub {
    pub(super) fn destroy_executor_of(&mut self, task: &str, why: Destruction) -> Result<(), AgentError> {
        let id = self.executor_of(task)?;
        self.destroy(&id, why);
        Ok(())
    }

    /// Without asking the executor first; its tasks end with that reason.
    fn destroy(&mut self, id: &str, why: Destruction) {
        let knows_gone = self.options.capabilities.contains(&capability::Type::PartitionAware);
        let state = if knows_gone { TaskState::TaskGone } else { TaskState::TaskLost };
        let Some(executor) = self.executors.get_mut(id).filter(|executor| executor.is_alive()) else {
            return;
        };
        executor.ending = why.ending(state);
        executor.phase = ExecutorPhase::Terminating;
        executor.destroy();
    }

    /// Fits the container to the resources that a terminal update leaves it, as cgroups do: an empty list cannot be
    /// set, and the container is destroyed.
    pub(super) fn fit_to_resources(&mut self, id: &str) {
        let Some(executor) = self.executors.get(id).filter(|_| self.options.cgroups_isolation) else {
            return;
        };
        let empty = executor.living_tasks().is_empty() && executor.info.resources.is_empty();
        if empty && executor.containerizer == Containerizer::Mesos {
            self.destroy(id, Destruction::UpdateFailed);
        }
    }

    pub(super) fn by_container(&self, container: &str) -> Option<String> {
        let found = self.executors.values().find(|executor| executor.container_id == container);
        found.map(|executor| executor.id().to_owned())
    }

    pub(super) fn alarm(&mut self, container: &str, alarm: Alarm) {
        let Some(id) = self.by_container(container) else { return };
        let Some(executor) = self.executors.get_mut(&id) else { return };
        let (message, reason) = match (alarm, executor.phase) {
            (Alarm::Registration, ExecutorPhase::Registering) => (
                format!(
                    "Executor did not register within {}; Container killed",
                    duration::format(self.options.registration_timeout)
                ),
                Reason::ExecutorRegistrationTimeout,
            ),
            (Alarm::Reregistration, ExecutorPhase::Recovering) => return self.not_reregistered(&id),
            (Alarm::ShutdownGrace, ExecutorPhase::Terminating) => {
                ("Container killed".into(), Reason::ExecutorTerminated)
            }
            _ => return,
        };
        executor.ending = ExecutorEnding { state: TaskState::TaskFailed, message, reason };
        executor.phase = ExecutorPhase::Terminating;
        executor.destroy();
    }

    pub(super) fn exited(&mut self, container: &str, status: Option<ExitStatus>) {
        let Some(id) = self.by_container(container) else { return };
        let down = self.server.is_none();
        let Some(executor) = self.executors.get_mut(&id) else { return };
        executor.group = None;
        let tasks = executor.tasks.keys().cloned().collect();
        executor.link = None;
        if down {
            executor.lost = true;
        } else {
            self.end(&id);
        }
        self.shared.exit(ExecutorExit {
            executor_id: id,
            tasks,
            container_id: container.to_owned(),
            status,
            at: Instant::now(),
        });
    }

    /// Its tasks end as its `ending` determines.
    pub(super) fn end(&mut self, id: &str) {
        let Some(executor) = self.executors.get_mut(id) else { return };
        executor.phase = ExecutorPhase::Terminated;
        executor.link = None;
        let ending = executor.ending.clone();
        for task in executor.living_tasks() {
            self.own_update(id, &task, ending.state, &ending.message, ending.reason);
        }
    }
}
