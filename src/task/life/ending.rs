//! The end of a life: its outcome, and the teardown.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::admission::{as_of_now, Admitted};
use super::event::LifeFate;
use super::setup::{JobEnding, JobProduct};
use super::table::Job;
use crate::error::{Code, Failure};
use crate::limits::KNOCK;
use crate::net::forward::Mapping;
use crate::task::channel::{self, Order, Outcome};
use crate::task::life::consul_entries::{Registrar, Registration};
use crate::task::network::ports::Keeper;
use crate::task::network::{self, Wired};
use crate::task::report::audit;
use crate::task::report::steps::{Step, Steps};
use crate::task::request::{is_named_by_us, Work};
use crate::task::teardown::{self, Claim, Patience, Workload};
use crate::task::work::{Attached, End, Ready};

/// The task's names in Consul.
#[derive(Default)]
pub(super) struct Names {
    pub registrar: Option<Registrar>,
    /// Consul may hold entries of the task.
    registered: bool,
    /// A registration was not answered: it may overtake its removal.
    unheard: bool,
    /// Consul has forgotten the task.
    removed: bool,
}

pub(super) type Leaving = Pin<Box<dyn Future<Output = Names> + Send>>;

impl Names {
    /// Takes the names away before the workload is asked to stop.
    pub async fn leave(mut self, admitted: Arc<Admitted>) -> Self {
        let left = self.settle(Patience::BEFORE_UPDATE.consul).await;
        if self.registered {
            match teardown::deregister(&admitted.entry.record, &admitted.config, left).await {
                Ok(_) => self.removed = true,
                // Tried again in the teardown, which reports it.
                Err(why) => tracing::debug!("the task's entries stay in Consul for now: {why}"),
            }
        }
        self
    }

    /// Ends the registration within `limit`; what is left of that for the removal.
    async fn settle(&mut self, limit: Duration) -> Duration {
        let begun = Instant::now();
        if let Some(registrar) = self.registrar.take() {
            let stopped = registrar.stop(limit).await;
            self.registered = stopped != Registration::None;
            self.unheard = stopped == Registration::Unheard;
        }
        limit.saturating_sub(begun.elapsed())
    }

    /// What was never registered need not be removed: on a host without Consul there is no agent that could do it.
    fn are_gone(&self) -> bool {
        !self.registered || self.removed && !self.unheard
    }
}

/// What a life leaves to its teardown.
pub(super) struct Remains {
    pub order: Arc<Order>,
    pub fate: LifeFate,
    pub workload: Workload,
    pub ready: Option<Arc<Ready>>,
    pub attached: Option<Box<Attached>>,
    /// How the workload ended, when it did.
    pub end: Option<End>,
    /// The failure that was the cause.
    pub failure: Option<Failure>,
    /// Known before the teardown is over.
    pub outcome: Arc<OnceLock<Outcome>>,
}

/// What only a life with an interface of Calico's leaves.
pub(super) struct Networked {
    pub admitted: Arc<Admitted>,
    pub claim: Claim,
    pub names: Names,
    pub leaving: Option<Leaving>,
    pub keeper: Option<Keeper>,
}

impl Remains {
    fn is_adopted(&self) -> bool {
        matches!(self.order.description.task.work(), Work::Foreign(_))
    }

    /// The rest of the output, and what the end means; a task that was asked to stop is killed, with any exit code.
    async fn outcome(&mut self) -> Outcome {
        if let Some(attached) = self.attached.take() {
            match self.end {
                Some(_) => attached.drain().await,
                None => drop(attached),
            }
        }
        let outcome = match (self.fate, self.end.take()) {
            (LifeFate::Killed(cause), end) => {
                if let Some(Err(failure)) = &end {
                    tracing::warn!("{failure}");
                }
                Outcome::Killed { exit: end.and_then(Result::ok), cause }
            }
            (LifeFate::Ended, Some(Ok(_))) if self.is_adopted() => Outcome::Over,
            (LifeFate::Ended, Some(Ok(exit))) => Outcome::Exited(match &self.ready {
                Some(ready) => ready.explain(exit).await,
                None => exit,
            }),
            (LifeFate::Ended, Some(Err(failure))) => Outcome::Failed(failure),
            (LifeFate::NoGate, _) => Outcome::Failed(no_gate()),
            (LifeFate::NotStarted, _) => Outcome::Failed(not_started()),
            (LifeFate::Ended, None) if self.is_adopted() => Outcome::Over,
            (LifeFate::Ended | LifeFate::Failed(_), _) => {
                Outcome::Failed(self.failure.take().unwrap_or_else(unexplained))
            }
        };
        let outcome = advised(outcome, &self.order);
        let _ = self.outcome.set(outcome.clone());
        outcome
    }
}

