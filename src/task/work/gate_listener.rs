//! The executor's side of the gate, a socket that it listens on: the last step before the workload's first instruction.
//! `crate::gate` has the other side, and the words between the two.
//!
//! `calico-runc start` connects to a socket on which the executor listens for as long as it lives, and waits for one
//! word. The socket is also the lock: a dead executor refuses connections, and a waiting runtime sees the end of the
//! stream, so that the gate fails closed without any clean-up.
//!
//! ```text
//!  Waiting ──decide(open)──► Open ──first start──► Passed
//!     │                        │                     │
//!     └──────close(reason)─────┴──► Refused           (both for good)
//! ```
//!
//! It opens once: a second start is refused. A teardown closes the gate first, so that nothing can start in a namespace
//! that is being taken down, and before any call to Docker, which would block until the waiting `start` returns.

use std::io;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::gate::{self, GateVerdict};
use crate::logging;

/// Longer than any request: a version word and Docker's id.
const MAX_REQUEST: u64 = 512;

#[derive(Debug, Clone, PartialEq)]
enum State {
    Waiting,
    Open,
    Passed,
    Refused(String),
}

/// A gate that listens. Dropping it refuses every start that waits or comes later.
#[derive(Debug)]
pub struct Gate {
    state: watch::Sender<State>,
    knock: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    path: PathBuf,
}

impl Gate {
    /// Listens at `path` (root only, by its folder); a file that lies there is from an older life.
    pub fn listen(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(gate::nearby(path)?.path())?;
        let (state, _) = watch::channel(State::Waiting);
        let (knock, _) = watch::channel(false);
        let accepting = logging::spawn(accept(listener, state.clone(), knock.clone()));
        Ok(Self { state, knock, accepting, path: path.into() })
    }

    /// Waits until the runtime stands at the gate: the container's init exists from then on.
    pub async fn knocked(&self) {
        // The sender lives as long as the gate, so there is no error.
        let _ = self.knock.subscribe().wait_for(|knocked| *knocked).await;
    }

    /// Knocks and waits from within this process: for a workload that is the executor's own child.
    pub async fn pass(&self) -> GateVerdict {
        self.knock.send_replace(true);
        verdict(&self.state).await
    }

    /// The network is ready: the start that waits may go on.
    pub fn open(&self) {
        self.state.send_if_modified(|state| {
            let waiting = *state == State::Waiting;
            if waiting {
                *state = State::Open;
            }
            waiting
        });
    }

    /// Refuses every start from here on. A start that has passed already stays known: such a task runs, and has
    /// to be stopped with its grace period.
    pub fn close(&self, reason: &str) {
        self.state.send_if_modified(|state| {
            let closing = matches!(state, State::Waiting | State::Open);
            if closing {
                *state = State::Refused(reason.to_owned());
            }
            closing
        });
    }

    /// Waits until a start has gone through.
    pub async fn has_passed(&self) {
        // The sender lives as long as the gate, so there is no error.
        let _ = self.state.subscribe().wait_for(|state| *state == State::Passed).await;
    }

    /// Has a start gone through?
    pub fn passed(&self) -> bool {
        *self.state.borrow() == State::Passed
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.accepting.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, state: watch::Sender<State>, knock: watch::Sender<bool>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (state, knock) = (state.clone(), knock.clone());
                logging::spawn(async move {
                    if let Err(error) = serve(stream, &state, &knock).await {
                        tracing::warn!("the runtime closed its connection to the gate: {error}");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: the runtime has a deadline of its own.
                tracing::warn!("the gate cannot accept a connection: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(
    stream: UnixStream,
    state: &watch::Sender<State>,
    knock: &watch::Sender<bool>,
) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut request = String::new();
    if BufReader::new(reader.take(MAX_REQUEST)).read_line(&mut request).await? == 0 {
        // It only checked who listens.
        return Ok(());
    }
    let verdict = match gate::GateRequest::parse(&request) {
        Ok(gate::GateRequest { verb: gate::GateVerb::Start, .. }) => {
            knock.send_replace(true);
            verdict(state).await
        }
        Ok(_) => GateVerdict::Refused("a container's own gate answers only its start".to_owned()),
        Err(reason) => GateVerdict::Refused(reason.to_string()),
    };
    writer.write_all(verdict.line().as_bytes()).await?;
    writer.shutdown().await
}

/// Waits for the decision, and uses it up.
async fn verdict(state: &watch::Sender<State>) -> GateVerdict {
    let mut changes = state.subscribe();
    if changes.wait_for(|state| *state != State::Waiting).await.is_err() {
        return GateVerdict::Refused("the executor is ending".into());
    }
    let mut verdict =
        GateVerdict::Refused("this container has been started before; Mesos starts a task only once".into());
    state.send_if_modified(|state| match state {
        State::Open => {
            verdict = GateVerdict::Open;
            *state = State::Passed;
            true
        }
        State::Refused(reason) => {
            verdict = GateVerdict::Refused(reason.clone());
            false
        }
        State::Waiting | State::Passed => false,
    });
    verdict
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn ask(path: &Path) -> GateVerdict {
        let path = path.to_owned();
        let id = "ab".repeat(32);
        tokio::task::spawn_blocking(move || gate::ask(&path, &id, Duration::from_secs(5))).await.unwrap()
    }

    #[tokio::test]
    async fn the_gate_lets_one_start_through() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gate");
        let gate = Gate::listen(&path).unwrap();
        let (first, ()) = tokio::join!(ask(&path), async {
            gate.knocked().await;
            assert!(!gate.passed());
            gate.open();
        });
        assert_eq!(first, GateVerdict::Open);
        assert!(gate.passed());
        gate.close("the task is being killed");
        assert!(gate.passed(), "a task that runs counts as never started");
        let GateVerdict::Refused(reason) = ask(&path).await else { panic!("a second start went through") };
        assert!(reason.contains("started before"), "{reason}");
    }

    #[tokio::test]
    async fn a_closed_gate_does_not_open_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gate");
        let gate = Gate::listen(&path).unwrap();
        gate.open();
        gate.close("the task is being killed");
        gate.open();
        assert_eq!(ask(&path).await, GateVerdict::Refused("the task is being killed".into()));
    }

    #[tokio::test]
    async fn a_dead_executor_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gate");
        let gate = Gate::listen(&path).unwrap();
        drop(gate);
        assert!(matches!(ask(&path).await, GateVerdict::Refused(_)));
    }
}
