//! The few HTTP requests that starting a daemon needs: is it up, what runs in it, import an image.
//!
//! Plain HTTP/1.0 by hand, one connection a request: clients with pools and TLS belong to the product's
//! own modules, each of which names its library alone.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

pub(super) struct Reply {
    pub status: u16,
    pub body: String,
}

pub(super) async fn over_tcp(at: SocketAddr, path: &str) -> std::io::Result<Reply> {
    limited(Duration::from_secs(2), async { exchange(TcpStream::connect(at).await?, "GET", path, &[]).await })
        .await
}

pub(super) async fn over_unix(
    socket: &Path,
    method: &str,
    path: &str,
    body: &[u8],
    limit: Duration,
) -> std::io::Result<Reply> {
    limited(limit, async { exchange(UnixStream::connect(socket).await?, method, path, body).await }).await
}

async fn limited(
    limit: Duration,
    work: impl std::future::Future<Output = std::io::Result<Reply>>,
) -> std::io::Result<Reply> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
    body: &[u8],
) -> std::io::Result<Reply> {
    // The only bodies are JSON and, to import an image, a tar archive.
    let kind = if body.first() == Some(&b'{') { "json" } else { "x-tar" };
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/{kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    parse(&String::from_utf8_lossy(&answer)).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

fn parse(answer: &str) -> Option<Reply> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split_whitespace().nth(1)?.parse().ok()?;
    Some(Reply { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body() {
        let reply = parse("HTTP/1.0 200 OK\r\nA: b\r\n\r\nOK").unwrap();
        assert_eq!((reply.status, reply.body.as_str()), (200, "OK"));
        assert!(parse("").is_none());
    }
}
