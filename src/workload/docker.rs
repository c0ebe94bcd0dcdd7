//! The daemon: connecting, and the calls that create, start, stop and remove a container.

use std::future::Future;
use std::io;
use std::time::Duration;

use bollard::errors::Error as ApiError;
use bollard::models::ContainerCreateResponse;
use bollard::query_parameters::{KillContainerOptions, RemoveContainerOptions, StopContainerOptions};
use http_body_util::{BodyExt, Limited};

use hyper::Method;
use tokio::time::timeout;

use super::body::create_body;
use super::error::DockerError;
use super::host::DockerHost;
use super::inspect::{daemon_words, segment};
use super::profile::with_profiles;
use super::spec::ContainerSpec;
use super::transport::{for_bollard, Address, Secured, Transport};
use crate::dial::DialError;
use crate::limits::{DOCKER_CALL, DOCKER_CREATE, DOCKER_HELLO};
use crate::tls;

/// The newest API that bollard's types describe. An older daemon is asked in its own version.
const NEWEST_API: (u32, u32) = (1, 53);
/// What answers with more than this is not dockerd.
const LONGEST_REFUSAL: usize = 4096;
const CREATING: &str = "create the container";
/// How many times a harmless question is repeated when the daemon is away or slow, and how soon.
pub(super) const TRIES: u32 = 3;
pub(super) const PAUSE: Duration = Duration::from_millis(300);

/// A daemon that has answered at least once. Clones are cheap and speak to the same daemon.
#[derive(Debug, Clone)]
pub struct Docker {
    pub(super) api: bollard::Docker,
    pub(super) transport: Transport,
    /// The address, with who set it, for error messages.
    address: String,
    version: String,
    /// The negotiated one.
    api_version: (u32, u32),
}

impl Docker {
    /// Finds the daemon and agrees on an API version. `set_by` names the source of the address, so that an error shows
    /// what to change; it may be empty.
    pub async fn connect(host: &DockerHost, set_by: &str) -> Result<Self, DockerError> {
        Self::connect_with(host, None, set_by).await
    }

    /// [`Docker::connect`], with TLS for a daemon at an address.
    pub async fn connect_with(
        host: &DockerHost,
        tls: Option<tls::Files>,
        set_by: &str,
    ) -> Result<Self, DockerError> {
        let address = match set_by {
            "" => host.to_string(),
            _ => format!("{host} ({set_by})"),
        };
        let slow = |doing: &str| DockerError::Slow {
            address: address.clone(),
            doing: doing.to_owned(),
            limit: DOCKER_HELLO,
        };
        let resolved = timeout(DOCKER_HELLO, resolve(host, tls, &address)).await;
        let transport = Transport::new(resolved.map_err(|_| slow("have its host name resolved"))??);
        // bollard's own limit would also cut off a stop with a long grace; ours are in `limited`.
        let no_limit = u64::from(u32::MAX);
        let api = bollard::Docker::connect_with_custom_transport(
            for_bollard(transport.clone()),
            Some("http://docker"),
            no_limit,
            bollard::API_DEFAULT_VERSION,
        )
        .map_err(|source| DockerError::Away { address: address.clone(), source: source.into() })?;
        let mut docker = Self { api, transport, address, version: String::new(), api_version: NEWEST_API };
        let (server, newest) = docker.say_hello().await?;
        docker.api_version = negotiate(newest.as_deref());
        let api_version = format!("{}.{}", docker.api_version.0, docker.api_version.1);
        docker.transport.set_version(&api_version);
        docker.version = format!("{}, API {api_version}", server.as_deref().unwrap_or("Docker"));
        Ok(docker)
    }

    /// Whether anything accepts connections at the address, a daemon that hangs among them. A name that does not
    /// resolve, a refused connection and silence mean no; an error that leaves it open means yes.
    pub async fn listens(host: &DockerHost) -> bool {
        let Ok(Ok(address)) = timeout(DOCKER_HELLO, resolve(host, None, "")).await else { return false };
        let connected = match timeout(DOCKER_HELLO, Transport::new(address).is_open()).await {
            Ok(connected) => connected,
            // A full queue of a local socket's is a daemon that hangs.
            Err(_) => return matches!(host, DockerHost::Unix(_)),
        };
        connected.map_or_else(|error| !error.is_nothing_there(), |()| true)
    }

