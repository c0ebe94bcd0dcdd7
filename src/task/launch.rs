//! From "everything is prepared" to "the workload runs": `docker start` and the network, side by side.
//!
//! Three things happen at once from here: Docker starts the container, whose runtime then stands at
//! the gate; the datastore's write and the interface; and a kill may come. Docker's calls for a
//! container block while its `start` waits, so every way out goes through the gate, never through
//! Docker: whatever fails closes the gate, and the start call then returns by itself.

use std::net::IpAddr;
use std::time::Instant;

use tokio::pin;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::Failure;
use crate::limits::{DOCKER_KILLED, START_BESIDES_GATE};
use crate::names::ContainerId;

use super::felix;
use super::gate::Gate;
use super::journal::Entry;
use super::link::Command;
use super::network::{self, Prepared, Unwired, Wired};
use super::spec::RUNTIME;
use super::steps::{Step, Steps};
use super::teardown::{Claim, Workload};
use super::work::{Attached, Ready};

/// What a start needs besides what has been prepared.
pub struct Launch<'a> {
    pub config: &'a Config,
    pub ready: &'a Ready,
    pub attached: &'a mut Attached,
    pub entry: &'a Entry,
    pub gate: &'a Gate,
    /// Is told when the answer to the datastore's write is lost.
    pub claim: &'a mut Claim,
    pub steps: &'a Steps,
}

/// How a start ended.
pub enum Started {
    Running(Box<Wired>),
    /// What the teardown has to know of the container stands beside.
    Failed(Failure, Workload),
    /// A kill came first: nothing of the workload ran.
    Killed(Command, Workload),
    /// A kill came when the workload had passed the gate already: it is to be stopped.
    KilledRunning(Command),
}

impl Launch<'_> {
    /// Starts the container and opens its gate when the network is ready.
    pub async fn run(self, prepared: Prepared, commands: &mut UnboundedReceiver<Command>) -> Started {
        let given_up = CancellationToken::new();
        // calico-runc refuses when the gate's time is over, so this is the time of a Docker that does not answer.
        let limit = self.config.runtime.gate_timeout + START_BESIDES_GATE;
        let wiring = prepared.wire(self.config, self.entry, self.steps, given_up.clone());
        let starting = async {
            let result = self.ready.start(self.attached, Some(self.gate), limit).await;
            if result.is_ok() {
                self.steps.pass(Step::Started).await;
            }
            result
        };
        let knocking = async {
            self.gate.knocked().await;
            let at = Instant::now();
            self.steps.pass(Step::Waiting).await;
            at
        };
        pin!(wiring, starting, knocking);
        let mut wired: Option<Result<Wired, Unwired>> = None;
        let mut started = None;
        let (mut killed, mut unanswered) = (None, false);
        let began = tokio::time::Instant::now();
        let mut opened = false;
        let mut failed_by_itself = false;
        let mut knocked_at: Option<Instant> = None;
        let mut give_up = tokio::time::Instant::now();
        // Neither half is ever dropped half done: a write whose answer nobody hears would be lost.
        while wired.is_none() || started.is_none() {
            tokio::select! {
                mut result = &mut wiring, if wired.is_none() => {
                    if let Err(Unwired { failure, pending }) = &mut result {
                        self.gate.close(&failure.message);
                        if let Some(pending) = pending.take() {
                            *self.claim = Claim::Lost(pending);
                        }
                    }
                    wired = Some(result);
                }
                at = &mut knocking, if knocked_at.is_none() => knocked_at = Some(at),
                result = &mut starting, if started.is_none() => {
                    if let Err(failure) = &result {
                        // Before the runtime came to the gate: what the network makes of being given up is no cause.
                        failed_by_itself = wired.is_none() && knocked_at.is_none();
                        // Nothing may start in what is being given up.
                        self.gate.close(&failure.message);
                        given_up.cancel();
                    }
                    started = Some(result);
                }
                Some(command) = commands.recv(), if killed.is_none() => {
                    self.gate.close("the task is being killed");
                    given_up.cancel();
                    killed = Some(command);
                    give_up = tokio::time::Instant::now() + DOCKER_KILLED;
                }
                // Docker has not even called the runtime: teardown ends what may come of it.
                () = tokio::time::sleep_until(give_up), if killed.is_some() && started.is_none() => {
                    started = Some(Err(Failure::host("CM-DOCKER", "Docker does not answer the start")));
                    unanswered = true;
                }
            }
            if let (Some(Ok(wired)), Some(at), false) = (&mut wired, knocked_at, opened) {
                opened = true;
                wired.timing.gate = at.elapsed();
                let_through(
                    self.gate,
                    self.config,
                    &self.entry.record.container,
                    &self.ready.host_names(),
                    &wired.addresses,
                );
                self.steps.pass(Step::Opened).await;
            }
        }
        unanswered |= matches!(started, Some(Err(_))) && began.elapsed() >= limit;
        let workload = if unanswered { Workload::Unheard } else { Workload::NeverStarted };
        ended(self.gate, (wired, started, killed), failed_by_itself, workload)
    }
}

type Ends = (Option<Result<Wired, Unwired>>, Option<Result<(), Failure>>, Option<Command>);

/// What network, start and kill come to; of two failures the one that was the cause.
fn ended(gate: &Gate, ends: Ends, failed_by_itself: bool, workload: Workload) -> Started {
    match ends {
        (_, Some(Ok(())), Some(command)) if gate.passed() => Started::KilledRunning(command),
        (_, _, Some(command)) => Started::Killed(command, workload),
        // The network was given up because of the start, not the other way round.
        (Some(Err(unwired)), Some(Err(failure)), _)
            if failed_by_itself || felix::is_given_up(&unwired.failure) =>
        {
            Started::Failed(failure, workload)
        }
        (Some(Err(unwired)), _, _) => Started::Failed(unwired.failure, workload),
        (_, Some(Err(failure)), _) => Started::Failed(failure, workload),
        // Docker's runtime of our name is another program: the workload runs without its network.
        _ if !gate.passed() => Started::Failed(no_gate(), workload),
        (Some(Ok(wired)), _, _) => Started::Running(Box::new(wired)),
        (None, _, _) => unreachable!("the loop ends when both are there"),
    }
}

fn let_through(gate: &Gate, config: &Config, container: &ContainerId, names: &str, addresses: &[IpAddr]) {
    match network::write_hosts(config, container, names, addresses) {
        Ok(()) => gate.open(),
        Err(why) => gate.close(&why),
    }
}

fn no_gate() -> Failure {
    Failure::host(
        "CM-RUNTIME",
        format!("Docker's runtime '{RUNTIME}' on this agent is not calico-runc; run `calico-mesos node install-runtime` there"),
    )
}
