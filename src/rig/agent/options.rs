//! How an embedded agent is set up: what a real one takes from its flags, and the framework.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use crate::mesos::flags::DOCKER_SOCKET;
use crate::mesos::messages::framework_info::capability::Type as Capability;
use crate::mesos::messages::{framework_info, FrameworkInfo, Resource, SlaveInfo};

/// Start from [`AgentOptions::new`] and change what differs. Names are those of the agent's flags.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    pub work_dir: PathBuf,
    pub ip: IpAddr,
    /// 0: any free port, kept over restarts.
    pub port: u16,
    pub hostname: String,
    /// Started under the name `mesos-docker-executor`.
    pub executor: PathBuf,
    /// Appended to the stock command line.
    pub extra_flags: Vec<String>,
    pub executor_environment: BTreeMap<String, String>,
    pub docker: String,
    pub docker_socket: String,
    pub launcher_dir: PathBuf,
    pub mapped_directory: String,
    pub default_container_dns: Option<String>,
    pub cgroups_enable_cfs: bool,
    /// `--isolation=cgroups/cpu,cgroups/mem`: a custom executor whose ExecutorInfo has no resources is destroyed at
    /// its last task's terminal update, which leaves nothing to set its cgroups to.
    pub cgroups_isolation: bool,
    pub docker_stop_timeout: Duration,
    pub shutdown_grace: Duration,
    pub recovery_timeout: Duration,
    pub registration_timeout: Duration,
    pub reregistration_timeout: Duration,
    /// Where executors find the API, too; all of them receive it.
    pub domain_socket: Option<PathBuf>,
    /// Executors of version 1 get a token and have to show it.
    pub authenticate_http_executors: bool,
    /// Between events over HTTP.
    pub heartbeat: Duration,
    /// How long after a restart the containerizer is busy and every call is refused.
    pub containerizer_recovery: Duration,
    pub slave_id: String,
    /// What the agent offers; only passed on, never counted.
    pub resources: Vec<Resource>,
    pub framework_id: String,
    pub framework_name: String,
    pub framework_user: String,
    /// Whether executors outlive the agent's restarts.
    pub checkpoint: bool,
    pub capabilities: Vec<Capability>,
}

impl AgentOptions {
    /// A checkpointing framework called marathon on a loopback agent.
    pub fn new(work_dir: impl Into<PathBuf>, executor: impl Into<PathBuf>) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            work_dir: work_dir.into(),
            ip: Ipv4Addr::LOCALHOST.into(),
            port: 0,
            hostname: "localhost".into(),
            executor: executor.into(),
            extra_flags: Vec::new(),
            executor_environment: BTreeMap::new(),
            docker: "docker".into(),
            docker_socket: DOCKER_SOCKET.into(),
            launcher_dir: "/usr/libexec/mesos".into(),
            mapped_directory: "/mnt/mesos/sandbox".into(),
            default_container_dns: None,
            cgroups_enable_cfs: false,
            cgroups_isolation: false,
            docker_stop_timeout: Duration::ZERO,
            shutdown_grace: Duration::from_secs(5),
            recovery_timeout: Duration::from_secs(15 * 60),
            registration_timeout: Duration::from_secs(60),
            reregistration_timeout: Duration::from_secs(2),
            domain_socket: None,
            authenticate_http_executors: false,
            heartbeat: Duration::from_secs(30 * 60),
            containerizer_recovery: Duration::ZERO,
            slave_id: format!("{}-S0", uuid::Uuid::new_v4()),
            resources: vec![
                Resource::scalar("cpus", cpus as f64, None),
                Resource::scalar("mem", 4096.0, None),
                Resource::scalar("disk", 4096.0, None),
                Resource::ranges("ports", &[(31000, 32000)], None),
            ],
            framework_id: format!("{}-0000", uuid::Uuid::new_v4()),
            framework_name: "marathon".into(),
            framework_user: "root".into(),
            checkpoint: true,
            capabilities: vec![
                Capability::MultiRole,
                Capability::ReservationRefinement,
                Capability::PartitionAware,
                Capability::TaskKillingState,
            ],
        }
    }

    pub(super) fn framework_info(&self) -> FrameworkInfo {
        let capability = |kind: &Capability| framework_info::Capability { r#type: Some((*kind).into()) };
        FrameworkInfo {
            user: self.framework_user.clone(),
            name: self.framework_name.clone(),
            id: Some(self.framework_id.as_str().into()),
            failover_timeout: Some(0.0),
            checkpoint: Some(self.checkpoint),
            capabilities: self.capabilities.iter().map(capability).collect(),
            roles: vec!["*".into()],
            ..FrameworkInfo::default()
        }
    }

    pub(super) fn slave_info(&self, port: u16) -> SlaveInfo {
        SlaveInfo {
            hostname: self.hostname.clone(),
            resources: self.resources.clone(),
            id: Some(self.slave_id.as_str().into()),
            checkpoint: Some(true),
            port: Some(port.into()),
            ..SlaveInfo::default()
        }
    }
}
