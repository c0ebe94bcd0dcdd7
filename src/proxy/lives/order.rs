//! From a binding to what a life is ordered to do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::config::Config;
use crate::error::{chain, Code, Failure};
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

/// The ports of the host that were chosen for containers. Until they lead there, only this holds them.
#[derive(Debug, Default)]
pub(super) struct ChosenPorts(Mutex<BTreeMap<String, Vec<Mapping>>>);

impl ChosenPorts {
    /// The ports that lead to the container in its next life; those that are left open are chosen among the free ones.
    pub async fn choose(&self, binding: &Binding) -> Result<Vec<Mapping>, Failure> {
        let (container, wanted) = (&binding.container, &binding.bound.ports);
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut others = self.0.lock().await;
        others.remove(&binding.id);
        let port_of = |mapping: &Mapping| (mapping.protocol, mapping.host);
        let mut taken: BTreeSet<(Protocol, u16)> = others.values().flatten().map(port_of).collect();
        let mut chosen: Vec<Mapping> = Vec::new();
        for port in wanted {
            let mapping = |host| Mapping { protocol: port.protocol, host, task: port.container };
            let mut candidates: Box<dyn Iterator<Item = u16> + Send> = match (port.host, port.range) {
                (Some(host), _) => Box::new(std::iter::once(host)),
                (None, Some((first, last))) => Box::new(first..=last),
                (None, None) => Box::new((0..PORT_ATTEMPTS).filter_map(|_| free(port.protocol))),
            };
            let found = loop {
                let Some(host) = candidates.next() else { return Err(none_free(port)) };
                // A port that the client has named is waited for, and refused, by the launch.
                if port.host.is_some() {
                    break host;
                }
                let is_taken = taken.contains(&(port.protocol, host));
                if !is_taken && forward::check(container, &[mapping(host)]).await.is_ok() {
                    break host;
                }
            };
            taken.insert((port.protocol, found));
            chosen.push(mapping(found));
        }
        others.insert(binding.id.clone(), chosen.clone());
        Ok(chosen)
    }

    /// They lead to the container no more.
    pub async fn give_back(&self, id: &str) {
        self.0.lock().await.remove(id);
    }
}

fn none_free(port: &WantedPort) -> Failure {
    let message = match port.range {
        Some((first, last)) => format!(
            "no port of the host between {first} and {last} is free for port {} of the container; \
             publish a wider range or remove containers that hold it",
            port.container
        ),
        None => format!("no port of the host is free for port {} of the container", port.container),
    };
    Failure::new(Code::PortTaken, message)
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
