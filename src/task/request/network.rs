//! Networks, ports and DNS.
//!
//! | `container.docker.network` | without CALICO variables | with them |
//! | --- | --- | --- |
//! | `HOST` (Marathon's default) | the host's | Calico |
//! | `BRIDGE` | Docker's bridge | Calico |
//! | `USER`, network `calico` | Calico, `auto`, the default profile | Calico |
//! | `USER`, another network | that Docker network | refused: two networks |
//! | `NONE` | none | refused |
//!
//! The parameter `network` (or `net`) replaces the first column for tasks without Calico.

use super::ports::{self, HostPort};
use super::{environment, invalid, name, parameters, too_long, Context};
use super::{Failure, HOSTNAME_MAX, NETWORK};
use crate::config::Config;
use crate::error::Code;
use crate::mesos::flags::DockerDns;
use crate::mesos::messages::container_info::docker_info::Network;
use crate::mesos::messages::container_info::DockerInfo;
use crate::mesos::messages::{ContainerInfo, TaskInfo};
use crate::task::request::calico::{
    shown, CalicoRequest, CALICO_IP, CALICO_POOL, CALICO_PROFILE, SERVICE_PORT,
};
use crate::workload::ContainerSpec;

/// The task's request to Calico, refused where other fields contradict it.
pub(super) fn calico_request(
    task: &TaskInfo,
    container: &ContainerInfo,
    docker: &DockerInfo,
) -> Result<Option<CalicoRequest>, Failure> {
    let network = network(container, docker)?;
    let by_parameter = docker.parameters.iter().any(|parameter| is_network(&parameter.key));
    let by_network = docker.network() == Network::User && network == NETWORK;
    // A parameter replaces the network, except beside the variables, where it is refused as such.
    let request = request_of_variables(task, by_network && !by_parameter)?;
    if !asks(task) || by_network {
        return Ok(request);
    }
    let other = match docker.network() {
        Network::Host | Network::Bridge => return Ok(request),
        Network::User => format!("the Docker network {}", shown(&network)),
        Network::None => "no network".to_owned(),
    };
    Err(invalid(format!(
        "the task sets {CALICO_IP}, {CALICO_PROFILE} or {CALICO_POOL} and asks for {other} too; use the network {NETWORK} or leave the variables out"
    )))
}

/// What the task's variables ask of Calico; with `by_network` something else has asked already.
pub(super) fn request_of_variables(
    task: &TaskInfo,
    by_network: bool,
) -> Result<Option<CalicoRequest>, Failure> {
    for (name, code) in [
        (CALICO_IP, Code::IpInvalid),
        (CALICO_PROFILE, Code::ProfileInvalid),
        (CALICO_POOL, Code::PoolInvalid),
        (SERVICE_PORT, Code::PortInvalid),
    ] {
        // SERVICE_PORT alone is the app's own.
        if environment::is_secret(task, name) && (by_network || asks(task)) {
            return Err(Failure::new(code, format!("{name} is a secret, which cannot be read here")));
        }
    }
    CalicoRequest::read(|name| environment::own(task, name), by_network)
}

/// Does the task set a variable that is for Calico alone?
fn asks(task: &TaskInfo) -> bool {
    [CALICO_IP, CALICO_PROFILE, CALICO_POOL].iter().any(|name| environment::own(task, name).is_some())
}

