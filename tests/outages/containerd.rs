//! A containerd that is killed takes news with it: what Docker has missed is found out, and ended.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use calico_mesos::mesos::messages::TaskState;
use calico_mesos::rig::agent::Launched;
use calico_mesos::task::record::journal::Journal;
use calico_mesos::workload::{end_remains, HostProcess};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::{json, Value};

use crate::kit::faults;
use crate::kit::wait::eventually;
use crate::world::{app, calico, sh, tell_custom_executors, Task, World, EXECUTOR, LIMIT};

/// A shim repeats its news for 15 s. Nothing tells that it has given up.
const NEWS: Duration = Duration::from_secs(17);

/// A task without its world, which has to be changed under it.
struct Victim {
    id: String,
    launched: Launched,
    container: String,
    /// Docker's id.
    docker_id: String,
    /// Its first process.
    pid: i32,
}

impl Victim {
    /// The task's container is the only one of its world whose name begins so.
    async fn of(task: Task<'_>, prefix: &str) -> Self {
        let names = task.world.containers().await;
        let mut names = names.iter().map(|its| its["Names"][0].as_str().unwrap().trim_start_matches('/'));
        let container = names.find(|name| name.starts_with(prefix)).unwrap().to_owned();
        let seen = task.world.docker(&format!("/containers/{container}/json")).await;
        Self {
            docker_id: seen["Id"].as_str().unwrap().to_owned(),
            pid: seen["State"]["Pid"].as_i64().unwrap().try_into().unwrap(),
            id: task.id,
            launched: task.launched,
            container,
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.launched.sandbox.join("stderr")).unwrap_or_default()
    }

    async fn running(&self, world: &World) -> Value {
        world.docker(&format!("/containers/{}/json", self.docker_id)).await["State"]["Running"].clone()
    }

    /// What there is of it below Docker.
    fn below(&self, world: &World) -> Vec<String> {
        let mut left: Vec<String> =
            HostProcess::shim(&self.docker_id).map(|shim| format!("{shim:?}")).into_iter().collect();
        let docker = world.stack.docker.dir.display().to_string();
        // Of a start that its containerd did not live to see, dockerd leaves an empty folder for the pipes.
        let find = format!(
            "find {docker}/x /sys/fs/cgroup -name '{}' -type d -not -path '{docker}/x/containerd/{0}'",
            self.docker_id
        );
        left.extend(sh(&find).lines().map(str::to_owned));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let roots = mounts.lines().filter(|line| line.contains(&docker) && line.contains("/merged "));
        left.extend(roots.map(str::to_owned));
        left
    }
}

fn is_dead(pid: i32) -> bool {
    calico_mesos::host::processes::Stat::of(pid).is_none_or(|stat| stat.is_dead())
}

fn records(world: &World) -> usize {
    Journal::open(&world.config.paths.journal()).unwrap().len()
}

#[tokio::test]
async fn an_exit_that_docker_missed_keeps_its_code() {
    let mut world = World::new().await;
    let line = "while [ ! -e /mnt/mesos/sandbox/go ]; do sleep 0.1; done; exit 3";
    let task = world.running(&app("/missed", line, calico())).await;
    let victim = Victim::of(task, "mesos-").await;
    faults::kill_containerd(&world.stack.docker);
    std::fs::write(victim.launched.sandbox.join("go"), "").unwrap();
    eventually("the process ends", async || is_dead(victim.pid)).await;
    tokio::time::sleep(NEWS).await;
    world.stack.docker.restart_containerd().await.unwrap();
    assert_eq!(victim.running(&world).await, json!(true), "Docker has not missed it");

    world
        .agent
        .wait_exit(&victim.id, LIMIT)
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", victim.log()));
    let last = world.agent.history(&victim.id).pop().unwrap().status;
    let message = last.message.clone().unwrap_or_default();
    assert_eq!(last.state(), TaskState::TaskFailed);
    assert!(message.contains("exited with status 3"), "{message}\n{}", victim.log());
    assert_eq!(victim.running(&world).await, json!(false));
    assert_eq!(victim.below(&world), Vec::<String>::new());
    world.nothing_left().await;
}

