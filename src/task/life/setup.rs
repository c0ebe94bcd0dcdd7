//! The jobs of a life's set-up: each is a piece of work that owns what it needs.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::begin::{begin_patiently, Begun};
use crate::calico::Pending;
use crate::error::{chain, Code, Failure};
use crate::task::link::Order;
use crate::task::network::felix;
use crate::task::network::{self, Choice, Interface, Wired};
use crate::task::report::steps::{Step, Steps};
use crate::task::request::CalicoTask;
use crate::task::work::gate::Gate;
use crate::task::work::remapped;
use crate::task::work::{self, Attached, Ready, SeenWorkload};
use crate::workload::HostProcess;

/// What a job has made.
pub(super) enum Made {
    Nothing,
    Begun(Box<Begun>),
    Gate(Gate),
    Choice(Box<Choice>),
    Interface(Interface),
    Ready(Box<Ready>),
    Attached(Box<Attached>),
    Wired(Box<Wired>),
    Seen(SeenWorkload, Option<HostProcess>),
}

/// Why it has made nothing.
pub(super) enum Stopped {
    Failed(Failure),
    /// Another program did not answer.
    Silent(Failure),
    /// The answer to the datastore's write is lost.
    Lost(Failure, Box<Pending>),
    Cancelled,
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

pub(super) type Ending = Result<Made, Stopped>;
pub(super) type Job = Pin<Box<dyn Future<Output = Ending> + Send>>;

/// For work that only reads, or waits before it makes anything: it may be dropped.
async fn unless_cancelled(cancel: CancellationToken, work: impl Future<Output = Ending>) -> Ending {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Stopped::Cancelled),
        ending = work => ending,
    }
}

/// A life without an interface of Calico's has no steps.
async fn pass(steps: Option<&Steps>, step: Step) {
    if let Some(steps) = steps {
        steps.pass(step).await;
    }
}

pub(super) async fn record(order: Arc<Order>, task: Arc<CalicoTask>, cancel: CancellationToken) -> Ending {
    let made =
        unless_cancelled(cancel, async { Ok(Made::Begun(Box::new(begin_patiently(&order, &task).await?))) });
    let made = made.await?;
    if let Made::Begun(begun) = &made {
        begun.steps.pass(Step::Recorded).await;
    }
    Ok(made)
}

pub(super) async fn listen(begun: Arc<Begun>) -> Ending {
    let gate = network::listen(&begun.config, &begun.order.container)?;
    begun.steps.pass(Step::Listening).await;
    Ok(Made::Gate(gate))
}

pub(super) async fn sync(begun: Arc<Begun>) -> Ending {
    let failed = |error: &(dyn std::error::Error + 'static)| Failure::new(Code::Journal, chain(error));
    let sync = begun.entry.syncer().map_err(|error| failed(&error))?;
    match tokio::task::spawn_blocking(sync).await {
        Ok(synced) => synced.map_err(|error| failed(&error))?,
        Err(error) => return Err(Failure::new(Code::Internal, chain(&error)).into()),
    }
    begun.steps.pass(Step::Synced).await;
    Ok(Made::Nothing)
}

pub(super) async fn read(begun: Arc<Begun>, cancel: CancellationToken) -> Ending {
    let early = begun.early.lock().unwrap_or_else(PoisonError::into_inner).take();
    let choice = unless_cancelled(cancel, async {
        let Begun { config, entry, steps, .. } = &*begun;
        let choice = network::choose(config, &entry.record, &begun.wanted(), early, steps).await?;
        Ok(Made::Choice(choice))
    });
    choice.await
}

pub(super) async fn interface(begun: Arc<Begun>, cancel: CancellationToken) -> Ending {
    let (config, steps) = (begun.config.clone(), begun.steps.clone());
    let (container, ipv6) = (begun.order.container.clone(), begun.task.request.wants_ipv6());
    // The record is not held: a kernel that hangs would keep it from the teardown.
    drop(begun);
    network::make_interface(config, container, ipv6, steps, cancel)
        .await
        .map(Made::Interface)
        .map_err(Into::into)
}

/// `begun`: of a task with an interface of Calico's.
pub(super) async fn create(
    order: Arc<Order>,
    begun: Option<Arc<Begun>>,
    cancel: CancellationToken,
) -> Ending {
    let (order, namespace, retry_for, steps) = match begun {
        None => (order, None, RETRY_NOTHING, None),
        Some(begun) => {
            let namespace = network::namespace(&begun.config, &order.container);
            let retry_for = begun.config.launch.retry_for;
            (begun.order.clone(), Some(namespace), retry_for, Some(begun.steps.clone()))
        }
    };
    let ready = work::create(order, namespace, retry_for, cancel).await?;
    pass(steps.as_ref(), Step::Created).await;
    Ok(Made::Ready(Box::new(ready)))
}

/// The stock executor retries nothing here, and a task without Calico behaves as with that.
const RETRY_NOTHING: Duration = Duration::ZERO;

pub(super) async fn examine(begun: Arc<Begun>, cancel: CancellationToken) -> Ending {
    let examined = unless_cancelled(cancel, async {
        if let Some(docker) = begun.task.work.docker() {
            remapped::refuse(&begun.config, docker).await?;
        }
        Ok(Made::Nothing)
    });
    examined.await
}

pub(super) async fn publish(begun: Arc<Begun>, ready: Arc<Ready>) -> Ending {
    let (config, container) = (begun.config.clone(), begun.order.container.clone());
    ready.publish(move |id| network::publish(&config, &container, id))?;
    begun.steps.pass(Step::Published).await;
    Ok(Made::Nothing)
}

pub(super) async fn attach(ready: Arc<Ready>, steps: Option<Steps>, cancel: CancellationToken) -> Ending {
    let attached = ready.attach(&cancel).await?;
    pass(steps.as_ref(), Step::Attached).await;
    Ok(Made::Attached(Box::new(attached)))
}

pub(super) async fn wire(
    begun: Arc<Begun>,
    choice: Choice,
    interface: Interface,
    cancel: CancellationToken,
) -> Ending {
    let Begun { config, entry, steps, .. } = &*begun;
    match choice.wire(interface, config, entry, steps, cancel).await {
        Ok(wired) => Ok(Made::Wired(Box::new(wired))),
        Err(unwired) if felix::is_given_up(&unwired.failure) => Err(Stopped::Cancelled),
        Err(network::Unwired { failure, pending: Some(pending) }) => Err(Stopped::Lost(failure, pending)),
        Err(network::Unwired { failure, pending: None }) => Err(Stopped::Failed(failure)),
    }
}

pub(super) async fn start(
    ready: Arc<Ready>,
    mut attached: Box<Attached>,
    gate: Option<Arc<Gate>>,
    steps: Option<Steps>,
    limit: Duration,
) -> Ending {
    let begun = Instant::now();
    match ready.start(&mut attached, gate.as_deref(), limit).await {
        Ok(()) => {
            pass(steps.as_ref(), Step::Started).await;
            Ok(Made::Attached(attached))
        }
        Err(failure) if begun.elapsed() >= limit => Err(Stopped::Silent(failure)),
        Err(failure) => Err(Stopped::Failed(failure)),
    }
}

pub(super) async fn look(ready: Arc<Ready>, steps: Option<Steps>, cancel: CancellationToken) -> Ending {
    let seen = unless_cancelled(cancel, async {
        let (seen, process) = ready.look().await;
        Ok(Made::Seen(seen, process))
    });
    let seen = seen.await?;
    pass(steps.as_ref(), Step::Running).await;
    Ok(seen)
}
