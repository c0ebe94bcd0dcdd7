//! Whatever a task says about itself, it steers nobody: not by its environment, which Mesos merges into the
//! executor's own, nor by its names.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use calico_mesos::mesos::messages::environment::Variable;
use calico_mesos::mesos::messages::{
    CommandInfo, DiscoveryInfo, Environment, ExecutorInfo, Label, Labels, TaskInfo, TaskState,
};
use calico_mesos::names::service_name;
use calico_mesos::rig::agent::AgentOptions;
use calico_mesos::rig::daemons::StackOptions;
use serde_json::json;

use crate::kit::wait::eventually;
use crate::world::{app, task_info, tell_custom_executors, Task, World, EXECUTOR};

/// What a forged line of a log would begin with.
const FORGED: &str = "E1123 00:00:00.000000 1 forged";

/// Somewhere that a task would like an executor to look, and somebody who counts who comes.
struct Trap {
    folder: tempfile::TempDir,
    address: SocketAddr,
    visits: Arc<AtomicUsize>,
}

impl Trap {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        for name in ["bin", "tmp", "home"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let script = format!("#!/bin/sh\necho $0 >> '{}'\nexit 1\n", folder.path().join("touched").display());
        for name in ["nft", "runc", "docker", "sh", "ip", "ipset", "conntrack", "calico-runc", "etcdctl"] {
            let program = folder.path().join("bin").join(name);
            std::fs::write(&program, &script).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, visits) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
        let counter = visits.clone();
        std::thread::spawn(move || {
            for _ in listener.incoming() {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
        let trap = Self { folder, address, visits };
        let config = format!(
            "[etcd]\nendpoints = [\"http://{address}\"]\n[consul]\naddress = \"http://{address}\"\n[docker]\nhost = \"tcp://{address}\"\n",
        );
        std::fs::write(trap.path("config.toml"), config).unwrap();
        trap
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn environment(&self) -> Vec<(String, String)> {
        let (url, place) = (format!("http://{}", self.address), self.address.to_string());
        let url_names = [
            "http_proxy",
            "HTTP_PROXY",
            "https_proxy",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "all_proxy",
            "FTP_PROXY",
            "ETCD_ENDPOINTS",
            "ETCDCTL_ENDPOINTS",
            "CONSUL_HTTP_ADDR",
            "CONSUL_GRPC_ADDR",
            "CALICO_ETCD_ENDPOINTS",
        ];
        let path_names = [
            ("LD_PRELOAD", "evil.so"),
            ("LD_LIBRARY_PATH", "bin"),
            ("LD_AUDIT", "evil.so"),
            ("LD_DEBUG_OUTPUT", "debug"),
            ("SSL_CERT_FILE", "ca.pem"),
            ("SSL_CERT_DIR", "bin"),
            ("SSLKEYLOGFILE", "keys"),
            ("HOME", "home"),
            ("XDG_CONFIG_HOME", "home"),
            ("XDG_RUNTIME_DIR", "home"),
            ("TMPDIR", "tmp"),
            ("TEMP", "tmp"),
            ("PATH", "bin"),
            ("DOCKER_CONFIG", "home"),
            ("DOCKER_CERT_PATH", "home"),
            ("HOSTALIASES", "hosts"),
            ("RESOLV_CONF", "hosts"),
            ("NSS_WRAPPER_HOSTS", "hosts"),
            ("TZDIR", "home"),
            ("LOCPATH", "home"),
            ("GCONV_PATH", "home"),
            ("CALICO_MESOS_CONFIG", "config.toml"),
            ("ETCD_CA_FILE", "ca.pem"),
            ("CONSUL_CACERT", "ca.pem"),
            ("LIBPROCESS_LOGFILE", "log"),
            ("MESOS_LOG_DIR", "home"),
            ("MESOS_LAUNCHER_DIR", "bin"),
            ("BASH_ENV", "bin/sh"),
            ("ENV", "bin/sh"),
            ("MALLOC_CONF", "x"),
        ];
        let values = [
            ("DOCKER_HOST", format!("tcp://{place}")),
            ("DOCKER_TLS_VERIFY", "1".to_owned()),
            ("DOCKER_API_VERSION", "1.1".to_owned()),
            ("ETCD_USERNAME", "evil".to_owned()),
            ("CONSUL_HTTP_TOKEN", "evil".to_owned()),
            ("GLIBC_TUNABLES", "glibc.malloc.check=3:glibc.malloc.arena_max=1".to_owned()),
            ("LD_DEBUG", "all".to_owned()),
            ("RES_OPTIONS", "ndots:15 attempts:1 timeout:30".to_owned()),
            ("LOCALDOMAIN", "evil.example".to_owned()),
            ("RUST_LOG", "trace".to_owned()),
            ("RUST_BACKTRACE", "full".to_owned()),
            ("RUST_MIN_STACK", "999999999999999".to_owned()),
            ("TOKIO_WORKER_THREADS", "none".to_owned()),
            ("TZ", ":/etc/shadow".to_owned()),
            ("LANG", "xx".to_owned()),
            ("IFS", "/".to_owned()),
            ("NODENAME", "evil".to_owned()),
            ("MESOS_DOCKER_SOCKET", "/nonexistent".to_owned()),
            ("MESOS_HTTP_COMMAND_EXECUTOR", "1".to_owned()),
            ("LIBPROCESS_NUM_WORKER_THREADS", "-1".to_owned()),
        ];
        let urls = url_names.map(|name| (name.to_owned(), url.clone()));
        let paths = path_names.map(|(name, file)| (name.to_owned(), self.path(file)));
        let values = values.map(|(name, value)| (name.to_owned(), value));
        urls.into_iter().chain(paths).chain(values).collect()
    }

    fn untouched(&self) {
        assert_eq!(self.visits.load(Ordering::SeqCst), 0, "somebody came to {}", self.address);
        let touched = std::fs::read_to_string(self.path("touched")).unwrap_or_default();
        assert_eq!(touched, "", "programs of the task were run");
        let names = |name: &str| std::fs::read_dir(self.folder.path().join(name)).unwrap().count();
        assert_eq!(
            (names("home"), names("tmp"), names("")),
            (0, 0, 4),
            "something was written in {}",
            self.path("")
        );
    }
}

async fn world() -> World {
    let stack = |stack: &mut StackOptions| stack.consul = true;
    let agent = |agent: &mut AgentOptions| tell_custom_executors(agent);
    World::with(stack, agent).await
}

fn variables(pairs: &[(String, String)]) -> Environment {
    let variable = |(name, value): &(String, String)| Variable {
        name: name.clone(),
        value: Some(value.clone()),
        ..Default::default()
    };
    Environment { variables: pairs.iter().map(variable).collect() }
}

fn calico(app: &str) -> Vec<(String, String)> {
    [("CALICO_IP", "auto"), ("CALICO_PROFILE", "dev"), ("SERVICE_PORT", "80"), ("MARATHON_APP_ID", app)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// By the drop-in executor.
fn contained(environment: &[(String, String)]) -> TaskInfo {
    let mut definition = app("/hostile", "exec sleep 1000", json!({}));
    definition["portDefinitions"] = json!([{"port": 0, "protocol": "tcp"}]);
    let mut info = task_info(&definition);
    info.command.as_mut().unwrap().environment = Some(variables(environment));
    info
}

/// By the custom executor, whose ExecutorInfo carries the variables as Marathon would put them there.
fn commanded(environment: &[(String, String)]) -> TaskInfo {
    let executor = ExecutorInfo {
        executor_id: format!("e-{}", uuid::Uuid::new_v4()).into(),
        command: Some(CommandInfo {
            shell: Some(false),
            value: Some(EXECUTOR.into()),
            // Static: the task's own loader would complain in the same log.
            arguments: [EXECUTOR, "/bin/busybox", "sleep", "1000"].map(str::to_owned).into(),
            environment: Some(variables(environment)),
            ..Default::default()
        }),
        ..Default::default()
    };
    TaskInfo {
        name: "batch".into(),
        task_id: format!("batch.{}", uuid::Uuid::new_v4()).into(),
        executor: Some(executor),
        ..Default::default()
    }
}

/// What Consul knows of the task that is ours; the names of its entries.
async fn services(world: &World) -> Vec<String> {
    eventually("the task is in Consul", async || {
        let entries = world.consul("/v1/agent/services").await;
        let names: Vec<String> = entries
            .as_object()
            .unwrap()
            .values()
            .map(|e| e["Service"].as_str().unwrap().to_owned())
            .collect();
        let found = names.iter().any(|name| name.ends_with("-direct"));
        if found {
            Ok(names)
        } else {
            Err(format!("{names:?}"))
        }
    })
    .await
}

fn no_forged_line(task: &Task<'_>) {
    let log = std::fs::read_to_string(task.sandbox().join("stderr")).unwrap();
    for line in log.lines() {
        assert!(!line.starts_with(FORGED) && !line.contains("ld.so"), "{line}");
        assert!(!line.contains('\u{1b}'), "{line:?}");
    }
}

#[tokio::test]
async fn no_variable_of_a_task_steers_an_executor() {
    let (world, trap) = (world().await, Trap::new());
    let hostile = [calico("/hostile"), trap.environment()].concat();
    // A custom executor that is told of another configuration by its task uses the usual one, which this host
    // has not: see `custom::what_a_task_sets_steers_nothing`.
    let (_, of_command): (Vec<_>, Vec<_>) =
        hostile.iter().cloned().partition(|(name, _)| name == calico_mesos::config::VARIABLE);
    for info in [contained(&hostile), commanded(&of_command)] {
        let task = world.launch_info(info).await;
        task.reaches(TaskState::TaskRunning).await;
        assert_eq!(services(&world).await.iter().filter(|name| *name == "hostile-direct").count(), 1);
        let [endpoint] = world.endpoints().await.try_into().unwrap();
        assert_ne!(endpoint["spec"]["node"], "evil");
        task.kill().await;
        no_forged_line(&task);
        trap.untouched();
        world.nothing_left().await;
    }
    // A task without Calico is run by the same executor.
    let task = world.launch_info(contained(&trap.environment())).await;
    task.reaches(TaskState::TaskRunning).await;
    task.kill().await;
    trap.untouched();
}

/// Texts that mean something to a shell, a path, a terminal, a log, a URL or a command line.
fn texts(trap: &Trap) -> Vec<String> {
    let touch = format!("touch {}", trap.path("touched"));
    vec![
        "/../../../../etc/passwd".to_owned(),
        "--help".to_owned(),
        format!("/x\n{FORGED}\r\n{FORGED}\u{1b}[2J"),
        format!("/x; {touch}; $({touch}) `{touch}` | {touch}"),
        "/é".repeat(1300),
        "a?b=c&d#e%2f../..".to_owned(),
        "/other-direct".to_owned(),
        "💣\u{202e}\u{0}".replace('\u{0}', ""),
    ]
}

#[tokio::test]
async fn no_name_of_a_task_reaches_more_than_a_name() {
    let (world, trap) = (world().await, Trap::new());
    for (number, text) in texts(&trap).iter().enumerate() {
        let mut info = if number % 2 == 0 { contained(&calico(text)) } else { commanded(&calico(text)) };
        info.name.clone_from(text);
        info.discovery = Some(DiscoveryInfo { name: Some(text.clone()), ..Default::default() });
        let label = |key: &str, value: &str| Label { key: key.into(), value: Some(value.into()) };
        info.labels = Some(Labels {
            labels: vec![
                label("projectcalico.org/namespace", "kube-system"),
                label("ProjectCalico.org/orchestrator", "k8s"),
                label(text, text),
                label("projectcalico.org/serviceaccount", "admin"),
            ],
        });
        let task = world.launch_info(info).await;
        task.reaches(TaskState::TaskRunning).await;

        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let names = match service_name(text).is_empty() {
            true => world.consul("/v1/agent/services").await.as_object().unwrap().keys().cloned().collect(),
            false => services(&world).await,
        };
        assert_eq!(names.is_empty(), service_name(text).is_empty(), "{names:?}");
        for name in names {
            assert!(name == "other-direct-direct" || !name.starts_with("other"), "{name} is another app's");
            assert!(
                name.chars().all(legal) && !name.starts_with('-') && name.len() <= 63,
                "{text:?}: {name}"
            );
        }
        let keys = world.task_keys().await;
        let endpoints = keys.iter().filter(|line| line.contains("/workloadendpoints/"));
        let [key] = endpoints.collect::<Vec<_>>().try_into().unwrap();
        let (key, value) = key.split_once(" = ").unwrap();
        let name =
            key.strip_prefix("/calico/resources/v3/projectcalico.org/workloadendpoints/default/").unwrap();
        assert!(name.chars().all(|c| legal(c) || c == '.') && name.len() <= 253, "{text:?}: {key}");
        let endpoint: serde_json::Value = serde_json::from_str(value).unwrap();
        let labels = endpoint["metadata"]["labels"].as_object().unwrap();
        assert_eq!(labels["projectcalico.org/namespace"], "default");
        assert_eq!(labels["projectcalico.org/orchestrator"], "mesos");
        assert_eq!(labels.keys().filter(|key| key.contains("projectcalico.org/")).count(), 2, "{labels:?}");
        assert_eq!(endpoint["metadata"]["namespace"], "default");

        let journal = std::fs::read_dir(world.config.paths.journal()).unwrap();
        let names: Vec<_> = journal.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(
            names.iter().all(|name| name.len() == "5f3cbe1e-77aa-4d1b-8b0e-0c1f2a3b4c5d.json".len()),
            "{names:?}"
        );
        task.kill().await;
        no_forged_line(&task);
        trap.untouched();
        world.nothing_left().await;
    }
}

#[tokio::test]
async fn what_cannot_be_a_task_is_refused_in_one_line() {
    let (world, trap) = (world().await, Trap::new());
    let mut nul = contained(&calico("/x"));
    nul.command.as_mut().unwrap().value = Some("a\0b".into());
    let images =
        ["--privileged", "../../etc", "busybox\nRUN x", &format!("busybox;touch {}", trap.path("touched"))];
    let with_image = |image: &str| {
        let mut info = contained(&calico("/x"));
        info.container.as_mut().unwrap().docker.as_mut().unwrap().image = image.to_owned();
        info
    };
    let long = with_image(&"a/".repeat(2048));
    let odd = [("CALICO_IP", "10.0.0.1\n10.0.0.2"), ("CALICO_PROFILE", "../../x"), ("SERVICE_PORT", "80;81")];
    let odd = odd.map(|(name, value)| {
        let mut environment = calico("/x");
        environment.retain(|(other, _)| other != name);
        environment.push((name.to_owned(), value.to_owned()));
        contained(&environment)
    });
    for info in images.map(with_image).into_iter().chain([long, nul]).chain(odd) {
        let task = world.launch_info(info).await;
        let message = task.fails().await;
        assert!(message.contains("CM-") && !message.contains(char::is_control), "{message:?}");
        assert!(message.len() < 600, "{message}");
        task.executor_exit().await;
        no_forged_line(&task);
    }
    trap.untouched();
    world.nothing_left().await;
    assert!(!Path::new(&trap.path("touched")).exists());
}
