//! Services that go away for a while under running tasks, come back, or come back as others.

mod containerd;
mod gone_docker;
#[path = "../kit/mod.rs"]
mod kit;

use kit::world;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use calico_mesos::mesos::messages::TaskState;
use calico_mesos::rig::daemons::{Etcd, EtcdOptions};
use calico_mesos::task::record::journal::Journal;
use serde_json::{json, Map};
use tokio::net::TcpListener;

use world::{app, calico, sh, with, World, LIMIT};

/// More than one page of anything, and what a large host runs.
const TASKS: usize = 100;
const HALF: usize = TASKS / 2;
/// Launches beside each other: how long they take is not what is tested here.
const AT_ONCE: usize = 20;

/// Stands where a service was, and counts who would speak to it.
async fn in_place_of(address: std::net::SocketAddr) -> (tokio::task::JoinHandle<()>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let work = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            drop(stream);
        }
    });
    (work, asked)
}

/// Records in the journal, owned or not.
fn records(world: &World) -> usize {
    Journal::open(&world.config.paths.journal()).unwrap().len()
}

#[tokio::test]
async fn etcd_away_under_a_hundred_tasks() {
    let mut world = World::new().await;
    let mut ids = Vec::new();
    while ids.len() < TASKS {
        let begun = ids.len();
        for _ in 0..AT_ONCE {
            ids.push(world.launch(&app("/many", "sleep 10000", calico())).await.id);
        }
        for id in &ids[begun..] {
            world.agent.wait_for(id, TaskState::TaskRunning, LIMIT).await.unwrap();
        }
    }
    let etcd = world.stack.etcd.as_mut().unwrap();
    let address = etcd.address();
    etcd.kill();
    let (listener, asked) = in_place_of(address).await;

    // How long it lasts makes no difference: nobody asks.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(asked.load(Ordering::Relaxed), 0, "running tasks spoke to etcd");
    let ended =
        |id: &String| world.agent.history(id).iter().any(|update| update.status.state().is_terminal());
    assert!(!ids.iter().any(ended), "a running task ended with etcd");

    let refused = world.launch(&app("/late", "sleep 10000", calico())).await;
    let message = refused.fails().await;
    assert!(message.contains("CM-ETCD") && message.contains(&address.to_string()), "{message}");
    assert!(message.contains("tried for"), "{message}");
    for id in &ids[..HALF] {
        world.agent.kill(id, Some(Duration::ZERO)).await.unwrap();
    }
    for id in &ids[..HALF] {
        world.agent.wait_for(id, TaskState::TaskKilled, LIMIT * 2).await.unwrap();
        world.agent.wait_exit(id, LIMIT).await.unwrap();
    }
    assert_eq!(records(&world), TASKS, "half are owned, half are queued");

    listener.abort();
    let _ = listener.await;
    world.stack.etcd.as_mut().unwrap().restart().await.unwrap();
    let gc = world.gc();
    assert!(gc.status.success(), "{gc:?}");
    assert_eq!(records(&world), HALF);
    assert_eq!(world.endpoints().await.len(), HALF);
    assert!(!ids[HALF..].iter().any(ended));
    for id in &ids[HALF..] {
        world.agent.kill(id, Some(Duration::ZERO)).await.unwrap();
    }
    for id in &ids[HALF..] {
        world.agent.wait_for(id, TaskState::TaskKilled, LIMIT * 2).await.unwrap();
    }
    world.nothing_left().await;
}

