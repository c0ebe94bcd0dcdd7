//! A small cluster: private etcd, dockerd and Consul, the embedded agent, and the real executor.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use calico_mesos::config::Config;
use calico_mesos::mesos::messages::{TaskInfo, TaskState, TaskStatus};
use calico_mesos::names::ContainerId;
use calico_mesos::rig::agent::marathon::{App, AppInstance};
use calico_mesos::rig::agent::{Agent, AgentOptions, Launched};
use calico_mesos::rig::daemons::{Stack, StackOptions};
use serde_json::{json, Value};

use super::netlab;
pub use super::wait::LIMIT;
use super::wait::{eventually, within};

pub const EXECUTOR: &str = env!("CARGO_BIN_EXE_calico-executor");
pub const RUNTIME: &str = env!("CARGO_BIN_EXE_calico-runc");
pub const CLI: &str = env!("CARGO_BIN_EXE_calico-mesos");

pub struct World {
    pub stack: Stack,
    pub agent: Agent,
    pub config: Config,
    /// Host ends of all tasks so far: other tests' links are in the same network namespace.
    interfaces: std::sync::Mutex<Vec<String>>,
    containers: std::sync::Mutex<Vec<String>>,
}

/// Settings that make a test quick; single tests override them.
fn defaults() -> StackOptions {
    let config = [("launch.retry_for", "\"3s\""), ("launch.ip_wait", "\"2s\"")];
    // Every datastore gives its addresses to one host, and one host gives each to one task.
    static WORLDS: AtomicU16 = AtomicU16::new(0);
    let pool = format!("10.{}.0.0/16", 100 + WORLDS.fetch_add(1, Ordering::Relaxed) % 100);
    StackOptions {
        pools: vec![pool.parse().unwrap()],
        runtime: Some(RUNTIME.into()),
        any_dns_port: true,
        config: config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ..StackOptions::default()
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| (), |_| ()).await
    }

    pub async fn with(stack: impl FnOnce(&mut StackOptions), agent: impl FnOnce(&mut AgentOptions)) -> Self {
        netlab::require_private_network();
        // Every real host has an address besides loopback's: its tasks answer to that.
        sh("ip addr replace 10.99.0.11/32 dev lo");
        let mut options = defaults();
        stack(&mut options);
        let stack = Stack::start(options).await.unwrap();
        let mut options = AgentOptions::new(stack.dir.join("w"), EXECUTOR);
        options.extra_flags.push(format!("--config={}", stack.config.display()));
        options.docker_socket = stack.docker.socket.display().to_string();
        agent(&mut options);
        let config = Config::load(&stack.config).unwrap();
        Self {
            agent: Agent::start(options).await.unwrap(),
            stack,
            config,
            interfaces: Default::default(),
            containers: Default::default(),
        }
    }

    /// Launches without waiting for anything.
    pub async fn launch(&self, app: &Value) -> Task<'_> {
        self.launch_info(task_info(app)).await
    }

    pub async fn launch_info(&self, info: TaskInfo) -> Task<'_> {
        let id = info.task_id.value.clone();
        let launched = self.agent.launch(info).await.unwrap();
        let interface = ContainerId::parse(&launched.container_id).unwrap().interface();
        self.interfaces.lock().unwrap().push(interface);
        self.containers.lock().unwrap().push(launched.container_id.clone());
        Task { world: self, id, launched }
    }

    pub async fn running(&self, app: &Value) -> Task<'_> {
        let task = self.launch(app).await;
        task.reaches(TaskState::TaskRunning).await;
        task
    }

    /// Every key below `/calico/` that belongs to a task, with its value.
    pub async fn task_keys(&self) -> Vec<String> {
        let mut client = etcd_client::Client::connect([&self.stack.etcd_endpoint], None).await.unwrap();
        let all = etcd_client::GetOptions::new().with_prefix();
        let answer = client.get("/calico/", Some(all)).await.unwrap();
        answer
            .kvs()
            .iter()
            .filter_map(|kv| {
                let (key, value) = (kv.key_str().unwrap(), kv.value_str().unwrap());
                let ours = key.contains("/workloadendpoints/")
                    || key.contains("/ipam/v2/handle/")
                    || (key.contains("/assignment/") && value.contains("handle_id"));
                ours.then(|| format!("{key} = {value}"))
            })
            .collect()
    }

    pub async fn get(&self, key: &str) -> Option<Value> {
        let mut client = etcd_client::Client::connect([&self.stack.etcd_endpoint], None).await.unwrap();
        let answer = client.get(key, None).await.unwrap();
        answer.kvs().first().map(|kv| serde_json::from_slice(kv.value()).unwrap())
    }

    pub async fn put(&self, key: &str, value: &str) {
        let mut client = etcd_client::Client::connect([&self.stack.etcd_endpoint], None).await.unwrap();
        client.put(key, value, None).await.unwrap();
    }

    pub async fn endpoints(&self) -> Vec<Value> {
        let prefix = "/calico/resources/v3/projectcalico.org/workloadendpoints/";
        let mut client = etcd_client::Client::connect([&self.stack.etcd_endpoint], None).await.unwrap();
        let answer = client.get(prefix, Some(etcd_client::GetOptions::new().with_prefix())).await.unwrap();
        answer.kvs().iter().map(|kv| serde_json::from_slice(kv.value()).unwrap()).collect()
    }

    pub async fn consul(&self, path: &str) -> Value {
        let consul = self.stack.consul.as_ref().expect("this world has no Consul");
        let output = Command::new("curl").args(["-s", &format!("{}{path}", consul.url())]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub async fn docker(&self, path: &str) -> Value {
        let (_, text) = self.stack.docker.request("GET", path, b"").await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    pub async fn containers(&self) -> Vec<Value> {
        self.docker("/containers/json?all=1").await.as_array().unwrap().clone()
    }

    /// Waits until Consul has the service.
    pub async fn registered(&self, name: &str) {
        let path = format!("/v1/catalog/service/{name}");
        eventually(format!("{name} is registered"), async || self.consul(&path).await != json!([])).await;
    }

    /// Whatever a task may leave on the host, in etcd, in Consul.
    pub async fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for interface in self.interfaces.lock().unwrap().iter() {
            for line in
                sh("ip -o link; ip route; ip -6 route").lines().filter(|line| line.contains(interface))
            {
                left.push(line.to_owned());
            }
        }
        for family in ["ip", "ip6"] {
            let ports = sh(&format!("nft list table {family} calico-mesos-ports 2> /dev/null"));
            let ours = |line: &&str| self.containers.lock().unwrap().iter().any(|id| line.contains(id));
            // Where in nft's list it stands depends on other worlds' entries.
            let entry = |line: &str| {
                let line = line.trim().trim_start_matches("elements = {").trim_end_matches([',', '}', ' ']);
                format!("forwarded {}", line.trim())
            };
            left.extend(ports.lines().filter(ours).map(entry));
        }
        let run = self.config.paths.run.display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(mounts.lines().filter(|line| line.contains(&run)).map(|line| format!("mount {line}")));
        for folder in [
            self.config.paths.run.join("tasks"),
            self.config.paths.run.join("containers"),
            self.config.paths.addresses(),
            self.config.paths.journal(),
        ] {
            left.extend(names(&folder).into_iter().map(|name| format!("file {}/{name}", folder.display())));
        }
        left.extend(self.task_keys().await);
        if self.stack.consul.is_some() {
            let services = self.consul("/v1/agent/services").await;
            left.extend(services.as_object().unwrap().keys().map(|id| format!("consul {id}")));
        }
        for container in self.containers().await {
            let state = container["State"].as_str().unwrap().to_owned();
            // Of the others the agent removes it.
            let ours = container["Names"][0].as_str().unwrap().starts_with("/calico-mesos-");
            if state != "exited" || ours {
                left.push(format!("container {} {state}", container["Names"][0]));
            }
        }
        left
    }

    /// Waits for it, since a cleaner may still be at work.
    pub async fn nothing_left(&self) {
        within(LIMIT, "nothing is left", async || none(&self.leftovers().await)).await;
        assert_eq!(self.agent.problems(), Vec::<String>::new());
    }

    /// Runs the cleaner until nothing is left: Docker may do later what a dead executor has asked it to do.
    pub async fn cleaned(&self) {
        let clean = async || {
            let left = none(&self.leftovers().await);
            if left.is_err() {
                self.gc();
            }
            left
        };
        eventually("the cleaner leaves nothing", clean).await;
        self.nothing_left().await;
    }

    pub fn gc(&self) -> std::process::Output {
        self.gc_with(&[])
    }

    pub fn gc_with(&self, arguments: &[&str]) -> std::process::Output {
        self.gc_command().args(arguments).output().unwrap()
    }

    pub fn gc_command(&self) -> Command {
        let mut command = Command::new(CLI);
        command.arg("--config").arg(&self.stack.config).arg("gc");
        command
    }

    /// What `gc` tells programs; its exit code.
    pub fn gc_json(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.gc_with(&[arguments, &["--output", "json"]].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        (output.status.code().unwrap(), json)
    }

    /// Changes the configuration of everybody who reads it from now on.
    pub fn configure(&self, name: &str, value: &str) {
        let text = std::fs::read_to_string(&self.stack.config).unwrap();
        let others = text.lines().filter(|line| !line.starts_with(&format!("{name} =")));
        let text: String = others.map(|line| format!("{line}\n")).collect();
        std::fs::write(&self.stack.config, format!("{text}{name} = {value}\n")).unwrap();
    }
}

/// What an operator tells custom executors, whose command line is the app's: our configuration, and Docker.
pub fn tell_custom_executors(agent: &mut AgentOptions) {
    let config = agent.extra_flags[0].trim_start_matches("--config=").to_owned();
    let docker = format!("unix://{}", agent.docker_socket);
    agent.executor_environment =
        [("CALICO_MESOS_CONFIG".to_owned(), config), ("DOCKER_HOST".to_owned(), docker)].into();
}

/// A task that the agent has been given.
pub struct Task<'a> {
    pub world: &'a World,
    pub id: String,
    pub launched: Launched,
}

impl Task<'_> {
    pub async fn reaches(&self, state: TaskState) -> TaskStatus {
        match self.world.agent.wait_for(&self.id, state, LIMIT).await {
            Ok(status) => status,
            Err(error) => panic!("{error}\n{}", self.log()),
        }
    }

    /// The terminal status, whatever it is.
    pub async fn ends(&self) -> TaskStatus {
        self.update("a terminal update", |status| status.state().is_terminal()).await
    }

    /// The first update that is such, as soon as there is one.
    pub async fn update(&self, what: &str, is_such: impl Fn(&TaskStatus) -> bool) -> TaskStatus {
        eventually(format!("{} has {what}", self.id), async || {
            let mut statuses = self.world.agent.history(&self.id).into_iter().map(|update| update.status);
            statuses.find(&is_such).ok_or(self)
        })
        .await
    }

    /// Waits until the log has these words so many times.
    pub async fn logs(&self, words: &str, count: usize) {
        let what = format!("'{words}' is in the log {count} times");
        eventually(what, async || (self.log().matches(words).count() >= count).then_some(()).ok_or(self))
            .await;
    }

    pub async fn fails(&self) -> String {
        let status = self.ends().await;
        assert_eq!(status.state(), TaskState::TaskFailed, "{status:?}\n{}", self.log());
        status.message.unwrap_or_default()
    }

    /// Kills it and waits for the executor's exit.
    pub async fn kill(&self) -> TaskStatus {
        self.world.agent.kill(&self.id, Some(Duration::ZERO)).await.unwrap();
        let status = self.ends().await;
        self.executor_exit().await;
        status
    }

    pub async fn executor_exit(&self) {
        self.world
            .agent
            .wait_exit(&self.id, LIMIT)
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
    }

    pub fn states(&self) -> Vec<TaskState> {
        self.world.agent.history(&self.id).iter().map(|update| update.status.state()).collect()
    }

    pub fn sandbox(&self) -> &Path {
        &self.launched.sandbox
    }

    /// A file that the workload writes into its sandbox, as soon as it has a line.
    pub async fn file(&self, name: &str) -> String {
        within(Duration::from_secs(20), format!("the task has written {name}"), async || {
            let text = std::fs::read_to_string(self.sandbox().join(name)).unwrap_or_default();
            if text.ends_with('\n') {
                Ok(text)
            } else {
                Err(self)
            }
        })
        .await
    }

    /// What the executor and the workload have written.
    pub fn log(&self) -> String {
        let read = |name| std::fs::read_to_string(self.sandbox().join(name)).unwrap_or_default();
        format!("--- stderr\n{}--- stdout\n{}", read("stderr"), read("stdout"))
    }

    pub fn container(&self) -> String {
        format!("mesos-{}", self.launched.container_id)
    }

    /// The addresses that the RUNNING status carries.
    pub fn addresses(&self) -> Vec<String> {
        let history = self.world.agent.history(&self.id);
        let running = history
            .iter()
            .find(|update| update.status.state() == TaskState::TaskRunning)
            .expect("not running");
        addresses(&running.status)
    }
}

