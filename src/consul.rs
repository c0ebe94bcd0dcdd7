//! Consul: what a Calico task is registered as, and the few requests for it to this host's agent.
//!
//! | name | address | port | entries |
//! | --- | --- | --- | --- |
//! | `<app>-direct` | the task's own | each of SERVICE_PORT, its name as tag | one an address and port |
//! | `<app>` | the host's | each that leads to the task, its name as tag | one a port or, where none leads to the task, one without; unless mesos-consul or the configuration sees to it |
//!
//! A task with a health check has one on each entry, which its executor keeps up to date: a TTL check whose time
//! never comes. So there is no request while nothing changes, an agent that is restarted reads the state
//! back from its disk, and DNS leaves out what is critical.
//!
//! Every id begins with [`PREFIX`] and the Mesos ContainerID: instances of one app never overwrite each
//! other, and entries with other ids belong to other programs and are left alone. A [`Client`] reads token and
//! certificates when it is made and keeps no connection: make one when needed, drop it afterwards.
//! Source of facts: Consul's HTTP API documentation, seen with 1.22.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};

use crate::config::Config;
use crate::host::resolve;
use crate::limits::CONSUL_REQUEST;
use crate::names::ContainerId;
use crate::tls;

/// How all ids of ours begin.
pub const PREFIX: &str = "calico-mesos-";
/// How mesos-consul's begin: it registers `<app>` at the hosts itself.
const MESOS_CONSUL: &str = "mesos-consul:";
/// The length of a ContainerID's text.
const UUID_LENGTH: usize = 36;
/// A state holds until the next update: ten years.
const TTL: &str = "87600h";
const PASSING: &str = "passing";
/// Metadata of an entry: the app's id, on which of Calico's nodes the task runs, and since when.
const APP: &str = "mesos-app";
const NODE: &str = "calico-node";
const SINCE: &str = "mesos-task-since";
/// What is kept of a reason.
const REASON_MAX: usize = 400;
/// Consul's limit for a value of a service's metadata.
const META_MAX: usize = 512;

/// One entry, as it is or will be registered with an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Service {
    #[serde(rename = "ID")]
    pub id: String,
    // Registered as `Name`, listed as `Service`.
    #[serde(alias = "Service")]
    pub name: String,
    #[serde(with = "address")]
    pub address: IpAddr,
    #[serde(default, with = "port", skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
    /// The state of the entry's own check; an entry without one always counts as well.
    #[serde(rename = "Check", default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// What is known of a task's health.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Check")]
pub struct Health {
    pub healthy: bool,
    /// For people, in Consul's own pages.
    pub why: String,
}

impl Health {
    fn status(&self) -> &'static str {
        match self.healthy {
            true => PASSING,
            false => "critical",
        }
    }
}

/// The part of a check's definition that makes a difference.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    status: String,
    notes: String,
}

impl From<Check> for Health {
    fn from(check: Check) -> Self {
        Self { healthy: check.status == PASSING, why: check.notes }
    }
}

impl Serialize for Health {
    /// A check that comes with its entry; the id is Consul's to choose, see [`Client::report`].
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let check =
            [("Name", "Mesos health check"), ("TTL", TTL), ("Status", self.status()), ("Notes", &self.why)];
        serializer.collect_map(check)
    }
}

/// A running task, as far as Consul is concerned.
pub struct Instance<'a> {
    /// The service's name, see [`crate::names::service_name`].
    pub name: &'a str,
    /// As the framework calls it: `/prod/web`.
    pub app_id: &'a str,
    pub task_id: &'a str,
    pub container: &'a ContainerId,
    /// Calico's name of the host.
    pub node: &'a str,
    /// RFC 3339, UTC.
    pub since: &'a str,
    pub addresses: &'a [IpAddr],
    /// Port and, if it has one, its name.
    pub ports: &'a [(u16, Option<String>)],
}

