//! Runs a life: feeds events to its states and carries out the effects that they return. Only the driver receives
//! kills.

mod effects;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{sleep_until, Instant};
use tokio_util::sync::CancellationToken;

use super::admission::Admitted;
use super::ending::{Leaving, LifeEnd, Names};
use super::event::{Effect, LifeEvent, Timer};
use super::setup::{JobEnding, JobProduct, Stopped};
use super::state::State;
use super::table::{Job, LifeKind};
use crate::calico::Pending;
use crate::error::{chain, Code, Failure};
use crate::task::channel::{LifeChannel, Order, Outcome};
use crate::task::health::{self, Checks};
use crate::task::network::ports::Keeper;
use crate::task::network::{Choice, Interface, Wired};
use crate::task::report::steps::Step;
use crate::task::request::Work;
use crate::task::work::gate_listener::Gate;
use crate::task::work::{Attached, End, Ready, SeenWorkload};
use crate::workload::Exit;

/// What a shell calls the end by SIGKILL.
const SIGKILLED: i64 = 137;

type Doing<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// One life's resources. Each is set by the job that makes it, and taken by the one that uses it up.
struct Driver {
    order: Arc<Order>,
    channel: LifeChannel,
    jobs: JoinSet<(Job, JobEnding)>,
    tasks: HashMap<Id, Job>,
    cancels: BTreeMap<Job, CancellationToken>,
    timers: BTreeMap<Timer, Instant>,
    /// What has happened and was not handled yet.
    events: VecDeque<LifeEvent>,
    admitted: Option<Arc<Admitted>>,
    /// The life before has left interface and addresses.
    again: bool,
    gate: Option<Arc<Gate>>,
    choice: Option<Choice>,
    interface: Option<Interface>,
    ready: Option<Arc<Ready>>,
    attached: Option<Box<Attached>>,
    wired: Option<Wired>,
    seen: SeenWorkload,
    failures: BTreeMap<Job, Failure>,
    /// The datastore's write whose answer is lost.
    lost: Option<Box<Pending>>,
    knocking: Option<Doing<Instant>>,
    knocked: Option<Instant>,
    launched: Instant,
    /// When the start was asked for.
    starting: Option<Instant>,
    opening: Option<Doing<()>>,
    passing: Option<Doing<()>>,
    checks: Option<Checks>,
    names: Names,
    leaving: Option<Leaving>,
    keeper: Option<Keeper>,
    asking: Option<Doing<()>>,
    until: Instant,
    dying: Option<Doing<bool>>,
    end: Option<End>,
    tearing: Option<Doing<LifeEnd>>,
    outcome: Arc<OnceLock<Outcome>>,
    over: Option<LifeEnd>,
}

/// Lives a task to its end.
pub(super) async fn drive(order: Arc<Order>, channel: LifeChannel) -> LifeEnd {
    let begin = State::begin(LifeKind::from(&order.description.task));
    Driver::new(order, channel).live(begin).await
}

/// Lives a container that is started again, with what its life before has left.
pub(super) async fn drive_again(admitted: Admitted, wired: Wired, channel: LifeChannel) -> LifeEnd {
    let mut driver = Driver::new(admitted.order.clone(), channel);
    (driver.admitted, driver.wired, driver.again) = (Some(Arc::new(admitted)), Some(wired), true);
    driver.live(State::begin(LifeKind::Again)).await
}

/// Lives a container that runs already to its end.
pub(super) async fn drive_on(admitted: Admitted, wired: Wired, channel: LifeChannel) -> LifeEnd {
    let mut driver = Driver::new(admitted.order.clone(), channel);
    if let Work::Foreign(container) = admitted.order.description.task.work() {
        let ready = Ready::adopted(container);
        driver.attached = ready
            .attach(driver.channel.others.over.clone(), &CancellationToken::new())
            .await
            .ok()
            .map(Box::new);
        driver.ready = Some(Arc::new(ready));
    }
    (driver.admitted, driver.wired) = (Some(Arc::new(admitted)), Some(wired));
    driver.live(State::adopt()).await
}

