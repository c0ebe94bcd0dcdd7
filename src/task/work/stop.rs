//! Ends a workload, even if Docker does not respond.
//!
//! ```text
//!  ask politely ──grace──► kill ──patience──► kill the process itself ──► give up waiting for Docker
//!      └─ Docker away: asked again, with what is left of the grace
//! ```
//!
//! The life decides when to stop; this module does it.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{sleep, timeout, Instant};

use crate::error::chain;
use crate::workload::HostProcess;

use super::{Attached, Ready};

/// A stop that is refused or forgotten is asked for again.
const AGAIN: Duration = Duration::from_secs(5);
/// How long a process may take to die of SIGKILL.
const DYING: Duration = Duration::from_secs(5);

/// Where a command's signals go; none for a container, which Docker stops.
#[derive(Clone)]
pub(in crate::task) struct Signals(Option<UnboundedSender<Signal>>);

impl Signals {
    fn send(&self, signal: Signal) {
        if let Some(signals) = &self.0 {
            // The command may have ended already.
            let _ = signals.send(signal);
        }
    }
}

impl Attached {
    pub fn signals(&self) -> Signals {
        Signals(self.control.as_ref().map(|control| control.signals.clone()))
    }

    pub fn process(&self) -> Option<Arc<HostProcess>> {
        self.process.clone()
    }
}

/// One request, and the pause until it is worth another. `until`: the grace period's end; `None`: it is over, and
/// politeness with it.
pub(in crate::task) async fn ask(ready: Arc<Ready>, signals: Signals, until: Option<Instant>) {
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    match (&*ready, left) {
        (Ready::Container(container), left) => {
            let asked = match left {
                Some(left) => container.stop(left).await,
                None => container.kill().await,
            };
            if let Err(error) = asked {
                tracing::warn!("{}; trying again", chain(&error));
            }
        }
        // Its maker's to stop. After the grace period its process is killed without Docker.
        (Ready::Adopted(_), _) => {}
        (Ready::Command(_), Some(left)) if !left.is_zero() => {
            signals.send(Signal::SIGTERM);
            // Said once; SIGKILL follows by the grace period's end.
            sleep(left).await;
        }
        (Ready::Command(_), _) => signals.send(Signal::SIGKILL),
    }
    sleep(AGAIN).await;
}

/// True when the container's first process, and with it everything in its pid namespace, is dead.
pub(in crate::task) async fn kill_process(ready: Arc<Ready>, process: Option<Arc<HostProcess>>) -> bool {
    let (id, is_dead) = match &*ready {
        Ready::Container(container) => (container.id(), container.is_dead()),
        Ready::Adopted(container) => (container.id(), HostProcess::none_in(container.id())),
        Ready::Command(_) => return false,
    };
    // Not inspected yet, when the kill came before Docker answered.
    let process = process.or_else(|| HostProcess::search(id).map(Arc::new));
    // Where no process can be found the container may be over; otherwise only Docker can report it, and is asked again.
    let Some(process) = process else { return is_dead };
    process.kill() && timeout(DYING, process.gone()).await.is_ok()
}