/// An outcome of which nothing more is known.
pub(super) fn bare(fate: LifeFate) -> Outcome {
    match fate {
        LifeFate::Killed(cause) => Outcome::Killed { exit: None, cause },
        LifeFate::NoGate => Outcome::Failed(no_gate()),
        LifeFate::NotStarted => Outcome::Failed(not_started()),
        LifeFate::Ended | LifeFate::Failed(_) => Outcome::Failed(unexplained()),
    }
}

fn not_started() -> Failure {
    Failure::new(
        Code::Docker,
        format!(
            "Docker did not start the container within {} s after its network was ready",
            KNOCK.as_secs()
        ),
    )
}

fn unexplained() -> Failure {
    Failure::new(Code::Internal, "the task has ended for a reason that the executor did not record")
}

fn no_gate() -> Failure {
    Failure::new(
        Code::Runtime,
        format!(
            "Docker's runtime '{}' on this agent is not calico-runc; run `calico-mesos node install-runtime` there",
            crate::task::request::RUNTIME
        ),
    )
}

/// The end of a task that stock Mesos could have run: the container is the agent's to remove, unless only this executor
/// can find it.
pub(super) async fn plain(
    mut remains: Remains,
    started: bool,
    mut jobs: JoinSet<(Job, JobEnding)>,
) -> channel::Ended {
    let never_ran = matches!(remains.workload, Workload::NeverStarted | Workload::Unheard);
    if let (true, true, Some(ready)) = (started, never_ran, &remains.ready) {
        // A start whose answer was lost may have succeeded.
        ready.end_at_once().await;
    }
    let outcome = remains.outcome().await;
    let ready = remains.ready.take();
    if !is_named_by_us(&remains.order.name, &remains.order.container) {
        jobs.detach_all();
        return outcome.into();
    }
    let afterwards = Box::pin(async move {
        if let Some(ready) = ready {
            return ready.remove().await;
        }
        // A create that was not waited for any longer.
        while let Some(ended) = jobs.join_next().await {
            if let Ok((_, Ok(JobProduct::Ready(ready)))) = ended {
                ready.remove().await;
            }
        }
    });
    channel::Ended { outcome, afterwards }
}

/// The end of a task with an interface of Calico's; nothing is left of it afterwards, or a cleaner is named in the log.
pub(super) async fn networked(mut remains: Remains, networked: Networked) -> channel::Ended {
    let Networked { admitted, claim, names, leaving, keeper } = networked;
    let outcome = remains.outcome().await;
    let ending = channel::Ending::from(&outcome);
    admitted.entry.conclude(&ending);
    let mut names = match leaving {
        Some(leaving) => leaving.await,
        None => names,
    };
    let consul = names.settle(Patience::BEFORE_UPDATE.consul).await;
    if let Some(keeper) = keeper {
        keeper.stop().await;
    }
    let Some(Admitted { config, order, mut entry, steps, .. }) = Arc::into_inner(admitted) else {
        tracing::warn!(
            "a part of the launch has not ended; the next cleaner removes what is left of the task"
        );
        return outcome.into();
    };
    if names.are_gone() {
        entry.record.services.clear();
    }
    let config = as_of_now(&config, &order);
    audit::never_ran(&config, &entry.record, &outcome, &steps);
    let patience = Patience { consul, ..Patience::BEFORE_UPDATE };
    let workload = remains.workload;
    let mut report = teardown::give_back(&entry.record, &config, workload, claim, patience, &steps).await;
    if names.unheard && report.complete() {
        report.errors.push("consul: it has not answered a registration, which may still come".into());
    }
    let afterwards = Box::pin(async move {
        let record = entry.record.clone();
        let report = teardown::tidy_up(entry, &config, report, &steps).await;
        audit::taken_down(&config, &record, Some(&ending), &report, &steps);
        log_report(&report, &steps);
    });
    channel::Ended { outcome, afterwards }
}

