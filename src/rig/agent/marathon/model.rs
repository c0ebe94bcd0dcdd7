//! An app as Marathon understands it once both schemas have been brought together.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::health::AppCheck;
use crate::mesos::messages::{command_info, Parameter, Volume};

/// One app definition, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct App {
    /// Absolute, `/prod/web`.
    pub id: String,
    pub instances: u32,
    pub command: AppCommand,
    pub user: Option<String>,
    pub resources: Resources,
    pub env: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// The program that is to run the task in place of Mesos' own.
    pub executor: Option<String>,
    /// None only with an executor.
    pub docker: Option<AppDocker>,
    pub network: AppNetwork,
    pub volumes: Vec<Volume>,
    pub fetch: Vec<command_info::Uri>,
    pub health_check: Option<AppCheck>,
    pub kill_grace: Option<Duration>,
    /// What of the definition has no effect when one agent runs it, and what surprises in it: a sentence each.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum AppCommand {
    Shell(String),
    /// Arguments for the image's entrypoint; may be none.
    Arguments(Vec<String>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Resources {
    pub cpus: f64,
    pub mem: f64,
    pub disk: f64,
    pub gpus: u32,
    /// Upper limits by name; infinite for "unlimited".
    pub limits: BTreeMap<String, f64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AppDocker {
    pub image: String,
    pub privileged: bool,
    pub force_pull: bool,
    pub parameters: Vec<Parameter>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum AppNetwork {
    Host(Vec<AppPort>),
    Bridge(Vec<AppPort>),
    /// A network of Docker's, or the name `calico`.
    User {
        name: Option<String>,
        ports: Vec<AppPort>,
    },
    None,
}

/// A port the app declares: a port definition (host network) or a port mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct AppPort {
    /// `None` in a port definition.
    pub container: Option<u16>,
    /// What a port definition asks for, which is the host's only with `requirePorts`; 0 is any.
    pub defined: u16,
    pub host: AppHostPort,
    pub protocol: String,
    pub name: Option<String>,
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppHostPort {
    /// None is mapped.
    None,
    /// Any of the agent's.
    Any,
    Fixed(u16),
}

/// What differs from one instance of an app to the next.
#[derive(Debug, Clone, PartialEq)]
pub struct AppInstance {
    pub id: Uuid,
    /// The agent's host name, which the task sees as HOST.
    pub hostname: String,
    /// As many as [`App::free_ports`] says.
    pub host_ports: Vec<u16>,
    /// The app's version: an instant.
    pub version: String,
}

impl AppInstance {
    pub fn new(hostname: impl Into<String>, host_ports: Vec<u16>) -> Self {
        Self {
            id: Uuid::new_v4(),
            hostname: hostname.into(),
            host_ports,
            version: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        }
    }
}

impl AppPort {
    /// A TCP port that is no container's.
    pub(super) fn new(name: Option<&str>, host: AppHostPort) -> Self {
        Self {
            container: None,
            defined: 0,
            host,
            protocol: "tcp".into(),
            name: name.map(str::to_owned),
            labels: BTreeMap::new(),
        }
    }

    /// What the app definition asks for by number: the container's port, or that of a port definition.
    pub(super) fn requested(&self) -> u16 {
        self.container.unwrap_or(self.defined)
    }
}

impl AppNetwork {
    /// Ports declared, in order.
    pub fn ports(&self) -> &[AppPort] {
        match self {
            AppNetwork::Host(ports) | AppNetwork::Bridge(ports) | AppNetwork::User { ports, .. } => ports,
            AppNetwork::None => &[],
        }
    }
}

impl App {
    pub(super) fn ports(&self) -> &[AppPort] {
        self.network.ports()
    }

    /// How many host ports an instance needs that may be any.
    pub fn free_ports(&self) -> usize {
        self.ports().iter().filter(|port| port.host == AppHostPort::Any).count()
    }

    /// The host ports that every instance gets, because the app names them.
    pub fn fixed_ports(&self) -> Vec<u16> {
        let fixed = |port: &AppPort| match port.host {
            AppHostPort::Fixed(port) => Some(port),
            AppHostPort::None | AppHostPort::Any => None,
        };
        self.ports().iter().filter_map(fixed).collect()
    }

    /// The host port of each declared port, in order.
    pub(super) fn host_ports(&self, instance: &AppInstance) -> Vec<Option<u16>> {
        let mut free = instance.host_ports.iter().copied();
        let assign = |port: &AppPort| match port.host {
            AppHostPort::None => None,
            AppHostPort::Fixed(port) => Some(port),
            AppHostPort::Any => free.next(),
        };
        self.ports().iter().map(assign).collect()
    }

    /// `web.prod`, as Mesos shows the task.
    pub fn task_name(&self) -> String {
        let parts: Vec<&str> = self.id.split('/').filter(|part| !part.is_empty()).rev().collect();
        parts.join(".")
    }

    /// `prod_web.instance-<uuid>._app.1`.
    pub fn task_id(&self, instance: &AppInstance) -> String {
        let path = self.id.trim_matches('/').replace('/', "_");
        format!("{path}.instance-{}._app.1", instance.id)
    }
}
