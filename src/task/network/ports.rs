//! The host ports of a Calico task: checks that they are free, and forwards them to the task while it runs.

use std::net::IpAddr;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Dataplane};
use crate::error::{chain, Code, Failure};
use crate::logging;
use crate::names::ContainerId;
use crate::net::forward::{self, Forward, Mapping, PortHolder, Taken};
use crate::net::NetError;

use crate::task::record::journal::{Journal, Record};
use crate::task::retry::host_faults;

/// Checks that the task's ports are free. A port that is about to be given up is waited for, like all that is the
/// host's fault.
pub(in crate::task) async fn available(config: &Config, record: &Record) -> Result<(), Failure> {
    if record.ports.is_empty() {
        return Ok(());
    }
    host_faults(config.launch.retry_for, || async {
        forward::check(&record.container, &record.ports).await.map_err(|error| failure(config, &error))
    })
    .await
}

/// What is to be forwarded, if anything is.
pub(in crate::task) fn forward(
    config: &Config,
    container: &ContainerId,
    mappings: Vec<Mapping>,
    addresses: &[IpAddr],
) -> Option<Forward> {
    (!mappings.is_empty()).then(|| Forward {
        container: container.clone(),
        addresses: addresses.to_vec(),
        mappings,
        // Felix sets route_localnet on every interface of a task.
        loopback: config.node.dataplane == Dataplane::Felix,
    })
}

pub(in crate::task) fn failure(config: &Config, error: &NetError) -> Failure {
    let NetError::PortTaken(taken) = error else {
        return Failure::new(
            Code::Net,
            format!("cannot forward the host's ports to the task: {}", chain(error)),
        );
    };
    Failure::new(Code::PortTaken, sentence(config, taken))
}

/// The journal has the tasks' names.
fn sentence(config: &Config, taken: &Taken) -> String {
    let PortHolder::Task(container) = &taken.holder else { return taken.to_string() };
    let journal = Journal::open(&config.paths.journal()).ok();
    match journal.and_then(|journal| journal.look(container)) {
        Some(Record { identity, .. }) => {
            format!("{taken}, which is {} of {}", identity.task_id, identity.app)
        }
        None => taken.to_string(),
    }
}

/// Sees to it, beside the task's life, that the ports go on leading to the task.
pub(in crate::task) struct Keeper {
    stop: CancellationToken,
    work: JoinHandle<()>,
}

impl Keeper {
    pub fn start(forward: Forward) -> Self {
        let stop = CancellationToken::new();
        Self { work: logging::spawn(forward::keep(forward, stop.clone())), stop }
    }

    /// Nothing is restored any more once this returns.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.work.await {
            tracing::warn!("an internal error of the executor while it watched the host's ports: {error}");
        }
    }
}
