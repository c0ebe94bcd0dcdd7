//! Receiving: accepts connections and hands every message for one actor on, in order.
//!
//! A message counts once it has been read, whether or not its answer can still be written: an agent
//! closes the connection right behind some messages. Pipelined messages and several connections at
//! once are the rule. Garbage ends its connection and nothing else.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::framing::{ActorRequest, Decoder};
use super::Incoming;
use crate::limits::AGENT_TAKES;

/// An agent needs three; beyond this many at once, new ones are closed at once.
const MAX_CONNECTIONS: usize = 256;
/// After a failed accept, say for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections are read into buffers that grow by this much.
const READ: usize = 4 << 10;

/// A connection that turned out to speak something else, from its first such request on.
pub struct Foreign {
    pub request: ActorRequest,
    /// Holds what has been read behind the request.
    pub decoder: Decoder,
    pub stream: TcpStream,
}

/// Serves such a connection to its end.
pub type Api = Arc<dyn Fn(Foreign) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Keeps the listener open; dropped, it closes with all its connections.
#[derive(Debug)]
pub struct Server {
    task: JoinHandle<()>,
}

impl Server {
    /// Serves `actor` on `listener`; ends by itself when the messages have no receiver any more.
    pub fn start(listener: TcpListener, actor: &str, messages: mpsc::UnboundedSender<Incoming>) -> Self {
        Self { task: tokio::spawn(accept(listener, actor.to_owned(), messages, None)) }
    }

    /// The same, and requests that are no messages and begin with `/api/` or `/<actor>/api/` go to `api`.
    pub fn with_api(
        listener: TcpListener,
        actor: &str,
        messages: mpsc::UnboundedSender<Incoming>,
        api: Api,
    ) -> Self {
        Self { task: tokio::spawn(accept(listener, actor.to_owned(), messages, Some(api))) }
    }

    /// Closes the listener and every connection, and waits until that is done.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    actor: String,
    messages: mpsc::UnboundedSender<Incoming>,
    api: Option<Api>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = messages.closed() => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < MAX_CONNECTIONS => {
                    connections.spawn(serve(stream, actor.clone(), messages.clone(), api.clone()));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

async fn serve(
    mut stream: TcpStream,
    actor: String,
    messages: mpsc::UnboundedSender<Incoming>,
    api: Option<Api>,
) {
    let mut decoder = Decoder::default();
    let mut answering = true;
    loop {
        loop {
            let request = match decoder.next_request() {
                Ok(Some(request)) => request,
                Ok(None) => break,
                Err(garbage) => {
                    tracing::debug!(%garbage, "closing a connection");
                    answer(&mut stream, &mut answering, &bad_request()).await;
                    return;
                }
            };
            if let Some(api) = api.as_ref().filter(|_| is_for_api(&request, &actor)) {
                return api(Foreign { request, decoder, stream }).await;
            }
            let close = request.close;
            let reply = match request.for_actor(&actor) {
                Some(message) => {
                    if messages.send(message).is_err() {
                        return;
                    }
                    accepted()
                }
                None => not_found(),
            };
            answer(&mut stream, &mut answering, &reply).await;
            if close {
                return;
            }
        }
        if decoder.buffer.is_empty() {
            // Nothing is kept for a connection that is silent for months.
            decoder.buffer = bytes::BytesMut::new();
            if stream.readable().await.is_err() {
                return;
            }
        }
        decoder.buffer.reserve(READ);
        match stream.read_buf(&mut decoder.buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn is_for_api(request: &ActorRequest, actor: &str) -> bool {
    let path = request.path.strip_prefix('/').unwrap_or_default();
    let path = path.strip_prefix(actor).and_then(|path| path.strip_prefix('/')).unwrap_or(path);
    request.sender.is_none() && path.starts_with("api/")
}

/// Answers are a courtesy: after the first failure there are none on this connection.
async fn answer(stream: &mut TcpStream, answering: &mut bool, reply: &str) {
    if *answering {
        let written = tokio::time::timeout(AGENT_TAKES, stream.write_all(reply.as_bytes())).await;
        *answering = matches!(written, Ok(Ok(())));
    }
}

/// Taken, nothing to say.
pub fn accepted() -> String {
    format!("HTTP/1.1 202 Accepted\r\nDate: {}\r\nContent-Length: 0\r\n\r\n", date())
}

fn not_found() -> String {
    let body = "404 Not Found.";
    format!(
        "HTTP/1.1 404 Not Found\r\nDate: {}\r\nContent-Length: {}\r\nContent-Type: text/plain\r\n\r\n{body}",
        date(),
        body.len()
    )
}

fn bad_request() -> String {
    format!("HTTP/1.1 400 Bad Request\r\nDate: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", date())
}

/// Now, as HTTP writes it.
pub fn date() -> String {
    httpdate::fmt_http_date(std::time::SystemTime::now())
}
