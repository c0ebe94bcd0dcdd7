//! `workload` against a real Docker daemon of its own, and tasks as `task::spec` describes them.
//!
//! Needs root, `dockerd`, the docker CLI and a static busybox. The tests share one daemon, in a network
//! namespace of its own (so that it may have a bridge), as long as one of them runs; those that hurt it
//! start another ([`trouble`]).

mod answers;
mod daemon;
mod elsewhere;
mod exec;
mod hosts;
#[path = "../kit/mod.rs"]
mod kit;
mod parameters;
mod registry;
mod tls;
mod trouble;

use kit::certificates;

use std::path::Path;
use std::time::Duration;

use calico_mesos::error::{Blame, Code};
use calico_mesos::limits::START_WITHOUT_GATE as START;
use calico_mesos::mesos::flags::Flags;
use calico_mesos::mesos::messages::*;
use calico_mesos::task::request::{describe, docker_host, total_memory, Context, Work};
use calico_mesos::workload::{ContainerSpec, DockerError, ImageRequest, PortBinding, Sink, Ulimit};
use tokio::sync::oneshot;

use daemon::{run, shared, shell, unique};

/// The container that the drop-in makes of a task.
fn described(task: &TaskInfo, flags: &Flags, memory: Option<u64>) -> ContainerSpec {
    let docker = || docker_host::choose(None, false, Path::new("/nowhere"), None);
    let context = Context::of_agent(flags, memory, &docker).unwrap();
    let description = describe(task, &context).unwrap();
    match description.task.work() {
        Work::Docker(task) => task.container.clone(),
        other => panic!("not a container: {other:?}"),
    }
}

#[tokio::test]
async fn a_life_from_create_to_exit() {
    let daemon = shared();
    let docker = daemon.connect().await;
    assert!(docker.version().contains("API 1."), "{}", docker.version());
    assert!(docker.is_local().await.unwrap());
    let ran = run(&docker, &shell("echo out; echo err >&2; exit 3")).await.unwrap();
    assert_eq!((ran.exit.code, ran.stdout.as_str(), ran.stderr.as_str()), (3, "out\n", "err\n"));
    let ran = run(&docker, &shell("sh -c 'kill -9 $$'; exit $?")).await.unwrap();
    assert_eq!(ran.exit.code, 137);
}

#[tokio::test]
async fn everything_in_the_spec_is_seen_inside() {
    let daemon = shared();
    let docker = daemon.connect().await;
    let volume = tempfile::tempdir().unwrap();
    std::fs::write(volume.path().join("f"), "from the host\n").unwrap();
    let script = "echo $A-$B; hostname; cat /v/f; echo x > /v/f || echo read-only; grep extra /etc/hosts; \
                  grep -c NetAdmin /proc/self/status; ulimit -n; grep CapEff /proc/self/status; \
                  cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.shares \
                  /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null; cat /etc/resolv.conf";
    let spec = ContainerSpec {
        environment: vec!["A=1".into(), "B=two words".into()],
        hostname: Some("web-1".into()),
        binds: vec![format!("{}:/v:ro", volume.path().display())],
        extra_hosts: vec!["extra:10.1.2.3".into()],
        ulimits: vec![Ulimit { name: "nofile".into(), soft: 77, hard: 88 }],
        cap_drop: vec!["ALL".into()],
        cap_add: vec!["NET_ADMIN".into()],
        memory: Some(64 << 20),
        cpu_shares: Some(512),
        cpu_quota: Some(50_000),
        labels: [("k".to_owned(), "v=w".to_owned())].into(),
        dns: vec!["10.9.9.9".into()],
        dns_search: vec!["svc.example".into()],
        dns_options: vec!["ndots:2".into()],
        ..shell(script)
    };
    let ran = run(&docker, &spec).await.unwrap();
    let expected = [
        "1-two words",
        "web-1",
        "from the host",
        "read-only",
        "10.1.2.3\textra",
        "77",
        "0000000000001000",
        "67108864",
        "512",
        "50000",
        "nameserver 10.9.9.9",
        "search svc.example",
        "options ndots:2",
    ];
    for line in expected {
        assert!(ran.stdout.contains(line), "'{line}' is missing in:\n{}\n{}", ran.stdout, ran.stderr);
    }
    assert_eq!(std::fs::read_to_string(volume.path().join("f")).unwrap(), "from the host\n");
}

