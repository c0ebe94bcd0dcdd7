//! A client of Docker's API that keeps its connection, as the docker command and the SDKs do.

use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{handshake, SendRequest};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

pub struct Client(SendRequest<Full<Bytes>>);

impl Client {
    pub async fn unix(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).await.expect("it listens")).await
    }

    pub async fn tcp(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
        stream.set_nodelay(true).expect("an open connection");
        Self::over(stream).await
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("a connection");
        tokio::spawn(connection);
        Self(sender)
    }

    /// The answer's status, and all of its body.
    pub async fn call(&mut self, method: &str, path: &str, body: &str) -> (u16, Bytes) {
        let request = Request::builder().method(method).uri(path).header("Host", "localhost");
        let request = request.header("Content-Type", "application/json");
        let request = request.body(Full::from(body.to_owned())).expect("a good request");
        self.0.ready().await.expect("the connection is kept");
        let answer = self.0.send_request(request).await.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.into_body().collect().await.expect("a whole body").to_bytes())
    }

    /// A call that has to succeed; what it answers, if anything.
    pub async fn done(&mut self, method: &str, path: &str, body: &str) -> Value {
        let (status, body) = self.call(method, path, body).await;
        assert!(status < 300, "{method} {path}: {status} {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap_or_default()
    }
}
