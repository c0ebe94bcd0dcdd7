//! What the proxy knows of its containers, and what it does for them.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::bindings::{is_docker_id, Binding, BindingError, Bindings};
use super::create::Bound;
use super::creates::LeftCreates;
use super::gate_socket::GateSocket;
use super::lives::{Lives, Sight};
use super::restarts;
use crate::config::Config;
use crate::error::{chain, Code, Failure};
use crate::host::files::make_private;
use crate::host::lock::{try_take, LockError};
use crate::host::trust::{self, TrustError};
use crate::limits::{DOCKER_INSPECT, PROXY_NAME};
use crate::task::cleaner::adopted;
use crate::task::record::journal::{Backing, Journal, JournalError, Peeked};
use crate::workload::{Docker, DockerError, DockerHost, Listed};

/// The form of what the proxy's lock guards: the bindings.
const FORM: u32 = 1;
/// How often the way to the socket is looked at.
const REACH: Duration = Duration::from_secs(1);

/// Why there is no wiring.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    #[error("another proxy of this configuration runs on this host")]
    Busy,
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("cannot use the bindings of containers")]
    Bindings(#[from] BindingError),
    #[error("cannot look through the journal")]
    Journal(#[from] JournalError),
    #[error("cannot listen at {path} for Docker's runtime")]
    Gate {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Everything about bound containers.
pub struct Wiring {
    config: Config,
    docker: DockerHost,
    bindings: Arc<Bindings>,
    left: Mutex<LeftCreates>,
    lives: Arc<Lives>,
    _gate: GateSocket,
    /// One proxy a host and configuration.
    _lock: std::fs::File,
}

/// What a client is to see of a bound container.
pub struct BoundView {
    pub binding: Arc<Binding>,
    /// While it runs.
    pub sight: Option<Sight>,
}

impl BoundView {
    pub fn addresses(&self) -> &[IpAddr] {
        self.sight.as_ref().map_or(&[], |sight| &sight.addresses)
    }

    /// Port of the container, protocol, port of the host.
    pub fn ports(&self) -> Vec<(u16, String, u16)> {
        let ports = self.sight.iter().flat_map(|sight| &sight.ports);
        ports.map(|mapping| (mapping.task, mapping.protocol.name().to_owned(), mapping.host)).collect()
    }
}

impl Wiring {
    /// Goes on with all containers that live, and listens to Docker's runtime.
    pub async fn open(
        config_path: &Path,
        config: &Config,
        docker: DockerHost,
    ) -> Result<Arc<Self>, WiringError> {
        trust::everything(config)?;
        let folder = |path: &Path, source| WiringError::Gate { path: path.into(), source };
        for path in [&config.paths.state, &config.paths.run] {
            make_private(path).map_err(|source| folder(path, source))?;
        }
        if config.proxy.socket.as_deref().and_then(Path::parent) == Some(&config.paths.run) {
            // The group docker has to get to its socket.
            fs::set_permissions(&config.paths.run, Permissions::from_mode(0o711))
                .map_err(|source| folder(&config.paths.run, source))?;
        }
        let lock = try_take(&config.paths.state.join("proxy.lock"), FORM)?.ok_or(WiringError::Busy)?;
        let (bindings, unreadable) = Bindings::open(config)?;
        for (path, why) in unreadable {
            tracing::warn!("{} is left alone, and its container cannot start: {why}", path.display());
        }
        let bindings = Arc::new(bindings);
        let left = Mutex::new(LeftCreates::read(config));
        let lives = Arc::new(Lives::new(config_path.to_owned(), config, bindings.clone()));
        let (living, over) = adopted::take_over(config).await?;
        for taken in living {
            let Some(id) = taken.entry.record.backing.adopted().map(str::to_owned) else { continue };
            let Some(binding) = bindings.get(&id) else {
                tracing::warn!(
                    "the container {id} runs with a network, but has no binding; it is left alone"
                );
                continue;
            };
            if let Err(failure) = lives.go_on(&binding, taken.entry, taken.addresses) {
                tracing::warn!("the container {id} is left alone: {failure}");
            }
        }
        let path = config.paths.proxy_gate();
        let gate = GateSocket::listen(&path, lives.clone()).map_err(|source| folder(&path, source))?;
        let cleaned = config.clone();
        // Clients and Docker's runtime do not wait for it.
        tokio::spawn(async move { adopted::take_down(&cleaned, over).await });
        let wiring = Self { config: config.clone(), docker, bindings, left, lives, _gate: gate, _lock: lock };
        Ok(Arc::new(wiring))
    }

    /// Starts what was refused while something was away, forgets what is gone, and keeps its socket within reach, until it
    /// is dropped.
    pub async fn keep(&self) {
        let mut left = self.left.lock().await;
        let starts = restarts::keep(&self.config, &self.docker, &self.bindings, &self.lives, &mut left);
        tokio::join!(starts, self.stay_in_reach());
    }

    /// An executor of the release before closes the folder of the socket.
    async fn stay_in_reach(&self) {
        loop {
            sleep(REACH).await;
            if let Err(error) = trust::passage(&self.config) {
                tracing::warn!("{}", chain(&error));
            }
        }
    }

    /// No container is bound: there is nothing to look for in an answer.
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty()
    }

    /// How many bound containers run.
    pub fn running(&self) -> usize {
        self.lives.running()
    }

    /// A bound container, by Docker's whole id.
    pub fn view(&self, id: &str) -> Option<BoundView> {
        Some(BoundView { binding: self.bindings.get(id)?, sight: self.lives.sight(id) })
    }

    /// Docker's id of the bound container that a client calls by id or name.
    pub async fn id_of(&self, name: &str) -> Option<String> {
        self.find(name).await.ok().flatten()
    }

    /// The same; an error while Docker does not answer.
    pub async fn find(&self, name: &str) -> Result<Option<String>, DockerError> {
        if self.is_empty() {
            return Ok(None);
        }
        let bound = |id: &str| self.bindings.get(id).map(|binding| binding.id.clone());
        if is_docker_id(name) {
            return Ok(bound(name));
        }
        // Docker has the last word on names.
        let docker = self.docker().await?;
        match timeout(PROXY_NAME, docker.inspect_once(name, DOCKER_INSPECT)).await {
            Ok(Ok(seen)) => Ok(bound(&seen.id)),
            Ok(Err(DockerError::NoContainer { .. })) => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(named(&docker.containers().await?, name).and_then(bound)),
        }
    }

    /// Whether a living executor makes the container that is to have this name: by its journal, which no user can write.
    pub fn is_executors(&self, name: Option<&str>) -> bool {
        let Some(name) = name else { return false };
        let journal = Journal::open(&self.config.paths.journal()).and_then(|journal| journal.files());
        journal.unwrap_or_default().iter().any(|path| match Journal::peek(path) {
            Ok(Some(Peeked::Owned(Some(record)))) => {
                matches!(&record.backing, Backing::Container { name: its, adopted: false, .. } if its == name)
            }
            _ => false,
        })
    }

    /// Binds the container that Docker has just made. On the disk when this returns.
    pub async fn bind(&self, id: &str, mut bound: Bound) -> Result<(), Failure> {
        let failure = |error: DockerError| error.failure();
        let docker = self.docker().await.map_err(failure)?;
        let seen = docker.inspect(id).await.map_err(failure)?;
        let text: Value = serde_json::from_str(&seen.text).unwrap_or_default();
        if let Some(exposed) = text.pointer("/0/Config/ExposedPorts") {
            bound.expose(exposed);
        }
        if bound.task_id.is_empty() {
            let name = text.pointer("/0/Name").and_then(Value::as_str).unwrap_or(id);
            bound.task_id = name.trim_start_matches('/').to_owned();
        }
        // `["NONE"]` switches an image's check off.
        let test = text.pointer("/0/Config/Healthcheck/Test").and_then(Value::as_array);
        let checked = test.is_some_and(|test| test.first().is_some_and(|word| word != "NONE"));
        let binding = Binding { checked, ..Binding::new(id, self.docker.to_string(), seen.hostname, bound) };
        let bindings = self.bindings.clone();
        let put = tokio::task::spawn_blocking(move || bindings.put(binding)).await;
        let put = put.map_err(|error| Failure::new(Code::Internal, chain(&error)))?;
        put.map_err(|error| Failure::new(Code::Journal, chain(&error)))
    }

    /// A client is about to start it.
    pub fn prepare_ahead(&self, id: &str) {
        if self.lives.sight(id).is_none() {
            self.lives.prepare_ahead(id);
        }
    }

    /// A client's start has failed: it knows, and nothing is started for it later.
    pub fn start_failed(&self, id: &str) {
        self.lives.not_started(id);
        self.bindings.strike(id);
    }

    /// A client wants to stop or to remove it: a start whose network is not there yet need not wait for that.
    pub fn give_up_start(&self, id: &str) {
        self.lives.give_up_start(id);
    }

    /// A client has stopped it, or killed it.
    pub fn stopped(&self, id: &str) {
        self.bindings.strike(id);
    }

    /// The container is gone.
    pub fn removed(&self, id: &str) {
        forget(&self.bindings, &self.lives, id);
    }

    /// The ids of Docker's networks, by their names.
    ///
    /// Read for each answer, which costs the daemon 0.2 ms. A name may lead to another network than a moment ago, as after
    /// compose's `down` and `up` at Docker's own socket, and nothing in an answer tells; with a stale id compose would
    /// make its containers anew.
    pub async fn network_ids(&self) -> BTreeMap<String, String> {
        match self.docker().await {
            Ok(docker) => docker.network_ids().await.unwrap_or_default(),
            Err(_) => BTreeMap::new(),
        }
    }

    async fn docker(&self) -> Result<Docker, DockerError> {
        Docker::connect_with(&self.docker, self.config.docker.tls(), "").await
    }
}

/// The id of the container that Docker understands by a name, or by the first digits of an id.
fn named<'a>(listed: &'a [Listed], name: &str) -> Option<&'a str> {
    let name = name.trim_start_matches('/');
    let mut by_id = listed.iter().filter(|container| container.id.starts_with(name));
    let found = match listed.iter().find(|container| container.name == name) {
        Some(found) => found,
        None => by_id.next().filter(|_| by_id.next().is_none())?,
    };
    Some(&found.id)
}

/// The container is gone, and with it all that it had.
pub(super) fn forget(bindings: &Bindings, lives: &Lives, id: &str) {
    lives.forget(id);
    if let Err(error) = bindings.remove(id) {
        tracing::warn!("{}", chain(&error));
    }
}
