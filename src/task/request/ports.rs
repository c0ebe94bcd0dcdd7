//! The host ports that Mesos gave to a task.
//!
//! | the task's network | without Calico | with Calico: forwarded to its address |
//! | --- | --- | --- |
//! | `HOST` | the host's own, nothing to do | each port of the resource `ports` to the same port: the task listens on `$PORT0` and so on |
//! | any, with port mappings | Docker publishes them | each mapping, to its container port |

use std::collections::BTreeMap;

use super::invalid;
use crate::error::Failure;
use crate::mesos::messages::container_info::DockerInfo;
use crate::mesos::messages::{Port, TaskInfo};
use crate::net::forward::{Mapping, Protocol};
use crate::task::request::calico::shown;
use crate::workload::PortBinding;

/// A port of the host that is to lead to the task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    pub mapping: Mapping,
    /// What the app calls it.
    pub name: Option<String>,
}

/// Marathon names each protocol in an entry of its own; the list form of its app definitions is read, too.
pub(super) fn mapped(task: &TaskInfo, docker: &DockerInfo) -> Result<Vec<PortBinding>, Failure> {
    let mut ports = Vec::new();
    for mapping in &docker.port_mappings {
        let port = |what: &str, port: u32| match u16::try_from(port) {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(invalid(format!("the {what} port {port} of a port mapping is not between 1 and 65535"))),
        };
        let host_port = port("host", mapping.host_port)?;
        let container_port = port("container", mapping.container_port)?;
        if !offered(task).any(|offered| offered == host_port) {
            return Err(invalid(format!(
                "the host port {host_port} is not among the ports that Mesos gave to the task"
            )));
        }
        for protocol in mapping.protocol.as_deref().unwrap_or("tcp").split(',') {
            let protocol = protocol.trim().to_ascii_lowercase();
            if Protocol::parse(&protocol).is_none() {
                return Err(invalid(format!(
                    "the protocol {} of a port mapping is not tcp, udp or sctp",
                    shown(&protocol)
                )));
            }
            ports.push(PortBinding { host_port, container_port, protocol });
        }
    }
    Ok(ports)
}

/// The port mappings of a Calico task, for its address.
pub(super) fn forwarded(task: &TaskInfo, mapped: &[PortBinding]) -> Result<Vec<HostPort>, Failure> {
    let mut wanted = BTreeMap::new();
    for PortBinding { host_port, container_port, protocol } in mapped {
        let Some(protocol) = Protocol::parse(protocol) else { continue };
        let other = wanted.insert((*host_port, protocol), *container_port);
        if other.is_some_and(|other| other != *container_port) {
            return Err(invalid(format!(
                "the host port {host_port} is mapped to two ports of the container"
            )));
        }
    }
    let named = wanted.into_iter().map(|((host, protocol), port)| HostPort {
        mapping: Mapping { protocol, host, task: port },
        name: name(task, host),
    });
    Ok(named.collect())
}

/// The ports of a Calico task that believes to be on the host's network: it listens on them itself.
///
/// Their protocols are those that the app has declared, otherwise TCP.
pub(super) fn own(task: &TaskInfo) -> Vec<HostPort> {
    let mut ports = Vec::new();
    for host in offered(task) {
        let declared: Vec<Protocol> = declared(task, host)
            .flat_map(|port| port.protocol.as_deref().unwrap_or_default().split(','))
            .filter_map(|protocol| Protocol::parse(&protocol.trim().to_ascii_lowercase()))
            .collect();
        let protocols = if declared.is_empty() { vec![Protocol::Tcp] } else { declared };
        ports.extend(protocols.into_iter().map(|protocol| HostPort {
            mapping: Mapping { protocol, host, task: host },
            name: name(task, host),
        }));
    }
    ports.sort_by_key(|port| (port.mapping.host, port.mapping.protocol));
    ports.dedup_by_key(|port| port.mapping);
    ports
}

/// The ports that Mesos gave to the task.
fn offered(task: &TaskInfo) -> impl Iterator<Item = u16> + '_ {
    let resources = task.resources.iter().filter(|resource| resource.name == "ports");
    let ranges = resources.filter_map(|resource| resource.ranges.as_ref()).flat_map(|ranges| &ranges.range);
    ranges.flat_map(|range| {
        let possible = |port: u64| u16::try_from(port.clamp(1, u64::from(u16::MAX))).unwrap_or(u16::MAX);
        let begun = possible(range.begin)..=possible(range.end);
        begun.filter(|port| (range.begin..=range.end).contains(&u64::from(*port)))
    })
}

fn declared(task: &TaskInfo, port: u16) -> impl Iterator<Item = &Port> {
    let ports = task.discovery.iter().filter_map(|discovery| discovery.ports.as_ref());
    ports.flat_map(|ports| &ports.ports).filter(move |declared| declared.number == u32::from(port))
}

fn name(task: &TaskInfo, port: u16) -> Option<String> {
    let mut names = declared(task, port).filter_map(|port| port.name.as_deref());
    names.find(|name| !name.is_empty()).map(str::to_owned)
}
