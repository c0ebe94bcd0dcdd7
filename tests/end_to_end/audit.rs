//! What happened, afterwards: the audit trail of whole lives, the runtime's log and the cleaner's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use calico_mesos::mesos::messages::TaskState;
use calico_mesos::task::report::steps::Step;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::{json, Value};

use crate::world::{app, calico, with, World};

fn log(world: &World, name: &str) -> PathBuf {
    world.config.paths.log.join(name)
}

fn text(world: &World, name: &str) -> String {
    std::fs::read_to_string(log(world, name)).unwrap_or_default()
}

pub fn trail(world: &World, name: &str) -> Vec<Value> {
    text(world, name).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The lines of a task.
pub fn of<'a>(lines: &'a [Value], task: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["task"] == json!(task)).collect()
}

fn names(line: &Value) -> Vec<&str> {
    line["steps"].as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn a_life_is_told_step_by_step() {
    let world = World::new().await;
    let task = world.running(&app("/web", "sleep 1000", calico())).await;
    let address = task.addresses()[0].clone();
    let launched = trail(&world, "audit/tasks/current");
    task.kill().await;
    world.nothing_left().await;

    let [launch] = launched.as_slice() else { panic!("{launched:?}") };
    let lines = trail(&world, "audit/tasks/current");
    let [first, teardown] = of(&lines, &task.id).try_into().unwrap();
    assert_eq!(first, launch);
    for (line, event, outcome) in [(launch, "launch", "running"), (teardown, "teardown", "killed")] {
        assert_eq!(line["event"], event);
        assert_eq!(line["outcome"], outcome, "{line}");
        assert_eq!(line["addresses"], json!([address]));
        assert_eq!(line["by"], "executor");
        assert_eq!(line["pid"], json!(task.launched.executor_pid));
        assert_eq!(line["container"], json!(task.launched.container_id));
        assert_eq!((&line["app"], &line["errors"]), (&json!("/web"), &Value::Null));
        let times: Vec<f64> =
            line["steps"].as_object().unwrap().values().map(|time| time.as_f64().unwrap()).collect();
        assert!(times.is_sorted() && times[0] >= 0.0, "{line}");
    }
    // Every step of a life stands in one of the two; those of a launch go side by side.
    let mut steps = names(launch);
    assert_eq!((steps[0], steps[steps.len() - 1]), ("recorded", "running"));
    steps.sort_by_key(|name| Step::ALL.iter().position(|step| step.name() == *name));
    steps.extend(names(teardown));
    assert_eq!(steps, Step::ALL.iter().map(|step| step.name()).collect::<Vec<_>>());

    let addresses = trail(&world, "audit/current");
    let [given, returned] = of(&addresses, &task.id).try_into().unwrap();
    assert_eq!((&given["event"], &returned["event"]), (&json!("given"), &json!("returned")));
    for line in [given, returned] {
        assert_eq!((&line["address"], &line["by"]), (&json!(address), &json!("executor")));
        assert_eq!(line["handle"].as_str().unwrap(), format!("mesos.{}", task.launched.container_id));
        assert!(humantime::parse_rfc3339(line["time"].as_str().unwrap()).is_ok(), "{line}");
    }
    assert_eq!(given["profiles"], json!(["dev"]));

    // The runtime's share, by Docker's id.
    let containers = world.containers().await;
    let id = containers[0]["Id"].as_str().unwrap();
    let runtime = text(&world, "runtime/current");
    let [create, start] = runtime.lines().collect::<Vec<_>>().try_into().unwrap();
    assert!(create.contains(&format!(" create {id} after ")) && create.contains(": into "), "{create}");
    assert!(
        start.contains(&format!(" start {id} after ")) && start.ends_with(": the gate opened"),
        "{start}"
    );
}

/// Finished, failed before and after the address, killed, and lost with its executor.
#[tokio::test]
async fn every_address_given_is_returned() {
    let world = World::new().await;
    let finished = world.running(&app("/finished", "sleep 1", calico())).await;
    let failed = world.launch(&app("/failed", "exit 3", calico())).await;
    let mut broken = app("/broken", "x", calico());
    broken["cmd"] = Value::Null;
    broken["args"] = json!(["/no/such/program"]);
    let broken = world.launch(&broken).await;
    let outside = world.launch(&app("/outside", "x", with(calico(), "CALICO_IP", "203.0.113.9"))).await;
    let killed = world.running(&app("/killed", "sleep 1000", calico())).await;
    let lost = world.running(&app("/lost", "sleep 1000", calico())).await;
    killed.kill().await;
    finished.ends().await;
    for task in [&failed, &broken, &outside] {
        task.fails().await;
    }
    for task in [&finished, &failed, &broken, &outside] {
        task.executor_exit().await;
    }
    kill(Pid::from_raw(i32::try_from(lost.launched.executor_pid).unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!(lost.ends().await.state(), TaskState::TaskFailed);
    assert!(world.gc().status.success());
    world.nothing_left().await;

    let addresses = trail(&world, "audit/current");
    let mut open: BTreeMap<&str, &str> = BTreeMap::new();
    for line in &addresses {
        let (address, task) = (line["address"].as_str().unwrap(), line["task"].as_str().unwrap());
        match line["event"].as_str().unwrap() {
            "given" => assert_eq!(open.insert(address, task), None, "{address} is given twice"),
            "returned" => assert_eq!(open.remove(address), Some(task), "{line}"),
            other => panic!("{other}"),
        }
    }
    assert_eq!(open, BTreeMap::new(), "never returned");
    let count = |task: &str| of(&addresses, task).len();
    assert_eq!([&finished, &failed, &killed, &lost].map(|task| count(&task.id)), [2; 4]);
    assert_eq!(count(&outside.id), 0);

    let lines = trail(&world, "audit/tasks/current");
    let told = |task: &str| -> Vec<(Value, Value)> {
        of(&lines, task).iter().map(|line| (line["outcome"].clone(), line["code"].clone())).collect()
    };
    let pair = |outcome: &str, code: Value| (json!(outcome), code);
    let running = || pair("running", Value::Null);
    assert_eq!(told(&finished.id), [running(), pair("exited", json!(0))]);
    assert_eq!(told(&failed.id), [running(), pair("exited", json!(3))]);
    assert_eq!(
        told(&outside.id),
        [pair("failed", json!("CM-IP-OUTSIDE")), pair("failed", json!("CM-IP-OUTSIDE"))]
    );
    assert_eq!(told(&broken.id).len(), 2);
    assert_eq!(told(&broken.id)[0].0, "failed");
    assert_eq!(told(&lost.id), [running(), pair("orphaned", Value::Null)]);

    // The cleaner tells each thing it took away.
    let cleaned = text(&world, "gc/current");
    assert!(cleaned.lines().all(|line| line.contains(&lost.id)), "{cleaned}");
    for thing in ["interface removed", "endpoint removed", "given back", "nothing is left"] {
        assert_eq!(cleaned.lines().filter(|line| line.contains(thing)).count(), 1, "{thing}: {cleaned}");
    }
}

/// Nobody knows whose it was but Calico; the figures of that run are there for Prometheus.
#[tokio::test]
async fn a_task_without_a_record_is_told_as_the_cleaners_work() {
    let world = World::new().await;
    let figures = world.stack.dir.join("calico-mesos.prom");
    for (key, value) in [
        ("gc.orphans", "\"remove\"".to_owned()),
        ("gc.grace", "\"0s\"".to_owned()),
        ("metrics.textfile", format!("{figures:?}")),
    ] {
        world.configure(key, &value);
    }
    let living = world.running(&app("/living", "sleep 1000", calico())).await;
    let task = world.running(&app("/lost", "sleep 1000", calico())).await;
    let address = task.addresses()[0].clone();
    kill(Pid::from_raw(i32::try_from(task.launched.executor_pid).unwrap()), Signal::SIGKILL).unwrap();
    task.ends().await;
    let record = format!("{}.json", task.launched.container_id);
    std::fs::remove_file(world.config.paths.journal().join(record)).unwrap();
    let path = format!("/containers/{}/kill", task.container());
    world.stack.docker.request("POST", &path, b"").await.unwrap();
    let deadline = std::time::Instant::now() + crate::world::LIMIT;
    while world.endpoints().await.len() > 1 {
        assert!(std::time::Instant::now() < deadline, "{}", text(&world, "gc/current"));
        assert!(world.gc().status.success());
    }

    let addresses = trail(&world, "audit/current");
    let told: Vec<_> = of(&addresses, &task.id).iter().map(|line| (&line["event"], &line["by"])).collect();
    assert_eq!(told, [(&json!("given"), &json!("executor")), (&json!("returned"), &json!("gc"))]);
    let cleaned = text(&world, "gc/current");
    assert!(cleaned.contains(&format!("{}: {address} given back", task.id)), "{cleaned}");
    let figures = std::fs::read_to_string(figures).unwrap();
    let free = (1 << (32 - world.stack.pools[0].prefix_len())) - 1;
    for line in [
        "calico_mesos_tasks 1\n".to_owned(),
        format!("calico_mesos_executors{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION")),
        "calico_mesos_datastore_up 1\n".to_owned(),
        format!("state=\"free\"}} {free}\n"),
    ] {
        assert!(figures.contains(&line), "no {line}in\n{figures}");
    }
    assert_eq!(living.kill().await.state(), TaskState::TaskKilled);
    world.nothing_left().await;
}

#[tokio::test]
async fn a_full_log_disk_harms_no_task() {
    let world = World::new().await;
    let folder = &world.config.paths.log;
    let script = format!(
        "mkdir -p {0} && mount -t tmpfs -o size=16k,mode=0700 tmpfs {0} && dd if=/dev/zero of={0}/filler bs=1k count=64; df {0}",
        folder.display()
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("100%"), "{output:?}");
    let task = world.running(&app("/full", "sleep 1000", calico())).await;
    assert_eq!(task.kill().await.state(), TaskState::TaskKilled);
    world.nothing_left().await;
    let told = task.log().lines().filter(|line| line.contains("cannot write")).count();
    assert_eq!(told, 1, "{}", task.log());
    assert!(trail(&world, "audit/tasks/current").is_empty());
}

/// The trail holds what has been done: a cleaner that comes by in vain, again and again, must not push that out.
#[tokio::test]
async fn an_outage_does_not_fill_the_trail() {
    let mut world = World::new().await;
    let task = world.running(&app("/dead", "sleep 1000", calico())).await;
    let id = task.id.clone();
    kill(Pid::from_raw(i32::try_from(task.launched.executor_pid).unwrap()), Signal::SIGKILL).unwrap();
    task.ends().await;
    world.stack.etcd.as_mut().unwrap().kill();
    for _ in 0..3 {
        assert_eq!(world.gc().status.code(), Some(1));
    }
    world.stack.etcd.as_mut().unwrap().restart().await.unwrap();
    assert!(world.gc().status.success());
    world.nothing_left().await;
    let cleaned = text(&world, "gc/current");
    for wait in ["Calico: cannot be queried: ", &format!("{id}: left for the next cleaner: ")] {
        assert_eq!(cleaned.matches(wait).count(), 1, "{wait}: {cleaned}");
    }
    let lines = trail(&world, "audit/tasks/current");
    let [_, stopped, released] = of(&lines, &id).try_into().unwrap();
    assert!(stopped["errors"][0].as_str().unwrap().starts_with("address: "), "{stopped}");
    assert_eq!((&stopped["addresses"], &released["errors"]), (&Value::Null, &Value::Null));
    assert_eq!(released["addresses"].as_array().unwrap().len(), 1, "{released}");
}
