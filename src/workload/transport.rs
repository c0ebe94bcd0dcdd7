//! One connection for each request to Docker, below bollard.
//!
//! An executor lives for months and asks Docker a dozen questions: a pool would only keep idle
//! connections and hand out dead ones after dockerd was restarted. Having the connection in our own
//! hands also tells "nobody listens there" from every other fault, sends the negotiated API version
//! (bollard's own URLs leave it out), and lets us ask what bollard cannot answer: the moment at which
//! Docker has registered a wait, an inspect text kept as it is, a stream resumed at a fraction of a second.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use bollard::BollardRequest;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HeaderMap, HeaderValue, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::TlsConnector;

use crate::tls;

/// Where to connect; names have become addresses already.
#[derive(Debug, Clone)]
pub(super) enum Address {
    Unix(PathBuf),
    /// All addresses of one host, tried in turn.
    Tcp(Vec<SocketAddr>, Option<Secured>),
}

/// TLS, for a daemon at an address.
#[derive(Debug, Clone)]
pub(super) struct Secured {
    /// As configured: what the daemon's certificate has to name.
    pub host: String,
    pub files: tls::Files,
}

impl Secured {
    async fn handshake(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = self.files.client_config().map_err(io::Error::other)?;
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

/// Cheap to clone; all clones share the negotiated version.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    address: Arc<Address>,
    /// `/v1.41`, once negotiated.
    prefix: Arc<OnceLock<String>>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("the connection broke")]
    Http(#[source] hyper::Error),
    #[error("the request cannot be formed")]
    Form(#[source] hyper::http::Error),
}

impl Transport {
    pub(super) fn new(address: Address) -> Self {
        Self { address: Arc::new(address), prefix: Arc::default() }
    }

    /// From now on every request carries this version, say `1.41`.
    pub(super) fn set_version(&self, version: &str) {
        // A second negotiation cannot happen: `Docker::connect` calls this once on a fresh value.
        let _ = self.prefix.set(format!("/v{version}"));
    }

    /// A request without a body to `path`, which may have a query.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response<Incoming>, SendError> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Full::<Bytes>::default()).map_err(SendError::Form)?).await
    }

    /// A request with JSON.
    pub(super) async fn post(&self, path: &str, json: Vec<u8>) -> Result<Response<Incoming>, SendError> {
        let request = Request::post(path).header(CONTENT_TYPE, "application/json");
        self.send(request.body(Full::<Bytes>::from(json)).map_err(SendError::Form)?).await
    }

    async fn send<B>(&self, mut request: Request<B>) -> Result<Response<Incoming>, SendError>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let versioned = path.starts_with("/v1.");
        let prefix = self.prefix.get().filter(|_| !versioned).map_or("", String::as_str);
        let uri: Uri = format!("{prefix}{path}")
            .parse()
            .map_err(|error: hyper::http::uri::InvalidUri| SendError::Form(error.into()))?;
        *request.uri_mut() = uri;
        request.headers_mut().insert(HOST, HeaderValue::from_static("docker"));
        match &*self.address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(SendError::Connect)?;
                exchange(stream, request).await
            }
            Address::Tcp(addresses, secured) => {
                let stream = TcpStream::connect(&addresses[..]).await.map_err(SendError::Connect)?;
                stream.set_nodelay(true).map_err(SendError::Connect)?;
                match secured {
                    None => exchange(stream, request).await,
                    Some(secured) => {
                        let stream = secured.handshake(stream).await.map_err(SendError::Connect)?;
                        exchange(stream, request).await
                    }
                }
            }
        }
    }

    /// A connection can be made.
    pub(super) async fn is_open(&self) -> io::Result<()> {
        match &*self.address {
            Address::Unix(path) => UnixStream::connect(path).await.map(drop),
            Address::Tcp(addresses, _) => TcpStream::connect(&addresses[..]).await.map(drop),
        }
    }

    /// A daemon behind a socket of this machine's file system.
    pub(super) fn is_unix(&self) -> bool {
        matches!(*self.address, Address::Unix(_))
    }

    /// Is the daemon on this machine? A connection to oneself has the same address at both ends.
    pub(super) async fn is_local(&self) -> io::Result<bool> {
        match &*self.address {
            Address::Unix(_) => Ok(true),
            Address::Tcp(addresses, _) => {
                let stream = TcpStream::connect(&addresses[..]).await?;
                Ok(stream.local_addr()?.ip() == stream.peer_addr()?.ip())
            }
        }
    }
}

/// Sends the request; the connection lives in the background until the answer's body (or the stream
/// that it was upgraded to) is at its end or dropped.
async fn exchange<S, B>(stream: S, request: Request<B>) -> Result<Response<Incoming>, SendError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(SendError::Http)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            // The reader of the answer gets the same error; this is for those who debug.
            tracing::trace!(%error, "a connection to Docker ended");
        }
    });
    sender.send_request(request).await.map_err(SendError::Http)
}

/// What bollard takes as its transport: a function from request to answer.
pub(super) fn for_bollard(
    transport: Transport,
) -> impl Fn(BollardRequest) -> BollardAnswer + Send + Sync + 'static {
    move |mut request| {
        let transport = transport.clone();
        url_alphabet(request.headers_mut());
        Box::pin(async move {
            transport.send(request).await.map_err(|error| match error {
                SendError::Connect(err) => bollard::errors::Error::IOError { err },
                SendError::Http(err) => bollard::errors::Error::HyperResponseError { err },
                SendError::Form(err) => bollard::errors::Error::HttpClientError { err },
            })
        })
    }
}

/// bollard writes credentials in base64's usual alphabet. Docker reads that of URLs, and takes what it
/// cannot read for no credentials at all.
fn url_alphabet(headers: &mut HeaderMap) {
    let Some(value) = headers.get_mut("X-Registry-Auth") else { return };
    let text = value.to_str().unwrap_or_default().replace('+', "-").replace('/', "_");
    // Letters, digits and three signs: every such text is a header's value.
    *value = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
    value.set_sensitive(true);
}

type BollardAnswer = Pin<Box<dyn Future<Output = Result<Response<Incoming>, bollard::errors::Error>> + Send>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_written_in_the_alphabet_of_urls() {
        let mut headers = HeaderMap::new();
        url_alphabet(&mut headers);
        assert!(headers.is_empty());
        headers.insert("X-Registry-Auth", HeaderValue::from_static("a+b/c=="));
        url_alphabet(&mut headers);
        assert_eq!(headers["X-Registry-Auth"], "a-b_c==");
        assert!(headers["X-Registry-Auth"].is_sensitive());
    }
}
