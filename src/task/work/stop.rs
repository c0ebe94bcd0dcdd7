//! Stopping a workload within its grace period, whatever Docker does meanwhile.
//!
//! ```text
//!  ask politely ──grace──► kill ──patience──► kill the process itself ──► give up waiting for Docker
//!      │  a later kill only shortens the grace: then we kill at its end, instead of asking twice
//!      └─ Docker away: asked again, with what is left of the grace
//! ```

use std::time::Duration;

use tokio::time::{sleep, sleep_until, timeout, Instant};

use crate::error::chain;
use crate::workload::{DockerError, Exit};

use super::{told, Attached, End, Ready};
use crate::task::link::{Command, Link};

/// A stop that Docker refuses or forgets is asked for again.
const AGAIN: Duration = Duration::from_secs(5);
/// How long after the grace period Docker may still be the one who ends the workload.
const DOCKER_PATIENCE: Duration = Duration::from_secs(15);
/// How long a process may take to die of SIGKILL.
const DYING: Duration = Duration::from_secs(5);
/// What a shell calls the end by SIGKILL.
const SIGKILLED: i64 = 137;

impl Attached {
    /// Ends the workload. When Docker cannot, the process itself is killed; where that is not known either,
    /// a Calico task is left to its teardown, which kills by namespace.
    pub async fn stop(&mut self, ready: &Ready, first: Command, link: &mut Link) -> End {
        let Command::Kill { grace, .. } = first;
        let mut deadline = Instant::now() + grace;
        let mut shortened = false;
        tracing::info!("stopping {} with a grace period of {grace:?}", ready.name());
        let mut asking = Box::pin(ask(ready, deadline, false));
        loop {
            tokio::select! {
                end = &mut self.exit => return told(end),
                Some(Command::Kill { grace, .. }) = link.commands.recv() => {
                    let sooner = Instant::now() + grace;
                    if sooner < deadline {
                        tracing::info!("the grace period is shortened to {grace:?}");
                        (deadline, shortened) = (sooner, true);
                    }
                }
                () = sleep_until(deadline), if shortened => {
                    shortened = false;
                    asking = Box::pin(ask(ready, deadline, true));
                }
                () = &mut asking => asking = Box::pin(ask(ready, deadline, false)),
                () = sleep_until(deadline + DOCKER_PATIENCE) => {
                    tracing::warn!("Docker does not stop {}; it is killed without Docker", ready.name());
                    if self.kill_process(ready).await || ready.has_teardown() {
                        return Ok(Exit { code: SIGKILLED, oom_killed: None });
                    }
                    deadline = Instant::now();
                }
            }
        }
    }

    /// True when the workload's first process, and with it everything in its pid namespace, is dead.
    async fn kill_process(&self, ready: &Ready) -> bool {
        let Some(process) = &self.process else { return false };
        process.kill_in(ready.id()) && timeout(DYING, process.gone()).await.is_ok()
    }
}

/// One request to Docker, and the pause until it is worth another. `at_once`: it has been asked politely before.
async fn ask(ready: &Ready, deadline: Instant, at_once: bool) {
    let left = deadline.saturating_duration_since(Instant::now());
    let asked: Result<(), DockerError> = match at_once {
        true => ready.kill().await,
        false => ready.stop(left).await,
    };
    if let Err(error) = asked {
        tracing::warn!("{}; asking again", chain(&error));
    }
    sleep(AGAIN).await;
}
