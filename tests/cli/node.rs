//! `calico-mesos node install` and `uninstall`: the agent's launcher folder with our executor in it.

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use calico_mesos::rig::daemons::{Dockerd, DockerdOptions};

use crate::machine::{plain, root, Outcome, PROGRAM};
use crate::netlab::require_private_network;

/// Sees no process but its own: an agent of this machine, or of another test, must not count.
const ALONE: [&str; 4] = ["--pid", "--fork", "--mount-proc", "--"];
/// Beside an agent with the flags in $FLAGS. The name and the command line are all that is looked at.
const BESIDE_AN_AGENT: &str = r#"
(exec -a mesos-agent sh -c 'sleep 60; :' sh $FLAGS) & agent=$!
until grep -q ^mesos-agent /proc/$agent/cmdline; do :; done
"$@"
"#;

/// An agent's own launcher folder, and where everything is to be installed.
pub struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    pub fn new() -> Self {
        let host = Self { dir: tempfile::Builder::new().prefix("cm-node-").tempdir_in("/tmp").unwrap() };
        fs::create_dir(host.path("libexec")).unwrap();
        for name in ["mesos-containerizer", "mesos-docker-executor", "mesos-executor", "mesos-fetcher"] {
            host.program(&format!("libexec/{name}"));
        }
        host
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn farm(&self) -> PathBuf {
        self.path("lib/calico-mesos/launcher")
    }

    fn program(&self, name: &str) {
        fs::write(self.path(name), format!("#!/bin/sh\necho {name}\n")).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn words(&self, verb: &str, arguments: &[&str]) -> Vec<String> {
        let file = |name: &str| self.path(name).display().to_string();
        let farm = self.farm().display().to_string();
        let (json, config) = (file("daemon.json"), file("config.toml"));
        let own = [PROGRAM, "node", verb, "--dir", &farm, "--daemon-json", &json, "--config", &config];
        own.iter().chain(arguments).map(|word| (*word).to_owned()).collect()
    }

    fn node(&self, verb: &str, arguments: &[&str]) -> Outcome {
        let mut command = Command::new("unshare");
        Outcome::of(command.args(ALONE).args(self.words(verb, arguments)).env_remove("DOCKER_HOST"))
    }

    fn node_beside_agent(&self, flags: &str, verb: &str) -> Outcome {
        let mut command = Command::new("unshare");
        command.args(ALONE).args(["bash", "-c", BESIDE_AN_AGENT, "bash"]).args(self.words(verb, &[]));
        Outcome::of(command.env("FLAGS", flags).env_remove("DOCKER_HOST"))
    }

    pub fn install(&self, arguments: &[&str]) -> Outcome {
        let from = self.path("libexec");
        self.node("install", &[&["--from", from.to_str().unwrap()], arguments].concat())
    }

    /// Names and targets of all links.
    fn links(&self) -> Vec<(String, PathBuf)> {
        let mut links: Vec<_> = fs::read_dir(self.farm())
            .unwrap()
            .flatten()
            .filter_map(|entry| {
                Some((entry.file_name().into_string().unwrap(), fs::read_link(entry.path()).ok()?))
            })
            .collect();
        links.sort();
        links
    }

    fn is_as_it_was(&self) -> bool {
        !self.path("lib").exists() && !self.path("daemon.json").exists()
            || fs::read_to_string(self.path("daemon.json")).is_ok_and(|text| text.trim() == "{}")
    }
}

#[track_caller]
fn succeeds(outcome: &Outcome, text: &str) {
    assert_eq!((outcome.code, &*outcome.stderr), (0, ""), "{outcome:#?}");
    outcome.says(text);
}

/// One sentence on standard error, and nothing on standard output.
#[track_caller]
fn refuses(outcome: &Outcome, text: &str) {
    assert_eq!((outcome.code, &*outcome.stdout, outcome.stderr.lines().count()), (1, "", 1), "{outcome:#?}");
    assert!(outcome.stderr.contains(text), "no '{text}' in {outcome:#?}");
}

#[test]
fn the_launcher_folder_follows_mesos_and_is_removed() {
    let host = Host::new();
    let own = |name: &str| (name.to_owned(), host.path("libexec").join(name));
    let executor = Path::new(PROGRAM).with_file_name("calico-executor").canonicalize().unwrap();
    let ours = ("mesos-docker-executor".to_owned(), executor);

    let outcome = host.install(&["--dry-run"]);
    assert_eq!(outcome.code, 3, "{outcome:#?}");
    outcome.says("to add: mesos-containerizer, mesos-docker-executor, mesos-executor, mesos-fetcher");
    outcome.says("to add: runtime 'calico'");
    assert!(host.is_as_it_was());

    let outcome = host.install(&[]);
    succeeds(&outcome, "added mesos-containerizer");
    outcome.says(&format!("--launcher_dir={}", host.farm().display()));
    let first = [own("mesos-containerizer"), ours.clone(), own("mesos-executor"), own("mesos-fetcher")];
    assert_eq!(host.links(), first);
    let open = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((open(&host.farm()), open(&host.path("lib"))), (0o755, 0o755));
    let json = fs::read_to_string(host.path("daemon.json")).unwrap();
    assert!(json.contains("calico-runc"), "{json}");

    let again = host.install(&["--check"]);
    succeeds(&again, "is up to date");
    succeeds(&host.install(&[]), "is up to date");

    // Mesos is upgraded: nobody has to name its folder again.
    host.program("libexec/mesos-io-switchboard");
    fs::remove_file(host.path("libexec/mesos-fetcher")).unwrap();
    let outcome = host.node("install", &["--dry-run"]);
    assert_eq!(outcome.code, 3, "{outcome:#?}");
    outcome.says("to add: mesos-io-switchboard; to remove: mesos-fetcher");
    assert_eq!(host.links(), first);
    succeeds(&host.node("install", &[]), "added mesos-io-switchboard; removed mesos-fetcher");
    let second = [own("mesos-containerizer"), ours, own("mesos-executor"), own("mesos-io-switchboard")];
    assert_eq!(host.links(), second);

    // The runtime is nobody's: its daemon has never been started.
    fs::write(host.path("daemon.json"), "{}\n").unwrap();
    let outcome = host.node("uninstall", &["--dry-run"]);
    assert_eq!(outcome.code, 3, "{outcome:#?}");
    assert_eq!(host.links(), second);
    succeeds(&host.node("uninstall", &[]), "is removed");
    assert!(host.is_as_it_was());
    succeeds(&host.node("uninstall", &[]), "there is no such launcher folder");
}

#[test]
fn files_that_others_made_stay() {
    let host = Host::new();
    let farm = host.farm();
    fs::create_dir_all(&farm).unwrap();
    fs::write(farm.join("notes"), "").unwrap();
    refuses(&host.install(&[]), "calico-mesos did not make it");
    fs::remove_file(farm.join("notes")).unwrap();
    assert!(!host.path("daemon.json").exists(), "a refusal changes nothing at all");

    succeeds(&host.install(&[]), "added");
    for put in [(|path| fs::write(path, "#!/bin/sh\n")) as fn(&Path) -> std::io::Result<()>, |path| {
        symlink("/opt/wrapper", path)
    }] {
        let place = farm.join("mesos-docker-executor");
        fs::remove_file(&place).unwrap();
        put(&place).unwrap();
        for outcome in [host.install(&[]), host.install(&["--dry-run"]), host.node("uninstall", &[])] {
            refuses(&outcome, "contains mesos-docker-executor, which calico-mesos did not make");
        }
    }
    fs::remove_file(farm.join("mesos-docker-executor")).unwrap();
    // What an operator adds for himself is in nobody's way until the whole folder shall go.
    fs::write(farm.join("my-module.so"), "").unwrap();
    succeeds(&host.install(&[]), "added mesos-docker-executor");
    refuses(&host.node("uninstall", &[]), "my-module.so, which calico-mesos did not make");
    assert_eq!(host.links().len(), 4);
}

#[test]
fn folders_that_cannot_be_a_launcher_folder() {
    let host = Host::new();
    let nowhere = host.path("nowhere");
    refuses(&host.node("install", &["--from", nowhere.to_str().unwrap()]), "no mesos-docker-executor in");
    refuses(&host.node("install", &[]), "/usr/libexec/mesos");
    let executor = Path::new(PROGRAM).with_file_name("calico-executor");
    fs::remove_file(host.path("libexec/mesos-docker-executor")).unwrap();
    symlink(&executor, host.path("libexec/mesos-docker-executor")).unwrap();
    refuses(&host.install(&[]), "itself a folder of links");
    refuses(&host.install(&["--executor", "/bin/nowhere"]), "/bin/nowhere is missing");
    fs::write(host.path("dynamic"), b"\x7fELF /lib64/ld-linux-x86-64.so.2").unwrap();
    fs::set_permissions(host.path("dynamic"), fs::Permissions::from_mode(0o755)).unwrap();
    let dynamic = host.path("dynamic");
    refuses(&host.install(&["--executor", dynamic.to_str().unwrap()]), "LD_PRELOAD");
    assert!(host.is_as_it_was());
}

#[test]
fn places_that_cannot_be_written_to() {
    let host = Host::new();
    let from = host.path("libexec").display().to_string();
    // procfs takes no folder from anybody. The last --dir counts.
    let mut command = Command::new(PROGRAM);
    let json = host.path("daemon.json");
    let line = ["node", "install", "--from", &from, "--daemon-json", json.to_str().unwrap(), "--dir"];
    let outcome = Outcome::of(command.args(line).arg("/proc/launcher"));
    assert_eq!((outcome.code, outcome.stderr.lines().count()), (1, 1), "{outcome:#?}");
    assert!(outcome.stderr.contains("cannot make /proc/launcher"), "{outcome:#?}");

    let script = r#"mkdir "$1/ro" && mount -t tmpfs -o ro none "$1/ro" && shift && exec "$@""#;
    let place = host.path("ro/launcher");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(host.dir.path()).arg(PROGRAM).args(line);
    let outcome = Outcome::of(command.arg(&place));
    assert_eq!((outcome.code, outcome.stderr.lines().count()), (1, 1), "{outcome:#?}");
    let wanted = format!("cannot make {} (name a folder", place.display());
    assert!(outcome.stderr.contains(&wanted) && outcome.stderr.contains("Read-only"), "{outcome:#?}");

    // The program lies where a test's user may not go, hence by its open file.
    let script =
        r#"exec 9<"$1"; shift; exec setpriv --reuid 65534 --regid 65534 --clear-groups /proc/self/fd/9 "$@""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", PROGRAM]).args(line).arg("/nowhere");
    refuses(&Outcome::of(&mut command), "needs root");
}

#[test]
fn a_launcher_folder_that_an_agent_uses_is_not_removed() {
    let host = Host::new();
    // Its folder is found by its flag.
    let flags = format!("--launcher_dir={} --attributes=rack:2", host.path("libexec").display());
    let outcome = host.node_beside_agent(&flags, "install");
    succeeds(&outcome, "--attributes='rack:2;calico:true'");
    outcome.says("does not use this launcher folder yet");

    let flags = format!("--launcher_dir={}", host.farm().display());
    succeeds(&host.node_beside_agent(&flags, "install"), "uses this launcher folder already");
    let refused = host.node_beside_agent(&flags, "uninstall");
    refuses(&refused, &format!("still launches from {}", host.farm().display()));
    assert_eq!(host.links().len(), 4);
}

#[tokio::test]
async fn a_runtime_that_a_container_uses_is_not_removed() {
    require_private_network();
    let host = Host::new();
    succeeds(&host.install(&[]), "added");
    let runtime = Path::new(PROGRAM).with_file_name("calico-runc");
    let options = DockerdOptions { runtimes: [("calico".to_owned(), runtime)].into(), ..Default::default() };
    let mut docker = Dockerd::start(&host.path("d"), options).await.unwrap();
    calico_mesos::rig::daemons::import_busybox(&docker).await.unwrap();
    let body = br#"{"Image":"busybox","HostConfig":{"NetworkMode":"none","Runtime":"calico"}}"#;
    let (status, text) = docker.request("POST", "/containers/create?name=web", body).await.unwrap();
    assert_eq!(status, 201, "{text}");
    fs::write(host.path("config.toml"), format!("docker.host = \"{}\"\n", docker.host())).unwrap();

    succeeds(&host.install(&[]), &format!("--docker_socket={}", docker.socket.display()));
    let refused = host.node("uninstall", &[]);
    refuses(&refused, "still use the runtime 'calico': web");
    assert_eq!(host.links().len(), 4);
    docker.request("DELETE", "/containers/web", b"").await.unwrap();
    succeeds(&host.node("uninstall", &[]), "is removed");
    assert!(!host.path("lib").exists());
    docker.stop().await;
}

#[test]
fn the_sample_flags_name_the_default_folder() {
    let sample = fs::read_to_string(root().join("mesos/agent-flags.env")).unwrap();
    let help = plain(&["node", "install", "--help"]);
    let folder = sample.lines().find_map(|line| line.strip_prefix("MESOS_LAUNCHER_DIR=")).unwrap();
    help.says(&format!("[default: {folder}]"));
}
