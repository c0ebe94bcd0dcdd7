//! The states of a life. They decide what happens next, and do nothing themselves.
//!
//! ```text
//!                     Kill, or a job fails
//!  Preparing ──────────────────────────────────► Settling ───────────────► TearingDown ──► Over
//!      │ every need of Start is met                ▲   │ it runs after all      ▲            ▲
//!      ▼              Kill, or a job fails         │   ▼                        │            │
//!  Starting ───────────────────────────────────────┘ Stopping ──────────────────┤            │
//!      │ started, and past the gate                    ▲                        │            │
//!      ▼              Kill                             │                        │            │
//!   Running ───────────────────────────────────────────┘                        │            │
//!      └── ends by itself ──────────────────────────────────────────────────────┘            │
//!                                          no record: nothing to take down ──────────────────┘
//! ```
//!
//! | from | to | because |
//! | --- | --- | --- |
//! | `Preparing` | `Starting` | the needs of `Start` or `Wire` are met |
//! | `Preparing` | `Settling` | a kill, or a job fails |
//! | `Starting` | `Running` | it is started, and past the gate |
//! | `Starting` | `Settling` | a kill, or a job fails |
//! | `Settling` | `Stopping` | it was killed, and runs after all |
//! | `Settling` | `TearingDown` | nothing is in flight |
//! | `Settling` | `Over` | there is no record: nothing was made |
//! | `Running` | `Stopping` | a kill |
//! | `Running` | `TearingDown` | it ends by itself; an adopted one is only held, and not taken down yet |
//! | `Stopping` | `TearingDown` | it ends, or does not answer |
//! | `TearingDown` | `Over` | the teardown is done, or takes too long |
//!
//! `Preparing` and `Starting` have no time limit of their own: each job has one, as [`crate::limits`] lists them, and a
//! kill ends them at any time; what others are to start is given up after [`Timer::Knock`]. `Running` lasts as long as the workload. All other phases end by time alone.
//!
//! Pure: time comes in with the event, and a state holds no resource. The driver carries out the effects and reports
//! what happens. Set-up is a set of jobs, each of which begins as soon as its needs are met; see [`needs`]. A job that
//! has begun is never dropped half done: it is cancelled, which lets it end at its next safe point, and `Settling`
//! waits for it; only `Look`, which makes nothing, is not waited for. What has not ended when [`Timer::Settle`] is due
//! continues without being waited for; the journal record then stays for a cleaner.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::event::{Effect, GateOrder, LifeEvent, LifeFate, Phase, Timer, Word};
use super::table::{needs, Job, LifeKind};
use crate::limits::{
    CONSUL_BEFORE_UPDATE, DOCKER_KILLED, KNOCK, START_WITHOUT_GATE, STOP_PATIENCE, TEARDOWN,
};
use crate::task::channel::Kill;
use crate::task::teardown::Workload;

/// One life, from one start to one end.
#[derive(Debug, Clone)]
pub struct State {
    kind: LifeKind,
    phase: Phase,
    /// Jobs that have begun and not ended.
    in_flight: BTreeSet<Job>,
    begun: BTreeSet<Job>,
    done: BTreeSet<Job>,
    /// Jobs that were not waited for to the end, or whose request was not answered.
    unheard: BTreeSet<Job>,
    knocked: bool,
    opened: bool,
    passed: bool,
    /// The start failed before the workload came to the gate, so that it is the cause.
    failed_before_gate: bool,
    fate: Option<LifeFate>,
    /// The shortest grace period of all kills.
    grace: Duration,
    /// The workload's end, which came while it was being looked at.
    ended: Option<bool>,
    /// Its process is being killed without Docker.
    dying: bool,
}

type Effects = Vec<Effect>;

impl State {
    /// The first jobs.
    pub fn begin(kind: LifeKind) -> (Self, Effects) {
        let mut state = Self {
            kind,
            phase: Phase::Preparing,
            in_flight: BTreeSet::new(),
            begun: BTreeSet::new(),
            // The record of the life before stands.
            done: BTreeSet::from_iter((kind == LifeKind::Again).then_some(Job::Record)),
            unheard: BTreeSet::new(),
            knocked: false,
            opened: false,
            passed: false,
            failed_before_gate: false,
            fate: None,
            grace: Duration::MAX,
            ended: None,
            dying: false,
        };
        let mut effects = Vec::new();
        state.begin_jobs(&mut effects);
        (state, effects)
    }

