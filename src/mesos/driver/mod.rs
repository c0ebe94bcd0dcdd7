//! The executor's side of the v0 protocol: registration, reconnection, acknowledgements.
//!
//! ```text
//!            Register                 EOF, checkpoint             Reconnect from the agent
//!  start ──────────────► connected ───────────────────► waiting ─────────────────────────► connected
//!                           │                              │ MESOS_RECOVERY_TIMEOUT   new link, Reregister
//!                           │ EOF, no checkpoint           ▼                          with what is pending
//!                           └───────────────────────► Event::Shutdown
//! ```
//!
//! An agent acknowledges each update; what it has not acknowledged is sent again only when it asks
//! for a re-registration, never by a timer and never unasked (an agent answers that with a shutdown).
//! [`state`] decides (pure), `shell` does what it says. What the events mean for the container is
//! the task module's business. [`Driver`] and [`Event`] are those of version 1 (`mesos::http`) as well.

pub(super) mod handle;
pub(super) mod ledger;
mod shell;
pub mod state;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use uuid::Uuid;

pub use self::handle::{is_terminal, Driver};
use self::shell::DriverShell;
use self::state::{ActorIdentity, DriverState};
use super::environment::Environment;
use super::libprocess::{link, Upid};
use super::messages::{ExecutorInfo, FrameworkInfo, SlaveInfo, TaskInfo};
use crate::tls::TlsError;

/// The name the stock driver gives its first actor.
const ACTOR: &str = "executor(1)";

/// What the agent wants, in the order it came.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Registered {
        executor: Box<ExecutorInfo>,
        framework: Box<FrameworkInfo>,
        agent: Box<SlaveInfo>,
        /// The agent's name for this run of the executor; version 0 passes it in other ways.
        container: Option<String>,
    },
    /// The agent is back after a restart or a lost connection; everything pending has been sent to it.
    Reregistered,
    /// A task to start; a second one arrives here too.
    Launch(Box<TaskInfo>),
    /// Tasks of which all start or none; only version 1 has them.
    LaunchGroup(Vec<TaskInfo>),
    Kill {
        task_id: String,
        /// Only when the framework's kill carries a policy of its own.
        grace: Option<Duration>,
    },
    Acknowledged {
        task_id: String,
        uuid: Uuid,
    },
    /// Data from the framework.
    Message(Vec<u8>),
    /// End everything. Comes once.
    Shutdown {
        reason: String,
    },
    /// Something arrived that could not be used; it was ignored.
    Malformed {
        what: String,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error("cannot listen on {address} (LIBPROCESS_IP, LIBPROCESS_PORT)")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot connect to the agent at {agent} (MESOS_SLAVE_PID)")]
    Connect {
        agent: Upid,
        #[source]
        source: io::Error,
    },
    #[error("cannot make a request to {agent} (MESOS_SLAVE_PID)")]
    Request {
        agent: Upid,
        #[source]
        source: hyper::http::Error,
    },
    #[error("cannot set up TLS to the agent (LIBPROCESS_SSL_*)")]
    Tls(#[source] TlsError),
}

/// Listens, connects to the agent and sends the registration.
pub async fn connect(
    environment: &Environment,
) -> Result<(Driver, mpsc::UnboundedReceiver<Event>), DriverError> {
    let agent = environment.slave_pid.clone();
    let listener = listen(environment).await?;
    let stream = link::connect(agent.address)
        .await
        .map_err(|source| DriverError::Connect { agent: agent.clone(), source })?;
    let pid = own_address(environment, &listener, stream.local_addr()).map_err(|source| {
        DriverError::Listen { address: SocketAddr::new(agent.address.ip(), environment.bind_port), source }
    })?;

    let identity = ActorIdentity {
        framework_id: environment.framework_id.as_str().into(),
        executor_id: environment.executor_id.as_str().into(),
        slave_id: environment.slave_id.as_str().into(),
        pid: pid.clone(),
    };
    let state = DriverState::new(identity, environment.checkpoint);
    let (commands, events) =
        DriverShell::start(state, listener, stream, (agent, pid.clone()), environment.recovery_timeout);
    Ok((Driver::new(commands, Some(pid)), events))
}

async fn listen(environment: &Environment) -> Result<TcpListener, DriverError> {
    let any = match environment.slave_pid.address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let address = SocketAddr::new(environment.bind_ip.unwrap_or(any), environment.bind_port);
    TcpListener::bind(address).await.map_err(|source| DriverError::Listen { address, source })
}

/// The address that the agent receives. Without LIBPROCESS_IP it is the one by which we reach it: the
/// agent is on this host, and the host's name need not resolve for that.
fn own_address(
    environment: &Environment,
    listener: &TcpListener,
    link: io::Result<SocketAddr>,
) -> io::Result<Upid> {
    let ip = match environment.advertise_ip.or(environment.bind_ip).filter(|ip| !ip.is_unspecified()) {
        Some(ip) => ip,
        None => link?.ip(),
    };
    let port = match environment.advertise_port {
        Some(port) => port,
        None => listener.local_addr()?.port(),
    };
    Ok(Upid::new(ACTOR, SocketAddr::new(ip, port)))
}
