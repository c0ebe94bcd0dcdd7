//! Where calico-runc asks for a container's network, and says that a container is over.
//!
//! A unix socket that only root can open; one line in, one line out, as [`crate::gate`] describes. A
//! question whose asker goes away, because its dockerd was killed, is given up.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::lives::Lives;
use crate::gate::{self, GateRequest, GateVerb, GateVerdict};

/// Longer than any request: a few words and Docker's id.
const MAX_REQUEST: u64 = 512;
/// After a fault in accepting.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers until it is dropped.
pub struct GateSocket {
    accepting: JoinHandle<()>,
    path: PathBuf,
}

impl GateSocket {
    /// Listens at `path`; a file that lies there is that of a proxy that has ended: the caller holds the lock
    /// of this one.
    pub fn listen(path: &Path, lives: Arc<Lives>) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(gate::nearby(path)?.path())?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { accepting: tokio::spawn(accept(listener, lives)), path: path.into() })
    }
}

impl Drop for GateSocket {
    fn drop(&mut self) {
        self.accepting.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, lives: Arc<Lives>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let lives = lives.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve(stream, &lives).await {
                        tracing::warn!("the runtime closed its connection to the proxy: {error}");
                    }
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection of the runtime: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(stream: UnixStream, lives: &Lives) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader.take(MAX_REQUEST));
    let mut line = String::new();
    if reader.read_line(&mut line).await? == 0 {
        return Ok(());
    }
    let verdict = match GateRequest::parse(&line) {
        Ok(GateRequest { verb: GateVerb::Prepare, docker_id }) => {
            // It says nothing more, so that whatever can be read is its end.
            let mut rest = [0];
            tokio::select! {
                prepared = lives.prepare(&docker_id) => match prepared {
                    Ok(()) => GateVerdict::Open,
                    Err(failure) => GateVerdict::Refused(failure.to_string()),
                },
                _ = reader.read(&mut rest) => return Ok(()),
            }
        }
        Ok(GateRequest { verb: GateVerb::Ended, docker_id }) => {
            lives.ended(&docker_id);
            GateVerdict::Open
        }
        Ok(GateRequest { verb: GateVerb::Start, .. }) => {
            GateVerdict::Refused("a container starts at its own gate".to_owned())
        }
        Err(reason) => GateVerdict::Refused(reason.to_string()),
    };
    writer.write_all(verdict.line().as_bytes()).await?;
    writer.shutdown().await
}
