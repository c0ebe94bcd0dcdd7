//! What a life's changes and outcome look like to Mesos.
//!
//! Texts and fields as the stock docker executor sends them, so that frameworks and people who know
//! those find the same. Every status of a task with a Calico address carries the address: a status
//! without `network_infos` makes the agent put in its own, and Marathon believes it.

use std::net::IpAddr;

use crate::mesos::messages::{
    network_info, ContainerInfo, ContainerStatus, NetworkInfo, TaskId, TaskState, TaskStatus,
};

use super::life::Outcome;

/// Makes the statuses of one task.
#[derive(Debug, Clone)]
pub struct Statuses {
    task_id: String,
    /// For failure messages: `[agent-17, CM-…]`.
    agent: String,
    template: Option<NetworkInfo>,
    addresses: Vec<IpAddr>,
}

impl Statuses {
    /// `container`: what the framework asked for; its first NetworkInfo is handed back with the addresses in it.
    pub fn new(task_id: &str, agent: &str, container: Option<&ContainerInfo>) -> Self {
        Self {
            task_id: task_id.to_owned(),
            agent: agent.to_owned(),
            template: container.and_then(|container| container.network_infos.first().cloned()),
            addresses: Vec::new(),
        }
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

    pub fn terminal(&self, outcome: &Outcome) -> TaskStatus {
        let (state, message) = match outcome {
            Outcome::Killed(exit) => {
                let message = exit
                    .as_ref()
                    .map_or("Task killed before its container started".to_owned(), |exit| exited(exit.code));
                (TaskState::TaskKilled, message)
            }
            Outcome::Exited(exit) if exit.code == 0 => (TaskState::TaskFinished, exited(0)),
            Outcome::Exited(exit) => (TaskState::TaskFailed, exited(exit.code)),
            Outcome::Failed(failure) => (TaskState::TaskFailed, failure.on(&self.agent)),
        };
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
}

/// The stock executor's words.
fn exited(code: i64) -> String {
    format!("Container exited with status {code}")
}
