//! The properties of a life, over any order of events.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::event::*;
use super::state::State;
use super::table::*;
use crate::limits::{DOCKER_KILLED, START_WITHOUT_GATE};
use crate::task::channel::{Cause, Kill};
use crate::task::teardown::Workload;

const KINDS: [LifeKind; 6] = [
    LifeKind::PlainContainer,
    LifeKind::PlainCommand,
    LifeKind::CalicoContainer,
    LifeKind::CalicoCommand,
    LifeKind::Adopted,
    LifeKind::Again,
];

fn kill(grace: u64) -> LifeEvent {
    LifeEvent::Kill(Kill { grace: Duration::from_secs(grace), announce: true, cause: Cause::Asked })
}

/// A phase's name, as the documentation writes it.
fn name(phase: Phase) -> String {
    format!("{phase:?}").split(' ').next().unwrap_or_default().to_owned()
}

/// A world that answers only what it was asked, and holds a life to what it promises.
struct World {
    kind: LifeKind,
    state: State,
    now: Instant,
    in_flight: BTreeSet<Job>,
    done: BTreeSet<Job>,
    /// Jobs that the life has given up waiting for.
    unwatched: bool,
    /// Jobs whose request was not answered, or that were not waited for.
    unheard: BTreeSet<Job>,
    knocked: bool,
    gate: Option<GateOrder>,
    passed: bool,
    killed: bool,
    told: Vec<Word>,
    timers: BTreeSet<Timer>,
    torn: usize,
    finished: usize,
    moves: Vec<(String, String)>,
    all: Vec<Effect>,
}

impl World {
    fn new(kind: LifeKind) -> Self {
        let (state, effects) = State::begin(kind);
        let mut world = Self {
            kind,
            state,
            now: Instant::now(),
            in_flight: BTreeSet::new(),
            done: BTreeSet::from_iter((kind == LifeKind::Again).then_some(Job::Record)),
            unwatched: false,
            unheard: BTreeSet::new(),
            knocked: false,
            gate: None,
            passed: false,
            killed: false,
            told: Vec::new(),
            timers: BTreeSet::new(),
            torn: 0,
            finished: 0,
            moves: Vec::new(),
            all: Vec::new(),
        };
        world.hold(effects);
        world
    }

    fn handle(&mut self, event: LifeEvent) {
        self.now += Duration::from_millis(10);
        match &event {
            LifeEvent::Kill(_) => self.killed = true,
            LifeEvent::Done(job)
            | LifeEvent::Failed(job)
            | LifeEvent::Silent(job)
            | LifeEvent::Cancelled(job) => {
                let waited_for = self.in_flight.remove(job) && !self.unwatched;
                if waited_for && event == LifeEvent::Done(*job) {
                    self.done.insert(*job);
                }
                if event == LifeEvent::Silent(*job) {
                    self.unheard.insert(*job);
                }
            }
            LifeEvent::Knocked => self.knocked = true,
            LifeEvent::Passed => self.passed = true,
            LifeEvent::Due(timer) => {
                self.timers.remove(timer);
                if self.state.phase() == Phase::Settling && *timer == Timer::Settle {
                    self.unwatched = true;
                    self.unheard.extend(&self.in_flight);
                }
            }
            _ => {}
        }
        let before = self.state.phase();
        let effects = self.state.handle(self.now, event);
        let after = self.state.phase();
        let step = (name(before), name(after));
        if step.0 != step.1 {
            self.moves.push(step);
        }
        if matches!(before, Phase::Preparing | Phase::Starting)
            && !matches!(after, Phase::Preparing | Phase::Starting | Phase::Running)
        {
            self.gives_up(&effects);
        }
        self.hold(effects);
    }

