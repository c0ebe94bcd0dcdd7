//! The private daemons, the embedded agent, and one task under the watch's eye.

use std::fs;
use std::time::{Duration, Instant};

use calico_mesos::config::Config;
use calico_mesos::mesos::messages::TaskState;
use calico_mesos::rig::agent::marathon::{App, AppInstance};
use calico_mesos::rig::agent::{Agent, AgentOptions, Direction, Launched};
use calico_mesos::rig::daemons::{Network, Stack, StackOptions};
use calico_mesos::workload::{Docker, DockerHost};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::pipes::{let_end, watch_pipes, COMMAND};
use super::profile::Profile;

const LIMIT: Duration = Duration::from_secs(60);

pub struct World {
    pub stack: Stack,
    agent: Agent,
    app: App,
    sleeper: App,
    /// A command without a container, through the custom executor.
    command: App,
}

pub struct Task {
    id: String,
    pub launched: Launched,
    started: JoinHandle<Instant>,
}

impl World {
    pub async fn start() -> Self {
        let options = StackOptions {
            runtime: Some(env!("CARGO_BIN_EXE_calico-runc").into()),
            network: Network::Bridge,
            ..StackOptions::default()
        };
        let stack = Stack::start(options).await.expect("private daemons (run `make bench`)");
        let mut options = AgentOptions::new(stack.dir.join("w"), env!("CARGO_BIN_EXE_calico-executor"));
        options.extra_flags.push(format!("--config={}", stack.config.display()));
        options.docker_socket = stack.docker.socket.display().to_string();
        options.executor_environment =
            [("CALICO_MESOS_CONFIG".to_owned(), stack.config.display().to_string())].into();
        let agent = Agent::start(options).await.expect("an agent on loopback");
        let (app, sleeper, command) = (app(COMMAND), app("exec sleep 1000"), command());
        Self { stack, agent, app, sleeper, command }
    }

    /// A task that needs no hand held; its id.
    pub async fn launch_sleeper(&self) -> (String, Launched) {
        let info = self.sleeper.task_info(&AppInstance::new("localhost", Vec::new()));
        let id = info.task_id.value.clone();
        let launched = self.agent.launch(info).await.expect("the executor starts");
        (id, launched)
    }

    pub async fn kill(&self, id: &str) {
        self.agent.kill(id, Some(Duration::ZERO)).await.expect("the task is there");
    }

    /// Waits for the executor and removes the container, as an agent does in the end.
    pub async fn gone(&self, id: &str, container: &str) {
        self.agent.wait_exit(id, LIMIT).await.expect("the executor ends");
        self.remove(&format!("mesos-{container}")).await;
    }

    pub async fn remove(&self, container: &str) {
        let path = format!("/containers/{container}?force=1&v=1");
        self.stack.docker.request("DELETE", &path, b"").await.expect("dockerd answers");
    }

    pub async fn reached(&self, id: &str, state: TaskState) -> Instant {
        self.agent.wait_for(id, state, LIMIT).await.expect("the task goes its way");
        let history = self.agent.history(id);
        history.iter().find(|update| update.status.state() == state).expect("it was just seen").at
    }

    pub async fn launch(&self) -> Task {
        self.launch_app(&self.app).await
    }

    /// The same without a container.
    pub async fn launch_command(&self) -> Task {
        self.launch_app(&self.command).await
    }

    async fn launch_app(&self, app: &App) -> Task {
        let info = app.task_info(&AppInstance::new("localhost", Vec::new()));
        let id = info.task_id.value.clone();
        let launched = self.agent.launch(info).await.expect("the executor starts");
        // In time: the container starts tens of milliseconds later.
        let started = watch_pipes(&launched.sandbox);
        Task { id, launched, started }
    }

    /// Waits for an executor without a container.
    pub async fn over(&self, task: Task) {
        self.agent.wait_exit(&task.id, LIMIT).await.expect("the executor ends");
    }

    pub async fn clean_up(&self, task: Task) {
        self.gone(&task.id, &task.launched.container_id).await;
    }

