//! `/etc/calico-mesos/config.toml`: the only place where endpoints, credentials and limits come from.
//!
//! A task's environment is merged into the executor's own by Mesos, so nothing here may be taken from
//! the environment. Every field has a default: a host with etcd and Consul on loopback needs no file.

mod log;
mod operator;
mod paths;
mod proxy;
mod read;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::tls;

pub use log::{Bytes, LogFormat, LogLevel, Logs};
pub use operator::{Origin, Setting, CALICOCTL_CFG};
pub use proxy::Proxy;
pub use read::{ConfigError, Problem};

/// Where the configuration lies on an agent host.
pub const DEFAULT_PATH: &str = "/etc/calico-mesos/config.toml";
/// The variable that names another file, for private set-ups. Operators set it for dockerd and, with the agent's
/// `--executor_environment_variables`, for custom executors; a task's own does not count.
pub const VARIABLE: &str = "CALICO_MESOS_CONFIG";

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub etcd: Etcd,
    pub consul: Consul,
    pub docker: Docker,
    pub node: Node,
    pub calicoctl: Calicoctl,
    pub profile: Profile,
    pub policy: Policy,
    pub launch: Launch,
    pub ports: Ports,
    pub dns: Dns,
    pub runtime: Runtime,
    pub limits: Limits,
    pub gc: Gc,
    pub proxy: Proxy,
    pub log: Logs,
    pub metrics: Metrics,
    pub paths: Paths,
}

/// Calico's datastore.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Etcd {
    /// `http://host:port` or `https://host:port`, all of one cluster.
    pub endpoints: Vec<String>,
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub username: Option<String>,
    /// The password stands in a file of its own, readable by root only.
    pub password_file: Option<PathBuf>,
    /// One from a person's environment or calicoctl.cfg instead of a file; see [`Config::of_shell`].
    #[serde(skip)]
    pub password: Option<String>,
}

/// Consul's agent on this host.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Consul {
    /// `false`: nothing is registered.
    pub enabled: bool,
    pub address: String,
    pub token_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// Also register `<app>` at the host's address; off where mesos-consul does that.
    pub host_service: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Docker {
    /// `unix:///path`, `tcp://host:port` or `host:port`; decides only when the agent sets no DOCKER_HOST.
    pub host: Option<String>,
    /// The docker CLI's config.json with credentials for registries, for tasks that bring none themselves.
    pub config_file: Option<PathBuf>,
    /// Any of the three: Docker at an address speaks TLS. Its CA; the system's otherwise.
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// This host's Calico node; default: NODENAME's successor file `/var/lib/calico/nodename`, then the host name in
    /// lower case.
    pub name: Option<String>,
    pub dataplane: Dataplane,
    /// Bytes; default: what Felix wrote to `/var/lib/calico/mtu`, then 1500.
    pub mtu: Option<u32>,
    /// The address under which `<app>` is registered in Consul; default: the Mesos agent's.
    pub host_address: Option<IpAddr>,
    /// IP pools that `dataplane = "local"` makes when the datastore has none.
    pub local_pools: Vec<IpNet>,
}

/// Calico's own calicoctl, for the verbs that the front end leaves to it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Calicoctl {
    /// Absent: `/usr/lib/calico-mesos/calicoctl`, else the first other program of that name in PATH.
    pub path: Option<PathBuf>,
}

/// Who programs routes, policy and sysctls for our interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dataplane {
    /// calico/node runs here.
    Felix,
    /// calico-mesos itself sets up host routes, proxy ARP, forwarding and masquerading; no policy.
    Local,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// What a task gets that sets CALICO_IP only.
    pub default: String,
    /// Sources that profiles made by us let in besides the profile's own members, say Marathon's hosts.
    pub allow_nets: Vec<IpNet>,
}

/// Whether the first instruction waits for Felix.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    pub wait: PolicyWait,
    /// How long Felix is waited for; see [`Policy::timeout`].
    #[serde(with = "duration::optional")]
    pub timeout: Option<Duration>,
}

impl Policy {
    /// Unless configured, 3 s where the task starts all the same. Where it fails, 10 s: on a busy host one round of
    /// Felix's takes seconds, and an endpoint that comes during one waits for the next.
    pub fn timeout(&self) -> Duration {
        let usual = if self.wait == PolicyWait::Required { 10 } else { 3 };
        self.timeout.unwrap_or(Duration::from_secs(usual))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyWait {
    /// Wait up to `timeout`, then start all the same: Felix drops packets of interfaces that it has not programmed.
    BestEffort,
    /// Fail the task when Felix is not done within `timeout`.
    Required,
    Off,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Launch {
    /// How long the host's or cluster's faults are retried before the task fails.
    #[serde(with = "duration")]
    pub retry_for: Duration,
    /// How long an explicit address that another task still holds is waited for.
    #[serde(with = "duration")]
    pub ip_wait: Duration,
}

/// Ports of this host that a Calico task was given.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ports {
    /// Lead them to the task's address; `false`: it is reached at its own address only.
    pub forward: bool,
}

/// resolv.conf of Calico tasks that set none themselves; empty lists leave it to the Docker daemon.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Runtime {
    /// The OCI runtime beneath calico-runc: a path, or a name looked for in the daemon's PATH.
    pub path: PathBuf,
    /// calico-runc's own deadline at the gate; the executor's are all shorter.
    #[serde(with = "duration")]
    pub gate_timeout: Duration,
}

/// What tasks may ask for.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// May CALICO_IP name an address?
    pub explicit_addresses: bool,
    /// Profiles that tasks may request; empty: all but those of Kubernetes.
    pub profiles: Vec<String>,
    /// Names of IP pools that addresses may come from; empty: all.
    pub pools: Vec<String>,
    /// Names of IP pools that tasks may choose by CALICO_POOL; empty: all of `pools`.
    pub allow_pools: Vec<String>,
}

