//! What Docker alone takes: create and start of the same container, to the API's answer.

use std::time::{Duration, Instant};

use calico_mesos::rig::daemons::Stack;
use serde_json::json;

use super::pipes::{let_end, watch_pipes, COMMAND};

/// Same image, command, environment size, mounts and limits as the task's container.
pub async fn create_and_start(stack: &Stack, network: &str, round: usize) -> Duration {
    let sandbox = stack.dir.join(format!("{network}-{round}"));
    std::fs::create_dir(&sandbox).expect("a folder in the stack's own");
    let started = watch_pipes(&sandbox);
    let name = format!("reference-{network}-{round}");
    let body = json!({
        "Image": "busybox",
        "Entrypoint": ["/bin/sh"],
        "Cmd": ["-c", COMMAND],
        "Env": ["MESOS_SANDBOX=/mnt/mesos/sandbox", format!("MESOS_CONTAINER_NAME={name}")],
        "HostConfig": {
            "NetworkMode": network,
            "Binds": [format!("{}:/mnt/mesos/sandbox", sandbox.display())],
            "CpuShares": 102,
            "Memory": 33_554_432,
        },
    });
    let docker = &stack.docker;
    let begin = Instant::now();
    let path = format!("/containers/create?name={name}");
    let (status, text) =
        docker.request("POST", &path, body.to_string().as_bytes()).await.expect("dockerd answers");
    assert_eq!(status, 201, "{text}");
    let (status, text) =
        docker.request("POST", &format!("/containers/{name}/start"), b"").await.expect("dockerd answers");
    let took = begin.elapsed();
    assert_eq!(status, 204, "{text}");

    started.await.expect("the container starts");
    let_end(&sandbox).await;
    let path = format!("/containers/{name}?force=1&v=1");
    docker.request("DELETE", &path, b"").await.expect("dockerd answers");
    took
}
