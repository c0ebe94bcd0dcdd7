//! The protocol's rules, one by one and for whatever order things happen in.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::mesos::messages::event::{self, Type};
use crate::mesos::messages::{self, Message as _, TaskGroupInfo, TaskInfo, TaskState};

fn state(checkpoint: bool) -> HttpState {
    let mut state =
        HttpState::new(SubscriberIdentity { framework_id: "f".into(), executor_id: "e".into() }, checkpoint);
    assert_eq!(subscription(&state.subscribe()), (Vec::new(), Vec::new()));
    state
}

fn event(kind: Type, fill: impl FnOnce(&mut messages::Event)) -> HttpInput {
    let mut event = messages::Event { r#type: Some(kind.into()), ..Default::default() };
    fill(&mut event);
    HttpInput::Stream(News::Record(event.encode_to_vec().into()))
}

fn subscribed() -> HttpInput {
    event(Type::Subscribed, |event| event.subscribed = Some(event::Subscribed::default()))
}

fn launch(id: &str) -> HttpInput {
    let task = TaskInfo { task_id: id.into(), ..TaskInfo::default() };
    event(Type::Launch, |event| event.launch = Some(event::Launch { task }))
}

fn acknowledge(task: &str, number: u128) -> HttpInput {
    let uuid = Uuid::from_u128(number).as_bytes().to_vec();
    event(Type::Acknowledged, |event| {
        event.acknowledged = Some(event::Acknowledged { task_id: task.into(), uuid });
    })
}

fn shutdown() -> HttpInput {
    event(Type::Shutdown, |_| ())
}

fn update(task: &str, state: TaskState, number: u128) -> HttpInput {
    let uuid = Some(Uuid::from_u128(number).as_bytes().to_vec());
    HttpInput::Update(Box::new(TaskStatus { uuid, ..TaskStatus::new(task, state) }))
}

fn answer(status: u16, text: &str) -> HttpInput {
    HttpInput::Answer(Ok(CallAnswer { status, text: text.to_owned() }))
}

fn refused(status: u16, text: &str) -> HttpInput {
    HttpInput::Stream(News::Refused(CallAnswer { status, text: text.to_owned() }))
}

const OPENED: HttpInput = HttpInput::Stream(News::Opened);
const BROKEN: HttpInput = HttpInput::Stream(News::Ended { orderly: false });
const CLOSED: HttpInput = HttpInput::Stream(News::Ended { orderly: true });
const NOT_READY: &str = "Agent has not finished recovery";

fn open(checkpoint: bool) -> HttpState {
    let mut state = state(checkpoint);
    state.handle(OPENED);
    let effects = state.handle(subscribed());
    assert!(matches!(&effects[..], [HttpEffect::Emit(Event::Registered { .. })]), "{effects:?}");
    state
}

fn call(body: &[u8]) -> messages::Call {
    messages::Call::decode(body).unwrap()
}

fn number(status: &TaskStatus) -> u128 {
    Uuid::from_slice(status.uuid.as_ref().unwrap()).unwrap().as_u128()
}

/// The tasks and updates of the SUBSCRIBE among the effects.
fn subscription(effects: &[HttpEffect]) -> (Vec<String>, Vec<u128>) {
    let body = effects.iter().find_map(|effect| match effect {
        HttpEffect::Subscribe(body) => Some(body),
        _ => None,
    });
    let subscribe = call(body.unwrap()).subscribe.unwrap();
    let tasks = subscribe.unacknowledged_tasks.into_iter().map(|task| task.task_id.value).collect();
    (tasks, subscribe.unacknowledged_updates.iter().map(|update| number(&update.status)).collect())
}

fn sent(effects: &[HttpEffect]) -> Option<u128> {
    effects.iter().find_map(|effect| match effect {
        HttpEffect::Call(body) => Some(number(&call(body).update?.status)),
        _ => None,
    })
}

fn shutdowns(effects: &[HttpEffect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, HttpEffect::Emit(Event::Shutdown { .. }))).count()
}

fn malformed(effects: &[HttpEffect]) -> bool {
    matches!(effects, [HttpEffect::Emit(Event::Malformed { .. })])
}

