//! Finds what the datastore has lost of living tasks, and writes it again.
//!
//! A launch notes what it has committed, beside the task's Consul file, and its executor removes the note before it
//! releases the address. So the order of the looks decides: first the note, then the datastore, then the note again.
//! Only what is missing between two looks at the same note is lost. One guarded transaction writes it. After the write
//! the note is read once more: if it has gone, the executor may have released the address before the write arrived, and
//! the write is taken back.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use crate::calico::{Datastore, Identity, Kept, Missing};
use crate::config::Config;
use crate::error::chain;
use crate::host::files;
use crate::limits::ETCD_RESTORE;
use crate::names::ContainerId;
use crate::task::network::join;
use crate::task::record::journal::{self, Journal, Peeked, Record};
use crate::task::record::published::CommittedNote;
use crate::task::report::audit;

use super::plan::Plan;
use super::seen::{SeenRecord, Survey};

impl Survey {
    /// Compares what living tasks have committed with what the datastore holds.
    pub(super) async fn lacking(&mut self, config: &Config) {
        if self.silent.iter().any(|silent| silent.source == "Calico") {
            return;
        }
        let living = self.records.iter().filter_map(|(container, seen)| match seen {
            SeenRecord::Living(Some(record)) => Some((container.clone(), record.identity.clone())),
            _ => None,
        });
        let noted: Vec<(ContainerId, Identity, Kept)> = living
            .filter_map(|(container, identity)| {
                let (kept, _) = CommittedNote::of(config, &container).read()?;
                Some((container, identity, kept))
            })
            .collect();
        if noted.is_empty() {
            return;
        }
        let tasks: Vec<(&Identity, &Kept)> =
            noted.iter().map(|(_, identity, kept)| (identity, kept)).collect();
        let look = async { Datastore::connect(config).await?.lacking(&tasks).await };
        match look.await {
            Ok(found) => {
                for ((container, _, _), lacking) in noted.iter().zip(found) {
                    let still = CommittedNote::of(config, container).is_there();
                    if still && !lacking.is_nothing() {
                        self.trace(container.clone()).lacking = Some(lacking);
                    }
                }
            }
            Err(error) => self.cannot("Calico", true, chain(&error)),
        }
    }
}

/// Writes again what the plan wants; what became of each task.
pub(super) async fn write_again(
    config: &Config,
    survey: &Survey,
    plan: &Plan,
) -> BTreeMap<ContainerId, Result<bool, String>> {
    let mut ends = BTreeMap::new();
    if plan.restore.is_empty() {
        return ends;
    }
    let begun = Instant::now();
    let mut connection = Datastore::connect(config).await.map_err(|error| chain(&error));
    for container in &plan.restore {
        let end = match &mut connection {
            Err(why) => Err(why.clone()),
            Ok(_) if begun.elapsed() > ETCD_RESTORE => {
                Err("left to the next run: this one took too long".to_owned())
            }
            Ok(datastore) => match living(survey, container) {
                Some(record) => one(config, datastore, record).await,
                None => Ok(false),
            },
        };
        ends.insert(container.clone(), end);
    }
    ends
}

/// False: the task is ending, or nothing is missing any more.
async fn one(config: &Config, datastore: &mut Datastore, record: &Record) -> Result<bool, String> {
    let note = CommittedNote::of(config, &record.container);
    let Some((kept, _)) = note.read().filter(|_| is_owned(config, &record.container)) else {
        return Ok(false);
    };
    let lacking = datastore.write_again(&record.identity, &kept).await.map_err(|error| chain(&error))?;
    if let Some(conflict) = lacking.conflicts.first() {
        return Err(format!("the datastore gives {} to {}", conflict.address, conflict.holder));
    }
    if lacking.missing.is_empty() {
        return Ok(false);
    }
    let addresses: Vec<_> = kept.addresses().collect();
    audit::written_again(config, record, &addresses, &words(&lacking.missing));
    let _ = fs::remove_file(marker(config, &record.container));
    // A record without its owner is taken down by a cleaner, which gives the address back.
    if note.is_there() && journal::path(&config.paths.journal(), &record.container).exists() {
        return Ok(true);
    }
    let released = datastore.release(&record.identity).await.map_err(|error| {
        let addresses = join(&addresses);
        format!(
            "{addresses} was written again for a task that has ended, and cannot be released: {}",
            chain(&error)
        )
    })?;
    audit::returned(config, record, &released.addresses);
    Ok(false)
}

/// Names both holders of each address in log and audit trail, once for every pair.
pub(super) fn name_conflicts(config: &Config, survey: &Survey, plan: &Plan) {
    for container in &plan.conflicts {
        let lacking = survey.traces.get(container).and_then(|trace| trace.lacking.as_ref());
        let (Some(record), Some(lacking)) = (living(survey, container), lacking) else { continue };
        let text: String = lacking
            .conflicts
            .iter()
            .map(|conflict| format!("{} {}\n", conflict.address, conflict.holder))
            .collect();
        let marker = marker(config, container);
        if fs::read_to_string(&marker).is_ok_and(|told| told == text) {
            continue;
        }
        for conflict in &lacking.conflicts {
            audit::conflict(config, record, conflict.address, &conflict.holder.to_string());
        }
        if let Err(error) = files::replace(&marker, |new| new.write_all(text.as_bytes())) {
            tracing::debug!("cannot write {}: {error}", marker.display());
        }
    }
}

/// What was reported of the task's conflicts last.
fn marker(config: &Config, container: &ContainerId) -> PathBuf {
    config.paths.task_run(container).join("conflict")
}

fn living<'a>(survey: &'a Survey, container: &ContainerId) -> Option<&'a Record> {
    match survey.records.get(container) {
        Some(SeenRecord::Living(Some(record))) => Some(record),
        _ => None,
    }
}

fn is_owned(config: &Config, container: &ContainerId) -> bool {
    let path = journal::path(&config.paths.journal(), container);
    matches!(Journal::peek(&path), Ok(Some(Peeked::Owned(_))))
}

fn words(missing: &[Missing]) -> String {
    let words = missing.iter().map(|missing| match missing {
        Missing::Endpoint => "endpoint".to_owned(),
        Missing::Address(address) => format!("address {address}"),
        Missing::Block(cidr) => format!("block {cidr}"),
        Missing::Affinity(cidr) => format!("affinity of block {cidr}"),
        Missing::Handle => "handle".to_owned(),
        Missing::Profile(name) => format!("profile {name}"),
    });
    words.collect::<Vec<_>>().join(", ")
}
