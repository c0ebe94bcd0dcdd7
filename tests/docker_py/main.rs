//! docker-py's own integration tests through the Docker API proxy: what passes at Docker's own socket passes there too.
//!
//! ```text
//!   namespace of its own                       another
//!   pytest ──────────────► dockerd             pytest ──► proxy ──► dockerd
//! ```
//!
//! Not part of the ordinary suite: `make test-docker-py` installs the tests and names their folder in [`VARIABLE`].
//! Both runs go on at the same time. A test that fails is tried once more in the same place, which tells a fault from
//! chance. What fails in both places (most of it needs a registry) is listed in `fails-both-ways.txt`, for one version
//! of Docker; that list is held as well.

mod pytest;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use calico_mesos::rig::daemons::{import_busybox, Dockerd, DockerdOptions, Network};
use serde_json::{json, Value};

use pytest::{Outcomes, Pytest};

/// The folder that `scripts/docker-py.sh` prints.
const VARIABLE: &str = "DOCKER_PY";
/// The first line that is not a comment names the version of Docker, each other one a test; `sometimes` before it means
/// that it may pass too.
const FAILS_BOTH_WAYS: &str = include_str!("fails-both-ways.txt");
/// The images that the tests name; they add a user and a folder to busybox, as the published ones have them.
const TAGS: [(&str, &str); 3] = [("busybox", "latest"), ("alpine", "3.10"), ("alpine", "latest")];
const ADDED: &str = "echo postgres:x:70:70::/var/lib:/bin/sh >> /etc/passwd; mkdir -p /var/opt";

/// A child that ends with this value.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A daemon with the images, in a network namespace of its own: its bridge and its swarm are alone there.
struct Place {
    proxy: Option<Ended>,
    dockerd: Dockerd,
    netns: Ended,
    folder: tempfile::TempDir,
}

impl Place {
    async fn new() -> Self {
        let mut netns = Command::new("unshare")
            // The address is what a swarm advertises.
            .args([
                "--net",
                "sh",
                "-c",
                "ip link set lo up && ip addr add 10.99.0.11/32 dev lo && echo up && exec sleep 7200",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test needs unshare and ip");
        let mut line = String::new();
        BufReader::new(netns.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n", "this test needs root");
        let folder = tempfile::Builder::new().prefix("cm-py-").tempdir().unwrap();
        let options = DockerdOptions {
            network: Network::Bridge,
            netns: Some(PathBuf::from(format!("/proc/{}/ns/net", netns.id()))),
            ..DockerdOptions::default()
        };
        let dockerd = Dockerd::start(&folder.path().join("d"), options).await.unwrap();
        import_busybox(&dockerd).await.unwrap();
        let place = Self { proxy: None, dockerd, netns: Ended(netns), folder };
        place.add_images().await;
        place
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, text) = self.dockerd.request(method, path, body.to_string().as_bytes()).await.unwrap();
        assert!(status < 300, "{method} {path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    async fn add_images(&self) {
        let body =
            json!({"Image": "busybox", "Cmd": ["sh", "-c", ADDED], "HostConfig": {"NetworkMode": "none"}});
        let created = self.ask("POST", "/containers/create", &body).await;
        let id = created["Id"].as_str().unwrap();
        self.ask("POST", &format!("/containers/{id}/start"), &json!({})).await;
        let ended = self.ask("POST", &format!("/containers/{id}/wait"), &json!({})).await;
        assert_eq!(ended["StatusCode"], 0, "{ended}");
        for (name, tag) in TAGS {
            let path = format!("/commit?container={id}&repo={name}&tag={tag}");
            self.ask("POST", &path, &json!({"Cmd": ["sh"]})).await;
        }
        self.ask("DELETE", &format!("/containers/{id}"), &json!({})).await;
    }

    /// A program in the namespace.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.netns.0.id())).arg(program).stdin(Stdio::null());
        command
    }

    /// Puts a proxy before the daemon; returns its socket.
    fn start_proxy(&mut self) -> PathBuf {
        let dir = self.folder.path();
        let (socket, config) = (dir.join("proxy.sock"), dir.join("config.toml"));
        let text = format!(
            "proxy.listen = \"127.0.0.1:2377\"\nproxy.socket = \"{}\"\nproxy.docker = \"unix://{}\"\n\
             paths.run = \"{dir}/run\"\npaths.state = \"{dir}/state\"\n",
            socket.display(),
            self.dockerd.socket.display(),
            dir = dir.display(),
        );
        std::fs::write(&config, text).unwrap();
        let mut command = self.command(Path::new(env!("CARGO_BIN_EXE_calico-mesos")));
        command.arg("--config").arg(&config).arg("proxy").stdout(Stdio::null());
        command.stderr(std::fs::File::create(dir.join("proxy.log")).unwrap());
        self.proxy = Some(Ended(command.spawn().unwrap()));
        let limit = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < limit, "{}", self.proxy_log());
            std::thread::sleep(Duration::from_millis(50));
        }
        socket
    }

    /// The home folder of what runs here.
    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn proxy_log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("proxy.log")).unwrap_or_default()
    }
}

/// The list for one version of Docker.
struct Listed {
    version: &'static str,
    fail: BTreeSet<String>,
    /// Those that depend on chance.
    may_fail: BTreeSet<String>,
}

fn listed() -> Listed {
    let mut lines = FAILS_BOTH_WAYS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let version = lines.next().and_then(|line| line.strip_prefix("Docker ")).expect("no version");
    let mut listed = Listed { version, fail: BTreeSet::new(), may_fail: BTreeSet::new() };
    for line in lines {
        match line.strip_prefix("sometimes ") {
            Some(test) => listed.may_fail.insert(test.to_owned()),
            None => listed.fail.insert(line.to_owned()),
        };
    }
    listed
}

fn lines(tests: &BTreeSet<String>) -> String {
    tests.iter().map(|test| format!("{test}\n")).collect()
}

#[tokio::test]
async fn what_passes_directly_passes_through_the_proxy() {
    let tests = PathBuf::from(std::env::var_os(VARIABLE).expect("run `make test-docker-py`"));
    let (direct, mut proxied) = (Place::new().await, Place::new().await);
    let socket = proxied.start_proxy();
    let here = Pytest { tests: &tests, place: &direct, socket: &direct.dockerd.socket };
    let there = Pytest { tests: &tests, place: &proxied, socket: &socket };
    let (here, there) = std::thread::scope(|scope| {
        let here = scope.spawn(|| here.run());
        (here.join(), there.run())
    });
    let here: Outcomes = here.unwrap();
    println!("direct: {here}\nproxy:  {there}");

    let only_direct = &here.passed - &there.passed;
    let log = proxied.proxy_log();
    assert!(only_direct.is_empty(), "pass directly only:\n{}\n{}\n{log}", lines(&only_direct), there.output);
    let both = &here.failed & &there.failed;
    let seen = direct.ask("GET", "/version", &Value::Null).await;
    let listed = listed();
    println!("Docker {}: {} fail both ways", seen["Version"].as_str().unwrap(), both.len());
    if seen["Version"] != listed.version {
        println!("the list is of Docker {}; fail both ways here:\n{}", listed.version, lines(&both));
        return;
    }
    let (new, gone) = (&(&both - &listed.fail) - &listed.may_fail, &listed.fail - &both);
    assert!(new.is_empty(), "fail both ways and are not listed:\n{}\n{}", lines(&new), here.output);
    assert!(gone.is_empty(), "are listed and do not fail both ways:\n{}", lines(&gone));
}
