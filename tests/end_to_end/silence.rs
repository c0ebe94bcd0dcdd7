//! Peers that accept a connection and never answer: every wait ends, and a kill is heard in each of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use calico_mesos::mesos::messages::TaskState;
use tokio::io::{copy_bidirectional, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::watch;

use crate::world::{app, calico, with, World, LIMIT};

/// What a kill may take when Docker is silent: 15 s for the call under way, 5 s for everything else.
const KILLED: Duration = Duration::from_secs(20);

/// A dockerd whose answers to some requests never come, until it is let go: then it carries them out, late.
struct Mute {
    socket: PathBuf,
    silent: watch::Sender<bool>,
    /// How many requests it has not answered.
    held: watch::Receiver<usize>,
    _folder: tempfile::TempDir,
}

impl Mute {
    /// `word`: what the first line of a request that is held back has in it. Where dockerd is comes later.
    fn listen(word: &'static str, dockerd: watch::Receiver<Option<PathBuf>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let (silent, silence) = watch::channel(true);
        let (holding, held) = watch::channel(0);
        let holding = Arc::new(holding);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, word, dockerd.clone(), silence.clone(), holding.clone()));
            }
        });
        Self { socket, silent, held, _folder: folder }
    }

    async fn holds_a_request(&mut self) {
        let held = self.held.wait_for(|held| *held > 0);
        tokio::time::timeout(LIMIT, held).await.expect("Docker is not asked").unwrap();
    }

    fn let_go(&self) {
        self.silent.send_replace(false);
    }
}

async fn carry(
    mut client: UnixStream,
    word: &str,
    mut dockerd: watch::Receiver<Option<PathBuf>>,
    mut silence: watch::Receiver<bool>,
    holding: Arc<watch::Sender<usize>>,
) {
    let mut request = vec![0; 65536];
    let Ok(length) = client.read(&mut request).await else { return };
    let line = String::from_utf8_lossy(&request[..length]).lines().next().unwrap_or_default().to_owned();
    if line.contains(word) && *silence.borrow() {
        holding.send_modify(|held| *held += 1);
        silence.wait_for(|silent| !silent).await.unwrap();
    }
    let path = dockerd.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    let mut server = UnixStream::connect(path).await.unwrap();
    server.write_all(&request[..length]).await.unwrap();
    // The executor may have gone meanwhile, which changes nothing for dockerd.
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

/// A world whose executors reach dockerd through such a peer.
async fn world(word: &'static str, config: &[(&str, &str)]) -> (World, Mute) {
    let (aim, dockerd) = watch::channel(None);
    let mute = Mute::listen(word, dockerd);
    let socket = format!("\"unix://{}\"", mute.socket.display());
    let world = World::with(
        |stack| {
            let own = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            stack.config.extend(own.chain([("docker.host".to_owned(), socket)]));
        },
        |_| (),
    )
    .await;
    aim.send_replace(Some(world.stack.docker.socket.clone()));
    // The sender may go: the path stays readable.
    (world, mute)
}

/// The cleaner finishes what Docker does at last. It blocks its thread, while the peer has another one.
async fn cleaned(world: &World) {
    world.cleaned().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_is_heard_while_docker_does_not_answer() {
    for (word, limit) in [
        ("/containers/create", KILLED),
        ("/attach", Duration::from_secs(5)),
        ("/wait", Duration::from_secs(5)),
        ("/start", KILLED),
    ] {
        let (world, mut mute) = world(word, &[]).await;
        let task = world.launch(&app("/mute", "sleep 1000", calico())).await;
        mute.holds_a_request().await;
        let begun = Instant::now();
        world.agent.kill(&task.id, Some(Duration::ZERO)).await.unwrap();
        let status = task.ends().await;
        let took = begun.elapsed();
        assert_eq!(status.state(), TaskState::TaskKilled, "{word}: {status:?}\n{}", task.log());
        assert!(took < limit, "{word}: the kill took {took:?}\n{}", task.log());
        eprintln!("{word}: killed after {took:?}");
        mute.let_go();
        task.executor_exit().await;
        cleaned(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_an_answer_ends_with_the_gates_time() {
    let (world, mute) = world("/start", &[("runtime.gate_timeout", "\"2s\"")]).await;
    let begun = Instant::now();
    let task = world.launch(&app("/mute", "sleep 1000", calico())).await;
    let message = task.fails().await;
    let took = begun.elapsed();
    assert!(message.contains("CM-DOCKER") && message.contains("start the container"), "{message}");
    assert!(took < Duration::from_secs(20), "the gate's 2 s and ten more took {took:?}");
    assert_eq!(world.task_keys().await, Vec::<String>::new(), "the address was held back");
    mute.let_go();
    task.executor_exit().await;
    cleaned(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_docker_without_an_answer_holds_a_teardown_for_twenty_seconds() {
    // The container is there, etcd is not: the launch fails, and Docker is to remove the container.
    let config = [("etcd.endpoints", "[\"http://127.0.0.1:1\"]"), ("launch.retry_for", "\"2s\"")];
    let (world, mut mute) = world("/json", &config).await;
    let task = world.launch(&app("/mute", "sleep 1000", calico())).await;
    mute.holds_a_request().await;
    let begun = Instant::now();
    let message = task.fails().await;
    assert!(message.contains("CM-ETCD"), "{message}");
    assert!(begun.elapsed() < Duration::from_secs(22), "{:?}\n{}", begun.elapsed(), task.log());
    world.configure("etcd.endpoints", &format!("[\"{}\"]", world.stack.etcd_endpoint));
    mute.let_go();
    task.executor_exit().await;
    cleaned(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consul_without_an_answer_does_not_hold_the_terminal_update() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("\"http://{}\"", silent.local_addr().unwrap());
    let world = World::with(
        |stack| {
            let own = [("consul.enabled", "true"), ("consul.address", address.as_str())];
            stack.config.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        },
        |_| (),
    )
    .await;
    let env = with(calico(), "SERVICE_PORT", "80");
    let task =
        world.running(&app("/mute", "until [ -e /mnt/mesos/sandbox/end ]; do sleep 0.05; done", env)).await;
    // Questions are answered: a registration that is under way may be carried out late.
    let _connection = loop {
        let (mut connection, _) = silent.accept().await.unwrap();
        let mut request = [0; 4096];
        let length = connection.read(&mut request).await.unwrap();
        if !request[..length].starts_with(b"GET ") {
            break connection;
        }
        let empty = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]";
        connection.write_all(empty).await.unwrap();
    };
    let begun = Instant::now();
    std::fs::write(task.sandbox().join("end"), "").unwrap();
    let status = task.ends().await;
    let took = begun.elapsed();
    assert_eq!(status.state(), TaskState::TaskFinished, "{status:?}\n{}", task.log());
    assert!(took < Duration::from_secs(4), "the update took {took:?}\n{}", task.log());
    assert_eq!(world.task_keys().await, Vec::<String>::new(), "the address was held back");
    task.executor_exit().await;
    let records = || names(&world.config.paths.journal());
    assert_eq!(records().len(), 1, "the cleaner has nothing to finish");
    world.configure("consul.enabled", "false");
    cleaned(&world).await;
}

fn names(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect()
}
