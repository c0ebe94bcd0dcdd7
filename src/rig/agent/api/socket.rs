//! The agent's domain socket, the other way to its executor API.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::check::Paths;
use super::connection;
use crate::mesos::libprocess::framing::Decoder;
use crate::rig::agent::hub::Internal;

/// Keeps the socket open; dropped, it closes with all its connections.
#[derive(Debug)]
pub(crate) struct Socket {
    task: JoinHandle<()>,
}

impl Socket {
    /// Replaces what an earlier agent has left there; everybody may connect.
    pub fn start(path: &Path, hub: mpsc::UnboundedSender<Internal>) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        Ok(Self { task: tokio::spawn(accept(listener, hub)) })
    }

    /// Closes it and every connection, and waits until that is done. The file stays.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: UnixListener, hub: mpsc::UnboundedSender<Internal>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let serve = connection::serve(stream, Decoder::default(), None, Paths::Long, hub.clone());
                    connections.spawn(serve);
                }
                Err(error) => return tracing::warn!(%error, "the domain socket takes no more connections"),
            },
        }
    }
}
