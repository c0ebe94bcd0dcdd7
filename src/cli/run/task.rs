//! One launched task as a person sees it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Instant;

use crate::agent::{Launched, Update};
use crate::mesos::messages::{TaskInfo, TaskState, TaskStatus};
use crate::names::ContainerId;

use super::follow::Follow;

/// How many characters of an instance's id are shown, at least.
const SHORT: usize = 4;

pub struct Task {
    pub id: String,
    /// A few characters that tell it from the other instances.
    pub short: String,
    pub container: ContainerId,
    /// Docker's name of the container.
    pub container_name: String,
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

impl Task {
    pub fn new(
        info: &TaskInfo,
        short: String,
        container: ContainerId,
        launched: &Launched,
        sandbox: PathBuf,
    ) -> Self {
        Self {
            id: info.task_id.value.clone(),
            has_kill_policy: info.kill_policy.is_some(),
            short,
            container_name: format!("mesos-{container}"),
            container,
            output: Follow::new(sandbox.join("stdout")),
            sandbox,
            launched: launched.at,
            executor_pid: launched.executor_pid,
            states: Vec::new(),
            addresses: Vec::new(),
            message: None,
        }
    }

    /// Takes over what a status says.
    pub fn apply(&mut self, update: &Update) {
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

/// Where the UUID of a Marathon instance begins in the task's id, and the UUID.
fn instance(id: &str) -> Option<(usize, &str)> {
    let start = id.find(".instance-")? + ".instance-".len();
    let uuid = id[start..].split('.').next()?;
    Some((start, uuid))
}

/// The shortest beginnings that tell the tasks apart.
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
    fn ids_as_short_as_they_can_be() {
        let ids = ["a.instance-7d0f2c1e-1111._app.1", "a.instance-7d0f3c1e-1111._app.1"];
        assert_eq!(short_ids(&ids), ["7d0f2", "7d0f3"]);
        assert_eq!(short_ids(&["a.instance-7d0f2c1e-1111._app.1", "a.instance-8"]), ["7d0f", "8"]);
        assert_eq!(short_ids(&["web.41aa-77"]), ["41aa"]);
        assert_eq!(short_ids(&["x", "x"]), ["x", "x"]);
    }
}
