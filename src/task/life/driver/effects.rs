//! Carries out the effects that a life's states return.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Driver;
use crate::error::{Code, Failure};
use crate::limits::{START_BESIDES_GATE, START_WITHOUT_GATE};
use crate::logging;
use crate::task::channel::{Ended, LifeChange, Outcome};
use crate::task::life::admission::{self, Admitted};
use crate::task::life::consul_entries::Registrar;
use crate::task::life::ending::{self, Networked, Remains};
use crate::task::life::event::{Effect, GateOrder, LifeFate, Timer, Word};
use crate::task::life::setup;
use crate::task::life::table::Job;
use crate::task::network;
use crate::task::network::ports::Keeper;
use crate::task::report::audit;
use crate::task::report::steps::{Step, Steps};
use crate::task::request::Work;
use crate::task::teardown::{Claim, Workload};
use crate::task::work::{ask, kill_process, SeenWorkload};

impl Driver {
    pub(super) fn steps(&self) -> Option<Steps> {
        self.admitted.as_ref().map(|admitted| admitted.steps.clone())
    }

    pub(super) fn follow(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Begin(job) => self.begin(job),
                Effect::Cancel(job) => {
                    if let Some(cancel) = self.cancels.get(&job) {
                        cancel.cancel();
                    }
                }
                Effect::Gate(GateOrder::Open) => self.open(),
                Effect::Gate(GateOrder::Refuse) => self.refuse(),
                Effect::Serve => self.serve(),
                Effect::Tell(word) => self.tell(word),
                Effect::Leave => {
                    if let Some(admitted) = self.admitted.clone() {
                        self.leaving = Some(Box::pin(std::mem::take(&mut self.names).leave(admitted)));
                    }
                }
                Effect::AskToStop(until) => {
                    let until = Instant::from_std(until);
                    let grace = until.saturating_duration_since(Instant::now()).as_secs_f64();
                    tracing::info!("stopping the task with a grace period of {grace:.1} s");
                    self.until = until;
                    self.checks = None;
                    self.ask(Some(until));
                }
                Effect::KillNow => self.ask(None),
                Effect::KillProcess => self.kill_process(),
                Effect::Arm(timer, after) => {
                    let at = Instant::now() + after;
                    if timer == Timer::Grace && self.asking.is_some() && at < self.until {
                        tracing::info!("the grace period is shortened to {:.1} s", after.as_secs_f64());
                        self.until = at;
                    }
                    self.timers.insert(timer, at);
                }
                Effect::TearDown { workload, claimed, fate } => self.tear_down(workload, claimed, fate),
                Effect::Hold => self.hold(),
                Effect::Finish(fate) => self.finish(fate),
            }
        }
    }

    fn begin(&mut self, job: Job) {
        let cancel = CancellationToken::new();
        self.cancels.insert(job, cancel.clone());
        let work = self.work(job, cancel).unwrap_or_else(|| {
            let message = format!("{job:?} began before what it needs was there");
            Box::pin(std::future::ready(Err(Failure::new(Code::Internal, message).into())))
        });
        let task = self.jobs.spawn(logging::in_task(async move { (job, work.await) }));
        self.tasks.insert(task.id(), job);
    }

    /// The work of a job; `None` when something that it needs is missing, which the states rule out.
    fn work(&mut self, job: Job, cancel: CancellationToken) -> Option<setup::JobFuture> {
        Some(match job {
            Job::Record => {
                let task = self.order.description.task.calico()?.clone();
                Box::pin(setup::record(self.order.clone(), task, cancel))
            }
            Job::Listen => Box::pin(setup::listen(self.admitted.clone()?)),
            Job::Sync => Box::pin(setup::sync(self.admitted.clone()?)),
            Job::Read => Box::pin(setup::read(self.admitted.clone()?, cancel)),
            Job::Interface if self.again => {
                let mac = self.wired.as_ref()?.mac.clone();
                Box::pin(setup::renew(self.admitted.clone()?, mac))
            }
            Job::Interface => Box::pin(setup::interface(self.admitted.clone()?, cancel)),
            Job::Create => Box::pin(setup::create(self.order.clone(), self.admitted.clone(), cancel)),
            Job::Examine => Box::pin(setup::examine(self.admitted.clone()?, cancel)),
            Job::Publish => Box::pin(setup::publish(self.admitted.clone()?, self.ready.clone()?)),
            Job::Attach => {
                let over = self.channel.others.over.clone();
                Box::pin(setup::attach(self.ready.clone()?, over, self.steps(), cancel))
            }
            Job::Wire if self.again => {
                let (wired, interface) = (self.wired.take()?, self.interface.take()?);
                Box::pin(setup::rewire(self.admitted.clone()?, wired, interface))
            }
            Job::Wire => {
                let (choice, interface) = (self.choice.take()?, self.interface.take()?);
                Box::pin(setup::wire(self.admitted.clone()?, choice, interface, cancel))
            }
            Job::Start => {
                let limit = match &self.admitted {
                    // calico-runc refuses when the gate's time is over: this is for a Docker that does not answer.
                    Some(admitted) => admitted.config.runtime.gate_timeout + START_BESIDES_GATE,
                    None => START_WITHOUT_GATE,
                };
                self.starting = Some(Instant::now());
                let (ready, attached) = (self.ready.clone()?, self.attached.take()?);
                Box::pin(setup::start(ready, attached, self.gate.clone(), self.steps(), limit))
            }
            Job::Look => Box::pin(setup::look(self.ready.clone()?, self.steps(), cancel)),
        })
    }

    /// The network is ready, and the workload stands at the gate.
    fn open(&mut self) {
        let (Some(gate), Some(admitted), Some(wired), Some(ready)) =
            (self.gate.clone(), &self.admitted, &mut self.wired, &self.ready)
        else {
            return;
        };
        if let Some(knocked) = self.knocked {
            wired.timing.gate = knocked.elapsed();
            wired.timing.start = self.starting.map_or(Duration::ZERO, |at| knocked.duration_since(at));
        }
        let names = ready.host_names();
        match network::write_hosts(&admitted.config, &admitted.order.container, &names, &wired.addresses) {
            Ok(()) => gate.open(),
            Err(why) => gate.close(&why),
        }
        let steps = admitted.steps.clone();
        self.opening = Some(Box::pin(async move { steps.pass(Step::Opened).await }));
    }

    fn refuse(&self) {
        let Some(gate) = &self.gate else { return };
        match self.failures.values().next() {
            // An executor's status carries the code; others see only what Docker shows.
            Some(failure) if self.is_adopted() => gate.close(&failure.to_string()),
            Some(failure) => gate.close(&failure.message),
            None => gate.close("the task is over"),
        }
    }

    fn is_adopted(&self) -> bool {
        matches!(self.order.description.task.work(), Work::Foreign(_))
    }

    /// Names and ports of a task that runs.
    fn serve(&mut self) {
        let (Some(admitted), Some(wired)) = (&self.admitted, &mut self.wired) else { return };
        let Admitted { config, order, task, entry, .. } = &**admitted;
        let services = admission::services(order, task, config, &entry.record, &wired.addresses);
        let by_docker = matches!(&task.work, Work::Foreign(container) if container.checked);
        let checked = by_docker || order.description.health.is_some();
        self.names.registrar = Registrar::start(config, &order.container, services, checked);
        self.keeper = wired.forward.clone().map(Keeper::start);
    }

    fn tell(&mut self, word: Word) {
        match word {
            Word::Prepared => self.channel.tell(LifeChange::Prepared),
            Word::Killing => self.channel.tell(LifeChange::Killing),
            Word::Health { healthy, too_often } => {
                self.channel.tell(LifeChange::Health { healthy, kill: too_often });
            }
            Word::Running => self.running(),
        }
    }

    fn running(&mut self) {
        let SeenWorkload { inspect, addresses } = std::mem::take(&mut self.seen);
        let after = self.launched.elapsed().as_millis();
        let addresses = match (&self.admitted, &self.wired) {
            (Some(admitted), Some(wired)) => {
                match admitted.steps.passed().iter().all(|(step, _)| *step != Step::Waiting) {
                    true => tracing::info!("runs since before this program began"),
                    false => {
                        audit::runs(
                            &admitted.config,
                            &admitted.entry.record,
                            &wired.addresses,
                            &admitted.steps,
                        );
                        tracing::info!("running after {after} ms ({})", wired.timing);
                    }
                }
                wired.addresses.clone()
            }
            _ => {
                tracing::info!("running after {after} ms");
                addresses
            }
        };
        self.channel.tell(LifeChange::Running { inspect, addresses: addresses.clone() });
        self.check(addresses);
    }

    /// Begins the health checks. Without an interface of Calico's they go to the namespace of the first process.
    fn check(&mut self, addresses: Vec<IpAddr>) {
        let (Some(check), Some(ready), Some(attached)) =
            (&self.order.description.health, &self.ready, &self.attached)
        else {
            return;
        };
        let namespace: Option<PathBuf> = self
            .admitted
            .as_ref()
            .map(|admitted| network::namespace(&admitted.config, &admitted.order.container));
        self.checks = attached.begin_checks(ready, check, namespace, addresses);
    }

    pub(super) fn ask(&mut self, until: Option<Instant>) {
        if let (Some(ready), Some(attached)) = (&self.ready, &self.attached) {
            self.asking = Some(Box::pin(ask(ready.clone(), attached.signals(), until)));
        }
    }

    fn kill_process(&mut self) {
        tracing::warn!("the task does not end; its process is killed without Docker");
        if let (Some(ready), None) = (&self.ready, &self.dying) {
            let process = self.attached.as_ref().and_then(|attached| attached.process());
            self.dying = Some(Box::pin(kill_process(ready.clone(), process)));
        }
    }

    /// The failure that a life is over for.
    fn cause(&mut self, fate: LifeFate) -> Option<Failure> {
        match fate {
            LifeFate::Failed(job) => self.failures.remove(&job),
            LifeFate::Ended | LifeFate::Killed(_) | LifeFate::NoGate | LifeFate::NotStarted => None,
        }
    }

    fn remains(&mut self, workload: Workload, fate: LifeFate) -> Remains {
        Remains {
            order: self.order.clone(),
            fate,
            workload,
            ready: self.ready.take(),
            attached: self.attached.take(),
            end: self.end.take(),
            failure: self.cause(fate),
            outcome: self.outcome.clone(),
        }
    }

    fn tear_down(&mut self, workload: Workload, claimed: bool, fate: LifeFate) {
        // Nothing of the set-up may hold on to what is taken down.
        (self.knocking, self.passing, self.opening, self.asking, self.dying) = (None, None, None, None, None);
        (self.checks, self.gate, self.choice, self.interface) = (None, None, None, None);
        let remains = self.remains(workload, fate);
        let mut jobs = std::mem::take(&mut self.jobs);
        let Some(admitted) = self.admitted.take() else {
            let started = self.cancels.contains_key(&Job::Start);
            self.tearing = Some(Box::pin(async move { ending::plain(remains, started, jobs).await.into() }));
            return;
        };
        if self.tasks.values().any(|job| *job != Job::Look) {
            tracing::warn!("a part of the launch has not ended; a cleaner removes what it still makes");
        }
        jobs.detach_all();
        let claim = match (claimed, self.lost.take()) {
            (_, Some(pending)) => Claim::Lost(pending),
            (true, None) => Claim::Possible,
            (false, None) => Claim::None,
        };
        let (names, leaving) = (std::mem::take(&mut self.names), self.leaving.take());
        let networked = Networked { admitted, claim, names, leaving, keeper: self.keeper.take() };
        self.tearing = Some(Box::pin(async move { ending::networked(remains, networked).await.into() }));
    }

    /// The container is over, and its caller may start another life with all that it had.
    fn hold(&mut self) {
        (self.knocking, self.passing, self.opening, self.asking, self.dying) = (None, None, None, None, None);
        (self.checks, self.gate, self.interface) = (None, None, None);
        let (Some(admitted), Some(wired)) = (self.admitted.take(), self.wired.take()) else { return };
        let remains = self.remains(Workload::Exited, LifeFate::Ended);
        let (names, leaving) = (std::mem::take(&mut self.names), self.leaving.take());
        let networked =
            Networked { admitted, claim: Claim::Possible, names, leaving, keeper: self.keeper.take() };
        self.tearing = Some(Box::pin(ending::hold(remains, networked, wired)));
    }

    fn finish(&mut self, fate: LifeFate) {
        if self.over.is_some() {
            return;
        }
        self.over = Some(match self.tearing.take() {
            // The teardown goes on beside the outcome, which is known by then unless Docker hangs.
            Some(tearing) => {
                tracing::warn!("the teardown takes too long; the executor ends without waiting for it");
                let outcome = self.outcome.get().cloned().unwrap_or_else(|| ending::bare(fate));
                let afterwards = Box::pin(async move { tearing.await.ended.afterwards.await });
                Ended { outcome, afterwards }.into()
            }
            // No record: nothing was made.
            None => {
                let outcome = self.cause(fate).map_or_else(|| ending::bare(fate), Outcome::Failed);
                admission::refused(&self.order, &outcome);
                Ended::from(outcome).into()
            }
        });
    }
}
