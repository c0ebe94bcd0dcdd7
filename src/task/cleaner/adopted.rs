//! Records of containers that others start and stop, as clients of the Docker API do.
//!
//! Their owner is the Docker API proxy. When it is away they live on, so that a lock that can be taken proves nothing:
//! such a record is dead only when nothing lives in its namespace. What a cleaner then takes away is the network alone;
//! the container is never stopped, killed or removed.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::config::Config;
use crate::error::{chain, Code, Failure};
use crate::host::lock::within;
use crate::limits::ETCD_CLEANER;
use crate::names::ContainerId;
use crate::net::Namespace;
use crate::task::network::{self, holds};
use crate::task::record::journal::{self, Found, Journal, JournalEntry, JournalError, Peeked, Record};
use crate::workload::HostProcess;

use super::records::{self, TakenDown};

/// A cleaner that looks at a record holds its lock for a moment.
const LOOKED_AT: Duration = Duration::from_secs(2);
/// How long a container's init that will never start may take to die.
const DYING: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

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

/// Takes over all such containers that live, for the proxy before it listens; and the records of those that are over,
/// for [`take_down`], which etcd may keep waiting.
pub async fn take_over(config: &Config) -> Result<(Vec<TakenOver>, Vec<PathBuf>), JournalError> {
    let (mut living, mut over) = (Vec::new(), Vec::new());
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
    Ok((living, over))
}

/// Finishes the teardown of the container's life before, where something was away then: its next life cannot begin
/// beside that record.
pub async fn finish(config: &Config, container: &ContainerId) -> Result<(), Failure> {
    let path = journal::path(&config.paths.journal(), container);
    let begun = Instant::now();
    loop {
        match Journal::peek(&path) {
            Ok(Some(Peeked::Orphan(record))) if !lives(config, &record) => break,
            // A cleaner is about it.
            Ok(Some(Peeked::Owned(_))) if begun.elapsed() < ETCD_CLEANER => sleep(POLL).await,
            // The life itself finds out what is wrong.
            _ => return Ok(()),
        }
    }
    take_down(config, vec![path.clone()]).await;
    match path.exists() {
        false => Ok(()),
        true => Err(Failure::new(
            Code::Journal,
            "what the container had at its start before is not given back yet, because something is away; \
             the log of calico-mesos-proxy says what",
        )),
    }
}

/// Takes down what is over.
pub async fn take_down(config: &Config, over: Vec<PathBuf>) {
    records::take_down(config, over, None).await.iter().for_each(TakenDown::tell);
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
