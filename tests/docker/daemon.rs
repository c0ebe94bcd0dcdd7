//! The daemons and the containers of these tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{mpsc, Arc, Mutex, Weak};
use std::thread::JoinHandle;

use calico_mesos::limits::START_WITHOUT_GATE as START;
use calico_mesos::rig::daemons::{import_busybox, Dockerd, DockerdOptions, Network};
use calico_mesos::workload::{ContainerSpec, Docker, DockerError, DockerHost, Exit, HostProcess, Sink};
use tokio::sync::oneshot;

use crate::kit::netlab::own_netns;
use crate::kit::wait::eventually;

/// A daemon on a thread of its own, because it outlives the runtime of the test that came first.
pub struct Shared {
    pub socket: PathBuf,
    /// Dropped to end the thread, and with it the daemon.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Shared {
    fn start() -> Arc<Self> {
        let (tell_socket, socket) = mpsc::channel();
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut netns = own_netns();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let dir = tempfile::Builder::new().prefix("cm-docker-").tempdir().unwrap();
            let path = PathBuf::from(format!("/proc/{}/ns/net", netns.id()));
            let options =
                DockerdOptions { network: Network::Bridge, netns: Some(path), ..Default::default() };
            let mut daemon = runtime.block_on(async {
                let daemon = Dockerd::start(dir.path(), options).await.unwrap();
                import_busybox(&daemon).await.unwrap();
                make_entry_image(&daemon).await;
                daemon
            });
            tell_socket.send(daemon.socket.clone()).unwrap();
            // Nothing is ever sent: this returns when the last test drops its end.
            let _ = stopped.recv();
            runtime.block_on(daemon.stop());
            netns.kill().unwrap();
            netns.wait().unwrap();
        });
        let socket = socket.recv().expect("the daemon did not come up");
        Arc::new(Self { socket, stop: Some(stop), thread: Some(thread) })
    }

    pub async fn connect(&self) -> Docker {
        Docker::connect(&DockerHost::Unix(self.socket.clone()), "").await.unwrap()
    }

    /// The docker CLI.
    pub fn cli(&self, arguments: &[&str]) -> String {
        self.run_cli(Command::new("docker"), arguments)
    }

    /// The docker CLI in the API version that `docker` speaks: answers differ from version to version.
    pub fn cli_as(&self, docker: &Docker, arguments: &[&str]) -> String {
        let mut command = Command::new("docker");
        command.env("DOCKER_API_VERSION", docker.version().rsplit(' ').next().unwrap());
        self.run_cli(command, arguments)
    }

    fn run_cli(&self, mut command: Command, arguments: &[&str]) -> String {
        let host = format!("unix://{}", self.socket.display());
        command.args(["-H", &host]).args(arguments).stdin(Stdio::null());
        let output = command.output().expect("this test needs the docker CLI");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An image with an entrypoint and a command, out of busybox.
async fn make_entry_image(daemon: &Dockerd) {
    let post = |path: &'static str, body: &'static str| async move {
        let (status, text) = daemon.request("POST", path, body.as_bytes()).await.unwrap();
        assert_eq!(status, 201, "{text}");
    };
    let body = r#"{"Image":"busybox","HostConfig":{"NetworkMode":"none"}}"#;
    post("/containers/create?name=entry", body).await;
    let body = r#"{"Entrypoint":["/bin/echo","entry"],"Cmd":["cmd"]}"#;
    post("/commit?container=entry&repo=entry&tag=latest", body).await;
}

pub fn shared() -> Arc<Shared> {
    static SHARED: Mutex<Weak<Shared>> = Mutex::new(Weak::new());
    // A panic of another test while the daemon came up is that test's failure, not this one's.
    let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    shared.upgrade().unwrap_or_else(|| {
        let daemon = Shared::start();
        *shared = Arc::downgrade(&daemon);
        daemon
    })
}

/// A daemon whose containers outlive it, beside the machine's own network.
pub async fn own_daemon(dir: &Path) -> Dockerd {
    let arguments = vec!["--live-restore".to_owned(), "--debug".to_owned()];
    let options = DockerdOptions { arguments, tcp: true, ..Default::default() };
    let daemon = Dockerd::start(dir, options).await.unwrap();
    listens(&daemon).await;
    import_busybox(&daemon).await.unwrap();
    daemon
}

/// Waits for the TCP port: dockerd answers on its unix socket a moment before.
pub async fn listens(daemon: &Dockerd) {
    let address = daemon.tcp.unwrap();
    eventually(format!("dockerd listens at {address}"), async || std::net::TcpStream::connect(address)).await;
}

pub fn own_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("cm-docker-").tempdir().unwrap()
}

/// Appends to a file, as the agent's stdout does.
pub fn append(path: &Path) -> Sink {
    Sink::of(std::fs::File::options().create(true).append(true).open(path).unwrap()).unwrap()
}

pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{}", uuid::Uuid::new_v4())
}

pub fn shell(script: &str) -> ContainerSpec {
    ContainerSpec {
        image: "busybox".into(),
        entrypoint: Some(vec!["/bin/sh".into()]),
        command: Some(vec!["-c".into(), script.into()]),
        network: "none".into(),
        ..Default::default()
    }
}

pub struct Ran {
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
}

/// One life, in the order in which the executor does it.
pub async fn run(docker: &Docker, spec: &ContainerSpec) -> Result<Ran, DockerError> {
    let folder = tempfile::tempdir().unwrap();
    let id = docker.create(&unique("mesos"), spec).await?;
    let waiting = docker.wait(&id).await?;
    let output = docker.attach(&id).await?;
    docker.start(&id, START).await?;
    let (tell_pid, pid) = oneshot::channel();
    if let Some(pid) = docker.inspect(&id).await?.pid {
        let _ = tell_pid.send(HostProcess::child(pid).into());
    }
    let (exit, ()) = tokio::join!(
        waiting.exit(pid),
        output.pump(append(&folder.path().join("out")), append(&folder.path().join("err")))
    );
    docker.remove(&id, false).await?;
    let read = |name| std::fs::read_to_string(folder.path().join(name)).unwrap();
    Ok(Ran { exit: exit?, stdout: read("out"), stderr: read("err") })
}
