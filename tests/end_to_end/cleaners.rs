//! Several cleaners, many records, and cleaners that are told to go or die in the middle.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use calico_mesos::mesos::messages::TaskState;
use calico_mesos::names::ContainerId;
use nix::sys::signal::Signal;
use serde_json::{json, Value};

use crate::gc::{executor_dies, record, signal};
use crate::kit::wait::next_second;
use crate::world::{app, calico, tell_custom_executors, with, World, CLI, EXECUTOR};

/// Holds up whoever passes a step that `hold` names, until it is dropped.
struct Holder {
    listener: UnixListener,
}

impl Holder {
    fn listen(world: &World) -> Self {
        let path = world.stack.dir.join("steps");
        world.configure("paths.steps", &format!("{path:?}"));
        Self { listener: UnixListener::bind(path).unwrap() }
    }

    /// Lets all others pass.
    fn until(&self, task: &str, step: &str) -> UnixStream {
        for stream in self.listener.incoming() {
            let stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            if line.trim() == format!("{task} {step}") {
                return stream;
            }
        }
        unreachable!("a listener does not end")
    }
}

#[tokio::test]
async fn two_cleaners_and_one_that_is_killed_in_the_middle() {
    let world = World::new().await;
    let task = world.running(&app("/dead", "sleep 1000", calico())).await;
    executor_dies(&task).await;
    let holder = Holder::listen(&world);
    for step in ["deregistered", "stopped", "unforwarded", "unwired", "released", "tidied"] {
        let mut first = world.gc_command().stdout(Stdio::null()).spawn().unwrap();
        let held = holder.until(&task.id, step);
        let second = world.gc();
        assert!(second.status.success(), "{second:?}");
        assert!(String::from_utf8_lossy(&second.stdout).contains("another cleaner runs"), "{second:?}");
        assert!(record(&task).exists(), "the record goes last");
        first.kill().unwrap();
        first.wait().unwrap();
        drop(held);
    }
    drop(holder);
    let (code, json) = world.gc_json(&[]);
    assert_eq!(code, 0, "{json:#}");
    world.nothing_left().await;
}

#[tokio::test]
async fn a_starting_executor_that_cleans_up_yields_to_sigterm() {
    let world = World::new().await;
    let dead = world.running(&app("/dead", "sleep 1000", calico())).await;
    executor_dies(&dead).await;
    let holder = Holder::listen(&world);
    let (dead_id, next) = (dead.id.clone(), world.launch(&app("/next", "sleep 1000", calico())).await);
    let waiting = tokio::task::spawn_blocking(move || {
        let held = holder.until(&dead_id, "stopped");
        (holder, held)
    });
    let (holder, held) = waiting.await.unwrap();
    signal(&next, Signal::SIGTERM);
    // Its own way back passes the same steps.
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let passing = {
        let stop = stop.clone();
        holder.listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                drop(holder.listener.accept());
                std::thread::sleep(Duration::from_millis(2));
            }
        })
    };
    // The agent's word on an executor that ends by a signal.
    assert_eq!(next.ends().await.state(), TaskState::TaskFailed, "{}", next.log());
    next.executor_exit().await;
    drop(held);
    assert!(record(&dead).exists(), "left to the next cleaner");
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    passing.join().unwrap();
    assert!(world.gc().status.success());
    world.nothing_left().await;
}

/// Two agents of one host, each with a configuration of its own: neither's journal knows the other's tasks.
#[tokio::test]
async fn tasks_of_another_configuration_on_the_same_host() {
    let world = World::with(|_| (), tell_custom_executors).await;
    let ours = std::fs::read_to_string(&world.stack.config).unwrap();
    let theirs = world.stack.dir.join("other.toml");
    let text = ours.lines().filter(|line| !line.starts_with("gc.")).map(|line| {
        let own =
            ["run", "state", "log"].into_iter().find(|name| line.starts_with(&format!("paths.{name} =")));
        own.map_or_else(
            || line.to_owned(),
            |name| format!("paths.{name} = {:?}", world.stack.dir.join("other").join(name)),
        )
    });
    let settings = ["gc.orphans = \"remove\"".to_owned(), "gc.grace = \"0s\"".to_owned()];
    std::fs::write(&theirs, text.chain(settings).collect::<Vec<_>>().join("\n")).unwrap();
    // Older than anything that lives, by Docker's whole seconds: no reason to keep.
    let journal = world.stack.dir.join("other/state/tasks");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&journal).unwrap();
    next_second().await;

    let drop_in = world.running(&app("/drop-in", "sleep 1000", calico())).await;
    let custom = |id: &str, env: Value| json!({"id": id, "instances": 1, "cpus": 0.1, "mem": 32, "cmd": "sleep 1000", "env": env, "executor": EXECUTOR});
    let command = world.running(&custom("/command", calico())).await;
    let image = with(calico(), "CALICO_DOCKER_IMAGE", "busybox");
    let docker = world.running(&custom("/docker", image)).await;
    let before = world.leftovers().await;
    let cleaner = |arguments: &[&str]| {
        let output =
            Command::new(CLI).arg("--config").arg(&theirs).arg("gc").args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, told) = cleaner(&["--dry-run"]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(told.matches(" endpoint ").count(), 3, "{told}");
    let (code, told) = cleaner(&[]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(world.leftovers().await, before);
    for task in [&drop_in, &command, &docker] {
        assert_eq!(task.kill().await.state(), TaskState::TaskKilled);
    }
    world.nothing_left().await;
}

#[tokio::test]
async fn a_hundred_records_drain() {
    let world = World::new().await;
    let task = world.running(&app("/dead", "sleep 1000", calico())).await;
    executor_dies(&task).await;
    let one: Value = serde_json::from_str(&std::fs::read_to_string(record(&task)).unwrap()).unwrap();
    for _ in 0..100 {
        let container = ContainerId::random();
        let mut another = one.clone();
        another["container"] = json!(container);
        another["container_name"] = json!(format!("mesos-{container}"));
        another["identity"]["handle"] = json!(container.handle());
        another["identity"]["workload"] = json!(container.workload("dead"));
        another["identity"]["interface"] = json!(container.interface());
        let path = world.config.paths.journal().join(format!("{container}.json"));
        std::fs::File::create(path).unwrap().write_all(another.to_string().as_bytes()).unwrap();
    }
    let begun = Instant::now();
    let (code, json) = world.gc_json(&[]);
    println!("101 records drained in {:?}", begun.elapsed());
    assert_eq!((code, &json["backlog"]), (0, &json!(0)), "{json:#}");
    world.nothing_left().await;
}
