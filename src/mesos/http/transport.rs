//! Requests to the agent: where they go, over what, and what stands in their heads.
//!
//! The heads are those of Mesos' own library, in its order and spelling. An agent compares the content
//! type letter by letter, and on its domain socket the path too.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{HeaderValue, ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, Uri};
use nix::sys::socket::{setsockopt, sockopt};
use rustls::pki_types::ServerName;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::state::CallAnswer;
use super::verify;
use crate::dial::{self, DialError, Spelling, Stream};
use crate::limits::{AGENT_ANSWER, AGENT_CONNECT};
use crate::mesos::driver::DriverError;
use crate::mesos::environment::HttpEnvironment;

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
/// More than any reason an agent gives.
const MAX_REASON: usize = 4 << 10;
/// After a minute of silence the kernel asks three times whether the agent's side is still there.
const KEEPALIVE: (u32, u32, u32) = (60, 20, 3);

pub(super) type Sender = SendRequest<Full<Bytes>>;

#[derive(Debug)]
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

pub(super) struct AgentTransport {
    address: Address,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    uri: Uri,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
}

impl AgentTransport {
    pub fn new(environment: &HttpEnvironment) -> Result<Self, DriverError> {
        let agent = &environment.common.slave_pid;
        let invalid = |source: hyper::http::Error| DriverError::Request { agent: agent.clone(), source };
        // The long form: the short one, without the actor, is no good on a domain socket.
        let uri = Uri::try_from(format!("/{}/api/v1/executor", agent.actor))
            .map_err(|error| invalid(error.into()))?;
        let host =
            HeaderValue::try_from(environment.endpoint.to_string()).map_err(|error| invalid(error.into()))?;
        let authorization = match &environment.token {
            Some(token) => {
                let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
                    .map_err(|error| invalid(error.into()))?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let (address, tls) = match (&environment.domain_socket, &environment.tls) {
            // No other process can listen in on it: libprocess never encrypts there.
            (Some(path), _) => (Address::Unix(path.clone()), None),
            (None, Some(tls)) => {
                let config =
                    verify::client_config(tls, environment.endpoint.ip()).map_err(DriverError::Tls)?;
                let name = ServerName::IpAddress(environment.endpoint.ip().into());
                (Address::Tcp(environment.endpoint), Some((Arc::new(config), name)))
            }
            (None, None) => (Address::Tcp(environment.endpoint), None),
        };
        Ok(Self { address, tls, uri, host, authorization })
    }

    /// A connection of its own; it ends when the sender and the answer's body are dropped.
    pub async fn connect(&self) -> Result<Sender, DialError> {
        dial::open(self.stream().await?, Spelling::Title).await
    }

    async fn stream(&self) -> Result<Stream, DialError> {
        let stream = match &self.address {
            Address::Unix(path) => return Ok(Box::pin(dial::unix(path, Some(AGENT_CONNECT)).await?)),
            Address::Tcp(address) => dial::tcp(&[*address], Some(AGENT_CONNECT)).await?,
        };
        keep_alive(&stream).map_err(DialError::Local)?;
        let Some((config, name)) = &self.tls else { return Ok(Box::pin(stream)) };
        dial::secure(stream, config.clone(), name.clone(), Some(AGENT_ANSWER)).await
    }

    /// Posts a call; the answer's head has arrived, its body has not.
    pub async fn post(&self, sender: &mut Sender, body: Bytes) -> Result<Response<Incoming>, DialError> {
        let exchange = async {
            sender.ready().await?;
            sender.send_request(self.request(body)).await
        };
        let answer = timeout(AGENT_ANSWER, exchange).await.map_err(|_| DialError::Slow(AGENT_ANSWER))?;
        answer.map_err(DialError::Broken)
    }

    fn request(&self, body: Bytes) -> Request<Full<Bytes>> {
        let length = HeaderValue::from(body.len());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(ACCEPT, PROTOBUF);
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        headers.insert(CONTENT_LENGTH, length);
        headers.insert(CONTENT_TYPE, PROTOBUF);
        request
    }
}

/// Status code and text of an answer that is to be read to its end.
pub(super) async fn read(response: Response<Incoming>) -> CallAnswer {
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), MAX_REASON).collect();
    // The code alone says enough.
    let text = match timeout(AGENT_ANSWER, body).await {
        Ok(Ok(body)) => {
            String::from_utf8_lossy(&body.to_bytes()).lines().next().unwrap_or_default().to_owned()
        }
        _ => String::new(),
    };
    CallAnswer { status, text }
}

/// A stream is silent for half an hour on end: an agent's host that vanished is noticed all the same.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let (idle, interval, count) = KEEPALIVE;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &idle)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &interval)?;
    setsockopt(stream, sockopt::TcpKeepCount, &count)?;
    Ok(())
}
