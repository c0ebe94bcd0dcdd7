//! A private dockerd: own data root, exec root, socket, cgroup parent and `daemon.json`.
//!
//! By default it has no bridge and touches no iptables rule, so it may run beside the machine's own
//! one. But a dockerd without a bridge *deletes* a link `docker0` that it finds: where there is one, ours
//! gets a network namespace of its own. Its containerd is a private one too, see `containerd`; what
//! outlives both is removed by `sweep::daemon`, see there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{json, Map, Value};

use super::containerd::Containerd;
use super::process::{find_program, Daemon, Netns, Recipe};
use super::{free_port, http, sweep, DevError};

const LIMIT: Duration = Duration::from_secs(40);
/// The kernel's limit for a unix socket's path is 107 bytes; containerd's is 36 longer than our folder.
const LONGEST_DIR: usize = 68;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Network {
    /// `--bridge=none --iptables=false --ip6tables=false --ip-forward=false`: networks `none` and `host` only, the
    /// machine stays as it is.
    #[default]
    None,
    /// Docker's usual bridge with its iptables rules; refused in the machine's own network namespace.
    /// No other private dockerd may be started in the same namespace at the same time.
    Bridge,
}

#[derive(Debug, Clone, Default)]
pub struct DockerdOptions {
    pub network: Network,
    /// Extra OCI runtimes: name and path.
    pub runtimes: BTreeMap<String, PathBuf>,
    /// Extra environment; runtimes inherit it.
    pub environment: BTreeMap<String, String>,
    /// Also listen on a free port of 127.0.0.1.
    pub tcp: bool,
    /// There: certificate and key of the daemon, and the CA whose clients alone are let in.
    pub tls: Option<(PathBuf, PathBuf, PathBuf)>,
    /// The network namespace to run in.
    pub netns: Option<PathBuf>,
    /// More keys of `daemon.json`.
    pub configuration: Map<String, Value>,
    /// More of dockerd's own flags.
    pub arguments: Vec<String>,
    /// Files of the machine, each with the one that dockerd alone sees in its place. What dockerd mounts is then seen
    /// by it alone as well: containers start only with the storage driver `vfs`.
    pub files: BTreeMap<PathBuf, PathBuf>,
}

/// See the module's documentation.
pub struct Dockerd {
    pub socket: PathBuf,
    pub tcp: Option<SocketAddr>,
    pub dir: PathBuf,
    folders: Folders,
    daemon: Daemon,
    containerd: Containerd,
}

/// Where one private dockerd keeps its things; all of it derived from its folder, so that a sweep can find it.
pub(super) struct Folders {
    pub exec_root: PathBuf,
    pub data_root: PathBuf,
    pub cgroup: String,
}

impl Folders {
    pub fn below(dir: &Path) -> Self {
        // Unique on the machine because the folder is.
        let name: String =
            dir.to_string_lossy().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        Self { exec_root: dir.join("x"), data_root: dir.join("root"), cgroup: format!("/cm{name}") }
    }
}

