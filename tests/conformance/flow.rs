//! From the launch to RUNNING, and what every update carries.

use calico_mesos::mesos::messages::{network_info, Label, Labels, TaskState};
use serde_json::{json, Value};

use crate::update;
use crate::world::{addresses, app, calico, task_info, World};

#[tokio::test]
async fn starting_is_bare_and_running_carries_the_inspection() {
    let world = World::new().await;
    let task = world.running(&app("/flow", "sleep 1000", calico())).await;
    assert_eq!(task.states()[..2], [TaskState::TaskStarting, TaskState::TaskRunning]);
    let starting = update(&task, TaskState::TaskStarting);
    assert_eq!((starting.data, starting.message, starting.healthy), (None, None, None));
    let running = update(&task, TaskState::TaskRunning);
    let inspect: Value = serde_json::from_slice(running.data.as_deref().unwrap()).unwrap();
    assert_eq!(inspect[0]["Name"], json!(format!("/{}", task.container())));
    assert_eq!(inspect[0]["State"]["Running"], true);
    assert_eq!(inspect[0]["HostConfig"]["AutoRemove"], false, "agents before 1.10 inspect it once more");
    let killed = task.kill().await;
    assert_eq!(addresses(&killed), task.addresses(), "Marathon believes the newest update's address");
    world.nothing_left().await;
}

#[tokio::test]
async fn the_frameworks_network_info_comes_back_with_the_address_in_it() {
    let world = World::new().await;
    let mut definition = app("/info", "sleep 1000", json!({}));
    definition["networks"] = json!([{"mode": "container", "name": "calico"}]);
    let mut info = task_info(&definition);
    let asked = &mut info.container.as_mut().unwrap().network_infos[0];
    asked.groups = vec!["blue".into()];
    let label = Label { key: "zone".into(), value: Some("a".into()) };
    asked.labels = Some(Labels { labels: vec![label.clone()] });
    asked.ip_addresses = vec![network_info::IpAddress::default()];
    let task = world.launch_info(info).await;
    let running = task.reaches(TaskState::TaskRunning).await;
    let [told] = running.container_status.unwrap().network_infos.try_into().unwrap();
    assert_eq!(told.name.as_deref(), Some("calico"));
    assert_eq!(told.groups, ["blue"]);
    assert_eq!(told.labels.unwrap().labels, [label]);
    let [address] = told.ip_addresses.try_into().unwrap();
    assert_eq!(address.protocol(), network_info::Protocol::IPv4);
    let pool = world.stack.pools[0];
    let ip: std::net::IpAddr = address.ip_address().parse().unwrap();
    assert!(pool.contains(&ip), "{ip} is not in {pool}");
    task.kill().await;
    world.nothing_left().await;
}

#[tokio::test]
async fn a_general_check_is_refused_and_not_ignored() {
    let world = World::new().await;
    let mut info = task_info(&app("/check", "sleep 1000", json!({})));
    info.check = Some(Default::default());
    let task = world.launch_info(info).await;
    let message = task.fails().await;
    assert!(message.contains("check") && message.contains("CM-UNSUPPORTED"), "{message}");
    task.executor_exit().await;
}
