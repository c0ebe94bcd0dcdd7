//! Health checks: whether a running task is healthy.
//!
//! ```text
//!                       ┌───────────── interval ◄────────────┐
//!                       ▼                                    │
//!  delay ──────────► probe ──┬─ succeeds ─────────► healthy ─┤   reported when it is news
//!                    (limit: │                               │
//!                   timeout) ├─ fails in grace ──► ignored ──┤   until the first success
//!                            ├─ fails ───────────► unhealthy ┤   reported each time
//!                            │                               │
//!                            ├─ cannot be made ──► nothing ──┘   Docker is away
//!                            └─ fails once too often ─► kill     reported, then nothing more
//! ```
//!
//! Probes run inside the task's network namespace, on sockets that were made there (`net::connect`). They start no
//! process, except for the command of a COMMAND check. `policy` decides what a result means, and the life decides what
//! follows from a [`CheckVerdict`]. Source: Mesos' `health_checker.cpp`, whose results, timing and counting are kept;
//! differences are documented where they occur.

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
use crate::logging;
use crate::workload::{CommandSpec, Docker};

pub use policy::{CheckTiming, Policy};
use probe::Prober;

/// An interval of nothing would keep a processor busy with one task's health.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// A health check as the framework defines it.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    pub timing: CheckTiming,
    pub probe: Probe,
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// A connection can be made.
    Tcp { port: u16, family: CheckFamily },
    /// A GET, redirects followed, that is answered with 200 to 399.
    Http { scheme: Scheme, port: u16, path: String, family: CheckFamily },
    /// A command in the task's surroundings exits with 0.
    Command(CommandLine),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckFamily {
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
    /// Tried when no program listens on loopback: a task may be bound to its Calico address alone.
    pub addresses: Vec<IpAddr>,
    pub exec: Exec,
}

/// How a command gets into the task's surroundings.
#[derive(Debug, Clone)]
pub enum Exec {
    /// Beside a container's processes.
    Docker { docker: Docker, id: String },
    /// As the task itself was started: its user, its variables, its folder.
    Process {
        /// Whose child becomes the command: this program, but in tests.
        executor: PathBuf,
        spec: CommandSpec,
        namespace: Option<PathBuf>,
    },
}

/// What the checks so far amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckVerdict {
    pub healthy: bool,
    /// It failed too often: the task has to end.
    pub kill: bool,
    /// One sentence for the log and for Consul.
    pub why: String,
    /// How many checks in a row have failed, and with how many the task ends.
    pub failures: (u32, u32),
}

impl CheckVerdict {
    fn log(&self) {
        match self {
            Self { healthy: true, .. } => tracing::info!("healthy"),
            Self { why, failures: (failed, limit), .. } => {
                tracing::warn!("health check failed ({failed} of {limit}): {why}");
            }
        }
    }
}

/// Checks under way. Dropped, they end, and with them a probe that has not come back.
pub struct Checks {
    verdicts: UnboundedReceiver<CheckVerdict>,
    _work: AbortOnDropHandle<()>,
}

impl Checks {
    pub fn begin(check: Check, target: Target) -> Self {
        let (sender, verdicts) = mpsc::unbounded_channel();
        Self { verdicts, _work: AbortOnDropHandle::new(logging::spawn(watch(check, target, sender))) }
    }

    /// The next verdict. None follows one that wants the task to end.
    pub async fn verdict(&mut self) -> CheckVerdict {
        match self.verdicts.recv().await {
            Some(verdict) => verdict,
            None => std::future::pending().await,
        }
    }
}

/// Checks until it is dropped, or until there is nothing more to say.
async fn watch(check: Check, target: Target, verdicts: UnboundedSender<CheckVerdict>) {
    let limit = check.timing.timeout;
    let mut rounds = Rounds::new(check.timing);
    let mut prober = Prober::new(check.probe, target);
    let mut blind = false;
    loop {
        rounds.due().await;
        let result = match prober.look(limit).await {
            Err(error) if error.tells_nothing() => {
                if !std::mem::replace(&mut blind, true) {
                    tracing::warn!("cannot run a health check: {}", chain(&error));
                }
                continue;
            }
            result => result.map_err(|error| chain(&error)),
        };
        blind = false;
        if let Some(verdict) = rounds.judge(result) {
            verdict.log();
            let over = verdict.kill;
            if verdicts.send(verdict).is_err() || over {
                return;
            }
        }
    }
}

/// When the next check is due, and what it means.
struct Rounds {
    policy: Policy,
    begun: Instant,
    /// Before the next check.
    pause: Duration,
    interval: Duration,
}

impl Rounds {
    fn new(timing: CheckTiming) -> Self {
        Self {
            policy: Policy::new(&timing),
            begun: Instant::now(),
            pause: timing.delay,
            interval: timing.interval.max(SHORTEST_PAUSE),
        }
    }

    /// To be awaited when the last check is over.
    async fn due(&mut self) {
        sleep(std::mem::replace(&mut self.pause, self.interval)).await;
    }

    fn judge(&mut self, result: Result<(), String>) -> Option<CheckVerdict> {
        self.policy.judge(result, self.begun.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When checks of one second each begin, and what is reported when, in seconds.
    async fn diary(interval: u64, results: &[Option<bool>]) -> (Vec<u64>, Vec<(u64, bool, bool)>) {
        let begun = Instant::now();
        let now = || begun.elapsed().as_secs();
        let mut rounds = Rounds::new(CheckTiming {
            delay: Duration::from_secs(15),
            interval: Duration::from_secs(interval),
            timeout: None,
            grace: Duration::from_secs(30),
            failures: 2,
        });
        let (mut looks, mut told) = (Vec::new(), Vec::new());
        for result in results {
            rounds.due().await;
            looks.push(now());
            sleep(Duration::from_secs(1)).await;
            let Some(ok) = result else { continue };
            if let Some(verdict) = rounds.judge(ok.then_some(()).ok_or_else(|| "no".to_owned())) {
                told.push((now(), verdict.healthy, verdict.kill));
            }
        }
        (looks, told)
    }

    #[tokio::test(start_paused = true)]
    async fn the_interval_begins_when_a_check_is_over() {
        let (looks, told) = diary(10, &[Some(false), Some(true), Some(false), Some(false)]).await;
        assert_eq!(looks, [15, 26, 37, 48]);
        assert_eq!(told, [(27, true, false), (38, false, false), (49, false, true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_cannot_be_made_counts_for_nothing() {
        let (looks, told) = diary(20, &[None, Some(false), None, Some(false)]).await;
        assert_eq!(looks, [15, 36, 57, 78]);
        assert_eq!(told, [(37, false, false), (79, false, true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn checks_without_an_interval_still_pause() {
        let begun = Instant::now();
        let (looks, _) = diary(0, &[Some(true); 11]).await;
        assert_eq!((looks.len(), begun.elapsed()), (11, Duration::from_secs(27)));
    }
}