impl Dockerd {
    /// Starts it in `dir`; ready when its API answers. Images of an earlier one in `dir` are still there.
    pub async fn start(dir: &Path, options: DockerdOptions) -> Result<Self, DevError> {
        let program = find_program("dockerd").ok_or(DevError::Missing {
            program: "dockerd",
            hint: "install Debian's docker.io or docker-ce",
        })?;
        if dir.as_os_str().len() > LONGEST_DIR {
            let text = format!("{} is too long for dockerd's sockets, use a shorter folder", dir.display());
            return Err(DevError::Unusable(text));
        }
        if options.network == Network::Bridge && options.netns.is_none() && in_machine_namespace() {
            let text = "a docker bridge would change this machine's network; run inside `unshare --net`";
            return Err(DevError::Unusable(text.into()));
        }
        let keep_away = options.network == Network::None && options.netns.is_none() && has_docker_bridge();
        if keep_away && options.tcp {
            let text =
                "this machine has a link docker0, so a private dockerd can only have a unix socket here";
            return Err(DevError::Unusable(text.into()));
        }
        let folders = Folders::below(dir);
        std::fs::create_dir_all(dir).map_err(DevError::io(format!("create {}", dir.display())))?;
        let configuration = dir.join("daemon.json");
        std::fs::write(&configuration, configuration_text(&options))
            .map_err(DevError::io(format!("write {}", configuration.display())))?;

        let socket = dir.join("docker.sock");
        let tcp = match options.tcp {
            true => Some(SocketAddr::from((
                Ipv4Addr::LOCALHOST,
                free_port().ok_or_else(|| DevError::Unusable("no free port for dockerd".into()))?,
            ))),
            false => None,
        };
        let environment: BTreeMap<_, _> = options
            .environment
            .iter()
            .map(|(name, value)| (name.clone(), value.into()))
            // Where containerd writes its stacks when dockerd thinks that it hangs.
            .chain([("TMPDIR".to_owned(), dir.into())])
            .collect();
        // What a crashed predecessor in this folder left would be taken for running containers.
        sweep::daemon(dir);
        let netns = options.netns.clone().map_or(Netns::Here, Netns::At);
        let log = dir.join("containerd.log");
        let containerd =
            Containerd::start(&folders.exec_root, &folders.data_root, log, environment.clone(), netns)
                .await?;
        let mut arguments = arguments(dir, &folders, &socket, tcp, &options);
        arguments.push(format!("--containerd={}", containerd.socket.display()).into());
        let (program, arguments) = seeing(&options.files, program, arguments)?;
        let recipe = Recipe {
            name: "dockerd",
            program,
            arguments,
            environment,
            log: dir.join("log"),
            netns: match options.netns {
                Some(path) => Netns::At(path),
                None if keep_away => Netns::Fresh,
                None => Netns::Here,
            },
            parent_death: Some(Signal::SIGTERM),
        };
        let daemon = Daemon::start(recipe, LIMIT, || ready(&socket)).await?;
        Ok(Self { socket: socket.clone(), tcp, dir: dir.into(), folders, daemon, containerd })
    }

    /// `unix:///…/docker.sock`, as DOCKER_HOST and the agent's flags want it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub fn pid(&self) -> Option<u32> {
        self.daemon.pid()
    }

    pub fn containerd_pid(&self) -> Option<u32> {
        self.containerd.pid()
    }

    /// dockerd's `--exec-root`, with what a host keeps in memory only.
    pub fn exec_root(&self) -> &Path {
        &self.folders.exec_root
    }

    /// Ends its containers at once, then itself; leaves no process, mount or cgroup. The data stay.
    pub async fn stop(&mut self) {
        if self.daemon.pid().is_some() {
            self.kill_containers().await;
        }
        self.daemon.stop(Duration::from_secs(10)).await;
        self.containerd.stop().await;
        self.sweep();
    }

    /// As in a crash: SIGKILL for dockerd and its containerd. Containers and shims run on, for
    /// [`Dockerd::restart`] to find; [`Dockerd::stop`] and drop remove them.
    pub fn kill(&mut self) {
        self.daemon.kill();
        self.containerd.kill();
    }

    /// Again on the same socket, with the same data and containers.
    pub async fn restart(&mut self) -> Result<(), DevError> {
        self.restart_containerd().await?;
        self.restart_dockerd().await
    }

    /// The containerd alone; a dockerd that runs connects to it again.
    pub async fn restart_containerd(&mut self) -> Result<(), DevError> {
        self.containerd.restart().await
    }

    /// dockerd alone, with the containerd that runs.
    pub async fn restart_dockerd(&mut self) -> Result<(), DevError> {
        let socket = self.socket.clone();
        // A pid file of one that was killed, whose number another process may have by now.
        let _ = std::fs::remove_file(self.dir.join("pid"));
        self.daemon.restart(LIMIT, || ready(&socket)).await
    }

    /// SIGTERM and wait, containers stopped by dockerd itself, as `systemctl stop docker` does; containerd stays.
    pub async fn shut_down(&mut self, patience: Duration) {
        self.daemon.stop(patience).await;
    }

    /// Makes it read its `daemon.json` again.
    pub fn reload(&self) {
        self.daemon.signal(Signal::SIGHUP);
    }

    /// One request to the Engine API: status and body.
    pub async fn request(&self, method: &str, path: &str, body: &[u8]) -> Result<(u16, String), DevError> {
        let reply = http::over_unix(&self.socket, method, path, body, Duration::from_secs(60))
            .await
            .map_err(DevError::io(format!("query {path} of dockerd")))?;
        Ok((reply.status, reply.body))
    }

    /// dockerd itself would give each container ten seconds first. A container whose runtime waits at
    /// its gate cannot be killed this way, hence the limit; the sweep gets it.
    async fn kill_containers(&self) {
        let limit = Duration::from_secs(2);
        let list = http::over_unix(&self.socket, "GET", "/containers/json", &[], limit).await;
        let list: Vec<Value> =
            list.ok().and_then(|reply| serde_json::from_str(&reply.body).ok()).unwrap_or_default();
        let ids: Vec<&str> = list.iter().filter_map(|entry| entry.get("Id")?.as_str()).collect();
        for id in ids {
            let path = format!("/containers/{id}/kill");
            // It may have ended in between; what counts is that the sweep finds nothing.
            let _ = http::over_unix(&self.socket, "POST", &path, &[], limit).await;
        }
    }

    /// SIGKILL and the sweep, without waiting for anything to end by itself. The data stay.
    pub fn end(&mut self) {
        self.kill();
        self.sweep();
    }

    fn sweep(&self) {
        sweep::daemon(&self.dir);
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.end();
    }
}

