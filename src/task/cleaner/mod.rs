//! The cleaner: takes away what is left of tasks whose executor is dead.
//!
//! ```text
//!  calico-mesos gc ──► survey ──► plan (pure) ──► execute ──┬─► records    the journal's, without an owner
//!                                                           ├─► what no record names
//!  a starting executor ──► records                          ├─► what Consul has lost of living tasks
//!                                                           └─► restore    what the datastore has lost of them
//!
//!  calico-mesos gc --node NAME --decommission ──► decommission   a host that died for good
//! ```
//!
//! One cleaner runs at a time on a host. A lock ensures that, and a second cleaner returns at once. A cleaner that dies
//! leaves a state from which the next one can start: it removes records last, and a survey sees what is there.

pub mod adopted;
mod borrowed;
mod decommission;
mod execute;
mod forget;
mod plan;
mod records;
mod restore;
mod seen;
mod survey;
mod waits;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Config;
use crate::error::chain;
use crate::host::files::make_private;
use crate::host::lock::{try_take, LockError};
use crate::host::trust;
use crate::names::ContainerId;

use crate::task::record::journal::JournalError;
use crate::task::report::figures::Figures;
use crate::task::teardown::Report;

pub use decommission::{decommission, DecommissionError, DecommissionTerms, Decommissioned};
pub use execute::Fate;
pub use forget::{ForgetError, GoneDocker};
pub use plan::{Item, ItemKind, Plan, Rules, Verdict};
pub use records::living_tasks;
pub use seen::{Silent, Survey};
pub use survey::SurveyError;

use records::TakenDown;
use seen::SeenRecord;

/// The format of the journal folder, which the lock guards; each record has a format of its own.
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
    #[error("cannot find out what there is to clean up")]
    Survey(#[source] SurveyError),
}

/// One record that was found without an owner, and taken down.
#[derive(Debug)]
struct Swept {
    task_id: String,
    container: ContainerId,
    report: Report,
}

/// What a cleaner has seen and done.
#[derive(Debug)]
pub struct Cleaned {
    pub node: String,
    pub grace: Duration,
    pub items: Vec<(Item, Fate)>,
    pub silent: Vec<Silent>,
    pub figures: Figures,
    /// Records of dead owners that name the Docker that was given up.
    pub without_docker: usize,
}

impl Cleaned {
    /// Could everything be done that was to be done?
    pub fn complete(&self) -> bool {
        !self.silent.iter().any(|silent| silent.essential)
            && !self.items.iter().any(|(_, fate)| fate.is_left())
    }

    /// How many items have, or would have, been worked on, or wait for an operator.
    pub fn work(&self) -> usize {
        let counts = |verdict: Verdict| verdict.is_work() || verdict == Verdict::Conflict;
        self.items.iter().filter(|(item, _)| counts(item.verdict)).count()
    }
}

/// Surveys the host, and does what has to be done; with `dry_run` nothing is changed. `None`: another cleaner runs on
/// this host.
pub async fn clean(config: &Config, grace: Duration, dry_run: bool) -> Result<Option<Cleaned>, GcError> {
    clean_without(config, grace, dry_run, None).await
}

/// [`clean`], which finishes records that name the `gone` Docker without it.
pub async fn clean_without(
    config: &Config,
    grace: Duration,
    dry_run: bool,
    gone: Option<&GoneDocker>,
) -> Result<Option<Cleaned>, GcError> {
    let Some(_lock) = lock(&config.paths.state)? else { return Ok(None) };
    if let (false, Err(error)) = (dry_run, trust::passage(config)) {
        tracing::warn!("{}", chain(&error));
    }
    let survey = Survey::take(config, gone).await.map_err(GcError::Survey)?;
    let plan = Plan::make(&survey, &Rules { orphans: config.gc.orphans, grace });
    let fates = match dry_run {
        true => vec![Fate::Untouched; plan.items.len()],
        false => execute::execute(config, &survey, &plan, gone).await,
    };
    if let (false, Some(blocks)) = (dry_run, &survey.borrowed) {
        borrowed::remember(config, blocks);
    }
    let mut figures = figures(&survey, &plan);
    let items: Vec<(Item, Fate)> = plan.items.into_iter().zip(fates).collect();
    if !dry_run {
        waits::note(config, &survey, &items);
    }
    let finished = |(item, fate): &&(Item, Fate)| {
        item.kind == ItemKind::Journal && matches!(fate, Fate::Done | Fate::Gone)
    };
    figures.backlog -= items.iter().filter(finished).count();
    let names_it = |seen: &&SeenRecord| match (seen, gone) {
        (SeenRecord::Dead(record, _), Some(gone)) => gone.is_named_by(record),
        _ => false,
    };
    let without_docker = survey.records.values().filter(names_it).count();
    Ok(Some(Cleaned { node: survey.node, grace, items, silent: survey.silent, figures, without_docker }))
}

fn figures(survey: &Survey, plan: &Plan) -> Figures {
    let lacks = |trace: &&seen::Trace| trace.lacking.is_some();
    let mut figures = Figures {
        tasks: survey.living(),
        leaks: plan.orphans.len(),
        lost: survey.traces.values().filter(lacks).count(),
        conflicts: plan.conflicts.len(),
        ..Figures::default()
    };
    for seen in survey.records.values() {
        match seen {
            SeenRecord::Living(Some(record)) => {
                *figures.executors.entry(record.owner.version.clone()).or_default() += 1;
            }
            SeenRecord::Living(None) => {}
            SeenRecord::Dead(..) | SeenRecord::Unreadable(_) => figures.backlog += 1,
        }
    }
    figures
}

/// Takes down every record without an owner, unless another cleaner is at work on this host. What became of each is
/// logged.
pub async fn sweep(config: &Config) -> Result<(), GcError> {
    let Some(_lock) = lock(&config.paths.state)? else { return Ok(()) };
    let files = records::files(&config.paths.journal())?;
    records::take_down(config, files, None).await.iter().for_each(TakenDown::tell);
    Ok(())
}

/// A starting executor's share; what goes wrong here does not affect its own task.
pub async fn sweep_in_background(config: PathBuf) {
    let swept = match Config::load(&config) {
        Ok(config) => sweep(&config).await.map_err(|error| chain(&error)),
        Err(error) => Err(chain(&error)),
    };
    if let Err(error) = swept {
        tracing::warn!("{error}");
    }
}

fn lock(state: &Path) -> Result<Option<File>, GcError> {
    make_private(state).map_err(|source| GcError::Folder { path: state.to_owned(), source })?;
    Ok(try_take(&state.join("gc.lock"), FORM)?)
}
