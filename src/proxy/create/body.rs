//! The parts of a create request that are neither network nor ports, and the small bodies of other calls.

use serde_json::json;

use super::super::json::{self, JsonObject};
use super::{impossible, list, map, object, unreadable, variables, wrong};
use crate::config::Config;
use crate::error::{Code, Failure};
use crate::names::RUNTIME;
use crate::task::request::calico::{shown, CALICO_IP, CALICO_POOL, CALICO_PROFILE};
use crate::task::request::{configured_dns, refuse_our_folders};
use crate::workload::{ContainerSpec, Mount, MountKind};

/// Docker's name of the runtime that a container gets by default.
pub const RUNC: &str = "runc";

/// Fields of a HostConfig that daemons before Docker 25 read at the top of a request that has no HostConfig.
const ONCE_AT_THE_TOP: [&str; 22] = [
    "Binds",
    "Mounts",
    "VolumesFrom",
    "Tmpfs",
    "NetworkMode",
    "PortBindings",
    "PublishAllPorts",
    "Links",
    "Dns",
    "DnsSearch",
    "DnsOptions",
    "ExtraHosts",
    "Runtime",
    "UsernsMode",
    "PidMode",
    "IpcMode",
    "Privileged",
    "CapAdd",
    "CapDrop",
    "Devices",
    "SecurityOpt",
    "RestartPolicy",
];

/// Refuses what cannot be in a request for a Calico container, beside its HostConfig.
pub(super) fn refuse_the_impossible(request: &JsonObject<'_>) -> Result<(), Failure> {
    if request.field("NetworkDisabled") == Some("true") {
        return Err(impossible("NetworkDisabled", "leave it or the variables out"));
    }
    if !request.text("MacAddress").is_empty() {
        return Err(no_mac_address());
    }
    let misplaced = ONCE_AT_THE_TOP.iter().find(|name| request.field(name).is_some());
    match misplaced.filter(|_| request.field("HostConfig").is_none()) {
        Some(name) => Err(impossible(&format!("{name} beside HostConfig"), "write it into HostConfig")),
        None => Ok(()),
    }
}

pub(super) fn no_mac_address() -> Failure {
    impossible("a MAC address of its own", "leave --mac-address out")
}

/// The runtime that the client has written; refuses one that cannot be replaced.
pub(super) fn runtime(host: &JsonObject<'_>) -> Result<String, Failure> {
    if !host.text("UsernsMode").is_empty() {
        return Err(impossible("a user namespace mode", "leave --userns out"));
    }
    let runtime = host.text("Runtime");
    match runtime.as_str() {
        "" | RUNC | RUNTIME => Ok(runtime),
        other => {
            let what = format!("the runtime {}", shown(other));
            Err(impossible(&what, &format!("leave --runtime out: its runtime is {RUNTIME}")))
        }
    }
}

/// Refuses binds and mounts that show the container our own folders, and those of other containers, which may.
pub(super) fn refuse_volumes(host: &JsonObject<'_>, config: &Config) -> Result<(), Failure> {
    let mounts = host.field("Mounts").map(json::items).transpose().map_err(unreadable)?;
    let mounts = mounts.map_or(Ok(Vec::new()), |items| items.ok_or_else(|| wrong("Mounts", "a list")))?;
    let mounts = mounts.into_iter().filter(|mount| *mount != "null").map(mount);
    let spec = ContainerSpec {
        binds: list(host, "Binds")?,
        mounts: mounts.collect::<Result<_, _>>()?,
        ..ContainerSpec::default()
    };
    refuse_our_folders(&spec, config)?;
    match list(host, "VolumesFrom")?.is_empty() {
        true => Ok(()),
        false => Err(impossible("HostConfig.VolumesFrom (--volumes-from)", "name the volumes themselves")),
    }
}

