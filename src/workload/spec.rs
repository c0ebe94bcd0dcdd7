//! What a container is to be, in plain data: everything that `docker create` needs and nothing else.
//!
//! Made by `task::spec` out of a TaskInfo; turned into the Engine's own types by `body`. Sizes are
//! bytes, times of CPUs microseconds, those of health checks nanoseconds, as in the Engine API. An empty
//! list, an empty map and `None` all mean that Docker decides.

use std::collections::BTreeMap;

use super::credentials::Credentials;
use super::image::ImageRequest;

/// How many letters of its id Docker makes a container's hostname of.
const SHORT_ID: usize = 12;

/// One container. The default is an empty container on Docker's bridge without any limit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerSpec {
    pub image: String,
    /// `os[/arch[/variant]]`, of the image and of the container.
    pub platform: Option<String>,
    /// `None`: the image's own.
    pub entrypoint: Option<Vec<String>>,
    /// `None`: the image's own, unless `entrypoint` is set (then Docker drops the image's command too).
    pub command: Option<Vec<String>>,
    /// `NAME=value`, in the order in which Docker gets them; a name alone unsets the image's variable.
    pub environment: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// Read by the OCI runtime.
    pub annotations: BTreeMap<String, String>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub stop_signal: Option<String>,
    /// Seconds; `-1` waits for ever.
    pub stop_timeout: Option<i64>,
    pub health: HealthSpec,
    /// `false`: no init of Docker's, even where the daemon's default is one.
    pub init: Option<bool>,
    /// `None`: the daemon's default runtime.
    pub runtime: Option<String>,

    /// `source:target[:options]`.
    pub binds: Vec<String>,
    /// Container paths that get a volume of their own, without a name.
    pub volumes: Vec<String>,
    pub volume_driver: Option<String>,
    pub volumes_from: Vec<String>,
    pub mounts: Vec<Mount>,
    /// Container path and mount options.
    pub tmpfs: BTreeMap<String, String>,
    pub storage_options: BTreeMap<String, String>,
    pub shm_size: Option<i64>,
    pub read_only: bool,
    pub log_driver: Option<String>,
    pub log_options: BTreeMap<String, String>,

    /// The name of a Docker network, `host`, `none`; empty means `bridge`: never left out, because
    /// Mesos agents look the address up under exactly this name.
    pub network: String,
    /// What is special about the container's place in its networks; the first is in `network`. May be empty.
    pub endpoints: Vec<NetworkEndpoint>,
    pub ports: Vec<PortBinding>,
    /// More ports, as far as Docker chooses the host's.
    pub published: Vec<Published>,
    /// `80/tcp`.
    pub exposed: Vec<String>,
    pub publish_all: bool,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    /// `name:address`.
    pub extra_hosts: Vec<String>,

    pub cpu_shares: Option<i64>,
    pub cpu_period: Option<i64>,
    /// Microseconds for each period of 100 ms.
    pub cpu_quota: Option<i64>,
    pub cpu_realtime_period: Option<i64>,
    pub cpu_realtime_runtime: Option<i64>,
    /// Billionths of a CPU.
    pub nano_cpus: Option<i64>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    pub memory: Option<i64>,
    pub memory_reservation: Option<i64>,
    /// Memory and swap together; `-1` is unlimited.
    pub memory_swap: Option<i64>,
    pub memory_swappiness: Option<i64>,
    pub oom_score_adj: Option<i64>,
    pub oom_kill_disable: Option<bool>,
    pub pids_limit: Option<i64>,
    pub ulimits: Vec<Ulimit>,
    pub throttles: Vec<Throttle>,
    pub devices: Vec<Device>,
    pub device_requests: Vec<DeviceRequest>,
    pub device_cgroup_rules: Vec<String>,
    pub cgroup_parent: Option<String>,
    pub sysctls: BTreeMap<String, String>,

    pub privileged: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub group_add: Vec<String>,
    /// As the docker CLI takes them: a seccomp profile may be a file of this host.
    pub security_options: Vec<String>,
    /// Nothing of /proc and /sys is hidden or read-only.
    pub unmask_system_paths: bool,
    pub pid_mode: Option<String>,
    pub ipc_mode: Option<String>,
    pub uts_mode: Option<String>,
    pub userns_mode: Option<String>,
    pub cgroupns_mode: Option<String>,
}

/// Docker's own health check; zero and `None` leave the image's value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthSpec {
    /// Not even the image's.
    pub disabled: bool,
    /// A line for the shell.
    pub command: Option<String>,
    pub interval: i64,
    pub timeout: i64,
    pub start_period: i64,
    pub start_interval: i64,
    pub retries: i64,
}

impl HealthSpec {
    pub fn is_set(&self) -> bool {
        *self != Self { disabled: self.disabled, ..Self::default() }
    }
}

