//! A Docker that is gone for good, and the records that name it.

use calico_mesos::task::record::journal::Journal;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::{json, Value};

use crate::kit::faults::Freeze;
use crate::world::{app, calico, World, LIMIT};

/// A record of a dead executor whose Docker is at another address than the host's.
async fn record_of_another(world: &World, address: &str) {
    let task = world.running(&app("/moved", "sleep 1000", calico())).await;
    kill(Pid::from_raw(task.launched.executor_pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
    world.agent.wait_exit(&task.id, LIMIT).await.unwrap();
    let path = world.config.paths.journal().join(format!("{}.json", task.launched.container_id));
    let mut record: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    record["docker"] = json!(address);
    std::fs::write(&path, format!("{record:#}\n")).unwrap();
}

fn records(world: &World) -> usize {
    Journal::open(&world.config.paths.journal()).unwrap().len()
}

#[tokio::test]
async fn records_that_name_a_gone_docker_are_finished_without_it_on_request() {
    let world = World::new().await;
    let gone = format!("unix://{}/gone.sock", world.stack.dir.display());
    record_of_another(&world, &gone).await;

    let output = world.gc();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("gc --forget-docker {gone}")), "{text}");
    assert_eq!(records(&world), 1);

    let (code, json) = world.gc_json(&["--forget-docker", &gone, "--dry-run"]);
    assert_eq!((code, &json["docker_given_up"]), (3, &json!({"address": gone, "records": 1})), "{json:#}");
    assert_eq!((&json["not_asked"], records(&world)), (&json!([]), 1), "{json:#}");

    let output = world.gc_with(&["--forget-docker", &gone]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(
        text.contains(&format!("{gone} is treated as gone for good: 1 record of dead executors named it")),
        "{text}"
    );
    assert_eq!(records(&world), 0);
    world.nothing_left().await;
}

#[tokio::test]
async fn a_gone_docker_that_is_configured_still_backs_nothing() {
    let mut world = World::new().await;
    let docker = world.stack.docker.host();
    record_of_another(&world, &docker).await;
    world.stack.docker.kill();
    assert_eq!(world.gc().status.code(), Some(1), "no record is finished, and no Docker asked");
    let (code, json) = world.gc_json(&["--forget-docker", &docker]);
    assert_eq!((code, &json["not_asked"]), (0, &json!([])), "{json:#}");
    assert_eq!((records(&world), world.endpoints().await), (0, Vec::new()));
}

#[tokio::test]
async fn a_docker_that_answers_or_hangs_is_not_forgotten() {
    let world = World::new().await;
    let docker = world.stack.docker.host();
    record_of_another(&world, &docker).await;
    for frozen in [false, true] {
        if frozen {
            world.stack.docker.freeze();
        }
        let output = world.gc_with(&["--forget-docker", &docker]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(error.contains(&format!("something listens at {docker}")), "{error}");
        assert_eq!(records(&world), 1, "frozen: {frozen}");
    }
    world.stack.docker.thaw();
    let output = world.gc_with(&["--forget-docker", "no-port"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("not a Docker address"), "{output:?}");
    assert!(world.gc().status.success());
    world.nothing_left().await;
}

#[tokio::test]
async fn a_living_executors_record_stays_whatever_its_docker_is_called() {
    let world = World::new().await;
    let task = world.running(&app("/lives", "sleep 1000", calico())).await;
    let gone = format!("unix://{}/gone.sock", world.stack.dir.display());
    let output = world.gc_with(&["--forget-docker", &gone]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("0 records of dead executors named it"), "{text}");
    assert_eq!(records(&world), 1);
    task.kill().await;
    world.nothing_left().await;
}
