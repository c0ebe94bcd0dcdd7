//! Daemons that are away, hang, die under a living container; a runtime that refuses.

use std::time::Duration;

use calico_mesos::error::{Blame, Code};
use calico_mesos::limits::START_WITHOUT_GATE as START;
use calico_mesos::rig::daemons::{import_busybox, Dockerd, DockerdOptions};
use calico_mesos::workload::{ContainerSpec, Docker, DockerHost, HostProcess};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use tokio::sync::oneshot;

use crate::daemon::{append, own_daemon, own_dir, shell, unique};
use crate::kit::faults::Freeze;
use crate::kit::wait::eventually;

#[tokio::test]
async fn a_docker_that_cannot_be_reached_is_named() {
    let failure = |host: &'static str| async move {
        Docker::connect(&DockerHost::parse(host).unwrap(), "from DOCKER_HOST").await.unwrap_err().failure()
    };
    for host in ["unix:///nonexistent/docker.sock", "tcp://127.0.0.1:1"] {
        let failure = failure(host).await;
        assert_eq!((failure.code, failure.blame()), (Code::Docker, Blame::Host));
        assert!(failure.message.contains(host) && failure.message.contains("from DOCKER_HOST"), "{failure}");
    }
}

#[tokio::test]
async fn a_container_outlives_its_daemon_and_is_still_heard() {
    let dir = own_dir();
    let mut daemon = own_daemon(dir.path()).await;
    let docker = Docker::connect(&DockerHost::parse(&daemon.host()).unwrap(), "").await.unwrap();
    let script = "for i in $(seq 1 80); do echo $i; sleep 0.1; done; exit 9";
    let id = docker.create(&unique("mesos"), &shell(script)).await.unwrap();
    let waiting = docker.wait(&id).await.unwrap();
    let output = docker.attach(&id).await.unwrap();
    docker.start(&id, START).await.unwrap();
    let (tell_pid, pid) = oneshot::channel();
    tell_pid.send(HostProcess::child(docker.inspect(&id).await.unwrap().pid.unwrap()).into()).unwrap();
    let (out, err) = (dir.path().join("out"), dir.path().join("err"));
    let pump = tokio::spawn(output.pump(append(&out), append(&err)));
    let waiting = tokio::spawn(waiting.exit(pid));
    let begun = async || std::fs::read_to_string(&out).unwrap_or_default().lines().count() >= 5;
    eventually("the container writes", begun).await;
    daemon.kill();
    // The outage, during which the container goes on writing.
    tokio::time::sleep(Duration::from_secs(1)).await;
    daemon.restart().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().code, 9);
    pump.await.unwrap();
    let text = std::fs::read_to_string(out).unwrap();
    let numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    let missing: Vec<u32> = (1..=80).filter(|number| !numbers.contains(number)).collect();
    // Docker and we do not stamp a line at the same moment: one of the two around the break may be lost or doubled.
    assert!(missing.len() <= 1 && numbers.len() <= 81, "missing {missing:?} in {numbers:?}");
    docker.remove(&id, true).await.unwrap();
    daemon.stop().await;
}

#[tokio::test]
async fn calls_to_a_daemon_that_hangs_end_with_their_limits() {
    let dir = own_dir();
    let mut daemon = own_daemon(dir.path()).await;
    let host = DockerHost::Tcp { host: "localhost".into(), port: daemon.tcp.unwrap().port() };
    let docker = Docker::connect(&host, "").await.unwrap();
    assert!(docker.is_local().await.unwrap());
    let id = docker.create(&unique("mesos"), &shell("sleep 1000")).await.unwrap();
    let waiting = docker.wait(&id).await.unwrap();
    docker.start(&id, START).await.unwrap();
    let container = docker.inspect(&id).await.unwrap().pid.unwrap();
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    let api = docker.version().rsplit(' ').next().unwrap();
    for call in ["containers/create", &format!("containers/{id}/wait"), &format!("containers/{id}/start")] {
        // "Calling POST /v1.41/…" in 20.10, fields of their own in later ones.
        let path = format!("/v{api}/{call}");
        let named = log.lines().any(|line| line.contains("POST") && line.contains(&path));
        assert!(named, "no POST {path} in the daemon's log");
    }
    daemon.freeze();

    let failure = Docker::connect(&host, "from config.toml").await.unwrap_err().failure();
    assert_eq!((failure.code, failure.blame()), (Code::Docker, Blame::Host));
    assert!(failure.message.contains("from config.toml") && failure.message.contains("5 s"), "{failure}");

    // The process dies, and nobody tells: the second source must lead to an end once Docker can be asked.
    let (tell_pid, pid) = oneshot::channel();
    tell_pid.send(HostProcess::child(container).into()).unwrap();
    let waiting = tokio::spawn(waiting.exit(pid));
    kill(Pid::from_raw(container), Signal::SIGKILL).unwrap();
    // Longer than the second source waits before it asks.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!waiting.is_finished());
    daemon.thaw();
    assert_eq!(waiting.await.unwrap().unwrap().code, 137);
    daemon.stop().await;
}

#[tokio::test]
async fn a_refusal_of_the_runtime_arrives_as_its_own_sentence() {
    let dir = own_dir();
    let runtime = dir.path().join("refuse");
    let script = "#!/bin/sh\n\
        for a; do id=$a; [ \"$p\" = --log ] && log=$a; [ \"$p\" = --root ] && root=$a; p=$a; [ \"$a\" = start ] && start=1; done\n\
        [ -z \"$start\" ] && exec runc \"$@\"\n\
        runc --root \"$root\" kill \"$id\" KILL\n\
        echo '{\"level\":\"error\",\"msg\":\"etcd is away: ask again\",\"time\":\"2026-01-01T00:00:00Z\"}' >> \"$log\"\n\
        exit 1\n";
    std::fs::write(&runtime, script).unwrap();
    std::fs::set_permissions(&runtime, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let runtimes = [("refuse".to_owned(), runtime)].into();
    let mut daemon =
        Dockerd::start(dir.path(), DockerdOptions { runtimes, ..Default::default() }).await.unwrap();
    import_busybox(&daemon).await.unwrap();
    let docker = Docker::connect(&DockerHost::parse(&daemon.host()).unwrap(), "").await.unwrap();
    let spec = ContainerSpec { runtime: Some("refuse".into()), ..shell("true") };
    let id = docker.create(&unique("mesos"), &spec).await.unwrap();
    let failure = docker.start(&id, START).await.unwrap_err().failure();
    assert_eq!((failure.code, failure.message.as_str()), (Code::Gate, "etcd is away: ask again"));
    docker.remove(&id, true).await.unwrap();
    daemon.stop().await;
}