    /// The daemon's name and its newest API version. A ping and not `/version`, for which Docker 20.10
    /// runs two programs and takes some 15 ms.
    async fn say_hello(&self) -> Result<(Option<String>, Option<String>), DockerError> {
        let ask = self.transport.ask(Method::GET, "/_ping", &[]);
        let answer = timeout(DOCKER_HELLO, ask)
            .await
            .map_err(|_| self.slow("answer a ping", DOCKER_HELLO))?
            .map_err(|error| self.send_error("answer a ping", error))?;
        let status = answer.status();
        if !status.is_success() {
            let body =
                timeout(DOCKER_HELLO, Limited::new(answer.into_body(), LONGEST_REFUSAL).collect()).await;
            let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
            let words = daemon_words(&body);
            if tls::refuses_plain(&words) {
                return Err(self.away(tls::PlainRefused { status: status.to_string() }));
            }
            return Err(self.away(format!("what listens there answers {status}")));
        }
        let header = |name: &str| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
        Ok((header("server"), header("api-version")))
    }

    /// The daemon's and the API's version for the log: `Docker/20.10.24 (linux), API 1.41`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The daemon's address and who set it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Does the daemon run on this machine? Only then can a network namespace made here be used.
    pub async fn is_local(&self) -> Result<bool, DockerError> {
        let local = timeout(DOCKER_HELLO, self.transport.is_local()).await;
        local.map_err(|_| self.slow("accept a connection", DOCKER_HELLO))?.map_err(|error| self.away(error))
    }

    /// Its socket lies in this machine's file system, and so its containers are this machine's.
    pub fn is_behind_a_socket(&self) -> bool {
        self.transport.is_unix()
    }

    /// Creates the container and returns its id. Not repeated after a lost answer: the second try would
    /// find its own name taken.
    pub async fn create(&self, name: &str, spec: &ContainerSpec) -> Result<String, DockerError> {
        if let Some((what, needs)) = spec.needs().filter(|(_, needs)| *needs > self.api_version) {
            return Err(DockerError::TooOld { what, needs, speaks: self.api_version });
        }
        let security_options = with_profiles(&spec.security_options)?;
        let spec = &ContainerSpec { security_options, ..spec.clone() };
        let created = match timeout(DOCKER_CREATE, self.create_once(name, spec)).await {
            Ok(created) => created.map_err(|error| error.of_create(name, &spec.image))?,
            Err(_) => return Err(self.slow(CREATING, DOCKER_CREATE)),
        };
        for warning in &created.warnings {
            tracing::warn!("Docker warns about the container: {warning}");
        }
        Ok(created.id)
    }

    /// Not by bollard, whose types have lost a field that Docker 20.10 needs.
    async fn create_once(
        &self,
        name: &str,
        spec: &ContainerSpec,
    ) -> Result<ContainerCreateResponse, DockerError> {
        let odd = |words: String| DockerError::Daemon { doing: CREATING.to_owned(), status: None, words };
        let mut path = format!("/containers/create?name={}", segment(name));
        if let Some(platform) = &spec.platform {
            path += &format!("&platform={}", segment(platform));
        }
        let body = serde_json::to_vec(&create_body(spec, self.api_version))
            .map_err(|error| odd(format!("the request cannot be written: {error}")))?;
        let answer =
            self.transport.post(&path, body).await.map_err(|error| self.send_error(CREATING, error))?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await.map_err(|error| self.away(error))?.to_bytes();
        match status.is_success() {
            true => serde_json::from_slice(&bytes)
                .map_err(|error| odd(format!("its answer is not the one expected: {error}"))),
            false => Err(status_error(CREATING, status.as_u16(), daemon_words(&bytes))),
        }
    }

    /// Starts it. `limit` has to be longer than calico-runc may wait at the gate inside this call.
    pub async fn start(&self, id: &str, limit: Duration) -> Result<(), DockerError> {
        let call = self.api.start_container(id, None);
        self.limited("start the container", limit, call).await.map_err(DockerError::of_start)
    }

    /// SIGTERM (or the image's stop signal), and SIGKILL after `grace`, which is rounded up to whole
    /// seconds. A daemon that does not keep to it gets a kill besides; one that is away is an error. Not running or not
    /// there: fine.
    pub async fn stop(&self, id: &str, grace: Duration) -> Result<(), DockerError> {
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let seconds = i32::try_from(seconds).unwrap_or(i32::MAX);
        let options = StopContainerOptions { t: Some(seconds), ..Default::default() };
        let limit = Duration::from_secs(u64::from(seconds.unsigned_abs())) + DOCKER_CALL;
        let call = self.api.stop_container(id, Some(options));
        match self.limited("stop the container", limit, call).await {
            Err(DockerError::NoContainer { .. }) | Ok(()) => Ok(()),
            // No daemon was reached, so the grace period has not begun: the caller asks again.
            Err(error @ DockerError::Away { .. }) => Err(error),
            Err(error) => {
                tracing::warn!("{}; killing it instead", crate::error::chain(&error));
                self.kill(id).await
            }
        }
    }

