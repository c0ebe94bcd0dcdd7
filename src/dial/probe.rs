//! Whether TLS is what keeps a server from answering, found out by one connection of its own.
//!
//! Libraries that speak HTTP/2 keep only the text of such an error, or none: a server that does not expect what it
//! is sent closes the connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{secure, tcp, Stream};

use crate::tls::{fault, trust_everybody, Files, PlainRefused, PlainSpoken};

/// Any server of HTTP answers it. It holds no secret.
const REQUEST: &[u8] = b"GET /health HTTP/1.0\r\n\r\n";

/// An error that has a [`fault`], if there is one. `host` is what the server's certificate has to name, `files` are
/// `None` where the server is spoken to without TLS.
pub async fn probe(address: SocketAddr, host: &str, files: Option<&Files>) -> Option<io::Error> {
    let Some(files) = files else {
        let answer = plain(address).await.ok()?;
        let speaks_tls = answer.is_empty() && accepts_tls(address, host).await;
        return speaks_tls
            .then(|| io::Error::other(PlainRefused { status: "a closed connection".to_owned() }));
    };
    let secured = async {
        let config = files.client_config().map_err(io::Error::other)?;
        exchange(handshake(address, host, config).await?).await
    };
    let error = secured.await.err()?;
    if fault(&error).is_some() {
        return Some(error);
    }
    let answer = plain(address).await.ok()?;
    answer.starts_with(b"HTTP/").then(|| io::Error::other(PlainSpoken))
}

/// Nothing is sent that could be of use to another server.
async fn accepts_tls(address: SocketAddr, host: &str) -> bool {
    let Ok(config) = trust_everybody() else { return false };
    handshake(address, host, config).await.is_ok()
}

async fn handshake(address: SocketAddr, host: &str, config: ClientConfig) -> io::Result<Stream> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let stream = tcp(&[address], None).await?;
    Ok(secure(stream, Arc::new(config), name, None).await?)
}

async fn plain(address: SocketAddr) -> io::Result<Vec<u8>> {
    exchange(tcp(&[address], None).await?).await
}

/// The beginning of the answer; nothing when the connection was closed instead.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<Vec<u8>> {
    // A server that refuses may have closed its side: why it did is still to be read.
    let _ = stream.write_all(REQUEST).await;
    let mut answer = vec![0; 16];
    match stream.read(&mut answer).await {
        Ok(length) => answer.truncate(length),
        Err(error) if fault(&error).is_none() && error.kind() == io::ErrorKind::ConnectionReset => {
            answer.clear()
        }
        Err(error) => return Err(error),
    }
    Ok(answer)
}
