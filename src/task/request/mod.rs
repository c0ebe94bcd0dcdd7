//! From a TaskInfo to a container: what the stock docker executor would pass to `docker run`, and what changes when the
//! task requests Calico.
//!
//! | of the TaskInfo | becomes | in |
//! | --- | --- | --- |
//! | `command` | entrypoint, command | `command` |
//! | `command.environment`, the agent's hooks | environment | `environment` |
//! | `resources`, `limits` | cpu shares and quota, memory | `resources` |
//! | `container.volumes`, the sandbox | binds | `volumes` |
//! | `container.docker.network`, DNS | network mode, DNS | `network` |
//! | port mappings, the resource `ports` | Docker's ports, or ports that lead to a Calico address | `ports` |
//! | `health_check` | a check beside the task | `health` |
//! | `container.docker.parameters` | nearly anything; applied last, as on a command line | `parameters` |
//!
//! A custom executor's task can be a command as well; `custom` tells which it is, and `kinds` has a type for each. What
//! does not stand in the TaskInfo comes in the [`Context`], which each way in fills. `docker_host` chooses the Docker.
//!
//! Pure: nothing is looked up or written. A mistake in a task becomes one sentence in one [`Failure`]. What the stock
//! executor ignores, too, is listed in [`Description::notes`], for the log.

pub mod calico;
mod command;
mod context;
mod custom;
pub mod docker_host;
mod environment;
mod health;
mod kinds;
mod network;
mod parameters;
mod ports;
mod resources;
mod volumes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::consul::may_have_host_entry;
use crate::error::{is_deceptive, Code, Failure};
use crate::host::processes::MAX_STRING;
use crate::mesos::messages::{container_info, ContainerInfo, DurationInfo, TaskInfo};
use crate::names::service_name;
use crate::task::health::Check;
use crate::task::request::calico::{shown, CalicoRequest};
use crate::workload::{find_credentials, ContainerSpec, Credentials};

pub use context::Context;
pub use custom::{container_name, describe_custom, is_named_by_us, Custom, CONTAINER_PREFIX, IMAGE};
pub use environment::sets_variable;
pub use kinds::{CalicoTask, DockerTask, ForeignContainer, Task, Work};
pub use network::configured_dns;
pub use ports::HostPort;
pub use resources::total_memory;
pub use volumes::{missing_folders, refuse_our_folders};

pub use crate::names::RUNTIME;
/// A `USER` network of this name means Calico; no Docker network of that name is needed.
pub const NETWORK: &str = "calico";

/// The longest name. The agent could not place a longer one in a path.
const MAX_NAME: usize = 4096;
/// The longest app id that is kept; Marathon's are paths of DNS labels.
const MAX_APP: usize = 512;
/// They are copied into the task's endpoint, which every Felix of the cluster holds in memory.
pub const MOST_LABELS: usize = 500;

/// A task, understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    pub task: Task,
    pub health: Option<Check>,
    /// How long the task may take to end, if its definition sets that.
    pub kill_grace: Option<Duration>,
    /// Running longer than this is a failure.
    pub max_completion: Option<Duration>,
    /// `/prod/web`: MARATHON_APP_ID, else the name in DiscoveryInfo, else the task's. Any line; `names`
    /// makes names of it.
    pub app: String,
    /// The app's name in Consul; empty where nothing of its id can be one.
    pub service: String,
    pub task_id: String,
    /// Marathon ordered it, by its variable MARATHON_APP_ID.
    pub by_marathon: bool,
    /// What the definition contains without effect, a sentence each.
    pub notes: Vec<String>,
}

