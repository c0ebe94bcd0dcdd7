//! The machine that everything happens on: private daemons, the agent, a proxy before etcd, the Docker API proxy, and a
//! cleaner that runs as its timer would have it run.

use std::process::Stdio;
use std::time::{Duration, Instant};

use calico_mesos::mesos::messages::{TaskInfo, TaskState};
use calico_mesos::rig::agent::Launched;
use nix::sys::signal::Signal;
use tokio::process::{Child, Command};

use crate::kit::docker_proxy::DockerProxy;
use crate::kit::faults::{self, Freeze};
use crate::kit::steps::Steps;
use crate::proxy::Proxy;
use crate::world::{sh, tell_custom_executors, World, CLI};

/// Between two runs of the cleaner.
const TIMER: Duration = Duration::from_millis(700);
/// How long the Docker API proxy holds what a container had.
pub const LINGER: Duration = Duration::from_secs(1);
/// How a Rust program exits that did not expect something.
const PANIC: i32 = 101;
/// How long dockerd may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(3);

pub struct Machine {
    pub docker_proxy: DockerProxy,
    pub world: World,
    pub proxy: Proxy,
    pub steps: Steps,
    /// What is away at the moment.
    down: Vec<Service>,
    gc: Option<Child>,
    gc_ended: Instant,
    /// What cleaners did that they never may.
    pub complaints: Vec<String>,
    _folder: tempfile::TempDir,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Dockerd,
    DockerdAndContainerd,
    Containerd,
    Etcd,
    FrozenEtcd,
    WayToEtcd,
    Consul,
    FrozenConsul,
    Agent,
    Disk,
    DockerProxy,
}

/// A task that the agent has been given.
#[derive(Clone)]
pub struct Given {
    pub id: String,
    pub launched: Launched,
}

impl Given {
    pub fn pid(&self) -> i32 {
        i32::try_from(self.launched.executor_pid).unwrap()
    }

    /// What executor and workload have written.
    pub fn log(&self) -> String {
        let read = |name| std::fs::read_to_string(self.launched.sandbox.join(name)).unwrap_or_default();
        format!("{}{}", read("stderr"), read("stdout"))
    }
}

