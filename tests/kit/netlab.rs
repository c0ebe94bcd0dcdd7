//! What tests of links, routes and firewalls share: they run in a network namespace of their own, or
//! not at all.

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};

use calico_mesos::net::{self, Namespace, Veth};
use serde_json::Value;

/// The host side is one network namespace for all tests of this file.
static HOST: Mutex<()> = Mutex::new(());

/// A folder, the lock on the host side, and the promise that everything is gone at the end.
pub struct Lab {
    folder: tempfile::TempDir,
    _host: MutexGuard<'static, ()>,
}

impl Lab {
    pub fn new() -> Self {
        require_private_network();
        let host = HOST.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Self { folder: tempfile::tempdir().unwrap(), _host: host }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub async fn container(&self, link: &str, mtu: Option<u32>) -> (Namespace, Veth) {
        let namespace = Namespace::create(&self.path(link)).await.unwrap();
        let veth = net::create_veth(&namespace, link, "eth0", mtu, None).await.unwrap();
        (namespace, veth)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.folder.path()).unwrap().flatten() {
            if entry.path().is_file() {
                let _ = Namespace::unbind(&entry.path());
            }
        }
    }
}

pub fn run(command: &str, args: &[&str]) -> String {
    let output = Command::new(command).args(args).output().unwrap();
    assert!(output.status.success(), "{command} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn ip(args: &[&str]) -> Value {
    let text = run("ip", &[&["-j"], args].concat());
    serde_json::from_str(if text.trim().is_empty() { "[]" } else { &text }).unwrap()
}

/// Any program, in the namespace.
pub fn run_in(namespace: &Namespace, words: &[&str]) -> String {
    let enter = format!("--net={}", namespace.path().display());
    run("nsenter", &[&[enter.as_str()], words].concat())
}

/// `ip`, in the namespace.
pub fn run_inside(namespace: &Namespace, args: &[&str]) -> String {
    run_in(namespace, &[&["ip"], args].concat())
}

pub fn ip_inside(namespace: &Namespace, args: &[&str]) -> Value {
    let text = run_inside(namespace, &[&["-j"], args].concat());
    serde_json::from_str(if text.trim().is_empty() { "[]" } else { &text }).unwrap()
}

pub fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Fails the test unless this process is in another network namespace than the machine.
pub fn require_private_network() {
    let own = std::fs::read_link("/proc/self/ns/net").expect("/proc is mounted");
    let mut pid = std::process::id();
    // Pid 1 may hide its namespaces; an ancestor in another one proves as much.
    while pid != 0 {
        if std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|theirs| theirs != own) {
            return;
        }
        pid = parent(pid);
    }
    panic!("this test changes links and routes: run it in a private network namespace (unshare --net, or make test)");
}

fn parent(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    line.and_then(|ppid| ppid.trim().parse().ok()).unwrap_or(0)
}

/// A process that holds a network namespace with `lo` up until it is killed.
pub fn own_netns() -> Child {
    let mut holder = Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 3600"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test needs unshare and ip");
    let mut line = String::new();
    let mut stdout = BufReader::new(holder.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n", "this test needs root");
    holder
}
