//! What a way in knows of a task besides its TaskInfo. Each way in fills it from what it has: the drop-in from the
//! agent's command line, the custom executor from its environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::container_name;
use super::docker_host::Chosen;
use crate::error::{chain, Code, Failure};
use crate::mesos::flags::{DockerDns, Flags, FlagsError, MAPPED_DIRECTORY};
use crate::names::ContainerId;

/// Where a task runs.
pub struct Context<'a> {
    /// Docker's name of a task that is a container.
    pub name: String,
    /// The sandbox on this host.
    pub sandbox: PathBuf,
    /// Where the sandbox appears in a container.
    pub mapped_directory: String,
    /// Whether the processor time that a task asks for is its limit too.
    pub cfs_quota: bool,
    /// Variables that the agent's hook modules give to the task.
    pub hooks: BTreeMap<String, String>,
    /// The agent's name servers for containers. An error in them fails the tasks that need them, and no others.
    pub default_dns: Result<Vec<DockerDns>, Failure>,
    /// The host's in bytes ([`total_memory`]); only tasks with a memory limit of their own need it.
    ///
    /// [`total_memory`]: super::total_memory
    pub memory: Option<u64>,
    /// Chooses the Docker of a task that is a container.
    pub docker: &'a dyn Fn() -> Result<Chosen, Failure>,
}

impl<'a> Context<'a> {
    /// The context that an agent describes to its docker executor.
    ///
    /// # Errors
    ///
    /// One of the flags does not have the JSON that it should have.
    pub fn of_agent(
        flags: &Flags,
        memory: Option<u64>,
        docker: &'a dyn Fn() -> Result<Chosen, Failure>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            name: flags.container.clone(),
            sandbox: flags.sandbox_directory.clone(),
            mapped_directory: flags.mapped_directory.clone(),
            cfs_quota: flags.cgroups_enable_cfs,
            hooks: flags.task_environment().map_err(|error| wrong_flags(&error))?,
            default_dns: match flags.default_container_dns() {
                Ok(dns) => Ok(dns.unwrap_or_default().docker),
                Err(error) => Err(wrong_flags(&error)),
            },
            memory,
            docker,
        })
    }

    /// The context of a task of an executor that names its containers itself, after the ContainerID that it has made
    /// for the task.
    pub fn of_custom(
        container: &ContainerId,
        sandbox: &Path,
        memory: Option<u64>,
        docker: &'a dyn Fn() -> Result<Chosen, Failure>,
    ) -> Self {
        Self {
            name: container_name(container),
            sandbox: sandbox.to_owned(),
            mapped_directory: MAPPED_DIRECTORY.to_owned(),
            cfs_quota: false,
            hooks: BTreeMap::new(),
            default_dns: Ok(Vec::new()),
            memory,
            docker,
        }
    }
}

fn wrong_flags(error: &FlagsError) -> Failure {
    Failure::new(Code::AgentFlags, format!("the agent's flags are wrong: {}", chain(error)))
}