fn mount(text: &str) -> Result<Mount, Failure> {
    let mount = object("a mount", text)?;
    let mut driver_options = Vec::new();
    if let Some(volume) = mount.field("VolumeOptions") {
        let volume = object("VolumeOptions", volume)?;
        if let Some(driver) = volume.field("DriverConfig") {
            let driver = object("DriverConfig", driver)?;
            let options = map("Options", driver.field("Options").unwrap_or("{}"))?;
            let read = options.entries().map(|(key, value)| Some((key.to_owned(), json::string(value)?)));
            driver_options =
                read.collect::<Option<_>>().ok_or_else(|| wrong("Options", "a map of strings"))?;
        }
    }
    Ok(Mount {
        // A kind of a later release shows what it may.
        kind: match mount.text("Type").as_str() {
            "volume" => MountKind::Volume,
            "tmpfs" => MountKind::Tmpfs,
            "image" => MountKind::Image,
            _ => MountKind::Bind,
        },
        source: mount.text("Source"),
        driver_options: driver_options.into_iter().collect(),
        ..Mount::default()
    })
}

/// The request as Docker gets it. All that is not named here stays.
pub(super) fn edited(mut request: JsonObject<'_>, mut host: JsonObject<'_>, config: &Config) -> String {
    host.set("Runtime", &json!(RUNTIME));
    host.set("NetworkMode", &json!("none"));
    for (name, none) in [("PortBindings", json!({})), ("PublishAllPorts", json!(false))] {
        // What is not there stays so: answers of some daemons show the difference.
        if host.field(name).is_some() {
            host.set(name, &none);
        }
    }
    let mut spec = ContainerSpec {
        dns: list(&host, "Dns").unwrap_or_default(),
        dns_search: list(&host, "DnsSearch").unwrap_or_default(),
        dns_options: list(&host, "DnsOptions").unwrap_or_default(),
        ..ContainerSpec::default()
    };
    let client = spec.clone();
    configured_dns(config, &mut spec);
    if spec != client {
        host.set("Dns", &json!(spec.dns));
        host.set("DnsSearch", &json!(spec.dns_search));
        host.set("DnsOptions", &json!(spec.dns_options));
    }
    if request.field("NetworkingConfig").is_some() {
        request.set("NetworkingConfig", &json!({"EndpointsConfig": {}}));
    }
    request.set_text("HostConfig", host.to_string());
    request.to_string()
}

/// Refuses a Swarm service whose tasks would ask for Calico: Docker makes them where no proxy sees it.
pub fn refuse_service(body: &[u8]) -> Result<(), Failure> {
    let text = json::text(body);
    let mut path = vec![text.into_owned()];
    for name in ["TaskTemplate", "ContainerSpec"] {
        let outer = path.last().map_or("null", String::as_str);
        let inner = JsonObject::of_struct(outer).map_err(unreadable)?;
        let Some(inner) = inner.as_ref().and_then(|object| object.field(name)) else { return Ok(()) };
        path.push(inner.to_owned());
    }
    let container = path.last().map_or("null", String::as_str);
    let Some(container) = JsonObject::of_struct(container).map_err(unreadable)? else { return Ok(()) };
    let lines = container.field("Env").map(json::strings).transpose().map_err(unreadable)?;
    let variables = variables(lines.flatten().unwrap_or_default());
    match [CALICO_IP, CALICO_PROFILE, CALICO_POOL].iter().find(|name| variables.contains_key(**name)) {
        Some(name) => Err(Failure::new(
            Code::Unsupported,
            format!("{name} has no effect on a Swarm service, whose tasks Docker starts by itself; leave the variable out, or start containers"),
        )),
        None => Ok(()),
    }
}

/// The container that the body of a network's connect or disconnect call names.
pub fn network_call(body: &[u8]) -> Option<String> {
    let text = json::text(body);
    let call = JsonObject::of_loose_struct(&text).ok()??;
    Some(call.text("Container")).filter(|name| !name.is_empty())
}

/// Refuses a checkpoint of a Calico container: its address would be there twice after a restore.
pub fn checkpoint_refused() -> Failure {
    impossible("a checkpoint", "stop the container and start it again instead")
}

/// Refuses a Calico container a network beside its own, or to be without it.
pub fn network_refused() -> Failure {
    Failure::new(
        Code::Unsupported,
        "the container has a network of Calico's, which is its only one; \
         make it anew without CALICO variables to connect it to others",
    )
}