    /// The gate is refused before anything is waited for, and no job in flight is forgotten.
    fn gives_up(&self, effects: &[Effect]) {
        let refused = effects.iter().position(|effect| *effect == Effect::Gate(GateOrder::Refuse));
        let waits =
            |effect: &Effect| matches!(effect, Effect::Arm(..) | Effect::TearDown { .. } | Effect::Hold);
        if self.done.contains(&Job::Listen) {
            assert!(refused < effects.iter().position(waits) && refused.is_some(), "{effects:?}");
        }
        for job in &self.in_flight {
            assert!(effects.contains(&Effect::Cancel(*job)), "{job:?} is not cancelled: {effects:?}");
        }
    }

    /// Each effect keeps the promises.
    fn hold(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match &effect {
                Effect::Begin(job) => {
                    assert!(!self.killed, "{job:?} begins after a kill");
                    assert!(self.in_flight.insert(*job), "{job:?} begins twice");
                    assert_eq!(self.torn, 0, "{job:?} begins in a teardown");
                }
                Effect::Gate(GateOrder::Open) => {
                    assert!(self.knocked && self.gate.is_none() && !self.killed);
                    assert!(self.done.contains(&Job::Wire), "the gate opens before the network is there");
                    self.gate = Some(GateOrder::Open);
                }
                Effect::Gate(GateOrder::Refuse) => self.gate = Some(GateOrder::Refuse),
                Effect::Tell(word) => {
                    if *word == Word::Running {
                        assert!(!self.told.contains(&Word::Running), "RUNNING twice");
                        assert!(!self.told.contains(&Word::Killing), "RUNNING after KILLING");
                    }
                    self.told.push(*word);
                }
                Effect::TearDown { workload, .. } => {
                    let runs: Vec<_> = self.in_flight.iter().filter(|job| **job != Job::Look).collect();
                    assert!(runs.is_empty() || self.unwatched, "a teardown while {runs:?} run");
                    if self.kind.is_networked() {
                        assert!(self.done.contains(&Job::Record), "a teardown without a record");
                        let refused = self.gate == Some(GateOrder::Refuse);
                        assert!(
                            refused || !self.done.contains(&Job::Listen),
                            "a teardown before the gate is refused"
                        );
                    }
                    let late = self.unheard.iter().any(|job| job.may_come_late());
                    match workload {
                        Workload::Unheard => assert!(late, "nothing can come late"),
                        Workload::NeverStarted => assert!(!late, "{:?} may come late", self.unheard),
                        _ => {}
                    }
                    self.torn += 1;
                }
                Effect::Hold => {
                    assert!(self.kind.is_adopted() && self.passed && !self.killed);
                    assert_eq!(self.gate, Some(GateOrder::Refuse), "what is held could be started");
                    self.torn += 1;
                }
                Effect::Finish(_) => {
                    self.finished += 1;
                    assert_eq!(self.state.phase(), Phase::Over);
                    let recorded = !self.kind.is_networked() || self.done.contains(&Job::Record);
                    assert!(self.torn == 1 || !recorded, "an end without a teardown");
                }
                Effect::Arm(timer, _) => {
                    self.timers.insert(*timer);
                }
                _ => {}
            }
            self.all.push(effect);
        }
        assert!(self.torn <= 1 && self.finished <= 1);
    }

    /// What happens next by a choice: most choices take what brings a life on, so that most lives come to run.
    fn next(&self, (straight, which): &Choice) -> LifeEvent {
        let brings_on = |event: &LifeEvent| match event {
            LifeEvent::Done(Job::Start) => self.passed || !self.kind.is_networked(),
            LifeEvent::Done(_) | LifeEvent::Knocked | LifeEvent::Passed => true,
            _ => false,
        };
        let possible = self.possible();
        let onward: Vec<_> = possible.iter().filter(|event| *straight && brings_on(event)).collect();
        match onward.is_empty() {
            true => which.get(&possible).clone(),
            false => (*which.get(&onward)).clone(),
        }
    }

    /// What can happen next; the runtime goes through a gate only when it is open.
    fn possible(&self) -> Vec<LifeEvent> {
        let mut events = vec![kill(0), kill(30)];
        for job in &self.in_flight {
            let by_itself = [LifeEvent::Done(*job), LifeEvent::Failed(*job), LifeEvent::Silent(*job)];
            // A start that waits at the gate ends with the gate's word.
            let waits = *job == Job::Start && self.knocked && self.gate.is_none();
            events.extend(by_itself.into_iter().skip(usize::from(waits)));
            if self.all.contains(&Effect::Cancel(*job)) {
                events.push(LifeEvent::Cancelled(*job));
            }
        }
        let starts = match self.kind {
            LifeKind::Adopted | LifeKind::Again => self.told.contains(&Word::Prepared),
            _ => self.in_flight.contains(&Job::Start),
        };
        if self.kind.is_networked() && starts && !self.knocked {
            events.push(LifeEvent::Knocked);
        }
        if self.gate == Some(GateOrder::Open) && !self.passed {
            events.push(LifeEvent::Passed);
        }
        if matches!(self.state.phase(), Phase::Running | Phase::Stopping { .. }) {
            events.extend([LifeEvent::Ended { known: true }, LifeEvent::Ended { known: false }]);
            events.push(LifeEvent::Health { healthy: true, too_often: false });
        }
        if self.all.contains(&Effect::Leave) {
            events.push(LifeEvent::Left);
        }
        if self.all.contains(&Effect::KillProcess) {
            events.extend([LifeEvent::Killed { gone: true }, LifeEvent::Killed { gone: false }]);
        }
        if self.torn > 0 {
            events.push(LifeEvent::TornDown);
        }
        events.extend(self.timers.iter().map(|timer| LifeEvent::Due(*timer)));
        events
    }

    fn is_over(&self) -> bool {
        self.state.phase() == Phase::Over
    }

    /// Nothing answers any more: only time passes.
    fn only_time_passes(&mut self) {
        for _ in 0..50 {
            if self.is_over() {
                return;
            }
            let timer = *self.timers.iter().next().expect("nothing will ever happen again");
            self.handle(LifeEvent::Due(timer));
        }
        panic!("no end in {:?}", self.state.phase());
    }
}

