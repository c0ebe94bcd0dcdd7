//! Connections to Docker, the Mesos agent and tasks under a health check, and HTTP requests over them.
//!
//! Callers bring addresses, not names, and keep what is theirs: heads, versions, time limits of a whole exchange.
//! [`DialError`] separates a peer that refuses from one that is away, one that is slow and one whose TLS is refused.
//! A request has a connection of its own ([`exchange`]), or many share one that their caller holds ([`open`]). There is
//! no pool: an executor lives for months and sends a request now and then, so a pool would hold idle connections and
//! hand out dead ones after its peer was restarted.

mod error;
mod probe;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

pub use error::DialError;
pub use probe::probe;

/// A connection of any kind.
pub type Stream = Pin<Box<dyn Duplex>>;

/// Both directions of a connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send {}
impl<S: AsyncRead + AsyncWrite + Send> Duplex for S {}

/// How header names are spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// `content-type`
    Lower,
    /// `Content-Type`, as Mesos's own library writes them.
    Title,
}

/// A local socket. One whose queue is full is an error at once.
pub async fn unix(path: &Path, limit: Option<Duration>) -> Result<UnixStream, DialError> {
    within(limit, UnixStream::connect(path)).await
}

/// The first of one host's addresses that accepts.
pub async fn tcp(addresses: &[SocketAddr], limit: Option<Duration>) -> Result<TcpStream, DialError> {
    prompt(within(limit, TcpStream::connect(addresses)).await?)
}

/// From a socket that was made elsewhere, as in a task's network namespace.
pub async fn tcp_from(socket: TcpSocket, address: SocketAddr) -> Result<TcpStream, DialError> {
    prompt(within(None, socket.connect(address)).await?)
}

/// TLS over a connection. `name` is what the peer's certificate has to name, if the configuration verifies it.
pub async fn secure(
    stream: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    limit: Option<Duration>,
) -> Result<Stream, DialError> {
    let handshake = TlsConnector::from(config).connect(name, stream);
    match within(limit, handshake).await {
        Ok(stream) => Ok(Box::pin(stream)),
        Err(DialError::Slow(limit)) => Err(DialError::Slow(limit)),
        Err(error) => Err(DialError::Tls(error.into())),
    }
}

/// Sends one request over a connection of its own. That lives in the background until the answer's body (or the stream
/// that it was upgraded to) is at its end or dropped, or this future is.
pub async fn exchange<B>(stream: Stream, request: Request<B>) -> Result<Response<Incoming>, DialError>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut sender = open(stream, Spelling::Lower).await?;
    sender.send_request(request).await.map_err(DialError::Broken)
}

/// Makes a connection ready for requests. It lives in the background until the sender and the last answer's body are
/// dropped.
pub async fn open<B>(stream: Stream, spelling: Spelling) -> Result<SendRequest<B>, DialError>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) = http1::Builder::new()
        .title_case_headers(spelling == Spelling::Title)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(DialError::Broken)?;
    tokio::spawn(async move {
        // The reader of the answer gets the same error.
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}

async fn within<S>(
    limit: Option<Duration>,
    connecting: impl Future<Output = io::Result<S>>,
) -> Result<S, DialError> {
    let connected = match limit {
        None => connecting.await,
        Some(limit) => timeout(limit, connecting).await.map_err(|_| DialError::Slow(limit))?,
    };
    connected.map_err(DialError::of_connect)
}

/// A request is small and waits for its answer: it is sent at once.
fn prompt(stream: TcpStream) -> Result<TcpStream, DialError> {
    stream.set_nodelay(true).map_err(DialError::of_connect)?;
    Ok(stream)
}

#[cfg(test)]
mod tests;
