//! A world with a proxy before its dockerd, and the docker command as its client.

use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use calico_mesos::rig::agent::AgentOptions;
use calico_mesos::rig::daemons::StackOptions;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::kit::docker_proxy::{docker_at, DockerProxy};
use crate::wait::eventually;
use crate::world::{none, World};

/// How long what has ended is held here.
pub const LINGER: Duration = Duration::from_secs(2);

/// The world, and its proxy. It ends before the world does.
pub struct Lab {
    pub proxy: DockerProxy,
    pub world: World,
}

impl Lab {
    pub async fn new() -> Self {
        Self::with(|_| ()).await
    }

    /// The agent's executors reach Docker by the proxy.
    pub async fn with(stack: impl FnOnce(&mut StackOptions)) -> Self {
        let before = |agent: &mut AgentOptions| {
            let socket = agent.work_dir.with_file_name("proxy.sock");
            agent.docker_socket = socket.display().to_string();
        };
        Self::before(World::with(stack, before).await).await
    }

    /// The agent's executors reach Docker at its own socket.
    pub async fn beside_executors() -> Self {
        Self::before(World::new().await).await
    }

    async fn before(world: World) -> Self {
        let proxy = DockerProxy::configure(&world, LINGER);
        let mut lab = Self { proxy, world };
        lab.start_proxy().await;
        lab
    }

    /// Starts the proxy, and waits until it answers.
    pub async fn start_proxy(&mut self) {
        self.proxy.start().await;
    }

    /// Ends the proxy by a signal.
    pub fn end_proxy(&mut self, signal: Signal) {
        self.proxy.end(signal);
    }

    /// Begins a `docker start` at Docker's own socket, which is not waited for.
    pub fn start_directly(&self, container: &str) -> Child {
        let mut command = docker_at(&self.world.stack.docker.socket, &["start", container]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Waits until the proxy has been asked for a network.
    pub async fn prepares(&self) {
        let journal = self.world.config.paths.journal();
        eventually("a network is prepared", async || {
            let records = std::fs::read_dir(&journal).map_or(0, Iterator::count);
            (records > 0).then_some(()).ok_or(self.log())
        })
        .await;
    }

    pub fn log(&self) -> String {
        self.proxy.log()
    }

    /// The proxy's socket.
    pub fn socket(&self) -> &Path {
        &self.proxy.socket
    }

    /// The docker command through the proxy.
    pub fn docker(&self, arguments: &[&str]) -> Output {
        self.proxy.docker(arguments)
    }

    /// The docker command at Docker's own socket.
    pub fn docker_directly(&self, arguments: &[&str]) -> Output {
        docker_at(&self.world.stack.docker.socket, arguments).output().unwrap()
    }

    /// What it prints when it succeeds.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.docker(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        assert!(
            output.status.success(),
            "docker {arguments:?}: {}{}\n{}",
            text(&output.stdout),
            text(&output.stderr),
            self.log()
        );
        text(&output.stdout)
    }

    /// What it prints when it fails.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let output = self.docker(arguments);
        assert!(!output.status.success(), "docker {arguments:?} succeeds: {output:?}");
        String::from_utf8_lossy(&output.stderr).trim().to_owned()
    }

    /// `docker run -d` with CALICO variables and these arguments; Docker's id.
    pub fn run(&self, arguments: &[&str]) -> String {
        let calico = ["run", "-d", "-e", "CALICO_IP=auto", "-e", "CALICO_PROFILE=dev"];
        self.ok(&[&calico, arguments].concat())
    }

    /// `docker inspect` of one container.
    pub fn inspect(&self, container: &str) -> Value {
        let text = self.ok(&["inspect", container]);
        serde_json::from_str::<Value>(&text).unwrap()[0].take()
    }

    /// The address that a client sees.
    pub fn address(&self, container: &str) -> String {
        let seen = self.inspect(container);
        seen["NetworkSettings"]["Networks"]["bridge"]["IPAddress"].as_str().unwrap().to_owned()
    }

    /// Waits until the container runs, with this address if one is named.
    pub async fn runs(&self, container: &str) -> String {
        eventually(format!("{container} runs"), async || {
            let seen = self.inspect(container);
            let address = self.address(container);
            match seen["State"]["Running"] == true && !address.is_empty() {
                true => Ok(address),
                false => Err(format!("{}\n{}", seen["State"], self.log())),
            }
        })
        .await
    }

    /// Starts a container that is there, with an address, and removes it: nothing of it is left.
    pub async fn starts_and_goes(&self, container: &str) {
        self.ok(&["start", container]);
        self.runs(container).await;
        self.ok(&["rm", "-f", container]);
        self.nothing_left().await;
    }

    /// Waits until the datastore has no address of any container.
    pub async fn given_back(&self) {
        eventually("all addresses are given back", async || match self.world.task_keys().await {
            keys if keys.is_empty() => Ok(()),
            keys => Err(format!("{}\n{}", keys.join("\n"), self.log())),
        })
        .await;
    }

    /// Waits until nothing of any container is left, bindings included.
    pub async fn nothing_left(&self) {
        let bindings = self.world.config.paths.bindings();
        eventually("nothing is left", async || {
            let mut left = self.world.leftovers().await;
            let files = std::fs::read_dir(&bindings).into_iter().flatten().flatten();
            left.extend(files.map(|file| file.path().display().to_string()));
            none(&left).map_err(|left| format!("{left}\n{}", self.log()))
        })
        .await;
    }
}
