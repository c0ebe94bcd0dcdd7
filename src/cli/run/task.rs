//! One launched task as a person sees it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::mesos::messages::{TaskInfo, TaskState, TaskStatus};
use crate::names::ContainerId;
use crate::rig::agent::{Launched, Update};
use crate::task::request;

use super::super::follow::Follow;

/// How many characters of an instance's id are shown, at least.
const SHORT: usize = 4;

/// What runs the task, and as what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecutorKind {
    /// A container of the drop-in executor.
    DropIn,
    /// A container of the app's own executor.
    Container,
    /// A command of the app's own executor.
    Command,
}

impl ExecutorKind {
    pub fn of(info: &TaskInfo) -> Self {
        match (&info.executor, image(info)) {
            (None, _) => Self::DropIn,
            (Some(_), Some(_)) => Self::Container,
            (Some(_), None) => Self::Command,
        }
    }
}

pub struct RunTask {
    pub id: String,
    /// A few characters that distinguish it from the other instances.
    pub short: String,
    pub kind: ExecutorKind,
    /// Everything of the task is named after it. The agent makes it for its own executors; an executor of the
    /// app's makes it itself, see [`RunTask::learn`].
    pub container: Option<ContainerId>,
    /// Its sandbox, by a path that fits on a line.
    pub sandbox: PathBuf,
    pub launched: Instant,
    pub executor_pid: u32,
    /// Its app definition says how long it may take to stop.
    pub has_kill_policy: bool,
    /// Every state it has been in, the latest last.
    pub states: Vec<TaskState>,
    pub addresses: Vec<IpAddr>,
    pub message: Option<String>,
    pub output: Follow,
}

impl RunTask {
    pub fn new(info: &TaskInfo, short: String, launched: &Launched, sandbox: PathBuf) -> Self {
        let kind = ExecutorKind::of(info);
        Self {
            id: info.task_id.value.clone(),
            has_kill_policy: info.kill_policy.is_some(),
            short,
            container: match kind {
                ExecutorKind::DropIn => ContainerId::parse(&launched.container_id).ok(),
                ExecutorKind::Container | ExecutorKind::Command => None,
            },
            kind,
            output: Follow::new(sandbox.join("stdout")),
            sandbox,
            launched: launched.at,
            executor_pid: launched.executor_pid,
            states: Vec::new(),
            addresses: Vec::new(),
            message: None,
        }
    }

    /// Docker's name of its container; none for a command.
    pub fn container_name(&self) -> Option<String> {
        let container = self.container.as_ref()?;
        match self.kind {
            ExecutorKind::DropIn => Some(format!("mesos-{container}")),
            ExecutorKind::Container => Some(request::container_name(container)),
            ExecutorKind::Command => None,
        }
    }

    /// Looks up a ContainerID that the app's executor has made: it is in its log before anything else is.
    pub fn learn(&mut self) {
        if self.container.is_none() {
            self.container = logged_container(&self.sandbox.join("stderr"));
        }
    }

    /// Takes over what a status says.
    pub fn apply(&mut self, update: &Update) {
        self.learn();
        let status = &update.status;
        if self.states.last() != Some(&status.state()) {
            self.states.push(status.state());
        }
        let addresses = addresses(status);
        if !addresses.is_empty() {
            self.addresses = addresses;
        }
        self.message = status.message.clone().filter(|message| !message.is_empty());
    }

    pub fn state(&self) -> Option<TaskState> {
        self.states.last().copied()
    }

    pub fn is_over(&self) -> bool {
        self.state().is_some_and(TaskState::is_terminal)
    }

    pub fn is_running(&self) -> bool {
        self.state() == Some(TaskState::TaskRunning)
    }

    /// It ended, and neither well nor because we killed it.
    pub fn has_failed(&self) -> bool {
        self.is_over() && !matches!(self.state(), Some(TaskState::TaskFinished | TaskState::TaskKilled))
    }

    /// `STARTING > RUNNING`
    pub fn story(&self) -> String {
        self.states.iter().map(|state| state.short()).collect::<Vec<_>>().join(" > ")
    }

    /// Its addresses for a table.
    pub fn address(&self) -> String {
        match self.addresses.is_empty() {
            true => "-".to_owned(),
            false => self.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        }
    }