async fn ready(socket: &Path) -> bool {
    let limit = Duration::from_secs(2);
    http::over_unix(socket, "GET", "/_ping", &[], limit).await.is_ok_and(|reply| reply.status == 200)
}

/// The command that runs the program with these files in place of the machine's, under the same pid.
fn seeing(
    files: &BTreeMap<PathBuf, PathBuf>,
    program: PathBuf,
    arguments: Vec<OsString>,
) -> Result<(PathBuf, Vec<OsString>), DevError> {
    if files.is_empty() {
        return Ok((program, arguments));
    }
    let unshare = find_program("unshare")
        .ok_or(DevError::Missing { program: "unshare", hint: "install util-linux" })?;
    let script =
        r#"while [ "$1" != -- ]; do mount --bind "$2" "$1" || exit 1; shift 2; done; shift; exec "$@""#;
    let mut words: Vec<OsString> = ["--mount", "sh", "-c", script, "sh"].iter().map(Into::into).collect();
    words.extend(files.iter().flat_map(|(machines, own)| [machines.into(), own.into()]));
    words.push("--".into());
    words.push(program.into());
    words.extend(arguments);
    Ok((unshare, words))
}

fn arguments(
    dir: &Path,
    folders: &Folders,
    socket: &Path,
    tcp: Option<SocketAddr>,
    options: &DockerdOptions,
) -> Vec<OsString> {
    let mut arguments = vec![
        format!("--config-file={}", dir.join("daemon.json").display()),
        format!("--data-root={}", folders.data_root.display()),
        format!("--exec-root={}", folders.exec_root.display()),
        format!("--pidfile={}", dir.join("pid").display()),
        format!("--host=unix://{}", socket.display()),
        format!("--cgroup-parent={}", folders.cgroup),
        // With systemd's driver the parent would have to be a slice of the machine's.
        "--exec-opt=native.cgroupdriver=cgroupfs".to_owned(),
        "--group=root".to_owned(),
    ];
    if let Some(tcp) = tcp {
        arguments.push(format!("--host=tcp://{tcp}"));
        match &options.tls {
            // Said outright, or dockerd waits a second (20.10) or refuses (28).
            None => arguments.push("--tls=false".to_owned()),
            Some((cert, key, ca)) => arguments.extend([
                "--tlsverify".to_owned(),
                format!("--tlscert={}", cert.display()),
                format!("--tlskey={}", key.display()),
                format!("--tlscacert={}", ca.display()),
            ]),
        }
    }
    if options.network == Network::None {
        // Docker 27 and later write rules of IPv6 too by default.
        let quiet = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"];
        arguments.extend(quiet.map(str::to_owned));
    }
    arguments.extend(options.arguments.iter().cloned());
    arguments.into_iter().map(Into::into).collect()
}

/// A `daemon.json` of its own is always named: without one dockerd would read the machine's.
fn configuration_text(options: &DockerdOptions) -> String {
    let mut configuration = options.configuration.clone();
    if !options.runtimes.is_empty() {
        let runtimes: Map<String, Value> =
            options.runtimes.iter().map(|(name, path)| (name.clone(), json!({ "path": path }))).collect();
        configuration.insert("runtimes".into(), Value::Object(runtimes));
    }
    Value::Object(configuration).to_string()
}

fn has_docker_bridge() -> bool {
    let links = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    links.lines().any(|line| line.trim_start().starts_with("docker0:"))
}

/// Pid 1's namespace, or, where that may not be looked at, one with a way to the outside.
fn in_machine_namespace() -> bool {
    match (std::fs::read_link("/proc/thread-self/ns/net"), std::fs::read_link("/proc/1/ns/net")) {
        (Ok(own), Ok(machine)) => own == machine,
        _ => super::pool::has_default_route(),
    }
}
