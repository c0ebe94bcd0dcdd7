//! A stream of raw bytes between a client and Docker. Nothing of it is looked into.

use std::io;

use bytes::Bytes;
use tokio::io::{copy, split, AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use crate::dial::Stream;

use super::socket::ClientSocket;

/// Copies both ways until both sides have ended, one breaks, or the client is gone. `first` are bytes that were read
/// together with the heads: the client's and Docker's.
///
/// A side that ends is handed on as that alone: `docker run -i` ends its input and goes on reading output. Docker ends
/// a stream whose client is gone for good, where it can tell, and so does this.
pub(super) async fn splice(client: ClientSocket, docker: Stream, first: (Bytes, Bytes)) {
    let (from_docker, to_docker) = split(docker);
    let input_ended = Notify::new();
    let input = async {
        one_way(client.clone(), to_docker, first.0).await?;
        input_ended.notify_one();
        Ok(())
    };
    let output = one_way(from_docker, client.clone(), first.1);
    let gone = async {
        input_ended.notified().await;
        client.gone().await;
    };
    tokio::select! {
        // What broke has no reader for its error.
        _ = async { tokio::try_join!(input, output) } => {}
        () = gone => {}
    }
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    first: Bytes,
) -> io::Result<()> {
    if !first.is_empty() {
        to.write_all(&first).await?;
    }
    // Even an empty one holds the buffer that the head was read into.
    drop(first);
    copy(&mut from, &mut to).await?;
    to.shutdown().await
}