    /// The id with only the beginning of its UUID: `testapp.instance-7d0f._app.1`.
    pub fn readable_id(&self) -> String {
        match instance(&self.id) {
            Some((start, uuid)) => {
                format!("{}{}{}", &self.id[..start], self.short, &self.id[start + uuid.len()..])
            }
            None => self.id.clone(),
        }
    }
}

fn addresses(status: &TaskStatus) -> Vec<IpAddr> {
    let infos = status.container_status.iter().flat_map(|status| &status.network_infos);
    let addresses = infos.flat_map(|info| &info.ip_addresses);
    addresses.filter_map(|address| address.ip_address.as_deref()?.parse().ok()).collect()
}

/// The value of a variable in the app's environment, the last one winning. An app with an executor of its
/// own has it there.
pub fn variable<'a>(info: &'a TaskInfo, name: &str) -> Option<&'a str> {
    let executor = info.executor.as_ref().and_then(|executor| executor.command.as_ref());
    let variables = info.command.as_ref().or(executor)?.environment.as_ref()?.variables.iter();
    variables.rev().find(|variable| variable.name == name)?.value.as_deref()
}

/// The image of the task's container, where it has one: the app's own, or the one that the app's executor gets.
pub fn image(info: &TaskInfo) -> Option<&str> {
    let docker = info.container.as_ref().and_then(|container| container.docker.as_ref());
    let labels = info.labels.iter().flat_map(|labels| &labels.labels);
    let label = || labels.rev().find(|label| label.key == request::IMAGE)?.value.as_deref();
    docker
        .map(|docker| docker.image.as_str())
        .or_else(|| info.executor.as_ref().and_then(|_| variable(info, request::IMAGE).or_else(label)))
}

/// The first that a log names: whatever a task writes comes later.
fn logged_container(stderr: &Path) -> Option<ContainerId> {
    // Not there yet, or not any more: nothing is known then.
    let text = String::from_utf8_lossy(&std::fs::read(stderr).ok()?).into_owned();
    let told = text.lines().find_map(|line| line.split_once(" launching as container ")?.1.split(' ').next());
    ContainerId::parse(told?).ok()
}

/// Where the UUID of a Marathon instance begins in the task's id, and the UUID.
fn instance(id: &str) -> Option<(usize, &str)> {
    let start = id.find(".instance-")? + ".instance-".len();
    let uuid = id[start..].split('.').next()?;
    Some((start, uuid))
}

/// The shortest beginnings that distinguish the tasks.
pub fn short_ids(ids: &[&str]) -> Vec<String> {
    let keys: Vec<&str> = ids
        .iter()
        .map(|id| instance(id).map_or_else(|| id.rsplit('.').next().unwrap_or(id), |(_, uuid)| uuid))
        .collect();
    let longest = keys.iter().map(|key| key.chars().count()).max().unwrap_or(SHORT);
    for length in SHORT..longest {
        let short: Vec<String> = keys.iter().map(|key| key.chars().take(length).collect()).collect();
        let mut unique = short.clone();
        unique.sort();
        unique.dedup();
        if unique.len() == short.len() {
            return short;
        }
    }
    keys.iter().map(|key| (*key).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_container_of_a_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("stderr");
        assert_eq!(logged_container(&log), None);
        let (own, other) = (ContainerId::random(), ContainerId::random());
        let line = |id| format!("I1123 19:02:01.123 4711 a: launching as container {id} (command)\n");
        std::fs::write(&log, format!("registered\n{}{}", line(&own), line(&other))).unwrap();
        assert_eq!(logged_container(&log), Some(own));
    }

    #[test]
    fn ids_are_shortened_as_far_as_they_stay_unique() {
        let ids = ["a.instance-7d0f2c1e-1111._app.1", "a.instance-7d0f3c1e-1111._app.1"];
        assert_eq!(short_ids(&ids), ["7d0f2", "7d0f3"]);
        assert_eq!(short_ids(&["a.instance-7d0f2c1e-1111._app.1", "a.instance-8"]), ["7d0f", "8"]);
        assert_eq!(short_ids(&["web.41aa-77"]), ["41aa"]);
        assert_eq!(short_ids(&["x", "x"]), ["x", "x"]);
    }
}
