//! One message of version 0, of any name: the driver answers it.
#![no_main]

use calico_mesos::mesos::driver::state::{Identity, Input, State};
use calico_mesos::mesos::libprocess::{Incoming, Upid};
use calico_mesos::mesos::messages::{ExecutorRegisteredMessage, Wire};
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 8] = [
    "RunTaskMessage",
    "KillTaskMessage",
    "ExecutorRegisteredMessage",
    "ExecutorReregisteredMessage",
    "ReconnectExecutorMessage",
    "StatusUpdateAcknowledgementMessage",
    "FrameworkToExecutorMessage",
    "ShutdownExecutorMessage",
];

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    let actor = |name: &str| Upid::new(name, ([127, 0, 0, 1], 5051).into());
    let identity = Identity {
        framework_id: "f".into(),
        executor_id: "e".into(),
        slave_id: "s".into(),
        pid: actor("executor(1)"),
    };
    let mut state = State::new(identity, true);
    let message = |name: &str, body: &[u8]| {
        Input::Message(Incoming { from: Some(actor("slave(1)")), name: name.to_owned(), body: body.to_vec() })
    };
    state.handle(message(ExecutorRegisteredMessage::NAME, &[]));
    let name = format!("mesos.internal.{}", NAMES[usize::from(*kind) % NAMES.len()]);
    assert!(state.handle(message(&name, body)).len() <= 4);
});
