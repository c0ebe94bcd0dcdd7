//! A Docker container as a task's workload.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Attached, SeenWorkload};
use crate::error::{chain, Code, Failure};
use crate::logging;
use crate::task::channel::Order;
use crate::task::health::Exec;
use crate::task::request::docker_host::Chosen;
use crate::task::request::{self, DockerTask};
use crate::task::retry::host_faults_until;
use crate::workload::{
    resolver_fallback, resolvers_of_host, Docker, DockerError, Exit, HostProcess, OutputStream, Sink, Waiting,
};

/// A container that exists and has not been started.
pub(in crate::task) struct Container {
    docker: Docker,
    order: Arc<Order>,
    task: Arc<DockerTask>,
    /// The id of the one that was made first; see [`Container::id`].
    first: String,
    /// The id of the container that was made again in its place.
    again: OnceLock<String>,
    publish: OnceLock<Publish>,
}

/// Why there is no container.
enum NotCreated {
    /// This is Docker's answer to the creation.
    Refused(DockerError),
    /// There is no image for it.
    Unprepared(Failure),
}

impl From<Failure> for NotCreated {
    fn from(failure: Failure) -> Self {
        Self::Unprepared(failure)
    }
}

impl NotCreated {
    fn failure(self) -> Failure {
        match self {
            Self::Refused(error) => error.failure(),
            Self::Unprepared(failure) => failure,
        }
    }
}

/// Lets Docker's runtime find the task by the container's id.
type Publish = Box<dyn Fn(&str) -> Result<(), Failure> + Send + Sync>;

/// Connects to Docker and creates the container, for which the image is brought where it is missing.
pub(super) async fn create(
    order: &Arc<Order>,
    task: &Arc<DockerTask>,
    retry_for: Duration,
    cancel: CancellationToken,
) -> Result<Container, Failure> {
    let calico = order.description.task.calico().is_some();
    for folder in request::missing_folders(&task.container, &task.sandbox) {
        std::fs::create_dir_all(folder).map_err(|error| {
            Failure::new(
                Code::Host,
                format!("cannot make the folder {} for a volume: {error}", folder.display()),
            )
        })?;
    }
    let lost = AtomicBool::new(false);
    host_faults_until(&cancel, retry_for, || async {
        let docker = connect(&task.docker, calico).await?;
        if task.force_pull {
            bring_image(&docker, task, true, &cancel).await?;
        }
        let id = match create_with_image(&docker, order, task, task.force_pull, &cancel).await {
            // The answer to an earlier try was lost; what it made is ours.
            Err(NotCreated::Refused(DockerError::NameTaken { name })) if lost.load(Ordering::Relaxed) => {
                let seen = docker.inspect(&name).await.map_err(NotCreated::Refused);
                seen.and_then(|seen| match seen.started {
                    false => Ok(seen.id),
                    true => Err(NotCreated::Refused(DockerError::NameTaken { name })),
                })
            }
            created => created,
        };
        if matches!(id, Err(NotCreated::Refused(DockerError::Away { .. } | DockerError::Slow { .. }))) {
            lost.store(true, Ordering::Relaxed);
        }
        let id = id.map_err(NotCreated::failure)?;
        tracing::info!("created container {} ({})", order.name, short(&id));
        Ok(Container::new(docker, order, task.clone(), id))
    })
    .await
}

/// A Calico task needs the Docker of this machine.
async fn connect(chosen: &Chosen, calico: bool) -> Result<Docker, Failure> {
    let docker = Docker::connect_with(&chosen.host, chosen.tls.clone(), &chosen.source.to_string())
        .await
        .map_err(|error| error.failure())?;
    if calico && !docker.is_local().await.map_err(|error| error.failure())? {
        return Err(remote(&docker));
    }
    Ok(docker)
}

/// Nearly always the image is there, so that it is not asked for beforehand.
async fn create_with_image(
    docker: &Docker,
    order: &Order,
    task: &DockerTask,
    brought: bool,
    cancel: &CancellationToken,
) -> Result<String, NotCreated> {
    let created = match docker.create(&order.name, &task.container).await {
        Err(DockerError::Image { .. }) if !brought => {
            bring_image(docker, task, false, cancel).await?;
            docker.create(&order.name, &task.container).await
        }
        created => created,
    };
    created.map_err(NotCreated::Refused)
}

/// A namespace made here is of no use to a daemon elsewhere.
fn remote(docker: &Docker) -> Failure {
    Failure::new(
        Code::DockerUnsuitable,
        format!(
            "Docker at {} runs on another machine, but a Calico task needs that of its agent",
            docker.address()
        ),
    )
}

