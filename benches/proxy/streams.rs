//! The proxy's memory with a thousand open streams.

use std::time::Duration;

use calico_mesos::rig::daemons::Stack;
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::client::Client;
use super::figures::{Figure, Goal};
use super::program::Program;

const STREAMS: usize = 1000;
/// Each is a process in the container.
const EXECS: usize = 50;
const ATTACHED: usize = STREAMS / 2 - EXECS;

#[derive(Default)]
pub struct Streams {
    before: Figure,
    attached: Figure,
    all: Figure,
    events: Figure,
}

pub async fn measure(stack: &Stack, proxy: &Program) -> Streams {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("up to the hard limit");
    let mut docker = Client::unix(&stack.docker.socket).await;
    let plain = json!({"Image": "busybox", "Cmd": ["sleep", "1000"]}).to_string();
    docker.done("POST", "/containers/create?name=streams", &plain).await;
    docker.done("POST", "/containers/streams/start", "").await;
    let mut streams = Streams::default();
    streams.before.push(proxy.memory());

    let mut held = Vec::new();
    for number in 0..ATTACHED {
        held.push(attach(proxy, "/containers/streams/attach?stream=1&stdout=1", "", number % 2 == 0).await);
    }
    for number in 0..EXECS {
        let body = json!({"AttachStdout": true, "Cmd": ["sleep", "1000"]}).to_string();
        let exec = docker.done("POST", "/containers/streams/exec", &body).await;
        let path = format!("/exec/{}/start", exec["Id"].as_str().expect("an id"));
        held.push(attach(proxy, &path, "{}", number % 2 == 0).await);
    }
    streams.attached.push(proxy.memory());
    for _ in 0..STREAMS / 2 {
        held.push(events(proxy).await);
    }
    streams.all.push(proxy.memory());
    drop(held);
    docker.done("DELETE", "/containers/streams?force=1", "").await;
    // Long enough for Docker and the proxy to see that they have ended.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut held = Vec::new();
    for _ in 0..STREAMS {
        held.push(events(proxy).await);
    }
    streams.events.push(proxy.memory());
    streams
}

/// With `Upgrade` as the docker command does it, and without as older clients do.
async fn attach(proxy: &Program, path: &str, body: &str, upgrade: bool) -> UnixStream {
    let upgrade = if upgrade { "Connection: Upgrade\r\nUpgrade: tcp\r\n" } else { "" };
    let headers = format!("{upgrade}Content-Type: application/json\r\nContent-Length: {}", body.len());
    open(proxy, &format!("POST {path} HTTP/1.1\r\nHost: docker\r\n{headers}\r\n\r\n{body}")).await
}

async fn events(proxy: &Program) -> UnixStream {
    open(proxy, "GET /events HTTP/1.1\r\nHost: docker\r\n\r\n").await
}

/// Returns when the head of the answer has come.
async fn open(proxy: &Program, request: &str) -> UnixStream {
    let mut stream = UnixStream::connect(&proxy.socket).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole head"));
    }
    let status = head.get(9..12).unwrap_or_default();
    assert!([&b"101"[..], b"200"].contains(&status), "{request}{}", String::from_utf8_lossy(&head));
    stream
}

impl Streams {
    pub fn print(&self) {
        println!("{}", self.before.row("the proxy's resident memory without streams", "MB"));
        println!("{}", self.attached.row("  with 500 of attach and exec", "MB"));
        println!("{}", self.all.row("  and 500 of events besides", "MB"));
        println!("{}", self.events.row("  with 1000 of events alone, later", "MB"));
    }

    pub fn goals(&self) -> Vec<Goal> {
        vec![
            Goal::new("proxy-1000-streams-mb", self.all.highest(), 64.0),
            Goal::new("proxy-1000-events-mb", self.events.highest(), 64.0),
        ]
    }
}
