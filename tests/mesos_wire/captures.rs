//! Every captured body survives decoding and encoding, every request our framing.

use calico_mesos::mesos::libprocess::framing;
use calico_mesos::mesos::messages::{
    container_info, ExecutorRegisteredMessage, ExecutorReregisteredMessage, FrameworkToExecutorMessage,
    KillTaskMessage, ReconnectExecutorMessage, RegisterExecutorMessage, ReregisterExecutorMessage,
    RunTaskMessage, ShutdownExecutorMessage, StatusUpdateAcknowledgementMessage, StatusUpdateMessage,
    TaskInfo, Wire,
};
use prost::Message as _;

use super::fixtures;

fn reencode<M: Wire>(body: &[u8]) -> Vec<u8> {
    M::decode(body).unwrap().encode_to_vec()
}

#[test]
fn bodies_come_back_byte_for_byte() {
    let captures = fixtures::all();
    assert!(captures.len() > 60, "only {} captures found", captures.len());
    for capture in captures {
        let body = capture.request.body.as_slice();
        let again = match capture.name() {
            RegisterExecutorMessage::NAME => reencode::<RegisterExecutorMessage>(body),
            ExecutorRegisteredMessage::NAME => reencode::<ExecutorRegisteredMessage>(body),
            RunTaskMessage::NAME => reencode::<RunTaskMessage>(body),
            KillTaskMessage::NAME => reencode::<KillTaskMessage>(body),
            StatusUpdateMessage::NAME => reencode::<StatusUpdateMessage>(body),
            StatusUpdateAcknowledgementMessage::NAME => reencode::<StatusUpdateAcknowledgementMessage>(body),
            ReconnectExecutorMessage::NAME => reencode::<ReconnectExecutorMessage>(body),
            ReregisterExecutorMessage::NAME => reencode::<ReregisterExecutorMessage>(body),
            ExecutorReregisteredMessage::NAME => reencode::<ExecutorReregisteredMessage>(body),
            ShutdownExecutorMessage::NAME => reencode::<ShutdownExecutorMessage>(body),
            FrameworkToExecutorMessage::NAME => reencode::<FrameworkToExecutorMessage>(body),
            other => panic!("{}: no message type for {other}", capture.file),
        };
        assert_eq!(again, body, "{}", capture.file);
    }
}

#[test]
fn requests_are_framed_the_same_way() {
    for capture in fixtures::all() {
        let bytes = framing::encode(&capture.from(), &capture.to(), capture.name(), &capture.request.body);
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            String::from_utf8_lossy(&capture.bytes),
            "{}",
            capture.file
        );
    }
}

#[test]
fn a_value_from_the_future_does_not_hide_a_task() {
    let run: RunTaskMessage = fixtures::first(&fixtures::life("life1"));
    let mut task = run.task;
    task.container.as_mut().unwrap().docker.as_mut().unwrap().network = Some(77);
    task.container.as_mut().unwrap().r#type = 9;
    task.health_check.as_mut().unwrap().r#type = Some(123);
    let again = TaskInfo::decode(task.encode_to_vec().as_slice()).unwrap();
    assert_eq!(again, task);
    let docker = again.container.unwrap().docker.unwrap();
    assert_eq!(docker.network(), container_info::docker_info::Network::Host);
}

#[test]
fn defaults_that_stand_in_for_absent_fields() {
    let run: RunTaskMessage = fixtures::first(&fixtures::life("life1"));
    let command = run.task.command.unwrap();
    assert!(command.shell());
    assert!(!command.uris[0].extract() && !command.uris[0].executable());
    let bare = calico_mesos::mesos::messages::HealthCheck::default();
    assert_eq!((bare.delay_seconds(), bare.interval_seconds(), bare.timeout_seconds()), (15.0, 10.0, 20.0));
    assert_eq!((bare.consecutive_failures(), bare.grace_period_seconds()), (3, 10.0));
}
