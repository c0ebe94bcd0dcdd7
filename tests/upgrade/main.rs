//! Two releases on one host: tasks launched by one, then stopped, entered and cleaned up with the other's programs in
//! its place, in both directions.
//!
//! Not part of the ordinary suite: `make test-upgrade` builds the previous release and names its folder in
//! [`installed::VARIABLE`].

mod installed;
#[path = "../kit/mod.rs"]
mod kit;

use kit::world;

use std::time::Duration;

use calico_mesos::mesos::messages::TaskState;
use calico_mesos::task::report::trail::Trail;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::{json, Value};

use crate::kit::wait::eventually;

use installed::{Host, Release};
use world::{app, calico, with, Task, World};

/// A command under the custom executor.
fn command(host: &Host, id: &str, cmd: &str) -> Value {
    let executor = host.program("calico-executor");
    json!({"id": id, "instances": 1, "cpus": 0.1, "mem": 32, "cmd": cmd, "env": calico(), "executor": executor})
}

fn signal(task: &Task<'_>, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(task.launched.executor_pid).unwrap()), signal).unwrap();
}

async fn is_killed(task: &Task<'_>) {
    let status = task.kill().await;
    assert_eq!(status.state(), TaskState::TaskKilled, "{status:?}\n{}", task.log());
}

/// Launches with one release, goes over to the other, and does whatever may be done with a running task.
async fn go_over(before: Release, after: Release) {
    let host = Host::with(before).await;
    let world = &host.world;
    let exposed = with(calico(), "SERVICE_PORT", "80");
    let stopped = world.running(&app("/stopped", "trap 'exit 0' TERM; sleep 1000 & wait", exposed)).await;
    let killed = world.running(&app("/killed", "sleep 1000", calico())).await;
    let survivor = world.running(&app("/survivor", "sleep 1000", calico())).await;
    let ending = world
        .running(&app("/ending", "while [ ! -e $MESOS_SANDBOX/end ]; do sleep 0.1; done; exit 3", calico()))
        .await;
    let batch = world.running(&command(&host, "/batch", "sleep 1000")).await;
    let lost = world.running(&app("/lost", "sleep 1000", calico())).await;
    let lost_batch = world.running(&command(&host, "/lost-batch", "sleep 1000")).await;
    let orphan = world.running(&app("/orphan", "sleep 1000", calico())).await;

    host.install(after);

    // The shims of the old runtime call the new one.
    let address = &killed.addresses()[0];
    let seen = host.docker(&["exec", &killed.container(), "ip", "-4", "-o", "addr", "show", "eth0"]);
    assert!(seen.contains(&format!(" {address}/32 ")), "{seen} is not {address}");

    // What an agent does meanwhile.
    world.agent.stop().await.unwrap();
    world.agent.restart().await.unwrap();

    // Owners that died before the upgrade was through: one is found by gc, one by whoever starts next.
    for task in [&lost, &lost_batch] {
        signal(task, Signal::SIGKILL);
        task.ends().await;
    }
    let swept = host.gc();
    // Releases differ in their words; all name the app.
    let names = |app: &str| swept.contains(&format!("{app}."));
    assert!(names("lost") && names("lost-batch") && !names("killed"), "{swept}");
    signal(&orphan, Signal::SIGKILL);
    orphan.ends().await;
    let next = world.running(&app("/next", "sleep 1000", calico())).await;
    let next_batch = world.running(&command(&host, "/next-batch", "sleep 1000")).await;
    eventually("seven endpoints are left", async || {
        let endpoints = world.endpoints().await;
        if endpoints.len() == 7 {
            Ok(())
        } else {
            Err(format!("{endpoints:?}{next}"))
        }
    })
    .await;

    world.agent.kill(&stopped.id, Some(Duration::from_secs(20))).await.unwrap();
    assert_eq!(stopped.ends().await.state(), TaskState::TaskKilled, "{}", stopped.log());
    stopped.executor_exit().await;
    std::fs::write(ending.sandbox().join("end"), "").unwrap();
    assert!(ending.fails().await.contains("status 3"), "{}", ending.log());
    ending.executor_exit().await;
    for task in [&killed, &survivor, &batch, &next, &next_batch] {
        assert!(!task.states().iter().any(|state| state.is_terminal()), "{:?}", task.states());
        is_killed(task).await;
    }
    world.nothing_left().await;
    host.gc();
    if after == Release::This {
        for task in [&killed, &lost, &next] {
            has_whole_story(world, task);
        }
    }
}

/// Parts of it were written by the other release, at other places.
fn has_whole_story(world: &World, task: &Task<'_>) {
    let trail = Trail::read(&world.config).unwrap();
    let life = trail.lives.values().find(|life| life.task == task.id).unwrap();
    assert!(life.launch.is_some() && !life.teardowns.is_empty(), "{life:?}");
    let returned = life.addresses.iter().all(|tenure| tenure.given.is_some() && tenure.returned.is_some());
    assert!(returned && life.addresses.len() == 1, "{life:?}");
    assert!(trail.damaged.is_empty(), "{:?}", trail.damaged);
}

#[tokio::test]
async fn an_upgrade_under_running_tasks() {
    go_over(Release::Previous, Release::This).await;
}

#[tokio::test]
async fn a_downgrade_under_running_tasks() {
    go_over(Release::This, Release::Previous).await;
}

/// Between two renames one program is new and the other is not; both ways round, a task starts all the same.
#[tokio::test]
async fn an_upgrade_that_is_half_done() {
    let host = Host::with(Release::Previous).await;
    for (executor, runtime) in [(Release::Previous, Release::This), (Release::This, Release::Previous)] {
        host.install_one("calico-executor", executor);
        host.install_one("calico-runc", runtime);
        let task = host.world.running(&app("/mixed", "sleep 1000", calico())).await;
        let seen = host.docker(&["exec", &task.container(), "ip", "-4", "-o", "addr", "show", "eth0"]);
        assert!(seen.contains(&task.addresses()[0]), "{seen}");
        // A second start is refused in words that both understand.
        let refused = host.docker_fails(&["start", &host.stopped(&task).await]);
        assert!(refused.contains("no network namespace was prepared"), "{refused}");
        host.world.nothing_left().await;
    }
}
