//! What comes in over the wire, and what an agent says on the command line and in the environment: never a panic,
//! and what is understood is told back as it came.

use std::collections::BTreeMap;
use std::ffi::OsString;

use proptest::prelude::*;

use super::driver::state::{ActorIdentity, DriverInput, DriverState};
use super::duration;
use super::environment::HttpEnvironment;
use super::flags::Flags;
use super::libprocess::{Incoming, Upid};
use super::messages::*;

/// The bytes as they are, or cut, with some changed, doubled or put in between.
pub(super) fn mangled(bytes: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let (end, whole) = (bytes.len() + 1, bytes.clone());
    let edits = prop::collection::vec((0..end, any::<u8>(), 0..4u8), 0..6);
    let edited = edits.prop_map(move |edits| {
        let mut bytes = bytes.clone();
        for (at, byte, kind) in edits {
            let at = at.min(bytes.len());
            match kind {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, byte),
                2 if at < bytes.len() => bytes[at] = byte,
                _ => bytes.extend_from_within(at..),
            }
        }
        bytes
    });
    prop_oneof![1 => Just(whole), 12 => edited, 3 => prop::collection::vec(any::<u8>(), 0..200)]
}

/// A task with something in most of the places.
pub(super) fn task() -> TaskInfo {
    let variable = environment::Variable { name: "A".into(), value: Some("b".into()), ..Default::default() };
    TaskInfo {
        name: "web".into(),
        task_id: "web.1".into(),
        slave_id: "s".into(),
        resources: vec![Resource {
            name: "cpus".into(),
            scalar: Some(value::Scalar { value: 0.5 }),
            ..Default::default()
        }],
        command: Some(CommandInfo {
            value: Some("true".into()),
            environment: Some(Environment { variables: vec![variable] }),
            ..Default::default()
        }),
        labels: Some(Labels { labels: vec![Label { key: "k".into(), value: Some("v".into()) }] }),
        limits: [("mem".to_owned(), value::Scalar { value: 1.0 })].into(),
        ..Default::default()
    }
}

fn run_task() -> Vec<u8> {
    RunTaskMessage { task: task(), ..Default::default() }.encode_to_vec()
}

fn variables(pairs: Vec<(String, Vec<u8>)>) -> BTreeMap<OsString, OsString> {
    use std::os::unix::ffi::OsStringExt;
    pairs.into_iter().map(|(name, value)| (name.into(), OsString::from_vec(value))).collect()
}

const NAMES: [&str; 9] = [
    RunTaskMessage::NAME,
    KillTaskMessage::NAME,
    ExecutorRegisteredMessage::NAME,
    ExecutorReregisteredMessage::NAME,
    ReconnectExecutorMessage::NAME,
    StatusUpdateAcknowledgementMessage::NAME,
    FrameworkToExecutorMessage::NAME,
    ShutdownExecutorMessage::NAME,
    "mesos.internal.Nonsense",
];
const VARIABLES: [&str; 10] = [
    "MESOS_SLAVE_PID",
    "MESOS_FRAMEWORK_ID",
    "MESOS_EXECUTOR_ID",
    "MESOS_SLAVE_ID",
    "MESOS_DIRECTORY",
    "MESOS_CHECKPOINT",
    "MESOS_RECOVERY_TIMEOUT",
    "MESOS_AGENT_ENDPOINT",
    "LIBPROCESS_PORT",
    "LIBPROCESS_SSL_ENABLED",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_message_is_handled(name in prop::sample::select(&NAMES[..]), body in mangled(run_task())) {
        let identity = ActorIdentity {
            framework_id: "f".into(),
            executor_id: "e".into(),
            slave_id: "s".into(),
            pid: "executor(1)@127.0.0.1:2".parse().unwrap(),
        };
        let mut state = DriverState::new(identity, true);
        let from = "slave(1)@127.0.0.1:1".parse().ok();
        let registered = Incoming { from, name: ExecutorRegisteredMessage::NAME.to_owned(), body: Vec::new() };
        let message = Incoming { name: name.to_owned(), body, ..registered.clone() };
        state.handle(DriverInput::Message(registered));
        let effects = state.handle(DriverInput::Message(message));
        prop_assert!(effects.len() <= 4, "{:?}", effects);
    }

    #[test]
    fn every_decoded_message_is_encoded_the_same(body in mangled(run_task())) {
        if let Ok(message) = RunTaskMessage::decode(body.as_slice()) {
            let again = RunTaskMessage::decode(message.encode_to_vec().as_slice());
            // A NaN is no equal of itself.
            prop_assert_eq!(format!("{:?}", again.unwrap()), format!("{message:?}"));
        }
    }

    #[test]
    fn any_address_of_an_actor_is_read_back(text in prop_oneof!["(?s).{0,40}", "[a-z(1)@.:\\[\\]0-9/]{0,30}"]) {
        if let Ok(upid) = text.parse::<Upid>() {
            let told = upid.to_string();
            prop_assert!(!told.contains(char::is_control) && !told.contains('/'));
            prop_assert_eq!(told.parse::<Upid>().unwrap(), upid);
        }
    }

    #[test]
    fn any_environment_is_understood_or_refused(
        pairs in prop::collection::vec((
            prop::sample::select(&VARIABLES[..]).prop_map(str::to_owned),
            prop_oneof![
                prop::sample::select(vec!["1", "slave(1)@127.0.0.1:1", "127.0.0.1:1", "1secs", "x"]).prop_map(|text| text.as_bytes().to_vec()),
                prop::collection::vec(any::<u8>(), 0..12),
            ],
        ), 0..12),
    ) {
        let environment = variables(pairs);
        if let Err(error) = super::environment::Environment::from(environment.clone()) {
            prop_assert!(error.to_string().starts_with("the environment is not that"));
        }
        let _ = HttpEnvironment::from(environment).is_ok();
    }

    #[test]
    fn any_command_line_is_understood_or_refused(words in prop::collection::vec(prop_oneof![
        prop::sample::select(vec!["--container=mesos-1087382a-40ba-4fa3-9eda-41fed69a9a91", "--sandbox_directory=/s", "--quiet", "--no-quiet=1", "--stop_timeout=1e300weeks", "--task_environment={\"A\":1}", "--", "-"]).prop_map(str::to_owned),
        "(?s)-{0,2}.{0,20}",
    ], 0..8)) {
        if let Ok(flags) = Flags::parse(words) {
            let _ = (flags.container_id().is_ok(), flags.task_environment().is_ok(), flags.default_container_dns().is_ok());
        }
    }

    #[test]
    fn any_duration_is_understood_or_refused(text in prop_oneof!["(?s).{0,20}", "[0-9.e+-]{1,25}(ns|us|ms|secs|mins|hrs|days|weeks)"]) {
        let _ = duration::parse(&text).is_ok();
    }
}
