//! Parameters against the docker CLI itself: a container made of a TaskInfo, and one made by `docker
//! create` with the flags that the stock executor would give, must look alike to `docker inspect`.
//!
//! Left out, and tested as values only: `annotation` and `health-start-interval` (Docker 20.10 has no such
//! thing), `cpu-rt-*` and `storage-opt` (need a special kernel or file system), and what `docker create`
//! does not have. `mac-address` is looked at from inside, because a new CLI refuses to ask an old daemon for it.

use std::path::Path;

use calico_mesos::error::Code;
use calico_mesos::mesos::flags::Flags;
use calico_mesos::mesos::messages::*;
use serde_json::{json, Map, Value};

use crate::daemon::{run, shared, unique, Shared};
use crate::described;

const SCRIPT: &str = "echo hello";

/// What both sides are given besides the parameters.
struct Case<'a> {
    daemon: &'a Shared,
    sandbox: &'a Path,
    mesos_name: String,
}

impl<'a> Case<'a> {
    fn new(daemon: &'a Shared, sandbox: &'a Path) -> Self {
        Self { daemon, sandbox, mesos_name: unique("mesos") }
    }

    fn task(&self, parameters: &[(&str, &str)]) -> TaskInfo {
        let scalar = |name: &str, value| Resource {
            name: name.into(),
            scalar: Some(value::Scalar { value }),
            ..Default::default()
        };
        let parameter =
            |(key, value): &(&str, &str)| Parameter { key: (*key).into(), value: (*value).into() };
        TaskInfo {
            name: "web".into(),
            task_id: TaskId { value: "web.1".into() },
            resources: vec![scalar("cpus", 0.1), scalar("mem", 32.0)],
            command: Some(CommandInfo { value: Some(SCRIPT.into()), ..Default::default() }),
            container: Some(ContainerInfo {
                r#type: container_info::Type::Docker as i32,
                docker: Some(container_info::DockerInfo {
                    image: "busybox".into(),
                    network: Some(container_info::docker_info::Network::Bridge as i32),
                    parameters: parameters.iter().map(parameter).collect(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn flags(&self) -> Flags {
        Flags::parse([
            "mesos-docker-executor".to_owned(),
            format!("--container={}", self.mesos_name),
            format!("--sandbox_directory={}", self.sandbox.display()),
            "--mapped_directory=/mnt/mesos/sandbox".to_owned(),
        ])
        .unwrap()
    }

    /// As the executor makes it. Returns what inspect says.
    async fn ours(&self, parameters: &[(&str, &str)]) -> Value {
        let spec = described(&self.task(parameters), &self.flags(), None);
        let docker = self.daemon.connect().await;
        let id = docker.create(&unique("ours"), &spec).await.unwrap();
        let seen = docker.inspect(&id).await.unwrap();
        docker.remove(&id, true).await.unwrap();
        serde_json::from_str::<Value>(&seen.text).unwrap()[0].clone()
    }

    /// As the stock executor makes it: the generated options, then the parameters.
    fn theirs(&self, parameters: &[(&str, &str)]) -> Value {
        let name = unique("theirs");
        let is_network = |key: &str| matches!(key, "net" | "network");
        let mut words: Vec<String> = vec![
            "create".into(),
            "--cpu-shares=102".into(),
            "--memory=33554432".into(),
            format!("--env=MESOS_CONTAINER_NAME={}", self.mesos_name),
            "--env=MESOS_SANDBOX=/mnt/mesos/sandbox".into(),
            format!("--volume={}:/mnt/mesos/sandbox", self.sandbox.display()),
            "--entrypoint=/bin/sh".into(),
            format!("--name={name}"),
        ];
        if !parameters.iter().any(|(key, _)| is_network(key)) {
            words.push("--net=bridge".into());
        }
        words.extend(parameters.iter().map(|(key, value)| format!("--{key}={value}")));
        words.extend(["busybox", "-c", SCRIPT].map(str::to_owned));
        self.daemon.cli(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let text = self.daemon.cli(&["inspect", "--type=container", &name]);
        self.daemon.cli(&["rm", "--volumes", "--force", &name]);
        serde_json::from_str::<Value>(&text).unwrap()[0].clone()
    }

    async fn compare(&self, parameters: &[(&str, &str)]) {
        let (ours, theirs) = (normal(&self.ours(parameters).await), normal(&self.theirs(parameters)));
        for section in ["Config", "HostConfig", "Networks", "Platform"] {
            let (ours, theirs) = (&ours[section], &theirs[section]);
            assert_eq!(ours, theirs, "{section} of {parameters:?}: ours, then that of the docker CLI");
        }
    }
}

/// The parts that a parameter can reach, without what differs between any two containers, and without the
/// difference between an empty value and none.
fn normal(inspect: &Value) -> Value {
    let mut config = inspect["Config"].clone();
    if config["Hostname"].as_str() == inspect["Id"].as_str().and_then(|id| id.get(..12)) {
        config["Hostname"] = Value::Null;
    }
    let mut host = inspect["HostConfig"].clone();
    // The size of the CLI's own terminal; and two ways of saying "the daemon's".
    host["ConsoleSize"] = Value::Null;
    if host["MemorySwappiness"] == -1 {
        host["MemorySwappiness"] = Value::Null;
    }
    if host["RestartPolicy"]["Name"] == "no" {
        host["RestartPolicy"] = Value::Null;
    }
    let sort = |list: &mut Value| {
        if let Some(list) = list.as_array_mut() {
            for word in list.iter_mut() {
                *word = json!(word.as_str().unwrap().trim_start_matches("CAP_"));
            }
            list.sort_by_key(|word| word.as_str().unwrap().to_owned());
        }
    };
    sort(&mut config["Env"]);
    ["Binds", "CapAdd", "CapDrop"].iter().for_each(|list| sort(&mut host[list]));
    let mut networks = inspect["NetworkSettings"]["Networks"].clone();
    for network in networks.as_object_mut().unwrap().values_mut() {
        // Docker adds the container's own id; an older CLI leaves the address to Config.MacAddress.
        network["MacAddress"] = Value::Null;
        network["DNSNames"] = Value::Null;
        if let Some(aliases) = network["Aliases"].as_array_mut() {
            aliases.retain(|alias| !inspect["Id"].as_str().unwrap().starts_with(alias.as_str().unwrap()));
        }
    }
    without_empty(&json!({
        "Config": config,
        "HostConfig": host,
        "Networks": networks,
        "Platform": inspect["Platform"],
    }))
}

fn without_empty(value: &Value) -> Value {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    };
    match value {
        Value::Object(map) => {
            let kept = map.iter().map(|(key, value)| (key.clone(), without_empty(value)));
            Value::Object(kept.filter(|(_, value)| !empty(value)).collect::<Map<_, _>>())
        }
        Value::Array(list) => Value::Array(list.iter().map(without_empty).collect()),
        other => other.clone(),
    }
}

#[tokio::test]
async fn process_health_and_log() {
    let daemon = shared();
    let sandbox = tempfile::tempdir().unwrap();
    let case = Case::new(&daemon, sandbox.path());
    case.compare(&[]).await;
    case.compare(&[
        ("entrypoint", "/bin/echo"),
        ("env", "A=1=2"),
        ("env", "LINES=a\nb"),
        ("env", "NOWHERE_TO_BE_FOUND"),
        ("env", "MESOS_SANDBOX=/mine"),
        ("label", "a=b=c"),
        ("label", "flag"),
        ("label", "a=z"),
        ("hostname", "first"),
        ("hostname", "web-1"),
        ("domainname", "example.org"),
        ("user", "1000:100"),
        ("workdir", "/srv"),
        ("stop-signal", "SIGINT"),
        ("stop-timeout", "0x7"),
        ("init", "T"),
        ("runtime", "runc"),
        ("platform", "linux/amd64"),
        ("pull", "missing"),
        ("rm", "false"),
        ("tty", "0"),
        ("interactive", "F"),
        ("restart", "no"),
    ])
    .await;
    case.compare(&[("entrypoint", ""), ("init", "false"), ("hostname", "x"), ("hostname", "")]).await;
    case.compare(&[
        ("health-cmd", "test -e /ok && echo 'yes'"),
        ("health-interval", "1m30s"),
        ("health-timeout", "1.5s"),
        ("health-start-period", "100ms"),
        ("health-retries", "3"),
    ])
    .await;
    case.compare(&[("health-interval", "5s"), ("health-retries", "0")]).await;
    case.compare(&[("no-healthcheck", "true")]).await;
    case.compare(&[("log-driver", "json-file"), ("log-opt", "max-size=1m"), ("log-opt", "max-file=2")]).await;
    case.compare(&[("log-driver", "none")]).await;
    case.compare(&[("log-opt", "max-size=1m")]).await;
}

#[tokio::test]
async fn volumes_mounts_and_file_systems() {
    let daemon = shared();
    let sandbox = tempfile::tempdir().unwrap();
    let case = Case::new(&daemon, sandbox.path());
    let other = unique("other");
    daemon.cli(&["create", "--name", &other, "--volume=/shared", "busybox", "true"]);
    let path = sandbox.path().display().to_string();
    let bind = format!("type=bind,source={path},target=/b,readonly,bind-propagation=rslave");
    let plain = format!("type=bind,src={path},dst=/b2,consistency=cached,bind-nonrecursive=true");
    let with_volume = format!("{path}:/v:ro,z");
    case.compare(&[
        ("volume", &with_volume),
        ("volume", "/srv:/srv"),
        ("volume", "/srv:/srv"),
        ("volume", "named-volume:/n:nocopy"),
        ("volume", "/anonymous"),
        ("volume-driver", "local"),
        ("volumes-from", &format!("{other}:ro")),
        ("tmpfs", "/t:size=1m,mode=1777"),
        ("tmpfs", "/t2"),
        ("mount", &bind),
        ("mount", &plain),
        ("mount", "source=named-mount,target=/m,volume-nocopy,volume-label=a=b,volume-label=c=d"),
        ("mount", r#"type=volume,dst=/m2,volume-driver=local,volume-opt=type=tmpfs,volume-opt=device=tmpfs,"volume-opt=o=size=1m,uid=7""#),
        ("mount", "type=tmpfs,target=/m3,tmpfs-size=1.5m,tmpfs-mode=0750"),
        ("mount", "type=tmpfs,target=/m4"),
        ("shm-size", "1.5m"),
        ("read-only", "1"),
    ])
    .await;
    daemon.cli(&["rm", "--volumes", &other]);
}

#[tokio::test]
async fn limits_and_devices() {
    let daemon = shared();
    let sandbox = tempfile::tempdir().unwrap();
    let case = Case::new(&daemon, sandbox.path());
    case.compare(&[
        ("cpu-shares", "010"),
        ("cpu-period", "50000"),
        ("cpu-quota", "25000"),
        ("cpuset-cpus", "0"),
        ("cpuset-mems", "0"),
        ("memory", "64m"),
        ("memory-reservation", "48 MiB"),
        ("memory-swap", "0.125g"),
        ("memory-swappiness", "60"),
        ("oom-score-adj", "-500"),
        ("oom-kill-disable", "true"),
        ("pids-limit", "100"),
        ("ulimit", "nofile=10:20"),
        ("ulimit", "core=-1"),
        ("ulimit", "nofile=30"),
        ("device", "/dev/null:/dev/nothing:rw"),
        ("device", "/dev/zero"),
        ("device", "/dev/full:r"),
        ("device-cgroup-rule", "c 1:3 rwm"),
        ("device-cgroup-rule", "a *:* r"),
        ("device-read-bps", "/dev/null:1mb"),
        ("device-write-bps", "/dev/null:512"),
        ("device-read-iops", "/dev/null:1000"),
        ("device-write-iops", "/dev/null:7"),
        ("cgroup-parent", "/cm-parameters"),
        ("sysctl", "net.ipv4.ip_unprivileged_port_start=0"),
        ("sysctl", "kernel.shmmax=1000000"),
    ])
    .await;
    case.compare(&[("cpus", "0.5"), ("memory-swap", "-1"), ("pids-limit", "-1")]).await;
    case.compare(&[("memory", "0"), ("memory-swappiness", "-1"), ("cpu-shares", "0")]).await;
    case.compare(&[("gpus", "all")]).await;
    case.compare(&[("gpus", r#"driver=nvidia,"device=0,1","capabilities=compute,utility",options=a=b"#)])
        .await;
    case.compare(&[("gpus", "2")]).await;
}

#[tokio::test]
async fn rights_and_namespaces() {
    let daemon = shared();
    let sandbox = tempfile::tempdir().unwrap();
    let case = Case::new(&daemon, sandbox.path());
    let profile = sandbox.path().join("profile.json");
    std::fs::write(&profile, "{\n  \"defaultAction\": \"SCMP_ACT_ALLOW\"\n}\n").unwrap();
    case.compare(&[
        ("cap-add", "NET_ADMIN"),
        ("cap-add", "SYS_TIME"),
        ("cap-drop", "CHOWN"),
        ("group-add", "audio"),
        ("group-add", "100"),
        ("security-opt", "no-new-privileges"),
        ("security-opt", &format!("seccomp={}", profile.display())),
        ("security-opt", "systempaths=unconfined"),
        ("security-opt", "label=disable"),
        ("cgroupns", "private"),
        ("ipc", "shareable"),
    ])
    .await;
    case.compare(&[("privileged", "t"), ("security-opt", "seccomp=unconfined"), ("pid", "host")]).await;
    case.compare(&[("uts", "host"), ("ipc", "host"), ("cgroupns", "host"), ("userns", "host")]).await;
    case.compare(&[("ipc", "none"), ("pid", ""), ("privileged", "false")]).await;
    let other = unique("other");
    daemon.cli(&["create", "--name", &other, "busybox", "true"]);
    let of_other = format!("container:{other}");
    case.compare(&[("pid", &of_other), ("ipc", &of_other)]).await;
    case.compare(&[("network", &of_other)]).await;
    daemon.cli(&["rm", &other]);
}

#[tokio::test]
async fn the_mac_address_is_seen_inside() {
    let daemon = shared();
    let sandbox = tempfile::tempdir().unwrap();
    let case = Case::new(&daemon, sandbox.path());
    let mut task = case.task(&[("mac-address", "02:42:ac:11:00:aa")]);
    task.command.as_mut().unwrap().value = Some("cat /sys/class/net/eth0/address".into());
    let spec = described(&task, &case.flags(), None);
    let ran = run(&daemon.connect().await, &spec).await.unwrap();
    assert_eq!(ran.stdout, "02:42:ac:11:00:aa\n", "{}", ran.stderr);
}

/// Not left out without a word, as an old daemon would.
#[tokio::test]
async fn what_an_old_daemon_does_not_know_is_said() {
    let daemon = shared();
    let sandbox = tempfile::tempdir().unwrap();
    let case = Case::new(&daemon, sandbox.path());
    let docker = daemon.connect().await;
    for (key, value, api) in [("annotation", "a=b", (1, 43)), ("health-start-interval", "1s", (1, 44))] {
        let spec = described(&case.task(&[(key, value)]), &case.flags(), None);
        match docker.create(&unique("mesos"), &spec).await {
            Ok(id) => docker.remove(&id, true).await.unwrap(),
            Err(error) => {
                let failure = error.failure();
                assert_eq!((failure.code, spec.needs().unwrap().1), (Code::Parameter, api), "{failure}");
                assert!(failure.message.starts_with(key), "{failure}");
            }
        }
    }
}

#[tokio::test]
async fn networks_names_and_ports() {
    let daemon = shared();
    let sandbox = tempfile::tempdir().unwrap();
    let case = Case::new(&daemon, sandbox.path());
    case.compare(&[
        ("publish", "80"),
        ("publish", "8080:81"),
        ("publish", "127.0.0.1::53/udp"),
        ("publish", "127.0.0.1:8000-8002:90-92"),
        ("publish", "9000-9010:99"),
        ("publish", "[::1]:7000:7000/sctp"),
        ("publish", "published=8443,target=443,protocol=tcp"),
        ("expose", "1000-1002/udp"),
        ("expose", "80"),
        ("publish-all", "true"),
        ("add-host", "db:10.0.0.5"),
        ("add-host", "db6:fd00::5"),
        ("add-host", "gw:host-gateway"),
        ("dns", "10.0.0.53"),
        ("dns", " fd00:0::53 "),
        ("dns-search", "svc.example."),
        ("dns-search", "."),
        ("dns-opt", "ndots:2"),
        ("dns-option", "rotate"),
    ])
    .await;
    let network = unique("net");
    daemon.cli(&["network", "create", "--subnet=172.30.9.0/24", "--ipv6", "--subnet=fd00:9::/64", &network]);
    case.compare(&[
        ("network", &network),
        ("ip", "172.30.9.77"),
        ("ip6", "fd00:9::77"),
        ("network-alias", "db"),
        ("net-alias", "database"),
        ("link-local-ip", "169.254.34.68"),
    ])
    .await;
    case.compare(&[("net", &network)]).await;
    case.compare(&[("net", &format!("name={network},alias=db,driver-opt=a=b"))]).await;
    case.compare(&[("net", "host"), ("hostname", "web-1"), ("publish", "80")]).await;
    case.compare(&[("network", "none"), ("expose", "80")]).await;
    daemon.cli(&["network", "rm", &network]);
}
