//! Executors of Mesos behind the proxy: ours, and the stock one by the command lines that it calls.

use std::process::{Command, Output, Stdio};

use calico_mesos::mesos::messages::TaskState;
use calico_mesos::rig::daemons::free_port;

use crate::lab::Lab;
use crate::wait::eventually;
use crate::world::{app, calico};

/// Its own executor wires it: by its journal, which no user can write, the proxy leaves it alone.
#[tokio::test]
async fn a_task_of_our_executor_is_wired_once() {
    let lab = Lab::new().await;
    let task = lab.world.running(&app("/web", "sleep 1000", calico())).await;
    assert_eq!(lab.world.endpoints().await.len(), 1);
    let bindings = std::fs::read_dir(lab.world.config.paths.bindings()).unwrap();
    assert_eq!(bindings.count(), 0, "{}", lab.log());
    let status = task.kill().await;
    assert_eq!(status.state(), TaskState::TaskKilled);
    lab.world.nothing_left().await;
}

/// The stock executor's command lines (Mesos 1.12), with `--docker_socket=<proxy>`.
#[tokio::test]
async fn a_stock_executors_commands_give_its_task_an_address() {
    let lab = Lab::new().await;
    let host = format!("unix://{}", lab.socket().display());
    stock(&lab, &["-H", &host], None).await;
}

/// The same by DOCKER_HOST as the user's page writes it, without `tcp://`.
#[tokio::test]
async fn a_stock_executor_that_honours_docker_host_gives_its_task_an_address() {
    let lab = Lab::new().await;
    let host = format!("localhost:{}", lab.proxy.port);
    stock(&lab, &[], Some(&host)).await;
}

async fn stock(lab: &Lab, to: &[&str], docker_host: Option<&str>) {
    let command = |arguments: &[&str]| {
        let mut command = Command::new("docker");
        command.args(to).args(arguments).stdin(Stdio::null());
        command.envs(docker_host.map(|host| ("DOCKER_HOST", host)));
        command
    };
    let call = |arguments: &[&str]| -> Output { command(arguments).output().unwrap() };
    // All labs share one host.
    let port = format!("{}:80/tcp", free_port().unwrap());
    let errors = lab.world.stack.dir.join("stderr");
    let name = "mesos-7b5c3f0e-8a3d-4c53-9d7e-2f6f0b0a1c55";
    let mut run = command(&[
        "run",
        "--cpu-shares",
        "102",
        "--memory",
        "33554432",
        "-e",
        "MARATHON_APP_ID=/web",
        "-e",
        "MESOS_TASK_ID=web.1",
        "-e",
        "CALICO_IP=auto",
        "-e",
        "CALICO_PROFILE=dev",
        "-e",
        "SERVICE_PORT=80",
        "--net",
        "bridge",
        "-p",
        &port,
        "--entrypoint",
        "/bin/sh",
        "--name",
        name,
        "busybox",
        "-c",
        "echo up; trap 'exit 7' TERM; while :; do sleep 0.1; done",
    ])
    .stdout(Stdio::null())
    .stderr(std::fs::File::create(&errors).unwrap())
    .spawn()
    .unwrap();
    let address = eventually("its container runs with an address", async || {
        let seen = call(&["inspect", "--type=container", name]);
        let seen: serde_json::Value = serde_json::from_slice(&seen.stdout).unwrap_or_default();
        let seen = &seen[0];
        // As the stock executor looks: by the network mode.
        let mode = seen["HostConfig"]["NetworkMode"].as_str().unwrap_or_default();
        let address = seen["NetworkSettings"]["Networks"][mode]["IPAddress"].as_str().unwrap_or_default();
        let running = seen["State"]["Pid"].as_i64().is_some_and(|pid| pid > 0);
        let told = || format!("{}\n{}", std::fs::read_to_string(&errors).unwrap(), lab.log());
        (running && !address.is_empty()).then(|| address.to_owned()).ok_or_else(told)
    })
    .await;
    let [endpoint] = lab.world.endpoints().await.try_into().unwrap();
    assert_eq!(endpoint["spec"]["ipNetworks"][0], format!("{address}/32"));
    assert!(String::from_utf8_lossy(&call(&["ps", "-a"]).stdout).contains(name));
    assert!(String::from_utf8_lossy(&call(&["logs", name]).stdout).contains("up"));
    // A cleaner of ours sees a container of this name that is none of its own.
    assert!(lab.world.gc().status.success());
    assert!(call(&["stop", "-t", "5", name]).status.success());
    assert_eq!(run.wait().unwrap().code(), Some(7));
    assert!(call(&["rm", "-f", "-v", name]).status.success());
    lab.nothing_left().await;
}