#[test]
fn updates_go_one_at_a_time_and_in_order() {
    let mut state = state(true);
    assert_eq!(state.handle(update("t", TaskState::TaskStarting, 1)), []);
    state.handle(OPENED);
    assert_eq!(sent(&state.handle(subscribed())), Some(1));
    assert_eq!(state.handle(update("t", TaskState::TaskRunning, 2)), []);
    assert_eq!(sent(&state.handle(answer(202, ""))), Some(2));
    state.handle(acknowledge("t", 1));
    // The acknowledgement may come ahead of the answer.
    state.handle(acknowledge("t", 2));
    assert_eq!(state.drained(), Some(true));
    assert_eq!(state.handle(answer(202, "")), []);
}

#[test]
fn an_update_says_who_sends_it_and_not_for_which_agent() {
    let mut state = open(true);
    let effects = state.handle(update("t", TaskState::TaskStarting, 1));
    let [HttpEffect::Call(body)] = &effects[..] else { panic!("{effects:?}") };
    let sent = call(body);
    assert_eq!((sent.executor_id.value.as_str(), sent.framework_id.value.as_str()), ("e", "f"));
    let status = sent.update.unwrap().status;
    assert_eq!(status.source(), crate::mesos::messages::task_status::Source::Executor);
    assert_eq!(status.executor_id, Some("e".into()));
    assert!(status.slave_id.is_none() && body.windows(2).any(|pair| pair == [0x10, 0x00]));
}

#[test]
fn a_refused_update_is_sent_again_as_it_was() {
    let mut state = open(true);
    assert_eq!(sent(&state.handle(update("t", TaskState::TaskRunning, 1))), Some(1));
    for input in [answer(503, NOT_READY), answer(404, ""), HttpInput::Answer(Err("broke".into()))] {
        assert_eq!(state.handle(input), [HttpEffect::RetryLater]);
        // Nothing overtakes it.
        assert_eq!(state.handle(update("u", TaskState::TaskRunning, 2)), []);
        assert_eq!(sent(&state.handle(HttpInput::Retry)), Some(1));
    }
    assert_eq!(state.drained(), None);
}

#[test]
fn an_agent_that_lost_the_subscription_is_asked_for_one() {
    let mut state = open(false);
    state.handle(update("t", TaskState::TaskRunning, 1));
    let effects = state.handle(answer(403, "Executor is not subscribed"));
    assert_eq!(subscription(&effects).1, [1]);
    state.handle(OPENED);
    let effects = state.handle(subscribed());
    assert_eq!(effects, [HttpEffect::StopRecovery, HttpEffect::Emit(Event::Reregistered)]);
}

#[test]
fn a_broken_stream_is_replaced_at_once_with_all_that_is_pending() {
    let mut state = open(true);
    state.handle(launch("a"));
    state.handle(launch("b"));
    state.handle(update("a", TaskState::TaskRunning, 1));
    state.handle(answer(202, ""));
    state.handle(acknowledge("a", 1));
    state.handle(update("a", TaskState::TaskFinished, 2));
    let effects = state.handle(BROKEN);
    assert_eq!(effects[0], HttpEffect::StartRecovery);
    assert_eq!(subscription(&effects), (vec!["b".to_owned()], vec![2]));
    // The call that was under way fails too; what is in the subscription is not sent once more.
    assert_eq!(state.handle(HttpInput::Answer(Err("broke".into()))), [HttpEffect::RetryLater]);
    state.handle(OPENED);
    assert_eq!(sent(&state.handle(subscribed())), None);
    // Nor does it come back for ever.
    assert_eq!(state.handle(HttpInput::Retry), []);
}

#[test]
fn an_agent_that_is_away_or_not_ready_is_asked_again() {
    let mut state = open(true);
    state.handle(BROKEN);
    for input in [
        HttpInput::Stream(News::Failed("refused".into())),
        refused(503, NOT_READY),
        refused(404, ""),
        HttpInput::Stream(News::Ended { orderly: true }),
    ] {
        // The time is that of the first loss.
        assert_eq!(state.handle(input), [HttpEffect::RetryLater]);
        assert_eq!(state.handle(update("t", TaskState::TaskRunning, 1)), []);
        subscription(&state.handle(HttpInput::Retry));
    }
    assert_eq!(shutdowns(&state.handle(HttpInput::RecoveryTimeout)), 1);
    assert_eq!(state.handle(HttpInput::RecoveryTimeout), []);
    assert_eq!(state.drained(), Some(false));
}

