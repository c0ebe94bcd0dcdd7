//! What a container is to be, in plain data: everything that `docker create` needs and nothing else.
//!
//! Made by `task::spec` out of a TaskInfo; turned into the Engine's own types by `body`. Sizes are
//! bytes, times microseconds, as in the Engine API.

use std::collections::BTreeMap;

/// One container. The default is an empty container on Docker's bridge without any limit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerSpec {
    pub image: String,
    /// `None`: the image's own.
    pub entrypoint: Option<Vec<String>>,
    /// `None`: the image's own, unless `entrypoint` is set (then Docker drops the image's command too).
    pub command: Option<Vec<String>>,
    /// `NAME=value`, in the order in which Docker shall see them.
    pub environment: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub hostname: Option<String>,
    /// `source:target[:options]`.
    pub binds: Vec<String>,
    /// Container paths that get a volume of their own, without a name.
    pub volumes: Vec<String>,
    pub volume_driver: Option<String>,
    /// The name of a Docker network, `host`, `none`; empty means `bridge`: never left out, because
    /// Mesos agents look the address up under exactly this name.
    pub network: String,
    pub ports: Vec<PortBinding>,
    pub cpu_shares: Option<i64>,
    /// Microseconds for each period of 100 ms.
    pub cpu_quota: Option<i64>,
    pub memory: Option<i64>,
    pub memory_reservation: Option<i64>,
    pub oom_score_adj: Option<i64>,
    pub privileged: bool,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    /// `name:address`.
    pub extra_hosts: Vec<String>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub ulimits: Vec<Ulimit>,
    /// `None`: the daemon's default runtime.
    pub runtime: Option<String>,
}

/// A port of the host that leads to one of the container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortBinding {
    pub host_port: u16,
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// `-1` means unlimited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}