    /// The moment at which Docker reports the end of the container. Returns when Docker has the request.
    pub async fn wait(&self, container: &str) -> JoinHandle<Instant> {
        let host = DockerHost::Unix(self.stack.docker.socket.clone());
        let docker = Docker::connect(&host, "").await.expect("dockerd answers");
        let waiting = docker.wait(container).await.expect("the container is there");
        tokio::spawn(async move {
            // No process to watch: Docker's own answer is what counts here.
            let (_, never) = oneshot::channel();
            waiting.exit(never).await.expect("the container ends");
            Instant::now()
        })
    }

    /// The steps of the launches of an app so far.
    pub fn profile(&self, app: &str, warm_up: usize) -> Profile {
        let config = Config::load(&self.stack.config).expect("the configuration that the executors have");
        Profile::read(&config.paths.log, app, warm_up)
    }

    pub async fn stop(self) {
        drop(self.agent);
        self.stack.stop().await.expect("nothing is left of the private daemons");
    }
}

fn app(command: &str) -> App {
    let text = serde_json::json!({
        "id": "bench", "cpus": 0.1, "mem": 32, "cmd": command,
        "container": { "type": "DOCKER", "docker": { "image": "busybox" } },
        "env": { "CALICO_IP": "auto", "CALICO_PROFILE": "dev", "SERVICE_PORT": "3000" },
    });
    App::parse(&text.to_string()).expect("a good app definition")
}

/// As Marathon's path executors start it; the agent's shell takes one pair of quotes away.
fn command() -> App {
    let text = serde_json::json!({
        "id": "bench-command", "cpus": 0.1, "mem": 32, "user": "root",
        "executor": env!("CARGO_BIN_EXE_calico-executor"),
        "cmd": "': > started; read end < end'",
        "env": { "CALICO_IP": "auto", "CALICO_PROFILE": "dev" },
    });
    App::parse(&text.to_string()).expect("a good app definition")
}

impl Task {
    pub fn container_name(&self) -> String {
        format!("mesos-{}", self.launched.container_id)
    }

    /// When the workload opened its pipe.
    pub async fn first_instruction(&mut self) -> Instant {
        let waited = tokio::time::timeout(LIMIT, &mut self.started).await;
        waited.expect("the task starts").expect("the watching thread does not panic")
    }

    /// When the agent wrote RunTask.
    pub fn handed_over(&self, world: &World) -> Instant {
        self.message(world, Direction::ToExecutor, "mesos.internal.RunTaskMessage")
    }

    /// When the agent wrote LAUNCH, to a custom executor.
    pub fn launched_by_event(&self, world: &World) -> Instant {
        self.message(world, Direction::ToExecutor, "mesos.v1.executor.Event.LAUNCH")
    }

    /// When the executor's registration reached the agent.
    pub fn registered(&self, world: &World) -> Instant {
        self.message(world, Direction::FromExecutor, "mesos.internal.RegisterExecutorMessage")
    }

    fn message(&self, world: &World, direction: Direction, name: &str) -> Instant {
        let records = world.agent.records();
        let mut own = records.iter().filter(|record| record.at >= self.launched.at);
        let found = own.find(|record| record.direction == direction && record.name == name);
        found.expect("one task at a time, and this one was launched").at
    }

    pub async fn running(&self, world: &World) -> Instant {
        world.reached(&self.id, TaskState::TaskRunning).await
    }

    pub async fn terminal(&self, world: &World) -> Instant {
        world.reached(&self.id, TaskState::TaskFinished).await
    }

    /// Lets the workload end by itself.
    pub async fn let_end(&self) {
        let_end(&self.launched.sandbox).await;
    }
}

/// PSS and private memory of a process, in units of 1024 KiB.
pub fn memory(pid: u32) -> (f64, f64) {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the executor lives");
    let field = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(f64::NAN)
    };
    (field("Pss:") / 1024.0, (field("Private_Clean:") + field("Private_Dirty:")) / 1024.0)
}