#[test]
fn the_first_subscription_waits_for_the_agent_too() {
    let mut waiting = state(true);
    let effects = waiting.handle(HttpInput::Stream(News::Failed("refused".into())));
    assert_eq!(effects, [HttpEffect::StartRecovery, HttpEffect::RetryLater]);
    let mut waiting = state(false);
    assert_eq!(waiting.handle(refused(503, NOT_READY)), [HttpEffect::StartRecovery, HttpEffect::RetryLater]);
    subscription(&waiting.handle(HttpInput::Retry));
    // Without checkpoints an agent that restarts has no executors.
    assert_eq!(shutdowns(&waiting.handle(HttpInput::Stream(News::Failed("refused".into())))), 1);
}

#[test]
fn without_checkpoints_the_end_of_the_stream_is_the_end() {
    let mut state = open(false);
    assert_eq!(shutdowns(&state.handle(BROKEN)), 1);
    // The agent may live all the same.
    assert_eq!(sent(&state.handle(update("t", TaskState::TaskKilled, 1))), Some(1));
    assert_eq!(state.drained(), None);
    state.handle(answer(202, ""));
    assert_eq!(state.drained(), Some(true));
    state.handle(update("u", TaskState::TaskKilled, 2));
    state.handle(HttpInput::Answer(Err("refused".into())));
    assert_eq!(state.drained(), Some(false));
}

#[test]
fn what_cannot_be_repaired_is_a_shutdown() {
    for (status, text, words) in [
        (400, "Executor cannot be found", "no longer has this executor"),
        (400, "Framework cannot be found", "no longer has this executor"),
        (401, "", "refuses"),
        (403, "", "403"),
        (415, "Expecting 'Content-Type'", "Expecting"),
    ] {
        let mut state = state(true);
        let effects = state.handle(refused(status, text));
        let [HttpEffect::Emit(Event::Shutdown { reason })] = &effects[..] else { panic!("{effects:?}") };
        assert!(reason.contains(words), "{reason}");
        assert_eq!(state.handle(HttpInput::Retry), []);
    }
    let mut state = open(true);
    state.handle(update("t", TaskState::TaskRunning, 1));
    assert_eq!(shutdowns(&state.handle(answer(400, "Framework cannot be found"))), 1);
    assert_eq!(state.drained(), Some(false));
}

#[test]
fn an_update_that_is_no_good_holds_up_nothing() {
    let mut state = open(true);
    state.handle(update("t", TaskState::TaskRunning, 1));
    state.handle(update("t", TaskState::TaskFinished, 2));
    let effects = state.handle(answer(400, "Failed to validate Executor::Call: Not a valid UUID"));
    assert!(matches!(&effects[0], HttpEffect::Emit(Event::Malformed { what }) if what.contains("UUID")));
    assert_eq!(sent(&effects), Some(2));
}

#[test]
fn shutdown_as_the_first_event_and_the_last() {
    let mut state = open(true);
    state.handle(update("t", TaskState::TaskFinished, 1));
    state.handle(BROKEN);
    state.handle(HttpInput::Answer(Err("broke".into())));
    state.handle(HttpInput::Retry);
    state.handle(OPENED);
    // What the subscription carried was not looked at: it is sent by itself.
    let effects = state.handle(shutdown());
    assert_eq!((shutdowns(&effects), sent(&effects)), (1, Some(1)));
    assert_eq!(state.handle(CLOSED), []);
    state.handle(answer(202, ""));
    assert_eq!(state.drained(), Some(true));
    assert_eq!(state.handle(HttpInput::Retry), []);
}

