//! The protocol's rules, one by one and for whatever order things happen in.

use proptest::prelude::*;
use prost::Message as _;
use uuid::Uuid;

use super::*;
use crate::mesos::messages::{TaskId, TaskInfo, TaskState};

fn upid(text: &str) -> Upid {
    text.parse().unwrap()
}

fn state(checkpoint: bool) -> DriverState {
    let identity = ActorIdentity {
        framework_id: "f".into(),
        executor_id: "e".into(),
        slave_id: "s".into(),
        pid: upid("executor(1)@127.0.0.1:2"),
    };
    DriverState::new(identity, checkpoint)
}

fn message<M: Wire>(message: &M) -> DriverInput {
    let from = Some(upid("slave(1)@127.0.0.1:1"));
    DriverInput::Message(Incoming { from, name: M::NAME.to_owned(), body: message.encode_to_vec() })
}

fn registered(checkpoint: bool) -> DriverState {
    let mut state = state(checkpoint);
    state.handle(message(&ExecutorRegisteredMessage::default()));
    state
}

fn run(id: &str) -> DriverInput {
    let task = TaskInfo { task_id: id.into(), ..TaskInfo::default() };
    message(&RunTaskMessage { task, ..RunTaskMessage::default() })
}

fn update(task: &str, state: TaskState, number: u128) -> DriverInput {
    let uuid = Some(Uuid::from_u128(number).as_bytes().to_vec());
    DriverInput::Update(Box::new(TaskStatus { uuid, ..TaskStatus::new(task, state) }))
}

fn acknowledge(task: &str, number: u128) -> DriverInput {
    message(&StatusUpdateAcknowledgementMessage {
        task_id: TaskId { value: task.into() },
        uuid: Uuid::from_u128(number).as_bytes().to_vec(),
        ..StatusUpdateAcknowledgementMessage::default()
    })
}

fn reregistration(effects: &[DriverEffect]) -> ReregisterExecutorMessage {
    let body = effects.iter().find_map(|effect| match effect {
        DriverEffect::Send { name, body } if *name == ReregisterExecutorMessage::NAME => Some(body),
        _ => None,
    });
    ReregisterExecutorMessage::decode(body.unwrap().as_slice()).unwrap()
}

fn shutdowns(effects: &[DriverEffect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, DriverEffect::Emit(Event::Shutdown { .. }))).count()
}

#[test]
fn a_task_leaves_the_list_on_its_first_acknowledgement() {
    let mut state = registered(true);
    state.handle(run("t"));
    state.handle(update("t", TaskState::TaskStarting, 1));
    state.handle(update("t", TaskState::TaskRunning, 2));
    let again = reregistration(&state.handle(message(&ReconnectExecutorMessage::default())));
    assert_eq!((again.tasks.len(), again.updates.len()), (1, 2));
    state.handle(acknowledge("t", 1));
    let again = reregistration(&state.handle(message(&ReconnectExecutorMessage::default())));
    assert_eq!((again.tasks.len(), again.updates.len()), (0, 1));
    assert_eq!((again.executor_id.value.as_str(), again.framework_id.value.as_str()), ("e", "f"));
}

#[test]
fn an_unexpected_acknowledgement_is_no_event() {
    let mut state = registered(true);
    assert_eq!(state.handle(acknowledge("t", 9)), []);
}

#[test]
fn the_end_of_the_link_starts_recovery_only_with_checkpoints() {
    assert_eq!(registered(true).handle(DriverInput::LinkEnded), [DriverEffect::StartTimer]);
    assert_eq!(shutdowns(&registered(false).handle(DriverInput::LinkEnded)), 1);
    assert_eq!(shutdowns(&state(true).handle(DriverInput::LinkEnded)), 1);
}

#[test]
fn the_recovery_timeout_counts_from_the_first_loss() {
    let mut state = registered(true);
    state.handle(DriverInput::LinkEnded);
    state.handle(message(&ReconnectExecutorMessage::default()));
    // The agent dies again before it has answered.
    assert_eq!(state.handle(DriverInput::LinkEnded), []);
    assert_eq!(shutdowns(&state.handle(DriverInput::RecoveryTimeout)), 1);
    assert_eq!(state.handle(DriverInput::RecoveryTimeout), []);
}

#[test]
fn a_recovery_timeout_after_the_reconnection_is_ignored() {
    let mut state = registered(true);
    state.handle(DriverInput::LinkEnded);
    state.handle(message(&ReconnectExecutorMessage::default()));
    let effects = state.handle(message(&ExecutorReregisteredMessage::default()));
    assert_eq!(effects, [DriverEffect::StopTimer, DriverEffect::Emit(Event::Reregistered)]);
    assert_eq!(state.handle(DriverInput::RecoveryTimeout), []);
}

