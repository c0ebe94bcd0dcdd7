//! Who lives here: executors, containers, shims and what else this machine's daemons and agent have started.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use calico_mesos::host::processes::{command_line, pids, Stat};
use calico_mesos::rig::daemons::{Consul, Etcd};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use crate::machine::Machine;

/// What a task never is, but a daemon or the timer's cleaner.
const NOT_OF_TASKS: [&str; 3] = ["dockerd", "containerd", "calico-mesos"];

/// `<pid> <command line>` of everybody but the daemons.
pub fn of(machine: &Machine) -> Vec<String> {
    let stack = &machine.world.stack;
    let daemons = [stack.etcd.as_ref().and_then(Etcd::pid), stack.consul.as_ref().and_then(Consul::pid)];
    let daemons = daemons.map(|pid| pid.map_or(0, |pid| pid as i32));
    let cgroup = format!("/{}/", cgroup(machine));
    let everybody = living().filter(|pid| belongs(*pid, &stack.dir, &cgroup));
    let of_tasks = |pid: &i32| !daemons.contains(pid) && !NOT_OF_TASKS.contains(&&*name(*pid));
    everybody.filter(of_tasks).map(describe).collect()
}

/// `<pid> <command line>` of each process that belongs to a run's folder, its daemons included.
pub fn below(folder: &Path) -> Vec<String> {
    let cgroup = format!("/{}/", cgroup_of(&folder.join("d")));
    living().filter(|pid| belongs(*pid, folder, &cgroup)).map(describe).collect()
}

pub fn is_alive(pid: i32) -> bool {
    Stat::of(pid).is_some_and(|stat| !stat.is_dead())
}

pub fn ids(machine: &Machine) -> Vec<i32> {
    of(machine).iter().filter_map(|line| line.split(' ').next()?.parse().ok()).collect()
}

/// Everybody whose network namespace is the one bound at this path.
pub fn inside(namespace: &Path) -> Vec<i32> {
    let Ok(wanted) = fs::metadata(namespace).map(|meta| (meta.dev(), meta.ino())) else { return Vec::new() };
    let is_inside = |pid: &i32| {
        fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|meta| (meta.dev(), meta.ino()) == wanted)
    };
    living().filter(is_inside).collect()
}

pub fn children(parent: i32) -> Vec<i32> {
    living().filter(|pid| Stat::of(*pid).and_then(|stat| stat.parent()) == Some(parent)).collect()
}

pub fn signal(pid: i32, signal: Signal) {
    // It may have ended by itself.
    let _ = kill(Pid::from_raw(pid), signal);
}

/// In order, so that two looks compare.
fn living() -> impl Iterator<Item = i32> {
    let living = pids().filter(|pid| is_alive(*pid));
    living.collect::<BTreeSet<i32>>().into_iter()
}

/// The one below which dockerd puts its containers, named after its folder.
pub fn cgroup(machine: &Machine) -> String {
    cgroup_of(&machine.world.stack.docker.dir)
}

pub fn cgroup_of(docker: &Path) -> String {
    let dir = docker.display().to_string();
    format!("cm{}", dir.replace(|c: char| !c.is_ascii_alphanumeric(), "-"))
}

/// By its folder, command line, environment or cgroup: all of them name the private folder.
fn belongs(pid: i32, dir: &Path, cgroup: &str) -> bool {
    let proc = Path::new("/proc").join(pid.to_string());
    let text = dir.display().to_string();
    let names = |file: &str, text: &str| {
        fs::read(proc.join(file)).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
    };
    fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir))
        || names("cmdline", &text)
        || names("environ", &text)
        || names("cgroup", cgroup)
}

fn name(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

fn describe(pid: i32) -> String {
    let words = command_line(pid).unwrap_or_default().join(" ");
    format!("{pid} ({}) {}", name(pid), words.chars().take(300).collect::<String>())
}