#[test]
fn an_agent_that_dies_behind_its_shutdown_is_waited_for() {
    let mut state = open(true);
    state.handle(update("t", TaskState::TaskKilling, 1));
    state.handle(shutdown());
    assert_eq!(subscription(&state.handle(BROKEN)).1, [1]);
}

#[test]
fn a_launch_is_one_event_and_a_malformed_one_is_reported() {
    let mut early = state(true);
    early.handle(OPENED);
    assert!(malformed(&early.handle(launch("t"))));
    let mut state = open(true);
    assert!(matches!(&state.handle(launch("t"))[..], [HttpEffect::Emit(Event::Launch(_))]));
    assert!(malformed(&state.handle(launch("t"))));
    assert!(malformed(&state.handle(launch(""))));
    let group = |ids: &[&str]| {
        let task = |id: &&str| TaskInfo { task_id: (*id).into(), ..TaskInfo::default() };
        let task_group = TaskGroupInfo { tasks: ids.iter().map(task).collect() };
        event(Type::LaunchGroup, |event| event.launch_group = Some(event::LaunchGroup { task_group }))
    };
    for bad in [&[][..], &["a", "t"], &["a", "a"], &["a", ""]] {
        assert!(malformed(&state.handle(group(bad))), "{bad:?}");
    }
    let effects = state.handle(group(&["a", "b"]));
    assert!(matches!(&effects[..], [HttpEffect::Emit(Event::LaunchGroup(tasks))] if tasks.len() == 2));
    assert_eq!(subscription(&state.handle(BROKEN)).0, ["t", "a", "b"]);
}

