//! Health checks: is the task, which runs, also well?
//!
//! ```text
//!                       ┌───────────── interval ◄────────────┐
//!                       ▼                                    │
//!  delay ──────────► probe ──┬─ succeeds ─────────► healthy ─┤   told when it is news
//!                    (limit: │                               │
//!                   timeout) ├─ fails in grace ──► ignored ──┤   until the first success
//!                            ├─ fails ───────────► unhealthy ┤   told each time
//!                            │                               │
//!                            ├─ cannot be made ──► nothing ──┘   Docker is away
//!                            └─ fails once too often ─► kill     told, and then silence
//! ```
//!
//! Probes work inside the task's network namespace, on sockets made there (`net::dial`): no process is
//! started, but for the command of a COMMAND check itself. [`policy`] decides what a result means;
//! what follows from a [`Verdict`] is the life's to do. Facts: Mesos' `health_checker.cpp`, whose results,
//! timing and counting are kept; what differs is said where it differs.

mod command;
mod http;
mod policy;
mod probe;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::{sleep, Instant};

use tokio_util::task::AbortOnDropHandle;

use crate::error::chain;
use crate::workload::Docker;

pub use policy::{Policy, Timing};
use probe::Prober;

/// An interval of nothing would keep a processor busy with one task's health.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// A health check as the framework asked for it, understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    pub timing: Timing,
    pub probe: Probe,
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// A connection can be made.
    Tcp { port: u16, family: Family },
    /// A GET, redirects followed, is answered with 200 to 399.
    Http { scheme: Scheme, port: u16, path: String, family: Family },
    /// A command in the task's surroundings exits with 0.
    Command(CommandLine),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CommandLine {
    /// The file to execute, looked up in the task's PATH.
    pub program: String,
    /// All of argv.
    pub arguments: Vec<String>,
    /// On top of the task's own.
    pub environment: BTreeMap<String, String>,
}

/// Where the task is found.
#[derive(Debug, Clone)]
pub struct Target {
    /// The task's network namespace: a bound one of ours, or `/proc/<pid>/ns/net`.
    /// Not known where Docker could not be asked, or runs elsewhere.
    pub namespace: Option<PathBuf>,
    /// Tried when nobody listens on loopback: a task may be bound to its Calico address alone.
    pub addresses: Vec<IpAddr>,
    pub exec: Exec,
}

/// How a command gets into the task's surroundings.
#[derive(Debug, Clone)]
pub enum Exec {
    Docker { docker: Docker, id: String },
}

/// What the checks so far amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub healthy: bool,
    /// It failed too often: the task shall end.
    pub kill: bool,
    /// One sentence for the log and for Consul.
    pub why: String,
}

impl Verdict {
    fn log(&self) {
        match self {
            Self { healthy: true, .. } => tracing::info!("healthy"),
            Self { kill: false, why, .. } => tracing::warn!("unhealthy: {why}"),
            Self { kill: true, why, .. } => tracing::warn!("unhealthy for good: {why}"),
        }
    }
}

/// Checks under way. Dropped, they end, and with them a probe that has not come back.
pub struct Checks {
    verdicts: UnboundedReceiver<Verdict>,
    _work: AbortOnDropHandle<()>,
}

impl Checks {
    pub fn begin(check: Check, target: Target) -> Self {
        let (sender, verdicts) = mpsc::unbounded_channel();
        Self { verdicts, _work: AbortOnDropHandle::new(tokio::spawn(watch(check, target, sender))) }
    }

    /// The next verdict. None follows one that wants the task to end.
    pub async fn verdict(&mut self) -> Verdict {
        match self.verdicts.recv().await {
            Some(verdict) => verdict,
            None => std::future::pending().await,
        }
    }
}

/// Checks until it is dropped, or until there is nothing more to say.
pub async fn watch(check: Check, target: Target, verdicts: UnboundedSender<Verdict>) {
    let Check { timing, probe } = check;
    let begun = Instant::now();
    let mut policy = Policy::new(&timing);
    let mut prober = Prober::new(probe, target);
    let mut blind = false;
    sleep(timing.delay).await;
    loop {
        let result = match prober.look(timing.timeout).await {
            Err(error) if error.tells_nothing() => {
                if !blind {
                    tracing::warn!("a health check cannot be made: {}", chain(&error));
                }
                blind = true;
                None
            }
            result => {
                blind = false;
                Some(result.map_err(|error| chain(&error)))
            }
        };
        let verdict = result.and_then(|result| policy.judge(result, begun.elapsed()));
        if let Some(verdict) = verdict {
            verdict.log();
            let over = verdict.kill;
            if verdicts.send(verdict).is_err() || over {
                return;
            }
        }
        sleep(timing.interval.max(SHORTEST_PAUSE)).await;
    }
}
