//! Finishing what dead executors left behind: every journal record without an owner is taken down.
//!
//! One cleaner at a time on a host, by a lock that nobody waits for. Cleaners are the starting
//! executors, in the background, and `calico-mesos gc`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::error::chain;
use crate::lock::{try_take, LockError};

use super::audit;
use super::journal::{Entry, Found, Journal, JournalError};
use super::steps::Steps;
use super::teardown::{self, Claim, Patience, Report, Workload};

/// Of the journal folder, which the lock guards; its records have a format of their own each.
const FORM: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum GcError {
    #[error("cannot make the folder {path}")]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("cannot look through the journal")]
    Journal(#[source] JournalError),
}

/// One record that was found without an owner.
#[derive(Debug)]
pub struct Swept {
    pub task_id: String,
    pub container: String,
    pub written: String,
    /// `None`: a dry run, nothing was touched.
    pub report: Option<Report>,
}

/// What a sweep came to.
#[derive(Debug)]
pub enum Sweep {
    /// Another cleaner is at work on this host.
    Busy,
    Done {
        swept: Vec<Swept>,
        unreadable: Vec<(PathBuf, String)>,
    },
}

/// Takes down every orphan, or only names them.
pub async fn sweep(config: &Config, dry_run: bool) -> Result<Sweep, GcError> {
    let Some(_lock) = lock(&config.paths.state)? else { return Ok(Sweep::Busy) };
    let found = Journal::open(&config.paths.journal())
        .and_then(|journal| journal.orphans())
        .map_err(GcError::Journal)?;
    let mut swept = Vec::new();
    let mut unreadable = Vec::new();
    for item in found {
        match item {
            Found::Unreadable { path, why } => unreadable.push((path, why)),
            Found::Orphan(entry) => swept.push(take_over(*entry, config, dry_run).await),
        }
    }
    Ok(Sweep::Done { swept, unreadable })
}

async fn take_over(mut entry: Entry, config: &Config, dry_run: bool) -> Swept {
    let record = entry.record.clone();
    let report = if dry_run {
        None
    } else {
        let steps = Steps::begin(config, &record.identity.task_id);
        let claim = entry.pending.take().map_or(Claim::Possible, Claim::Lost);
        let workload = Workload::Unknown;
        let report = teardown::take_down(entry, config, workload, claim, Patience::CLEANER, &steps).await;
        audit::taken_down(config, &record, None, &report, &steps);
        Some(report)
    };
    Swept {
        task_id: record.identity.task_id,
        container: record.container.to_string(),
        written: record.written,
        report,
    }
}

/// A starting executor's share; whatever goes wrong here is no concern of its own task.
pub async fn sweep_in_background(config: PathBuf) {
    let config = match Config::load(&config) {
        Ok(config) => config,
        Err(error) => return tracing::warn!("{}", chain(&error)),
    };
    match sweep(&config, false).await {
        Ok(Sweep::Busy) => {}
        Ok(Sweep::Done { swept, unreadable }) => {
            for item in swept {
                let errors = item.report.map(|report| report.errors).unwrap_or_default();
                match errors.as_slice() {
                    [] => tracing::info!("cleaned up after {} whose executor had died", item.task_id),
                    errors => {
                        tracing::warn!("could not clean up after {}: {}", item.task_id, errors.join("; "))
                    }
                }
            }
            for (path, why) in unreadable {
                tracing::warn!("{} is left alone: {why}", path.display());
            }
        }
        Err(error) => tracing::warn!("{}", chain(&error)),
    }
}

fn lock(state: &Path) -> Result<Option<File>, GcError> {
    fs::create_dir_all(state).map_err(|source| GcError::Folder { path: state.to_owned(), source })?;
    Ok(try_take(&state.join("gc.lock"), FORM)?)
}