#[test]
fn what_cannot_be_used_changes_nothing() {
    let mut state = open(true);
    for kind in [Type::Unknown, Type::Subscribed, Type::Launch, Type::LaunchGroup, Type::Kill] {
        assert!(malformed(&state.handle(event(kind, |_| ()))), "{kind:?}");
    }
    for kind in [Type::Acknowledged, Type::Message] {
        assert!(malformed(&state.handle(event(kind, |_| ()))), "{kind:?}");
    }
    assert!(malformed(&state.handle(event(Type::Heartbeat, |event| event.r#type = Some(77)))));
    assert!(malformed(&state.handle(HttpInput::Stream(News::Record(Bytes::from_static(b"\x0a\xff"))))));
    assert!(malformed(&state.handle(subscribed())));
    assert_eq!(state.handle(event(Type::Error, |_| ())), []);
    let kill = event::Kill { task_id: "t".into(), kill_policy: None };
    let effects = state.handle(event(Type::Kill, |event| event.kill = Some(kill)));
    assert_eq!(effects, [HttpEffect::Emit(Event::Kill { task_id: "t".into(), grace: None })]);
}

#[test]
fn garbage_in_place_of_records_is_reported_and_the_stream_replaced() {
    let mut state = open(false);
    let effects = state.handle(HttpInput::Stream(News::Garbage("no length".into())));
    assert!(matches!(
        &effects[..],
        [HttpEffect::Emit(Event::Malformed { .. }), HttpEffect::StartRecovery, HttpEffect::RetryLater]
    ));
    subscription(&state.handle(HttpInput::Retry));
}

#[test]
fn heartbeats_are_sent_one_at_a_time_and_silence_ends_the_stream() {
    let mut state = open(true);
    assert_eq!(state.handle(event(Type::Heartbeat, |_| ())), [HttpEffect::ExpectHeartbeat]);
    let beat = |effects: &[HttpEffect]| matches!(effects, [HttpEffect::Call(body)] if call(body).r#type() == messages::call::Type::Heartbeat);
    assert!(beat(&state.handle(HttpInput::HeartbeatDue)));
    // One call at a time.
    assert_eq!(state.handle(HttpInput::HeartbeatDue), []);
    assert_eq!(sent(&state.handle(answer(202, ""))), None);
    assert!(beat(&state.handle(HttpInput::HeartbeatDue)));
    // An agent before 1.8.
    state.handle(answer(400, "Expecting 'type' to be present"));
    assert_eq!(state.handle(HttpInput::HeartbeatDue), []);
    subscription(&state.handle(HttpInput::Silence));
}

/// Anything that can happen, with few enough names that things meet.
#[derive(Debug, Clone)]
enum Step {
    Stream(u8),
    Answer(u8),
    Launch(u8),
    Update(u8, bool),
    Acknowledge(usize),
    Time(u8),
    Garbage(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..7u8).prop_map(Step::Stream),
        3 => (0..6u8).prop_map(Step::Answer),
        1 => (0..3u8).prop_map(Step::Launch),
        3 => (0..3u8, any::<bool>()).prop_map(|(task, terminal)| Step::Update(task, terminal)),
        2 => (0..12usize).prop_map(Step::Acknowledge),
        2 => (0..4u8).prop_map(Step::Time),
        1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(Step::Garbage),
    ]
}

/// The agent, as far as the rules can be told from outside.
#[derive(Default)]
struct World {
    pending: Vec<(u8, u128)>,
    ended: BTreeSet<u8>,
    sent: u128,
    shut: usize,
    /// A call waits for its answer.
    busy: bool,
}

impl World {
    fn input(&mut self, step: Step) -> Option<HttpInput> {
        Some(match step {
            Step::Stream(kind) => match kind {
                0 => OPENED,
                1 => subscribed(),
                2 => BROKEN,
                3 => CLOSED,
                4 => shutdown(),
                5 => refused(503, NOT_READY),
                _ => HttpInput::Stream(News::Failed("refused".into())),
            },
            Step::Answer(_) if !std::mem::take(&mut self.busy) => return None,
            Step::Answer(kind) => match kind {
                0..=2 => answer(202, ""),
                3 => answer(503, NOT_READY),
                4 => answer(403, "Executor is not subscribed"),
                _ => HttpInput::Answer(Err("broke".into())),
            },
            Step::Launch(task) => launch(&task.to_string()),
            Step::Update(task, terminal) => {
                self.sent += 1;
                if !self.ended.contains(&task) {
                    self.pending.push((task, self.sent));
                }
                if terminal {
                    self.ended.insert(task);
                }
                let kind = if terminal { TaskState::TaskFailed } else { TaskState::TaskRunning };
                update(&task.to_string(), kind, self.sent)
            }
            Step::Acknowledge(index) if index < self.pending.len() => {
                let (task, number) = self.pending.remove(index);
                acknowledge(&task.to_string(), number)
            }
            Step::Acknowledge(_) => return None,
            Step::Time(0) => HttpInput::RecoveryTimeout,
            Step::Time(1) => HttpInput::Silence,
            Step::Time(2) => HttpInput::HeartbeatDue,
            Step::Time(_) => HttpInput::Retry,
            Step::Garbage(body) => HttpInput::Stream(News::Record(body.into())),
        })
    }
}

proptest! {
    #[test]
    fn the_rules_hold_in_any_order(checkpoint: bool, steps in prop::collection::vec(step(), 0..60)) {
        let mut state = state(checkpoint);
        let mut world = World::default();
        for step in steps {
            let gone = state.phase == Phase::Gone;
            let Some(input) = world.input(step) else { continue };
            let effects = state.handle(input);
            let pending: Vec<u128> = world.pending.iter().map(|(_, number)| *number).collect();
            for effect in &effects {
                match effect {
                    // Every subscription tells the whole truth, in order.
                    HttpEffect::Subscribe(_) => prop_assert_eq!(&subscription(&effects).1, &pending),
                    HttpEffect::Call(_) => {
                        prop_assert!(!std::mem::replace(&mut world.busy, true), "two calls at once");
                        if let Some(number) = sent(&effects) {
                            prop_assert!(pending.contains(&number));
                        }
                    }
                    _ => {}
                }
            }
            prop_assert!(!gone || effects.iter().all(|effect| matches!(effect, HttpEffect::Emit(_) | HttpEffect::ExpectHeartbeat | HttpEffect::StopRecovery)));
            world.shut += shutdowns(&effects);
            prop_assert!(world.shut <= 1);
            prop_assert!(state.drained() != Some(true) || pending.is_empty() || state.phase == Phase::Leaving);
            // A state that waits for the agent has set an end to the wait.
            prop_assert!(state.phase != Phase::Waiting || state.recovering);
        }
    }
}
