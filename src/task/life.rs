//! One task's life: commands come in, changes go out, and exactly one outcome ends it.
//!
//! ```text
//!            ┌───────────── Kill ─────────────┐
//!            │                                ▼
//!  launch ─► set-up ─► start ─► running ─► stopping ─► the way back ─► Outcome
//!               │         │        └── exits by itself ──────▲
//!               └─ fails ─┴────────────────────────────────┘
//! ```
//!
//! The life knows nothing of the way in: drop-in executor, custom executor and proxy all feed it an
//! [`Order`] and translate [`Change`]s into their own words. One async task owns all the state;
//! nobody else mutates it. A task without CALICO variables takes the same road without the journal,
//! the namespace and the gate, and touches neither etcd nor Consul.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Config, ConfigError};
use crate::error::{chain, Failure};
use crate::limits::{CUSTOM_BEFORE_UPDATE, DOCKER_KILLED, START_WITHOUT_GATE};
use crate::trust::TrustError;

use super::link::{Change, Command, Ended, Link, Order, Outcome};
use super::making::Making;
use super::spec::is_named_by_us;
use super::work::{self, Attached, End, Seen};

/// Lives the task to its end.
pub async fn live(order: Order, mut link: Link) -> Ended {
    for note in &order.description.notes {
        tracing::warn!("{note}");
    }
    let by_custom_executor = is_named_by_us(&order.name, &order.container);
    let ended = match order.description.calico {
        Some(_) => super::calico_life::live(order, link).await,
        None => plain(Arc::new(order), &mut link).await,
    };
    match by_custom_executor {
        true => ended.finished_within(CUSTOM_BEFORE_UPDATE).await,
        false => ended,
    }
}

/// A task that stock Mesos could run just as well.
async fn plain(order: Arc<Order>, link: &mut Link) -> Ended {
    let created = order.clone();
    let mut creation = Making::start(|cancel| work::create(created, None, RETRY_NOTHING, cancel));
    let made = link.unless_killed(creation.made()).await;
    let ready = match made {
        Ok(Ok(ready)) => ready,
        Ok(Err(failure)) => return Outcome::Failed(failure).into(),
        Err(command) => {
            link.announce(command);
            return given_up(&order, creation, command).await;
        }
    };
    let outcome = run(&order, &ready, link).await;
    if !is_named_by_us(&order.name, &order.container) {
        // The agent removes it.
        return outcome.into();
    }
    Ended { outcome, afterwards: Box::pin(async move { ready.remove().await }) }
}

/// Killed before the container was there. A Docker that does not answer holds the outcome up for a bounded time; the
/// container is removed when it is made at last, unless the agent does that.
async fn given_up(order: &Order, creation: Making<work::Ready>, command: Command) -> Ended {
    let left = creation.give_up(DOCKER_KILLED).await;
    let outcome = command.before_start();
    if !is_named_by_us(&order.name, &order.container) {
        return outcome.into();
    }
    let afterwards = Box::pin(async move {
        let made = match left {
            Ok(made) => made,
            Err(mut creation) => creation.made().await.ok(),
        };
        if let Some(ready) = made {
            ready.remove().await;
        }
    });
    Ended { outcome, afterwards }
}

async fn run(order: &Order, ready: &work::Ready, link: &mut Link) -> Outcome {
    let mut attached = match link.unless_killed(ready.attach()).await {
        Ok(Ok(attached)) => attached,
        Ok(Err(failure)) => return Outcome::Failed(failure),
        Err(command) => {
            link.announce(command);
            return command.before_start();
        }
    };
    let first_kill = match start(ready, &mut attached, link).await {
        Ok(first_kill) => first_kill,
        Err(outcome) => return outcome,
    };
    let (seen, first_kill) = match first_kill {
        Some(command) => (Seen::default(), Some(command)),
        None => attached.look_unless_killed(ready, link).await,
    };
    let Seen { inspect, addresses } = seen;
    link.tell(Change::Running { inspect, addresses: addresses.clone(), timing: None });
    let event = match first_kill {
        Some(command) => Err(command),
        None => {
            let check = order.description.health.as_ref();
            let checks = attached.begin_checks(ready, check, None, addresses);
            attached.end_or_kill(link, checks, |_| ()).await
        }
    };
    let (end, stopped) = match event {
        Ok(end) => (end, None),
        Err(command) => {
            link.announce(command);
            (attached.stop(ready, command, link, false).await, Some(command))
        }
    };
    finish(attached, ready, end, stopped).await
}

/// Starts the workload; a kill that comes meanwhile is heard, but a start under way is waited for, since Docker would
/// finish it behind our back. `Err`: nothing runs.
async fn start(
    ready: &work::Ready,
    attached: &mut Attached,
    link: &mut Link,
) -> Result<Option<Command>, Outcome> {
    let (started, killed) = {
        let mut starting = std::pin::pin!(ready.start(attached, None, START_WITHOUT_GATE));
        tokio::select! {
            biased;
            started = &mut starting => (Some(started), None),
            Some(command) = link.commands.recv() => {
                (tokio::time::timeout(DOCKER_KILLED, &mut starting).await.ok(), Some(command))
            }
        }
    };
    if let Some(Ok(())) = started {
        return Ok(killed);
    }
    // A start whose answer was lost may have succeeded.
    ready.end_at_once().await;
    Err(match (started, killed) {
        (_, Some(command)) => {
            link.announce(command);
            command.before_start()
        }
        (Some(Err(failure)), None) => Outcome::Failed(failure),
        (_, None) => Outcome::Failed(Failure::host("CM-INTERNAL", "the start ended without a result")),
    })
}

/// Stock retries nothing at this place, and neither do we for a task that is not ours to improve.
const RETRY_NOTHING: Duration = Duration::ZERO;

/// The rest of the output, and what the end means; a task that was asked to stop is killed, whatever its exit code.
pub(super) async fn finish(
    attached: Attached,
    ready: &work::Ready,
    end: End,
    stopped: Option<Command>,
) -> Outcome {
    attached.drain().await;
    match (end, stopped) {
        (end, Some(Command::Kill { cause, .. })) => {
            if let Err(failure) = &end {
                tracing::warn!("{failure}");
            }
            Outcome::Killed { exit: end.ok(), cause }
        }
        (Ok(exit), None) => Outcome::Exited(ready.explain(exit).await),
        (Err(failure), None) => Outcome::Failed(failure),
    }
}

/// The configuration, which only Calico tasks read.
pub(super) fn load_config(order: &Order) -> Result<Config, Failure> {
    Config::load(&order.config_path).map_err(|error| match error {
        ConfigError::Unsafe(error) => unsafe_host(&error),
        error => Failure::host("CM-CONFIG", format!("{}; mend it on the agent", chain(&error))),
    })
}

/// Others than root could change what this host does, or learn its secrets.
pub(super) fn unsafe_host(error: &TrustError) -> Failure {
    Failure::host("CM-UNSAFE", chain(error))
}
