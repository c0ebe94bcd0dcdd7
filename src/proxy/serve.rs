//! One client's connection, from its first byte to its last.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::rt::{Sleep, Timer};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::limits::{PROXY_DRAIN, PROXY_HEAD, PROXY_HEADERS, PROXY_HEADERS_SIZE};

use super::answer::{self, ClientAnswer};
use super::browser;
use super::calls;
use super::forward::{Becomes, Connection};
use super::socket::ClientSocket;
use super::Shared;

/// Serves a connection until its client or the proxy ends it.
pub(super) async fn serve(socket: ClientSocket, shared: Arc<Shared>) {
    let _counted = shared.counts.connection();
    let (becomes, mut streams) = mpsc::unbounded_channel();
    let from = Connection { left: CancellationToken::new(), becomes };
    let left = from.left.clone();
    let service = service_fn(|request: Request<Incoming>| {
        socket.await_request();
        let (shared, from, is_tcp) = (shared.clone(), from.clone(), socket.is_tcp());
        // In a box of its own, which goes with the answer: the HTTP server keeps room for this as long as the connection.
        Box::pin(async move { Ok::<_, Infallible>(answer(&shared, request, &from, is_tcp).await) })
    });
    let mut server = http1::Builder::new()
        // A client that ends its side may still read: it is watched below.
        .half_close(true)
        .preserve_header_case(true)
        .auto_date_header(false)
        .max_headers(PROXY_HEADERS)
        .max_buf_size(PROXY_HEADERS_SIZE)
        .timer(HeadTimer(socket.clone()))
        .header_read_timeout(PROXY_HEAD)
        .serve_connection(TokioIo::new(socket.clone()), service)
        .with_upgrades();
    let (mut becomes, mut is_ending) = (None, false);
    loop {
        tokio::select! {
            // Its error is the client's: a request that is none, or a connection that broke.
            _ = &mut server => break,
            Some(stream) = streams.recv() => {
                let is_raw = matches!(stream, Becomes::Raw { .. });
                becomes = Some(stream);
                if is_raw {
                    break;
                }
            }
            () = socket.ended(), if !left.is_cancelled() => left.cancel(),
            () = shared.ending.cancelled(), if !is_ending => {
                is_ending = true;
                Pin::new(&mut server).graceful_shutdown();
            }
        }
    }
    let Some(stream) = becomes.or_else(|| streams.try_recv().ok()) else { return drain(socket).await };
    let _counted = shared.counts.stream();
    // None where the HTTP server has given it to the stream already.
    let client = server.into_parts().map(|parts| (parts.io.into_inner(), parts.read_buf));
    tokio::select! {
        () = stream.run(client) => {}
        () = shared.ending.cancelled() => {}
    }
}

async fn answer(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    from: &Connection,
    is_tcp: bool,
) -> ClientAnswer {
    shared.counts.request();
    if let Some(refusal) = is_tcp.then(|| browser::refusal(request.headers())).flatten() {
        shared.counts.refused(refusal.code);
        tracing::warn!("a request was refused: {refusal}");
        return answer::refused(StatusCode::FORBIDDEN, &refusal);
    }
    if request.method() == Method::CONNECT {
        // Docker has no such call, and whatever comes after would be a stream that it did not agree to.
        return answer::error(StatusCode::NOT_FOUND, "page not found");
    }
    calls::answer(shared, request, from).await
}

/// Reads what a client still sends that was answered before the end of its upload: with unread bytes the kernel would
/// reset the connection, and the client might lose the answer.
async fn drain(mut socket: ClientSocket) {
    let mut unread = [0; 4096];
    let reading = async { while socket.read(&mut unread).await.is_ok_and(|length| length > 0) {} };
    // A client that goes on is cut off.
    let _ = timeout(PROXY_DRAIN, reading).await;
}

/// Limits the time for a request's head from its first byte on: a connection without a request may be idle for ever.
struct HeadTimer(ClientSocket);

struct HeadTime {
    socket: ClientSocket,
    limit: Duration,
    left: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Timer for HeadTimer {
    fn sleep(&self, limit: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(HeadTime { socket: self.0.clone(), limit, left: None })
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(deadline.saturating_duration_since(Instant::now()))
    }
}

impl Sleep for HeadTime {}

impl Future for HeadTime {
    type Output = ();

    /// The HTTP server calls this after each read.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.socket.is_within_request() {
            return Poll::Pending;
        }
        let limit = self.limit;
        self.left.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit))).as_mut().poll(cx)
    }
}
