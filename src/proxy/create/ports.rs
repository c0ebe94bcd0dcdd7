//! The ports of the host that are to lead to a container.
//!
//! | of the request | becomes |
//! | --- | --- |
//! | `"80/tcp": [{"HostPort": "8080"}]` | the host's port 8080 |
//! | `"HostPort": "8000-8010"` | one of these, whichever is free |
//! | `"HostPort": ""` or `"0"` | a port that is chosen when the container is bound |
//! | `PublishAllPorts` | such a port for each exposed port without another one; those that only the image exposes are added by [`super::Bound::expose`], when the container is there to be inspected |
//! | `HostIp` other than all addresses | refused: the ports answer on every address of the host |

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::super::json::{self, JsonObject};
use super::{impossible, invalid, map, object, unreadable, wrong};
use crate::error::Failure;
use crate::net::forward::Protocol;
use crate::task::request::calico::shown;

/// A port of the host that is to lead to one of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedPort {
    pub container: u16,
    pub protocol: Protocol,
    /// `None`: any that is free, of the range if there is one.
    pub host: Option<u16>,
    /// The first and the last port to choose from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<(u16, u16)>,
}

impl WantedPort {
    fn any(container: u16, protocol: Protocol) -> Self {
        Self { container, protocol, host: None, range: None }
    }
}

/// All that a request says of ports.
pub(super) struct Ports {
    pub wanted: Vec<WantedPort>,
    pub exposed: BTreeSet<String>,
    pub publish_all: bool,
}

pub(super) fn read(request: &JsonObject<'_>, host: &JsonObject<'_>) -> Result<Ports, Failure> {
    let mut wanted = Vec::new();
    let bindings = map("PortBindings", host.field("PortBindings").unwrap_or("{}"))?;
    for (key, list) in bindings.entries() {
        let (container, protocol) = port(key).ok_or_else(|| {
            invalid(format!("the container port {} is not like 80/tcp or 53/udp", shown(key)))
        })?;
        if protocol == Protocol::Sctp {
            let what = format!("the SCTP port {container}");
            return Err(impossible(
                &what,
                "publish TCP and UDP ports, and reach this one at the container's address",
            ));
        }
        let list = if list == "null" { "[]" } else { list };
        let list =
            json::items(list).map_err(unreadable)?.ok_or_else(|| wrong("PortBindings", "a map of lists"))?;
        for binding in list {
            let port = binding_of(&object("a port binding", binding)?, container, protocol)?;
            // One for each family of addresses is one.
            if port.host.is_none() || !wanted.contains(&port) {
                wanted.push(port);
            }
        }
    }
    refuse_two_ways(&wanted)?;
    let publish_all = host.field("PublishAllPorts") == Some("true");
    let exposed = map("ExposedPorts", request.field("ExposedPorts").unwrap_or("{}"))?;
    let exposed: BTreeSet<String> = exposed.entries().map(|(key, _)| key.to_owned()).collect();
    if publish_all {
        expose(&mut wanted, exposed.iter().map(String::as_str));
    }
    Ok(Ports { wanted, exposed, publish_all })
}

/// Adds a port of no certain number for each exposed one that has none.
pub(super) fn expose<'a>(wanted: &mut Vec<WantedPort>, exposed: impl Iterator<Item = &'a str>) {
    for (container, protocol) in exposed.filter_map(port) {
        let has_one = wanted.iter().any(|port| port.container == container && port.protocol == protocol);
        if !has_one && protocol != Protocol::Sctp {
            wanted.push(WantedPort::any(container, protocol));
        }
    }
}

fn binding_of(binding: &JsonObject<'_>, container: u16, protocol: Protocol) -> Result<WantedPort, Failure> {
    let address = binding.text("HostIp");
    if !matches!(address.as_str(), "" | "0.0.0.0" | "::") {
        let what = format!("a port at the host's address {} alone", shown(&address));
        return Err(impossible(
            &what,
            "leave the address out: the ports answer on every address of the host",
        ));
    }
    let text = binding.field("HostPort").map_or(Some(String::new()), json::string);
    let text = text.ok_or_else(|| wrong("HostPort", "a string"))?;
    let any = WantedPort::any(container, protocol);
    if matches!(text.as_str(), "" | "0") {
        return Ok(any);
    }
    let range = match text.split_once('-') {
        Some((first, last)) => number(first).zip(number(last)),
        None => number(&text).map(|port| (port, port)),
    };
    match range {
        Some((first, last)) if first == last => Ok(WantedPort { host: Some(first), ..any }),
        Some((first, last)) if first < last => Ok(WantedPort { range: range.map(|_| (first, last)), ..any }),
        _ => Err(invalid(format!("the host port {} is neither a port nor a range of ports", shown(&text)))),
    }
}

fn refuse_two_ways(wanted: &[WantedPort]) -> Result<(), Failure> {
    let mut leads = BTreeMap::new();
    for port in wanted {
        let Some(host) = port.host else { continue };
        let other = leads.insert((host, port.protocol), port.container);
        if other.is_some_and(|other| other != port.container) {
            return Err(invalid(format!("the host port {host} is mapped to two ports of the container")));
        }
    }
    Ok(())
}

/// `80/tcp`, `53/UDP`, `80`.
pub fn port(text: &str) -> Option<(u16, Protocol)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    Some((number(port)?, Protocol::parse(&protocol.to_ascii_lowercase())?))
}

fn number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}
