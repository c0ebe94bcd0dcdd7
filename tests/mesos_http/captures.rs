//! What was captured is read and written back byte for byte; our driver and our agent say the same.

use calico_mesos::mesos::driver::Event;
use calico_mesos::mesos::messages::event::Type;
use calico_mesos::mesos::messages::{call, Event as Said, TaskState, TaskStatus};
use calico_mesos::rig::agent::{Agent, AgentOptions};
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::fixtures::{bytes, call, chunks, events, requests, split, undated};
use super::peer::{connect, next, SOON};

use crate::kit::wait::within;

#[test]
fn calls_come_back_byte_for_byte() {
    let requests: Vec<_> =
        super::fixtures::all(".c2s.bin").iter().flat_map(|bytes| requests(bytes)).collect();
    assert!(requests.len() > 12, "only {} calls", requests.len());
    for request in requests {
        assert_eq!(call(&request).encode_to_vec(), request.body);
    }
}

#[test]
fn events_come_back() {
    let mut found = 0;
    for stream in super::fixtures::all("001.s2c.bin") {
        for (bytes, event) in events(split(&stream).1) {
            found += 1;
            match event.r#type() {
                // A real agent writes a field that version 1 does not know, and writes it last.
                Type::Subscribed => assert_eq!(Said::decode(&event.encode_to_vec()[..]).unwrap(), event),
                _ => assert_eq!(event.encode_to_vec(), bytes),
            }
        }
    }
    assert!(found > 12, "only {found} events");
}

/// The agent's side of a connection: the head of the request, then its body.
async fn request(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    loop {
        let mut piece = [0; 1024];
        let count = tokio::time::timeout(SOON, stream.read(&mut piece)).await.unwrap().unwrap();
        assert_ne!(count, 0, "the driver hung up");
        read.extend_from_slice(&piece[..count]);
        let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&read[..end]).into_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        if read.len() == end + 4 + length.parse::<usize>().unwrap() {
            return read;
        }
    }
}

