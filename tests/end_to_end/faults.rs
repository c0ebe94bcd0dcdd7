//! Executors that die, agents that restart, daemons that go away: nothing is left, nothing is told twice.

use std::time::Duration;

use calico_mesos::mesos::messages::TaskState;
use calico_mesos::task::report::steps::Step;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::kit::faults::Freeze;
use crate::kit::wait::eventually;
use crate::world::{app, calico, sh, with, Task, World, LIMIT};

pub fn signal(task: &Task<'_>, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(task.launched.executor_pid).unwrap()), signal).unwrap();
}

#[tokio::test]
async fn gc_finishes_a_killed_executor() {
    let world = World::new().await;
    let task = world.running(&app("/dead", "sleep 1000", calico())).await;
    signal(&task, Signal::SIGKILL);
    let status = task.ends().await;
    assert_eq!(
        (status.state(), status.message.as_deref()),
        (TaskState::TaskFailed, Some("Container terminated"))
    );
    assert!(!world.leftovers().await.is_empty());
    let output = world.gc();
    assert!(output.status.success(), "{output:?}");
    world.nothing_left().await;
}

#[tokio::test]
async fn the_next_executor_finishes_a_killed_one() {
    let world = World::new().await;
    let dead = world.running(&app("/dead", "sleep 1000", calico())).await;
    signal(&dead, Signal::SIGKILL);
    dead.ends().await;
    let next = world.running(&app("/next", "sleep 1000", calico())).await;
    let alone = async || (world.endpoints().await.len() <= 1).then_some(()).ok_or(&next);
    eventually("the dead task's endpoint is gone", alone).await;
    next.kill().await;
    world.nothing_left().await;
}

#[tokio::test]
async fn killed_at_many_moments_of_a_launch() {
    let world = World::new().await;
    for delay in [5, 15, 30, 45, 60, 75, 90, 110, 130, 160, 200] {
        let task = world.launch(&app("/early", "sleep 1000", calico())).await;
        tokio::time::sleep(Duration::from_millis(delay)).await;
        signal(&task, Signal::SIGKILL);
        task.ends().await;
    }
    // What was under way in Docker when its asker died takes a moment.
    world.gc();
    world.cleaned().await;
}

#[tokio::test]
async fn a_kill_at_many_moments_of_a_launch() {
    let world = World::new().await;
    for delay in [1, 10, 20, 40, 60, 80, 100, 150] {
        let task = world.launch(&app("/early", "sleep 1000", calico())).await;
        tokio::time::sleep(Duration::from_millis(delay)).await;
        world.agent.kill(&task.id, Some(Duration::ZERO)).await.unwrap();
        let status = task.ends().await;
        assert_eq!(status.state(), TaskState::TaskKilled, "after {delay} ms: {status:?}\n{}", task.log());
        task.executor_exit().await;
        world.nothing_left().await;
    }
}

#[tokio::test]
async fn sigterm_and_shutdown() {
    let world = World::new().await;
    let term = world.running(&app("/term", "sleep 1000", calico())).await;
    signal(&term, Signal::SIGTERM);
    let status = term.ends().await;
    assert_eq!((status.state(), status.message()), (TaskState::TaskFailed, "Container terminated"));
    term.executor_exit().await;
    let shut = world.running(&app("/shut", "sleep 1000", calico())).await;
    world.agent.shutdown_executor(&shut.id).await.unwrap();
    assert_eq!(shut.ends().await.state(), TaskState::TaskKilled);
    shut.executor_exit().await;
    world.nothing_left().await;
}

#[tokio::test]
async fn the_agent_restarts() {
    let world = World::new().await;
    let task = world.running(&app("/survivor", "sleep 1000", calico())).await;
    world.agent.stop().await.unwrap();
    world.agent.restart().await.unwrap();
    task.logs("registered again with agent ", 1).await;
    assert!(!task.states().iter().any(|state| state.is_terminal()), "{:?}\n{}", task.states(), task.log());
    assert_eq!(task.kill().await.state(), TaskState::TaskKilled);
    world.nothing_left().await;
}

#[tokio::test]
async fn an_update_that_waited_for_the_agent() {
    let world = World::new().await;
    let task = world.running(&app("/pending", "sleep 2", calico())).await;
    world.agent.stop().await.unwrap();
    task.logs("Container exited with status 0", 1).await;
    world.agent.restart().await.unwrap();
    assert_eq!(task.ends().await.state(), TaskState::TaskFinished, "{}", task.log());
    task.executor_exit().await;
    world.nothing_left().await;
}

