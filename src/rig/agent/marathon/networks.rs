//! Networks and ports of an app, from either schema.

use super::fields::Fields;
use super::model::{AppHostPort, AppNetwork, AppPort};
use super::parse::text_map;
use super::AppError;

const PROTOCOLS: [&str; 4] = ["tcp", "udp", "udp,tcp", "tcp,udp"];
/// What Marathon calls the bridge of Mesos, unless its operator has another name for it.
const MESOS_BRIDGE: &str = "mesos-bridge";
/// The name of the port that an app gets which declares none.
const DEFAULT: &str = "default";

/// Which network, whichever schema names it.
enum Mode {
    Host,
    Bridge,
    User(Option<String>),
    None,
}

/// Both schemas brought together as Marathon does it, with a note where a field has no effect.
pub(super) fn read(top: Fields<'_>, notes: &mut Vec<String>) -> Result<AppNetwork, AppError> {
    let mode = mode(top)?;
    let mappings = mappings(top)?;
    let definitions = definitions(top)?;
    match mode {
        Mode::Host => {
            if mappings.is_some_and(|ports| !ports.is_empty()) {
                notes.push(
                    "portMappings are ignored: the app is on the host's network; \"networks\": [{\"mode\": \
                     \"container/bridge\"}] is what they need"
                        .to_owned(),
                );
            }
            Ok(AppNetwork::Host(
                definitions.unwrap_or_else(|| vec![AppPort::new(Some(DEFAULT), AppHostPort::Any)]),
            ))
        }
        Mode::Bridge => {
            let mut ports = complete(mappings, definitions);
            // An unset host port of a bridge is any port, of another network none.
            ports
                .iter_mut()
                .filter(|port| port.host == AppHostPort::None)
                .for_each(|port| port.host = AppHostPort::Any);
            Ok(AppNetwork::Bridge(ports))
        }
        Mode::User(name) => Ok(AppNetwork::User { name, ports: complete(mappings, definitions) }),
        Mode::None => Ok(AppNetwork::None),
    }
}

/// An app without mappings gets one port, and as many as it has ports of the host's kind.
fn complete(mappings: Option<Vec<AppPort>>, definitions: Option<Vec<AppPort>>) -> Vec<AppPort> {
    let any = |name| AppPort { container: Some(0), ..AppPort::new(name, AppHostPort::None) };
    let mut ports = mappings.unwrap_or_else(|| vec![any(Some(DEFAULT))]);
    let wanted = definitions.map_or(0, |definitions| definitions.len()).max(ports.len());
    ports.resize_with(wanted, || any(None));
    ports
}

fn mode(top: Fields<'_>) -> Result<Mode, AppError> {
    let container = top.object("container", |container| {
        container.object("docker", |docker| docker.word("network", &["HOST", "BRIDGE", "USER", "NONE"]))
    })?;
    let docker = container.flatten().flatten();
    let address = top.object("ipAddress", |address| Ok(address.text("networkName")?.map(str::to_owned)))?;
    if top.length("networks")? > 0 && (docker.is_some() || address.is_some()) {
        return Err(top.error(
            "networks",
            "and the older container.docker.network or ipAddress exclude each other: leave the older field out",
        ));
    }
    Ok(match (docker, address) {
        (Some("HOST"), _) => Mode::Host,
        (Some("BRIDGE"), _) => Mode::Bridge,
        (Some("NONE"), _) => Mode::None,
        (Some(_), address) => Mode::User(address.flatten()),
        (None, Some(Some(name))) if name == MESOS_BRIDGE => Mode::Bridge,
        (None, Some(name)) => Mode::User(name),
        (None, None) => new_mode(top)?,
    })
}

fn new_mode(top: Fields<'_>) -> Result<Mode, AppError> {
    let mut networks = top.objects("networks", |network| {
        let mode = network.word("mode", &["host", "container", "container/bridge"])?;
        Ok(match mode {
            Some("host") => Mode::Host,
            Some("container/bridge") => Mode::Bridge,
            _ => match network.text("name")? {
                Some(name) => Mode::User(Some(name.to_owned())),
                None => return Err(network.error("name", "is missing: name the network")),
            },
        })
    })?;
    if networks.len() > 1 {
        return Err(top.error("networks", "must be one: a Docker container has a single network"));
    }
    Ok(networks.pop().unwrap_or(Mode::Host))
}

/// `portMappings`, of the container or, in the older schema, of its Docker part.
fn mappings(top: Fields<'_>) -> Result<Option<Vec<AppPort>>, AppError> {
    let found = top.object("container", |container| {
        let of = |fields: Fields<'_>| {
            fields.has("portMappings").then(|| fields.objects("portMappings", mapping)).transpose()
        };
        let newer = of(container)?;
        let older = container.object("docker", of)?.flatten();
        match (&newer, &older) {
            (Some(newer), Some(older)) if !newer.is_empty() && !older.is_empty() => {
                Err(container.error("portMappings", "and docker.portMappings exclude each other"))
            }
            (Some(ports), Some(_)) if !ports.is_empty() => Ok(newer),
            _ => Ok(older.or(newer)),
        }
    })?;
    Ok(found.flatten())
}

fn mapping(mapping: Fields<'_>) -> Result<AppPort, AppError> {
    Ok(AppPort {
        container: Some(mapping.port("containerPort")?.unwrap_or(0)),
        defined: 0,
        host: match mapping.port("hostPort")? {
            None => AppHostPort::None,
            Some(0) => AppHostPort::Any,
            Some(port) => AppHostPort::Fixed(port),
        },
        protocol: protocol(mapping)?,
        name: mapping.text("name")?.map(str::to_owned),
        labels: text_map(mapping, "labels")?,
    })
}

/// `portDefinitions`, or the older `ports`; both when they say the same, of which the former says more.
fn definitions(top: Fields<'_>) -> Result<Option<Vec<AppPort>>, AppError> {
    let fixed = top.flag("requirePorts")?.unwrap_or(false);
    let port = |number: u16, name: Option<&str>| {
        let host = if fixed && number != 0 { AppHostPort::Fixed(number) } else { AppHostPort::Any };
        AppPort { defined: number, ..AppPort::new(name, host) }
    };
    let numbers = top.ports("ports")?;
    if !top.has("portDefinitions") {
        return Ok(top.has("ports").then(|| numbers.into_iter().map(|number| port(number, None)).collect()));
    }
    let definitions = top.objects("portDefinitions", |definition| {
        Ok(AppPort {
            protocol: protocol(definition)?,
            labels: text_map(definition, "labels")?,
            ..port(definition.port("port")?.unwrap_or(0), definition.text("name")?)
        })
    })?;
    if top.has("ports") && !definitions.iter().map(|definition| definition.defined).eq(numbers) {
        return Err(
            top.error("ports", "and portDefinitions exclude each other, unless both name the same ports")
        );
    }
    Ok(Some(definitions))
}

fn protocol(port: Fields<'_>) -> Result<String, AppError> {
    Ok(port.word("protocol", &PROTOCOLS)?.unwrap_or("tcp").to_owned())
}
