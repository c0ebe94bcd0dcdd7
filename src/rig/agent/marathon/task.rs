//! From [`App`] to the TaskInfo of one instance.

use std::collections::BTreeMap;

use super::environment;
use super::model::{App, AppCommand, AppDocker, AppInstance, AppNetwork, AppPort};
use crate::mesos::messages::container_info::{docker_info, DockerInfo};
use crate::mesos::messages::{
    self, container_info, discovery_info, value, CommandInfo, ContainerInfo, DiscoveryInfo, DurationInfo,
    Environment, KillPolicy, Label, Labels, NetworkInfo, Parameter, Ports, Resource, TaskInfo,
};

/// The role an app's resources are allocated to.
const ROLE: &str = "*";

impl App {
    /// The task Marathon would launch; the agent's id is filled in by the agent.
    pub fn task_info(&self, instance: &AppInstance) -> TaskInfo {
        let ports = self.host_ports(instance);
        let task_id = self.task_id(instance);
        let command = self.command_info(instance, &ports);
        let (command, executor) = match &self.executor {
            Some(path) => (None, Some(self.executor_info(path, &task_id, command))),
            None => (Some(command), None),
        };
        TaskInfo {
            name: self.task_name(),
            resources: self.task_resources(&ports),
            command,
            executor,
            health_check: self.health_check.as_ref().map(|check| check.with_port(self.ports(), &ports)),
            container: self.docker.as_ref().map(|docker| self.container_info(docker, &task_id, &ports)),
            labels: labels(&self.labels),
            discovery: Some(self.discovery(&ports)),
            kill_policy: self
                .kill_grace
                .map(|grace| KillPolicy { grace_period: Some(DurationInfo::from_duration(grace)) }),
            limits: self.limits(),
            task_id: task_id.into(),
            ..TaskInfo::default()
        }
    }

    fn task_resources(&self, ports: &[Option<u16>]) -> Vec<Resource> {
        let wanted = &self.resources;
        let mut all = vec![
            Resource::scalar("cpus", wanted.cpus, Some(ROLE)),
            Resource::scalar("mem", wanted.mem, Some(ROLE)),
        ];
        if wanted.disk > 0.0 {
            all.push(Resource::scalar("disk", wanted.disk, Some(ROLE)));
        }
        if wanted.gpus > 0 {
            all.push(Resource::scalar("gpus", wanted.gpus.into(), Some(ROLE)));
        }
        let ranges = ranges(ports);
        if !ranges.is_empty() {
            all.push(Resource::ranges("ports", &ranges, Some(ROLE)));
        }
        all
    }

    fn limits(&self) -> BTreeMap<String, value::Scalar> {
        self.resources
            .limits
            .iter()
            .map(|(name, value)| (name.clone(), value::Scalar { value: *value }))
            .collect()
    }

    fn command_info(&self, instance: &AppInstance, ports: &[Option<u16>]) -> CommandInfo {
        let variables = environment::variables(self, instance, ports)
            .into_iter()
            .map(|(name, value)| messages::environment::Variable {
                name,
                value: Some(value),
                ..Default::default()
            })
            .collect();
        let command = CommandInfo {
            uris: self.fetch.clone(),
            environment: Some(Environment { variables }),
            user: self.user.clone(),
            ..CommandInfo::default()
        };
        match &self.command {
            AppCommand::Shell(line) => CommandInfo { value: Some(line.clone()), ..command },
            // With a container there is no value: the image's entrypoint stays the program.
            AppCommand::Arguments(arguments) => {
                CommandInfo { shell: Some(false), arguments: arguments.clone(), ..command }
            }
        }
    }