impl Instance<'_> {
    /// `<app>-direct`: one entry an address and port, or one an address when no port is known. An app of which no
    /// name is left has none.
    pub fn direct(&self) -> Vec<Service> {
        let mut services = Vec::new();
        if self.name.is_empty() {
            return services;
        }
        for address in self.addresses {
            let family = if address.is_ipv6() { "-v6" } else { "" };
            let mut add = |suffix: String, port, tags| {
                services.push(Service {
                    id: format!("{PREFIX}{}-{suffix}{family}", self.container),
                    name: format!("{}-direct", self.name),
                    address: *address,
                    port,
                    tags,
                    meta: self.meta(),
                    health: None,
                });
            };
            if self.ports.is_empty() {
                add("direct".to_owned(), None, Vec::new());
            }
            for (port, name) in self.ports {
                add(port.to_string(), Some(*port), name.iter().cloned().collect());
            }
        }
        services
    }

    /// `<app>` at the host. [`Client::has_foreign_instance`] and the configuration's `consul.host_service` decide
    /// whether it is wanted.
    ///
    /// `ports` of the host that lead to the task; a client that looks for one of several asks for its tag. What ends in
    /// `-direct` is the name of another app's own addresses: there is no entry then.
    pub fn host(&self, host: IpAddr, ports: &BTreeMap<u16, Option<String>>) -> Vec<Service> {
        if !may_have_host_entry(self.name) {
            return Vec::new();
        }
        let entry = |suffix: &str, port, tags| Service {
            id: format!("{PREFIX}{}-host{suffix}", self.container),
            name: self.name.to_owned(),
            address: host,
            port,
            tags,
            meta: self.meta(),
            health: None,
        };
        if ports.is_empty() {
            return vec![entry("", None, Vec::new())];
        }
        let with_port = |(port, name): (&u16, &Option<String>)| {
            entry(&format!("-{port}"), Some(*port), name.iter().cloned().collect())
        };
        ports.iter().map(with_port).collect()
    }

    fn meta(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (APP.to_owned(), cut(self.app_id, META_MAX).to_owned()),
            ("mesos-task".to_owned(), cut(self.task_id, META_MAX).to_owned()),
            (NODE.to_owned(), cut(self.node, META_MAX).to_owned()),
            (SINCE.to_owned(), self.since.to_owned()),
        ])
    }
}

/// Whether an app of this name may be registered at its host's address.
pub fn may_have_host_entry(name: &str) -> bool {
    !name.is_empty() && !name.ends_with("-direct")
}

/// The first `most` bytes, or a few less.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

impl Service {
    /// The container that an entry of ours is for. Ours is what looks like it to the last letter: a cleaner puts
    /// the id into the path of a request, and anyone who may register a service chooses its id.
    pub fn container(&self) -> Option<ContainerId> {
        let (text, suffix) = self.id.strip_prefix(PREFIX)?.split_at_checked(UUID_LENGTH)?;
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if suffix.len() < 2 || !suffix.starts_with('-') || !suffix.bytes().all(legal) {
            return None;
        }
        ContainerId::parse(text).ok().filter(|container| container.as_str() == text)
    }

    /// On which node the task runs; entries of older releases do not have it.
    pub fn node(&self) -> Option<&str> {
        self.meta.get(NODE).map(String::as_str)
    }

    /// Since when the task runs, RFC 3339.
    pub fn since(&self) -> Option<&str> {
        self.meta.get(SINCE).map(String::as_str)
    }
}

/// This host's Consul agent.
pub struct Client {
    http: reqwest::Client,
    address: String,
    token: Option<String>,
}

impl Client {
    pub fn new(config: &Config) -> Result<Self, ConsulError> {
        let consul = &config.consul;
        let address = consul.address.trim_end_matches('/').to_owned();
        let with_tls = |source| ConsulError::Tls { address: address.clone(), source };
        let tls = if address.starts_with("https://") {
            tls::read(consul.ca_file.as_deref(), consul.cert_file.as_deref(), consul.key_file.as_deref())
                .and_then(|material| material.client_config())
                .map_err(with_tls)?
        } else {
            tls::trust_nobody().map_err(with_tls)?
        };
        let token = match &consul.token_file {
            Some(path) => Some(
                std::fs::read_to_string(path)
                    .map_err(|source| ConsulError::Token { path: path.clone(), source })?
                    .trim()
                    .to_owned(),
            ),
            None => None,
        };
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            // The environment belongs to a task: no http_proxy out of it.
            .no_proxy()
            .dns_resolver(Arc::new(Hosts))
            .pool_max_idle_per_host(0)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(CONSUL_REQUEST)
            .build()
            .map_err(|source| ConsulError::Client { address: address.clone(), source: Box::new(source) })?;
        Ok(Self { http, address, token })
    }

    /// Adds the entry, or replaces the one with its id.
    pub async fn register(&self, service: &Service) -> Result<(), ConsulError> {
        let what = format!("register {}", service.name);
        self.ask(Method::PUT, "/v1/agent/service/register", Some(service), what).await.map(drop)
    }

    /// Updates the state of an entry's check. `false` when Consul does not have the entry, or its check, (any more).
    pub async fn report(&self, id: &str, health: &Health) -> Result<bool, ConsulError> {
        let path = format!("/v1/agent/check/update/service:{id}");
        let body = BTreeMap::from([("Status", health.status()), ("Output", cut(&health.why, REASON_MAX))]);
        match self.ask(Method::PUT, &path, Some(&body), format!("update the health of {id}")).await {
            Err(error) if error.is_of_unknown_check() => Ok(false),
            result => result.map(|_| true),
        }
    }

