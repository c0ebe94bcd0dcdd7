//! `policy.wait` on a host with Felix, whose part the tests play: they write its reports and routes.

use std::path::PathBuf;
use std::time::Duration;

use calico_mesos::calico::Datastore;
use calico_mesos::mesos::messages::TaskState;

use crate::kit::wait::eventually;
use crate::world::{app, calico, sh, Task, World};

const NODE: &str = "agent-1";

/// A cluster whose hosts run Felix.
async fn world(config: &[(&str, &str)]) -> World {
    let world = World::with(
        |stack| {
            let own = [("node.dataplane", "\"felix\""), ("node.name", "\"agent-1\"")];
            for (name, value) in own.iter().chain(config) {
                stack.config.insert((*name).to_owned(), (*value).to_owned());
            }
        },
        |_| (),
    )
    .await;
    let mut datastore = Datastore::connect(&world.config).await.unwrap();
    datastore.initialise_local(NODE, &world.config.node.local_pools).await.unwrap();
    world
}

/// The interface and the address of the only endpoint, as soon as it is written.
async fn endpoint(world: &World) -> (String, String) {
    let one = async || <[_; 1]>::try_from(world.endpoints().await).ok();
    let [endpoint] = eventually("one endpoint is written", one).await;
    let text = |pointer| endpoint.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    (text("/spec/interfaceName"), text("/spec/ipNetworks/0"))
}

async fn route(world: &World) {
    let (interface, address) = endpoint(world).await;
    sh(&format!("ip route add {address} dev {interface} scope link metric 1024"));
}

/// For half a second, in which nothing may happen: there is no condition to wait for.
async fn still_waits(task: &Task<'_>) {
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(task.states(), [TaskState::TaskStarting], "{}", task.log());
}

async fn runs_and_leaves_nothing(task: Task<'_>) {
    task.reaches(TaskState::TaskRunning).await;
    assert!(!task.log().contains("did not program"), "{}", task.log());
    task.kill().await;
    task.world.nothing_left().await;
}

#[tokio::test]
async fn felixs_report_opens_the_gate() {
    let world = world(&[("policy.timeout", "\"20s\"")]).await;
    let folder = world.config.paths.endpoint_status.clone();
    std::fs::create_dir_all(&folder).unwrap();
    let task = world.launch(&app("/web", "sleep 1000", calico())).await;
    endpoint(&world).await;
    still_waits(&task).await;
    std::fs::write(folder.join(format!("mesos default%2Fweb.{} eth0", task.launched.container_id)), "")
        .unwrap();
    runs_and_leaves_nothing(task).await;
}

/// Where Felix has never reported, and where it has stopped to.
#[tokio::test]
async fn felixs_route_opens_the_gate() {
    for folder_of_an_older_felix in [false, true] {
        let world = world(&[("policy.timeout", "\"20s\"")]).await;
        if folder_of_an_older_felix {
            std::fs::create_dir_all(&world.config.paths.endpoint_status).unwrap();
        }
        let task = world.launch(&app("/web", "sleep 1000", calico())).await;
        endpoint(&world).await;
        still_waits(&task).await;
        route(&world).await;
        runs_and_leaves_nothing(task).await;
    }
}

const REQUIRED: [(&str, &str); 2] = [("policy.wait", "\"required\""), ("policy.timeout", "\"1s\"")];

async fn fails_without_having_run(task: Task<'_>, word: &str) {
    let message = task.fails().await;
    assert!(message.contains("CM-POLICY") && message.contains(word), "{message}");
    let first: PathBuf = task.sandbox().join("first");
    assert!(!first.exists(), "it ran all the same");
    task.executor_exit().await;
    task.world.nothing_left().await;
}

#[tokio::test]
async fn required_fails_without_felix() {
    let world = world(&REQUIRED).await;
    std::fs::create_dir_all(&world.config.paths.endpoint_status).unwrap();
    let task = world.launch(&app("/web", "touch /mnt/mesos/sandbox/first", calico())).await;
    fails_without_having_run(task, "Felix").await;
}

/// Nothing is claimed for a task that could never start.
#[tokio::test]
async fn required_is_refused_where_felix_writes_no_reports() {
    let world = world(&REQUIRED).await;
    let task = world.launch(&app("/web", "touch /mnt/mesos/sandbox/first", calico())).await;
    let never = tokio::time::timeout(Duration::from_secs(2), endpoint(&world)).await;
    assert!(never.is_err(), "an endpoint was written: {never:?}");
    fails_without_having_run(task, "FELIX_ENDPOINTSTATUSPATHPREFIX").await;
}

/// A Felix may die between its route and its last rule.
#[tokio::test]
async fn required_does_not_believe_a_route() {
    let world = world(&REQUIRED).await;
    std::fs::create_dir_all(&world.config.paths.endpoint_status).unwrap();
    let task = world.launch(&app("/web", "touch /mnt/mesos/sandbox/first", calico())).await;
    route(&world).await;
    fails_without_having_run(task, "no report").await;
}

#[tokio::test]
async fn a_kill_ends_the_wait_for_felix_at_once() {
    let world = world(&[("policy.timeout", "\"50s\"")]).await;
    let task = world.launch(&app("/web", "sleep 1000", calico())).await;
    endpoint(&world).await;
    still_waits(&task).await;
    assert_eq!(task.kill().await.state(), TaskState::TaskKilled);
    // At its end the wait says so.
    assert!(!task.log().contains("starting all the same"), "{}", task.log());
    world.nothing_left().await;
}

#[tokio::test]
async fn best_effort_and_off_start_without_felix() {
    for (wait, timeout) in [("\"best-effort\"", "\"1s\""), ("\"off\"", "\"60s\"")] {
        let world = world(&[("policy.wait", wait), ("policy.timeout", timeout)]).await;
        let task = world.running(&app("/web", "sleep 1000", calico())).await;
        assert_eq!(task.log().contains("did not program"), wait.contains("best"), "{}", task.log());
        task.kill().await;
        world.nothing_left().await;
    }
}
