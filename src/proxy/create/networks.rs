//! The one network that a container is to be in, and its place there.
//!
//! Docker's own networks, `calico` and the one that compose makes for a project by itself become Calico's. Another
//! network beside the variables would be two networks.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::json::{JsonError, JsonObject};
use super::{body, impossible, invalid, list, map, object, unreadable};
use crate::error::Failure;
use crate::task::request::calico::{shown, CALICO_IP, CALICO_POOL, CALICO_PROFILE};
use crate::task::request::NETWORK;

/// compose's label with the name of the project.
const PROJECT: &str = "com.docker.compose.project";

/// Where the client wants the container to be.
pub(super) struct Place {
    pub network: String,
    pub aliases: Vec<String>,
    /// As the client has written them.
    pub endpoints: Value,
    pub warnings: Vec<String>,
}

pub(super) fn read(
    request: &JsonObject<'_>,
    host: &JsonObject<'_>,
    labels: &BTreeMap<String, String>,
) -> Result<Place, Failure> {
    if !list(host, "Links")?.is_empty() {
        return Err(no_links());
    }
    let networking = object("NetworkingConfig", request.field("NetworkingConfig").unwrap_or("{}"))?;
    let text = networking.field("EndpointsConfig").unwrap_or("null");
    let endpoints = map("EndpointsConfig", if text == "null" { "{}" } else { text })?;
    let mut place = Place {
        network: network(&host.text("NetworkMode"), &endpoints, labels)?,
        aliases: Vec::new(),
        endpoints: serde_json::from_str(text).map_err(|error| unreadable(JsonError::Syntax(error)))?,
        warnings: Vec::new(),
    };
    for (name, settings) in endpoints.entries().filter(|(_, settings)| *settings != "null") {
        endpoint(&object(&format!("the endpoint in {}", shown(name)), settings)?, &mut place)?;
    }
    Ok(place)
}

/// The network's name as Docker shows it.
fn network(
    mode: &str,
    endpoints: &JsonObject<'_>,
    labels: &BTreeMap<String, String>,
) -> Result<String, Failure> {
    let is_default = |name: &str| matches!(name, "" | "default");
    // Docker joins the networks of the endpoints, and the mode's own unless that is the default.
    let mut names: BTreeSet<&str> = endpoints.entries().map(|(name, _)| name).collect();
    names.extend(Some(mode).filter(|mode| !is_default(mode)));
    let names: BTreeSet<&str> =
        names.into_iter().map(|name| if is_default(name) { "bridge" } else { name }).collect();
    let of_project = labels.get(PROJECT).map(|project| format!("{project}_default"));
    let becomes_calico = |name: &str| {
        matches!(name, "bridge" | "host" | "none" | NETWORK) || of_project.as_deref() == Some(name)
    };
    if let Some(other) = names.iter().find(|name| !becomes_calico(name)) {
        let what = match other.strip_prefix("container:") {
            Some(container) => format!("the network of the container {}", shown(container)),
            None => format!("the Docker network {}", shown(other)),
        };
        return Err(contradiction(&what));
    }
    match names.len() {
        0 => Ok("bridge".to_owned()),
        1 => Ok(names.into_iter().collect()),
        _ => Err(contradiction(&format!(
            "several networks, {},",
            names.into_iter().collect::<Vec<_>>().join(" and ")
        ))),
    }
}

fn contradiction(what: &str) -> Failure {
    invalid(format!(
        "the container sets {CALICO_IP}, {CALICO_PROFILE} or {CALICO_POOL} and asks for {what} too; leave the network or the variables out"
    ))
}

fn endpoint(settings: &JsonObject<'_>, place: &mut Place) -> Result<(), Failure> {
    if let Some(ipam) = settings.field("IPAMConfig") {
        let ipam = object("IPAMConfig", ipam)?;
        let address = ["IPv4Address", "IPv6Address"].into_iter().any(|name| !ipam.text(name).is_empty());
        if address || !list(&ipam, "LinkLocalIPs")?.is_empty() {
            return Err(impossible(
                "an address of a Docker network (--ip)",
                &format!("set {CALICO_IP} to the address"),
            ));
        }
    }
    if !settings.text("MacAddress").is_empty() {
        return Err(body::no_mac_address());
    }
    if !list(settings, "Links")?.is_empty() {
        return Err(no_links());
    }
    let aliases = list(settings, "Aliases")?;
    if !aliases.is_empty() {
        let names: Vec<String> = aliases.iter().map(|alias| shown(alias)).collect();
        place.warnings.push(format!(
            "the network aliases {} do not work with Calico; use the container's name in Consul",
            names.join(", ")
        ));
    }
    place.aliases = aliases;
    if let Some(options) = settings.field("DriverOpts") {
        if map("DriverOpts", options)?.entries().next().is_some() {
            place.warnings.push("the network's driver options have no effect with Calico".to_owned());
        }
    }
    Ok(())
}

fn no_links() -> Failure {
    impossible("a link to another container", "leave --link out and use the other container's name in Consul")
}
