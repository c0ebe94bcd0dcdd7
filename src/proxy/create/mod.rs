//! What the body of `POST /containers/create` asks of Calico, and the body that Docker gets instead.
//!
//! The variables of the request's own Env count, never the image's. Docker's rules for Env: of two lines of one name
//! the last is the container's, and a name alone takes only the image's variable away. Without a CALICO variable the
//! container is none of ours, and every byte of the request stays as it is. With one:
//!
//! | of the request | Docker gets | kept in [`Bound`] |
//! | --- | --- | --- |
//! | `HostConfig.Runtime` | `calico` | as it was, for the client's own eyes |
//! | `HostConfig.NetworkMode`, `NetworkingConfig` | `none`, no endpoint | as they were; the network's name |
//! | `HostConfig.PortBindings`, `PublishAllPorts` | none | the ports that are to lead to the container |
//! | `HostConfig.Dns` and its kind, all empty | config.toml's `[dns]` | – |
//! | `Labels`, some variables | as they are | task id, app, labels |
//!
//! What contradicts an address of Calico's is refused, with the code that an executor's task fails with. Pure, but for
//! links in the paths of volumes, which are followed.

mod body;
mod networks;
mod ports;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json::{self, JsonError, JsonObject};
use crate::config::Config;
use crate::error::{is_deceptive, Code, Failure};
use crate::names::service_name;
use crate::task::request::calico::{CalicoRequest, CALICO_IP, CALICO_POOL, CALICO_PROFILE, SERVICE_PORT};
use crate::task::request::MOST_LABELS;

pub use body::{checkpoint_refused, network_call, network_refused, refuse_service, RUNC};
pub use ports::{port, WantedPort};

/// A container's label, or variable, with its name in Consul.
pub const CALICO_SERVICE: &str = "CALICO_SERVICE";
/// The longest task id or app id that is kept.
const MAX_ID: usize = 512;

/// Whose the new container is.
#[derive(Debug, Clone, PartialEq)]
pub enum Creation {
    /// Docker's alone: the request goes on as it came.
    Plain,
    Calico(Box<CalicoCreation>),
}

/// A container that gets an address of Calico's.
#[derive(Debug, Clone, PartialEq)]
pub struct CalicoCreation {
    /// What Docker gets.
    pub body: Vec<u8>,
    pub bound: Bound,
    /// What the request contains without effect, a sentence each.
    pub warnings: Vec<String>,
}

/// What a container's client has asked for. It goes to disk with the container's binding.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bound {
    /// CALICO_IP, CALICO_PROFILE, CALICO_POOL and SERVICE_PORT as far as they are set: read again at each start,
    /// within the configuration of then.
    pub variables: BTreeMap<String, String>,
    /// MESOS_TASK_ID, else the name of the container, else empty. On one line.
    pub task_id: String,
    /// MARATHON_APP_ID, else CALICO_SERVICE as a label or as a variable, else empty. On one line.
    pub app: String,
    /// The app's name in Consul; empty: it has none.
    pub service: String,
    pub labels: BTreeMap<String, String>,
    pub ports: Vec<WantedPort>,
    pub client: ClientSettings,
}

/// What the client has written where Docker got something else.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientSettings {
    pub network_mode: String,
    pub runtime: String,
    pub port_bindings: Value,
    pub publish_all: bool,
    /// The container's exposed ports, `80/tcp`; those of the image only after [`Bound::expose`].
    pub exposed: BTreeSet<String>,
    /// `NetworkingConfig.EndpointsConfig`.
    pub endpoints: Value,
    /// The network's name as Docker shows it: `bridge` for `default`.
    pub network: String,
    /// The container's aliases in that network.
    pub aliases: Vec<String>,
}

impl Bound {
    /// The request for an address, within the operator's limits.
    pub fn request(&self, config: &Config) -> Result<CalicoRequest, Failure> {
        let variable = |name: &str| self.variables.get(name).map(String::as_str);
        // A binding without variables is that of no Calico container.
        CalicoRequest::read(variable, true)?.unwrap_or_default().within(config)
    }

    /// Adds what the request does not have: the ports that the image exposes, which the list shows and `-P` publishes.
    /// They stand in `Config.ExposedPorts` of the inspected container.
    pub fn expose(&mut self, exposed: &Value) {
        let Some(exposed) = exposed.as_object() else { return };
        self.client.exposed.extend(exposed.keys().cloned());
        if self.client.publish_all {
            ports::expose(&mut self.ports, exposed.keys().map(String::as_str));
        }
    }
}