#[tokio::test]
async fn a_task_of_marathon_runs_as_described() {
    let daemon = shared();
    let docker = daemon.connect().await;
    let sandbox = tempfile::tempdir().unwrap();
    let flags = Flags::parse([
        "mesos-docker-executor".to_owned(),
        "--container=mesos-1087382a-40ba-4fa3-9eda-41fed69a9a91".to_owned(),
        format!("--sandbox_directory={}", sandbox.path().display()),
        "--mapped_directory=/mnt/mesos/sandbox".to_owned(),
    ])
    .unwrap();
    let scalar = |name: &str, value| Resource {
        name: name.into(),
        scalar: Some(value::Scalar { value }),
        ..Default::default()
    };
    let parameter = |key: &str, value: &str| Parameter { key: key.into(), value: value.into() };
    let script = "echo $GREETING from $(hostname); echo done > $MESOS_SANDBOX/result; \
                  cat /sys/fs/cgroup/memory/memory.limit_in_bytes; ulimit -n; echo $MESOS_CONTAINER_NAME";
    let greeting =
        environment::Variable { name: "GREETING".into(), value: Some("hello".into()), ..Default::default() };
    let task = TaskInfo {
        name: "web".into(),
        task_id: TaskId { value: "web.1".into() },
        resources: vec![scalar("cpus", 0.1), scalar("mem", 48.0)],
        command: Some(CommandInfo {
            value: Some(script.into()),
            environment: Some(Environment { variables: vec![greeting] }),
            ..Default::default()
        }),
        container: Some(ContainerInfo {
            r#type: container_info::Type::Docker as i32,
            hostname: Some("web-1".into()),
            docker: Some(container_info::DockerInfo {
                image: "busybox".into(),
                network: Some(container_info::docker_info::Network::Bridge as i32),
                parameters: vec![parameter("ulimit", "nofile=99"), parameter("label", "MESOS_TASK_ID=web.1")],
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let ran = run(&docker, &described(&task, &flags, total_memory())).await.unwrap();
    let expected = "hello from web-1\n50331648\n99\nmesos-1087382a-40ba-4fa3-9eda-41fed69a9a91\n";
    assert_eq!(ran.stdout, expected, "{}", ran.stderr);
    assert_eq!(std::fs::read_to_string(sandbox.path().join("result")).unwrap(), "done\n");
}

#[tokio::test]
async fn entrypoint_and_command_of_the_image() {
    let daemon = shared();
    let docker = daemon.connect().await;
    let entry = |command: Option<&[&str]>| ContainerSpec {
        image: "entry".into(),
        command: command.map(|words| words.iter().map(|word| (*word).to_owned()).collect()),
        network: "none".into(),
        ..Default::default()
    };
    assert_eq!(run(&docker, &entry(None)).await.unwrap().stdout, "entry cmd\n");
    assert_eq!(run(&docker, &entry(Some(&["a", "b c"]))).await.unwrap().stdout, "entry a b c\n");
    let shell = ContainerSpec { image: "entry".into(), ..shell("echo mine") };
    assert_eq!(run(&docker, &shell).await.unwrap().stdout, "mine\n");
}

#[tokio::test]
async fn inspect_is_the_text_of_the_cli() {
    let daemon = shared();
    let docker = daemon.connect().await;
    let name = unique("mesos");
    let spec = ContainerSpec {
        network: "bridge".into(),
        ports: vec![PortBinding { host_port: 31000, container_port: 80, protocol: "tcp".into() }],
        ..shell("sleep 60")
    };
    let id = docker.create(&name, &spec).await.unwrap();
    assert!(!docker.inspect(&name).await.unwrap().started);
    docker.start(&id, START).await.unwrap();
    let inspected = docker.inspect(&name).await.unwrap();
    assert!(inspected.running && inspected.started);
    assert!(Path::new("/proc").join(inspected.pid.unwrap().to_string()).exists());
    assert_eq!(inspected.addresses.len(), 1, "{}", inspected.text);
    let cli = daemon.cli_as(&docker, &["inspect", "--type=container", &name]);
    // Go escapes what HTML could mistake; the values are the same.
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(json(&inspected.text), json(&cli));
    assert_eq!(inspected.text.lines().count(), cli.lines().count());
    docker.kill(&id).await.unwrap();
    docker.remove(&id, true).await.unwrap();
}

#[tokio::test]
async fn stop_kill_and_remove_forgive_what_is_done_already() {
    let daemon = shared();
    let docker = daemon.connect().await;
    let id = docker
        .create(&unique("mesos"), &shell("trap 'exit 5' TERM; while :; do sleep 0.1; done"))
        .await
        .unwrap();
    let waiting = docker.wait(&id).await.unwrap();
    docker.start(&id, START).await.unwrap();
    docker.stop(&id, Duration::from_millis(2500)).await.unwrap();
    assert_eq!(waiting.exit(oneshot::channel().1).await.unwrap().code, 5);
    docker.stop(&id, Duration::ZERO).await.unwrap();
    docker.kill(&id).await.unwrap();
    docker.remove(&id, false).await.unwrap();
    docker.remove(&id, false).await.unwrap();
    docker.stop(&id, Duration::ZERO).await.unwrap();
    docker.kill(&id).await.unwrap();
    assert!(matches!(docker.inspect(&id).await, Err(DockerError::NoContainer { .. })));
}

#[tokio::test]
async fn images_are_pulled_only_when_missing() {
    let daemon = shared();
    let docker = daemon.connect().await;
    let image = |image| ImageRequest { image, ..ImageRequest::default() };
    let mut lines = Vec::new();
    docker.ensure_image(image("busybox"), &mut |line| lines.push(line.to_owned())).await.unwrap();
    assert!(lines.is_empty());
    let error = docker.ensure_image(image("localhost:1/none"), &mut |line| lines.push(line.to_owned())).await;
    let failure = error.unwrap_err().failure();
    assert_eq!((failure.code, failure.blame()), (Code::ImagePull, Blame::Host), "{failure}");
    assert!(failure.message.contains("localhost:1/none"), "{failure}");
    assert_eq!(lines, ["pulling image localhost:1/none"]);
    let error = docker.ensure_image(image("UPPER CASE"), &mut |_| ()).await;
    let failure = error.unwrap_err().failure();
    assert_eq!((failure.code, failure.blame()), (Code::Image, Blame::App), "{failure}");
}

#[tokio::test]
async fn a_megabyte_arrives_in_order() {
    let daemon = shared();
    let docker = daemon.connect().await;
    let ran = run(&docker, &shell("seq 1 150000")).await.unwrap();
    let expected: String = (1..=150_000).map(|number| format!("{number}\n")).collect();
    assert!(expected.len() > 900_000 && ran.stdout == expected, "{} bytes", ran.stdout.len());
}

#[tokio::test]
async fn a_broken_pipe_stops_nothing() {
    let daemon = shared();
    let docker = daemon.connect().await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let file = tempfile::NamedTempFile::new().unwrap();
    let id = docker.create(&unique("mesos"), &shell("seq 1 50000; echo done >&2")).await.unwrap();
    let waiting = docker.wait(&id).await.unwrap();
    let output = docker.attach(&id).await.unwrap();
    docker.start(&id, START).await.unwrap();
    let pump = output.pump(Sink::of(&writer).unwrap(), Sink::of(file.as_file()).unwrap());
    let (exit, ()) = tokio::join!(waiting.exit(oneshot::channel().1), pump);
    assert_eq!(exit.unwrap().code, 0);
    assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "done\n");
    docker.remove(&id, true).await.unwrap();
}