    /// SIGKILL. Not running or not there: fine.
    pub async fn kill(&self, id: &str) -> Result<(), DockerError> {
        let kill = || self.api.kill_container(id, Some(KillContainerOptions { signal: "SIGKILL".into() }));
        match self.repeated("kill the container", DOCKER_CALL, kill).await {
            Err(DockerError::NoContainer { .. } | DockerError::Daemon { status: Some(409), .. }) => Ok(()),
            other => other,
        }
    }

    /// Removes it with its anonymous volumes; `force` kills it first. Not there: fine.
    pub async fn remove(&self, id: &str, force: bool) -> Result<(), DockerError> {
        let remove =
            || self.api.remove_container(id, Some(RemoveContainerOptions { v: true, force, link: false }));
        match self.repeated("remove the container", DOCKER_CALL, remove).await {
            Err(DockerError::NoContainer { .. }) => Ok(()),
            // Another client, most likely the agent, is removing it.
            Err(error) if error.is_of_removal_in_progress() => Ok(()),
            other => other,
        }
    }

    /// One try of a call, with a time limit.
    pub(super) async fn limited<T>(
        &self,
        doing: &str,
        limit: Duration,
        call: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, DockerError> {
        match timeout(limit, call).await {
            Ok(answer) => answer.map_err(|error| self.error(doing, error)),
            Err(_) => Err(self.slow(doing, limit)),
        }
    }

    /// A call that may be made several times: repeated while the daemon is away or slow.
    pub(super) async fn repeated<T, F>(
        &self,
        doing: &str,
        limit: Duration,
        mut call: impl FnMut() -> F,
    ) -> Result<T, DockerError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        for _ in 1..TRIES {
            match self.limited(doing, limit, call()).await {
                Err(error) if error.is_passing() => tokio::time::sleep(PAUSE).await,
                other => return other,
            }
        }
        self.limited(doing, limit, call()).await
    }

    pub(super) fn slow(&self, doing: &str, limit: Duration) -> DockerError {
        DockerError::Slow { address: self.address.clone(), doing: doing.to_owned(), limit }
    }

    pub(super) fn away(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DockerError {
        DockerError::Away { address: self.address.clone(), source: source.into() }
    }

    pub(super) fn send_error(&self, doing: &str, error: DialError) -> DockerError {
        match error {
            DialError::Form(source) => {
                DockerError::Daemon { doing: doing.to_owned(), status: None, words: source.to_string() }
            }
            DialError::Broken(source) => self.away(source),
            connect => self.away(io::Error::from(connect)),
        }
    }

    /// bollard's error in our words.
    pub(super) fn error(&self, doing: &str, error: ApiError) -> DockerError {
        match error {
            ApiError::DockerResponseServerError { status_code, message } => {
                status_error(doing, status_code, message)
            }
            ApiError::IOError { err } => self.away(err),
            ApiError::HyperResponseError { err } => self.away(err),
            ApiError::DockerStreamError { error } => {
                DockerError::Daemon { doing: doing.to_owned(), status: None, words: error }
            }
            other => {
                let words = crate::error::chain(&other);
                DockerError::Daemon { doing: doing.to_owned(), status: None, words }
            }
        }
    }
}

/// An answer that is no success.
pub(super) fn status_error(doing: &str, status: u16, words: String) -> DockerError {
    match words.split_once("No such container: ") {
        Some((_, container)) if status == 404 => {
            DockerError::NoContainer { container: container.trim().to_owned() }
        }
        _ => DockerError::Daemon { doing: doing.to_owned(), status: Some(status), words },
    }
}

async fn resolve(
    host: &DockerHost,
    files: Option<tls::Files>,
    address: &str,
) -> Result<Address, DockerError> {
    match host {
        DockerHost::Unix(path) => Ok(Address::Unix(path.clone())),
        DockerHost::Tcp { host, port } => {
            let found = crate::host::resolve::lookup(host).await.map_err(|source| DockerError::Away {
                address: address.to_owned(),
                source: Box::new(source),
            })?;
            let secured = files.map(|files| Secured { host: host.clone(), files });
            Ok(Address::Tcp(found.into_iter().map(|ip| (ip, *port).into()).collect(), secured))
        }
    }
}

/// The lower of the daemon's newest version and ours; ours when the daemon's cannot be read.
fn negotiate(daemon: Option<&str>) -> (u32, u32) {
    let parse = |text: &str| {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    daemon.and_then(parse).map_or(NEWEST_API, |daemon| NEWEST_API.min(daemon))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_version_is_spoken() {
        assert_eq!(negotiate(Some("1.41")), (1, 41));
        assert_eq!(negotiate(Some("1.56")), (1, 53));
        assert_eq!(negotiate(Some("1.9")), (1, 9));
        assert_eq!(negotiate(Some("nonsense")), (1, 53));
        assert_eq!(negotiate(None), (1, 53));
    }
}
