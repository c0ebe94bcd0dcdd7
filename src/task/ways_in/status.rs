//! Translates a life's changes and outcome into status updates.
//!
//! Texts and fields are those of the stock docker executor, so that frameworks and people find what they expect. Every
//! status of a task with a Calico address carries the address: for a status without `network_infos` the agent puts in
//! its own address, and Marathon uses it.

use std::net::IpAddr;

use crate::mesos::messages::task_status::Reason;
use crate::mesos::messages::{
    network_info, ContainerInfo, ContainerStatus, NetworkInfo, TaskId, TaskState, TaskStatus,
};
use crate::workload::Exit;

use crate::task::channel::{Cause, Outcome};

/// Makes the statuses of one task.
#[derive(Debug, Clone)]
pub struct Statuses {
    task_id: String,
    /// For failure messages: `[agent-17, CM-…]`.
    agent: String,
    /// What ends: a container, or a command.
    noun: &'static str,
    template: Option<NetworkInfo>,
    addresses: Vec<IpAddr>,
}

impl Statuses {
    /// `container`: what the framework asked for; its first NetworkInfo is handed back with the addresses in it.
    pub fn new(task_id: &str, agent: &str, container: Option<&ContainerInfo>) -> Self {
        Self {
            task_id: task_id.to_owned(),
            agent: agent.to_owned(),
            noun: "Container",
            template: container.and_then(|container| container.network_infos.first().cloned()),
            addresses: Vec::new(),
        }
    }

    /// The task is a command, as Mesos' own command executor calls it.
    pub fn of_command(mut self) -> Self {
        self.noun = "Command";
        self
    }

    pub fn starting(&self) -> TaskStatus {
        self.bare(TaskState::TaskStarting)
    }

    pub fn running(&mut self, inspect: Option<String>, addresses: Vec<IpAddr>) -> TaskStatus {
        self.addresses = addresses;
        TaskStatus { data: inspect.map(String::into_bytes), ..self.bare(TaskState::TaskRunning) }
    }

    pub fn killing(&self) -> TaskStatus {
        self.bare(TaskState::TaskKilling)
    }

    /// A health check's verdict.
    pub fn health(&self, healthy: bool) -> TaskStatus {
        TaskStatus {
            healthy: Some(healthy),
            reason: Some(Reason::TaskHealthCheckStatusUpdated.into()),
            ..self.bare(TaskState::TaskRunning)
        }
    }

    pub fn terminal(&self, outcome: &Outcome) -> TaskStatus {
        match outcome {
            Outcome::Exited(exit) if exit.code == 0 => self.ended(TaskState::TaskFinished, self.exited(exit)),
            Outcome::Exited(exit) => TaskStatus {
                reason: exit
                    .oom_killed
                    .is_some_and(|killed| killed)
                    .then_some(Reason::ContainerLimitationMemory.into()),
                ..self.ended(TaskState::TaskFailed, self.exited(exit))
            },
            Outcome::Killed { exit, cause } => {
                let words = exit
                    .as_ref()
                    .map_or("Task killed before it started".to_owned(), |exit| self.exited(exit));
                match cause {
                    Cause::Asked => self.ended(TaskState::TaskKilled, words),
                    Cause::Unhealthy => {
                        TaskStatus { healthy: Some(false), ..self.ended(TaskState::TaskKilled, words) }
                    }
                    Cause::Overdue => TaskStatus {
                        reason: Some(Reason::MaxCompletionTimeReached.into()),
                        ..self.ended(TaskState::TaskFailed, words)
                    },
                }
            }
            Outcome::Failed(failure) => self.ended(TaskState::TaskFailed, failure.on(&self.agent)),
            // No executor's task is one that others started.
            Outcome::Over => self.ended(TaskState::TaskFinished, "the container has ended".to_owned()),
        }
    }

    fn ended(&self, state: TaskState, message: String) -> TaskStatus {
        TaskStatus { message: Some(message), ..self.bare(state) }
    }

    fn bare(&self, state: TaskState) -> TaskStatus {
        TaskStatus {
            task_id: TaskId { value: self.task_id.clone() },
            state: state.into(),
            container_status: self.container_status(),
            ..TaskStatus::default()
        }
    }

    fn container_status(&self) -> Option<ContainerStatus> {
        if self.addresses.is_empty() {
            return None;
        }
        let ip_addresses = self
            .addresses
            .iter()
            .map(|address| network_info::IpAddress {
                protocol: Some(match address {
                    IpAddr::V4(_) => network_info::Protocol::IPv4.into(),
                    IpAddr::V6(_) => network_info::Protocol::IPv6.into(),
                }),
                ip_address: Some(address.to_string()),
            })
            .collect();
        let info = NetworkInfo { ip_addresses, ..self.template.clone().unwrap_or_default() };
        Some(ContainerStatus { network_infos: vec![info], ..ContainerStatus::default() })
    }

    /// The stock executors' words, and what they do not know.
    fn exited(&self, exit: &Exit) -> String {
        let words = format!("{} exited with status {}", self.noun, exit.code);
        match exit.oom_killed {
            Some(true) => format!("{words}: the kernel killed it, because it was out of memory"),
            _ => words,
        }
    }
}
