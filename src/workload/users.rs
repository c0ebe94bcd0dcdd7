//! Which containers there are, and which of them depend on an OCI runtime.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as Word};
use bollard::query_parameters::{ListContainersOptions, ListNetworksOptions};

use super::docker::Docker;
use super::error::DockerError;
use super::process::HostProcess;
use crate::limits::DOCKER_CALL;

/// A container in the daemon's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub id: String,
    pub name: String,
    pub state: ContainerState,
    pub created: Option<SystemTime>,
    /// It is on no network of Docker's.
    pub isolated: bool,
    /// What Docker's own check of it has come to; `None` where there is none, or it has not been decided.
    pub healthy: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    NeverStarted,
    /// Something of it lives, or may at any moment.
    Living,
    /// Docker reports it as running, but nothing of it lives: Docker has missed its end.
    Lost,
    Exited,
}

impl Docker {
    /// All containers. The list is short of much, but no single container can hold it up.
    pub async fn containers(&self) -> Result<Vec<Listed>, DockerError> {
        Ok(self.list().await?.into_iter().filter_map(Listed::of).collect())
    }

    /// The runtime of a container that is there; `None` when it has gone.
    pub async fn runtime_of(&self, id: &str) -> Result<Option<String>, DockerError> {
        match self.inspect_once(id, DOCKER_CALL).await {
            Ok(inspected) => Ok(Some(inspected.runtime)),
            Err(DockerError::NoContainer { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The runtime of a container that is there, with its state as the host's processes show it.
    pub async fn look_at(&self, listed: &Listed) -> Result<Option<(String, ContainerState)>, DockerError> {
        let inspected = match self.inspect_once(&listed.id, DOCKER_CALL).await {
            Ok(inspected) => inspected,
            Err(DockerError::NoContainer { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let lost = inspected.running && self.is_behind_a_socket() && HostProcess::none_in(&listed.id);
        Ok(Some((inspected.runtime, if lost { ContainerState::Lost } else { listed.state })))
    }

    async fn list(&self) -> Result<Vec<ContainerSummary>, DockerError> {
        let all = || {
            let options = ListContainersOptions { all: true, ..Default::default() };
            self.api.list_containers(Some(options))
        };
        self.repeated("list the containers", DOCKER_CALL, all).await
    }

    /// The ids of Docker's own networks, by their names.
    pub async fn network_ids(&self) -> Result<BTreeMap<String, String>, DockerError> {
        let all = || self.api.list_networks(None::<ListNetworksOptions>);
        let networks = self.repeated("list the networks", DOCKER_CALL, all).await?;
        Ok(networks.into_iter().filter_map(|network| network.name.zip(network.id)).collect())
    }

    /// All containers with this runtime, stopped ones too: neither can be started, stopped or removed without it.
    pub async fn users_of_runtime(&self, runtime: &str) -> Result<Vec<Listed>, DockerError> {
        let mut users = Vec::new();
        for container in self.containers().await? {
            // Gone in between: no longer a user of it.
            if self.runtime_of(&container.id).await?.is_some_and(|its| its == runtime) {
                users.push(container);
            }
        }
        Ok(users)
    }
}

impl Listed {
    fn of(summary: ContainerSummary) -> Option<Self> {
        let id = summary.id?;
        let name = summary.names.unwrap_or_default().pop().unwrap_or_else(|| id.clone());
        let created = summary.created.and_then(|seconds| u64::try_from(seconds).ok());
        Some(Self {
            name: name.trim_start_matches('/').to_owned(),
            state: match summary.state {
                Some(Word::CREATED) => ContainerState::NeverStarted,
                Some(Word::EXITED | Word::DEAD) => ContainerState::Exited,
                _ => ContainerState::Living,
            },
            isolated: summary.host_config.and_then(|host| host.network_mode).as_deref() == Some("none"),
            created: created.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
            healthy: summary.status.as_deref().and_then(health),
            id,
        })
    }
}

/// The state of health in the words that `docker ps` prints: `Up 3 minutes (healthy)`.
fn health(status: &str) -> Option<bool> {
    match status {
        _ if status.ends_with("(healthy)") => Some(true),
        _ if status.ends_with("(unhealthy)") => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_read_from_what_docker_prints() {
        assert_eq!(health("Up 3 minutes (healthy)"), Some(true));
        assert_eq!(health("Up 3 minutes (unhealthy)"), Some(false));
        for undecided in ["Up 2 seconds (health: starting)", "Up 3 minutes", "Exited (0) 2 minutes ago"] {
            assert_eq!(health(undecided), None, "{undecided}");
        }
    }
}
