//! Chooses the Docker that a task runs on.
//!
//! DOCKER_HOST reaches the executor through the agent's `--executor_environment_variables`. Mesos merges the task's own
//! variables into the same environment, and the task's value wins. So a DOCKER_HOST that the task sets, too, counts as
//! not set by the agent. Next comes the configuration, then the agent's `--docker_socket`.
//!
//! Where the address is that of the Docker API proxy and nothing listens there, Docker itself is taken: what an executor
//! makes passes the proxy untouched, so a proxy that is off or stopped is no reason to fail a launch.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::{Config, Proxy};
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
    /// Docker itself, in place of a proxy that does not run.
    AroundProxy,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "DOCKER_HOST in the agent's --executor_environment_variables",
            Self::Config => "docker.host in config.toml",
            Self::Socket => "the agent's --docker_socket",
            Self::AroundProxy => {
                "[proxy] or [docker] in config.toml, because the Docker API proxy does not run"
            }
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
    let (tls, docker_host, credentials) = (docker.tls(), docker.host.clone(), docker.config_file);
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
    let mut chosen = Chosen { host: parse(&text, source)?, tls, credentials, source };
    let proxy = Config::proxy_only(config);
    if is_proxy(&chosen.host, &proxy) && !chosen.host.listens() {
        let own = proxy.docker.or(docker_host).unwrap_or_else(|| DockerHost::DEFAULT.to_owned());
        tracing::info!(
            "the Docker API proxy at {} does not run: going to {} itself",
            chosen.host,
            redacted(&own)
        );
        chosen.source = Source::AroundProxy;
        chosen.host = parse(&own, chosen.source)?;
    }
    Ok(chosen)
}

fn parse(text: &str, source: Source) -> Result<DockerHost, Failure> {
    DockerHost::parse(text).map_err(|error| {
        let code = match source {
            Source::Config | Source::AroundProxy => Code::Config,
            Source::Agent | Source::Socket => Code::AgentFlags,
        };
        Failure::new(code, format!("{source} is not the address of a Docker daemon: {}", chain(&error)))
    })
}

fn is_proxy(host: &DockerHost, proxy: &Proxy) -> bool {
    match host {
        DockerHost::Unix(path) => proxy.socket.as_ref() == Some(path),
        DockerHost::Tcp { host, port } => proxy
            .listen
            .is_some_and(|at| at.port() == *port && (host == "localhost" || host.parse() == Ok(at.ip()))),
    }
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
            choose(Some("localhost:2378"), false, &config),
            ("tcp://localhost:2378".into(), Source::Agent)
        );
        assert_eq!(
            choose(Some("unix:///evil"), true, &config),
            ("tcp://127.0.0.1:2375".into(), Source::Config)
        );
    }

    #[test]
    fn a_proxy_that_does_not_run_is_gone_around() {
        let dir = tempfile::tempdir().unwrap();
        let (config, socket) = (dir.path().join("config.toml"), dir.path().join("proxy.sock"));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let write = |docker: &str| {
            let text = format!("[proxy]\nlisten = \"127.0.0.1:{port}\"\nsocket = \"{}\"\n", socket.display());
            std::fs::write(&config, text + docker).unwrap();
        };
        let choose = |host: &str| {
            let chosen = choose(Some(host), false, &config, None).unwrap();
            (chosen.host.to_string(), chosen.source)
        };
        let (by_name, by_socket) = (format!("localhost:{port}"), format!("unix://{}", socket.display()));
        write("");
        assert_eq!(choose(&by_name), (format!("tcp://{by_name}"), Source::Agent));
        assert_eq!(choose(&by_socket), (DockerHost::DEFAULT.to_owned(), Source::AroundProxy));
        drop(listener);
        assert_eq!(choose(&by_name), (DockerHost::DEFAULT.to_owned(), Source::AroundProxy));
        write("docker = \"unix:///run/d.sock\"\n");
        assert_eq!(choose(&by_name), ("unix:///run/d.sock".to_owned(), Source::AroundProxy));
        write("[docker]\nhost = \"unix:///run/e.sock\"\n");
        assert_eq!(choose(&by_name), ("unix:///run/e.sock".to_owned(), Source::AroundProxy));
        // Where something else is meant, a failure says so.
        assert_eq!(choose("localhost:1").1, Source::Agent);
    }
}
