//! Which containers depend on an OCI runtime.

use std::time::Duration;

use bollard::query_parameters::ListContainersOptions;

use super::docker::Docker;
use super::error::DockerError;

const LIMIT: Duration = Duration::from_secs(20);

impl Docker {
    /// The names of all containers with this runtime, stopped ones too: neither can be started,
    /// stopped or removed without it.
    pub async fn users_of_runtime(&self, runtime: &str) -> Result<Vec<String>, DockerError> {
        let all = || {
            let options = ListContainersOptions { all: true, ..Default::default() };
            self.api.list_containers(Some(options))
        };
        let mut users = Vec::new();
        for container in self.repeated("list the containers", LIMIT, all).await? {
            let Some(id) = container.id else { continue };
            match self.inspect_once(&id, LIMIT).await {
                Ok(inspected) if inspected.runtime == runtime => {
                    let name = container.names.unwrap_or_default().pop().unwrap_or(id);
                    users.push(name.trim_start_matches('/').to_owned());
                }
                // Gone in between: no longer anybody's user.
                Ok(_) | Err(DockerError::NoContainer { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(users)
    }
}
