//! Networks and ports of an app, from either schema.

use super::fields::Fields;
use super::model::{HostPort, Network, Port};
use super::parse::text_map;
use super::AppError;

const PROTOCOLS: [&str; 4] = ["tcp", "udp", "tcp,udp", "udp,tcp"];

pub(super) fn read(top: Fields<'_>) -> Result<Network, AppError> {
    let old = old_network(top)?;
    let new = top.has("networks");
    if new && (old.is_some() || top.has("ipAddress")) {
        return Err(top.error(
            "networks",
            "and the older container.docker.network, container.docker.portMappings or ipAddress exclude each other",
        ));
    }
    if new {
        return new_network(top);
    }
    match old {
        Some(old) => old_form(top, old),
        None if top.has("ipAddress") => {
            Ok(Network::User { name: old_name(top)?, ports: mappings(top)?.unwrap_or_default() })
        }
        None => match mappings(top)? {
            Some(ports) if !ports.is_empty() => Err(top.error(
                "container.portMappings",
                "needs a network: add \"networks\": [{\"mode\": \"container/bridge\"}]",
            )),
            _ => Ok(Network::Host(definitions(top)?)),
        },
    }
}

struct Old {
    network: Option<String>,
    mappings: Vec<Port>,
}

fn old_network(top: Fields<'_>) -> Result<Option<Old>, AppError> {
    let nested = top.object("container", |container| {
        container.object("docker", |docker| {
            if !docker.has("network") && !docker.has("portMappings") {
                return Ok(None);
            }
            let network = docker.text("network")?.map(str::to_owned);
            if let Some(other) =
                network.as_deref().filter(|name| !["HOST", "BRIDGE", "USER", "NONE"].contains(name))
            {
                return Err(
                    docker.error("network", format!("'{other}' is none of HOST, BRIDGE, USER and NONE"))
                );
            }
            Ok(Some(Old { network, mappings: docker.objects("portMappings", mapping)? }))
        })
    })?;
    Ok(nested.flatten().flatten())
}

fn old_form(top: Fields<'_>, old: Old) -> Result<Network, AppError> {
    // As Marathon did it: an unset host port of a bridge is any port, of a user network none.
    let bridged = |mut port: Port| {
        if port.host == HostPort::None {
            port.host = HostPort::Any;
        }
        port
    };
    Ok(match old.network.as_deref() {
        Some("BRIDGE") => Network::Bridge(old.mappings.into_iter().map(bridged).collect()),
        Some("USER") => Network::User { name: old_name(top)?, ports: old.mappings },
        Some("NONE") => Network::None,
        // Port mappings mean nothing on the host's network; Marathon never minded them.
        _ => Network::Host(definitions(top)?),
    })
}

fn old_name(top: Fields<'_>) -> Result<Option<String>, AppError> {
    let name = top.object("ipAddress", |address| Ok(address.text("networkName")?.map(str::to_owned)))?;
    Ok(name.flatten())
}

fn new_network(top: Fields<'_>) -> Result<Network, AppError> {
    let mut networks = top.objects("networks", |network| {
        let mode = network.text("mode")?.unwrap_or("container");
        if !["host", "container", "container/bridge"].contains(&mode) {
            return Err(
                network.error("mode", format!("'{mode}' is none of host, container and container/bridge"))
            );
        }
        let name = network.text("name")?.map(str::to_owned);
        if mode == "container" && name.is_none() {
            return Err(network.error("name", "is missing: which network?"));
        }
        Ok((mode.to_owned(), name))
    })?;
    if networks.len() > 1 {
        return Err(top.error("networks", "must be one: a Docker container has a single network"));
    }
    let Some((mode, name)) = networks.pop() else { return Ok(Network::Host(definitions(top)?)) };
    let ports = mappings(top)?;
    match mode.as_str() {
        "host" => match ports {
            Some(ports) if !ports.is_empty() => {
                Err(top.error("container.portMappings", "means nothing with mode host"))
            }
            _ => Ok(Network::Host(definitions(top)?)),
        },
        "container/bridge" => {
            let any = |mut port: Port| {
                if port.host == HostPort::None {
                    port.host = HostPort::Any;
                }
                port
            };
            Ok(Network::Bridge(ports.unwrap_or_default().into_iter().map(any).collect()))
        }
        _ => Ok(Network::User { name, ports: ports.unwrap_or_default() }),
    }
}

/// `container.portMappings` of the newer schema.
fn mappings(top: Fields<'_>) -> Result<Option<Vec<Port>>, AppError> {
    let ports = top.object("container", |container| {
        container.has("portMappings").then(|| container.objects("portMappings", mapping)).transpose()
    })?;
    Ok(ports.flatten())
}

fn mapping(mapping: Fields<'_>) -> Result<Port, AppError> {
    Ok(Port {
        container: Some(mapping.port("containerPort")?.unwrap_or(0)),
        host: match mapping.port("hostPort")? {
            None => HostPort::None,
            Some(0) => HostPort::Any,
            Some(port) => HostPort::Fixed(port),
        },
        protocol: protocol(mapping)?,
        name: mapping.text("name")?.map(str::to_owned),
        labels: text_map(mapping, "labels")?,
    })
}

/// `portDefinitions`, or the older `ports`; an app that says nothing gets one port.
fn definitions(top: Fields<'_>) -> Result<Vec<Port>, AppError> {
    if top.has("ports") && top.has("portDefinitions") {
        return Err(top.error("ports", "and portDefinitions exclude each other"));
    }
    let fixed = top.flag("requirePorts")?.unwrap_or(false);
    let host = |port: u16| if fixed && port != 0 { HostPort::Fixed(port) } else { HostPort::Any };
    let port = |number: u16, name: Option<&str>| Port {
        container: None,
        host: host(number),
        protocol: "tcp".into(),
        name: name.map(str::to_owned),
        labels: Default::default(),
    };
    if top.has("ports") {
        return Ok(top.ports("ports")?.into_iter().map(|number| port(number, None)).collect());
    }
    if !top.has("portDefinitions") {
        return Ok(vec![port(0, Some("default"))]);
    }
    top.objects("portDefinitions", |definition| {
        Ok(Port {
            protocol: protocol(definition)?,
            labels: text_map(definition, "labels")?,
            ..port(definition.port("port")?.unwrap_or(0), definition.text("name")?)
        })
    })
}

fn protocol(port: Fields<'_>) -> Result<String, AppError> {
    let protocol = port.text("protocol")?.unwrap_or("tcp");
    if !PROTOCOLS.contains(&protocol) {
        return Err(port.error("protocol", format!("'{protocol}' is none of tcp, udp and udp,tcp")));
    }
    Ok(protocol.to_owned())
}
