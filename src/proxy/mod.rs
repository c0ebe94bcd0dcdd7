//! The Docker API proxy: whatever speaks to Docker through it gets Calico addresses by variables of a container.
//!
//! ```text
//! clients ──► listen ──► serve ──► calls ──► forward ──► dockerd
//!              sockets   one        what a    upstream:
//!                        connection call      one connection
//!                                   means     for each request
//!                                     │  create, show, json (pure)
//!                                     ▼
//!                                   wiring ──► bindings   each container, on the disk
//!                                     │          ▲
//!                                     ▼          │
//! calico-runc ──► gate_socket ──────► lives ─────┘        a life for each start; restarts: the refused ones;
//!                                                     looks: what Docker's list shows
//! ```
//!
//! The whole API passes. A request is looked into only where `route` finds a call that has a meaning here; all others
//! pass as they came, streams among them: what an HTTP server cannot do with those is in `forward` and `splice`.
//! HTTP itself is hyper's, on both sides.
//!
//! Pure: [`create`] understands a request for a container, [`show`] what its client is to see of it, both by [`json`],
//! which reads as Docker reads.

mod answer;
mod bindings;
mod browser;
mod calls;
mod counts;
pub mod create;
mod creates;
mod forward;
mod gate_socket;
pub mod json;
mod listen;
mod lives;
mod looks;
mod restarts;
mod route;
mod serve;
pub mod show;
mod socket;
mod splice;
mod upstream;
mod wiring;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use hyper::StatusCode;

use crate::config::{Config, ConfigError};
use crate::limits::{PROXY_CONNECTIONS, PROXY_END};
use crate::workload::{DockerHost, InvalidDockerHost};

use counts::Counts;
use listen::Listeners;
use upstream::Upstream;
use wiring::Wiring;

pub use listen::ListenError;
pub use upstream::UpstreamError;
pub use wiring::WiringError;

/// How often the counts are logged, where they have changed.
const COUNTS_EVERY: Duration = Duration::from_secs(60);
/// After a fault in accepting, as when no descriptors are left: the next try fails at once, too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the proxy does not run.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Wiring(#[from] WiringError),
    #[error("proxy.docker or docker.host in config.toml is wrong")]
    Docker(#[from] InvalidDockerHost),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

/// What all connections share.
struct Shared {
    config: Config,
    upstream: Upstream,
    wiring: Arc<Wiring>,
    counts: Arc<Counts>,
    /// Creates that Docker may have begun: each is to be bound.
    creates: TaskTracker,
    /// The proxy ends: connections close, streams are cut.
    ending: CancellationToken,
}

/// Runs until SIGTERM or SIGINT. A Docker that is away is no error: it may come later, and be away again.
pub async fn run(config_path: &Path) -> Result<(), ProxyError> {
    let config = Config::load(config_path)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ProxyError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ProxyError::Signals)?;
    // Nothing is read again; without a handler the signal would be the proxy's end.
    let _hangup = signal(SignalKind::hangup()).map_err(ProxyError::Signals)?;
    let listeners = Listeners::open(&config.proxy).await?;
    let host = config.proxy.docker.as_deref().or(config.docker.host.as_deref());
    let host = DockerHost::parse(host.unwrap_or(DockerHost::DEFAULT))?;
    let upstream = Upstream::new(&config, host.clone(), listeners.own.clone());
    upstream.refuse_itself().await?;
    let wiring = Wiring::open(config_path, &config, host).await?;
    raise_descriptors();
    tracing::info!("listening at {}; Docker is at {}", listeners.addresses.join(", "), upstream.address());
    let (counts, ending) = (Arc::default(), CancellationToken::new());
    let (creates, connections) = (TaskTracker::new(), TaskTracker::new());
    let shared = Arc::new(Shared { config, upstream, wiring, counts, creates: creates.clone(), ending });
    tokio::select! {
        () = accept(&listeners, &shared, &connections) => {}
        () = log_counts(&shared) => {}
        () = shared.wiring.keep() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    listeners.close();
    shared.ending.cancel();
    connections.close();
    creates.close();
    let all = async { tokio::join!(connections.wait(), creates.wait()) };
    if timeout(PROXY_END, all).await.is_err() {
        let (open, begun) = (connections.len(), creates.len());
        tracing::warn!("ended with {open} open connections, and {begun} containers that are not bound yet");
    }
    tracing::info!("ended: {}", shared.counts);
    Ok(())
}

async fn accept(listeners: &Listeners, shared: &Arc<Shared>, connections: &TaskTracker) {
    let free = Arc::new(Semaphore::new(PROXY_CONNECTIONS));
    loop {
        let socket = match listeners.accept().await {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = free.clone().try_acquire_owned() else {
            let message = format!("the proxy has {PROXY_CONNECTIONS} connections open, which is its limit");
            tracing::warn!("a connection was refused: {message}");
            socket.dismiss(&answer::raw(StatusCode::SERVICE_UNAVAILABLE, &message));
            continue;
        };
        let shared = shared.clone();
        connections.spawn(async move {
            serve::serve(socket, shared).await;
            drop(permit);
        });
    }
}

async fn log_counts(shared: &Shared) {
    let counts = || format!("{}, {} containers run", shared.counts, shared.wiring.running());
    let mut last = counts();
    loop {
        sleep(COUNTS_EVERY).await;
        let now = counts();
        if now != last {
            tracing::info!("{now}");
            last = now;
        }
    }
}

/// A request takes two descriptors, and the usual limit is 1024.
fn raise_descriptors() {
    use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
}
