//! What runs a task's workload, as a record says it.
//!
//! On the disk it is three fields of the record, as the releases wrote them that had no such type: `container_name`
//! (empty for a process; those releases wrote a name that they did not read), `docker` (null for a process) and
//! `adopted` (left out where it is false).

use serde::{Deserialize, Serialize};

/// What runs a task's workload, and how a teardown finds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Fields", into = "Fields")]
pub enum Backing {
    /// A process of the executor's own: it lives in the task's namespace.
    Process,
    /// A container of Docker's.
    Container {
        /// The Docker that has it, as `unix:///path` or `tcp://host:port`.
        docker: String,
        /// Docker's name of it; of one that others have made, Docker's id.
        name: String,
        /// Others have made it, and remove it.
        adopted: bool,
    },
}

impl Backing {
    /// The address of the Docker that has the container, if it is one.
    pub fn docker(&self) -> Option<&str> {
        match self {
            Self::Process => None,
            Self::Container { docker, .. } => Some(docker),
        }
    }
}

impl Backing {
    /// Docker's id of a container that others start and stop: its record outlives its writer.
    pub fn adopted(&self) -> Option<&str> {
        match self {
            Self::Container { adopted: true, name: id, .. } => Some(id),
            _ => None,
        }
    }
}

/// The form on the disk.
#[derive(Serialize, Deserialize)]
struct Fields {
    container_name: String,
    docker: Option<String>,
    /// Records of the first releases know no such container.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    adopted: bool,
}

impl From<Fields> for Backing {
    fn from(Fields { container_name: name, docker, adopted }: Fields) -> Self {
        match docker {
            Some(docker) => Self::Container { docker, name, adopted },
            None => Self::Process,
        }
    }
}

impl From<Backing> for Fields {
    fn from(backing: Backing) -> Self {
        match backing {
            Backing::Process => Self { container_name: String::new(), docker: None, adopted: false },
            Backing::Container { docker, name, adopted } => {
                Self { container_name: name, docker: Some(docker), adopted }
            }
        }
    }
}
