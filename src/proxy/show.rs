//! What a client sees of its Calico container: the settings that it has written, filled with what Calico gave.
//!
//! Docker holds such a container without a network, with the runtime `calico` and without ports. Stock executors look
//! an address up under the name of the network mode, and compose makes a container anew whose networks are not the
//! configured ones; so answers to inspect and list are changed back:
//!
//! | in the answer | becomes |
//! | --- | --- |
//! | `HostConfig.NetworkMode`, `Runtime`, `PortBindings`, `PublishAllPorts` | the client's |
//! | `NetworkSettings.Networks.none` | the client's network, with its NetworkID and Calico's address |
//! | `NetworkSettings.IPAddress` and its kind, where the daemon still has them | the same address |
//! | `NetworkSettings.Ports`, `Ports` of the list | the ports that lead to the container |
//!
//! A container that does not run has no addresses and no ports, as with Docker.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{json, Map, Value};

use super::create::{self, Bound, RUNC};
use crate::net::plan::{NEXT_HOP_V4, NEXT_HOP_V6};

/// What is known of one container.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    pub bound: &'a Bound,
    /// Calico's, of the present life or of the last one.
    pub addresses: &'a [IpAddr],
    /// Port of the container, protocol, port of the host.
    pub ports: &'a [(u16, String, u16)],
    /// Docker's ids of its networks, by their names.
    pub network_ids: &'a BTreeMap<String, String>,
    pub running: bool,
}

/// One container of `GET /containers/{id}/json`.
pub fn inspect(answer: &mut Value, shown: &Shown<'_>) {
    let client = &shown.bound.client;
    let mode = mode(answer, shown);
    if let Some(host) = answer.get_mut("HostConfig").and_then(Value::as_object_mut) {
        host.insert("NetworkMode".into(), mode.into());
        let runtime = if client.runtime.is_empty() { RUNC } else { &client.runtime };
        host.insert("Runtime".into(), runtime.into());
        if !client.port_bindings.is_null() {
            host.insert("PortBindings".into(), client.port_bindings.clone());
        }
        host.insert("PublishAllPorts".into(), client.publish_all.into());
    }
    let Some(settings) = answer.get_mut("NetworkSettings").and_then(Value::as_object_mut) else { return };
    settings.insert("Ports".into(), port_map(shown));
    for (key, value) in addresses(shown) {
        // Daemons of Docker 29 and later have them in the network alone.
        if settings.contains_key(key) {
            settings.insert(key.into(), value);
        }
    }
    join(settings, shown);
    let own = settings.get_mut("Networks").and_then(|networks| networks.get_mut(&client.network));
    if let (Some(own), false) = (own, client.aliases.is_empty()) {
        own["Aliases"] = json!(client.aliases);
    }
}

/// One entry of `GET /containers/json`.
pub fn listed(entry: &mut Value, shown: &Shown<'_>) {
    let mode = mode(entry, shown);
    if let Some(host) = entry.get_mut("HostConfig").and_then(Value::as_object_mut) {
        host.insert("NetworkMode".into(), mode.into());
    }
    if let Some(settings) = entry.get_mut("NetworkSettings").and_then(Value::as_object_mut) {
        join(settings, shown);
    }
    if let Some(ports) = entry.get_mut("Ports") {
        let published = open(shown).flat_map(|(container, protocol, host)| {
            every_address(shown).map(move |address| {
                json!({"IP": address, "PrivatePort": container, "PublicPort": host, "Type": protocol})
            })
        });
        *ports = published.chain(unpublished(shown)).collect();
    }
}

/// What the client has written. Nothing is the default, which Docker 26 and later show by the network's own name.
fn mode<'a>(answer: &Value, shown: &Shown<'a>) -> &'a str {
    let client = &shown.bound.client;
    let networks = answer.pointer("/NetworkSettings/Networks").and_then(Value::as_object);
    // A field of endpoints that came at about the same time.
    let named = networks.is_some_and(|networks| networks.values().any(|end| end.get("DNSNames").is_some()));
    match client.network_mode.as_str() {
        "" | "default" if named => &client.network,
        "" => "default",
        mode => mode,
    }
}

