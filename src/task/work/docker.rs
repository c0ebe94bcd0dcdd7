//! A Docker container as a task's workload.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Attached, Seen};
use crate::error::{chain, Failure};
use crate::task::health::Exec;
use crate::task::link::Order;
use crate::task::retry::host_faults_until;
use crate::task::spec::{self, Work};
use crate::workload::{ContainerSpec, Docker, DockerError, Exit, HostProcess, Sink};

/// A container that exists and has not been started.
pub(in crate::task) struct Container {
    docker: Docker,
    id: String,
    hostname: Option<String>,
}

/// Connects to Docker and creates the container, for which the image is brought where it is missing.
pub(super) async fn create(
    order: &Order,
    spec: (&ContainerSpec, bool),
    retry_for: Duration,
    cancel: CancellationToken,
) -> Result<Container, Failure> {
    let (container, force_pull) = spec;
    let chosen = order.docker()?;
    let calico = order.description.calico.is_some();
    if let Work::Docker { sandbox, .. } = &order.description.work {
        for folder in spec::missing_folders(container, sandbox) {
            std::fs::create_dir_all(folder).map_err(|error| {
                Failure::host(
                    "CM-HOST",
                    format!("cannot make the folder {} for a volume: {error}", folder.display()),
                )
            })?;
        }
    }
    let lost = AtomicBool::new(false);
    host_faults_until(&cancel, retry_for, || async {
        let docker = Docker::connect_with(&chosen.host, chosen.tls.clone(), &chosen.source.to_string())
            .await
            .map_err(|error| error.failure())?;
        if calico && !docker.is_local().await.map_err(|error| error.failure())? {
            return Err(remote(&docker));
        }
        if force_pull {
            bring_image(&docker, order, container, true, &cancel).await?;
        }
        let create = || docker.create(&order.name, container);
        let id = match create().await {
            // Nearly always the image is there: that is not asked beforehand.
            Err(DockerError::Image { .. }) if !force_pull => {
                bring_image(&docker, order, container, false, &cancel).await?;
                create().await
            }
            // The answer to an earlier try was lost; what it made is ours.
            Err(DockerError::NameTaken { name }) if lost.load(Ordering::Relaxed) => {
                docker.inspect(&name).await.and_then(|seen| match seen.started {
                    false => Ok(seen.id),
                    true => Err(DockerError::NameTaken { name }),
                })
            }
            created => created,
        };
        if matches!(id, Err(DockerError::Away { .. } | DockerError::Slow { .. })) {
            lost.store(true, Ordering::Relaxed);
        }
        let id = id.map_err(|error| error.failure())?;
        tracing::info!("created container {} ({})", order.name, short(&id));
        Ok(Container { docker, id, hostname: container.hostname.clone() })
    })
    .await
}

/// A namespace made here is of no use to a daemon elsewhere.
fn remote(docker: &Docker) -> Failure {
    Failure::host(
        "CM-DOCKER",
        format!(
            "Docker at {} runs on another machine, but a Calico task needs that of its agent",
            docker.address()
        ),
    )
}

/// Pulls the image, unless the task is killed meanwhile.
async fn bring_image(
    docker: &Docker,
    order: &Order,
    container: &ContainerSpec,
    force: bool,
    cancel: &CancellationToken,
) -> Result<(), Failure> {
    let credentials = order.description.credentials(&order.config_path);
    let request = container.image_request(force, credentials.as_ref());
    let mut progress = |line: &str| tracing::info!("{line}");
    tokio::select! {
        pulled = docker.ensure_image(request, &mut progress) => {
            pulled.map_err(|error| error.failure())
        }
        () = cancel.cancelled() => Err(Failure::host("CM-KILLED", "the task was killed")),
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

impl Container {
    /// Docker's id, which its runtime sees.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the task calls itself.
    pub fn hostname(&self) -> &str {
        self.hostname.as_deref().unwrap_or(short(&self.id))
    }

    pub async fn attach(&self) -> Result<Attached, Failure> {
        let (output, waiting) = tokio::try_join!(self.docker.attach(&self.id), self.docker.wait(&self.id))
            .map_err(|error| error.failure())?;
        let own = |sink: std::io::Result<Sink>| {
            sink.map_err(|error| Failure::host("CM-HOST", format!("cannot write the task's output: {error}")))
        };
        let logs = tokio::spawn(output.pump(own(Sink::stdout())?, own(Sink::stderr())?));
        let (watcher, process) = oneshot::channel();
        let exit = tokio::spawn(async move { waiting.exit(process).await.map_err(|error| error.failure()) });
        Ok(Attached { logs, exit, watcher: Some(watcher), process: None, control: None })
    }

    /// Returns when the first instruction has run: Docker's runtime waits at the gate for it.
    pub async fn start(&self) -> Result<(), Failure> {
        self.docker.start(&self.id).await.map_err(|error| error.failure())
    }

    /// How a command gets beside it.
    pub fn exec(&self) -> Exec {
        Exec::Docker { docker: self.docker.clone(), id: self.id.clone() }
    }

    pub async fn stop(&self, grace: Duration) -> Result<(), DockerError> {
        self.docker.stop(&self.id, grace).await
    }

    pub async fn kill(&self) -> Result<(), DockerError> {
        self.docker.kill(&self.id).await
    }

    pub async fn remove(&self) -> Result<(), DockerError> {
        self.docker.remove(&self.id, true).await
    }

    /// What Docker says of the running container; without it the task runs all the same.
    pub(super) async fn look(&self) -> (Seen, Option<HostProcess>) {
        match self.docker.inspect(&self.id).await {
            Ok(inspected) => {
                let process = inspected.pid.and_then(|pid| HostProcess::of_container(pid, &self.id));
                let seen = Seen { inspect: Some(inspected.text), addresses: inspected.addresses };
                (seen, process)
            }
            Err(error) => {
                tracing::warn!("{}", chain(&error));
                (Seen::default(), None)
            }
        }
    }

    /// Adds to an exit what only Docker knows: whether the kernel killed for memory.
    pub async fn explain(&self, exit: Exit) -> Exit {
        match exit.oom_killed {
            None if exit.code != 0 => {
                Exit { oom_killed: Some(self.docker.oom_killed(&self.id).await), ..exit }
            }
            _ => exit,
        }
    }
}
