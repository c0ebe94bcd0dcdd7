//! The private daemons themselves: they come up, restart in place, and leave nothing behind.

mod kit;

use std::fs;
use std::path::Path;

use calico_mesos::config::Config;
use calico_mesos::rig::daemons::{
    self, free_pool, sweep, DevError, Dockerd, DockerdOptions, Network, Stack, StackOptions,
};
use kit::wait;

/// Everything on the machine that names this folder: processes and mounts.
fn traces_of(dir: &Path) -> Vec<String> {
    let name = dir.to_string_lossy().into_owned();
    let cgroup = name.replace('/', "-");
    let mut found: Vec<String> = fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .filter(|line| line.contains(&name))
        .map(str::to_owned)
        .collect();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let groups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if stat.contains(") Z ") {
            continue;
        }
        if line.contains(&name) || groups.contains(&cgroup) {
            found.push(line.replace('\0', " "));
        }
    }
    for entry in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let group = entry.path().join(format!("cm{cgroup}-d"));
        found.extend(group.exists().then(|| group.display().to_string()));
    }
    found
}

async fn run_container(docker: &Dockerd, name: &str) {
    let body = br#"{"Image":"busybox","Cmd":["sleep","1000"],"StopSignal":"SIGKILL","HostConfig":{"NetworkMode":"none"}}"#;
    let created = post_json(docker, &format!("/containers/create?name={name}"), body).await;
    assert_eq!(created, 201);
    assert_eq!(docker.request("POST", &format!("/containers/{name}/start"), b"").await.unwrap().0, 204);
}

fn forwarding() -> [String; 2] {
    ["ipv4/ip_forward", "ipv6/conf/all/forwarding"]
        .map(|name| fs::read_to_string(Path::new("/proc/sys/net").join(name)).unwrap())
}

async fn post_json(docker: &Dockerd, path: &str, body: &[u8]) -> u16 {
    let (status, text) = docker.request("POST", path, body).await.unwrap();
    assert!(status < 500, "{text}");
    status
}

#[tokio::test]
async fn a_stack_comes_up_and_leaves_nothing() {
    let options = StackOptions { consul: true, docker_tcp: true, any_dns_port: true, ..Default::default() };
    let before = forwarding();
    let stack = Stack::start(options).await.unwrap();
    let dir = stack.dir.clone();
    assert_eq!(forwarding(), before, "dockerd changed this namespace's forwarding");

    let config = Config::load(&stack.config).unwrap();
    assert_eq!(config.etcd.endpoints.join(","), stack.etcd_endpoint);
    assert_eq!(config.consul.address, stack.consul.as_ref().unwrap().url());
    assert_eq!(config.docker.host, Some(stack.docker.host()));
    assert_eq!(config.node.local_pools, [free_pool().unwrap()]);
    assert!(config.paths.run.starts_with(&dir) && config.paths.ipam_lock.starts_with(&dir));
    tokio::net::TcpStream::connect(stack.docker.tcp.unwrap()).await.unwrap();

    run_container(&stack.docker, "one").await;
    assert!(!traces_of(&dir).is_empty());
    stack.stop().await.unwrap();
    assert_eq!(traces_of(&dir), [""; 0]);
    assert!(!dir.exists());
}

#[tokio::test]
async fn daemons_restart_in_place() {
    let mut stack = Stack::start(StackOptions::default()).await.unwrap();
    run_container(&stack.docker, "survivor").await;

    let etcd = stack.etcd.as_mut().unwrap();
    etcd.kill();
    etcd.restart().await.unwrap();
    stack.docker.kill();
    stack.docker.restart().await.unwrap();
    let (status, text) = stack.docker.request("GET", "/containers/survivor/json", b"").await.unwrap();
    assert_eq!(status, 200, "{text}");

    let dir = stack.dir.clone();
    drop(stack);
    assert_eq!(traces_of(&dir), [""; 0]);
    assert!(!dir.exists());
}

#[tokio::test]
async fn what_a_killed_dockerd_leaves_is_swept() {
    let mut stack = Stack::start(StackOptions::default()).await.unwrap();
    run_container(&stack.docker, "orphan").await;
    stack.docker.kill();
    let dir = stack.dir.clone();
    assert!(
        traces_of(&dir).iter().any(|trace| trace.contains("sleep")),
        "the container should have survived"
    );
    drop(stack);
    assert_eq!(traces_of(&dir), [""; 0]);
}

/// Runs this very test once more, as a process that is killed in the middle.
#[tokio::test]
async fn a_killed_owner_takes_its_daemons_along() {
    const ROLE: &str = "CALICO_MESOS_TEST_BASE";
    if let Some(base) = std::env::var_os(ROLE) {
        let options = StackOptions { base: Some(base.into()), ..Default::default() };
        let stack = Stack::start(options).await.unwrap();
        run_container(&stack.docker, "left").await;
        fs::write(stack.dir.join("up"), "").unwrap();
        return std::future::pending().await;
    }
    let base = tempfile::tempdir().unwrap();
    let mut owner = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["a_killed_owner", "--nocapture"])
        .env(ROLE, base.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let dir = wait::blocking(wait::LIMIT, "the owner has started all", || {
        let dir = fs::read_dir(base.path()).unwrap().flatten().next()?.path();
        dir.join("up").exists().then_some(dir)
    });
    assert!(sweep::abandoned(base.path()).is_empty(), "its owner is alive");
    owner.kill().unwrap();
    owner.wait().unwrap();
    // etcd and dockerd go by themselves, the kernel tells them.
    let etcd_runs = || traces_of(&dir).iter().any(|trace| trace.contains("etcd"));
    wait::blocking(wait::LIMIT, "etcd ends with its owner", || !etcd_runs());
    assert_eq!(sweep::abandoned(base.path()), std::slice::from_ref(&dir));
    assert_eq!(traces_of(&dir), [""; 0]);
}