#[test]
fn the_driver_is_drained_when_every_update_is_acknowledged() {
    let mut state = registered(false);
    assert_eq!(state.drained(), Some(true));
    state.handle(update("t", TaskState::TaskFinished, 1));
    assert_eq!(state.drained(), None);
    state.handle(DriverInput::LinkEnded);
    assert_eq!(state.drained(), Some(false));
    state.handle(acknowledge("t", 1));
    assert_eq!(state.drained(), Some(true));
}

#[test]
fn tasks_before_the_registration_and_twice() {
    let mut early = state(true);
    assert!(matches!(&early.handle(run("t"))[..], [DriverEffect::Emit(Event::Malformed { .. })]));
    let mut state = registered(true);
    assert!(matches!(&state.handle(run("t"))[..], [DriverEffect::Emit(Event::Launch(_))]));
    assert!(matches!(&state.handle(run("t"))[..], [DriverEffect::Emit(Event::Malformed { .. })]));
    assert!(matches!(&state.handle(run("u"))[..], [DriverEffect::Emit(Event::Launch(_))]));
    let again = state.handle(message(&ExecutorRegisteredMessage::default()));
    assert!(matches!(&again[..], [DriverEffect::Emit(Event::Malformed { .. })]));
}

/// Anything that can happen, with few enough names that things meet.
#[derive(Debug, Clone)]
enum Step {
    Registered,
    Reregistered,
    Reconnect,
    Run(u8),
    Update(u8, bool),
    Acknowledge(usize),
    LinkEnded,
    Timeout,
    Shutdown,
    Garbage(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Registered),
        Just(Step::Reregistered),
        Just(Step::Reconnect),
        (0..3u8).prop_map(Step::Run),
        (0..3u8, any::<bool>()).prop_map(|(task, terminal)| Step::Update(task, terminal)),
        (0..12usize).prop_map(Step::Acknowledge),
        Just(Step::LinkEnded),
        Just(Step::Timeout),
        Just(Step::Shutdown),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Step::Garbage),
    ]
}

proptest! {
    #[test]
    fn the_rules_hold_in_any_order(checkpoint: bool, steps in prop::collection::vec(step(), 0..40)) {
        let mut state = state(checkpoint);
        let mut ended = std::collections::BTreeSet::new();
        let mut pending: Vec<(u8, u128)> = Vec::new();
        let (mut sent, mut shut) = (0u128, 0);
        for step in steps {
            let reconnect = matches!(step, Step::Reconnect);
            let gone = state.agent == Agent::Gone;
            let mut updated = None;
            let effects = match step {
                Step::Registered => state.handle(message(&ExecutorRegisteredMessage::default())),
                Step::Reregistered => state.handle(message(&ExecutorReregisteredMessage::default())),
                Step::Reconnect => state.handle(message(&ReconnectExecutorMessage::default())),
                Step::Run(task) => state.handle(run(&task.to_string())),
                Step::Update(task, terminal) => {
                    sent += 1;
                    let kind = if terminal { TaskState::TaskFailed } else { TaskState::TaskRunning };
                    updated = Some(!ended.contains(&task));
                    if updated == Some(true) {
                        pending.push((task, sent));
                    }
                    if terminal {
                        ended.insert(task);
                    }
                    state.handle(update(&task.to_string(), kind, sent))
                }
                Step::Acknowledge(index) if index < pending.len() => {
                    let (task, number) = pending.remove(index);
                    state.handle(acknowledge(&task.to_string(), number))
                }
                Step::Acknowledge(_) => continue,
                Step::LinkEnded => state.handle(DriverInput::LinkEnded),
                Step::Timeout => state.handle(DriverInput::RecoveryTimeout),
                Step::Shutdown => state.handle(message(&ShutdownExecutorMessage::default())),
                Step::Garbage(body) => {
                    let name = RunTaskMessage::NAME.to_owned();
                    state.handle(DriverInput::Message(Incoming { from: None, name, body }))
                }
            };
            // Updates go out once, and never behind a terminal one.
            let updates = effects.iter().filter(|effect| matches!(effect, DriverEffect::Send { name, .. } if *name == StatusUpdateMessage::NAME)).count();
            prop_assert_eq!(updates, usize::from(updated == Some(true)));
            // A new link and the whole truth, exactly when asked.
            let relinks = effects.iter().filter(|effect| matches!(effect, DriverEffect::Relink(_))).count();
            prop_assert_eq!(relinks, usize::from(reconnect && !gone));
            if relinks == 1 {
                let wanted: Vec<_> = pending.iter().map(|(_, number)| Uuid::from_u128(*number).as_bytes().to_vec()).collect();
                let told: Vec<_> = reregistration(&effects).updates.into_iter().filter_map(|update| update.uuid).collect();
                prop_assert_eq!(told, wanted);
            }
            shut += shutdowns(&effects);
            prop_assert!(shut <= 1);
            prop_assert_eq!(state.drained() == Some(true), pending.is_empty());
        }
    }
}
