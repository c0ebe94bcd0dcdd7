//! One connection for each request to Docker, below bollard.
//!
//! The connections are [`crate::dial`]'s. So the transport separates a daemon that is away from every other fault,
//! sends the negotiated API version (bollard's own URLs leave it out), and answers what bollard cannot: the moment at
//! which Docker has registered a wait, an inspect text kept as it is, a stream resumed at a fraction of a second.

use std::error::Error;
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
use hyper::header::{HeaderMap, HeaderValue, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, Uri};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use crate::dial::{self, DialError, Stream};
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
    async fn over(&self, stream: TcpStream) -> Result<Stream, DialError> {
        let unusable = |error: Box<dyn Error + Send + Sync>| DialError::Tls(io::Error::other(error));
        let config = self.files.client_config().map_err(|error| unusable(error.into()))?;
        let name = ServerName::try_from(self.host.clone()).map_err(|error| unusable(error.into()))?;
        dial::secure(stream, Arc::new(config), name, None).await
    }
}

/// Cheap to clone; all clones share the negotiated version.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    address: Arc<Address>,
    /// `/v1.41`, once negotiated.
    prefix: Arc<OnceLock<String>>,
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
    ) -> Result<Response<Incoming>, DialError> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Full::<Bytes>::default()).map_err(DialError::Form)?).await
    }

    /// A request with JSON.
    pub(super) async fn post(&self, path: &str, json: Vec<u8>) -> Result<Response<Incoming>, DialError> {
        let request = Request::post(path).header(CONTENT_TYPE, "application/json");
        self.send(request.body(Full::<Bytes>::from(json)).map_err(DialError::Form)?).await
    }

    async fn send<B>(&self, mut request: Request<B>) -> Result<Response<Incoming>, DialError>
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
            .map_err(|error: hyper::http::uri::InvalidUri| DialError::Form(error.into()))?;
        *request.uri_mut() = uri;
        request.headers_mut().insert(HOST, HeaderValue::from_static("docker"));
        let stream: Stream = match &*self.address {
            Address::Unix(path) => Box::pin(dial::unix(path, None).await?),
            Address::Tcp(addresses, secured) => {
                let stream = dial::tcp(addresses, None).await?;
                match secured {
                    None => Box::pin(stream),
                    Some(secured) => secured.over(stream).await?,
                }
            }
        };
        dial::exchange(stream, request).await
    }

    /// A connection can be made.
    pub(super) async fn is_open(&self) -> Result<(), DialError> {
        match &*self.address {
            Address::Unix(path) => dial::unix(path, None).await.map(drop),
            Address::Tcp(addresses, _) => dial::tcp(addresses, None).await.map(drop),
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
                let stream = dial::tcp(addresses, None).await?;
                Ok(stream.local_addr()?.ip() == stream.peer_addr()?.ip())
            }
        }
    }
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
                DialError::Broken(err) => bollard::errors::Error::HyperResponseError { err },
                DialError::Form(err) => bollard::errors::Error::HttpClientError { err },
                connect => bollard::errors::Error::IOError { err: connect.into() },
            })
        })
    }
}

/// bollard writes credentials in base64's usual alphabet. Docker reads that of URLs, and takes what it
/// cannot read for missing credentials.
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