/// a1 again: the driver gets what the real executor got, and says what it said.
#[tokio::test]
async fn the_driver_speaks_as_captured() {
    let (subscribe, updates) = (bytes("a1/001.c2s.bin"), bytes("a1/002.c2s.bin"));
    let captured = call(&requests(&subscribe)[0]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let variables = [
        ("MESOS_SLAVE_PID", format!("slave(1)@{address}")),
        ("MESOS_FRAMEWORK_ID", captured.framework_id.value.clone()),
        ("MESOS_EXECUTOR_ID", captured.executor_id.value.clone()),
        ("MESOS_SLAVE_ID", "s".into()),
        ("MESOS_DIRECTORY", "/sandbox".into()),
    ];
    let (driver, mut told) = connect(variables.map(|(name, value)| (name.to_owned(), value)).into());
    let (mut stream, _) = listener.accept().await.unwrap();
    let asked = request(&mut stream).await;
    let here = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("127.0.0.1:5051", &address);
    assert_eq!(String::from_utf8_lossy(&asked), here(&subscribe));

    stream.write_all(&bytes("a1/001.s2c.bin")).await.unwrap();
    let Event::Registered { executor, framework, container, .. } = next(&mut told).await else { panic!() };
    assert_eq!(executor.executor_id, captured.executor_id);
    assert_eq!(framework.name, "mini");
    assert!(container.is_some());
    assert!(matches!(next(&mut told).await, Event::Launch(task) if task.task_id.value == "a1.task-1"));

    // The acknowledgements in the capture are of the capture's updates: nobody here waits for them.
    let uuid = driver.update(TaskStatus::new("a1.task-1", TaskState::TaskStarting));
    let (mut calls, _) = listener.accept().await.unwrap();
    let sent = request(&mut calls).await;
    assert_eq!(split(&sent).0, here(split(&updates).0.as_bytes()));
    let (mut ours, theirs) = (call(&requests(&sent)[0]), call(&requests(&updates)[0]));
    let status =
        |call: &mut call::Update| (call.status.uuid.take().unwrap(), call.status.timestamp.take().unwrap());
    let mut theirs_update = theirs.update.clone().unwrap();
    let (id, time) = status(ours.update.as_mut().unwrap());
    assert!(id == uuid.as_bytes() && time > 1.7e9);
    status(&mut theirs_update);
    assert_eq!(ours.update, Some(theirs_update));
    assert_eq!((ours.executor_id, ours.r#type), (theirs.executor_id, theirs.r#type));
}

/// The captured requests get from our agent what they got from a real one.
#[tokio::test]
async fn the_agent_answers_as_captured() {
    let stream = bytes("a4/001.s2c.bin");
    let (head, body) = split(&stream);
    let captured = events(body);
    let subscribed = captured[0].1.subscribed.clone().unwrap();
    let task = captured[1].1.launch.clone().unwrap().task;
    let dir = tempfile::tempdir().unwrap();
    let mut options = AgentOptions::new(dir.path(), "/nowhere");
    options.framework_id = subscribed.framework_info.id.clone().unwrap().value;
    options.framework_name = subscribed.framework_info.name.clone();
    options.checkpoint = subscribed.framework_info.checkpoint();
    options.slave_id = task.slave_id.value.clone();
    options.hostname = subscribed.agent_info.hostname.clone();
    options.resources = subscribed.agent_info.resources.clone();
    let agent = Agent::start(options).await.unwrap();
    // Its program is not here; what counts is who subscribes.
    let launched = agent.launch(task).await.unwrap();

    let address = agent.pid().address;
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(&bytes("a4/001.c2s.bin")).await.unwrap();
    let mut read = Vec::new();
    while read.windows(4).all(|four| four != b"\r\n\r\n") || chunks(split(&read).1).len() < 2 {
        assert_ne!(tokio::time::timeout(SOON, connection.read_buf(&mut read)).await.unwrap().unwrap(), 0);
    }
    let (our_head, our_body) = split(&read);
    assert_eq!(undated(&our_head), undated(&head));
    let ours = events(our_body);
    let mut expected = subscribed;
    expected.agent_info.port = Some(address.port().into());
    expected.container_id.as_mut().unwrap().value = launched.container_id;
    assert_eq!(ours[0].1.subscribed, Some(expected));
    assert_eq!(String::from_utf8_lossy(&ours[1].0), String::from_utf8_lossy(&captured[1].0));

    let mut calls = TcpStream::connect(address).await.unwrap();
    let updates = bytes("a4/002.c2s.bin");
    let expected = bytes("a4/002.s2c.bin");
    calls.write_all(&updates).await.unwrap();
    let mut answers = vec![0; expected.len()];
    tokio::time::timeout(SOON, calls.read_exact(&mut answers)).await.unwrap().unwrap();
    let text = |bytes: &[u8]| undated(&String::from_utf8_lossy(bytes)).join("\r\n");
    assert_eq!(text(&answers), text(&expected));
    let states: Vec<_> = agent.history("a4.task-1").iter().map(|update| update.status.state()).collect();
    let told = requests(&updates);
    let told: Vec<_> = told.iter().map(|request| call(request).update.unwrap().status.state()).collect();
    assert_eq!(states, told);
}

#[tokio::test]
async fn an_agent_that_recovers_refuses_as_captured() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = AgentOptions::new(dir.path(), "/nowhere");
    options.containerizer_recovery = SOON * 6;
    let agent = Agent::start(options).await.unwrap();
    agent.stop().await.unwrap();
    tokio::select! {
        _ = agent.restart() => panic!("recovered"),
        answer = refused(&agent) => {
            let captured = bytes("a5/004.s2c.bin");
            let (head, body) = split(&captured);
            let (our_head, our_body) = split(&answer);
            assert_eq!(undated(&our_head), undated(&head));
            assert_eq!(our_body, body);
        }
    }
}

async fn refused(agent: &Agent) -> Vec<u8> {
    let connect = async || TcpStream::connect(agent.pid().address).await;
    let mut stream = within(SOON, "the agent listens", connect).await;
    stream.write_all(&bytes("a1/001.c2s.bin")).await.unwrap();
    let mut answer = vec![0; bytes("a5/004.s2c.bin").len()];
    tokio::time::timeout(SOON, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    answer
}