#[tokio::test]
async fn without_checkpointing_the_agents_end_is_the_tasks() {
    let world = World::with(|_| (), |agent| agent.checkpoint = false).await;
    let task = world.running(&app("/short", "sleep 1000", calico())).await;
    world.agent.stop().await.unwrap();
    let gone = async || world.leftovers().await.is_empty().then_some(()).ok_or(&task);
    eventually("nothing is left", gone).await;
}

#[tokio::test]
async fn etcd_down_at_the_end_holds_nothing_up() {
    let mut world = World::new().await;
    let id = world.running(&app("/ends", "sleep 1000", calico())).await.id.clone();
    world.stack.etcd.as_mut().unwrap().kill();
    world.agent.kill(&id, Some(Duration::ZERO)).await.unwrap();
    let begun = std::time::Instant::now();
    world.agent.wait_for(&id, TaskState::TaskKilled, LIMIT).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "etcd held the terminal update up");
    world.agent.wait_exit(&id, LIMIT).await.unwrap();
    world.stack.etcd.as_mut().unwrap().restart().await.unwrap();
    assert!(world.gc().status.success());
    world.nothing_left().await;
}

#[tokio::test]
async fn a_docker_that_is_gone_does_not_keep_a_task_alive() {
    let mut world = World::new().await;
    let id = world.running(&app("/orphan", "sleep 1000", calico())).await.id.clone();
    world.stack.docker.kill();
    world.agent.kill(&id, Some(Duration::ZERO)).await.unwrap();
    world.agent.wait_for(&id, TaskState::TaskKilled, LIMIT).await.unwrap();
    assert_eq!(world.task_keys().await, Vec::<String>::new());
    world.agent.wait_exit(&id, LIMIT).await.unwrap();
    world.stack.docker.restart().await.unwrap();
    // Whether Docker has seen the end could not be asked before.
    let output = world.gc();
    assert!(output.status.success(), "{output:?}");
    world.nothing_left().await;
}

/// Whether a connection waits in the queue of a Docker that accepts none.
fn waits_at(host: &str) -> bool {
    let socket = host.strip_prefix("unix://").unwrap();
    let listening = sh(&format!("ss -xlH src {socket}"));
    listening.split_whitespace().nth(2).is_some_and(|queue| queue.parse::<u32>().unwrap() > 0)
}

/// A daemon that hangs when it is asked to start: the kill is answered all the same, and what Docker makes of
/// the start later on is found.
#[tokio::test]
async fn a_kill_while_docker_hangs_in_start() {
    let folder = tempfile::tempdir().unwrap();
    let steps = folder.path().join("steps");
    let listener = UnixListener::bind(&steps).unwrap();
    let setting = ("paths.steps".to_owned(), format!("{:?}", steps.display().to_string()));
    let world = World::with(|stack| stack.config.extend([setting]), |_| ()).await;
    let task = world.launch(&app("/hangs", "sleep 1000", calico())).await;
    let mut attached = reached(&listener, Step::Attached).await;
    world.stack.docker.freeze();
    attached.shutdown().await.unwrap();
    drop(attached);
    // Nothing is held up any more.
    drop(listener);
    eventually("the executor waits for Docker's answer", async || waits_at(&world.stack.docker.host())).await;
    world.agent.kill(&task.id, Some(Duration::ZERO)).await.unwrap();
    let status = task.ends().await;
    assert_eq!(status.state(), TaskState::TaskKilled, "{status:?}\n{}", task.log());
    world.stack.docker.thaw();
    task.executor_exit().await;
    world.cleaned().await;
}

/// A start that fails before the gate says why; that etcd does not answer meanwhile is not the reason.
#[tokio::test]
async fn a_start_that_fails_by_itself_is_not_blamed_on_etcd() {
    let folder = tempfile::tempdir().unwrap();
    let steps = folder.path().join("steps");
    let listener = UnixListener::bind(&steps).unwrap();
    let setting = ("paths.steps".to_owned(), format!("{:?}", steps.display().to_string()));
    let world = World::with(|stack| stack.config.extend([setting]), |_| ()).await;
    let mut definition = app("/missing", "", calico());
    definition.as_object_mut().unwrap().remove("cmd");
    definition["args"] = serde_json::json!(["no-such-program"]);
    let task = world.launch(&definition).await;
    let held = reached(&listener, Step::Attached).await;
    let etcd = world.stack.etcd.as_ref().unwrap();
    etcd.freeze();
    drop((held, listener));
    let message = task.fails().await;
    etcd.thaw();
    assert!(message.contains("no-such-program") && !message.contains("CM-ETCD"), "{message}");
    task.executor_exit().await;
    world.cleaned().await;
}

