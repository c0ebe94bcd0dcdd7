//! What lies where below the folders of `[paths]`.

use std::path::PathBuf;

use super::Paths;
use crate::names::ContainerId;

impl Paths {
    /// Everything that one task has in the volatile folder: its namespace, its gate.
    pub fn task_run(&self, container: &ContainerId) -> PathBuf {
        self.run.join("tasks").join(container.as_str())
    }

    /// What calico-runc looks up by Docker's id: a link to [`Paths::task_run`].
    pub fn container_link(&self, docker_id: &str) -> PathBuf {
        self.run.join("containers").join(docker_id)
    }

    /// A link for each address that a task of this host has, to its [`Paths::task_run`]; see `task::holds`.
    pub fn addresses(&self) -> PathBuf {
        self.run.join("addresses")
    }

    /// What `dataplane = "local"` remembers about this host; see `net::local`.
    pub fn local(&self) -> PathBuf {
        self.run.join("local")
    }

    /// One file for each container that was made through the proxy; see `proxy::bindings`.
    pub fn bindings(&self) -> PathBuf {
        self.state.join("bindings")
    }

    /// The file of the container with this id of Docker's.
    pub fn binding(&self, docker_id: &str) -> PathBuf {
        self.bindings().join(format!("{docker_id}.json"))
    }

    /// Says that such a container could not start because the proxy, or something that it needs, was away.
    pub fn refused_start(&self, docker_id: &str) -> PathBuf {
        self.bindings().join(format!("{docker_id}.refused"))
    }

    /// Where the proxy hears calico-runc.
    pub fn proxy_gate(&self) -> PathBuf {
        self.run.join("proxy.sock")
    }

    /// One file a task; see `task::journal`.
    pub fn journal(&self) -> PathBuf {
        self.state.join("tasks")
    }
}
