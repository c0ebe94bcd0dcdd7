//! One probe of a task, of any kind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{command, http, CheckFamily, Probe, Target};
use crate::dial::DialError;
use crate::host::resolve::ResolveError;
use crate::net::{self, Namespace, NetError};
use crate::tls::TlsError;
use crate::workload::{CommandError, DockerError};

#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    #[error("no answer within {} s", limit.as_secs_f64())]
    Timeout { limit: Duration },
    #[error("Docker did not begin the command within {} s", limit.as_secs_f64())]
    NotBegun { limit: Duration },
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("the task's network namespace is not known: Docker runs elsewhere, or did not answer")]
    Unknown,
    #[error("there is no address to connect to")]
    Nowhere,
    #[error("the request to {url} failed")]
    Exchange {
        url: String,
        #[source]
        source: DialError,
    },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{url} answered {status}")]
    Status { url: String, status: u16 },
    #[error("{url} redirects to {location}, which cannot be followed")]
    Location { url: String, location: String },
    #[error("{url} redirects too often")]
    Redirects { url: String },
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error("the command exits with status {0}")]
    Exit(i64),
    #[error(transparent)]
    Docker(#[from] DockerError),
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl ProbeError {
    /// The host's trouble, not the task's: nothing is learned about its health. (Stock counts it as a
    /// failure: there a dockerd that hangs takes all tasks with such a check along.)
    pub(super) fn tells_nothing(&self) -> bool {
        matches!(
            self,
            Self::NotBegun { .. }
                | Self::Unknown
                | Self::Net(NetError::Thread(_))
                | Self::Command(CommandError::Start(_))
                | Self::Docker(DockerError::Away { .. } | DockerError::Slow { .. })
        )
    }
}

/// Makes the same probe again and again.
pub(super) struct Prober {
    probe: Probe,
    target: Target,
    /// Opened once: it stays the task's, even when the pid in its path is reused.
    namespace: Option<Arc<Namespace>>,
    /// The look under way has reached the task; until then only Docker is at work.
    begun: bool,
}

impl Prober {
    pub(super) fn new(probe: Probe, target: Target) -> Self {
        Self { probe, target, namespace: None, begun: false }
    }

    /// One look, cut off after `limit`.
    pub(super) async fn look(&mut self, limit: Option<Duration>) -> Result<(), ProbeError> {
        self.begun = false;
        let Some(limit) = limit else { return self.look_on().await };
        match timeout(limit, self.look_on()).await {
            Ok(result) => result,
            Err(_) if self.begun => Err(ProbeError::Timeout { limit }),
            Err(_) => Err(ProbeError::NotBegun { limit }),
        }
    }

    async fn look_on(&mut self) -> Result<(), ProbeError> {
        if let Probe::Command(line) = &self.probe {
            return command::run(&self.target.exec, line, &mut self.begun).await;
        }
        self.begun = true;
        let namespace = match self.namespace.take() {
            Some(namespace) => namespace,
            None => {
                let path = self.target.namespace.as_deref().ok_or(ProbeError::Unknown)?;
                Arc::new(Namespace::open(path)?)
            }
        };
        let namespace = self.namespace.insert(namespace);
        match &self.probe {
            Probe::Tcp { port, family } => {
                let candidates = candidates(*family, *port, &self.target.addresses);
                first_open(namespace, &candidates).await.map(drop)
            }
            Probe::Http { scheme, port, path, family } => {
                let candidates = candidates(*family, *port, &self.target.addresses);
                http::get(namespace, *scheme, &candidates, path).await
            }
            Probe::Command(_) => Ok(()),
        }
    }
}

/// Loopback, where the stock executor looks, and then the task's own addresses.
fn candidates(family: CheckFamily, port: u16, own: &[IpAddr]) -> Vec<SocketAddr> {
    let loopback: IpAddr = match family {
        CheckFamily::V4 => Ipv4Addr::LOCALHOST.into(),
        CheckFamily::V6 => Ipv6Addr::LOCALHOST.into(),
    };
    let own = own.iter().copied().filter(|address| address.is_ipv6() == loopback.is_ipv6());
    std::iter::once(loopback).chain(own).map(|address| SocketAddr::new(address, port)).collect()
}

/// A connection to the first candidate that accepts one, inside the namespace; otherwise the first one's error.
pub(super) async fn first_open(
    namespace: &Namespace,
    candidates: &[SocketAddr],
) -> Result<(TcpStream, SocketAddr), ProbeError> {
    let mut first = None;
    for candidate in candidates {
        match net::connect(namespace, *candidate).await {
            Ok(stream) => return Ok((stream, *candidate)),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.map_or(ProbeError::Nowhere, ProbeError::Net))
}
