//! From a binding to what a life is ordered to do.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::Config;
use crate::error::{chain, Code, Failure};
use crate::names::ContainerId;
use crate::net::forward::{self, Mapping, Protocol};
use crate::proxy::bindings::Binding;
use crate::proxy::create::WantedPort;
use crate::task::channel::Order;
use crate::task::request::{CalicoTask, Description, ForeignContainer, HostPort, Task, Work};
use crate::workload::DockerHost;

/// What the audit trail calls the framework of a container that no executor started.
const FRAMEWORK: &str = "docker";
/// How often another port is chosen.
const PORT_ATTEMPTS: usize = 50;

/// The order for the container's next life. The request is read again: limits may have changed since the create.
pub(super) fn order(
    binding: &Binding,
    config: &Config,
    config_path: PathBuf,
    ports: Vec<Mapping>,
) -> Result<Order, Failure> {
    let bound = &binding.bound;
    let docker = DockerHost::parse(&binding.docker).map_err(|error| {
        Failure::new(Code::Docker, format!("the container's binding is damaged: {}", chain(&error)))
    })?;
    let work = Work::Foreign(ForeignContainer {
        docker,
        id: binding.id.clone(),
        hostname: binding.hostname.clone(),
        checked: binding.checked,
        last: binding.last.clone(),
    });
    let host_ports = ports.into_iter().map(|mapping| HostPort { mapping, name: None }).collect();
    let task = CalicoTask { work, request: bound.request(config)?, host_ports, labels: bound.labels.clone() };
    Ok(Order {
        container: binding.container.clone(),
        name: binding.id.clone(),
        description: Description {
            task: Task::Calico(Arc::new(task)),
            health: None,
            kill_grace: None,
            max_completion: None,
            app: bound.app.clone(),
            service: bound.service.clone(),
            task_id: bound.task_id.clone(),
            by_marathon: false,
            notes: Vec::new(),
        },
        config_path,
        framework: FRAMEWORK.to_owned(),
        host_address: config.node.host_address,
    })
}

/// The ports of the host that lead to the container in its next life; those that are left open are chosen among the
/// free ones.
pub(super) async fn choose_ports(
    container: &ContainerId,
    wanted: &[WantedPort],
) -> Result<Vec<Mapping>, Failure> {
    let mut chosen: Vec<Mapping> = Vec::new();
    for port in wanted {
        let mapping = |host| Mapping { protocol: port.protocol, host, task: port.container };
        let mut candidates: Box<dyn Iterator<Item = u16> + Send> = match (port.host, port.range) {
            (Some(host), _) => Box::new(std::iter::once(host)),
            (None, Some((first, last))) => Box::new(first..=last),
            (None, None) => Box::new((0..PORT_ATTEMPTS).filter_map(|_| free(port.protocol))),
        };
        let taken: BTreeSet<u16> = chosen.iter().map(|mapping| mapping.host).collect();
        let found = loop {
            let Some(host) = candidates.next() else {
                let message =
                    format!("no port of the host is free for port {} of the container", port.container);
                return Err(Failure::new(Code::PortTaken, message));
            };
            // A port that the client has named is waited for, and refused, by the launch.
            if port.host.is_some() {
                break host;
            }
            if !taken.contains(&host) && forward::check(container, &[mapping(host)]).await.is_ok() {
                break host;
            }
        };
        chosen.push(mapping(found));
    }
    Ok(chosen)
}

/// A port on which nothing listens.
fn free(protocol: Protocol) -> Option<u16> {
    let any = (Ipv4Addr::UNSPECIFIED, 0);
    let address = match protocol {
        Protocol::Udp => UdpSocket::bind(any).and_then(|socket| socket.local_addr()),
        _ => TcpListener::bind(any).and_then(|socket| socket.local_addr()),
    };
    address.ok().map(|address| address.port())
}
