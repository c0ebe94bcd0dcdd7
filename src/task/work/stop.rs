//! Stopping a workload within its grace period, whatever Docker does meanwhile.
//!
//! ```text
//!  ask politely ──grace──► kill ──patience──► kill the process itself ──► give up waiting for Docker
//!      │  a later kill only shortens the grace: then we kill at its end, instead of asking twice
//!      └─ Docker away: asked again, with what is left of the grace
//! ```

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{sleep, sleep_until, timeout, Instant};

use crate::error::chain;
use crate::workload::{Exit, HostProcess};

use super::{told, Attached, Control, End, Ready};
use crate::task::link::{Command, Link};

/// A stop that is refused or forgotten is asked for again.
const AGAIN: Duration = Duration::from_secs(5);
/// How long after the grace period the workload may still end the usual way.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a process may take to die of SIGKILL.
const DYING: Duration = Duration::from_secs(5);
/// What a shell calls the end by SIGKILL.
const SIGKILLED: i64 = 137;

impl Attached {
    /// Ends the workload. When Docker cannot, the process itself is killed; where that is not known either,
    /// a task with a namespace of its own (`torn_down`) is left to its teardown, which kills by namespace.
    pub async fn stop(&mut self, ready: &Ready, first: Command, link: &mut Link, torn_down: bool) -> End {
        let Command::Kill { grace, .. } = first;
        let mut deadline = Instant::now() + grace;
        tracing::info!("stopping the task with a grace period of {grace:?}");
        let (exit, process, control) = (&mut self.exit, self.process.as_deref(), self.control.as_ref());
        // Docker counts the first grace period itself; every other end of one is ours to watch.
        let mut ours = control.is_some();
        let mut asking = Box::pin(ask(ready, control, Some(deadline)));
        loop {
            tokio::select! {
                end = &mut *exit => return told(end),
                Some(Command::Kill { grace, .. }) = link.commands.recv() => {
                    let sooner = Instant::now() + grace;
                    if sooner < deadline {
                        tracing::info!("the grace period is shortened to {grace:?}");
                        (deadline, ours) = (sooner, true);
                    }
                }
                () = sleep_until(deadline), if ours => {
                    ours = false;
                    asking = Box::pin(ask(ready, control, None));
                }
                () = &mut asking => asking = Box::pin(ask(ready, control, Some(deadline))),
                () = sleep_until(deadline + PATIENCE) => {
                    tracing::warn!("the task does not end; its process is killed without Docker");
                    if kill_process(ready, process).await || torn_down {
                        self.given_up = true;
                        return Ok(Exit { code: SIGKILLED, oom_killed: None });
                    }
                    deadline = Instant::now();
                }
            }
        }
    }
}

/// One request, and the pause until it is worth another. `until`: the grace period's end; `None`: it is over, and
/// politeness with it.
async fn ask(ready: &Ready, control: Option<&Control>, until: Option<Instant>) {
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    match (ready, control) {
        (Ready::Container(container), _) => {
            let asked = match left {
                Some(left) => container.stop(left).await,
                None => container.kill().await,
            };
            if let Err(error) = asked {
                tracing::warn!("{}; asking again", chain(&error));
            }
        }
        (Ready::Command(_), Some(control)) => match left.filter(|left| !left.is_zero()) {
            Some(left) => {
                control.signal(Signal::SIGTERM);
                // Said once; SIGKILL follows by the grace period's end.
                sleep(left).await;
            }
            None => control.signal(Signal::SIGKILL),
        },
        (Ready::Command(_), None) => {}
    }
    sleep(AGAIN).await;
}

/// True when the container's first process, and with it everything in its pid namespace, is dead.
async fn kill_process(ready: &Ready, process: Option<&HostProcess>) -> bool {
    let Ready::Container(container) = ready else { return false };
    // Never looked at, when the kill came before Docker could tell.
    let searched = process.is_none().then(|| HostProcess::search(container.id())).flatten();
    // Where no process can be found the container may be over; else Docker alone can tell, and is asked again.
    let Some(process) = process.or(searched.as_ref()) else { return container.is_dead() };
    process.kill() && timeout(DYING, process.gone()).await.is_ok()
}
