//! Commands without a container, what containers are given, how they end, and those that are none of ours.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use calico_mesos::mesos::messages::TaskState;
use calico_mesos::net::Namespace;
use calico_mesos::rig::daemons::{import_busybox, Dockerd, DockerdOptions, Network};
use serde_json::{json, Value};

use crate::world::{sh, Task, World};
use crate::{fetched, fetched_by, world, world_with, Example};

pub async fn command(example: Example) {
    let world = world().await;
    // An agent's work_dir lets everybody pass, and the sandbox its owner alone.
    std::fs::set_permissions(&world.stack.dir, Permissions::from_mode(0o711)).unwrap();
    let task = example.running(&world).await;
    let [address] = task.addresses().try_into().unwrap();
    let log = task.tells(&format!(" {address}/32 ")).await;
    assert!(log.contains("--- stdout\nnobody\n"), "{log}");
    let sandbox = std::fs::metadata(task.sandbox()).unwrap();
    assert_eq!(sandbox.mode() & 0o777, 0o750);
    assert_eq!(format!("{}\n", sandbox.uid()), sh("id -u nobody"));
    assert!(world.containers().await.is_empty());
    assert!(sh(&format!("busybox ping -c 1 -W 5 {address}")).contains(" 0% packet loss"));
    task.is_over().await;
}

pub async fn volumes(example: Example) {
    let world = world().await;
    let task = example.running(&world).await;
    let certificates = std::fs::read_dir("/etc/ssl/certs").unwrap().count();
    assert_eq!(task.file("cache/certificates").await, format!("{certificates}\n"));
    let mounts = inspect(&task).await["Mounts"].clone();
    let writable = |path: &str| {
        let mount = mounts.as_array().unwrap().iter().find(|mount| mount["Destination"] == path);
        mount.unwrap_or_else(|| panic!("{path} is not mounted: {mounts}"))["RW"].clone()
    };
    assert_eq!((writable("/etc/ssl/certs"), writable("/var/cache")), (json!(false), json!(true)));
    task.is_over().await;
}

pub async fn parameters(example: Example) {
    let world = world().await;
    let task = example.running(&world).await;
    let log = task.tells("ledger").await;
    assert!(log.contains("--- stdout\ntuned\n4096\n"), "{log}");
    assert!(log.contains(" 16384 "), "{log}");
    let hosts: Vec<Vec<&str>> = log.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(hosts.contains(&vec!["192.0.2.7", "ledger"]), "{log}");
    // Docker's words do not displace ours.
    let [address] = task.addresses().try_into().unwrap();
    assert!(hosts.contains(&vec![&address, "tuned"]), "{log}");
    task.is_over().await;
}

pub async fn kill_grace(example: Example) {
    let world = world().await;
    let task = example.running(&world).await;
    task.tells("serving").await;
    // As Marathon kills: the time that the task is given stands in its own kill policy.
    world.agent.kill(&task.id, None).await.unwrap();
    let status = task.ends().await;
    let message = status.message.as_deref();
    assert_eq!((status.state(), message), (TaskState::TaskKilled, Some("Container exited with status 0")));
    assert!(task.log().contains("draining\ndrained\n"), "{}", task.log());
    task.executor_exit().await;
    world.nothing_left().await;
}

async fn inspect(task: &Task<'_>) -> Value {
    task.world.docker(&format!("/containers/{}/json", task.container())).await
}

/// As Docker says of a plain task, and Calico does not.
async fn is_none_of_ours(world: &World, container: &Value, network: &str) {
    let host = &container["HostConfig"];
    assert_eq!((&host["NetworkMode"], &host["Runtime"]), (&json!(network), &json!("runc")));
    assert_eq!(world.task_keys().await, [""; 0]);
    assert!(!world.config.paths.journal().exists() && !world.config.paths.run.join("tasks").exists());
    assert_eq!(sh("nft list table ip calico-mesos-ports 2> /dev/null | grep plain"), "");
}

pub async fn host_network(example: Example) {
    let world = world().await;
    let task = example.running(&world).await;
    is_none_of_ours(&world, &inspect(&task).await, "host").await;
    let [port] = example.ports().try_into().unwrap();
    assert_eq!(fetched(&format!("http://127.0.0.1:{port}/")).await, "host\n");
    task.is_over().await;
}

/// Docker has its bridge in a network namespace of its own: a daemon's firewall rules are one per namespace.
pub async fn bridge_network(example: Example) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host");
    let _host = Namespace::create(&path).await.unwrap();
    let options =
        DockerdOptions { network: Network::Bridge, netns: Some(path.clone()), ..DockerdOptions::default() };
    let mut docker = Dockerd::start(&folder.path().join("d"), options).await.unwrap();
    import_busybox(&docker).await.unwrap();
    let socket = docker.socket.display().to_string();
    let world = world_with(
        |stack| stack.busybox = false,
        |agent| {
            agent.executor_environment.insert("DOCKER_HOST".into(), format!("unix://{socket}"));
            agent.docker_socket = socket;
        },
    )
    .await;

    let task = example.running(&world).await;
    let (_, text) =
        docker.request("GET", &format!("/containers/{}/json", task.container()), b"").await.unwrap();
    let container: Value = serde_json::from_str(&text).unwrap();
    is_none_of_ours(&world, &container, "bridge").await;
    let own = container["NetworkSettings"]["Networks"]["bridge"]["IPAddress"].as_str().unwrap();
    assert_eq!(task.addresses(), [own], "Docker's address, as with stock");
    let [port] = example.ports().try_into().unwrap();
    let inside = format!("nsenter --net={} curl", path.display());
    for place in [format!("{own}:80"), format!("127.0.0.1:{port}")] {
        assert_eq!(fetched_by(&inside, &format!("http://{place}/")).await, "bridged\n");
    }
    task.is_over().await;
    docker.stop().await;
    Namespace::unbind(&path).unwrap();
}
