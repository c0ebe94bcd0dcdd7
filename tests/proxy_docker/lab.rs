//! A world with a proxy before its dockerd, and the docker command as its client.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use calico_mesos::rig::agent::AgentOptions;
use calico_mesos::rig::daemons::{free_port, StackOptions};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::Value;

use crate::wait::eventually;
use crate::world::{none, World, CLI};

/// How long what has ended is held here.
pub const LINGER_SECONDS: u64 = 2;

/// The world, and the proxy that runs at the moment.
pub struct Lab {
    pub world: World,
    pub socket: PathBuf,
    /// On loopback.
    pub port: u16,
    proxy: Option<Child>,
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
        let (socket, port) = (world.stack.dir.join("proxy.sock"), free_port().unwrap());
        world.configure("proxy.listen", &format!("\"127.0.0.1:{port}\""));
        world.configure("proxy.socket", &format!("\"{}\"", socket.display()));
        world.configure("proxy.docker", &format!("\"unix://{}\"", world.stack.docker.socket.display()));
        world.configure("proxy.linger", &format!("\"{LINGER_SECONDS}s\""));
        let mut lab = Self { world, socket, port, proxy: None };
        lab.start_proxy().await;
        lab
    }

    /// Starts the proxy, and waits until it answers.
    pub async fn start_proxy(&mut self) {
        assert!(self.proxy.is_none(), "it runs");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.world.stack.dir.join("proxy.log"))
            .unwrap();
        let mut command = Command::new(CLI);
        command.arg("--config").arg(&self.world.stack.config).arg("proxy");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.proxy = Some(command.spawn().unwrap());
        eventually("the proxy answers", async || match self.docker(&["version"]).status.success() {
            true => Ok(()),
            false => Err(self.log()),
        })
        .await;
    }

    /// Ends the proxy by a signal.
    pub fn end_proxy(&mut self, signal: Signal) {
        let mut proxy = self.proxy.take().expect("it does not run");
        kill(Pid::from_raw(i32::try_from(proxy.id()).unwrap()), signal).unwrap();
        proxy.wait().unwrap();
    }

    /// The proxy's process id.
    pub fn pid(&self) -> u32 {
        self.proxy.as_ref().expect("it does not run").id()
    }

    /// Begins a `docker start` at Docker's own socket, which is not waited for.
    pub fn start_directly(&self, container: &str) -> Child {
        let host = format!("unix://{}", self.world.stack.docker.socket.display());
        let mut command = Command::new("docker");
        command.args(["-H", &host, "start", container]).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null()).spawn().unwrap()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.world.stack.dir.join("proxy.log")).unwrap_or_default()
    }

    /// The docker command through the proxy.
    pub fn docker(&self, arguments: &[&str]) -> Output {
        self.docker_at(&self.socket, arguments)
    }

    /// The docker command at Docker's own socket.
    pub fn docker_directly(&self, arguments: &[&str]) -> Output {
        self.docker_at(&self.world.stack.docker.socket, arguments)
    }

    fn docker_at(&self, socket: &std::path::Path, arguments: &[&str]) -> Output {
        let host = format!("unix://{}", socket.display());
        Command::new("docker").arg("-H").arg(host).args(arguments).stdin(Stdio::null()).output().unwrap()
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

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut proxy) = self.proxy.take() {
            let _ = proxy.kill();
            let _ = proxy.wait();
        }
    }
}
