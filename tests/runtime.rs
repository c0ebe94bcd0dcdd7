//! `calico-runc` beneath a real dockerd of its own: containers start only through the gate.
//!
//! To be run in a private network namespace, as `make test` does. One daemon serves all scenarios:
//! starting one takes longer than all of them.

mod kit;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{symlink, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use calico_mesos::cli::runtime::{install, uninstall, InstallArgs, RuntimeSetupError, UninstallArgs};
use calico_mesos::host::processes::{command_line, pids};
use calico_mesos::net::{self, Namespace};
use calico_mesos::rig::daemons::{import_busybox, Dockerd, DockerdOptions};
use kit::{netlab, wait};

const RUNTIME: &str = env!("CARGO_BIN_EXE_calico-runc");

/// A dockerd with its data, its runtime `calico` and our configuration in one folder.
struct Docker {
    folder: tempfile::TempDir,
    daemon: Dockerd,
    tokio: tokio::runtime::Runtime,
}

impl Docker {
    fn start(mut options: DockerdOptions) -> Self {
        netlab::require_private_network();
        let folder = tempfile::Builder::new().prefix("cm").tempdir_in("/tmp").unwrap();
        let config = folder.path().join("config.toml").display().to_string();
        options.environment.insert("CALICO_MESOS_CONFIG".into(), config);
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let daemon = tokio.block_on(async {
            let daemon = Dockerd::start(&folder.path().join("d"), options).await.unwrap();
            import_busybox(&daemon).await.unwrap();
            daemon
        });
        let docker = Self { folder, daemon, tokio };
        docker.configure("");
        docker
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, more: &str) {
        let run = self.path("run");
        let log = self.path("log");
        let text = format!("{more}\n[paths]\nrun = \"{}\"\nlog = \"{}\"\n", run.display(), log.display());
        fs::write(self.path("config.toml"), text).unwrap();
    }

    fn cli(&self, args: &[&str]) -> Output {
        Command::new("docker")
            .args(["-H", &self.daemon.host()])
            .args(args)
            .env_remove("DOCKER_HOST")
            .output()
            .unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn fails(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        assert!(!output.status.success(), "docker {args:?} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }

    /// A created container with everything that an executor prepares before `docker start`.
    fn prepared(&self, task: &str, args: &[&str]) -> Prepared<'_> {
        let options = ["create", "--runtime", "calico", "--network", "none", "--name", task];
        let id = self.ok(&[&options, args, &["busybox", "sleep", "600"]].concat());
        let run = self.path("run");
        let folder = run.join("tasks").join(task);
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(run.join("containers")).unwrap();
        symlink(&folder, run.join("containers").join(&id)).unwrap();
        let namespace = self.tokio.block_on(Namespace::create(&folder.join("netns"))).unwrap();
        Prepared { docker: self, id, folder, namespace }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.tokio.block_on(self.daemon.stop());
        // A failed scenario could not do it itself.
        for task in fs::read_dir(self.path("run/tasks")).into_iter().flatten().flatten() {
            let namespace = task.path().join("netns");
            if let Ok(open) = Namespace::open(&namespace) {
                let _ = self.tokio.block_on(open.kill_processes(Duration::from_secs(5)));
            }
            let _ = Namespace::unbind(&namespace);
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.path("d/log")).unwrap();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("dockerd's last words:");
            eprintln!("{}", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
    }
}

struct Prepared<'a> {
    docker: &'a Docker,
    id: String,
    folder: PathBuf,
    namespace: Namespace,
}

impl Prepared<'_> {
    /// Listens at the gate and answers the first question; says what was asked.
    fn gate(&self, answer: Option<&'static str>) -> std::thread::JoinHandle<String> {
        let path = self.folder.join("gate");
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            drop(listener);
            let mut line = [0; 512];
            let count = stream.read(&mut line).unwrap();
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).unwrap(),
                // Silent until the other side gives up.
                None => assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0),
            }
            String::from_utf8_lossy(&line[..count]).into_owned()
        })
    }

    /// Nothing of a refused or ended container is left: no init, no shim, no state of the runtime.
    fn assert_nothing_runs(&self) {
        let quiet = || {
            self.namespace.processes().is_empty()
                && !shim_lives(&self.id)
                && states(self.docker, &self.id).is_empty()
        };
        wait::blocking(Duration::from_secs(10), "init, shim and state are gone", quiet);
    }

    fn remove(self) {
        self.docker.ok(&["rm", "-f", &self.id]);
        self.assert_nothing_runs();
        Namespace::unbind(&self.folder.join("netns")).unwrap();
        fs::remove_file(self.docker.path("run").join("containers").join(&self.id)).unwrap();
    }
}