impl Driver {
    async fn live(mut self, (mut state, effects): (State, Vec<Effect>)) -> LifeEnd {
        self.follow(effects);
        loop {
            if let Some(over) = self.over.take() {
                return over;
            }
            let event = self.next().await;
            tracing::debug!("{event:?} while {:?}", state.phase());
            let effects = state.handle(Instant::now().into_std(), event);
            self.follow(effects);
        }
    }

    fn new(order: Arc<Order>, channel: LifeChannel) -> Self {
        Self {
            order,
            channel,
            jobs: JoinSet::new(),
            tasks: HashMap::new(),
            cancels: BTreeMap::new(),
            timers: BTreeMap::new(),
            events: VecDeque::new(),
            admitted: None,
            again: false,
            gate: None,
            choice: None,
            interface: None,
            ready: None,
            attached: None,
            wired: None,
            seen: SeenWorkload::default(),
            failures: BTreeMap::new(),
            lost: None,
            knocking: None,
            knocked: None,
            launched: Instant::now(),
            starting: None,
            opening: None,
            passing: None,
            checks: None,
            names: Names::default(),
            leaving: None,
            keeper: None,
            asking: None,
            until: Instant::now(),
            dying: None,
            end: None,
            tearing: None,
            outcome: Arc::new(OnceLock::new()),
            over: None,
        }
    }

    /// The next thing that happens.
    async fn next(&mut self) -> LifeEvent {
        if let Some(event) = self.events.pop_front() {
            return event;
        }
        loop {
            let due = self.timers.iter().min_by_key(|(_, at)| **at).map(|(timer, at)| (*timer, *at));
            let starts = self.attached.is_some() && self.end.is_none();
            tokio::select! {
                biased;
                end = exit(&mut self.attached), if starts => return self.ended(end),
                Some(kill) = self.channel.kills.recv() => return LifeEvent::Kill(kill),
                // What follows an open gate waits until that is done with.
                () = done(&mut self.opening), if self.opening.is_some() => self.opening = None,
                Some(ended) = self.jobs.join_next_with_id(), if self.opening.is_none() => {
                    if let Some(event) = self.job_ended(ended) {
                        return event;
                    }
                }
                at = done(&mut self.knocking), if self.knocking.is_some() => {
                    (self.knocking, self.knocked) = (None, Some(at));
                    return LifeEvent::Knocked;
                }
                () = done(&mut self.passing), if self.passing.is_some() && self.opening.is_none() => {
                    self.passing = None;
                    return LifeEvent::Passed;
                }
                verdict = verdict(&mut self.checks), if self.checks.is_some() => {
                    if let Some(registrar) = &self.names.registrar {
                        registrar.tell(verdict.healthy, &verdict.why);
                    }
                    return LifeEvent::Health { healthy: verdict.healthy, too_often: verdict.kill };
                }
                healthy = of_docker(&mut self.channel.others.health), if self.names.registrar.is_some() => {
                    let (registrar, verb) = (&self.names.registrar, if healthy { "succeeds" } else { "fails" });
                    if let Some(registrar) = registrar {
                        registrar.tell(healthy, &format!("the container's own health check {verb}"));
                    }
                    return LifeEvent::Health { healthy, too_often: false };
                }
                names = done(&mut self.leaving), if self.leaving.is_some() => {
                    (self.leaving, self.names) = (None, names);
                    return LifeEvent::Left;
                }
                () = done(&mut self.asking), if self.asking.is_some() => self.ask(Some(self.until)),
                gone = done(&mut self.dying), if self.dying.is_some() => {
                    self.dying = None;
                    if gone || self.order.description.task.calico().is_some() {
                        self.end = Some(Ok(Exit { code: SIGKILLED, oom_killed: None }));
                    }
                    return LifeEvent::Killed { gone };
                }
                over = done(&mut self.tearing), if self.tearing.is_some() => {
                    (self.tearing, self.over) = (None, Some(over));
                    return LifeEvent::TornDown;
                }
                timer = until(due) => {
                    self.timers.remove(&timer);
                    return LifeEvent::Due(timer);
                }
            }
        }
    }

