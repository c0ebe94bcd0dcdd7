//! What a task is: plain or of Calico's, and a container or a command.
//!
//! ```text
//!  Task ─┬─ Plain(Work)                      as stock Mesos would run it
//!        └─ Calico(CalicoTask { work, … })   with an address of its own
//!
//!  Work ─┬─ Docker(DockerTask)               a container that this executor makes
//!        ├─ Foreign(ForeignContainer)        a container that others make
//!        └─ Command(CommandSpec)             a process of this executor's own
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::calico::CalicoRequest;
use super::docker_host::Chosen;
use super::{network, volumes, HostPort};
use crate::config::Config;
use crate::error::Failure;
use crate::workload::{CommandSpec, ContainerSpec, DockerHost};

/// A task, plain or of Calico's.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// A task like any other, which must not touch Calico, Consul, journal and runtime.
    Plain(Work),
    /// A task with an address of its own.
    Calico(Arc<CalicoTask>),
}

/// What only a Calico task has, and its work.
#[derive(Debug, Clone, PartialEq)]
pub struct CalicoTask {
    pub work: Work,
    pub request: CalicoRequest,
    /// The host's ports that lead to the task; those of plain tasks are Docker's, in their `work`.
    pub host_ports: Vec<HostPort>,
    /// The labels of the task, raw.
    pub labels: BTreeMap<String, String>,
}

/// What is to run.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    Docker(Arc<DockerTask>),
    Command(CommandSpec),
    /// A container that others make and start.
    Foreign(ForeignContainer),
}

/// A container that is to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct DockerTask {
    /// The Docker that makes it.
    pub docker: Chosen,
    pub container: ContainerSpec,
    /// The image is pulled even if it is there.
    pub force_pull: bool,
    /// Where the task's URIs are, credentials for its image among them.
    pub sandbox: PathBuf,
}

/// A container that others have made.
#[derive(Debug, Clone, PartialEq)]
pub struct ForeignContainer {
    /// The Docker that has it.
    pub docker: DockerHost,
    /// Docker's id of it.
    pub id: String,
    /// Its names for its hosts file.
    pub hostname: String,
    /// Docker checks its health.
    pub checked: bool,
    /// The addresses that it had last, which it gets again where that is possible.
    pub last: Vec<IpAddr>,
}

impl Task {
    /// What is to run.
    pub fn work(&self) -> &Work {
        match self {
            Self::Plain(work) => work,
            Self::Calico(task) => &task.work,
        }
    }

    /// The task, if it is one of Calico's.
    pub fn calico(&self) -> Option<&Arc<CalicoTask>> {
        match self {
            Self::Plain(_) => None,
            Self::Calico(task) => Some(task),
        }
    }
}

impl CalicoTask {
    /// Applies the operator's configuration: limits, default profile and DNS, folders that no task may see. Looks at
    /// the file system to see through links.
    pub fn within(mut self, config: &Config) -> Result<Self, Failure> {
        self.request = self.request.within(config)?;
        if let Work::Docker(task) = &mut self.work {
            let container = &mut Arc::make_mut(task).container;
            volumes::refuse_our_folders(container, config)?;
            network::configured_dns(config, container);
        }
        Ok(self)
    }
}

impl Work {
    /// The Docker that is asked to make a container; a command has none, and others have asked theirs.
    pub fn docker(&self) -> Option<&Chosen> {
        match self {
            Self::Docker(task) => Some(&task.docker),
            Self::Foreign(_) | Self::Command(_) => None,
        }
    }
}
