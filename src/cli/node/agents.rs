//! The Mesos agents that run on this host, found in /proc: their flags, given as words or variables.

use std::fs;
use std::path::{Path, PathBuf};

use crate::host::processes::{command_line, environment, pids};

const NAMES: [&str; 4] = ["mesos-agent", "mesos-slave", "lt-mesos-agent", "lt-mesos-slave"];

/// A running agent and those of its flags that concern us; `None`: left to their defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundAgent {
    pub pid: i32,
    pub launcher_dir: Option<PathBuf>,
    pub docker_socket: Option<String>,
    pub attributes: Option<String>,
    pub work_dir: Option<PathBuf>,
    pub containerizers: Option<String>,
}

impl FoundAgent {
    /// From a command line and an environment; `None` when it is another program's.
    fn parse(pid: i32, words: &[String], variables: &[String]) -> Option<Self> {
        let (program, words) = words.split_first()?;
        let name = Path::new(program).file_name()?.to_str()?;
        if !NAMES.contains(&name) {
            return None;
        }
        let flag = |name: &str| {
            let word = format!("--{name}=");
            let variable = format!("MESOS_{}=", name.to_ascii_uppercase());
            // The command line wins over the environment, as in Mesos.
            let value = words.iter().find_map(|text| text.strip_prefix(&word));
            value
                .or_else(|| variables.iter().find_map(|text| text.strip_prefix(&variable)))
                .map(str::to_owned)
        };
        Some(Self {
            pid,
            launcher_dir: flag("launcher_dir").map(PathBuf::from),
            docker_socket: flag("docker_socket"),
            attributes: flag("attributes"),
            work_dir: flag("work_dir").map(PathBuf::from),
            containerizers: flag("containerizers"),
        })
    }

    /// Does it start its executors from this folder?
    pub fn launches_from(&self, dir: &Path) -> bool {
        let same = |theirs: &PathBuf| {
            theirs == dir
                || fs::canonicalize(theirs)
                    .is_ok_and(|theirs| fs::canonicalize(dir).is_ok_and(|dir| theirs == dir))
        };
        self.launcher_dir.as_ref().is_some_and(same)
    }
}

/// Every running agent.
pub fn running() -> Vec<FoundAgent> {
    // The environment can be read by root only, and only as long as the process lives.
    let parse = |pid| {
        let (line, environment) = (command_line(pid)?, environment(pid).unwrap_or_default());
        FoundAgent::parse(pid, &line, &environment)
    };
    pids().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_flags_are_read_from_the_command_line_and_the_environment() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let agent = FoundAgent::parse(
            7,
            &words("/usr/sbin/mesos-slave --master=zk://m/mesos --launcher_dir=/a --attributes=rack:2"),
            &words("MESOS_LAUNCHER_DIR=/b MESOS_DOCKER_SOCKET=/run/d.sock PATH=/bin"),
        );
        let wanted = FoundAgent {
            pid: 7,
            launcher_dir: Some("/a".into()),
            docker_socket: Some("/run/d.sock".into()),
            attributes: Some("rack:2".into()),
            ..FoundAgent::default()
        };
        assert_eq!(agent, Some(wanted));
        assert_eq!(FoundAgent::parse(7, &words("vi mesos-agent"), &[]), None);
        assert_eq!(
            FoundAgent::parse(7, &words("mesos-agent"), &[]),
            Some(FoundAgent { pid: 7, ..FoundAgent::default() })
        );
    }
}
