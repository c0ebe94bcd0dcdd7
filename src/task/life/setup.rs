//! The jobs of a life's set-up: each is a piece of work that owns what it needs.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::admission::{admit_with_retries, Admitted};
use crate::calico::Pending;
use crate::error::{chain, Code, Failure};
use crate::task::channel::Order;
use crate::task::network::felix;
use crate::task::network::{self, Choice, Interface, Wired};
use crate::task::report::steps::{Step, Steps};
use crate::task::request::CalicoTask;
use crate::task::work::gate_listener::Gate;
use crate::task::work::remapped;
use crate::task::work::{self, Attached, Ready, SeenWorkload};
use crate::workload::HostProcess;

/// What a job has made.
pub(super) enum JobProduct {
    Nothing,
    Admitted(Box<Admitted>),
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

pub(super) type JobEnding = Result<JobProduct, Stopped>;
pub(super) type JobFuture = Pin<Box<dyn Future<Output = JobEnding> + Send>>;

/// For work that only reads, or waits before it makes anything: it may be dropped.
async fn unless_cancelled(cancel: CancellationToken, work: impl Future<Output = JobEnding>) -> JobEnding {
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

pub(super) async fn record(order: Arc<Order>, task: Arc<CalicoTask>, cancel: CancellationToken) -> JobEnding {
    let made = unless_cancelled(cancel, async {
        Ok(JobProduct::Admitted(Box::new(admit_with_retries(&order, &task).await?)))
    });
    let made = made.await?;
    if let JobProduct::Admitted(admitted) = &made {
        admitted.steps.pass(Step::Recorded).await;
    }
    Ok(made)
}

pub(super) async fn listen(admitted: Arc<Admitted>) -> JobEnding {
    let gate = network::listen(&admitted.config, &admitted.order.container)?;
    admitted.steps.pass(Step::Listening).await;
    Ok(JobProduct::Gate(gate))
}

pub(super) async fn sync(admitted: Arc<Admitted>) -> JobEnding {
    let failed = |error: &(dyn std::error::Error + 'static)| Failure::new(Code::Journal, chain(error));
    let sync = admitted.entry.syncer().map_err(|error| failed(&error))?;
    match tokio::task::spawn_blocking(sync).await {
        Ok(synced) => synced.map_err(|error| failed(&error))?,
        Err(error) => return Err(Failure::new(Code::Internal, chain(&error)).into()),
    }
    admitted.steps.pass(Step::Synced).await;
    Ok(JobProduct::Nothing)
}

pub(super) async fn read(admitted: Arc<Admitted>, cancel: CancellationToken) -> JobEnding {
    let early = admitted.early.lock().unwrap_or_else(PoisonError::into_inner).take();
    let choice = unless_cancelled(cancel, async {
        let Admitted { config, entry, steps, .. } = &*admitted;
        let wanted = admitted.wanted();
        if let Some(again) = admitted.wanted_again() {
            // What it had last is not worth a wait, nor a failure.
            let patience = Duration::ZERO;
            match network::choose(config, &entry.record, &again, None, steps, patience).await {
                Ok(choice) => return Ok(JobProduct::Choice(choice)),
                Err(failure) => tracing::info!("not the last address again: {failure}"),
            }
        }
        let patience = config.launch.ip_wait;
        let choice = network::choose(config, &entry.record, &wanted, early, steps, patience).await?;
        Ok(JobProduct::Choice(choice))
    });
    choice.await
}

pub(super) async fn interface(admitted: Arc<Admitted>, cancel: CancellationToken) -> JobEnding {
    let (config, steps) = (admitted.config.clone(), admitted.steps.clone());
    let (container, ipv6) = (admitted.order.container.clone(), admitted.task.request.wants_ipv6());
    // The record is not held: a kernel that hangs would keep it from the teardown.
    drop(admitted);
    network::make_interface(config, container, ipv6, steps, cancel)
        .await
        .map(JobProduct::Interface)
        .map_err(Into::into)
}

/// The interface of the life before, without what it has left there.
pub(super) async fn renew(admitted: Arc<Admitted>, mac: Option<String>) -> JobEnding {
    let Admitted { config, order, .. } = &*admitted;
    let interface = network::renew_interface(config, &order.container, &order.name, mac.as_deref()).await?;
    admitted.steps.pass(Step::Interface).await;
    Ok(JobProduct::Interface(interface))
}

/// The addresses of the life before, set anew.
pub(super) async fn rewire(admitted: Arc<Admitted>, wired: Wired, interface: Interface) -> JobEnding {
    let wired = network::rewire(&admitted.config, wired, interface).await?;
    admitted.steps.pass(Step::Addressed).await;
    Ok(JobProduct::Wired(Box::new(wired)))
}

/// `admitted`: of a task with an interface of Calico's.
pub(super) async fn create(
    order: Arc<Order>,
    admitted: Option<Arc<Admitted>>,
    cancel: CancellationToken,
) -> JobEnding {
    let (order, namespace, retry_for, steps) = match admitted {
        None => (order, None, RETRY_NOTHING, None),
        Some(admitted) => {
            let namespace = network::namespace(&admitted.config, &order.container);
            let retry_for = admitted.config.launch.retry_for;
            (admitted.order.clone(), Some(namespace), retry_for, Some(admitted.steps.clone()))
        }
    };
    let ready = work::create(order, namespace, retry_for, cancel).await?;
    pass(steps.as_ref(), Step::Created).await;
    Ok(JobProduct::Ready(Box::new(ready)))
}

/// The stock executor retries nothing here, and a task without Calico behaves as with that.
const RETRY_NOTHING: Duration = Duration::ZERO;

pub(super) async fn examine(admitted: Arc<Admitted>, cancel: CancellationToken) -> JobEnding {
    let examined = unless_cancelled(cancel, async {
        if let Some(docker) = admitted.task.work.docker() {
            remapped::refuse(&admitted.config, docker).await?;
        }
        Ok(JobProduct::Nothing)
    });
    examined.await
}

pub(super) async fn publish(admitted: Arc<Admitted>, ready: Arc<Ready>) -> JobEnding {
    let (config, container) = (admitted.config.clone(), admitted.order.container.clone());
    ready.publish(move |id| network::publish(&config, &container, id))?;
    admitted.steps.pass(Step::Published).await;
    Ok(JobProduct::Nothing)
}

pub(super) async fn attach(
    ready: Arc<Ready>,
    over: CancellationToken,
    steps: Option<Steps>,
    cancel: CancellationToken,
) -> JobEnding {
    let attached = ready.attach(over, &cancel).await?;
    pass(steps.as_ref(), Step::Attached).await;
    Ok(JobProduct::Attached(Box::new(attached)))
}

pub(super) async fn wire(
    admitted: Arc<Admitted>,
    choice: Choice,
    interface: Interface,
    cancel: CancellationToken,
) -> JobEnding {
    let Admitted { config, entry, steps, .. } = &*admitted;
    match choice.wire(interface, config, entry, steps, cancel).await {
        Ok(wired) => Ok(JobProduct::Wired(Box::new(wired))),
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
) -> JobEnding {
    let begun = Instant::now();
    match ready.start(&mut attached, gate.as_deref(), limit).await {
        Ok(()) => {
            pass(steps.as_ref(), Step::Started).await;
            Ok(JobProduct::Attached(attached))
        }
        Err(failure) if begun.elapsed() >= limit => Err(Stopped::Silent(failure)),
        Err(failure) => Err(Stopped::Failed(failure)),
    }
}

pub(super) async fn look(ready: Arc<Ready>, steps: Option<Steps>, cancel: CancellationToken) -> JobEnding {
    let seen = unless_cancelled(cancel, async {
        let (seen, process) = ready.look().await;
        Ok(JobProduct::Seen(seen, process))
    });
    let seen = seen.await?;
    pass(steps.as_ref(), Step::Running).await;
    Ok(seen)
}