fn shim_lives(id: &str) -> bool {
    let mut lines = pids().filter_map(command_line).map(|words| words.join(" "));
    lines.any(|line| line.contains("containerd-shim") && line.contains(id))
}

/// Folders named like the container below the daemon's volatile folder.
fn states(docker: &Docker, id: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, id: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_str() == Some(id) {
                found.push(entry.path());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !entry.path().ends_with("rootfs") {
                walk(&entry.path(), id, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(&docker.path("d/x"), id, &mut found);
    found
}

#[test]
fn containers_start_only_through_the_gate() {
    let runtimes = [("calico".to_owned(), RUNTIME.into())].into();
    let docker = Docker::start(DockerdOptions { runtimes, ..Default::default() });
    type Scenario = fn(&Docker);
    let scenarios: [(&str, Scenario); 12] = [
        ("a whole life", whole_life),
        ("refused, then opened", refused),
        ("the owner dies", owner_dies),
        ("nobody listens", nobody_listens),
        ("no answer", no_answer),
        ("refused again and again on a busy machine", refused_often),
        ("a second start", second_start),
        ("plain runc", plain_runc),
        ("nothing prepared", nothing_prepared),
        ("a wrong namespace", wrong_namespace),
        ("a folder open to others", open_folder),
        ("a broken configuration", broken_configuration),
    ];
    for (name, scenario) in scenarios {
        let began = Instant::now();
        println!("{name}");
        scenario(&docker);
        println!("  {:?}", began.elapsed());
    }
}

fn whole_life(docker: &Docker) {
    let task = docker.prepared("life", &["--hostname", "web"]);
    docker.tokio.block_on(async {
        net::create_veth(&task.namespace, "calilife", "eth0", Some(1440), None).await.unwrap();
        net::assign(&task.namespace, "eth0", &["10.9.0.7".parse().unwrap()]).await.unwrap();
    });
    let gate = task.gate(Some("open\n"));
    docker.ok(&["start", &task.id]);
    assert_eq!(gate.join().unwrap(), format!("calico-mesos gate 1 start {}\n", task.id));
    let shown = docker.ok(&["exec", &task.id, "ip", "addr", "show", "eth0"]);
    assert!(shown.contains("10.9.0.7/32") && shown.contains("mtu 1440"), "{shown}");
    let routes = docker.ok(&["exec", &task.id, "ip", "route"]);
    assert!(routes.contains("default via 169.254.1.1"), "{routes}");
    // The executor writes into the file that the container sees.
    fs::OpenOptions::new()
        .append(true)
        .open(task.folder.join("hosts"))
        .unwrap()
        .write_all(b"10.9.0.7 web\n")
        .unwrap();
    assert!(docker.ok(&["exec", &task.id, "cat", "/etc/hosts"]).contains("10.9.0.7 web"));
    docker.ok(&["kill", &task.id]);
    assert_eq!(docker.ok(&["wait", &task.id]), "137");
    task.assert_nothing_runs();
    let link = docker.tokio.block_on(net::delete_link("calilife")).unwrap();
    assert!(link, "the namespace and its veth outlive the container");
    task.remove();
}

fn refused(docker: &Docker) {
    let task = docker.prepared("refused", &[]);
    let gate = task.gate(Some("refused no address is left in pool \"small\" [agent-1, CM-IP-EXHAUSTED]\n"));
    let error = docker.fails(&["start", &task.id]);
    gate.join().unwrap();
    let reason = "no address is left in pool \"small\" [agent-1, CM-IP-EXHAUSTED]";
    assert!(error.contains(&format!("OCI runtime start failed: {reason}")), "{error}");
    let state = docker.ok(&["inspect", "--format", "{{.State.Error}}", &task.id]);
    assert!(state.contains(reason), "{state}");
    task.assert_nothing_runs();
    // The same container can be started when all is well again.
    let gate = task.gate(Some("open\n"));
    docker.ok(&["start", &task.id]);
    gate.join().unwrap();
    task.remove();
}

fn owner_dies(docker: &Docker) {
    let task = docker.prepared("dies", &[]);
    let gate = task.gate(Some(""));
    let error = docker.fails(&["start", &task.id]);
    gate.join().unwrap();
    assert!(error.contains("the executor of this container died"), "{error}");
    task.assert_nothing_runs();
    task.remove();
}

fn nobody_listens(docker: &Docker) {
    let task = docker.prepared("nobody", &[]);
    assert!(docker.fails(&["start", &task.id]).contains("no executor waits"));
    // A socket that an executor left behind when it was killed.
    drop(UnixListener::bind(task.folder.join("gate")).unwrap());
    assert!(docker.fails(&["start", &task.id]).contains("no executor waits"));
    task.assert_nothing_runs();
    task.remove();
}

fn no_answer(docker: &Docker) {
    docker.configure("[runtime]\ngate_timeout = \"1s\"");
    let task = docker.prepared("silent", &[]);
    let gate = task.gate(None);
    let error = docker.fails(&["start", &task.id]);
    gate.join().unwrap();
    assert!(error.contains("did not have the network ready within 1 s"), "{error}");
    docker.configure("");
    task.assert_nothing_runs();
    task.remove();
}

/// containerd reaps the killed init beside everything else it does: a refusal must not outrun it.
fn refused_often(docker: &Docker) {
    let task = docker.prepared("often", &[]);
    let mut busy: Vec<Child> =
        (0..4).map(|_| Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap()).collect();
    let errors: Vec<String> = (0..8)
        .map(|_| {
            let gate = task.gate(Some("refused not now\n"));
            let error = docker.fails(&["start", &task.id]);
            gate.join().unwrap();
            error
        })
        .collect();
    for child in &mut busy {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(errors.iter().all(|error| error.contains("not now")), "{errors:?}");
    task.assert_nothing_runs();
    task.remove();
}

fn second_start(docker: &Docker) {
    let task = docker.prepared("again", &[]);
    let gate = task.gate(Some("open\n"));
    docker.ok(&["start", &task.id]);
    gate.join().unwrap();
    docker.ok(&["kill", &task.id]);
    docker.ok(&["wait", &task.id]);
    assert!(docker.fails(&["start", &task.id]).contains("not the first start"));
    task.assert_nothing_runs();
    task.remove();
}

fn plain_runc(docker: &Docker) {
    let out = docker.ok(&["run", "--rm", "--network", "none", "busybox", "cat", "/etc/hostname"]);
    assert_eq!(out.len(), 12, "{out}");
}

fn nothing_prepared(docker: &Docker) {
    let id = docker.ok(&["create", "--runtime", "calico", "--network", "none", "busybox", "sleep", "1"]);
    let error = docker.fails(&["start", &id]);
    assert!(error.contains("no network namespace was prepared"), "{error}");
    docker.ok(&["rm", &id]);
    assert!(!shim_lives(&id) && states(docker, &id).is_empty());
}

fn wrong_namespace(docker: &Docker) {
    let task = docker.prepared("wrong", &[]);
    let path = task.folder.join("netns");
    Namespace::unbind(&path).unwrap();
    fs::write(&path, "").unwrap();
    let error = docker.fails(&["start", &task.id]);
    assert!(error.contains("as a plain file"), "{error}");
    let mount = |args: &[&str]| assert!(Command::new("mount").args(args).status().unwrap().success());
    mount(&["--bind", "/proc/self/ns/net", &path.display().to_string()]);
    let error = docker.fails(&["start", &task.id]);
    assert!(error.contains("is the host's own"), "{error}");
    Namespace::unbind(&path).unwrap();
    fs::write(&path, "").unwrap();
    mount(&["--bind", "/proc/self/ns/uts", &path.display().to_string()]);
    assert!(docker.fails(&["start", &task.id]).contains("plain file"));
    task.remove();
}

fn open_folder(docker: &Docker) {
    let task = docker.prepared("open", &[]);
    let containers = docker.path("run/containers");
    fs::set_permissions(&containers, fs::Permissions::from_mode(0o777)).unwrap();
    let error = docker.fails(&["start", &task.id]);
    assert!(error.contains("writable by root only"), "{error}");
    fs::set_permissions(&containers, fs::Permissions::from_mode(0o755)).unwrap();
    task.remove();
}

fn broken_configuration(docker: &Docker) {
    let task = docker.prepared("broken", &[]);
    let gate = task.gate(Some("open\n"));
    docker.ok(&["start", &task.id]);
    gate.join().unwrap();
    fs::write(docker.path("config.toml"), "[nonsense]\n").unwrap();
    // What runs can still be looked into and ended.
    docker.ok(&["exec", &task.id, "ip", "link"]);
    docker.ok(&["kill", &task.id]);
    docker.ok(&["wait", &task.id]);
    let error = docker.fails(&["start", &task.id]);
    assert!(error.contains("cannot use its configuration") && error.contains("nonsense"), "{error}");
    task.assert_nothing_runs();
    docker.configure("");
    task.remove();
}

/// Both start a workload without `create` and `start`, and so without namespace and gate.
#[test]
fn run_and_restore_are_refused() {
    netlab::require_private_network();
    let folder = tempfile::Builder::new().prefix("cm").tempdir_in("/tmp").unwrap();
    let script = "mkdir -p rootfs/bin && cp /bin/busybox rootfs/bin/sh && runc spec && sed -i '/terminal/d' config.json";
    assert!(Command::new("sh").args(["-c", script]).current_dir(&folder).status().unwrap().success());
    let config = format!("[paths]\nrun = {0:?}\nlog = {0:?}\n", folder.path().join("run"));
    fs::write(folder.path().join("config.toml"), config).unwrap();
    let call = |runtime: &str, words: &[&str]| {
        let mut command = Command::new(runtime);
        command.current_dir(&folder).args(["--root", "root", "--log", "log", "--log-format", "json"]);
        command.args(words).arg("victim").stdin(Stdio::null());
        command.env("CALICO_MESOS_CONFIG", folder.path().join("config.toml")).output().unwrap()
    };
    assert!(call("runc", &["run"]).status.success(), "the bundle itself runs");
    for (verb, words) in [("run", &["run"][..]), ("restore", &["restore", "--image-path", "/nonexistent"])] {
        let output = call(RUNTIME, words);
        let reason = format!("the runtime 'calico' does not {verb} containers");
        assert!(!output.status.success(), "{output:?}");
        assert!(fs::read_to_string(folder.path().join("log")).unwrap().contains(&reason), "{output:?}");
    }
}

#[test]
fn everything_else_is_runcs() {
    for args in
        [vec!["--version"], vec!["features"], vec!["--root", "/nonexistent", "list"], vec!["nonsense"]]
    {
        let ours = Command::new(RUNTIME).args(&args).output().unwrap();
        let runcs = Command::new("runc").args(&args).output().unwrap();
        assert_eq!(ours.status.code(), runcs.status.code(), "{args:?}");
        assert_eq!(ours.stdout, runcs.stdout, "{args:?}");
    }
    let help = Command::new(RUNTIME).output().unwrap();
    assert!(String::from_utf8_lossy(&help.stdout).contains("runc"));
}

#[test]
fn the_runtime_is_installed_and_taken_out_of_a_running_daemon() {
    let before = "{\n    \"max-concurrent-downloads\": 2,\n    \"debug\": false\n}\n";
    let docker = Docker::start(DockerdOptions::default());
    let daemon_json = docker.path("d/daemon.json");
    fs::write(&daemon_json, before).unwrap();
    fs::set_permissions(&daemon_json, fs::Permissions::from_mode(0o640)).unwrap();
    let add = InstallArgs {
        daemon_json: daemon_json.clone(),
        runtime: Some(RUNTIME.into()),
        reload: true,
        dry_run: false,
    };
    let remove = UninstallArgs { daemon_json: daemon_json.clone(), reload: true, dry_run: false };
    let knows = || docker.ok(&["info", "--format", "{{json .Runtimes}}"]).contains("\"calico\"");
    assert!(!knows());

    let later = install(&InstallArgs { reload: false, ..add.clone() }).unwrap();
    let pid = docker.daemon.pid().unwrap();
    let hint = format!("kill -HUP {pid}");
    assert!(later.changed && later.sentences.iter().any(|s| s.contains(&hint)), "{later:?}");
    let done = install(&add).unwrap();
    assert!(!done.changed, "installing twice changes nothing");
    assert_eq!(done.reloaded, [pid as i32]);
    wait::blocking(Duration::from_secs(10), "dockerd knows the runtime", knows);
    assert_eq!(fs::metadata(&daemon_json).unwrap().permissions().mode() & 0o777, 0o640);

    let error = uninstall(&remove, || Ok(vec!["web".to_owned()])).unwrap_err();
    assert!(matches!(error, RuntimeSetupError::InUse(_)) && error.to_string().contains("web"), "{error}");
    assert!(fs::read_to_string(&daemon_json).unwrap().contains("calico"));
    assert!(uninstall(&remove, || Ok(Vec::new())).unwrap().changed);
    wait::blocking(Duration::from_secs(10), "dockerd has forgotten the runtime", || !knows());
    assert_eq!(fs::read_to_string(&daemon_json).unwrap(), before);
    assert!(!uninstall(&remove, || Ok(Vec::new())).unwrap().changed);
}

#[test]
fn a_runtime_on_dockerds_command_line_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let daemon_json = folder.path().join("daemon.json");
    fs::write(&daemon_json, "{}").unwrap();
    let args = InstallArgs {
        daemon_json: daemon_json.clone(),
        runtime: Some(RUNTIME.into()),
        reload: true,
        dry_run: false,
    };
    for (flags, wanted) in [
        ("--add-runtime calico=/x", "'--add-runtime calico'"),
        ("--add-runtime k=/k", "would drop on a reload"),
    ] {
        // Only the command line counts here: a shell that waits for its input under that name.
        let script = format!("read line; : --config-file {} {flags}", daemon_json.display());
        let mut words = vec!["-c".to_owned(), script, "sh".to_owned()];
        words.extend(["--config-file".to_owned(), daemon_json.display().to_string()]);
        words.extend(flags.split(' ').map(str::to_owned));
        let mut daemon =
            Command::new("/bin/sh").arg0("dockerd").args(words).stdin(Stdio::piped()).spawn().unwrap();
        // A process has no command line while its exec is under way, and a daemon seen late would get the signal.
        let cmdline = format!("/proc/{}/cmdline", daemon.id());
        let named = || fs::read_to_string(&cmdline).unwrap().starts_with("dockerd\0");
        wait::blocking(wait::LIMIT, "the shell bears dockerd's name", named);
        let error = install(&args).unwrap_err().to_string();
        drop(daemon.stdin.take());
        daemon.wait().unwrap();
        assert!(error.contains(wanted), "{error}");
        assert_eq!(fs::read_to_string(&daemon_json).unwrap(), "{}");
    }
}
