//! Files, processes and services of this host.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::cli::node::agents;
use crate::cli::runtime;
use crate::config::Config;
use crate::host::processes::{command_line, environment};
use crate::logging::Component;

use super::bag::Bag;
use super::files::{last_lines, names, newest, read_some};
use super::program;

pub const PROGRAMS: [(&str, &str); 3] = [
    ("versions/systemd.txt", "systemctl --version"),
    ("kernel/modules.txt", "lsmod"),
    ("kernel/disks.txt", "df -h"),
];
/// Of each log, in bytes.
const LOG: u64 = 2_000_000;
/// Of each other file, in bytes.
const FILE: u64 = 1 << 20;
/// Files of one folder.
const MOST_FILES: usize = 1000;
/// Calico's own logs, a folder each beside ours.
const CALICO: [&str; 5] = ["felix", "bird", "bird6", "confd", "node"];
const UNITS: [&str; 13] = [
    "calico-node.service",
    "calico-mesos-gc.service",
    "calico-mesos-gc.timer",
    "calico-mesos-proxy.service",
    "calico-mesos-proxy.socket",
    "docker.service",
    "docker.socket",
    "containerd.service",
    "mesos-agent.service",
    "mesos-slave.service",
    "etcd.service",
    "consul.service",
    "marathon.service",
];
/// What systemd tells of a unit; neither its command lines nor its environment.
const PROPERTIES: &str = "--property=Id,LoadState,ActiveState,SubState,UnitFileState,Result,ExecMainCode,\
                          ExecMainStatus,MainPID,NRestarts,ActiveEnterTimestamp,InactiveEnterTimestamp,FragmentPath,\
                          DropInPaths,MemoryCurrent,TasksCurrent,NextElapseUSecRealtime,LastTriggerUSec";

/// Where systemd runs.
pub async fn units(bag: Bag) {
    if !Path::new("/run/systemd/system").is_dir() {
        return bag.absent("systemd/units.txt", "systemd does not run here");
    }
    let words: Vec<&str> = ["systemctl", "--no-pager", "show", PROPERTIES].into_iter().chain(UNITS).collect();
    program::run("systemd/units.txt", &words, &bag).await;
    program::run("systemd/failed.txt", &["systemctl", "--no-pager", "--failed"], &bag).await;
}

/// Journals and bindings.
pub fn state(config: &Config, bag: &Bag) {
    folder("state/tasks", &config.paths.journal(), bag);
    folder("state/bindings", &config.paths.bindings(), bag);
}

/// Every file of a folder, as a text below this name.
fn folder(name: &str, path: &Path, bag: &Bag) {
    let found = match names(path) {
        Ok(found) => found,
        Err(error) => return bag.error(name, format!("cannot list {}: {error}", path.display())),
    };
    if found.is_empty() {
        bag.absent(name, &format!("{} holds nothing", path.display()));
    }
    if found.len() > MOST_FILES {
        bag.error(name, format!("of {} files only the first {MOST_FILES} are here", found.len()));
    }
    for file in found.iter().take(MOST_FILES) {
        let path = path.join(file);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_file() => {
                let text = read_some(&path, FILE);
                bag.result(&format!("{name}/{file}"), text.map_err(|error| about(&path, &error)));
            }
            // Gone meanwhile, or no file.
            _ => {}
        }
    }
}

