//! `calico-mesos node …`: what a host needs before its first task, and the way back.

use std::path::Path;
use std::process::ExitCode;

use crate::config::Config;
use crate::error::chain;
use crate::workload::{Docker, DockerHost};

use super::output::Out;
use super::runtime::{self, Done, InstallArgs, UninstallArgs, NAME};
use super::Failed;

/// What `docker` itself would talk to.
const DOCKER: &str = "unix:///var/run/docker.sock";

#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Register calico-runc with Docker as the runtime 'calico'.
    InstallRuntime(InstallArgs),
    /// Take the runtime 'calico' out of Docker again.
    UninstallRuntime(UninstallArgs),
}

/// Repeating either changes nothing and is no error.
pub async fn node(verb: Verb, config: &Path, out: &Out) -> Result<ExitCode, Failed> {
    let done = match verb {
        Verb::InstallRuntime(arguments) => runtime::install(&arguments)?,
        Verb::UninstallRuntime(arguments) => {
            // Asked beforehand, because the question is asked over the network and the removal is not.
            let users = users(config).await;
            runtime::uninstall(&arguments, || users.map_err(Into::into))?
        }
    };
    tell(&done, out);
    Ok(ExitCode::SUCCESS)
}

fn tell(done: &Done, out: &Out) {
    for sentence in &done.sentences {
        out.line(sentence);
    }
}

/// Containers of the daemon that `docker` would talk to here. No daemon: no containers that run.
async fn users(config: &Path) -> Result<Vec<String>, String> {
    let address = std::env::var("DOCKER_HOST").ok().or_else(|| Config::docker_host_only(config));
    let host = DockerHost::parse(address.as_deref().unwrap_or(DOCKER)).map_err(|error| chain(&error))?;
    let docker = Docker::connect(&host, "").await.map_err(|error| chain(&error))?;
    docker.users_of_runtime(NAME).await.map_err(|error| chain(&error))
}