impl Machine {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("steps");
        let steps = Steps::listen(&socket);
        let proxy = Proxy::listen().await;
        let settings = [
            ("paths.steps", socket.display().to_string()),
            ("gc.orphans", "remove".to_owned()),
            ("gc.grace", "2s".to_owned()),
        ];
        let endpoints = format!("[\"{}\"]", proxy.endpoint);
        let world = World::with(
            |stack| {
                stack.consul = true;
                stack.consul_persistent = true;
                stack.pools = vec!["10.165.0.0/16".parse().unwrap(), "fd00:165::/64".parse().unwrap()];
                stack.config.extend(settings.map(|(name, value)| (name.to_owned(), format!("\"{value}\""))));
                stack.config.insert("etcd.endpoints".into(), endpoints);
            },
            tell_custom_executors,
        )
        .await;
        proxy.aim(world.stack.etcd.as_ref().unwrap().address());
        let state = world.config.paths.state.display().to_string();
        // Small enough to be filled; its own, so that nobody else's disk is.
        sh(&format!("mkdir -p {state} && mount -t tmpfs -o size=256k,mode=700 soak {state}"));
        let mut docker_proxy = DockerProxy::configure(&world, LINGER);
        docker_proxy.start().await;
        let now = Instant::now();
        Self {
            docker_proxy,
            world,
            proxy,
            steps,
            down: Vec::new(),
            gc: None,
            gc_ended: now,
            complaints: Vec::new(),
            _folder: folder,
        }
    }

    pub async fn launch(&self, info: TaskInfo) -> Given {
        let id = info.task_id.value.clone();
        let launched = self.world.agent.launch(info).await.unwrap();
        Given { id, launched }
    }

    pub fn states(&self, task: &Given) -> Vec<TaskState> {
        self.world.agent.history(&task.id).iter().map(|update| update.status.state()).collect()
    }

    pub fn is_running(&self, task: &Given) -> bool {
        self.states(task).contains(&TaskState::TaskRunning)
    }

    pub fn ends(&self, task: &Given) -> usize {
        self.states(task).iter().filter(|state| state.is_terminal()).count()
    }

    /// Its executor's process is no more.
    pub async fn is_gone(&self, task: &Given) -> bool {
        self.world.agent.wait_exit(&task.id, Duration::ZERO).await.is_ok()
    }

    /// Takes a service away; what is away already stays so.
    pub async fn take(&mut self, service: Service) {
        self.down.push(service);
        let stack = &mut self.world.stack;
        match service {
            Service::Dockerd => faults::kill_dockerd(&stack.docker),
            Service::DockerdAndContainerd => stack.docker.kill(),
            Service::Containerd => faults::kill_containerd(&stack.docker),
            Service::Etcd => stack.etcd.as_mut().unwrap().kill(),
            Service::FrozenEtcd => stack.etcd.as_ref().unwrap().freeze(),
            Service::WayToEtcd => self.proxy.refuse(),
            Service::Consul => stack.consul.as_mut().unwrap().kill(),
            Service::FrozenConsul => stack.consul.as_ref().unwrap().freeze(),
            Service::Agent => self.world.agent.stop().await.unwrap(),
            Service::DockerProxy => self.docker_proxy.kill(),
            Service::Disk => {
                let file = self.world.config.paths.state.join("filler");
                // It ends with an error, which is the purpose.
                sh(&format!("head -c 1M /dev/zero > {} 2> /dev/null", file.display()));
            }
        }
    }

    /// Takes a service away as an operator does.
    pub async fn take_gently(&mut self, service: Service) {
        let stack = &mut self.world.stack;
        match service {
            Service::Dockerd => stack.docker.shut_down(PATIENCE).await,
            Service::Etcd => stack.etcd.as_mut().unwrap().stop().await,
            Service::Consul => stack.consul.as_mut().unwrap().stop().await,
            Service::DockerProxy => self.docker_proxy.end(Signal::SIGTERM),
            // The others know no gentle way.
            _ => {}
        }
        self.take(service).await;
    }

    pub async fn silence_etcd(&mut self) {
        self.down.push(Service::WayToEtcd);
        self.proxy.silence();
    }

    /// Brings back whatever is away.
    pub async fn restore(&mut self) {
        for service in std::mem::take(&mut self.down) {
            let stack = &mut self.world.stack;
            match service {
                Service::Dockerd => stack.docker.restart_dockerd().await.unwrap(),
                Service::DockerdAndContainerd => stack.docker.restart().await.unwrap(),
                Service::Containerd => stack.docker.restart_containerd().await.unwrap(),
                Service::Etcd => stack.etcd.as_mut().unwrap().restart().await.unwrap(),
                Service::FrozenEtcd => stack.etcd.as_ref().unwrap().thaw(),
                Service::WayToEtcd => self.proxy.cut(),
                Service::Consul => stack.consul.as_mut().unwrap().restart().await.unwrap(),
                Service::FrozenConsul => stack.consul.as_ref().unwrap().thaw(),
                Service::Agent => self.world.agent.restart().await.unwrap(),
                Service::DockerProxy => self.docker_proxy.start().await,
                Service::Disk => {
                    let _ = std::fs::remove_file(self.world.config.paths.state.join("filler"));
                }
            }
        }
        self.proxy.cut();
    }

    /// The timer: starts the cleaner when it is due.
    pub fn tick(&mut self) {
        if let Some(gc) = &mut self.gc {
            match gc.try_wait() {
                Ok(None) => return,
                ended => {
                    self.gc = None;
                    self.gc_ended = Instant::now();
                    if ended.is_ok_and(|status| status.is_some_and(|status| status.code() == Some(PANIC))) {
                        self.complaints.push("a cleaner panicked".into());
                    }
                }
            }
        }
        if self.gc_ended.elapsed() > TIMER {
            self.gc = Some(self.cleaner());
        }
    }

    /// Waits; the timer goes on.
    pub async fn wait(&mut self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.tick();
            tokio::time::sleep(TIMER / 10).await;
        }
    }

    /// What the cleaner would still do, if anything.
    pub async fn undone(&self) -> Option<String> {
        let output = Command::new(CLI)
            .arg("--config")
            .arg(&self.world.stack.config)
            .args(["gc", "--dry-run"])
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (!output.status.success()).then_some(text)
    }

    /// One run of the cleaner from beginning to end.
    pub async fn clean(&mut self) {
        let _ = self.cleaner().wait().await;
        self.gc_ended = Instant::now();
    }

    /// A cleaner beside the timer's.
    pub fn cleaner(&self) -> Child {
        let path = self.world.stack.dir.join("gc.log");
        let log = std::fs::File::options().create(true).append(true).open(path).unwrap();
        Command::new(CLI)
            .arg("--config")
            .arg(&self.world.stack.config)
            .arg("gc")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// The timer's cleaner, as long as it is at work, ends.
    pub async fn quiet(&mut self) {
        if let Some(mut gc) = self.gc.take() {
            let _ = tokio::time::timeout(Duration::from_secs(60), gc.wait()).await;
        }
        self.gc_ended = Instant::now();
    }

    /// What cleaners have said since the last call.
    pub fn gc_log(&self) -> String {
        let path = self.world.stack.dir.join("gc.log");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        // Whoever writes appends.
        let _ = std::fs::File::options().write(true).truncate(true).open(path);
        text
    }
}
