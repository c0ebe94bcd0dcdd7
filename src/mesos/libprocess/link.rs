//! Sending: one raw TCP connection that lives as long as the peer does.
//!
//! Messages are queued and written in order; what the peer answers is read and thrown away. The end
//! of the stream is the only news a link brings, and it brings it once. There is no time limit on
//! reading: a link is silent for months.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use crate::dial;
use crate::limits::{AGENT_ANSWER, AGENT_CONNECT};

/// Opens the connection that a [`PeerLink`] is made of.
pub async fn connect(peer: SocketAddr) -> io::Result<TcpStream> {
    Ok(dial::tcp(&[peer], Some(AGENT_CONNECT)).await?)
}

/// The sending end. Dropped: what is queued is still written, then the connection is closed.
#[derive(Debug)]
pub struct PeerLink {
    queue: mpsc::UnboundedSender<Vec<u8>>,
}

impl PeerLink {
    /// Over a connection that stands; `closed` hears when it has ended, and why.
    pub fn over(stream: TcpStream, closed: oneshot::Sender<io::Error>) -> Self {
        let (queue, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move { tell(closed, drive(stream, requests).await) });
        Self { queue }
    }

    /// Connects in the background; what is sent meanwhile is written once the connection stands.
    pub fn open(peer: SocketAddr, closed: oneshot::Sender<io::Error>) -> Self {
        let (queue, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let end = match connect(peer).await {
                Ok(stream) => drive(stream, requests).await,
                Err(error) => error,
            };
            tell(closed, end);
        });
        Self { queue }
    }

    /// Queues a whole request. Lost without a word when the link has ended: the protocol resends.
    pub fn send(&self, request: Vec<u8>) {
        let _ = self.queue.send(request);
    }
}

fn tell(closed: oneshot::Sender<io::Error>, end: io::Error) {
    // There is no receiver any more: the owner has dropped this link for a newer one.
    let _ = closed.send(end);
}

async fn drive(mut stream: TcpStream, mut requests: mpsc::UnboundedReceiver<Vec<u8>>) -> io::Error {
    let (mut read, mut write) = stream.split();
    let writing = async {
        while let Some(request) = requests.recv().await {
            write.write_all(&request).await?;
        }
        write.shutdown().await
    };
    let reading = async {
        let mut answers = [0; 512];
        loop {
            match read.read(&mut answers).await {
                Ok(0) => return io::Error::from(io::ErrorKind::UnexpectedEof),
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    };
    tokio::select! {
        end = reading => end,
        end = writing => end.err().unwrap_or_else(|| io::Error::from(io::ErrorKind::NotConnected)),
    }
}

/// Sends one request over a connection of its own, closed right after writing.
pub async fn send_once(peer: SocketAddr, request: &[u8]) -> io::Result<()> {
    let mut stream = connect(peer).await?;
    // A peer that does not read fills the kernel's buffers first.
    let written = tokio::time::timeout(AGENT_ANSWER, stream.write_all(request)).await;
    written.map_err(|_| io::ErrorKind::TimedOut)??;
    stream.shutdown().await
}
