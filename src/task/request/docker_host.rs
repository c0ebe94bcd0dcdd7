//! Chooses the Docker that a task runs on.
//!
//! DOCKER_HOST reaches the executor through the agent's `--executor_environment_variables`. Mesos merges the task's own
//! variables into the same environment, and the task's value wins. So a DOCKER_HOST that the task sets, too, counts as
//! not set by the agent. Next comes the configuration, then the agent's `--docker_socket`.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::error::{chain, redacted, Code, Failure};
use crate::mesos::flags::DOCKER_SOCKET;
use crate::tls;
use crate::workload::DockerHost;

/// The source of the address, for failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Agent,
    Config,
    Socket,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "DOCKER_HOST in the agent's --executor_environment_variables",
            Self::Config => "docker.host in config.toml",
            Self::Socket => "the agent's --docker_socket",
        })
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    pub host: DockerHost,
    /// For a daemon at an address: never from the environment.
    pub tls: Option<tls::Files>,
    /// The operator's file with credentials for registries.
    pub credentials: Option<PathBuf>,
    pub source: Source,
}

/// Decides between the three. `task_sets_it`: does the task's own environment carry DOCKER_HOST?
pub fn choose(
    environment: Option<&str>,
    task_sets_it: bool,
    config: &Path,
    docker_socket: Option<&str>,
) -> Result<Chosen, Failure> {
    let docker = Config::docker_only(config);
    let (tls, credentials) = (docker.tls(), docker.config_file);
    let (text, source) = match environment.filter(|text| !text.is_empty() && !task_sets_it) {
        Some(text) => (text.to_owned(), Source::Agent),
        None => match docker.host {
            Some(text) => (text, Source::Config),
            None => (socket(docker_socket), Source::Socket),
        },
    };
    if task_sets_it {
        tracing::info!(
            "the task's own DOCKER_HOST is ignored: Docker is at {}, set by {source}",
            redacted(&text)
        );
    }
    let host = DockerHost::parse(&text).map_err(|error| {
        let code = match source {
            Source::Config => Code::Config,
            Source::Agent | Source::Socket => Code::AgentFlags,
        };
        Failure::new(code, format!("{source} is not the address of a Docker daemon: {}", chain(&error)))
    })?;
    Ok(Chosen { host, tls, credentials, source })
}

fn socket(flag: Option<&str>) -> String {
    match flag.unwrap_or(DOCKER_SOCKET) {
        path if path.starts_with('/') => format!("unix://{path}"),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_address_comes_from_the_agent_then_the_configuration_then_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.toml");
        let socket = Some("/run/d.sock");
        let choose = |env, task, config: &Path| {
            let chosen = choose(env, task, config, socket).unwrap();
            (chosen.host.to_string(), chosen.source)
        };
        assert_eq!(choose(None, false, &config), ("unix:///run/d.sock".into(), Source::Socket));
        std::fs::write(&config, "[docker]\nhost = \"tcp://127.0.0.1:2375\"").unwrap();
        assert_eq!(choose(None, false, &config), ("tcp://127.0.0.1:2375".into(), Source::Config));
        assert_eq!(
            choose(Some("localhost:2377"), false, &config),
            ("tcp://localhost:2377".into(), Source::Agent)
        );
        assert_eq!(
            choose(Some("unix:///evil"), true, &config),
            ("tcp://127.0.0.1:2375".into(), Source::Config)
        );
    }
}