    fn ended(&mut self, end: End) -> LifeEvent {
        let known = end.is_ok();
        self.end = Some(end);
        LifeEvent::Ended { known }
    }

    /// Keeps what a job has made, or why it has not.
    fn job_ended(&mut self, ended: Result<(Id, (Job, JobEnding)), JoinError>) -> Option<LifeEvent> {
        let (job, ending) = match ended {
            Ok((id, ended)) => {
                self.tasks.remove(&id);
                ended
            }
            Err(error) => {
                let message = format!("an internal error of the executor: {}", chain(&error));
                let job = self.tasks.remove(&error.id())?;
                (job, Err(Failure::new(Code::Internal, message).into()))
            }
        };
        let failure = match ending {
            Ok(made) => {
                self.keep(made);
                // The workload has started: if it came to the gate, it has passed it.
                let passed = job == Job::Start && self.gate.as_ref().is_some_and(|gate| gate.passed());
                if passed && self.passing.take().is_some() {
                    self.events.push_back(LifeEvent::Done(job));
                    return Some(LifeEvent::Passed);
                }
                return Some(LifeEvent::Done(job));
            }
            Err(Stopped::Cancelled) => return Some(LifeEvent::Cancelled(job)),
            Err(Stopped::Silent(failure)) => {
                self.failures.insert(job, failure);
                return Some(LifeEvent::Silent(job));
            }
            Err(Stopped::Lost(failure, pending)) => {
                self.lost = Some(pending);
                failure
            }
            Err(Stopped::Failed(failure)) => failure,
        };
        self.failures.insert(job, failure);
        Some(LifeEvent::Failed(job))
    }

    fn keep(&mut self, made: JobProduct) {
        match made {
            JobProduct::Nothing => {}
            JobProduct::Admitted(admitted) => {
                self.order = admitted.order.clone();
                self.admitted = Some(Arc::new(*admitted));
            }
            JobProduct::Gate(gate) => self.listen(Arc::new(gate)),
            JobProduct::Choice(choice) => self.choice = Some(*choice),
            JobProduct::Interface(interface) => self.interface = Some(interface),
            JobProduct::Ready(ready) => self.ready = Some(Arc::new(*ready)),
            JobProduct::Attached(attached) => self.attached = Some(attached),
            JobProduct::Wired(wired) => self.wired = Some(*wired),
            JobProduct::Seen(seen, process) => {
                self.seen = seen;
                if let Some(attached) = &mut self.attached {
                    attached.watch(process);
                }
            }
        }
    }

    fn listen(&mut self, gate: Arc<Gate>) {
        let (knock, pass, steps) = (gate.clone(), gate.clone(), self.steps());
        self.knocking = Some(Box::pin(async move {
            knock.knocked().await;
            let at = Instant::now();
            if let Some(steps) = steps {
                steps.pass(Step::Waiting).await;
            }
            at
        }));
        self.passing = Some(Box::pin(async move { pass.has_passed().await }));
        self.gate = Some(gate);
    }
}

async fn done<T>(doing: &mut Option<Doing<T>>) -> T {
    match doing {
        Some(doing) => doing.await,
        None => std::future::pending().await,
    }
}

/// The next change of Docker's own health check.
async fn of_docker(health: &mut Option<watch::Receiver<Option<bool>>>) -> bool {
    while let Some(receiver) = health {
        if receiver.changed().await.is_err() {
            break;
        }
        if let Some(healthy) = *receiver.borrow_and_update() {
            return healthy;
        }
    }
    std::future::pending().await
}

async fn exit(attached: &mut Option<Box<Attached>>) -> End {
    match attached {
        Some(attached) => attached.exit().await,
        None => std::future::pending().await,
    }
}

async fn verdict(checks: &mut Option<Checks>) -> health::CheckVerdict {
    match checks {
        Some(checks) => checks.verdict().await,
        None => std::future::pending().await,
    }
}

async fn until(due: Option<(Timer, Instant)>) -> Timer {
    match due {
        Some((timer, at)) => {
            sleep_until(at).await;
            timer
        }
        None => std::future::pending().await,
    }
}