/// Network mode, hostname and ports. Returns the ports of the host that are to lead to a Calico task.
pub(super) fn apply(
    task: &TaskInfo,
    container: &ContainerInfo,
    docker: &DockerInfo,
    calico: bool,
    spec: &mut ContainerSpec,
) -> Result<Vec<HostPort>, Failure> {
    let by_parameter = docker.parameters.iter().find(|parameter| is_network(&parameter.key));
    spec.network = match by_parameter {
        _ if calico => "none".to_owned(),
        Some(parameter) => {
            let value = name("the parameter network", &parameter.value)?;
            let end = parameters::network::attachment(value)
                .map_err(|reason| parameters::wrong(&parameter.key, value, &reason))?;
            let network = end.network.clone();
            spec.endpoints.push(end);
            network
        }
        None => network(container, docker)?,
    };
    if let Some(hostname) = container.hostname.as_deref().filter(|hostname| !hostname.is_empty()) {
        if spec.network == "host" {
            return Err(invalid("a task on the host's network cannot have a hostname of its own"));
        }
        let hostname = name("the hostname", hostname)?;
        if hostname.len() > HOSTNAME_MAX {
            return Err(invalid(format!("the hostname {} {}", shown(hostname), too_long(hostname))));
        }
        spec.hostname = Some(hostname.to_owned());
    }
    let ports = ports::mapped(task, docker)?;
    if calico {
        return match docker.network() {
            Network::Host if ports.is_empty() => Ok(ports::own(task)),
            _ => ports::forwarded(task, &ports),
        };
    }
    if !ports.is_empty() && matches!(spec.network.as_str(), "host" | "none") {
        return Err(invalid(format!(
            "port mappings need a bridge or a user-defined network; the task has '{}'",
            spec.network
        )));
    }
    spec.ports = ports;
    Ok(Vec::new())
}

fn is_network(key: &str) -> bool {
    matches!(key, "net" | "network")
}

/// Docker's name of the network that the task's own fields ask for.
fn network(container: &ContainerInfo, docker: &DockerInfo) -> Result<String, Failure> {
    Ok(match docker.network() {
        Network::Host => "host".to_owned(),
        Network::Bridge => "bridge".to_owned(),
        Network::None => "none".to_owned(),
        Network::User => match &container.network_infos[..] {
            [only] => {
                let network = only.name.as_deref().unwrap_or_default();
                name("the name of the USER network", network)?.to_owned()
            }
            [] => return Err(invalid("the task asks for a USER network but names none")),
            _ => return Err(invalid("the task names several networks; Docker joins one")),
        },
    })
}

/// The agent's `--default_container_dns`, for tasks that set no DNS themselves. Calico counts as
/// the `USER` network `calico`.
pub(super) fn default_dns(
    docker: &DockerInfo,
    container: &ContainerInfo,
    context: &Context<'_>,
    calico: bool,
    spec: &mut ContainerSpec,
) -> Result<(), Failure> {
    let is_dns = |key: &str| matches!(key, "dns" | "dns-search" | "dns-opt" | "dns-option");
    if docker.parameters.iter().any(|parameter| is_dns(&parameter.key)) {
        return Ok(());
    }
    let (mode, network) = match (calico, docker.network()) {
        (true, _) => ("USER", NETWORK.to_owned()),
        (false, Network::Bridge) => ("BRIDGE", String::new()),
        (false, Network::User) => ("USER", network(container, docker)?),
        (false, Network::Host | Network::None) => return Ok(()),
    };
    let entries = context.default_dns.as_ref().map_err(Clone::clone)?;
    let of_mode = |entry: &&DockerDns| entry.network_mode.as_deref() == Some(mode);
    let named = |entry: &&DockerDns| mode == "BRIDGE" || entry.network_name.as_deref() == Some(&network);
    let nameless = |entry: &&DockerDns| entry.network_name.is_none();
    let found = entries.iter().filter(of_mode).find(named).or(entries.iter().filter(of_mode).find(nameless));
    if let Some(entry) = found {
        spec.dns.clone_from(&entry.dns.nameservers);
        spec.dns_search.clone_from(&entry.dns.search);
        spec.dns_options.clone_from(&entry.dns.options);
    }
    Ok(())
}

/// config.toml's `[dns]`, for Calico tasks without any other DNS setting.
pub fn configured_dns(config: &Config, spec: &mut ContainerSpec) {
    if spec.dns.is_empty() && spec.dns_search.is_empty() && spec.dns_options.is_empty() {
        spec.dns = config.dns.servers.iter().map(ToString::to_string).collect();
        spec.dns_search.clone_from(&config.dns.search);
        spec.dns_options.clone_from(&config.dns.options);
    }
}
