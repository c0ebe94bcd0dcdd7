//! How executors end: by themselves, too late, or by force.

use std::process::ExitStatus;
use std::time::Instant;

use super::executor::{Ending, Phase};
use super::history::Exit;
use super::hub::{Alarm, Hub};
use crate::mesos::duration;
use crate::mesos::messages::task_status::Reason;
use crate::mesos::messages::TaskState;

impl Hub {
    pub(super) fn by_container(&self, container: &str) -> Option<String> {
        let found = self.executors.values().find(|executor| executor.container_id == container);
        found.map(|executor| executor.id().to_owned())
    }

    pub(super) fn alarm(&mut self, container: &str, alarm: Alarm) {
        let Some(id) = self.by_container(container) else { return };
        let Some(executor) = self.executors.get_mut(&id) else { return };
        let (message, reason) = match (alarm, executor.phase) {
            (Alarm::Registration, Phase::Registering) => (
                format!(
                    "Executor did not register within {}; Container killed",
                    duration::format(self.options.registration_timeout)
                ),
                Reason::ExecutorRegistrationTimeout,
            ),
            (Alarm::Reregistration, Phase::Recovering) => return self.not_reregistered(&id),
            (Alarm::ShutdownGrace, Phase::Terminating) => {
                ("Container killed".into(), Reason::ExecutorTerminated)
            }
            _ => return,
        };
        executor.ending = Ending { state: TaskState::TaskFailed, message, reason };
        executor.phase = Phase::Terminating;
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
        self.shared.exit(Exit {
            executor_id: id,
            tasks,
            container_id: container.to_owned(),
            status,
            at: Instant::now(),
        });
    }

    /// Its tasks end as its `ending` says.
    pub(super) fn end(&mut self, id: &str) {
        let Some(executor) = self.executors.get_mut(id) else { return };
        executor.phase = Phase::Terminated;
        executor.link = None;
        let ending = executor.ending.clone();
        for task in executor.living_tasks() {
            self.own_update(id, &task, ending.state, &ending.message, ending.reason);
        }
    }
}
