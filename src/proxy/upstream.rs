//! The way to Docker: where it listens, and one connection for each request.
//!
//! A connection of its own for each request costs some 30 µs and has no stale ones: a pool would hand out connections
//! that a daemon closed a moment before, and a request that is not safe to repeat would be lost.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::task::{ready, Context, Poll};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::config::Config;
use crate::dial::{self, DialError, Duplex, Stream};
use crate::host::resolve;
use crate::limits::{DOCKER_HELLO, PROXY_READ};
use crate::tls;
use crate::workload::DockerHost;

/// Why there is no connection to Docker.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("cannot find Docker's host {host:?}")]
    Name {
        host: String,
        #[source]
        source: resolve::ResolveError,
    },
    #[error("cannot reach Docker at {address}")]
    Away {
        address: String,
        #[source]
        source: DialError,
    },
    #[error("Docker's address {0} leads back to this proxy; set proxy.docker in config.toml to Docker's own socket")]
    Itself(String),
}

/// What the proxy listens at, and so never connects to.
#[derive(Debug, Clone, Default)]
pub(super) struct Own {
    pub tcp: Vec<SocketAddr>,
    /// Device and inode of each socket's file.
    pub unix: Vec<(u64, u64)>,
}

impl Own {
    fn is_unix(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|found| self.unix.contains(&(found.dev(), found.ino())))
    }

    fn is_tcp(&self, address: &SocketAddr) -> bool {
        self.tcp.contains(address)
    }
}

/// Where Docker listens.
#[derive(Debug)]
pub(super) struct Upstream {
    host: DockerHost,
    tls: Option<tls::Files>,
    own: Own,
}

impl Upstream {
    pub fn new(config: &Config, host: DockerHost, own: Own) -> Self {
        Self { host, tls: config.docker.tls(), own }
    }

    /// As an operator would write it.
    pub fn address(&self) -> String {
        self.host.to_string()
    }

    /// One that leads back to the proxy, as far as this can be told without a connection.
    pub async fn refuse_itself(&self) -> Result<(), UpstreamError> {
        match &self.host {
            DockerHost::Unix(path) if self.own.is_unix(path) => Err(self.itself()),
            DockerHost::Tcp { host, port } => match addresses(host, *port).await {
                Ok(found) if found.iter().any(|address| self.own.is_tcp(address)) => Err(self.itself()),
                // A name server that is away now is no fault of the configuration.
                _ => Ok(()),
            },
            DockerHost::Unix(_) => Ok(()),
        }
    }

    /// A connection, looked at each time: Docker's socket may be a link, and be made anew.
    pub async fn connect(&self) -> Result<Stream, UpstreamError> {
        let away = |source| UpstreamError::Away { address: self.address(), source };
        match &self.host {
            DockerHost::Unix(path) => {
                if self.own.is_unix(path) {
                    return Err(self.itself());
                }
                Ok(Box::pin(dial::unix(path, Some(DOCKER_HELLO)).await.map_err(away)?))
            }
            DockerHost::Tcp { host, port } => {
                let found = addresses(host, *port).await?;
                let stream = dial::tcp(&found, Some(DOCKER_HELLO)).await.map_err(away)?;
                if stream.peer_addr().is_ok_and(|address| self.own.is_tcp(&address)) {
                    return Err(self.itself());
                }
                let Some(files) = &self.tls else { return Ok(Box::pin(stream)) };
                let unusable = |error: Box<dyn Error + Send + Sync>| DialError::Tls(io::Error::other(error));
                let config = files.client_config().map_err(|error| away(unusable(error.into())))?;
                let name =
                    ServerName::try_from(host.clone()).map_err(|error| away(unusable(error.into())))?;
                dial::secure(stream, Arc::new(config), name, Some(DOCKER_HELLO)).await.map_err(away)
            }
        }
    }

    fn itself(&self) -> UpstreamError {
        UpstreamError::Itself(self.address())
    }
}

async fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, UpstreamError> {
    let found = resolve::lookup(host).await;
    let found = found.map_err(|source| UpstreamError::Name { host: host.to_owned(), source })?;
    Ok(found.into_iter().map(|ip| (ip, port).into()).collect())
}

/// A connection to Docker that carries one request, beneath the HTTP client.
///
/// Docker ends a call when its client's side ends. So a client that leaves is handed on: this side is ended, once the
/// request has been sent whole. And a Docker that answers before an upload is finished, and closes, is listened to: a
/// write that fails is not the connection's end, and what Docker has written is still read.
pub(super) struct Carrier {
    /// Read in portions: the limit is set anew for each.
    stream: Take<Stream>,
    /// The client has ended its side.
    left: Pin<Box<WaitForCancellationFutureOwned>>,
    /// All of the request's body has been given to the HTTP client.
    sent: Arc<AtomicBool>,
    /// And it has written all of it.
    written: bool,
    ended: bool,
    /// Docker reads nothing more.
    deaf: bool,
}

impl Carrier {
    pub fn new(stream: Stream, left: CancellationToken, sent: Arc<AtomicBool>) -> Self {
        let left = Box::pin(left.cancelled_owned());
        let stream = stream.take(0);
        Self { stream, left, sent, written: false, ended: false, deaf: false }
    }

    /// The connection itself, once it has become a stream.
    pub fn into_stream(self) -> Stream {
        self.stream.into_inner()
    }

    fn io(&mut self) -> Pin<&mut dyn Duplex> {
        self.stream.get_mut().as_mut()
    }

    fn hand_on(&mut self, cx: &mut Context<'_>) {
        if self.written && !self.ended && self.left.as_mut().poll(cx).is_ready() {
            // An error is the connection's end as well.
            self.ended = self.io().poll_shutdown(cx).is_ready();
        }
    }

    fn or_deaf<T>(&mut self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        match written {
            Poll::Ready(Err(error)) if matches!(error.kind(), BrokenPipe | ConnectionReset) => {
                self.deaf = true;
                // The reader wakes this task: an answer or the end comes.
                Poll::Pending
            }
            written => written,
        }
    }
}

impl AsyncRead for Carrier {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.hand_on(cx);
        self.stream.set_limit(PROXY_READ as u64);
        Pin::new(&mut self.stream).poll_read(cx, to)
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Pending;
        }
        let written = self.io().poll_write(cx, bytes);
        self.or_deaf(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Pending;
        }
        let written = self.io().poll_write_vectored(cx, parts);
        self.or_deaf(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.get_ref().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The HTTP client flushes when its own buffer is empty.
        let flushed = self.io().poll_flush(cx);
        ready!(self.or_deaf(flushed))?;
        self.written = self.sent.load(Ordering::Acquire);
        self.hand_on(cx);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_shutdown(cx)
    }
}