#[tokio::test]
async fn what_docker_cannot_end_is_ended_once_containerd_is_back() {
    let grace = |stack: &mut calico_mesos::rig::daemons::StackOptions| {
        stack.config.insert("gc.grace".into(), "\"5s\"".into());
    };
    let mut world = World::with(grace, tell_custom_executors).await;
    let ours = json!({
        "id": "/ours", "instances": 1, "cpus": 0.1, "mem": 32, "cmd": "sh -c 'exec sleep 1000'",
        "executor": EXECUTOR,
        "env": {"CALICO_IP": "auto", "CALICO_PROFILE": "dev", "CALICO_DOCKER_IMAGE": "busybox"},
    });
    let mut victims = Vec::new();
    for (app, prefix) in [
        (app("/agents", "exec sleep 1000", calico()), "mesos-"),
        (ours, "calico-mesos-"),
        (app("/earlier", "exec sleep 1000", calico()), "mesos-"),
    ] {
        let task = world.running(&app).await;
        let name = if prefix == "mesos-" { task.container() } else { prefix.to_owned() };
        victims.push(Victim::of(task, &name).await);
    }
    faults::kill_containerd(&world.stack.docker);
    let killed = Instant::now();
    for victim in &victims {
        kill(Pid::from_raw(victim.pid), Signal::SIGKILL).unwrap();
        world.agent.kill(&victim.id, Some(Duration::ZERO)).await.unwrap();
    }
    for victim in &victims {
        let waited = world.agent.wait_exit(&victim.id, LIMIT * 2).await;
        waited.unwrap_or_else(|error| panic!("{error}\n{}", victim.log()));
        let last = world.agent.history(&victim.id).pop().unwrap().status;
        assert_eq!(last.state(), TaskState::TaskKilled, "{last:?}");
    }
    assert_eq!(world.endpoints().await, Vec::<Value>::new(), "no address is held back for Docker");
    assert_eq!(records(&world), victims.len(), "{}", victims[0].log());
    // As the release before has left it.
    let record = format!("{}.json", victims[2].launched.container_id);
    std::fs::remove_file(world.config.paths.journal().join(record)).unwrap();
    tokio::time::sleep(NEWS.saturating_sub(killed.elapsed())).await;
    world.stack.docker.restart_containerd().await.unwrap();
    for index in [0, 2] {
        assert_eq!(victims[index].running(&world).await, json!(true), "Docker has not missed it");
    }

    eventually("the cleaner finishes", async || world.gc().status.success() && records(&world) == 0).await;
    for index in [0, 2] {
        assert_eq!(victims[index].running(&world).await, json!(false));
    }
    let ours = world.docker(&format!("/containers/{}/json", victims[1].container)).await;
    assert!(ours["message"].as_str().is_some_and(|text| text.contains("No such container")), "{ours}");
    for victim in &victims {
        assert_eq!(victim.below(&world), Vec::<String>::new());
    }
    world.nothing_left().await;
}

/// The cgroups of a container, as a `runc create` that was killed leaves them.
struct Stray {
    folders: Vec<PathBuf>,
}

impl Stray {
    fn new(id: &str) -> Self {
        let parent = format!("cm-stray-{}", &id[..12]);
        let hierarchies = ["/sys/fs/cgroup", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/memory"];
        let folders = hierarchies.map(Path::new).into_iter();
        let folders: Vec<PathBuf> = folders
            .filter(|folder| folder.join("cgroup.procs").exists())
            .map(|folder| folder.join(&parent).join(id))
            .collect();
        assert!(!folders.is_empty(), "this host has no cgroups that a test can see");
        folders.iter().for_each(|folder| std::fs::create_dir_all(folder.join("inner")).unwrap());
        Self { folders }
    }

    fn left(&self) -> Vec<&PathBuf> {
        self.folders.iter().filter(|folder| folder.exists()).collect()
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        for folder in &self.folders {
            let parent = folder.parent().unwrap();
            for path in [&folder.join("inner"), folder.as_path(), parent] {
                let _ = std::fs::remove_dir(path);
            }
        }
    }
}

#[tokio::test]
async fn cgroups_of_an_ended_container_are_removed_with_what_is_in_them() {
    let id = "c0de".repeat(16);
    let stray = Stray::new(&id);
    let mut inside = tokio::process::Command::new("sleep").arg("1000").spawn().unwrap();
    std::fs::write(stray.folders[0].join("inner/cgroup.procs"), inside.id().unwrap().to_string()).unwrap();
    assert!(end_remains(&id).await.unwrap());
    assert_eq!(stray.left(), Vec::<&PathBuf>::new());
    assert!(!inside.wait().await.unwrap().success());
    assert!(!end_remains(&id).await.unwrap(), "nothing was left");
}

#[tokio::test]
async fn the_cleaner_removes_cgroups_that_nothing_else_has_on_record() {
    let world = World::new().await;
    let task = world.running(&app("/stray", "sleep 1000", calico())).await;
    let victim = Victim::of(task, "mesos-").await;
    let stray = Stray::new(&victim.docker_id);
    kill(Pid::from_raw(victim.launched.executor_pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
    world.agent.wait_exit(&victim.id, LIMIT).await.unwrap();
    let output = world.gc();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stray.left(), Vec::<&PathBuf>::new());
    assert_eq!(victim.below(&world), Vec::<String>::new());
    world.nothing_left().await;
}