/// The end of a life in the driver.
pub struct LifeEnd {
    pub ended: channel::Ended,
    /// What an adopted container that ended by itself still has, for its next start.
    pub held: Option<Box<HeldNetwork>>,
}

impl From<channel::Ended> for LifeEnd {
    fn from(ended: channel::Ended) -> Self {
        Self { ended, held: None }
    }
}

/// What an adopted container that has ended still has: namespace, endpoint, address, and the record that names them.
pub struct HeldNetwork {
    pub(super) admitted: Admitted,
    pub(super) wired: Wired,
}

impl HeldNetwork {
    /// The addresses that it had.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.wired.addresses
    }

    /// The ports of the host that led to it, and lead there still.
    pub fn ports(&self) -> &[Mapping] {
        &self.admitted.entry.record.ports
    }

    /// It will not be started again so soon: all is given back.
    pub async fn give_back(self) {
        let Admitted { config, order, entry, steps, .. } = self.admitted;
        let config = as_of_now(&config, &order);
        let (record, ending) = (entry.record.clone(), entry.ending().cloned());
        let (workload, claim) = (Workload::Exited, Claim::Possible);
        let report = teardown::take_down(entry, &config, workload, claim, Patience::CLEANER, &steps).await;
        audit::taken_down(&config, &record, ending.as_ref(), &report, &steps);
        log_report(&report, &steps);
    }
}

/// The end of an adopted container that its maker may start again: only its names go.
pub(super) async fn hold(mut remains: Remains, networked: Networked, wired: Wired) -> LifeEnd {
    let Networked { admitted, names, leaving, keeper, .. } = networked;
    let outcome = remains.outcome().await;
    admitted.entry.conclude(&channel::Ending::from(&outcome));
    // What stays in Consul goes with the teardown, or is what the next life registers.
    match leaving {
        Some(leaving) => drop(leaving.await),
        None => drop(names.leave(admitted.clone()).await),
    }
    if let Some(keeper) = keeper {
        keeper.stop().await;
    }
    let held = Arc::into_inner(admitted).map(|admitted| Box::new(HeldNetwork { admitted, wired }));
    LifeEnd { ended: outcome.into(), held }
}

/// An address is usually taken by the task that a framework is about to replace by this one; of Marathon it is known
/// how to have the old one stopped first.
fn advised(outcome: Outcome, order: &Order) -> Outcome {
    match outcome {
        Outcome::Failed(failure) if failure.code == Code::IpTaken && order.description.by_marathon => {
            let advice = "to have Marathon do that, set upgradeStrategy minimumHealthCapacity=0, maximumOverCapacity=0";
            let message = format!("{}; {advice}", failure.message);
            Outcome::Failed(Failure { message, ..failure })
        }
        other => other,
    }
}

fn log_report(report: &teardown::Report, steps: &Steps) {
    let addresses =
        if report.addresses.is_empty() { "no address".into() } else { network::join(&report.addresses) };
    if report.complete() {
        let passed: Vec<_> =
            steps.passed().into_iter().skip_while(|(step, _)| *step != Step::Ended).collect();
        let took = passed.windows(2).map(|pair| {
            let [(_, before), (step, at)] = pair else { return String::new() };
            format!("{} {:.1} ms", step.name(), at.saturating_sub(*before).as_secs_f64() * 1000.0)
        });
        tracing::info!("taken down: {addresses} given back ({})", took.collect::<Vec<_>>().join(", "));
    }
    for error in &report.errors {
        tracing::warn!("left for the next cleaner: {error}");
    }
}
