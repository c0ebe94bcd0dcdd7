//! One connection: requests in, answers out, written as a real agent writes them.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::check::{self, Paths};
use super::{ApiReply, Asked};
use crate::mesos::http::recordio;
use crate::mesos::libprocess::framing::{ActorRequest, Decoder};
use crate::mesos::libprocess::server::{accepted, date};
use crate::mesos::messages::{event, Call, Event, Message as _};
use crate::rig::agent::hub::Internal;

/// Connections are read into buffers that grow by this much.
const READ: usize = 4 << 10;

/// Until the peer goes, or writes what is not HTTP.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    mut decoder: Decoder,
    mut first: Option<ActorRequest>,
    paths: Paths,
    hub: mpsc::UnboundedSender<Internal>,
) {
    loop {
        let request = match first.take() {
            Some(request) => request,
            None => match next(&mut stream, &mut decoder).await {
                Some(request) => request,
                None => return,
            },
        };
        let reply = match check::call(&request, paths) {
            Ok(call) => ask(call, &request, &hub).await,
            Err(refusal) => Some(refusal),
        };
        let Some(reply) = reply else { return };
        if answer(&mut stream, reply).await.is_err() || request.close {
            return;
        }
    }
}

async fn next<S: AsyncRead + Unpin>(stream: &mut S, decoder: &mut Decoder) -> Option<ActorRequest> {
    loop {
        match decoder.next_request() {
            Ok(Some(request)) => return Some(request),
            Ok(None) => {}
            Err(garbage) => {
                tracing::debug!(%garbage, "closing a connection");
                return None;
            }
        }
        decoder.buffer.reserve(READ);
        match stream.read_buf(&mut decoder.buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

async fn ask(call: Call, request: &ActorRequest, hub: &mpsc::UnboundedSender<Internal>) -> Option<ApiReply> {
    let (reply, answer) = oneshot::channel();
    let asked = Asked { call, token: check::token(request), reply };
    hub.send(Internal::Asked(Box::new(asked))).ok()?;
    answer.await.ok()
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, reply: ApiReply) -> std::io::Result<()> {
    match reply {
        ApiReply::Accepted => stream.write_all(accepted().as_bytes()).await,
        ApiReply::Refused(status, text) => stream.write_all(refusal(status, &text).as_bytes()).await,
        ApiReply::Stream { mut records, heartbeat } => {
            let head = format!(
                "HTTP/1.1 200 OK\r\nDate: {}\r\nTransfer-Encoding: chunked\r\nContent-Type: application/x-protobuf\r\n\r\n",
                date()
            );
            stream.write_all(head.as_bytes()).await?;
            let alive = Event { r#type: Some(event::Type::Heartbeat.into()), ..Event::default() };
            let mut beats = tokio::time::interval_at(Instant::now() + heartbeat, heartbeat);
            // Nothing more is asked on this connection: what can be read is its end.
            let mut byte = [0];
            loop {
                let record: Option<Vec<u8>> = tokio::select! {
                    record = records.recv() => record,
                    _ = beats.tick() => Some(alive.encode_to_vec()),
                    _ = stream.read(&mut byte) => return Err(std::io::ErrorKind::ConnectionAborted.into()),
                };
                let Some(record) = record else { return stream.write_all(b"0\r\n\r\n").await };
                stream.write_all(&chunk(&record)).await?;
            }
        }
    }
}

/// One record is one chunk.
fn chunk(record: &[u8]) -> Vec<u8> {
    let framed = recordio::encode(record);
    [format!("{:x}\r\n", framed.len()).as_bytes(), &framed, b"\r\n"].concat()
}

fn refusal(status: u16, text: &str) -> String {
    let reason = hyper::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason());
    format!(
        "HTTP/1.1 {status} {}\r\nDate: {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{text}",
        reason.unwrap_or_default(),
        date(),
        text.len()
    )
}