#[tokio::test]
async fn consul_away_for_a_whole_life() {
    let mut world = World::with(|stack| stack.consul = true, |_| ()).await;
    let before = world.running(&app("/before", "sleep 1000", with(calico(), "SERVICE_PORT", "80"))).await;
    world.registered("before-direct").await;
    let before = before.id.clone();
    world.stack.consul.as_mut().unwrap().kill();
    let within = world.running(&app("/within", "sleep 1000", calico())).await.id.clone();
    let stays = world.running(&app("/stays", "sleep 1000", calico())).await.id.clone();
    for id in [&before, &within] {
        world.agent.kill(id, Some(Duration::ZERO)).await.unwrap();
        world.agent.wait_for(id, TaskState::TaskKilled, LIMIT).await.unwrap();
        world.agent.wait_exit(id, LIMIT).await.unwrap();
    }
    assert_eq!(world.endpoints().await.len(), 1, "an address was held back for Consul");
    world.stack.consul.as_mut().unwrap().restart().await.unwrap();
    assert!(world.gc().status.success());
    world.registered("stays-direct").await;
    assert_eq!(records(&world), 1);
    world.agent.kill(&stays, None).await.unwrap();
    world.agent.wait_exit(&stays, LIMIT).await.unwrap();
    world.nothing_left().await;
}

/// As `systemctl restart docker` does.
async fn restart_docker(world: &mut World) {
    world.stack.docker.shut_down(Duration::from_secs(30)).await;
    world.stack.docker.restart().await.unwrap();
}

#[tokio::test]
async fn docker_restarts_and_takes_its_containers_along() {
    let mut world = World::new().await;
    let id = world.running(&app("/along", "sleep 1000", calico())).await.id.clone();
    restart_docker(&mut world).await;
    let status = world.agent.wait_for(&id, TaskState::TaskFailed, LIMIT).await.unwrap();
    assert!(status.message.as_deref().is_some_and(|text| text.contains("exited")), "{status:?}");
    world.agent.wait_exit(&id, LIMIT).await.unwrap();
    let terminal =
        world.agent.history(&id).iter().filter(|update| update.status.state().is_terminal()).count();
    assert_eq!(terminal, 1);
    world.nothing_left().await;
}

#[tokio::test]
async fn docker_restarts_under_living_containers() {
    let live_restore = Map::from_iter([("live-restore".to_owned(), json!(true))]);
    let mut world = World::with(|stack| stack.docker_configuration = live_restore, |_| ()).await;
    let task = world.running(&app("/restored", "exec httpd -f -p 80", calico())).await;
    let (id, address) = (task.id.clone(), task.addresses()[0].clone());
    restart_docker(&mut world).await;
    restart_docker(&mut world).await;
    assert!(!world.agent.history(&id).iter().any(|update| update.status.state().is_terminal()));
    let answer = sh(&format!("curl -s -o /dev/null -w '%{{http_code}}' --max-time 5 http://{address}/"));
    assert_eq!(answer, "404", "the task is not reached any more");
    world.agent.kill(&id, Some(Duration::from_secs(1))).await.unwrap();
    world.agent.wait_for(&id, TaskState::TaskKilled, LIMIT).await.unwrap();
    world.agent.wait_exit(&id, LIMIT).await.unwrap();
    world.nothing_left().await;
}

#[tokio::test]
async fn etcds_members_are_replaced_under_a_task() {
    let mut world = World::new().await;
    let id = world.running(&app("/moved", "sleep 1000", calico())).await.id.clone();
    let mut old = world.stack.etcd.take().unwrap();
    old.stop().await;
    let dir = world.stack.dir.join("e2");
    sh(&format!("mkdir {0} && cp -a {1}/data {0}/", dir.display(), old.dir.display()));
    let members = EtcdOptions { arguments: vec!["--force-new-cluster".into()], ..EtcdOptions::default() };
    let new = Etcd::start(&dir, members).await.unwrap();
    let config = std::fs::read_to_string(&world.stack.config).unwrap();
    assert!(config.contains(&old.endpoint));
    std::fs::write(&world.stack.config, config.replace(&old.endpoint, &new.endpoint)).unwrap();
    world.stack.etcd_endpoint.clone_from(&new.endpoint);
    world.stack.etcd = Some(new);
    assert_eq!(world.endpoints().await.len(), 1);
    world.agent.kill(&id, Some(Duration::ZERO)).await.unwrap();
    world.agent.wait_exit(&id, LIMIT).await.unwrap();
    assert_eq!(records(&world), 0, "the executor asked the members of its start");
    world.nothing_left().await;
}
