//! The command line that an agent gives to `mesos-docker-executor`.
//!
//! Flags come as `--name=value`, `--name` (true) or `--no-name` (false). An unknown one is kept in [`Flags::unknown`]
//! and otherwise ignored, so that a newer agent can start us. The agent alone writes this command line; a task has no
//! part in it, which is why `--config` is safe here.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::duration;
use crate::names::{ContainerId, InvalidContainerId};

/// Where a sandbox appears in a container when no flag names another folder.
pub const MAPPED_DIRECTORY: &str = "/mnt/mesos/sandbox";
/// Where the agent and its executors look for Docker when no flag names another socket.
pub const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// The stock executor's name, by which an agent starts it.
pub const PROGRAM: &str = "mesos-docker-executor";

#[derive(Debug, thiserror::Error)]
pub enum FlagsError {
    /// All problems of the command line together.
    #[error("the command line is not that of a Docker executor: {0}")]
    Invalid(String),
    #[error("--{flag} is not the JSON that was expected")]
    Json {
        flag: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("--container='{name}' is not named after a Mesos container")]
    Container {
        name: String,
        #[source]
        source: InvalidContainerId,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// Docker's name of the container, `mesos-<ContainerID>`.
    pub container: String,
    /// The sandbox on this host.
    pub sandbox_directory: PathBuf,
    /// Where the sandbox appears in the container.
    pub mapped_directory: String,
    /// Absolute path, no scheme.
    pub docker_socket: String,
    /// The docker command of the stock executor; unused by us.
    pub docker: String,
    pub launcher_dir: PathBuf,
    pub cgroups_enable_cfs: bool,
    /// Deprecated by Mesos, still a lower limit of the shutdown grace period.
    pub stop_timeout: Duration,
    pub quiet: bool,
    pub logging_level: String,
    pub help: bool,
    /// Our own flag: another configuration file, for private set-ups.
    pub config: Option<PathBuf>,
    /// Flags that are unknown here, as they were written.
    pub unknown: Vec<String>,
    default_container_dns: Option<String>,
    task_environment: Option<String>,
}

/// The value of `--default_container_dns`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct DefaultDns {
    /// The first entry that fits the task's network counts.
    #[serde(default)]
    pub docker: Vec<DockerDns>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct DockerDns {
    /// `BRIDGE` or `USER`; anything else fits no task.
    #[serde(default)]
    pub network_mode: Option<String>,
    /// Restricts a `USER` entry to one network.
    #[serde(default)]
    pub network_name: Option<String>,
    #[serde(default)]
    pub dns: Dns,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Dns {
    #[serde(default)]
    pub nameservers: Vec<String>,
    #[serde(default)]
    pub search: Vec<String>,
    #[serde(default)]
    pub options: Vec<String>,
}

impl Flags {
    /// Reads a whole argv, program name first.
    pub fn parse<A: Into<OsString>>(argv: impl IntoIterator<Item = A>) -> Result<Self, FlagsError> {
        let mut flags = Self {
            mapped_directory: MAPPED_DIRECTORY.into(),
            docker_socket: DOCKER_SOCKET.into(),
            docker: "docker".into(),
            ..Self::default()
        };
        let mut problems = Vec::new();
        for argument in argv.into_iter().skip(1) {
            match argument.into().into_string() {
                Ok(argument) => flags.take(&argument, &mut problems),
                Err(argument) => problems.push(format!("{argument:?} is not valid UTF-8")),
            }
        }
        if !flags.help {
            if flags.container.is_empty() {
                problems.push("--container is missing".to_owned());
            }
            if flags.sandbox_directory.as_os_str().is_empty() {
                problems.push("--sandbox_directory is missing".to_owned());
            }
        }
        match problems.is_empty() {
            true => Ok(flags),
            false => Err(FlagsError::Invalid(problems.join("; "))),
        }
    }

    fn take(&mut self, argument: &str, problems: &mut Vec<String>) {
        let Some(flag) = argument.strip_prefix("--").filter(|flag| !flag.is_empty()) else {
            self.unknown.push(argument.to_owned());
            return;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, None),
        };
        if let Some(toggle) = self.toggle(name.strip_prefix("no-").unwrap_or(name)) {
            match (value, name.starts_with("no-")) {
                (None, negated) => *toggle = !negated,
                (Some("true" | "1"), false) => *toggle = true,
                (Some("false" | "0"), false) => *toggle = false,
                _ => problems.push(format!("{argument} is neither true nor false")),
            }
            return;
        }
        match (self.text(name), value) {
            (Taken::Unknown, _) => self.unknown.push(argument.to_owned()),
            (_, None) => problems.push(format!("--{name} needs a value")),
            (Taken::Text(field), Some(value)) => *field = value.to_owned(),
            (Taken::Path(field), Some(value)) => *field = value.into(),
            (Taken::OptionalPath(field), Some(value)) => *field = Some(value.into()),
            (Taken::OptionalText(field), Some(value)) => *field = Some(value.to_owned()),
            (Taken::Duration(field), Some(value)) => match duration::parse(value) {
                Ok(parsed) => *field = parsed,
                Err(error) => problems.push(format!("--{name}: {error}")),
            },
        }
    }

    fn toggle(&mut self, name: &str) -> Option<&mut bool> {
        match name {
            "cgroups_enable_cfs" => Some(&mut self.cgroups_enable_cfs),
            "quiet" => Some(&mut self.quiet),
            "help" => Some(&mut self.help),
            _ => None,
        }
    }

    fn text(&mut self, name: &str) -> Taken<'_> {
        match name {
            "container" => Taken::Text(&mut self.container),
            "sandbox_directory" => Taken::Path(&mut self.sandbox_directory),
            "mapped_directory" => Taken::Text(&mut self.mapped_directory),
            "docker_socket" => Taken::Text(&mut self.docker_socket),
            "docker" => Taken::Text(&mut self.docker),
            "launcher_dir" => Taken::Path(&mut self.launcher_dir),
            "stop_timeout" => Taken::Duration(&mut self.stop_timeout),
            "logging_level" => Taken::Text(&mut self.logging_level),
            "config" => Taken::OptionalPath(&mut self.config),
            "default_container_dns" => Taken::OptionalText(&mut self.default_container_dns),
            "task_environment" => Taken::OptionalText(&mut self.task_environment),
            _ => Taken::Unknown,
        }
    }