/// A life that goes as the choices say. From wherever it has come to, time alone brings it to its end, once; a set-up,
/// whose jobs have limits of their own, by a kill.
fn lived(kind: LifeKind, choices: &[Choice]) -> World {
    let mut world = World::new(kind);
    for choice in choices {
        let event = world.next(choice);
        world.handle(event);
    }
    if matches!(world.state.phase(), Phase::Preparing | Phase::Starting | Phase::Running) {
        world.handle(kill(5));
    }
    world.only_time_passes();
    assert_eq!(world.finished, 1);
    let effects = world.state.handle(world.now, kill(0));
    assert!(effects.is_empty(), "after the end: {effects:?}");
    world
}

/// Whether the life goes on if it can, and which of the events that are possible then.
type Choice = (bool, prop::sample::Index);

/// Lives that go on as well as they can, and lives in which anything happens.
fn choices() -> impl Strategy<Value = Vec<Choice>> {
    let choice = |straight| (prop::bool::weighted(straight), any::<prop::sample::Index>());
    prop_oneof![prop::collection::vec(choice(0.97), 1..60), prop::collection::vec(choice(0.3), 1..60)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn promises_hold_in_any_order(kind in prop::sample::select(&KINDS), choices in choices()) {
        lived(kind, &choices);
    }
}

/// The moves in the table of the module's documentation are those that lives make, one event at a time or several at
/// once, and each is made often.
#[test]
fn lives_move_as_the_table_says() {
    let table = include_str!("state.rs").lines().skip_while(|line| !line.starts_with("//! | from"));
    let rows = table.skip(2).take_while(|line| line.starts_with("//! |"));
    let moves: BTreeSet<(String, String)> = rows
        .map(|row| {
            let mut cells = row.split('|').skip(1).map(|cell| cell.trim().trim_matches('`').to_owned());
            (cells.next().unwrap(), cells.next().unwrap())
        })
        .collect();
    let mut reachable = moves.clone();
    for _ in 0..7 {
        let further: Vec<_> = reachable
            .iter()
            .flat_map(|(from, over)| {
                let next = moves.iter().filter(move |(second, _)| second == over);
                next.map(move |(_, to)| (from.clone(), to.clone()))
            })
            .collect();
        reachable.extend(further);
    }
    let mut made: BTreeMap<(String, String), usize> = BTreeMap::new();
    for kind in KINDS {
        let mut runner = TestRunner::deterministic();
        let mut runs = 0;
        for _ in 0..500 {
            let choices = choices().new_tree(&mut runner).unwrap().current();
            for step in lived(kind, &choices).moves {
                assert!(reachable.contains(&step), "{kind:?}: {step:?} is not in the table");
                runs += usize::from(step.1 == "Running");
                *made.entry(step).or_default() += 1;
            }
        }
        assert!(runs >= 100, "only {runs} of 500 lives run: {kind:?}");
    }
    for step in moves {
        let often = made.get(&step).copied().unwrap_or_default();
        assert!(often >= 10, "{step:?} was made {often} times");
    }
}

#[test]
fn a_kill_shortens_the_wait_for_a_failed_start() {
    let mut world = at(LifeKind::CalicoContainer, Phase::Starting);
    world.handle(LifeEvent::Failed(Job::Wire));
    assert_eq!(world.all.last(), Some(&Effect::Arm(Timer::Settle, START_WITHOUT_GATE)));
    world.handle(kill(5));
    assert_eq!(world.all.last(), Some(&Effect::Arm(Timer::Settle, DOCKER_KILLED)));
}

/// What a world does in which everything goes well, up to the phase that is asked for.
fn at(kind: LifeKind, phase: Phase) -> World {
    let mut world = World::new(kind);
    for _ in 0..40 {
        if world.state.phase() == phase && !world.in_flight.contains(&Job::Look) {
            return world;
        }
        let waits = kind.is_networked() && !world.passed;
        let next = world.possible().into_iter().find(|event| match event {
            LifeEvent::Done(Job::Start) => !waits,
            LifeEvent::Done(_) | LifeEvent::Passed => true,
            LifeEvent::Knocked => phase != Phase::Starting,
            _ => false,
        });
        world.handle(next.expect("it goes no further"));
    }
    panic!("{phase:?} is never reached");
}

#[test]
fn every_kind_runs_and_ends() {
    for kind in KINDS {
        let mut world = at(kind, Phase::Running);
        assert!(world.told.contains(&Word::Running), "{kind:?}");
        let jobs = Job::ALL.into_iter().filter(|job| needs(*job, kind).is_some());
        assert!(jobs.into_iter().all(|job| world.all.contains(&Effect::Begin(job))), "{kind:?}");
        world.handle(LifeEvent::Ended { known: true });
        let fate = LifeFate::Ended;
        let taken_down = Effect::TearDown { workload: Workload::Exited, claimed: kind.is_networked(), fate };
        assert!(world.all.contains(if kind.is_adopted() { &Effect::Hold } else { &taken_down }));
        world.handle(LifeEvent::TornDown);
        assert_eq!(world.all.last(), Some(&Effect::Finish(fate)), "{kind:?}");
    }
}

#[test]
fn a_kill_during_the_start_never_tells_that_it_runs() {
    for kind in [LifeKind::PlainContainer, LifeKind::CalicoContainer] {
        let mut world = World::new(kind);
        while !world.in_flight.contains(&Job::Start) {
            let job = *world.in_flight.iter().next().unwrap();
            world.handle(LifeEvent::Done(job));
        }
        if kind == LifeKind::CalicoContainer {
            world.handle(LifeEvent::Done(Job::Wire));
            world.handle(LifeEvent::Knocked);
            world.handle(LifeEvent::Passed);
        }
        world.handle(kill(7));
        assert_eq!(world.state.phase(), Phase::Settling);
        // It was started all the same: it gets its grace period.
        world.handle(LifeEvent::Done(Job::Start));
        assert!(matches!(world.state.phase(), Phase::Stopping { .. }), "{kind:?}");
        world.handle(LifeEvent::Ended { known: true });
        world.handle(LifeEvent::TornDown);
        assert_eq!(world.told.iter().filter(|word| **word == Word::Running).count(), 0);
        assert_eq!(world.all.last(), Some(&Effect::Finish(LifeFate::Killed(Cause::Asked))));
    }
}

#[test]
fn the_first_cause_is_told() {
    let failed = |events: &[LifeEvent]| {
        let mut world = at(LifeKind::CalicoContainer, Phase::Starting);
        for event in events {
            world.handle(event.clone());
        }
        world.all.iter().find_map(|effect| match effect {
            Effect::TearDown { fate, .. } => Some(*fate),
            _ => None,
        })
    };
    let (start, wire) = (LifeEvent::Failed(Job::Start), LifeEvent::Failed(Job::Wire));
    // The runtime gave up at the gate, because the network never came.
    let late = [LifeEvent::Knocked, start.clone(), wire.clone()];
    assert_eq!(failed(&late), Some(LifeFate::Failed(Job::Wire)));
    // What the network makes of being given up is no cause.
    assert_eq!(failed(&[start.clone(), wire.clone()]), Some(LifeFate::Failed(Job::Start)));
    assert_eq!(failed(&[wire, start.clone()]), Some(LifeFate::Failed(Job::Wire)));
    assert_eq!(
        failed(&[LifeEvent::Knocked, start, LifeEvent::Cancelled(Job::Wire)]),
        Some(LifeFate::Failed(Job::Start))
    );
    // Everything went well, but by another runtime.
    assert_eq!(failed(&[LifeEvent::Done(Job::Wire), LifeEvent::Done(Job::Start)]), Some(LifeFate::NoGate));
}

#[test]
fn a_later_kill_only_shortens_the_grace_period() {
    let mut world = at(LifeKind::PlainContainer, Phase::Running);
    world.handle(kill(60));
    let Phase::Stopping { until: Some(first) } = world.state.phase() else { panic!() };
    world.handle(kill(90));
    assert_eq!(world.state.phase(), Phase::Stopping { until: Some(first) });
    world.handle(kill(1));
    assert!(matches!(world.state.phase(), Phase::Stopping { until: Some(until) } if until < first));
    world.handle(LifeEvent::Due(Timer::Grace));
    assert_eq!(world.all.last(), Some(&Effect::KillNow));
}

#[test]
fn consul_takes_nothing_from_the_grace_period() {
    let mut world = at(LifeKind::CalicoContainer, Phase::Running);
    world.handle(kill(60));
    assert_eq!(world.state.phase(), Phase::Stopping { until: None });
    world.now += Duration::from_secs(1);
    world.handle(LifeEvent::Due(Timer::Leave));
    let until = world.now + Duration::from_secs(60);
    assert_eq!(world.state.phase(), Phase::Stopping { until: Some(until) });
}

#[test]
fn only_a_commands_grace_period_is_ended_here() {
    for kind in KINDS {
        let mut world = at(kind, Phase::Running);
        world.handle(kill(60));
        world.handle(LifeEvent::Left);
        let armed = world.all.iter().any(|effect| matches!(effect, Effect::Arm(Timer::Grace, _)));
        let command = matches!(kind, LifeKind::PlainCommand | LifeKind::CalicoCommand);
        assert_eq!(armed, command, "{kind:?}");
    }
}

/// The drawing in the module's documentation has the phases that there are, and they are reached.
#[test]
fn the_drawing_shows_the_phases() {
    let drawing = include_str!("state.rs").split("```").nth(1).unwrap();
    let body =
        include_str!("event.rs").split("pub enum Phase {").nth(1).unwrap().split("\n}").next().unwrap();
    let phases: Vec<&str> = body
        .lines()
        .filter_map(|line| line.strip_prefix("    ").filter(|line| line.starts_with(char::is_uppercase)))
        .map(|line| line.split(|c: char| !c.is_alphabetic()).next().unwrap())
        .collect();
    assert_eq!(phases.len(), 7);
    for phase in phases {
        assert!(drawing.contains(phase), "{phase} is not drawn");
    }
}

mod adopted;
