//! Records of containers that others start and stop, as clients of the Docker API do.
//!
//! Their owner is the Docker API proxy. When it is away they live on, so that a lock that can be taken proves nothing:
//! such a record is dead only when nothing lives in its namespace. What a cleaner then takes away is the network alone;
//! the container is never stopped, killed or removed.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::Config;
use crate::error::chain;
use crate::host::lock::within;
use crate::net::Namespace;
use crate::task::network::{self, holds};
use crate::task::record::journal::{Found, Journal, JournalEntry, JournalError, Peeked, Record};
use crate::workload::HostProcess;

use super::records;

/// A cleaner that looks at a record holds its lock for a moment.
const LOOKED_AT: Duration = Duration::from_secs(2);
/// How long a container's init that will never start may take to die.
const DYING: Duration = Duration::from_secs(5);

/// Whether the record is of a container that lives although it has no owner. Other containers that clients have put into
/// its namespace do not count.
pub fn lives(config: &Config, record: &Record) -> bool {
    let Some(id) = record.backing.adopted() else { return false };
    processes(config, record).into_iter().any(|pid| HostProcess::is_in(pid, id))
}

fn processes(config: &Config, record: &Record) -> Vec<i32> {
    namespace(config, record).map(|namespace| namespace.processes()).unwrap_or_default()
}

fn namespace(config: &Config, record: &Record) -> Option<Namespace> {
    Namespace::open(&network::namespace(config, &record.container)).ok()
}

/// A container that lives, taken over.
pub struct TakenOver {
    pub entry: JournalEntry,
    /// The addresses that it holds.
    pub addresses: Vec<IpAddr>,
}

/// Takes over all such containers that live, and takes down those that are over. For the proxy, before it
/// listens.
pub async fn take_over(config: &Config) -> Result<Vec<TakenOver>, JournalError> {
    let mut living = Vec::new();
    let mut over = Vec::new();
    for path in Journal::open(&config.paths.journal())?.files()? {
        let Some(Peeked::Orphan(record)) = Journal::peek(&path)? else { continue };
        let Some(id) = record.backing.adopted() else { continue };
        end_never_started(config, &record, id).await;
        if !lives(config, &record) {
            over.push(path);
            continue;
        }
        match within(LOOKED_AT, || Journal::take_over(&path)).await? {
            Some(Found::Orphan(entry)) => {
                let addresses = holds::of(config, &entry.record.container);
                living.push(TakenOver { entry: *entry, addresses });
            }
            Some(Found::Unreadable { path, why }) => {
                tracing::warn!("{} is left alone: {why}", path.display());
            }
            None => tracing::warn!("{} has another owner", path.display()),
        }
    }
    take_down(config, over).await;
    Ok(living)
}

async fn take_down(config: &Config, over: Vec<PathBuf>) {
    for record in records::take_down(config, over, None).await {
        match record {
            records::TakenDown::Swept(swept) if swept.report.complete() => {}
            records::TakenDown::Swept(swept) => {
                let errors = swept.report.errors.join("; ");
                tracing::warn!("could not clean up after {}: {errors}", swept.task_id);
            }
            records::TakenDown::Unreadable(path, why) => {
                tracing::warn!("{} is left alone: {why}", path.display());
            }
        }
    }
}

/// A dockerd that is killed while a start waits at the gate leaves the container's init behind, which nothing starts or
/// ends any more: Docker calls it "Created".
async fn end_never_started(config: &Config, record: &Record, id: &str) {
    let Some(namespace) = namespace(config, record) else { return };
    let of_container = |pid| HostProcess::is_in(pid, id);
    let mut its = namespace.processes().into_iter().filter(|pid| of_container(*pid)).peekable();
    if its.peek().is_none() || !its.all(is_waiting_init) {
        return;
    }
    if let Err(error) = namespace.kill_some(DYING, of_container).await {
        tracing::warn!("cannot end what was left at the gate: {}", chain(&error));
    }
}

/// What runc calls a container's first process until it becomes the container's program.
fn is_waiting_init(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "runc:[2:INIT]")
}
