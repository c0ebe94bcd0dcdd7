//! A request on its way to Docker, and the answer on its way back.
//!
//! Target, headers and body go on unchanged, as they come: the head of an answer passes before any of its body, which
//! `events` and `wait` send hours later. Nothing here has a limit of time but the connection itself.

use std::convert::Infallible;
use std::future::{pending, Future};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::task::{ready, Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::ext::on_informational;
use hyper::header::{
    HeaderValue, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{HeaderMap, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, Notify};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::dial::Stream;
use crate::error::chain;
use crate::limits::{PROXY_BODY, PROXY_CONTINUE, PROXY_HEADERS, PROXY_HEADERS_SIZE};

use super::answer::{self, ClientAnswer};
use super::socket::ClientSocket;
use super::splice::splice;
use super::upstream::{Carrier, Upstream, UpstreamError};
use super::Shared;

/// The connection that a request came over.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    /// The client has ended its side.
    pub left: CancellationToken,
    pub becomes: mpsc::UnboundedSender<Becomes>,
}

/// What becomes of a connection that turns into a stream.
pub(super) enum Becomes {
    /// Once the HTTP server has written its answer, 101.
    Upgraded { client: OnUpgrade, docker: OnUpgrade },
    /// At once: the HTTP server has not answered.
    Raw {
        /// The answer, as it is written.
        head: Vec<u8>,
        docker: Stream,
        /// What Docker has sent already.
        first: Bytes,
    },
}

impl Becomes {
    /// The stream, until its end. `client` is the connection, and what was read from it beyond the request.
    pub async fn run(self, client: Option<(ClientSocket, Bytes)>) {
        match (self, client) {
            (Self::Raw { head, docker, first }, Some((mut client, read))) => {
                if client.write_all(&head).await.is_ok() {
                    splice(client, docker, (read, first)).await;
                }
            }
            (Self::Upgraded { client, docker }, _) => {
                let (Ok(client), Ok(docker)) = tokio::join!(client, docker) else { return };
                // It is what the HTTP server was given.
                let Ok(client) = client.downcast::<TokioIo<ClientSocket>>() else { return };
                let (docker, first) = docker_stream(docker);
                splice(client.io.into_inner(), docker, (client.read_buf, first)).await;
            }
            (Self::Raw { .. }, None) => {}
        }
    }
}

/// Why Docker's answer did not come.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForwardError {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("the connection to Docker broke before it answered")]
    Broken(#[source] hyper::Error),
}

impl ForwardError {
    /// What the client gets instead.
    pub fn answer(&self, upstream: &Upstream) -> ClientAnswer {
        tracing::warn!("a request was not answered: {}", chain(self));
        match self {
            Self::Upstream(UpstreamError::Itself(_)) => {
                answer::error(StatusCode::SERVICE_UNAVAILABLE, &chain(self))
            }
            _ => answer::docker_away(&upstream.address()),
        }
    }
}

/// Passes a request as it is.
pub(super) async fn pass(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    from: &Connection,
) -> ClientAnswer {
    let mut request = request.map(Either::Left);
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let mut answer = match send(&shared.upstream, request, from).await {
        Ok(answer) => answer,
        Err(error) => return error.answer(&shared.upstream),
    };
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let docker = hyper::upgrade::on(&mut answer);
        let Some(client) = upgrade else {
            return answer::error(StatusCode::BAD_GATEWAY, "Docker upgrades a connection unasked");
        };
        // The receiver lives as long as the connection.
        let _ = from.becomes.send(Becomes::Upgraded { client, docker });
    }
    answer.map(Either::Left)
}

/// Passes a request for a stream of raw bytes. With `Upgrade` it is an upgrade as any other. Without, Docker takes the
/// connection over and answers 200 with a body that has no length, which no HTTP server can do: then Docker is asked
/// for an upgrade, and the client's connection is taken out of the HTTP server.
pub(super) async fn stream(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    from: &Connection,
) -> ClientAnswer {
    if request.headers().contains_key(UPGRADE) {
        return pass(shared, request, from).await;
    }
    let (mut head, body) = match whole(request).await {
        Ok(parts) => parts,
        Err(refusal) => return refusal,
    };
    head.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    head.headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    if head.version == Version::HTTP_10 {
        head.version = Version::HTTP_11;
        head.headers.entry(HOST).or_insert(HeaderValue::from_static("docker"));
    }
    let request = with_body(head, body);
    let mut answer = match send(&shared.upstream, request, from).await {
        Ok(answer) => answer,
        Err(error) => return error.answer(&shared.upstream),
    };
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return answer.map(Either::Left);
    }
    let head = raw_stream_head(&answer);
    if let Ok(docker) = hyper::upgrade::on(&mut answer).await {
        let (docker, first) = docker_stream(docker);
        // The connection is dropped with its requests: there is no answer to wait for.
        if from.becomes.send(Becomes::Raw { head, docker, first }).is_ok() {
            pending::<Infallible>().await;
        }
    }
    answer::docker_away(&shared.upstream.address())
}

