//! The driver against a hand-written agent: whatever comes over the wire, it goes on.

use std::collections::BTreeMap;

use calico_mesos::mesos::driver::{Driver, Event};
use calico_mesos::mesos::http::recordio;
use calico_mesos::mesos::messages::event::{self, Type};
use calico_mesos::mesos::messages::{Event as Said, TaskState, TaskStatus};
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::peer::{connect, next, SOON};

const OK: &str =
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/x-protobuf\r\n\r\n";

struct Bench {
    listener: TcpListener,
    driver: Driver,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Bench {
    async fn new(extra: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let agent = format!("slave(1)@{}", listener.local_addr().unwrap());
        let mut variables: BTreeMap<String, String> = [
            ("MESOS_SLAVE_PID", agent.as_str()),
            ("MESOS_FRAMEWORK_ID", "f"),
            ("MESOS_EXECUTOR_ID", "e"),
            ("MESOS_SLAVE_ID", "s"),
            ("MESOS_DIRECTORY", "/sandbox"),
            ("MESOS_CHECKPOINT", "1"),
        ]
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
        variables.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let (driver, events) = connect(variables);
        Self { listener, driver, events }
    }

    /// The next connection with its request answered.
    async fn answer(&self, answer: &str) -> TcpStream {
        let (mut stream, _) =
            tokio::time::timeout(SOON, self.listener.accept()).await.expect("no call").unwrap();
        let mut request = [0; 4096];
        assert_ne!(stream.read(&mut request).await.unwrap(), 0);
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream
    }

    async fn event(&mut self) -> Event {
        next(&mut self.events).await
    }
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn subscribed() -> Vec<u8> {
    let event = Said {
        r#type: Some(Type::Subscribed.into()),
        subscribed: Some(event::Subscribed::default()),
        ..Said::default()
    };
    chunk(&recordio::encode(&event.encode_to_vec()))
}

#[tokio::test]
async fn records_that_cannot_be_used_are_told_and_the_stream_goes_on() {
    let mut bench = Bench::new(&[]).await;
    let mut stream = bench.answer(OK).await;
    stream.write_all(&subscribed()).await.unwrap();
    assert!(matches!(bench.event().await, Event::Registered { .. }));
    for bad in [&b""[..], b"\x0a\xff", b"\x08\x4d", b"\x08\x02"] {
        stream.write_all(&chunk(&recordio::encode(bad))).await.unwrap();
        assert!(matches!(bench.event().await, Event::Malformed { .. }), "{bad:?}");
    }
    // Chunks that end anywhere.
    let message = Said {
        r#type: Some(Type::Message.into()),
        message: Some(event::Message { data: b"x".to_vec() }),
        ..Said::default()
    };
    for byte in recordio::encode(&message.encode_to_vec()) {
        stream.write_all(&chunk(&[byte])).await.unwrap();
    }
    assert_eq!(bench.event().await, Event::Message(b"x".to_vec()));
}

#[tokio::test]
async fn garbage_in_place_of_records_makes_it_subscribe_again() {
    let mut bench = Bench::new(&[]).await;
    let mut stream = bench.answer(OK).await;
    stream.write_all(&subscribed()).await.unwrap();
    assert!(matches!(bench.event().await, Event::Registered { .. }));
    stream.write_all(&chunk(b"no length\n")).await.unwrap();
    assert!(matches!(bench.event().await, Event::Malformed { what } if what.contains("length")));
    let mut stream = bench.answer(OK).await;
    stream.write_all(&subscribed()).await.unwrap();
    assert_eq!(bench.event().await, Event::Reregistered);
}

#[tokio::test]
async fn no_answer_that_can_be_mended_ends_it() {
    let mut bench = Bench::new(&[]).await;
    drop(bench.answer("").await);
    drop(bench.answer("what is this?\r\n\r\n").await);
    drop(bench.answer("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await);
    drop(bench.answer("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nlater").await);
    drop(bench.answer(OK).await);
    let mut stream = bench.answer(OK).await;
    stream.write_all(&subscribed()).await.unwrap();
    assert!(matches!(bench.event().await, Event::Registered { .. }));
    // A refusal of the call, then of its connection; the same update until it is taken.
    let uuid = bench.driver.update(TaskStatus::new("t", TaskState::TaskRunning));
    drop(bench.answer("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await);
    drop(bench.answer("").await);
    let _calls = bench.answer("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").await;
    let acknowledged = Said {
        r#type: Some(Type::Acknowledged.into()),
        acknowledged: Some(event::Acknowledged { task_id: "t".into(), uuid: uuid.as_bytes().to_vec() }),
        ..Said::default()
    };
    stream.write_all(&chunk(&recordio::encode(&acknowledged.encode_to_vec()))).await.unwrap();
    assert_eq!(bench.event().await, Event::Acknowledged { task_id: "t".into(), uuid });
}

/// One that hangs: each call is given up and sent again over a new connection.
#[tokio::test(start_paused = true)]
async fn an_agent_that_accepts_and_never_answers_is_asked_again() {
    let bench = Bench::new(&[]).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        let accepted = tokio::time::Instant::now();
        silent.push(bench.listener.accept().await.unwrap());
        if silent.len() > 1 {
            let waited = accepted.elapsed().as_secs();
            assert!((15..=18).contains(&waited), "{waited} s");
        }
    }
}

/// The default of fifteen minutes, with the clock turned forward.
#[tokio::test(start_paused = true)]
async fn the_recovery_timeout_of_a_real_agent() {
    let mut bench = Bench::new(&[("MESOS_RECOVERY_TIMEOUT", "15mins")]).await;
    let mut stream = bench.answer(OK).await;
    stream.write_all(&subscribed()).await.unwrap();
    assert!(matches!(bench.events.recv().await, Some(Event::Registered { .. })));
    let gone = tokio::time::Instant::now();
    let Bench { listener, driver: _driver, mut events } = bench;
    drop((stream, listener));
    assert!(matches!(events.recv().await, Some(Event::Shutdown { .. })));
    let waited = gone.elapsed().as_secs();
    assert!((899..=901).contains(&waited), "{waited} s");
}