/// Runs once more in a network namespace of its own: the other tests' daemons would delete the bridge.
#[tokio::test]
async fn the_bridge_of_another_docker_is_left_alone() {
    const ROLE: &str = "CALICO_MESOS_TEST_BRIDGE";
    if std::env::var_os(ROLE).is_none() {
        let again = std::process::Command::new("unshare")
            .arg("--net")
            .arg(std::env::current_exe().unwrap())
            .args(["the_bridge_of_another_docker", "--nocapture"])
            .env(ROLE, "1")
            .output()
            .unwrap();
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
        return;
    }
    let has_bridge = || fs::read_to_string("/proc/net/dev").unwrap().contains("docker0:");
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options = DockerdOptions { network: Network::Bridge, ..Default::default() };
    let mut machines = Dockerd::start(first.path(), options).await.unwrap();
    assert!(has_bridge());
    let mut ours = Dockerd::start(second.path(), DockerdOptions::default()).await.unwrap();
    assert!(has_bridge(), "a private dockerd deleted the machine's bridge");
    ours.stop().await;
    machines.stop().await;
}

/// Runs once more where a containerd of the machine seems to listen: dockerd would take it for its own.
#[tokio::test]
async fn the_machines_containerd_is_left_alone() {
    const ROLE: &str = "CALICO_MESOS_TEST_CONTAINERD";
    if std::env::var_os(ROLE).is_none() {
        let script = "mount -t tmpfs none /run && mkdir /run/containerd && exec \"$@\"";
        let again = std::process::Command::new("unshare")
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["the_machines_containerd", "--nocapture"])
            .env(ROLE, "1")
            .output()
            .unwrap();
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
        return;
    }
    let machines = std::os::unix::net::UnixListener::bind("/run/containerd/containerd.sock").unwrap();
    machines.set_nonblocking(true).unwrap();
    let stack = Stack::start(StackOptions::default()).await.unwrap();
    run_container(&stack.docker, "mine").await;
    stack.stop().await.unwrap();
    let asked = machines.accept().map(|_| ()).unwrap_err();
    assert_eq!(asked.kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_broken_daemon_tells_its_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let options = DockerdOptions { arguments: vec!["--no-such-flag".into()], ..Default::default() };
    let Err(error) = Dockerd::start(dir.path(), options).await else { panic!("it started") };
    // Its end was seen: it was not waited for until the limit of a start.
    assert!(matches!(error, DevError::Exited { .. }), "{error:?}");
    assert!(error.to_string().contains("no-such-flag"), "{error}");
}

/// Runs once more as a sweeper that sees no process of the owner.
#[tokio::test]
async fn a_running_cluster_is_not_swept_from_another_pid_namespace() {
    const ROLE: &str = "CALICO_MESOS_TEST_SWEEPER";
    if let Some(base) = std::env::var_os(ROLE) {
        assert!(sweep::abandoned(Path::new(&base)).is_empty());
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let options = StackOptions { base: Some(base.path().into()), ..Default::default() };
    let stack = Stack::start(options).await.unwrap();
    let swept = std::process::Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args(["a_running_cluster_is_not_swept", "--nocapture"])
        .env(ROLE, base.path())
        .output()
        .unwrap();
    assert!(swept.status.success(), "{}", String::from_utf8_lossy(&swept.stdout));
    assert!(stack.config.exists());
    run_container(&stack.docker, "unharmed").await;
    stack.stop().await.unwrap();
}

/// `run --dev` is killed; its executor would wait 10 s for it, and write its record again in the meantime.
#[tokio::test]
async fn an_executor_that_outlives_its_cluster_does_not_bring_its_folder_back() {
    let base = tempfile::tempdir().unwrap();
    let app = base.path().join("app.json");
    let text = r#"{"id":"left","cpus":0.1,"mem":32,"cmd":"sleep 1000","env":{"CALICO_IP":"auto"},
        "container":{"type":"DOCKER","docker":{"image":"busybox"}}}"#;
    fs::write(&app, text).unwrap();
    let output = fs::File::create(base.path().join("output")).unwrap();
    // In a network namespace of its own: it switches forwarding on, and another test looks for that.
    let mut run = std::process::Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .args([env!("CARGO_BIN_EXE_calico-mesos"), "run", "--dev"])
        .arg(&app)
        .env("TMPDIR", base.path())
        .stdin(std::process::Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    let executors = || {
        let names = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let all = daemons::members(base.path()).into_iter();
        all.filter(|pid| {
            names(pid).starts_with("mesos-docker-ex") || names(pid).starts_with("calico-executor")
        })
        .collect::<Vec<_>>()
    };
    let dir = wait::blocking(wait::LIMIT, "the task runs", || {
        assert!(
            run.try_wait().unwrap().is_none(),
            "{}",
            fs::read_to_string(base.path().join("output")).unwrap()
        );
        let mut folders = fs::read_dir(base.path()).unwrap().flatten().map(|entry| entry.path());
        let dir = folders.find(|path| path.join("config.toml").exists())?;
        let running = fs::read_to_string(base.path().join("output")).unwrap().contains("RUNNING");
        running.then_some(dir)
    });
    let left = executors();
    assert!(!left.is_empty(), "the task runs, so its executor does");
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(executors(), left, "an executor waits for its agent");
    assert_eq!(sweep::abandoned(base.path()), std::slice::from_ref(&dir));
    assert_eq!(executors(), [0; 0]);
    assert_eq!(traces_of(&dir), [""; 0]);
    assert!(!dir.exists());
}