/// Puts the client's network in the place of Docker's `none`.
fn join(settings: &mut Map<String, Value>, shown: &Shown<'_>) {
    let network = &shown.bound.client.network;
    let networks = settings.get("Networks").and_then(Value::as_object);
    // It has the fields that this daemon gives an endpoint.
    let as_docker = networks.and_then(|networks| networks.values().find(|value| value.is_object()));
    let mut endpoint = as_docker.cloned().unwrap_or_else(|| {
        json!({"IPAMConfig": null, "Links": null, "Aliases": null, "EndpointID": "", "MacAddress": "", "DriverOpts": null})
    });
    let id = shown.network_ids.get(network).map_or("", String::as_str);
    endpoint["NetworkID"] = id.into();
    for (key, value) in addresses(shown) {
        endpoint[key] = value;
    }
    settings.insert("Networks".into(), json!({ network: endpoint }));
}

/// The fields of an endpoint that hold addresses, all of them empty if it has none.
fn addresses(shown: &Shown<'_>) -> [(&'static str, Value); 6] {
    let find = |fits: fn(&IpAddr) -> bool| {
        shown.addresses.iter().find(|address| shown.running && fits(address)).map(ToString::to_string)
    };
    let (v4, v6) = (find(IpAddr::is_ipv4), find(IpAddr::is_ipv6));
    let with = |address: &Option<String>, value: Value, none: Value| match address {
        Some(_) => value,
        None => none,
    };
    [
        ("Gateway", with(&v4, NEXT_HOP_V4.to_string().into(), "".into())),
        ("IPPrefixLen", with(&v4, 32.into(), 0.into())),
        ("IPv6Gateway", with(&v6, NEXT_HOP_V6.to_string().into(), "".into())),
        ("GlobalIPv6PrefixLen", with(&v6, 128.into(), 0.into())),
        ("IPAddress", v4.unwrap_or_default().into()),
        ("GlobalIPv6Address", v6.unwrap_or_default().into()),
    ]
}

/// The list's lines for ports that are exposed and lead nowhere.
fn unpublished<'a>(shown: &'a Shown<'a>) -> impl Iterator<Item = Value> + use<'a> {
    let exposed =
        shown.bound.client.exposed.iter().filter(|_| shown.running).filter_map(|port| create::port(port));
    let closed = exposed.filter(|(container, protocol)| {
        !open(shown).any(|(open, name, _)| open == *container && name == protocol.name())
    });
    closed.map(|(container, protocol)| json!({"PrivatePort": container, "Type": protocol.name()}))
}

fn open<'a>(shown: &Shown<'a>) -> impl Iterator<Item = (u16, &'a str, u16)> + use<'a> {
    let ports = if shown.running { shown.ports } else { &[] };
    ports.iter().map(|(container, protocol, host)| (*container, protocol.as_str(), *host))
}

/// Docker's word for every address of the host, in each family that leads to the container.
fn every_address(shown: &Shown<'_>) -> impl Iterator<Item = &'static str> + use<> {
    let has = |fits: fn(&IpAddr) -> bool| shown.addresses.iter().any(fits);
    let families = [("0.0.0.0", has(IpAddr::is_ipv4)), ("::", has(IpAddr::is_ipv6))];
    families.into_iter().filter(|(_, leads)| *leads).map(|(word, _)| word)
}

/// `"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]`; `null` for what is exposed and not published.
fn port_map(shown: &Shown<'_>) -> Value {
    let mut map = Map::new();
    if shown.running {
        map.extend(shown.bound.client.exposed.iter().map(|port| (port.clone(), Value::Null)));
    }
    for (container, protocol, host) in open(shown) {
        let bindings = map.entry(format!("{container}/{protocol}")).or_insert(Value::Null);
        let own =
            every_address(shown).map(|address| json!({"HostIp": address, "HostPort": host.to_string()}));
        match bindings {
            Value::Array(list) => list.extend(own),
            other => *other = own.collect(),
        }
    }
    Value::Object(map)
}

#[cfg(test)]
mod tests;