/// Understands a task that is a container.
pub fn describe(task: &TaskInfo, context: &Context<'_>) -> Result<Description, Failure> {
    refuse_unsupported(task)?;
    let (container, docker) = docker_container(task)?;
    let mut notes = Vec::new();
    let calico = network::calico_request(task, container, docker)?;
    let mut spec =
        ContainerSpec { image: image(docker)?, privileged: docker.privileged(), ..Default::default() };
    command::apply(task, &mut spec, &mut notes)?;
    let mut variables = environment::variables(task, context, &mut notes)?;
    resources::apply(task, context, &mut spec)?;
    volumes::apply(container, docker, context, &mut spec, &mut notes)?;
    let host_ports = network::apply(task, container, docker, calico.is_some(), &mut spec)?;
    let always_pull = parameters::apply(
        &docker.parameters,
        calico.is_some(),
        &context.sandbox,
        &mut spec,
        &mut variables,
        &mut notes,
    )?;
    network::default_dns(docker, container, context, calico.is_some(), &mut spec)?;
    // What a parameter only names takes the image's variable away, unless the task has one of that name.
    spec.environment.retain(|name| !variables.contains_key(name));
    spec.environment.extend(environment::lines(variables));
    if calico.is_some() {
        spec.runtime = Some(RUNTIME.to_owned());
    }
    ignored(container, &mut notes);
    let work = Work::Docker(Arc::new(DockerTask {
        docker: (context.docker)()?,
        container: spec,
        force_pull: docker.force_pull_image() || always_pull,
        sandbox: context.sandbox.clone(),
    }));
    Description::of(task, kind(task, work, calico, host_ports), notes)
}

/// The ports are those of a Calico task; a plain one has none.
fn kind(info: &TaskInfo, work: Work, calico: Option<CalicoRequest>, host_ports: Vec<HostPort>) -> Task {
    match calico {
        None => Task::Plain(work),
        Some(request) => {
            Task::Calico(Arc::new(CalicoTask { work, request, host_ports, labels: labels(info) }))
        }
    }
}

impl Description {
    /// With what does not depend on the kind of task.
    fn of(task: &TaskInfo, kind: Task, mut notes: Vec<String>) -> Result<Self, Failure> {
        let health = health::read(task, kind.work(), &mut notes)?;
        let kill_grace = task.kill_policy.as_ref().and_then(|policy| policy.grace_period.as_ref());
        let labels = kind.calico().map_or(0, |calico| calico.labels.len());
        if labels > MOST_LABELS {
            return Err(invalid(format!(
                "the task has {labels} labels; a Calico task can have at most {MOST_LABELS}"
            )));
        }
        // The name derives from the whole id, which is cut below: it stands, on one line, in each block that the task
        // has an address of, and other tasks share that block.
        let service = service_name(app(task));
        let app = app(task)[..app(task).floor_char_boundary(MAX_APP)].replace(is_deceptive, " ");
        if kind.calico().is_some() && !may_have_host_entry(&service) {
            notes.push(match service.is_empty() {
                true => format!("the app's id {} has no character that a name in Consul can have; the task is not registered", shown(&app)),
                false => format!("another app's addresses have the name {service} in Consul; the task is registered as {service}-direct only"),
            });
        }
        Ok(Self {
            task: kind,
            health,
            kill_grace: duration("the kill policy's grace period", kill_grace)?,
            max_completion: duration("max_completion_time", task.max_completion_time.as_ref())?,
            app,
            service,
            by_marathon: environment::own(task, "MARATHON_APP_ID").is_some_and(|id| !id.is_empty()),
            task_id: name("the task id", &task.task_id.value)?.to_owned(),
            notes,
        })
    }

    /// What it is, for the log: `Docker, Calico: auto, profile dev`.
    pub fn summary(&self) -> String {
        let work = match self.task.work() {
            Work::Docker(_) => "Docker",
            Work::Command(_) => "command",
            Work::Foreign(_) => "adopted",
        };
        match &self.task {
            Task::Calico(task) => format!("{work}, Calico: {}", task.request),
            Task::Plain(_) => work.to_owned(),
        }
    }
}

impl DockerTask {
    /// The credentials for the image's registry: the task's own, else the operator's.
    pub fn credentials(&self) -> Option<Credentials> {
        find_credentials(&self.container.image, &self.sandbox, self.docker.credentials.as_deref())
    }
}

/// The one kind of container that this executor runs.
fn docker_container(task: &TaskInfo) -> Result<(&ContainerInfo, &container_info::DockerInfo), Failure> {
    let Some(container) = &task.container else {
        return Err(invalid("the task has no container; set container.type to DOCKER and name an image"));
    };
    if container.r#type != container_info::Type::Docker as i32 {
        return Err(invalid(
            "the task's container is not of type DOCKER, which is the only one that runs here",
        ));
    }
    match &container.docker {
        Some(docker) => Ok((container, docker)),
        None => Err(invalid("the task's container names no Docker image (container.docker is missing)")),
    }
}