/// What the cleaner does with things that no journal names.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gc {
    pub orphans: Orphans,
    /// How old they have to be.
    #[serde(with = "duration")]
    pub grace: Duration,
}

/// Things of ours that no journal, container or process backs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Orphans {
    Report,
    Remove,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Written by every `calico-mesos gc` for Prometheus' node exporter (textfile collector).
    pub textfile: Option<PathBuf>,
}

/// Where our own and Calico's files lie. Only tests and private set-ups change these.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Paths {
    /// Volatile state: namespaces and gates. Root only.
    pub run: PathBuf,
    /// The journal and the IPAM hint, kept over a reboot. Root only.
    pub state: PathBuf,
    /// The lock that Calico's own IPAM plugin takes.
    pub ipam_lock: PathBuf,
    /// Where Felix writes the MTU.
    pub mtu_file: PathBuf,
    /// Where calico/node writes the node's name.
    pub nodename_file: PathBuf,
    /// Where Felix reports endpoints as programmed.
    pub endpoint_status: PathBuf,
    /// A folder for each component's log files; see `logging::Component`. Root only.
    pub log: PathBuf,
    /// A unix socket that reads every step of every task and may hold it up, for fault tests: a released program has
    /// no such key.
    #[cfg(debug_assertions)]
    pub steps: Option<PathBuf>,
}

impl Default for Etcd {
    fn default() -> Self {
        Self {
            endpoints: vec!["http://127.0.0.1:2379".into()],
            ca_file: None,
            cert_file: None,
            key_file: None,
            username: None,
            password_file: None,
            password: None,
        }
    }
}

// Written by hand: user names are part of an operator's credentials and stay out of logs.
impl std::fmt::Debug for Etcd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Etcd").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Consul {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consul").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Default for Consul {
    fn default() -> Self {
        Self {
            enabled: true,
            address: "http://127.0.0.1:8500".into(),
            token_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            host_service: true,
        }
    }
}

impl Default for Node {
    fn default() -> Self {
        Self {
            name: None,
            dataplane: Dataplane::Felix,
            mtu: None,
            host_address: None,
            local_pools: Vec::new(),
        }
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self { default: "dev".into(), allow_nets: Vec::new() }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self { wait: PolicyWait::BestEffort, timeout: None }
    }
}

impl Default for Launch {
    fn default() -> Self {
        Self { retry_for: Duration::from_secs(30), ip_wait: Duration::from_secs(30) }
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self { forward: true }
    }
}

impl Default for Runtime {
    fn default() -> Self {
        Self { path: "runc".into(), gate_timeout: Duration::from_secs(60) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { explicit_addresses: true, profiles: Vec::new(), pools: Vec::new(), allow_pools: Vec::new() }
    }
}

impl Default for Gc {
    fn default() -> Self {
        Self { orphans: Orphans::Report, grace: Duration::from_secs(300) }
    }
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            run: "/run/calico-mesos".into(),
            state: "/var/lib/calico-mesos".into(),
            ipam_lock: "/var/run/calico/ipam.lock".into(),
            mtu_file: "/var/lib/calico/mtu".into(),
            nodename_file: "/var/lib/calico/nodename".into(),
            endpoint_status: "/var/run/calico/endpoint-status".into(),
            log: "/var/log/calico".into(),
            #[cfg(debug_assertions)]
            steps: None,
        }
    }
}

impl Config {
    /// Files that only root may read.
    pub fn secrets(&self) -> impl Iterator<Item = &Path> {
        let Self { etcd, consul, docker, .. } = self;
        let files = [
            &etcd.key_file,
            &etcd.password_file,
            &consul.key_file,
            &consul.token_file,
            &docker.key_file,
            &docker.config_file,
        ];
        files.into_iter().filter_map(Option::as_deref)
    }
}

impl Docker {
    /// What Docker at an address is spoken to with; `None`: without TLS.
    pub fn tls(&self) -> Option<tls::Files> {
        let files =
            tls::Files { ca: self.ca_file.clone(), cert: self.cert_file.clone(), key: self.key_file.clone() };
        (files != tls::Files::default()).then_some(files)
    }
}

mod duration {
    use std::time::Duration;

    use serde::{de::Error, Deserialize, Deserializer, Serializer};

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|error| D::Error::custom(format!("'{text}': {error}")))
    }

    pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*time))
    }

    pub mod optional {
        use super::*;

        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
            super::deserialize(deserializer).map(Some)
        }

        pub fn serialize<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => super::serialize(time, serializer),
                None => serializer.serialize_none(),
            }
        }
    }
}

#[cfg(test)]
mod tests;