    /// A container of others that runs, whose owner before has ended: a life from there on.
    pub fn adopt() -> (Self, Effects) {
        let (mut state, _) = Self::begin(LifeKind::Adopted);
        let made = |job: &Job| needs(*job, LifeKind::Adopted).is_some() && *job != Job::Look;
        state.done = Job::ALL.into_iter().filter(made).collect();
        state.begun = state.done.clone();
        state.in_flight.clear();
        (state.knocked, state.opened, state.passed) = (true, true, true);
        let mut effects = Vec::new();
        state.begin_jobs(&mut effects);
        (state, effects)
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What has to be done about an event.
    pub fn handle(&mut self, now: Instant, event: LifeEvent) -> Effects {
        let mut effects = Vec::new();
        match event {
            LifeEvent::Kill(kill) => self.kill(now, kill, &mut effects),
            LifeEvent::Done(job) => {
                if self.ends(job) {
                    self.done.insert(job);
                    if job == Job::Look {
                        self.looked(&mut effects);
                    }
                }
            }
            LifeEvent::Failed(job) => self.failed(job, &mut effects),
            LifeEvent::Silent(job) => {
                self.unheard.insert(job);
                self.failed(job, &mut effects);
            }
            LifeEvent::Cancelled(job) => {
                self.ends(job);
            }
            LifeEvent::Knocked => {
                self.knocked = true;
                if self.kind.is_adopted() {
                    effects.push(Effect::Arm(Timer::Knock, KNOCK));
                }
            }
            LifeEvent::Passed => self.passed = true,
            LifeEvent::Ended { known } => self.workload_ended(known, &mut effects),
            LifeEvent::Health { healthy, too_often } => {
                if self.phase == Phase::Running {
                    effects.push(Effect::Tell(Word::Health { healthy, too_often }));
                }
            }
            LifeEvent::Left => self.left(now, &mut effects),
            LifeEvent::Killed { gone } => self.process_killed(now, gone, &mut effects),
            LifeEvent::Due(timer) => self.due(now, timer, &mut effects),
            LifeEvent::TornDown => self.finish(&mut effects),
        }
        self.advance(now, &mut effects);
        effects
    }

    /// Does what the present state allows.
    fn advance(&mut self, now: Instant, effects: &mut Effects) {
        if matches!(self.phase, Phase::Preparing | Phase::Starting) {
            if self.knocked && self.done.contains(&Job::Wire) && !self.opened {
                self.opened = true;
                effects.push(Effect::Gate(GateOrder::Open));
            }
            self.begin_jobs(effects);
        }
        if self.phase == Phase::Settling && self.in_flight.is_empty() {
            self.settled(now, effects);
        }
    }

    fn begin_jobs(&mut self, effects: &mut Effects) {
        for job in Job::ALL {
            let ready =
                needs(job, self.kind).is_some_and(|needs| needs.iter().all(|need| self.done.contains(need)));
            if !ready || self.begun.contains(&job) {
                continue;
            }
            if job == Job::Look {
                if self.kind.is_networked() && !self.passed {
                    if !self.kind.is_adopted() {
                        // Everything is done, and the gate was not asked.
                        return self.give_up(LifeFate::NoGate, DOCKER_KILLED, effects);
                    }
                    continue;
                }
                self.phase = Phase::Running;
                if self.kind.is_networked() {
                    effects.push(Effect::Serve);
                }
            } else if self.phase == Phase::Preparing && matches!(job, Job::Start | Job::Wire) {
                self.phase = Phase::Starting;
                if self.kind.is_adopted() {
                    effects.push(Effect::Tell(Word::Prepared));
                    effects.push(Effect::Arm(Timer::Knock, KNOCK));
                }
            }
            self.begun.insert(job);
            self.in_flight.insert(job);
            effects.push(Effect::Begin(job));
        }
    }

    /// False when it is not waited for: what goes on unwatched changes nothing any more.
    fn ends(&mut self, job: Job) -> bool {
        self.in_flight.remove(&job)
    }

    fn failed(&mut self, job: Job, effects: &mut Effects) {
        if !self.ends(job) {
            return;
        }
        match self.phase {
            Phase::Preparing => self.give_up(LifeFate::Failed(job), DOCKER_KILLED, effects),
            Phase::Starting => {
                self.failed_before_gate =
                    job == Job::Start && !self.knocked && self.in_flight.contains(&Job::Wire);
                // What calico-runc may wait for at the gate is known with the configuration; this is for a start that
                // fails.
                self.give_up(LifeFate::Failed(job), START_WITHOUT_GATE, effects);
            }
            // A runtime that waits too long at the gate fails the start, but the network was the cause.
            Phase::Settling
                if job == Job::Wire
                    && self.fate == Some(LifeFate::Failed(Job::Start))
                    && !self.failed_before_gate =>
            {
                self.fate = Some(LifeFate::Failed(job));
            }
            // A task runs as well without having been looked at.
            Phase::Running if job == Job::Look => self.looked(effects),
            _ => {}
        }
    }

    /// It will not run: what is in flight is cancelled and waited for.
    fn give_up(&mut self, fate: LifeFate, limit: Duration, effects: &mut Effects) {
        self.fate = Some(fate);
        self.phase = Phase::Settling;
        self.refuse(effects);
        effects.extend(self.in_flight.iter().map(|job| Effect::Cancel(*job)));
        effects.push(Effect::Arm(Timer::Settle, limit));
    }

    /// Before any call to Docker, which blocks while a start waits at the gate.
    fn refuse(&self, effects: &mut Effects) {
        if self.done.contains(&Job::Listen) {
            effects.push(Effect::Gate(GateOrder::Refuse));
        }
    }

    fn kill(&mut self, now: Instant, kill: Kill, effects: &mut Effects) {
        self.grace = self.grace.min(kill.grace);
        let announce = kill.announce.then_some(Effect::Tell(Word::Killing));
        match self.phase {
            Phase::Preparing | Phase::Starting => {
                effects.extend(announce);
                self.give_up(LifeFate::Killed(kill.cause), DOCKER_KILLED, effects);
            }
            Phase::Running => {
                effects.extend(announce);
                self.fate = Some(LifeFate::Killed(kill.cause));
                self.cancel_look(effects);
                match self.ended {
                    Some(known) => self.tear_down(ended(known), effects),
                    None => self.stop(now, effects),
                }
            }
            Phase::Stopping { until: Some(until) } => {
                let sooner = now + kill.grace;
                if sooner < until {
                    self.phase = Phase::Stopping { until: Some(sooner) };
                    effects.push(Effect::Arm(Timer::Grace, kill.grace));
                    effects.push(Effect::Arm(Timer::Patience, kill.grace + STOP_PATIENCE));
                }
            }
            // A failure stands, but what is in flight is not waited for longer than for a killed task.
            Phase::Settling if !matches!(self.fate, Some(LifeFate::Killed(_))) => {
                effects.push(Effect::Arm(Timer::Settle, DOCKER_KILLED));
            }
            _ => {}
        }
    }

    fn cancel_look(&mut self, effects: &mut Effects) {
        if self.in_flight.remove(&Job::Look) {
            effects.push(Effect::Cancel(Job::Look));
        }
    }

    /// The workload runs and has to end. Consul comes first: it must send no client to a task that is being stopped.
    fn stop(&mut self, now: Instant, effects: &mut Effects) {
        if self.kind.is_networked() {
            self.phase = Phase::Stopping { until: None };
            effects.push(Effect::Leave);
            effects.push(Effect::Arm(Timer::Leave, CONSUL_BEFORE_UPDATE));
        } else {
            self.ask(now, effects);
        }
    }

    /// A Consul that is slow takes nothing from the task's grace period.
    fn left(&mut self, now: Instant, effects: &mut Effects) {
        if self.phase == (Phase::Stopping { until: None }) {
            self.ask(now, effects);
        }
    }

    fn ask(&mut self, now: Instant, effects: &mut Effects) {
        let until = now + self.grace;
        self.phase = Phase::Stopping { until: Some(until) };
        effects.push(Effect::AskToStop(until));
        if self.kind.ends_grace_itself() {
            effects.push(Effect::Arm(Timer::Grace, self.grace));
        }
        effects.push(Effect::Arm(Timer::Patience, self.grace + STOP_PATIENCE));
    }

    fn process_killed(&mut self, now: Instant, gone: bool, effects: &mut Effects) {
        if !matches!(self.phase, Phase::Stopping { .. }) {
            return;
        }
        if gone || self.kind.is_networked() {
            // Where the process is not known, the teardown kills what lives in the namespace.
            return self.tear_down(Workload::Unconfirmed, effects);
        }
        self.dying = false;
        self.phase = Phase::Stopping { until: Some(now) };
        effects.push(Effect::AskToStop(now));
        effects.push(Effect::Arm(Timer::Patience, STOP_PATIENCE));
    }

    fn workload_ended(&mut self, known: bool, effects: &mut Effects) {
        match self.phase {
            // It ran, if only for a moment: that is reported first.
            Phase::Running if self.in_flight.contains(&Job::Look) => self.ended = Some(known),
            Phase::Running => self.ends_by_itself(known, effects),
            Phase::Stopping { .. } => self.tear_down(ended(known), effects),
            // Others have started it and ended it, before it came to the gate.
            Phase::Preparing | Phase::Starting => self.give_up(LifeFate::Ended, DOCKER_KILLED, effects),
            Phase::Settling | Phase::TearingDown | Phase::Over => {}
        }
    }

    fn looked(&mut self, effects: &mut Effects) {
        effects.push(Effect::Tell(Word::Running));
        if let Some(known) = self.ended {
            self.ends_by_itself(known, effects);
        }
    }

    /// What others started they may start again.
    fn ends_by_itself(&mut self, known: bool, effects: &mut Effects) {
        self.fate = Some(LifeFate::Ended);
        if !self.kind.is_adopted() {
            return self.tear_down(ended(known), effects);
        }
        self.refuse(effects);
        self.phase = Phase::TearingDown;
        effects.push(Effect::Hold);
        effects.push(Effect::Arm(Timer::TearDown, TEARDOWN));
    }

    fn due(&mut self, now: Instant, timer: Timer, effects: &mut Effects) {
        match (self.phase, timer) {
            (Phase::Settling, Timer::Settle) => self.unheard.append(&mut self.in_flight),
            (Phase::Stopping { until: None }, Timer::Leave) => self.ask(now, effects),
            (Phase::Stopping { until: Some(_) }, Timer::Grace) => effects.push(Effect::KillNow),
            (Phase::Stopping { .. }, Timer::Patience) if self.dying => {
                self.tear_down(Workload::Unconfirmed, effects);
            }
            (Phase::Stopping { until: Some(_) }, Timer::Patience) => {
                self.dying = true;
                effects.push(Effect::KillProcess);
                effects.push(Effect::Arm(Timer::Patience, STOP_PATIENCE));
            }
            (Phase::TearingDown, Timer::TearDown) => self.finish(effects),
            // By then a start has come to the gate, or has failed before it.
            (Phase::Preparing | Phase::Starting, Timer::Knock) => {
                self.give_up(LifeFate::NotStarted, DOCKER_KILLED, effects);
            }
            _ => {}
        }
    }

    /// Nothing is in flight any more. A kill may have come when the workload had passed the gate.
    fn settled(&mut self, now: Instant, effects: &mut Effects) {
        let started = self.done.contains(&Job::Start);
        let runs = match self.kind {
            LifeKind::PlainContainer | LifeKind::PlainCommand => started,
            LifeKind::CalicoContainer | LifeKind::CalicoCommand => started && self.passed,
            LifeKind::Adopted | LifeKind::Again => self.passed,
        };
        match self.fate {
            Some(LifeFate::Killed(_)) if runs => self.stop(now, effects),
            _ if self.unheard.iter().any(|job| job.may_come_late()) => {
                self.tear_down(Workload::Unheard, effects);
            }
            _ => self.tear_down(Workload::NeverStarted, effects),
        }
    }

    fn tear_down(&mut self, workload: Workload, effects: &mut Effects) {
        if self.kind.is_networked() && !self.done.contains(&Job::Record) {
            return self.finish(effects);
        }
        self.refuse(effects);
        self.phase = Phase::TearingDown;
        let claimed = self.kind == LifeKind::Again || self.begun.contains(&Job::Wire);
        let fate = self.fate.unwrap_or(LifeFate::Ended);
        effects.push(Effect::TearDown { workload, claimed, fate });
        effects.push(Effect::Arm(Timer::TearDown, TEARDOWN));
    }

    fn finish(&mut self, effects: &mut Effects) {
        if self.phase != Phase::Over {
            self.phase = Phase::Over;
            effects.push(Effect::Finish(self.fate.unwrap_or(LifeFate::Ended)));
        }
    }
}

/// What the teardown needs about a workload that is over.
fn ended(known: bool) -> Workload {
    if known {
        Workload::Exited
    } else {
        Workload::Unconfirmed
    }
}