/// Understands the body of a create request. A [`Failure`] is for the client: the container must not be made.
pub fn read(body: &[u8], name: Option<&str>, config: &Config) -> Result<Creation, Failure> {
    let text = json::text(body);
    // Docker refuses whatever is not an object, and an Env that is not a list of strings.
    let Some(request) = JsonObject::of_struct(&text).map_err(unreadable)? else { return Ok(Creation::Plain) };
    let lines = request.field("Env").map(json::strings).transpose().map_err(unreadable)?;
    let variables = variables(lines.flatten().unwrap_or_default());
    let variable = |name: &str| variables.get(name).map(String::as_str);
    let Some(calico) = CalicoRequest::read(variable, false)? else { return Ok(Creation::Plain) };
    calico.within(config)?;

    body::refuse_the_impossible(&request)?;
    let host_text = request.field("HostConfig").unwrap_or("{}").to_owned();
    let host = object("HostConfig", &host_text)?;
    let labels = labels(&request)?;
    let runtime = body::runtime(&host)?;
    body::refuse_volumes(&host, config)?;
    let place = networks::read(&request, &host, &labels)?;
    let ports = ports::read(&request, &host)?;

    let app = match (variable("MARATHON_APP_ID"), labels.get(CALICO_SERVICE), variable(CALICO_SERVICE)) {
        (Some(app), ..) if !app.is_empty() => app,
        (_, Some(service), _) if !service.is_empty() => service,
        (.., service) => service.unwrap_or_default(),
    };
    let task_id = variable("MESOS_TASK_ID").filter(|id| !id.is_empty()).or(name).unwrap_or_default();
    let ours = [CALICO_IP, CALICO_PROFILE, CALICO_POOL, SERVICE_PORT];
    let bound = Bound {
        variables: ours
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), variable(name)?.to_owned())))
            .collect(),
        task_id: on_a_line(task_id),
        // The name derives from the whole id, the beginning of which is kept.
        service: service_name(app),
        app: on_a_line(app),
        labels,
        ports: ports.wanted,
        client: ClientSettings {
            network_mode: host.text("NetworkMode"),
            runtime,
            port_bindings: value(&host, "PortBindings")?,
            publish_all: ports.publish_all,
            exposed: ports.exposed,
            endpoints: place.endpoints,
            network: place.network,
            aliases: place.aliases,
        },
    };
    let body = body::edited(request, host, config).into_bytes();
    Ok(Creation::Calico(Box::new(CalicoCreation { body, bound, warnings: place.warnings })))
}

/// The variables of a container's Env.
fn variables(lines: Vec<String>) -> BTreeMap<String, String> {
    let set = lines.iter().filter_map(|line| line.split_once('='));
    set.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn labels(request: &JsonObject<'_>) -> Result<BTreeMap<String, String>, Failure> {
    let Some(text) = request.field("Labels") else { return Ok(BTreeMap::new()) };
    let labels = map("Labels", text)?;
    let read = labels.entries().map(|(key, value)| Some((key.to_owned(), json::string(value)?)));
    let read: BTreeMap<_, _> =
        read.collect::<Option<_>>().ok_or_else(|| wrong("Labels", "a map of strings"))?;
    match read.len() {
        0..=MOST_LABELS => Ok(read),
        many => Err(invalid(format!(
            "the container has {many} labels; a Calico container can have at most {MOST_LABELS}"
        ))),
    }
}

/// An object's field, taken apart no further.
fn value(object: &JsonObject<'_>, name: &str) -> Result<Value, Failure> {
    let text = object.field(name).unwrap_or("null");
    serde_json::from_str(text).map_err(|error| unreadable(JsonError::Syntax(error)))
}

fn object<'a>(what: &str, text: &'a str) -> Result<JsonObject<'a>, Failure> {
    JsonObject::of_struct(text).map_err(unreadable)?.ok_or_else(|| wrong(what, "an object"))
}

fn map<'a>(what: &str, text: &'a str) -> Result<JsonObject<'a>, Failure> {
    JsonObject::of_map(text).map_err(unreadable)?.ok_or_else(|| wrong(what, "a map"))
}

/// The strings of a list, which may be missing.
fn list(object: &JsonObject<'_>, name: &str) -> Result<Vec<String>, Failure> {
    let Some(text) = object.field(name) else { return Ok(Vec::new()) };
    json::strings(text).map_err(unreadable)?.ok_or_else(|| wrong(name, "a list of strings"))
}

fn on_a_line(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_ID)].replace(is_deceptive, " ")
}

fn unreadable(error: JsonError) -> Failure {
    invalid(format!("the body of the request cannot be used: {error}"))
}

fn wrong(field: &str, expected: &str) -> Failure {
    invalid(format!("{field} in the request is not {expected}"))
}

fn invalid(message: impl Into<Cow<'static, str>>) -> Failure {
    Failure::new(Code::TaskInvalid, message.into())
}

/// Why a setting cannot stand beside the variables, and what to do.
fn impossible(what: &str, advice: &str) -> Failure {
    let variables = format!("{CALICO_IP}, {CALICO_PROFILE} or {CALICO_POOL}");
    Failure::new(
        Code::Parameter,
        format!("{what} is not possible for a container that sets {variables}; {advice}"),
    )
}

#[cfg(test)]
mod tests;