    fn container_info(&self, docker: &AppDocker, task_id: &str, ports: &[Option<u16>]) -> ContainerInfo {
        let (network, network_infos) = match &self.network {
            AppNetwork::Host(_) => (docker_info::Network::Host, Vec::new()),
            AppNetwork::Bridge(_) => (docker_info::Network::Bridge, Vec::new()),
            AppNetwork::None => (docker_info::Network::None, Vec::new()),
            AppNetwork::User { name, .. } => (
                docker_info::Network::User,
                vec![NetworkInfo { name: name.clone(), ..NetworkInfo::default() }],
            ),
        };
        let mut parameters = docker.parameters.clone();
        parameters.push(Parameter { key: "label".into(), value: format!("MESOS_TASK_ID={task_id}") });
        ContainerInfo {
            r#type: container_info::Type::Docker.into(),
            volumes: self.volumes.clone(),
            docker: Some(DockerInfo {
                image: docker.image.clone(),
                network: Some(network.into()),
                port_mappings: self.port_mappings(ports),
                privileged: Some(docker.privileged),
                parameters,
                force_pull_image: Some(docker.force_pull),
                volume_driver: None,
            }),
            network_infos,
            ..ContainerInfo::default()
        }
    }

    /// Only ports with a host port are Docker's business.
    fn port_mappings(&self, assigned: &[Option<u16>]) -> Vec<docker_info::PortMapping> {
        let mapped = |(port, host): (&AppPort, &Option<u16>)| -> Vec<docker_info::PortMapping> {
            let (Some(container), Some(host)) = (port.container, *host) else { return Vec::new() };
            // 0: the port inside is the one outside.
            let container = if container == 0 { host } else { container };
            port.protocol
                .split(',')
                .map(|protocol| docker_info::PortMapping {
                    host_port: host.into(),
                    container_port: container.into(),
                    protocol: Some(protocol.to_owned()),
                })
                .collect()
        };
        self.ports().iter().zip(assigned).flat_map(mapped).collect()
    }

    fn discovery(&self, assigned: &[Option<u16>]) -> DiscoveryInfo {
        let network = match &self.network {
            AppNetwork::User { name, .. } => name.clone(),
            _ => None,
        };
        let described =
            |(port, host): (&AppPort, &Option<u16>)| discovery_ports(port, *host, network.as_deref());
        let ports: Vec<_> = self.ports().iter().zip(assigned).flat_map(described).collect();
        DiscoveryInfo {
            visibility: discovery_info::Visibility::Framework.into(),
            name: Some(self.task_name()),
            ports: (!ports.is_empty()).then_some(Ports { ports }),
            ..DiscoveryInfo::default()
        }
    }
}

fn discovery_ports(port: &AppPort, host: Option<u16>, network: Option<&str>) -> Vec<messages::Port> {
    let mut own = port.labels.clone();
    let number = match (host, port.container) {
        (Some(host), Some(_)) => {
            own.insert("network-scope".into(), "host".into());
            host
        }
        (None, Some(container)) => {
            // One entry for each named network; without a name there is nothing to report.
            let Some(network) = network else { return Vec::new() };
            own.insert("network-scope".into(), "container".into());
            own.insert("network-name".into(), network.to_owned());
            container
        }
        (Some(host), None) => host,
        (None, None) => return Vec::new(),
    };
    port.protocol
        .split(',')
        .map(|protocol| messages::Port {
            number: number.into(),
            name: port.name.clone(),
            protocol: Some(protocol.to_owned()),
            visibility: None,
            labels: labels(&own),
        })
        .collect()
}

fn labels(map: &BTreeMap<String, String>) -> Option<Labels> {
    let label = |(key, value): (&String, &String)| Label { key: key.clone(), value: Some(value.clone()) };
    (!map.is_empty()).then(|| Labels { labels: map.iter().map(label).collect() })
}

/// The assigned ports as ranges, neighbours joined.
fn ranges(ports: &[Option<u16>]) -> Vec<(u64, u64)> {
    let mut ports: Vec<u64> = ports.iter().flatten().map(|port| u64::from(*port)).collect();
    ports.sort_unstable();
    ports.dedup();
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for port in ports {
        match ranges.last_mut() {
            Some((_, end)) if *end + 1 == port => *end = port,
            _ => ranges.push((port, port)),
        }
    }
    ranges
}