/// Pulls the image, unless the task is killed meanwhile.
async fn bring_image(
    docker: &Docker,
    task: &DockerTask,
    force: bool,
    cancel: &CancellationToken,
) -> Result<(), Failure> {
    let credentials = task.credentials();
    let request = task.container.image_request(force, credentials.as_ref());
    let mut progress = |line: &str| tracing::info!("{line}");
    tokio::select! {
        pulled = docker.ensure_image(request, &mut progress) => {
            pulled.map_err(|error| error.failure())
        }
        () = cancel.cancelled() => Err(Failure::new(Code::Killed, "the task was killed")),
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

impl Container {
    fn new(docker: Docker, order: &Arc<Order>, task: Arc<DockerTask>, id: String) -> Self {
        Self {
            docker,
            order: order.clone(),
            task,
            first: id,
            again: OnceLock::new(),
            publish: OnceLock::new(),
        }
    }

    /// Docker's id of the container that there is, which its runtime sees.
    pub fn id(&self) -> &str {
        self.again.get().unwrap_or(&self.first)
    }

    /// Publishes the container's id, and that of the one that may have to be made in its place.
    pub fn publish(&self, publish: Publish) -> Result<(), Failure> {
        publish(self.id())?;
        let _ = self.publish.set(publish);
        Ok(())
    }

    /// Makes the container again that something else has removed before it was started: `docker system prune` takes
    /// what is merely created, and the image with it. Once: what removes it again will not stop.
    async fn make_again(&self, gone: DockerError) -> Result<(), Failure> {
        if self.again.get().is_some() {
            return Err(gone.failure());
        }
        tracing::warn!(
            "the container {} was removed before it started, by `docker container prune` or its like; it is made again",
            short(&self.first)
        );
        let cancel = CancellationToken::new();
        let made = create_with_image(&self.docker, &self.order, &self.task, false, &cancel).await;
        let id = made.map_err(NotCreated::failure)?;
        if let Some(publish) = self.publish.get() {
            publish(&id)?;
        }
        let _ = self.again.set(id);
        Ok(())
    }

    /// The container's names for its hosts file.
    pub fn host_names(&self) -> String {
        self.task.container.host_names(self.id())
    }

    async fn listen(&self) -> Result<(OutputStream, Waiting), DockerError> {
        tokio::try_join!(self.docker.attach(self.id()), self.docker.wait(self.id()))
    }

    pub async fn attach(&self, cancel: &CancellationToken) -> Result<Attached, Failure> {
        let listened = tokio::select! {
            listened = Box::pin(self.listen()) => listened,
            () = cancel.cancelled() => return Err(Failure::new(Code::Killed, "the task was killed")),
        };
        let listened = match listened {
            Err(gone @ DockerError::NoContainer { .. }) => {
                Box::pin(self.make_again(gone)).await?;
                Box::pin(self.listen()).await
            }
            other => other,
        };
        let (output, waiting) = listened.map_err(|error| error.failure())?;
        let own = |sink: std::io::Result<Sink>| {
            sink.map_err(|error| Failure::new(Code::Host, format!("cannot write the task's output: {error}")))
        };
        let logs = logging::spawn(output.pump(own(Sink::stdout())?, own(Sink::stderr())?));
        let (watcher, process) = oneshot::channel();
        let exit =
            logging::spawn(async move { waiting.exit(process).await.map_err(|error| error.failure()) });
        Ok(Attached { logs, exit, watcher: Some(watcher), process: None, control: None })
    }

    /// Returns when the first instruction has run: Docker's runtime waits at the gate for it.
    ///
    /// `limit` is for Docker's answers to the start, the one to a second start included.
    pub async fn start(&self, attached: &mut Attached, limit: Duration) -> Result<(), Failure> {
        let begun = Instant::now();
        let started = match self.docker.start(self.id(), limit).await {
            Err(gone @ DockerError::NoContainer { .. }) => {
                Box::pin(self.make_again(gone)).await?;
                *attached = self.attach(&CancellationToken::new()).await?;
                self.docker.start(self.id(), limit.saturating_sub(begun.elapsed())).await
            }
            other => other,
        };
        started.map_err(|error| error.failure())
    }

    /// How a command gets beside it.
    pub fn exec(&self) -> Exec {
        Exec::Docker { docker: self.docker.clone(), id: self.id().to_owned() }
    }

    pub async fn stop(&self, grace: Duration) -> Result<(), DockerError> {
        self.docker.stop(self.id(), grace).await
    }

    pub async fn kill(&self) -> Result<(), DockerError> {
        self.docker.kill(self.id()).await
    }

    /// Whether nothing of it lives on this machine; false where that cannot be seen.
    pub fn is_dead(&self) -> bool {
        self.docker.is_behind_a_socket() && HostProcess::none_in(self.id())
    }

    pub async fn remove(&self) -> Result<(), DockerError> {
        self.docker.remove(self.id(), true).await
    }

    /// Docker's description of the running container; without it the task runs all the same.
    pub(super) async fn look(&self) -> (SeenWorkload, Option<HostProcess>) {
        match self.docker.inspect(self.id()).await {
            Ok(inspected) => {
                self.note_name_servers(inspected.resolv_conf.as_deref());
                let process = inspected.pid.and_then(|pid| HostProcess::of_container(pid, self.id()));
                let seen = SeenWorkload { inspect: Some(inspected.text), addresses: inspected.addresses };
                (seen, process)
            }
            Err(error) => {
                tracing::warn!("{}", chain(&error));
                // Without the process an end that Docker misses would never be seen.
                (SeenWorkload::default(), HostProcess::search(self.id()))
            }
        }
    }

    /// One line in the log where Docker has replaced the host's name servers, and neither the task nor config.toml
    /// names any.
    fn note_name_servers(&self, resolv_conf: Option<&Path>) {
        let calico = self.order.description.task.calico().is_some();
        let left = self.task.container.dns.is_empty();
        let Some(path) = resolv_conf.filter(|_| left && calico) else { return };
        let files = std::fs::read_to_string(path).ok().zip(resolvers_of_host());
        if let Some(note) = files.and_then(|(container, host)| resolver_fallback(&container, &host)) {
            tracing::warn!("{note}");
        }
    }

    /// Adds to an exit what only Docker can report: whether the kernel killed for memory.
    pub async fn explain(&self, exit: Exit) -> Exit {
        match exit.oom_killed {
            None if exit.code != 0 => {
                Exit { oom_killed: Some(self.docker.oom_killed(self.id()).await), ..exit }
            }
            _ => exit,
        }
    }
}