/// `docker container prune` and `docker system prune`, by a timer say, take what is merely created.
#[tokio::test]
async fn a_container_that_is_pruned_before_it_starts_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let steps = folder.path().join("steps");
    let setting = ("paths.steps".to_owned(), format!("{:?}", steps.display().to_string()));
    let world = World::with(|stack| stack.config.extend([setting]), |_| ()).await;
    for step in [Step::Created, Step::Attached] {
        let listener = UnixListener::bind(&steps).unwrap();
        let line =
            "echo up > /mnt/mesos/sandbox/up; hostname -i > /mnt/mesos/sandbox/address; exec sleep 1000";
        let task = world.launch(&app("/pruned", line, calico())).await;
        let held = reached(&listener, step).await;
        let first = world.containers().await[0]["Id"].clone();
        let (status, answer) = world.stack.docker.request("POST", "/containers/prune", b"").await.unwrap();
        assert!(status == 200 && answer.contains(first.as_str().unwrap()), "{answer}");
        drop((held, listener));
        std::fs::remove_file(&steps).unwrap();
        task.reaches(TaskState::TaskRunning).await;
        assert_ne!(world.containers().await[0]["Id"], first);
        assert_eq!(task.file("up").await, "up\n");
        assert_eq!(task.file("address").await.trim(), task.addresses()[0], "{}", task.log());
        assert_eq!(task.log().matches("it is made again").count(), 1, "{}", task.log());
        // Docker stops the container that runs, not the one that is gone.
        assert_eq!(task.kill().await.state(), TaskState::TaskKilled);
        assert!(!task.log().contains("killed without Docker"), "{}", task.log());
        world.stack.docker.request("POST", "/containers/prune", b"").await.unwrap();
    }
    world.nothing_left().await;
}

/// The life that is held up there; those held up before are let go.
pub async fn reached(listener: &UnixListener, step: Step) -> UnixStream {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        if line.trim_end().ends_with(step.name()) {
            return stream.into_inner();
        }
    }
}

#[tokio::test]
async fn consul_away_changes_nothing() {
    let mut world = World::with(|stack| stack.consul = true, |_| ()).await;
    world.stack.consul.as_mut().unwrap().kill();
    let id =
        world.running(&app("/quiet", "sleep 1000", with(calico(), "SERVICE_PORT", "80"))).await.id.clone();
    world.stack.consul.as_mut().unwrap().restart().await.unwrap();
    world.registered("quiet-direct").await;
    world.agent.kill(&id, None).await.unwrap();
    world.agent.wait_exit(&id, LIMIT).await.unwrap();
    world.nothing_left().await;
}

#[tokio::test]
async fn consul_that_does_not_answer_at_the_end_is_asked_again() {
    let world = World::with(|stack| stack.consul = true, |_| ()).await;
    let task = world.running(&app("/quiet", "sleep 1000", with(calico(), "SERVICE_PORT", "80"))).await;
    world.registered("quiet").await;
    let consul = world.stack.consul.as_ref().unwrap();
    consul.freeze();
    assert_eq!(task.kill().await.state(), TaskState::TaskKilled);
    assert_eq!(world.task_keys().await, Vec::<String>::new(), "an address was held back for Consul");
    consul.thaw();
    assert!(world.gc().status.success());
    world.nothing_left().await;
}

#[tokio::test]
async fn what_a_task_sets_cannot_steer_the_executor() {
    let world = World::new().await;
    let mut env = calico();
    for (name, value) in [
        ("LD_PRELOAD", "./evil.so"),
        ("LD_LIBRARY_PATH", "."),
        ("GLIBC_TUNABLES", "glibc.malloc.check=3:glibc.rtld.optional_static_tls=512"),
        ("SSL_CERT_FILE", "/nonexistent"),
        ("SSL_CERT_DIR", "/nonexistent"),
        ("http_proxy", "http://127.0.0.1:1"),
        ("https_proxy", "http://127.0.0.1:1"),
        ("ALL_PROXY", "http://127.0.0.1:1"),
        ("DOCKER_HOST", "unix:///nonexistent"),
        ("ETCD_ENDPOINTS", "http://127.0.0.1:1"),
        ("CONSUL_HTTP_ADDR", "127.0.0.1:1"),
        ("CALICO_MESOS_CONFIG", "/nonexistent"),
        ("RUST_LOG", "trace"),
        ("PATH", "/nonexistent"),
        ("TMPDIR", "/nonexistent"),
    ] {
        env = with(env, name, value);
    }
    // A library that would tell on itself.
    let task = world.launch(&app("/hostile", "/bin/sleep 1000", env)).await;
    task.reaches(TaskState::TaskRunning).await;
    assert_eq!(task.kill().await.state(), TaskState::TaskKilled);
    world.nothing_left().await;
    let file = crate::world::sh(&format!("file -L {}", crate::world::EXECUTOR));
    assert!(file.is_empty() || file.contains("static"), "{file}");
}