    /// Removes the entry; false when it is not there.
    pub async fn deregister(&self, id: &str) -> Result<bool, ConsulError> {
        let path = format!("/v1/agent/service/deregister/{id}");
        match self.ask(Method::PUT, &path, None::<&()>, format!("deregister {id}")).await {
            Err(ConsulError::Refused { status: 404, .. }) => Ok(false),
            result => result.map(|_| true),
        }
    }

    /// Everything registered with this host's agent that has an address of its own.
    pub async fn services(&self) -> Result<Vec<Service>, ConsulError> {
        let listed = self.list::<Listed>("/v1/agent/services", "list the services").await?;
        Ok(with_address(listed))
    }

    /// Whether another program registers this service: it has an entry that is not ours, anywhere in the cluster, or
    /// mesos-consul runs on this host.
    pub async fn has_foreign_instance(&self, name: &str) -> Result<bool, ConsulError> {
        let listed = self.list::<Listed>("/v1/agent/services", "list the services").await?;
        if listed.keys().any(|id| id.starts_with(MESOS_CONSUL)) {
            return Ok(true);
        }
        #[derive(Deserialize)]
        struct Entry {
            #[serde(rename = "ServiceID")]
            id: String,
        }
        // Any server's answer will do: no need to wait for the leader.
        let path = format!("/v1/catalog/service/{name}?stale");
        let entries: Vec<Entry> = self.list(&path, &format!("look up {name}")).await?;
        Ok(entries.iter().any(|entry| !entry.id.starts_with(PREFIX)))
    }

    /// Whether the cluster reports a node of this name as alive.
    pub async fn node_lives(&self, name: &str) -> Result<bool, ConsulError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Check {
            #[serde(rename = "CheckID")]
            id: String,
            status: String,
        }
        let path = format!("/v1/health/node/{name}?stale");
        let checks: Vec<Check> = self.list(&path, &format!("look up the node {name}")).await?;
        Ok(checks.iter().any(|check| check.id == "serfHealth" && check.status == PASSING))
    }

    async fn list<T: DeserializeOwned>(&self, path: &str, what: &str) -> Result<T, ConsulError> {
        let text = self.ask(Method::GET, path, None::<&()>, what.to_owned()).await?;
        serde_json::from_str(&text).map_err(|source| ConsulError::Answer {
            what: what.to_owned(),
            address: self.address.clone(),
            source,
        })
    }

    async fn ask<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        what: String,
    ) -> Result<String, ConsulError> {
        let mut request = self.http.request(method, format!("{}{path}", self.address));
        if let Some(token) = &self.token {
            request = request.header("X-Consul-Token", token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let address = self.address.clone();
        let failed = |source: reqwest::Error| ConsulError::Request {
            what: what.clone(),
            address: address.clone(),
            // The address stands in our own text already.
            source: Box::new(source.without_url()),
        };
        let reply = request.send().await.map_err(failed)?;
        let status = reply.status();
        let text = reply.text().await.map_err(failed)?;
        if status == StatusCode::OK {
            return Ok(text);
        }
        if status == StatusCode::BAD_REQUEST && tls::refuses_plain(&text) {
            return Err(ConsulError::Plain { what, address, status: status.as_u16() });
        }
        let answer = text.trim().chars().take(200).collect();
        Err(ConsulError::Refused { what, address, status: status.as_u16(), answer })
    }
}

/// Entries of an agent by their ids, of any kind.
type Listed = BTreeMap<String, serde_json::Value>;

/// Those that are read as ours would be; mesh gateways and the like have no address.
fn with_address(listed: Listed) -> Vec<Service> {
    listed.into_values().filter_map(|entry| serde_json::from_value(entry).ok()).collect()
}

/// Names are looked up by our own resolver, the same for every outside service.
struct Hosts;

impl Resolve for Hosts {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = resolve::lookup(name.as_str()).await?;
            // The port is the client's to fill in.
            Ok(Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

mod address {
    use std::net::IpAddr;

    use serde::{de::Error, Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(address: &IpAddr, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(address)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpAddr, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

mod port {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(port: &Option<u16>, serializer: S) -> Result<S::Ok, S::Error> {
        port.unwrap_or(0).serialize(serializer)
    }

    /// Consul lists "no port" as 0.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
        Ok(Some(u16::deserialize(deserializer)?).filter(|port| *port != 0))
    }
}

mod error;
mod names;
#[cfg(test)]
mod tests;

pub use error::ConsulError;
