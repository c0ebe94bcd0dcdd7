//! What programs of different releases leave for each other on a host. Texts of earlier releases stand here for
//! good: whoever changes a format finds out whom that hurts. `make test-upgrade` tries it with real programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use calico_mesos::calico::Identity;
use calico_mesos::names::ContainerId;
use calico_mesos::task::record::journal::{Backing, Found, Journal, Record};

const CONTAINER: &str = "3f6b8f4e-0f0a-4c58-9d8c-0c8c8f8f7a11";

/// Format 1 as its first release wrote it.
fn record(docker: &str) -> String {
    format!(
        r#"{{
  "format": 1,
  "container": "{CONTAINER}",
  "container_name": "mesos-{CONTAINER}",
  "docker": {docker},
  "framework": "b0a8e1f0-0000",
  "identity": {{
    "node": "agent-1",
    "workload": "web.{CONTAINER}",
    "handle": "mesos.{CONTAINER}",
    "uid": "c0ffee00-1111-4222-8333-444455556666",
    "interface": "cali3f6b8f4e0f0",
    "container_id": "{CONTAINER}",
    "app": "/web",
    "task_id": "web.instance-1._app.1"
  }},
  "services": [],
  "local": false,
  "owner": {{
    "pid": 4711,
    "start_time": 123456,
    "boot_id": "00000000-0000-4000-8000-000000000000",
    "version": "0.1.0"
  }},
  "written": "2026-11-23T19:02:11Z"
}}
"#
    )
}

fn found(text: &str) -> Found {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("{CONTAINER}.json"));
    fs::write(&path, text).unwrap();
    Journal::take_over(&path).unwrap().expect("nobody owns it")
}

fn read(text: &str) -> Record {
    match found(text) {
        Found::Orphan(entry) => entry.record,
        Found::Unreadable { why, .. } => panic!("{why}"),
    }
}

#[test]
fn journals_of_format_1_are_read() {
    let container = read(&record("\"unix:///var/run/docker.sock\""));
    let docker = "unix:///var/run/docker.sock".to_owned();
    let name = format!("mesos-{CONTAINER}");
    assert_eq!(container.backing, Backing::Container { docker, name, adopted: false });
    assert_eq!((container.container, container.ports), (ContainerId::parse(CONTAINER).unwrap(), Vec::new()));
    // A command.
    let command = read(&record("null"));
    assert_eq!((command.backing, command.identity.app.as_str()), (Backing::Process, "/web"));
    let adopted =
        read(&record("\"tcp://127.0.0.1:2375\"").replace("\"local\"", "\"adopted\": true,\n  \"local\""));
    assert!(matches!(adopted.backing, Backing::Container { adopted: true, .. }), "{:?}", adopted.backing);
    // What a later release adds without a new format is read past, so that the way back to this one is open.
    let later = record("null").replace("\"local\"", "\"later\": {\"a\": [1]},\n  \"local\"");
    assert_eq!(read(&later).identity.workload, format!("web.{CONTAINER}"));
}

/// The releases that read format 1 need each of its fields, by these names and of these types.
#[test]
fn journals_are_written_in_format_1() {
    for docker in ["\"unix:///var/run/docker.sock\"", "null"] {
        let text = record(docker);
        let mut earlier: serde_json::Value = serde_json::from_str(&text).unwrap();
        if docker == "null" {
            // Which they read of a container alone.
            earlier["container_name"] = "".into();
        }
        assert_eq!(serde_json::to_value(read(&text)).unwrap(), earlier);
    }
    let adopted = record("\"unix:///d\"").replace("\"local\"", "\"adopted\": true,\n  \"local\"");
    assert_eq!(serde_json::to_value(read(&adopted)).unwrap()["adopted"], true);
}

/// A host with nothing but folders.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["run", "state", "log"]
            .map(|name| format!("{name} = {:?}\n", folder.path().join(name).to_str().unwrap()));
        // Nobody answers there: what is tried all the same fails at once.
        let services = "[etcd]\nendpoints = [\"http://127.0.0.1:1\"]\n[consul]\nenabled = false\n";
        fs::write(folder.path().join("config.toml"), format!("{services}[paths]\n{}", paths.concat()))
            .unwrap();
        fs::create_dir_all(folder.path().join("state/tasks")).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn gc(&self) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_calico-mesos"));
        command.arg("--config").arg(self.path("config.toml")).arg("gc").output().unwrap()
    }
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Format 2 is for containers that others start alone: the release before, which would take a free lock for their
/// owner's death, leaves them alone, and can be set back to under all other tasks.
#[test]
fn only_records_of_adopted_containers_have_format_2() {
    let container = ContainerId::parse(CONTAINER).unwrap();
    let new = || Record::new(container.clone(), Identity::new("agent-17", &container, "/web", "web.1"));
    let backing =
        |adopted| Backing::Container { docker: "unix:///d".to_owned(), name: "x".to_owned(), adopted };
    assert_eq!(new().format, 1);
    assert_eq!(new().backed_by(backing(false)).format, 1);
    let record = new().backed_by(backing(true));
    assert_eq!(record.format, 2);
    assert_eq!(read(&serde_json::to_string_pretty(&record).unwrap()), record);
}

#[test]
fn a_record_of_a_later_release_is_left_alone_and_named() {
    let host = Host::new();
    let path = host.path("state/tasks").join(format!("{CONTAINER}.json"));
    let later = record("null").replace("\"format\": 1", "\"format\": 3").replace("0.1.0", "0.9.0");
    fs::write(&path, &later).unwrap();
    let told = told(&host.gc());
    assert!(
        told.contains(&CONTAINER[..8]) && told.contains("format 3, written by calico-mesos 0.9.0"),
        "{told}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), later);
}

#[test]
fn a_lock_of_a_later_release_is_left_alone_and_named() {
    let host = Host::new();
    let gc = host.gc();
    assert!(told(&gc).contains("cannot query Calico"), "{}", told(&gc));
    let lock = host.path("state/gc.lock");
    assert_eq!(fs::read_to_string(&lock).unwrap(), "calico-mesos lock 1\n");
    assert_eq!(mode(&lock), 0o600);
    // As the releases before left it.
    fs::write(&lock, "").unwrap();
    host.gc();
    assert_eq!(fs::read_to_string(&lock).unwrap(), "calico-mesos lock 1\n");

    let path = host.path("state/tasks").join(format!("{CONTAINER}.json"));
    fs::write(&path, record("null")).unwrap();
    fs::write(&lock, "calico-mesos lock 2\n").unwrap();
    let output = host.gc();
    assert!(!output.status.success());
    assert!(told(&output).contains("gc.lock guards has format 2"), "{}", told(&output));
    assert!(path.exists());
    assert_eq!(fs::read_to_string(&lock).unwrap(), "calico-mesos lock 2\n");
}