    /// The ContainerID behind `--container`.
    pub fn container_id(&self) -> Result<ContainerId, FlagsError> {
        let name = self.container.strip_prefix("mesos-").unwrap_or(&self.container);
        // Mesos before 1.4 puts the agent's id in front: `mesos-<SlaveID>.<ContainerID>`.
        let id = name.rsplit('.').next().unwrap_or(name);
        ContainerId::parse(id)
            .map_err(|source| FlagsError::Container { name: self.container.clone(), source })
    }

    /// `--default_container_dns`, read when it is needed: a mistake in it must not keep tasks from a failure that names
    /// it.
    pub fn default_container_dns(&self) -> Result<Option<DefaultDns>, FlagsError> {
        json("default_container_dns", self.default_container_dns.as_deref())
    }

    /// `--task_environment`: variables that an agent's hook module gives to the task.
    pub fn task_environment(&self) -> Result<BTreeMap<String, String>, FlagsError> {
        Ok(json("task_environment", self.task_environment.as_deref())?.unwrap_or_default())
    }
}

/// The field a flag's value goes to.
enum Taken<'a> {
    Text(&'a mut String),
    Path(&'a mut PathBuf),
    OptionalText(&'a mut Option<String>),
    OptionalPath(&'a mut Option<PathBuf>),
    Duration(&'a mut Duration),
    Unknown,
}

fn json<T: for<'de> Deserialize<'de>>(
    flag: &'static str,
    text: Option<&str>,
) -> Result<Option<T>, FlagsError> {
    text.map(|text| serde_json::from_str(text).map_err(|source| FlagsError::Json { flag, source }))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOCK: &[&str] = &[
        "mesos-docker-executor",
        "--cgroups_enable_cfs=false",
        "--container=mesos-1087382a-40ba-4fa3-9eda-41fed69a9a91",
        "--docker=/usr/local/bin/docker",
        "--docker_socket=/var/run/docker.sock",
        "--help=false",
        "--initialize_driver_logging=true",
        "--launcher_dir=/usr/libexec/mesos",
        "--logbufsecs=0",
        "--logging_level=INFO",
        "--mapped_directory=/mnt/mesos/sandbox",
        "--quiet=false",
        "--sandbox_directory=/var/lib/mesos/slaves/s/frameworks/f/executors/e/runs/1087382a",
        "--stop_timeout=7secs",
    ];

    #[test]
    fn the_name_of_an_older_agent() {
        let mut argv = STOCK.to_vec();
        argv[2] =
            "--container=mesos-6db1c143-c75d-491b-8705-250fa686fc69-S0.1087382a-40ba-4fa3-9eda-41fed69a9a91";
        let id = Flags::parse(argv).unwrap().container_id().unwrap();
        assert_eq!(id.as_str(), "1087382a-40ba-4fa3-9eda-41fed69a9a91");
    }

    #[test]
    fn the_stock_command_line_is_read() {
        let flags = Flags::parse(STOCK).unwrap();
        assert_eq!(flags.container_id().unwrap().as_str(), "1087382a-40ba-4fa3-9eda-41fed69a9a91");
        assert_eq!(flags.stop_timeout, Duration::from_secs(7));
        assert_eq!(flags.unknown, ["--initialize_driver_logging=true", "--logbufsecs=0"]);
        assert!(!flags.cgroups_enable_cfs && flags.config.is_none());
        assert_eq!(flags.default_container_dns().unwrap(), None);
    }

    #[test]
    fn boolean_flags_are_read_in_every_form() {
        let with = |extra: &str| Flags::parse(STOCK.iter().copied().chain([extra]));
        assert!(with("--cgroups_enable_cfs").unwrap().cgroups_enable_cfs);
        assert!(!with("--no-cgroups_enable_cfs").unwrap().cgroups_enable_cfs);
        assert!(with("--quiet=perhaps").is_err());
        assert_eq!(with("--frobnicate=9").unwrap().unknown.last().unwrap(), "--frobnicate=9");
        assert_eq!(with("--no-frobnicate").unwrap().unknown.last().unwrap(), "--no-frobnicate");
        assert_eq!(with("--config=/x.toml").unwrap().config.unwrap(), PathBuf::from("/x.toml"));
    }

    #[test]
    fn json_values_are_read_when_needed() {
        let dns = r#"--default_container_dns={"docker":[{"network_mode":"BRIDGE","dns":{"nameservers":["8.8.8.8"]}}]}"#;
        let flags = Flags::parse(STOCK.iter().copied().chain([dns, r#"--task_environment={"A":"b","C":1}"#]))
            .unwrap();
        let dns = flags.default_container_dns().unwrap().unwrap();
        assert_eq!(dns.docker[0].dns.nameservers, ["8.8.8.8"]);
        let error = crate::error::chain(&flags.task_environment().unwrap_err());
        assert!(error.contains("--task_environment") && error.contains("string"), "{error}");
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let text = Flags::parse(["x", "--stop_timeout=soon", "--launcher_dir", "--quiet=7"])
            .unwrap_err()
            .to_string();
        for part in [
            "--container is missing",
            "--sandbox_directory is missing",
            "stop_timeout",
            "launcher_dir",
            "quiet",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