/// The bytes that Docker writes itself. Those of its headers that say something else go along.
fn raw_stream_head<B>(answer: &Response<B>) -> Vec<u8> {
    let mut head = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n".to_vec();
    let others =
        answer.headers().iter().filter(|(name, _)| ![CONNECTION, UPGRADE, CONTENT_TYPE].contains(name));
    for (name, value) in others {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

fn docker_stream(upgraded: Upgraded) -> (Stream, Bytes) {
    match upgraded.downcast::<TokioIo<Carrier>>() {
        Ok(parts) => (parts.io.into_inner().into_stream(), parts.read_buf),
        Err(other) => (Box::pin(TokioIo::new(other)), Bytes::new()),
    }
}

/// A request whose body the proxy has to know before it goes on.
pub(super) async fn whole(request: Request<Incoming>) -> Result<(Parts, Bytes), ClientAnswer> {
    let (head, body) = request.into_parts();
    match Limited::new(body, PROXY_BODY).collect().await {
        Ok(body) => Ok((head, body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("the request's body is longer than {} MiB", PROXY_BODY >> 20);
            Err(answer::error(StatusCode::PAYLOAD_TOO_LARGE, &message))
        }
        Err(error) => {
            let message = format!("cannot read the request's body: {error}");
            Err(answer::error(StatusCode::BAD_REQUEST, &message))
        }
    }
}

/// A request with a body that the proxy has changed.
pub(super) fn with_body(mut head: Parts, body: Bytes) -> Request<Either<Incoming, Full<Bytes>>> {
    describe_body(&mut head.headers, &body);
    Request::from_parts(head, Either::Right(Full::from(body)))
}

/// How the body came that this one replaces says nothing of this one.
pub(super) fn describe_body(headers: &mut HeaderMap, body: &Bytes) {
    headers.remove(TRANSFER_ENCODING);
    headers.remove(EXPECT);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
}

/// Sends a request over a connection of its own, which lives in the background as long as the answer's body.
pub(super) async fn send(
    upstream: &Upstream,
    mut request: Request<Either<Incoming, Full<Bytes>>>,
    from: &Connection,
) -> Result<Response<Incoming>, ForwardError> {
    let stream = upstream.connect().await?;
    let sent = Arc::new(AtomicBool::new(request.body().is_end_stream()));
    let carrier = Carrier::new(stream, from.left.clone(), sent.clone());
    let may_send = wait_for_continue(&mut request);
    let request = request.map(|body| Outgoing { body, may_send, sent });
    let (mut sender, connection) = http1::Builder::new()
        .preserve_header_case(true)
        .max_headers(PROXY_HEADERS)
        .max_buf_size(PROXY_HEADERS_SIZE)
        .handshake(TokioIo::new(carrier))
        .await
        .map_err(ForwardError::Broken)?;
    tokio::spawn(async move {
        // The reader of the answer gets the same error.
        let _ = connection.with_upgrades().await;
    });
    sender.send_request(request).await.map_err(ForwardError::Broken)
}

type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// With `Expect: 100-continue` the client sends its body when Docker has said so, or when it has waited long enough.
fn wait_for_continue<B>(request: &mut Request<B>) -> Option<Waiting> {
    let expected = request.headers().get(EXPECT)?;
    if !expected.as_bytes().eq_ignore_ascii_case(b"100-continue") {
        return None;
    }
    let told = Arc::new(Notify::new());
    let teller = told.clone();
    on_informational(request, move |answer| {
        if answer.status() == StatusCode::CONTINUE {
            teller.notify_one();
        }
    });
    Some(Box::pin(async move {
        // A client's own patience ends too: a server need not say it.
        let _ = timeout(PROXY_CONTINUE, told.notified()).await;
    }))
}

/// A request's body on its way.
struct Outgoing {
    body: Either<Incoming, Full<Bytes>>,
    /// Until it is over, the client is not told to send.
    may_send: Option<Waiting>,
    /// Set at the body's end.
    sent: Arc<AtomicBool>,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(waiting) = &mut self.may_send {
            ready!(waiting.as_mut().poll(cx));
            self.may_send = None;
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.sent.store(true, Ordering::Release);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
