//! The driver against a hand-written agent: whatever comes over the wire, it goes on.

use std::ffi::OsString;
use std::time::Duration;

use calico_mesos::mesos::driver::{self, Driver, Event};
use calico_mesos::mesos::environment::Environment;
use calico_mesos::mesos::libprocess::server::Server;
use calico_mesos::mesos::libprocess::{framing, link, Incoming, Upid};
use calico_mesos::mesos::messages::{
    ExecutorRegisteredMessage, ExecutorReregisteredMessage, KillTaskMessage, ReconnectExecutorMessage,
    RegisterExecutorMessage, ReregisterExecutorMessage, RunTaskMessage, ShutdownExecutorMessage,
    StatusUpdateAcknowledgementMessage, StatusUpdateMessage, TaskState, TaskStatus, Wire,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::fixtures;
use super::peer::SOON;

struct Bench {
    driver: Driver,
    events: mpsc::UnboundedReceiver<Event>,
    agent: Upid,
    incoming: mpsc::UnboundedReceiver<Incoming>,
    server: Option<Server>,
    link: TcpStream,
}

async fn agent_at(address: &str) -> (Upid, Server, mpsc::UnboundedReceiver<Incoming>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let agent = Upid::new("slave(1)", listener.local_addr().unwrap());
    let (messages, incoming) = mpsc::unbounded_channel();
    (agent, Server::start(listener, "slave(1)", messages), incoming)
}

impl Bench {
    async fn new(extra: &[(&str, &str)]) -> Self {
        let (agent, server, incoming) = agent_at("127.0.0.1:0").await;
        let pid = agent.to_string();
        let mut variables = vec![
            ("MESOS_SLAVE_PID", pid.as_str()),
            ("MESOS_FRAMEWORK_ID", "f-0000"),
            ("MESOS_EXECUTOR_ID", "t.1"),
            ("MESOS_SLAVE_ID", "s-S0"),
            ("MESOS_DIRECTORY", "/tmp"),
            ("MESOS_CHECKPOINT", "1"),
        ];
        variables.extend_from_slice(extra);
        let variables = variables.into_iter().map(|(a, b)| (OsString::from(a), OsString::from(b)));
        let (driver, events) = driver::connect(&Environment::from(variables).unwrap()).await.unwrap();
        let address = driver.pid().unwrap().address;
        let link = TcpStream::connect(("127.0.0.1", address.port())).await.unwrap();
        let mut bench = Self { driver, events, agent, incoming, server: Some(server), link };
        bench.expect::<RegisterExecutorMessage>().await;
        bench
    }

    async fn registered(extra: &[(&str, &str)]) -> Self {
        let mut bench = Self::new(extra).await;
        let bytes = [
            bench.encode(&ExecutorRegisteredMessage::default()),
            bench.encode(&RunTaskMessage { task: super::peer::task("t.1"), ..Default::default() }),
        ]
        .concat();
        bench.link.write_all(&bytes).await.unwrap();
        assert!(matches!(bench.event().await, Event::Registered { .. }));
        assert!(matches!(bench.event().await, Event::Launch(_)));
        bench
    }

    fn encode<M: Wire>(&self, message: &M) -> Vec<u8> {
        framing::encode(&self.agent, self.driver.pid().unwrap(), M::NAME, &message.encode_to_vec())
    }

    async fn send<M: Wire>(&mut self, message: &M) {
        let bytes = self.encode(message);
        self.link.write_all(&bytes).await.unwrap();
    }

    async fn event(&mut self) -> Event {
        tokio::time::timeout(SOON, self.events.recv()).await.expect("no event").expect("the driver ended")
    }

    async fn expect<M: Wire>(&mut self) -> M {
        let message = tokio::time::timeout(SOON, self.incoming.recv()).await.expect("no message").unwrap();
        message.decode().unwrap_or_else(|| panic!("{} in place of {}", message.name, M::NAME)).unwrap()
    }

    async fn kill_agent(&mut self) {
        self.server.take().unwrap().stop().await;
    }

    async fn revive_agent(&mut self) {
        let (agent, server, incoming) = agent_at(&self.agent.address.to_string()).await;
        (self.agent, self.server, self.incoming) = (agent, Some(server), incoming);
    }

    /// Over a connection that is closed right after writing.
    async fn send_and_close<M: Wire>(&self, message: &M) {
        link::send_once(self.driver.pid().unwrap().address, &self.encode(message)).await.unwrap();
    }
}

fn kill(task: &str) -> KillTaskMessage {
    KillTaskMessage { task_id: task.into(), ..Default::default() }
}

#[tokio::test]
async fn pipelined_messages_and_their_answers() {
    let mut bench = Bench::registered(&[]).await;
    let many: Vec<u8> = (0..50).flat_map(|n| bench.encode(&kill(&format!("t.{n}")))).collect();
    // In two pieces that end anywhere.
    bench.link.write_all(&many[..3001]).await.unwrap();
    bench.link.flush().await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    bench.link.write_all(&many[3001..]).await.unwrap();
    for n in 0..50 {
        assert_eq!(bench.event().await, Event::Kill { task_id: format!("t.{n}"), grace: None });
    }
    let mut answers = vec![0; 52 * 81];
    tokio::time::timeout(SOON, bench.link.read_exact(&mut answers)).await.unwrap().unwrap();
    let answers = String::from_utf8(answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 202 Accepted\r\nDate: ").count(), 52);
    assert!(answers.ends_with("Content-Length: 0\r\n\r\n"));
}

#[tokio::test]
async fn messages_count_although_the_sender_is_gone() {
    let mut bench = Bench::registered(&[]).await;
    for n in 0..20 {
        let mut stream = TcpStream::connect(bench.driver.pid().unwrap().address).await.unwrap();
        let two = [bench.encode(&kill(&format!("a.{n}"))), bench.encode(&kill(&format!("b.{n}")))].concat();
        stream.write_all(&two).await.unwrap();
        // Half of them with a reset in place of an orderly end.
        if n % 2 == 0 {
            stream.set_zero_linger().unwrap();
        }
        drop(stream);
        for name in ["a", "b"] {
            assert_eq!(bench.event().await, Event::Kill { task_id: format!("{name}.{n}"), grace: None });
        }
    }
    bench.send_and_close(&ShutdownExecutorMessage::default()).await;
    assert!(matches!(bench.event().await, Event::Shutdown { .. }));
}

#[tokio::test]
async fn garbage_on_the_connection_changes_nothing() {
    let mut bench = Bench::registered(&[]).await;
    let address = bench.driver.pid().unwrap().address;
    for garbage in [
        b"".as_slice(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /executor(1)/x HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n",
        b"POST /executor(1)/x HTTP/1.1\r\nLibprocess-From: a@1.2.3.4:5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        &[0xff; 70_000],
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(garbage).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.expect("left open");
        assert!(!String::from_utf8_lossy(&answer).contains("202 Accepted"));
    }
    bench.send(&kill("t.1")).await;
    assert!(matches!(bench.event().await, Event::Kill { .. }));
}

#[tokio::test]
async fn bodies_that_do_not_parse_are_reported() {
    let mut bench = Bench::registered(&[]).await;
    let names =
        [RunTaskMessage::NAME, KillTaskMessage::NAME, ExecutorRegisteredMessage::NAME, "mesos.internal.New"];
    for name in names {
        let bytes = framing::encode(&bench.agent, bench.driver.pid().unwrap(), name, b"\x0a\xff\xff\xff");
        bench.link.write_all(&bytes).await.unwrap();
        assert!(matches!(bench.event().await, Event::Malformed { .. }), "{name}");
    }
    // Required fields are missing.
    bench.send(&KillTaskMessage::default()).await;
    assert!(matches!(bench.event().await, Event::Malformed { .. }));
    bench.send(&RunTaskMessage { task: super::peer::task("t.1"), ..Default::default() }).await;
    assert!(matches!(bench.event().await, Event::Malformed { what } if what.contains("second time")));
    bench.send(&StatusUpdateAcknowledgementMessage { uuid: vec![1, 2], ..Default::default() }).await;
    assert!(matches!(bench.event().await, Event::Malformed { .. }));
}

#[tokio::test]
async fn another_actor_is_not_found() {
    let bench = Bench::registered(&[]).await;
    let to = Upid::new("executor(9)", bench.driver.pid().unwrap().address);
    let mut stream = TcpStream::connect(to.address).await.unwrap();
    stream.write_all(&framing::encode(&bench.agent, &to, "m", b"")).await.unwrap();
    let mut answer = [0; 22];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 404 Not Found");
}

#[tokio::test]
async fn updates_are_filled_in() {
    let mut bench = Bench::registered(&[]).await;
    let uuid = bench.driver.update(TaskStatus::new("t.1", TaskState::TaskStarting));
    let message: StatusUpdateMessage = bench.expect().await;
    assert_eq!(message.pid, Some(bench.driver.pid().unwrap().to_string()));
    let (update, status) = (&message.update, &message.update.status);
    assert_eq!(uuid.get_version_num(), 4);
    assert_eq!(update.uuid.as_deref(), Some(uuid.as_bytes().as_slice()));
    assert_eq!((&update.uuid, &update.slave_id), (&status.uuid, &status.slave_id));
    assert_eq!(update.slave_id.as_ref().unwrap().value, "s-S0");
    assert_eq!(Some(update.timestamp), status.timestamp);
    assert!(status.source.is_none() && status.executor_id.is_none() && update.latest_state.is_none());
    // Only the fields of the captured TASK_STARTING: ids, state (zero, yet there), times, uuid.
    let captured: StatusUpdateMessage = fixtures::first(&fixtures::life("life1"));
    let shape = |message: &StatusUpdateMessage| {
        let mut message = message.clone();
        let update = &mut message.update;
        (update.timestamp, update.uuid, update.status.uuid) = (0.0, None, None);
        update.status.timestamp = None;
        update.framework_id = "".into();
        update.executor_id = Some("".into());
        update.slave_id = Some("".into());
        update.status.slave_id = Some("".into());
        update.status.task_id = "".into();
        message.pid = Some(String::new());
        message
    };
    assert_eq!(shape(&message), shape(&captured));
}

#[tokio::test]
async fn updates_are_resent_only_after_a_reconnection() {
    let mut bench = Bench::registered(&[]).await;
    bench.driver.update(TaskStatus::new("t.1", TaskState::TaskRunning));
    bench.expect::<StatusUpdateMessage>().await;
    // Long enough for a repetition, which must not come.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(bench.incoming.try_recv().is_err());
    // A reconnection by an agent that never went away gets a new link and everything pending.
    bench.send_and_close(&ReconnectExecutorMessage::default()).await;
    let again: ReregisterExecutorMessage = bench.expect().await;
    assert_eq!((again.updates.len(), again.tasks.len()), (1, 1));
    bench.send(&ExecutorReregisteredMessage::default()).await;
    assert_eq!(bench.event().await, Event::Reregistered);
}

#[tokio::test]
async fn the_agent_comes_back_at_the_same_place() {
    let mut bench = Bench::registered(&[]).await;
    bench.kill_agent().await;
    let uuid = bench.driver.update(TaskStatus::new("t.1", TaskState::TaskFinished));
    // A kill is obeyed even now.
    bench.send(&kill("t.1")).await;
    assert!(matches!(bench.event().await, Event::Kill { .. }));
    // How long the agent is away, and how long a message that must not come may take.
    tokio::time::sleep(Duration::from_millis(100)).await;
    bench.revive_agent().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(bench.incoming.try_recv().is_err(), "spoke without being asked");
    bench.send_and_close(&ReconnectExecutorMessage::default()).await;
    let again: ReregisterExecutorMessage = bench.expect().await;
    assert_eq!(again.updates[0].uuid.as_deref(), Some(uuid.as_bytes().as_slice()));
    // The acknowledgement ahead of the confirmation counts too.
    let acknowledgement = StatusUpdateAcknowledgementMessage {
        task_id: "t.1".into(),
        uuid: uuid.as_bytes().to_vec(),
        ..Default::default()
    };
    bench.send(&acknowledgement).await;
    bench.send(&ExecutorReregisteredMessage::default()).await;
    assert_eq!(bench.event().await, Event::Acknowledged { task_id: "t.1".into(), uuid });
    assert_eq!(bench.event().await, Event::Reregistered);
    assert!(bench.driver.drained(SOON).await);
}

#[tokio::test]
async fn an_agent_that_stays_away() {
    let mut bench = Bench::registered(&[("MESOS_RECOVERY_TIMEOUT", "300ms")]).await;
    bench.kill_agent().await;
    let gone = std::time::Instant::now();
    assert!(matches!(bench.event().await, Event::Shutdown { .. }));
    assert!(gone.elapsed() >= Duration::from_millis(250), "{:?}", gone.elapsed());
    bench.driver.update(TaskStatus::new("t.1", TaskState::TaskKilled));
    assert!(!bench.driver.drained(SOON).await);
}

#[tokio::test]
async fn an_agent_that_dies_before_it_answers() {
    let mut bench = Bench::new(&[]).await;
    bench.kill_agent().await;
    assert!(matches!(bench.event().await, Event::Shutdown { .. }));
}

#[tokio::test]
async fn without_libprocess_ip_the_address_of_the_link_is_told() {
    let bench = Bench::new(&[]).await;
    assert_eq!(bench.driver.pid().unwrap().address.ip().to_string(), "127.0.0.1");
    let advertised = Bench::new_advertised(&[
        ("LIBPROCESS_ADVERTISE_IP", "10.1.2.3"),
        ("LIBPROCESS_ADVERTISE_PORT", "99"),
    ])
    .await;
    assert_eq!(advertised, "executor(1)@10.1.2.3:99");
}

impl Bench {
    /// Only what the executor says of itself.
    async fn new_advertised(extra: &[(&str, &str)]) -> String {
        let (agent, _server, mut incoming) = agent_at("127.0.0.1:0").await;
        let pid = agent.to_string();
        let mut variables = vec![
            ("MESOS_SLAVE_PID", pid.as_str()),
            ("MESOS_FRAMEWORK_ID", "f"),
            ("MESOS_EXECUTOR_ID", "t"),
            ("MESOS_SLAVE_ID", "s"),
            ("MESOS_DIRECTORY", "/tmp"),
        ];
        variables.extend_from_slice(extra);
        let variables = variables.into_iter().map(|(a, b)| (OsString::from(a), OsString::from(b)));
        let (_driver, _events) = driver::connect(&Environment::from(variables).unwrap()).await.unwrap();
        incoming.recv().await.unwrap().from.unwrap().to_string()
    }
}

#[tokio::test]
async fn an_agent_that_cannot_be_reached() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let pid = format!("slave(1)@{unused}");
    let variables = [
        ("MESOS_SLAVE_PID", pid.as_str()),
        ("MESOS_FRAMEWORK_ID", "f"),
        ("MESOS_EXECUTOR_ID", "t"),
        ("MESOS_SLAVE_ID", "s"),
        ("MESOS_DIRECTORY", "/tmp"),
    ];
    let variables = variables.map(|(a, b)| (OsString::from(a), OsString::from(b)));
    let error = driver::connect(&Environment::from(variables).unwrap()).await.unwrap_err();
    let text = calico_mesos::error::chain(&error);
    assert!(text.contains(&pid) && text.contains("refused"), "{text}");
}

/// The default of fifteen minutes, with the clock turned forward.
#[tokio::test(start_paused = true)]
async fn the_recovery_timeout_of_a_real_agent() {
    let mut bench = Bench::registered(&[("MESOS_RECOVERY_TIMEOUT", "15mins")]).await;
    bench.kill_agent().await;
    let gone = tokio::time::Instant::now();
    assert!(matches!(bench.events.recv().await.unwrap(), Event::Shutdown { .. }));
    let waited = gone.elapsed().as_secs();
    assert!((899..=901).contains(&waited), "{waited} s");
}
