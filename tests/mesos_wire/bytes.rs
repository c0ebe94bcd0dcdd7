//! What the embedded agent says, byte for byte what a real one said in the same place.

use calico_mesos::mesos::driver::Event;
use calico_mesos::mesos::messages::{
    ExecutorRegisteredMessage, ExecutorReregisteredMessage, FrameworkToExecutorMessage, KillTaskMessage,
    ReconnectExecutorMessage, RunTaskMessage, ShutdownExecutorMessage, SlaveInfo,
    StatusUpdateAcknowledgementMessage, Wire,
};
use calico_mesos::rig::agent::{Direction, HistoryRecord};
use prost::Message as _;

use super::fixtures;
use super::peer::Peer;

/// Every life again: with the ids and resources of the capture our agent sends the very same bytes,
/// heads included. Only the ports differ: theirs are in the captures, ours were free.
#[tokio::test]
async fn the_agent_speaks_as_captured() {
    let mut compared = 0;
    for name in ["life1", "life2", "life3", "life4", "life5", "life6", "life8"] {
        let life = fixtures::life(name);
        let peer = relive(&life).await;
        let own = |upid: &calico_mesos::mesos::libprocess::Upid| upid.address.to_string();
        let (agent, executor) = (own(peer.agent.pid()), own(peer.driver.pid().unwrap()));
        let mut seen = std::collections::BTreeSet::new();
        for capture in life.iter().filter(|capture| capture.from().actor == "slave(1)") {
            // The first of its kind; acknowledgements carry a uuid of their own.
            let acknowledgement = capture.name() == StatusUpdateAcknowledgementMessage::NAME;
            if acknowledgement || !seen.insert(capture.name().to_owned()) {
                continue;
            }
            let records = peer.agent.records();
            let said = |record: &&HistoryRecord| {
                record.direction == Direction::ToExecutor && record.name == capture.name()
            };
            let record = records.iter().find(said).unwrap_or_else(|| panic!("{} never sent", capture.file));
            assert_eq!(record.body, with_port(capture, peer.agent.pid().address.port()), "{}", capture.file);
            let head = |bytes: &[u8], agent: &str, executor: &str| {
                let text = String::from_utf8_lossy(bytes).into_owned();
                text.split("\r\n\r\n").next().unwrap().replace(agent, "AGENT").replace(executor, "EXECUTOR")
            };
            assert_eq!(
                head(&record.wire, &agent, &executor),
                head(&capture.bytes, &own(&capture.from()), &own(&capture.to())),
                "{}",
                capture.file
            );
            compared += 1;
        }
    }
    assert!(compared >= 20, "only {compared} messages compared");
}

/// The captured body with our agent's port where it names its own.
fn with_port(capture: &fixtures::Capture, port: u16) -> Vec<u8> {
    let port = Some(port.into());
    match capture.name() {
        ExecutorRegisteredMessage::NAME => {
            let mut message: ExecutorRegisteredMessage = capture.decode();
            message.slave_info.port = port;
            message.encode_to_vec()
        }
        ExecutorReregisteredMessage::NAME => {
            let mut message: ExecutorReregisteredMessage = capture.decode();
            message.slave_info.port = port;
            message.encode_to_vec()
        }
        _ => capture.request.body.clone(),
    }
}

/// The same task on the same agent, and the scheduler asks for the same things.
async fn relive(life: &[fixtures::Capture]) -> Peer {
    let registered: ExecutorRegisteredMessage = fixtures::first(life);
    let run: RunTaskMessage = fixtures::first(life);
    let info: SlaveInfo = registered.slave_info.clone();
    let set_up = |options: &mut calico_mesos::rig::agent::AgentOptions| {
        options.slave_id = info.id.clone().unwrap().value;
        options.hostname = info.hostname.clone();
        options.resources = info.resources.clone();
        options.framework_id = registered.framework_id.value.clone();
        options.framework_name = run.framework.name.clone();
        options.checkpoint = run.framework.checkpoint();
        options.launcher_dir = "/usr/libexec/mesos-b".into();
    };
    let task = run.task.task_id.value.clone();
    let mut peer = Peer::launch(set_up, run.task.clone()).await;
    assert!(matches!(peer.event().await, Event::Registered { .. }));
    assert!(matches!(peer.event().await, Event::Launch(launched) if *launched == run.task));
    for capture in life.iter().filter(|capture| capture.from().actor == "slave(1)") {
        match capture.name() {
            FrameworkToExecutorMessage::NAME => {
                peer.agent.message(&task, capture.decode::<FrameworkToExecutorMessage>().data).await.unwrap();
                assert!(matches!(peer.event().await, Event::Message(_)));
            }
            KillTaskMessage::NAME => {
                let policy = capture.decode::<KillTaskMessage>().kill_policy;
                let grace = policy.and_then(|policy| policy.grace());
                peer.agent.kill(&task, grace).await.unwrap();
                assert_eq!(peer.event().await, Event::Kill { task_id: task.clone(), grace });
            }
            ReconnectExecutorMessage::NAME => {
                peer.agent.stop().await.unwrap();
                peer.agent.restart().await.unwrap();
                assert_eq!(peer.event().await, Event::Reregistered);
            }
            ShutdownExecutorMessage::NAME => {
                peer.agent.shutdown_executor(&task).await.unwrap();
                assert!(matches!(peer.event().await, Event::Shutdown { .. }));
            }
            _ => {}
        }
    }
    peer
}
