//! Takes down the tasks of journal records without an owner, a few at a time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::JoinSet;
use tracing::Instrument;

use crate::config::Config;
use crate::error::chain;
use crate::logging;

use super::{adopted, GcError, GoneDocker, Swept};
use crate::task::record::journal::{Backing, Found, Journal, JournalError, Peeked};
use crate::task::report::audit;
use crate::task::report::steps::Steps;
use crate::task::teardown::{self, Claim, Patience, Workload};

/// How many at once: a slow one does not hold up the others, and a hundred are no stampede.
const AT_ONCE: usize = 4;

/// What a look at one file came to.
pub(super) enum TakenDown {
    Swept(Box<Swept>),
    Unreadable(PathBuf, String),
}

impl TakenDown {
    /// A line for the log of a program that does this besides its own work.
    pub(super) fn tell(&self) {
        match self {
            Self::Swept(swept) if swept.report.complete() => {
                tracing::info!("cleaned up after {}, which had no owner any more", swept.task_id);
            }
            Self::Swept(swept) => {
                let errors = swept.report.errors.join("; ");
                tracing::warn!("could not clean up after {}: {errors}", swept.task_id);
            }
            Self::Unreadable(path, why) => tracing::warn!("{} is left alone: {why}", path.display()),
        }
    }
}

/// Takes down the orphans among these files, without their Docker where that is the `gone` one. Each is taken over
/// only when its turn has come.
pub(super) async fn take_down(
    config: &Config,
    files: Vec<PathBuf>,
    gone: Option<&GoneDocker>,
) -> Vec<TakenDown> {
    let config = Arc::new(config.clone());
    let mut done = Vec::new();
    let mut working = JoinSet::new();
    for path in files {
        if working.len() == AT_ONCE {
            done.extend(finished(&mut working).await);
        }
        working.spawn(one(config.clone(), path, gone.cloned()));
    }
    while !working.is_empty() {
        done.extend(finished(&mut working).await);
    }
    done
}

async fn finished(working: &mut JoinSet<Option<TakenDown>>) -> Option<TakenDown> {
    match working.join_next().await {
        Some(Ok(record)) => record,
        Some(Err(error)) => {
            tracing::error!("an internal error of the cleaner: {}", chain(&error));
            None
        }
        None => None,
    }
}

async fn one(config: Arc<Config>, path: PathBuf, gone: Option<GoneDocker>) -> Option<TakenDown> {
    match Journal::take_over(&path) {
        Ok(None) => None,
        Ok(Some(Found::Unreadable { path, why })) => Some(TakenDown::Unreadable(path, why)),
        Err(error) => Some(TakenDown::Unreadable(path, chain(&error))),
        // Backed by its container, whose owner is away: it lives.
        Ok(Some(Found::Orphan(entry))) if adopted::lives(&config, &entry.record) => None,
        Ok(Some(Found::Orphan(mut entry))) => {
            if gone.is_some_and(|gone| gone.is_named_by(&entry.record)) {
                // Nothing of Docker's is left to take down. In memory only: should the record stay, the next cleaner
                // needs the option again.
                entry.record.backing = Backing::Process;
            }
            let record = entry.record.clone();
            let steps = Steps::begin(&config, &record.identity.task_id);
            let ending = entry.ending().cloned();
            let claim = entry.pending.take().map_or(Claim::Possible, Claim::Lost);
            let (workload, patience) = (Workload::Unknown, Patience::CLEANER);
            let down = teardown::take_down(*entry, &config, workload, claim, patience, &steps);
            let report = down.instrument(logging::task(&record.identity.task_id)).await;
            audit::taken_down(&config, &record, ending.as_ref(), &report, &steps);
            let (task_id, container) = (record.identity.task_id, record.container);
            Some(TakenDown::Swept(Box::new(Swept { task_id, container, report })))
        }
    }
}

/// What executors have left that died before their record stood. Taken over, the old ones go.
pub(super) fn unfinished(folder: &Path) -> Vec<PathBuf> {
    // What cannot be listed cannot be cleaned; the survey has reported it.
    let files = files(folder).unwrap_or_default();
    files.into_iter().filter(|path| matches!(Journal::peek(path), Ok(None))).collect()
}

/// The tasks of this host whose executors live.
pub fn living_tasks(config: &Config) -> Result<Vec<String>, JournalError> {
    let folder = config.paths.journal();
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut tasks = Vec::new();
    for path in Journal::open(&folder)?.files()? {
        match Journal::peek(&path)? {
            Some(Peeked::Owned(Some(record))) => tasks.push(record.identity.task_id.clone()),
            Some(Peeked::Owned(None)) => tasks.push(path.display().to_string()),
            Some(Peeked::Orphan(record)) if adopted::lives(config, &record) => {
                tasks.push(record.identity.task_id.clone());
            }
            Some(Peeked::Orphan(_) | Peeked::Unreadable { .. }) | None => {}
        }
    }
    tasks.sort();
    Ok(tasks)
}

/// Every file of the journal; none when there is no journal.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, GcError> {
    Journal::open(folder).and_then(|journal| journal.files()).map_err(GcError::Journal)
}