/// The last state of a wait: the log, read only when the time is over.
impl std::fmt::Display for Task<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\n{}", self.log())
    }
}

/// For a wait until a list is empty: what still is in it.
pub fn none(list: &[String]) -> Result<(), String> {
    if list.is_empty() {
        Ok(())
    } else {
        Err(format!("there still are\n{}", list.join("\n")))
    }
}

pub fn addresses(status: &TaskStatus) -> Vec<String> {
    status
        .container_status
        .iter()
        .flat_map(|container| &container.network_infos)
        .flat_map(|info| &info.ip_addresses)
        .filter_map(|address| address.ip_address.clone())
        .collect()
}

/// One instance of an app, as Marathon would order it from this agent.
pub fn task_info(app: &Value) -> TaskInfo {
    let app = App::parse(&app.to_string()).unwrap();
    // As an agent does: what one task has no other gets. All worlds share one host.
    static GIVEN: AtomicU16 = AtomicU16::new(31000);
    let ports = (0..app.free_ports()).map(|_| GIVEN.fetch_add(1, Ordering::Relaxed)).collect();
    app.task_info(&AppInstance::new("localhost", ports))
}

/// An app definition with this command and environment.
pub fn app(id: &str, cmd: &str, env: Value) -> Value {
    json!({
        "id": id, "instances": 1, "cpus": 0.1, "mem": 32, "cmd": cmd, "env": env,
        "container": {"type": "DOCKER", "docker": {"image": "busybox"}}
    })
}

pub fn calico() -> Value {
    json!({"CALICO_IP": "auto", "CALICO_PROFILE": "dev"})
}

pub fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The variables of an app with one more.
pub fn with(mut env: Value, name: &str, value: &str) -> Value {
    env[name] = json!(value);
    env
}
