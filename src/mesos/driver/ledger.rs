//! What the agent has not acknowledged yet (pure); the same for both versions of the protocol.
//!
//! Kept for an agent that comes back: every update without acknowledgement, in order, and every task
//! of which no update has been acknowledged.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::handle::is_terminal;
use super::Event;
use crate::mesos::messages::{KillPolicy, TaskId, TaskInfo, TaskStatus};

#[derive(Debug, Default)]
pub(in crate::mesos) struct UpdateLedger {
    /// Every task that was ever launched.
    known: BTreeSet<String>,
    /// Tasks whose terminal update has been taken.
    finished: BTreeSet<String>,
    tasks: Vec<TaskInfo>,
    updates: Vec<TaskStatus>,
}

impl UpdateLedger {
    /// One task to start, or a sentence about why not.
    pub fn launch(&mut self, task: TaskInfo) -> Result<Event, String> {
        self.admit(std::slice::from_ref(&task))?;
        Ok(Event::Launch(Box::new(task)))
    }

    /// Several tasks, all or none.
    pub fn launch_group(&mut self, tasks: Vec<TaskInfo>) -> Result<Event, String> {
        if tasks.is_empty() {
            return Err("a group without a task".to_owned());
        }
        self.admit(&tasks)?;
        Ok(Event::LaunchGroup(tasks))
    }

    fn admit(&mut self, tasks: &[TaskInfo]) -> Result<(), String> {
        let mut ids = BTreeSet::new();
        for task in tasks {
            let id = &task.task_id.value;
            if id.is_empty() {
                return Err("a task without an id".to_owned());
            }
            if self.known.contains(id) || !ids.insert(id.clone()) {
                return Err(format!("task '{id}' for the second time"));
            }
        }
        self.known.append(&mut ids);
        self.tasks.extend_from_slice(tasks);
        Ok(())
    }

    /// False when the task's terminal update has been taken before.
    pub fn update(&mut self, status: TaskStatus) -> bool {
        let task = &status.task_id.value;
        if self.finished.contains(task) {
            tracing::warn!(task, "an update behind the terminal one is not sent");
            return false;
        }
        if is_terminal(&status) {
            self.finished.insert(task.clone());
        }
        self.updates.push(status);
        true
    }

    /// The event for an acknowledgement: none when no update waits for it.
    pub fn acknowledge(&mut self, task_id: &TaskId, uuid: &[u8]) -> Result<Option<Event>, String> {
        let parsed = Uuid::from_slice(uuid)
            .map_err(|_| format!("an acknowledgement for task '{task_id}' without a valid uuid"))?;
        if !self.forget(uuid) {
            return Ok(None);
        }
        self.tasks.retain(|task| task.task_id != *task_id);
        Ok(Some(Event::Acknowledged { task_id: task_id.value.clone(), uuid: parsed }))
    }

    /// Gives an update up; false when it is not here.
    pub fn forget(&mut self, uuid: &[u8]) -> bool {
        let before = self.updates.len();
        self.updates.retain(|update| update.uuid.as_deref() != Some(uuid));
        self.updates.len() < before
    }

    /// Tasks of which no update has been acknowledged.
    pub fn tasks(&self) -> &[TaskInfo] {
        &self.tasks
    }

    /// Updates without acknowledgement, oldest first.
    pub fn updates(&self) -> &[TaskStatus] {
        &self.updates
    }
}

/// A kill that names its task.
pub(in crate::mesos) fn kill(task_id: TaskId, policy: Option<&KillPolicy>) -> Result<Event, String> {
    if task_id.value.is_empty() {
        return Err("a kill without a task id".to_owned());
    }
    Ok(Event::Kill { task_id: task_id.value, grace: policy.and_then(KillPolicy::grace) })
}
