//! The channel between a life and its way in: the messages in both directions.
//!
//! ```text
//!  way in ── Order, then Kill ──► life
//!         ◄── LifeChange …, at last one Outcome ──
//! ```

use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::Failure;
use crate::names::ContainerId;
use crate::workload::Exit;

use crate::task::request::Description;

/// What the way in passes on about the task.
#[derive(Clone)]
pub struct Order {
    pub container: ContainerId,
    /// Docker's name of the container, which the agent goes by.
    pub name: String,
    pub description: Description,
    pub config_path: PathBuf,
    pub framework: String,
    /// The agent's address, under which `<app>` is registered.
    pub host_address: Option<IpAddr>,
}

/// What the way in asks for: the end of the task.
///
/// A later one can only shorten what is left of the grace period; the first one's cause counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kill {
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// The framework wants to hear that it has begun.
    pub announce: bool,
    pub cause: Cause,
}

/// Why a task is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The framework, the agent or a signal asked for it.
    Asked,
    /// Its health check failed too often.
    Unhealthy,
    /// It ran longer than its `max_completion_time`.
    Overdue,
}

/// What happens on the way.
#[derive(Debug)]
pub enum LifeChange {
    /// An adopted container may be started now, by those that made it.
    Prepared,
    /// The workload's first instruction has run, or is about to.
    Running { inspect: Option<String>, addresses: Vec<IpAddr> },
    /// A health check's verdict that has to be reported; with `kill`, the life waits to be stopped for it.
    Health { healthy: bool, kill: bool },
    /// A kill has begun.
    Killing,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// By itself, with this status.
    Exited(Exit),
    /// It was stopped. The status is there when it had started.
    Killed { exit: Option<Exit>, cause: Cause },
    /// An adopted container ended by itself; its status is known to its maker alone.
    Over,
    /// It could not be started, or its end could not be learned.
    Failed(Failure),
}

/// An outcome in the words of the journal and of the audit trail.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// `exited`, `killed` or `failed`.
    pub outcome: String,
    /// An exit code, or the failure's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Value>,
    /// The failure's sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl From<&Outcome> for Ending {
    fn from(outcome: &Outcome) -> Self {
        let (outcome, code, message) = match outcome {
            Outcome::Exited(exit) => ("exited", Some(exit.code.into()), None),
            Outcome::Over => ("exited", None, None),
            Outcome::Killed { exit, .. } => ("killed", exit.as_ref().map(|exit| exit.code.into()), None),
            Outcome::Failed(failure) => {
                ("failed", Some(failure.code.name().into()), Some(failure.message.clone()))
            }
        };
        Self { outcome: outcome.to_owned(), code, message }
    }
}

/// A life that is over, with what may follow the report of the outcome.
pub struct Ended {
    pub outcome: Outcome,
    /// To be awaited before the process ends.
    pub afterwards: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Ended {
    /// Does the rest now, as far as this time allows.
    pub(super) async fn finished_within(mut self, limit: Duration) -> Self {
        if tokio::time::timeout(limit, &mut self.afterwards).await.is_ok() {
            self.afterwards = Box::pin(std::future::ready(()));
        }
        self
    }
}

impl From<Outcome> for Ended {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, afterwards: Box::pin(std::future::ready(())) }
    }
}

/// What is heard of a container that others start, stop and check.
#[derive(Default)]
pub struct OthersWord {
    /// It has ended.
    pub over: CancellationToken,
    /// Docker's own health check: whether the container is healthy, as soon as Docker has decided.
    pub health: Option<watch::Receiver<Option<bool>>>,
}

/// The ends of the channel that a life holds.
pub struct LifeChannel {
    /// Marks what goes out: one way in may hear several lives.
    pub task_id: String,
    pub kills: UnboundedReceiver<Kill>,
    /// What others say about an adopted container; of other tasks the life itself learns it.
    pub others: OthersWord,
    pub changes: UnboundedSender<(String, LifeChange)>,
}

impl LifeChannel {
    pub(super) fn tell(&self, change: LifeChange) {
        // When the executor is going down there is no receiver any more, and nothing to do about it.
        let _ = self.changes.send((self.task_id.clone(), change));
    }
}