fn about(path: &Path, error: &std::io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

/// The newest lines of each log, and of the audit trail.
pub fn logs(config: &Config, bag: &Bag) {
    use Component::{Addresses, Changes, Gc, Proxy, Runtime, Tasks};
    let logs = &config.paths.log;
    for (name, component) in [
        ("logs/runtime.log", Runtime),
        ("logs/gc.log", Gc),
        ("logs/proxy.log", Proxy),
        ("audit/addresses.log", Addresses),
        ("audit/tasks.log", Tasks),
        ("audit/changes.log", Changes),
    ] {
        match newest(component, logs, LOG) {
            Ok(text) if text.is_empty() => bag.absent(name, "it has no line"),
            text => {
                let path = component.current(logs);
                bag.result(name, text.map_err(|error| about(&path, &error)));
            }
        }
    }
    for program in CALICO {
        let path = logs.join(program).join("current");
        if path.exists() {
            let text = last_lines(&path, LOG).map_err(|error| about(&path, &error));
            bag.result(&format!("logs/{program}.log"), text);
        } else {
            bag.absent(&format!("logs/{program}.log"), &format!("there is no {}", path.display()));
        }
    }
}

/// What Felix has written, and the settings of calico/node.
pub fn felix(config: &Config, settings: &Path, bag: &Bag) {
    folder("felix/endpoint-status", &config.paths.endpoint_status, bag);
    for (name, path) in [
        ("felix/settings.txt", settings),
        ("felix/mtu", &config.paths.mtu_file),
        ("felix/nodename", &config.paths.nodename_file),
    ] {
        match path.exists() {
            true => bag.result(name, read_some(path, FILE).map_err(|error| about(path, &error))),
            false => bag.absent(name, &format!("there is no {}", path.display())),
        }
    }
}

/// The mounts that hold namespaces, and those of our own folders.
pub fn mounts(config: &Config, bag: &Bag) {
    let text = match fs::read_to_string("/proc/self/mountinfo") {
        Ok(text) => text,
        Err(error) => return bag.error("kernel/mounts.txt", error),
    };
    let run = config.paths.run.display().to_string();
    let ours = |line: &&str| line.contains(" - nsfs ") || line.contains("/netns") || line.contains(&run);
    let cgroups = |line: &&str| line.contains(" - cgroup");
    let lines: Vec<&str> = text.lines().filter(|line| ours(line) || cgroups(line)).collect();
    bag.add("kernel/mounts.txt", lines.join("\n") + "\n");
}

/// What runs here.
pub fn kernel(bag: &Bag) {
    for (name, path) in [
        ("kernel/version.txt", "/proc/version"),
        ("kernel/load.txt", "/proc/loadavg"),
        ("kernel/memory.txt", "/proc/meminfo"),
        ("kernel/uptime.txt", "/proc/uptime"),
        ("versions/os-release.txt", "/etc/os-release"),
    ] {
        bag.result(name, read_some(Path::new(path), FILE).map_err(|error| about(Path::new(path), &error)));
    }
    let program = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
    bag.add("versions/calico-mesos.txt", format!("{} {program}\n", env!("CARGO_PKG_VERSION")));
}

/// The flags of the agents, and of the Docker daemons, one a line.
pub fn processes(bag: &Bag) {
    let agents: Vec<i32> = agents::running().iter().map(|agent| agent.pid).collect();
    if agents.is_empty() {
        bag.absent("processes/mesos-agent.txt", "no Mesos agent runs here");
    }
    for pid in agents {
        let is_flag = |word: &String| word.starts_with("MESOS_");
        // Only what the agent reads as its flags: the rest is an environment like any other.
        let variables = environment(pid).unwrap_or_default().into_iter().filter(is_flag);
        let words = command_line(pid).unwrap_or_default().into_iter().chain(variables);
        bag.add(format!("processes/mesos-agent-{pid}.txt"), flags(words));
    }
    for daemon in runtime::running_daemons() {
        let words = command_line(daemon.pid).unwrap_or_default();
        bag.add(format!("processes/dockerd-{}.txt", daemon.pid), flags(words.into_iter()));
    }
}

/// A flag and its value stay in one line, for a value is recognised by the name in front.
fn flags(words: impl Iterator<Item = String>) -> String {
    let mut text = String::new();
    let mut before_value = false;
    for word in words.filter(|word| !word.is_empty()) {
        let word = word.replace('\n', " ");
        let is_value = before_value && !word.starts_with('-');
        let break_ = if text.is_empty() {
            ""
        } else if is_value {
            " "
        } else {
            "\n"
        };
        text.push_str(break_);
        text.push_str(&word);
        before_value = word.starts_with('-') && !word.contains('=');
    }
    text + "\n"
}

/// The names in our own folders with their modes.
pub fn folders(config: &Config, bag: &Bag) {
    let mut lines = String::new();
    for path in [&config.paths.run, &config.paths.state, &config.paths.log] {
        list(path, 3, &mut lines);
    }
    bag.add("state/folders.txt", lines);
}

fn list(path: &Path, depth: usize, lines: &mut String) {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return lines.push_str(&format!("{}: cannot be seen\n", path.display()));
    };
    let (mode, length) = (meta.permissions().mode(), meta.len());
    lines.push_str(&format!("{mode:06o} {:>5} {length:>9} {}\n", meta.uid(), path.display()));
    if meta.is_dir() && depth > 0 {
        for name in names(path).unwrap_or_default().iter().take(MOST_FILES) {
            list(&path.join(name), depth - 1, lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_stays_with_its_value() {
        let words =
            "mesos-agent --master=zk://m --secret hunter2 --quiet MESOS_X=1".split(' ').map(str::to_owned);
        let text = flags(words);
        assert_eq!(text, "mesos-agent\n--master=zk://m\n--secret hunter2\n--quiet MESOS_X=1\n");
    }
}
