//! What has happened, kept for tests, benches and the table of `calico-mesos run`.

use std::collections::VecDeque;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, watch};

use crate::mesos::messages::{TaskState, TaskStatus};

/// Old messages are forgotten beyond this many.
const RECORDS: usize = 10_000;
const CHANNEL: usize = 1_024;

/// A status as the master gets it.
#[derive(Debug, Clone)]
pub struct Update {
    pub task_id: String,
    pub status: TaskStatus,
    /// When it reached the agent.
    pub at: Instant,
}

/// The end of an executor process.
#[derive(Debug, Clone)]
pub struct ExecutorExit {
    pub executor_id: String,
    /// Every task it was given.
    pub tasks: Vec<String>,
    pub container_id: String,
    pub status: Option<ExitStatus>,
    pub at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    FromExecutor,
    ToExecutor,
}

/// One message, in either direction.
#[derive(Debug, Clone)]
pub struct HistoryRecord {
    pub at: Instant,
    pub direction: Direction,
    /// Full protobuf name.
    pub name: String,
    pub body: Vec<u8>,
    /// The whole request, for messages to an executor.
    pub wire: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct AgentHistory {
    pub updates: Vec<Update>,
    pub exits: Vec<ExecutorExit>,
    pub records: VecDeque<HistoryRecord>,
    pub problems: Vec<String>,
}

impl AgentHistory {
    /// The status wanted, or the terminal one that came in its place.
    pub fn look_for(&self, task: &str, state: TaskState) -> Option<Result<Box<TaskStatus>, Box<TaskStatus>>> {
        let mut own = self.updates.iter().filter(|update| update.task_id == task);
        let mut last = None;
        own.find_map(|update| {
            last = Some(update);
            (update.status.state == i32::from(state)).then(|| Ok(Box::new(update.status.clone())))
        })
        .or_else(|| {
            let status = &last?.status;
            status.state().is_terminal().then(|| Err(Box::new(status.clone())))
        })
    }
}

/// The history, shared between the agent's task and its handle.
#[derive(Debug)]
pub(super) struct Shared {
    history: Mutex<AgentHistory>,
    changed: watch::Sender<()>,
    pub updates: broadcast::Sender<Update>,
    pub exits: broadcast::Sender<ExecutorExit>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            history: Mutex::default(),
            changed: watch::Sender::new(()),
            updates: broadcast::Sender::new(CHANNEL),
            exits: broadcast::Sender::new(CHANNEL),
        }
    }
}

impl Shared {
    pub fn read<T>(&self, look: impl FnOnce(&AgentHistory) -> T) -> T {
        look(&self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, change: impl FnOnce(&mut AgentHistory)) {
        change(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_replace(());
    }

    pub fn update(&self, update: Update) {
        self.write(|history| history.updates.push(update.clone()));
        // A listener is optional.
        let _ = self.updates.send(update);
    }

    pub fn exit(&self, exit: ExecutorExit) {
        self.write(|history| history.exits.push(exit.clone()));
        let _ = self.exits.send(exit);
    }

    pub fn record(&self, record: HistoryRecord) {
        self.write(|history| {
            if history.records.len() == RECORDS {
                history.records.pop_front();
            }
            history.records.push_back(record);
        });
    }

    pub fn problem(&self, text: String) {
        tracing::warn!("the embedded agent: {text}");
        self.write(|history| history.problems.push(text));
    }

    /// Waits until `look` finds something, at most `limit`.
    pub async fn wait<T>(&self, limit: Duration, look: impl Fn(&AgentHistory) -> Option<T>) -> Option<T> {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            loop {
                changed.mark_unchanged();
                if let Some(found) = self.read(&look) {
                    return found;
                }
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(limit, waiting).await.ok()
    }
}