/// One `--mount`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mount {
    pub kind: MountKind,
    pub source: String,
    pub target: String,
    pub read_only: bool,
    pub consistency: Option<String>,
    pub propagation: Option<Propagation>,
    pub recursion: Recursion,
    pub no_copy: bool,
    pub labels: BTreeMap<String, String>,
    pub driver: Option<String>,
    pub driver_options: BTreeMap<String, String>,
    /// The folder inside a volume or an image.
    pub subpath: Option<String>,
    pub tmpfs_size: Option<i64>,
    pub tmpfs_mode: Option<i64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MountKind {
    #[default]
    Volume,
    Bind,
    Tmpfs,
    Image,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Private,
    RPrivate,
    Shared,
    RShared,
    Slave,
    RSlave,
}

/// How far a bind mount's options reach into the mounts below it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Recursion {
    /// All the way, read-only where the kernel can.
    #[default]
    Enabled,
    /// The mounts below are not there.
    Disabled,
    /// The mounts below stay writable.
    Writable,
    /// Read-only all the way, or an error.
    ReadOnly,
}

/// A port of the host that leads to one of the container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortBinding {
    pub host_port: u16,
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// A port of the container that Docker publishes: at one address, or at a port of its own choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Empty: all addresses.
    pub host_ip: String,
    /// `8080`, `8080-8090` to choose from, or empty for any.
    pub host_port: String,
    /// `80/tcp`.
    pub container_port: String,
}

/// The container's place in one network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkEndpoint {
    pub network: String,
    pub aliases: Vec<String>,
    pub ipv4: Option<String>,
    pub ipv6: Option<String>,
    pub link_local: Vec<String>,
    pub mac_address: Option<String>,
    pub driver_options: BTreeMap<String, String>,
    pub gateway_priority: i64,
}

/// `-1` means unlimited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

/// A limit for one block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Throttle {
    pub what: Throttled,
    pub path: String,
    /// Bytes or operations a second.
    pub rate: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Throttled {
    ReadBytes,
    WriteBytes,
    ReadOperations,
    WriteOperations,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub host: String,
    pub container: String,
    /// A combination of `r`, `w` and `m`.
    pub permissions: String,
}

/// Devices that a driver of the daemon finds, GPUs above all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceRequest {
    pub driver: String,
    /// `-1`: all.
    pub count: i64,
    pub ids: Vec<String>,
    pub capabilities: Vec<String>,
    pub options: BTreeMap<String, String>,
}

impl ContainerSpec {
    /// The image as it is to be brought.
    pub fn image_request<'a>(
        &'a self,
        force: bool,
        credentials: Option<&'a Credentials>,
    ) -> ImageRequest<'a> {
        ImageRequest { image: &self.image, platform: self.platform.as_deref(), force, credentials }
    }

    /// The container's names as Docker writes them behind an address into its hosts file: the fully qualified one,
    /// and where that has a dot, the part before the first. With `uts=host` the host's, where Docker writes its id.
    pub fn host_names(&self, id: &str) -> String {
        let domain = self.domainname.as_deref().filter(|domain| !domain.is_empty());
        let full = match (self.uts_mode.as_deref(), &self.hostname, domain) {
            (Some("host"), ..) => {
                nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned()
            }
            (_, hostname, domain) => {
                let host = hostname.as_deref().unwrap_or(id.get(..SHORT_ID).unwrap_or(id));
                domain.map_or_else(|| host.to_owned(), |domain| format!("{host}.{domain}"))
            }
        };
        match full.split_once('.') {
            Some((short, _)) => format!("{full} {short}"),
            None => full,
        }
    }

    /// What an older daemon would leave out silently, and the API version that has it.
    pub fn needs(&self) -> Option<(&'static str, (u32, u32))> {
        let mount = |wanted: fn(&Mount) -> bool| self.mounts.iter().any(wanted);
        let asked = [
            (mount(|mount| mount.kind == MountKind::Image), "a mount of type image", (1, 48)),
            (self.endpoints.iter().any(|end| end.gateway_priority != 0), "gw-priority", (1, 48)),
            (
                mount(|mount| mount.kind == MountKind::Volume && mount.subpath.is_some()),
                "volume-subpath",
                (1, 45),
            ),
            (self.endpoints.len() > 1, "a container in several networks", (1, 44)),
            (self.health.start_interval != 0, "health-start-interval", (1, 44)),
            (
                mount(|mount| matches!(mount.recursion, Recursion::Writable | Recursion::ReadOnly)),
                "bind-recursive=writable or readonly",
                (1, 44),
            ),
            (!self.annotations.is_empty(), "annotation", (1, 43)),
        ];
        asked.into_iter().find(|(asked, ..)| *asked).map(|(_, what, version)| (what, version))
    }
}
