//! How soon a Calico container runs: through the proxy, and as an executor's task.
//!
//! Both from the moment at which the request is handed over, create or LAUNCH, to the workload's first instruction,
//! which has its address by then. Same image, command, folder, variables and limits, and the same daemons.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::client::Client;
use super::figures::{Figure, Goal};
use super::pipes::{let_end, watch_pipes, COMMAND};
use super::program::Program;
use super::world::World;

const ROUNDS: usize = 20;
const WARM_UP: usize = 3;

#[derive(Default)]
pub struct Starts {
    executor: Figure,
    proxy: Figure,
    /// Create and start of a container without Calico, at Docker's socket.
    host: Figure,
}

pub async fn measure(world: &World, proxy: &Program) -> Starts {
    let mut starts = Starts::default();
    for round in 0..WARM_UP + ROUNDS {
        let took = [
            by_executor(world).await,
            by_docker(world, &proxy.socket, "default", round).await,
            by_docker(world, &world.stack.docker.socket, "host", round).await,
        ];
        if round >= WARM_UP {
            let figures = [&mut starts.executor, &mut starts.proxy, &mut starts.host];
            figures.into_iter().zip(took).for_each(|(figure, took)| figure.add(took));
        }
    }
    starts
}

async fn by_executor(world: &World) -> Duration {
    let mut task = world.launch().await;
    let first_instruction = task.first_instruction().await;
    let took = first_instruction.duration_since(task.handed_over(world));
    task.let_end().await;
    task.terminal(world).await;
    world.clean_up(task).await;
    took
}

async fn by_docker(world: &World, socket: &Path, network: &str, round: usize) -> Duration {
    let name = format!("start-{network}-{round}");
    let sandbox = world.stack.dir.join(&name);
    std::fs::create_dir(&sandbox).expect("a folder in the stack's own");
    let started = watch_pipes(&sandbox);
    let mut env = vec!["MESOS_SANDBOX=/mnt/mesos/sandbox", "SERVICE_PORT=3000"];
    if network != "host" {
        env.extend(["CALICO_IP=auto", "CALICO_PROFILE=dev"]);
    }
    let body = json!({
        "Image": "busybox",
        "Entrypoint": ["/bin/sh"],
        "Cmd": ["-c", COMMAND],
        "Env": env,
        "HostConfig": {
            "NetworkMode": network,
            "Binds": [format!("{}:/mnt/mesos/sandbox", sandbox.display())],
            "CpuShares": 102,
            "Memory": 33_554_432,
        },
    });
    let mut client = Client::unix(socket).await;
    let begin = Instant::now();
    client.done("POST", &format!("/containers/create?name={name}"), &body.to_string()).await;
    client.done("POST", &format!("/containers/{name}/start"), "").await;
    let first_instruction = started.await.expect("the container starts");
    let took = first_instruction.duration_since(begin);
    let_end(&sandbox).await;
    client.done("DELETE", &format!("/containers/{name}?force=1&v=1"), "").await;
    took
}

impl Starts {
    pub fn print(&self) {
        println!("{}", self.executor.row("a Calico container's first instruction, by the executor", "ms"));
        println!("{}", self.proxy.row("  by create and start through the proxy", "ms"));
        println!("{}", self.host.row("  without Calico, network host, at Docker's socket", "ms"));
    }

    pub fn goals(&self) -> Vec<Goal> {
        let ratio = self.proxy.median() / self.executor.median();
        vec![Goal::new("proxy-start-to-executor-ratio", ratio, 1.1)]
    }
}
