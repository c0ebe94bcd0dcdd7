//! A datastore that lost what living tasks have, as after a restore from a backup.

use calico_mesos::mesos::messages::TaskState;
use calico_mesos::names::ContainerId;
use calico_mesos::task::network::holds;
use calico_mesos::task::record::published;
use serde_json::json;

use crate::world::{app, calico, sh, with, Task, World};

/// Endpoints, handles, blocks and affinities, as if no task had ever been launched.
async fn lose_all(world: &World) {
    let mut client = etcd_client::Client::connect([&world.stack.etcd_endpoint], None).await.unwrap();
    for prefix in [
        "/calico/ipam/v2/assignment/",
        "/calico/ipam/v2/host/",
        "/calico/ipam/v2/handle/",
        "/calico/resources/v3/projectcalico.org/workloadendpoints/",
    ] {
        let all = etcd_client::DeleteOptions::new().with_prefix();
        assert!(client.delete(prefix, Some(all)).await.unwrap().deleted() > 0, "{prefix}");
    }
}

fn container(task: &Task<'_>) -> ContainerId {
    ContainerId::parse(&task.launched.container_id).unwrap()
}

/// The host still leads to the task, and the task answers.
fn reached(task: &Task<'_>) {
    let address = task.addresses().remove(0);
    let route = sh(&format!("ip route get fibmatch {address}"));
    assert!(route.contains(&container(task).interface()), "{route}");
    let answer = sh(&format!("busybox ping -c 1 -W 5 {address}"));
    assert!(answer.contains(" 0% packet loss"), "{answer}");
}

/// Nothing that a launch does may take the address of a task that lives here.
async fn address_is_safe(world: &World, first: &Task<'_>) {
    let taken = first.addresses().remove(0);
    let second = world.running(&app("/second", "sleep 1000", calico())).await;
    assert_ne!(second.addresses(), first.addresses());
    let named = world.launch(&app("/named", "sleep 1000", with(calico(), "CALICO_IP", &taken))).await;
    let message = named.fails().await;
    assert!(message.contains("CM-IP-TAKEN") && message.contains(&taken), "{message}");
    assert!(message.contains(&first.id) && message.contains("/first"), "the holder is not named: {message}");
    named.executor_exit().await;
    reached(first);
    reached(&second);
    assert_eq!(second.kill().await.state(), TaskState::TaskKilled);
}

#[tokio::test]
async fn an_address_of_a_living_task_is_not_given_out_again_and_comes_back() {
    let world = World::new().await;
    let first = world.running(&app("/first", "sleep 1000", calico())).await;
    let before = world.task_keys().await;
    lose_all(&world).await;
    address_is_safe(&world, &first).await;

    let (code, json) = world.gc_json(&["--dry-run"]);
    assert_eq!((code, &json["lost"], &json["conflicts"]), (3, &json!(1), &json!(0)), "{json:#}");
    let text = String::from_utf8(world.gc_with(&["--dry-run"]).stdout).unwrap();
    assert!(text.contains("the datastore has lost it") && text.contains("to write again"), "{text}");
    assert!(world.endpoints().await.is_empty(), "a dry run writes nothing");
    let (code, json) = world.gc_json(&[]);
    assert_eq!(code, 0, "{json:#}");
    let keys = |lines: &[String]| {
        lines.iter().map(|line| line.split(" = ").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys(&world.task_keys().await), keys(&before));
    assert_eq!(world.gc_json(&["--dry-run"]).0, 0);
    assert_eq!(world.endpoints().await[0]["spec"]["ipNetworks"][0], format!("{}/32", first.addresses()[0]));
    reached(&first);

    assert_eq!(first.kill().await.state(), TaskState::TaskKilled);
    world.nothing_left().await;
    assert_eq!(holds::links(&world.config), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn a_task_of_the_release_before_is_known_by_its_host_route() {
    let world = World::new().await;
    let first = world.running(&app("/first", "sleep 1000", calico())).await;
    // What that release did not make.
    assert_eq!(holds::give_back(&world.config, &container(&first)).unwrap(), 1);
    published::CommittedNote::of(&world.config, &container(&first)).forget();
    lose_all(&world).await;
    address_is_safe(&world, &first).await;
    assert_eq!(world.gc_json(&["--dry-run"]).0, 0, "what it committed is written down nowhere");
    assert_eq!(first.kill().await.state(), TaskState::TaskKilled);
    world.nothing_left().await;
}

#[tokio::test]
async fn a_task_whose_executor_is_dead_keeps_its_address_until_it_is_taken_down() {
    let world = World::new().await;
    let first = world.running(&app("/first", "sleep 1000", calico())).await;
    crate::gc::executor_dies(&first).await;
    lose_all(&world).await;
    let taken = first.addresses().remove(0);
    // A starting executor takes the dead one's task down beside its own launch: the journal's lock keeps it away.
    let lock =
        calico_mesos::host::lock::try_take(&world.config.paths.state.join("gc.lock"), 1).unwrap().unwrap();
    let named = world.launch(&app("/named", "sleep 1000", with(calico(), "CALICO_IP", &taken))).await;
    let message = named.fails().await;
    assert!(message.contains("CM-IP-TAKEN") && message.contains(&first.id), "{message}");
    drop(lock);
    assert!(world.gc().status.success());
    let named = world.running(&app("/named", "sleep 1000", with(calico(), "CALICO_IP", &taken))).await;
    assert_eq!(named.addresses(), [taken]);
    named.kill().await;
    world.nothing_left().await;
}
