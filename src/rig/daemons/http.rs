//! The few HTTP requests that starting a daemon needs: is it up, what runs in it, import an image.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::Request;
use tokio::time::timeout;

use crate::dial::{self, DialError, Stream};

pub(super) struct Reply {
    pub status: u16,
    pub body: String,
}

pub(super) async fn over_tcp(at: SocketAddr, path: &str) -> io::Result<Reply> {
    let asking = async { ask(Box::pin(dial::tcp(&[at], None).await?), "GET", path, &[]).await };
    timeout(Duration::from_secs(2), asking).await?
}

pub(super) async fn over_unix(
    socket: &Path,
    method: &str,
    path: &str,
    body: &[u8],
    limit: Duration,
) -> io::Result<Reply> {
    let asking = async { ask(Box::pin(dial::unix(socket, None).await?), method, path, body).await };
    timeout(limit, asking).await?
}

async fn ask(stream: Stream, method: &str, path: &str, body: &[u8]) -> io::Result<Reply> {
    // The only bodies are JSON and, to import an image, a tar archive.
    let kind = if body.first() == Some(&b'{') { "application/json" } else { "application/x-tar" };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "localhost")
        .header(CONTENT_TYPE, kind)
        .body(Full::new(Bytes::copy_from_slice(body)))
        .map_err(DialError::Form)?;
    let answer = dial::exchange(stream, request).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.map_err(DialError::Broken)?.to_bytes();
    Ok(Reply { status, body: String::from_utf8_lossy(&body).into_owned() })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn status_and_body_of_an_answer_are_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let answering = async {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut asked = [0; 512];
            let length = peer.read(&mut asked).await.unwrap();
            assert!(asked[..length].starts_with(b"GET /health HTTP/1.1\r\n"));
            peer.write_all(b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 2\r\n\r\nOK").await.unwrap();
        };
        let (reply, ()) = tokio::join!(over_tcp(at, "/health"), answering);
        let reply = reply.unwrap();
        assert_eq!((reply.status, reply.body.as_str()), (200, "OK"));
    }
}
