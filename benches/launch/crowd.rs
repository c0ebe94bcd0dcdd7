//! Many at once: executors with a Calico task each, and `docker run -d` on the host's network.

use std::process::Stdio;
use std::time::{Duration, Instant};

use calico_mesos::mesos::messages::TaskState;
use tokio::process::Command;

use super::world::{memory, World};

pub const CROWD: usize = 100;
/// When the executors have come to rest.
const AT_REST: Duration = Duration::from_secs(10);

/// What a crowd of executors took.
pub struct Crowd {
    /// From the first launch to the last RUNNING.
    pub took: Duration,
    /// PSS and private memory of each executor at rest, while all others live, in units of 1024 KiB.
    pub memory: Vec<(f64, f64)>,
}

/// Launches so many tasks at the same time, lets their executors come to rest, and kills them.
pub async fn executors(world: &World, count: usize) -> Crowd {
    let begin = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..count {
        tasks.push(world.launch_sleeper().await);
    }
    let mut last = begin;
    for (id, _) in &tasks {
        last = last.max(world.reached(id, TaskState::TaskRunning).await);
    }
    tokio::time::sleep(AT_REST).await;
    let memory = tasks.iter().map(|(_, launched)| memory(launched.executor_pid)).collect();
    for (id, _) in &tasks {
        world.kill(id).await;
    }
    for (id, launched) in &tasks {
        world.gone(id, &launched.container_id).await;
    }
    Crowd { took: last - begin, memory }
}

/// The docker CLI, a hundred times at once, until the last one has returned.
pub async fn docker_run(world: &World) -> Duration {
    let host = world.stack.docker.host();
    let begin = Instant::now();
    let mut running = Vec::new();
    for number in 0..CROWD {
        let name = format!("crowd-{number}");
        let mut run = Command::new("docker");
        run.args(["-H", &host, "run", "-d", "--network", "host", "--memory", "32m", "--cpu-shares", "102"])
            .args(["--name", &name, "--entrypoint", "/bin/sh", "busybox", "-c", "exec sleep 1000"])
            .env("DOCKER_CONFIG", &world.stack.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        running.push(run.spawn().expect("the docker CLI"));
    }
    for mut run in running {
        assert!(run.wait().await.expect("a child of ours").success(), "docker run failed");
    }
    let took = begin.elapsed();
    for number in 0..CROWD {
        world.remove(&format!("crowd-{number}")).await;
    }
    took
}
