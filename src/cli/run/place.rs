//! Where a run takes place: on daemons of its own (`--dev`), or on this machine as it is configured.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::config::{Config, ConfigError, VARIABLE};
use crate::rig::agent::AgentOptions;
use crate::rig::daemons::{find_consul, DevError, Stack, StackOptions};
use crate::workload::DockerHost;

use super::{derived, remains};

/// How long an executor whose agent is gone waits for it.
const RECOVERY: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("cannot start the private daemons")]
    Dev(#[source] DevError),
    #[error("cannot make a folder for the sandboxes")]
    Folder(#[source] std::io::Error),
    #[error("cannot write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Config(#[from] ConfigError),
}

pub struct RunPlace {
    /// The configuration that executors get.
    pub config: Config,
    pub config_path: PathBuf,
    /// Where sandboxes lie.
    pub folder: PathBuf,
    /// DOCKER_HOST of the executors.
    pub docker: String,
    /// Where Consul answers DNS queries.
    pub dns: Option<(String, u16)>,
    holds: Holds,
}

enum Holds {
    Stack(Box<Stack>),
    Folder(TempDir),
}

impl RunPlace {
    /// Private etcd, dockerd and, where found, Consul; `runtime` becomes dockerd's runtime `calico`.
    pub async fn dev(runtime: PathBuf) -> Result<Self, PlaceError> {
        let options = StackOptions {
            runtime: Some(runtime),
            consul: find_consul().is_some(),
            ..StackOptions::default()
        };
        let stack = Stack::start(options).await.map_err(PlaceError::Dev)?;
        let config = Config::load(&stack.config)?;
        Ok(Self {
            config,
            config_path: stack.config.clone(),
            folder: stack.dir.clone(),
            docker: stack.docker.host(),
            dns: stack.consul.as_ref().map(|consul| (consul.dns.ip().to_string(), consul.dns.port())),
            holds: Holds::Stack(Box::new(stack)),
        })
    }

    /// This machine's own daemons. Without `register` the executors get a copy of the configuration
    /// that has Consul switched off.
    pub fn here(path: &Path, register: bool) -> Result<Self, PlaceError> {
        let mut config = Config::load(path)?;
        let folder =
            tempfile::Builder::new().prefix("calico-mesos-").tempdir().map_err(PlaceError::Folder)?;
        let mut config_path = path.to_owned();
        if !register {
            config.consul.enabled = false;
            config_path = folder.path().join("config.toml");
            let text = derived::without_consul(path)?;
            std::fs::write(&config_path, text)
                .map_err(|source| PlaceError::Write { path: config_path.clone(), source })?;
        }
        let docker = std::env::var("DOCKER_HOST").ok().or_else(|| config.docker.host.clone());
        let dns = config.consul.enabled.then(|| (host_of(&config.consul.address), 8600));
        Ok(Self {
            config,
            config_path,
            folder: folder.path().to_owned(),
            docker: docker.unwrap_or_else(|| DockerHost::DEFAULT.to_owned()),
            dns,
            holds: Holds::Folder(folder),
        })
    }

    pub fn is_dev(&self) -> bool {
        matches!(self.holds, Holds::Stack(_))
    }

    pub fn has_consul(&self) -> bool {
        self.config.consul.enabled
    }

    /// An agent that starts executors for this place.
    pub fn agent(&self, executor: PathBuf) -> AgentOptions {
        let hostname = nix::unistd::gethostname().unwrap_or_default();
        let mut options = AgentOptions::new(self.folder.join("agent"), executor);
        // Should this program be killed, no agent recovers its executors: they end their tasks soon.
        options.recovery_timeout = RECOVERY;
        options.hostname = hostname.to_string_lossy().into_owned();
        options.extra_flags = vec![format!("--config={}", self.config_path.display())];
        // The drop-in executor has it on its command line; that of a custom executor belongs to the app.
        options.executor_environment = BTreeMap::from([
            ("DOCKER_HOST".to_owned(), self.docker.clone()),
            (VARIABLE.to_owned(), self.config_path.display().to_string()),
        ]);
        if let Some(socket) = self.docker.strip_prefix("unix://") {
            options.docker_socket = socket.to_owned();
        }
        options
    }

    /// Ends the daemons and removes the folder, or keeps the folder. Returns what could not be removed.
    pub async fn close(self, keep: bool) -> Vec<String> {
        let folder = self.folder;
        let result = match (self.holds, keep) {
            (Holds::Stack(stack), true) => {
                stack.stop_and_keep().await;
                return Vec::new();
            }
            (Holds::Stack(stack), false) => stack.stop().await.map_err(|error| crate::error::chain(&error)),
            (Holds::Folder(folder), true) => {
                let _ = folder.keep();
                return Vec::new();
            }
            (Holds::Folder(folder), false) => folder.close().map_err(|error| error.to_string()),
        };
        let mut left: Vec<String> = result.err().into_iter().collect();
        left.extend(remains::of(&folder));
        left
    }
}

/// The host of a URL, without brackets and port.
fn host_of(url: &str) -> String {
    let authority = url.split("://").last().unwrap_or(url).split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => authority.split(':').next(),
    };
    host.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_read_from_every_form_of_url() {
        assert_eq!(host_of("http://127.0.0.1:8500"), "127.0.0.1");
        assert_eq!(host_of("https://[::1]:8501/x"), "::1");
        assert_eq!(host_of("http://consul"), "consul");
    }
}