/// Docker has the last word on an image's name; this keeps out what could leave its place in a URL.
fn image(docker: &container_info::DockerInfo) -> Result<String, Failure> {
    let image = docker.image.as_str();
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/@+-[]".contains(&byte);
    let segment = |segment: &str| !matches!(segment, "" | "." | "..");
    if image.is_empty() {
        return Err(invalid("the task's container names no Docker image"));
    }
    if image.len() > MAX_NAME || !image.bytes().all(legal) || !image.split('/').all(segment) {
        return Err(invalid(format!("the task's image {} is not a valid image name", shown(image))));
    }
    Ok(image.to_owned())
}

/// What the stock executor does and this one does not yet: better no task than half of one.
fn refuse_unsupported(task: &TaskInfo) -> Result<(), Failure> {
    let asked = [(task.check.is_some(), "a general check")];
    match asked.iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(unsupported(what)),
        None => Ok(()),
    }
}

/// What the stock executor ignores for Docker containers, too.
fn ignored(container: &ContainerInfo, notes: &mut Vec<String>) {
    for (given, what) in [
        (container.linux_info.is_some(), "linux_info"),
        (container.rlimit_info.is_some(), "rlimit_info (use the parameter ulimit)"),
        (container.tty_info.is_some(), "tty_info"),
        (container.mesos.is_some(), "container.mesos"),
    ] {
        if given {
            notes.push(format!("{what} has no effect on a Docker container"));
        }
    }
}

fn duration(what: &str, given: Option<&DurationInfo>) -> Result<Option<Duration>, Failure> {
    match given.map(DurationInfo::to_duration) {
        None => Ok(None),
        Some(Some(duration)) => Ok(Some(duration)),
        Some(None) => Err(invalid(format!("{what} is negative"))),
    }
}

/// The app's id as the framework has it.
fn app(task: &TaskInfo) -> &str {
    let discovery = task.discovery.as_ref().and_then(|discovery| discovery.name.as_deref());
    environment::own(task, "MARATHON_APP_ID")
        .filter(|id| !id.is_empty())
        .or(discovery.filter(|name| !name.is_empty()))
        .unwrap_or(&task.name)
}

fn labels(task: &TaskInfo) -> BTreeMap<String, String> {
    let labels = task.labels.iter().flat_map(|labels| &labels.labels);
    labels.map(|label| (label.key.clone(), label.value.clone().unwrap_or_default())).collect()
}

/// The kernel's limit for a hostname and for a domain name. Docker takes longer ones, and cannot start the container.
const HOSTNAME_MAX: usize = 64;

fn too_long(hostname: &str) -> String {
    format!("has {} characters; the kernel takes {HOSTNAME_MAX}", hostname.len())
}

/// A text that must be there, be short enough, and fit on a line.
fn name<'a>(what: &str, text: &'a str) -> Result<&'a str, Failure> {
    if text.is_empty() {
        return Err(invalid(format!("{what} is empty")));
    }
    if text.len() > MAX_NAME {
        return Err(invalid(format!("{what} {} is longer than {MAX_NAME} bytes", shown(text))));
    }
    if text.chars().any(char::is_control) {
        return Err(invalid(format!("{what} {} contains control characters", shown(text))));
    }
    Ok(text)
}

/// A text that may have lines, but must survive being an argument of a program.
fn as_argument<'a>(what: &str, text: &'a str) -> Result<&'a str, Failure> {
    if text.contains('\0') {
        return Err(invalid(format!("{what} {} contains a NUL character", shown(text))));
    }
    if text.len() >= MAX_STRING {
        return Err(invalid(format!(
            "{what} {} has {} bytes; the kernel takes less than {MAX_STRING}",
            shown(text),
            text.len()
        )));
    }
    Ok(text)
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(Code::TaskInvalid, message)
}

fn unsupported(what: &str) -> Failure {
    Failure::new(Code::Unsupported, format!("the task asks for {what}, which is not supported yet"))
}

#[cfg(test)]
mod tests;
