//! The task's volatile folder: where Docker's runtime, and every cleaner, find its namespace and its gate.

use std::path::PathBuf;

use crate::config::Config;
use crate::error::{Code, Failure};
use crate::host::files::make_private;
use crate::names::ContainerId;

use crate::task::work::gate_listener::Gate;

/// Where the task's namespace is bound.
pub fn namespace(config: &Config, container: &ContainerId) -> PathBuf {
    config.paths.task_run(container).join("netns")
}

/// Makes the task's volatile folder and listens at its gate.
pub fn listen(config: &Config, container: &ContainerId) -> Result<Gate, Failure> {
    let folder = config.paths.task_run(container);
    let make = || -> std::io::Result<Gate> {
        make_private(&config.paths.run)?;
        make_private(&folder)?;
        make_private(&config.paths.run.join("containers"))?;
        Gate::listen(&folder.join("gate"))
    };
    make().map_err(|error| {
        Failure::new(
            Code::Host,
            format!("cannot prepare {}: {error}; the executor needs root", folder.display()),
        )
    })
}

/// Tells `calico-runc` where the container with this Docker id finds its namespace and gate.
pub fn publish(config: &Config, container: &ContainerId, docker_id: &str) -> Result<(), Failure> {
    let link = config.paths.container_link(docker_id);
    let target = PathBuf::from("../tasks").join(container.as_str());
    match std::os::unix::fs::symlink(&target, &link) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
    .map_err(|error| Failure::new(Code::Host, format!("cannot make the link {}: {error}", link.display())))
}
