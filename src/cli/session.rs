//! What the operator's verbs share: the configuration, the datastore, and the trail of changes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::calico::{Damaged, Datastore, Edited};
use crate::config::{Config, Origin};
use crate::task::report::audit;

use super::output::Out;
use super::Failed;

/// Exit code of a dry run that found something to do.
const FOUND: u8 = 3;

/// One run of a verb.
pub struct Session {
    pub config: Config,
    /// The file of `--config`, where that was given.
    pub file: Option<PathBuf>,
    /// Where the choice of the datastore comes from.
    pub origin: Origin,
    pub out: Out,
}

/// The flag of every verb that changes or removes something.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct DryRun {
    /// Only print what would be changed; exit code 3 when there is something to change
    #[arg(long)]
    pub dry_run: bool,
}

impl DryRun {
    /// The exit code of a command that has changed something, or would have.
    pub fn exit_code(self, changes: bool) -> ExitCode {
        match self.dry_run && changes {
            true => ExitCode::from(FOUND),
            false => ExitCode::SUCCESS,
        }
    }
}

impl Session {
    /// Reads the configuration of an operator's shell; see [`Config::of_shell`].
    pub fn open(file: Option<&Path>, out: &Out) -> Result<Self, Failed> {
        let (config, origin) = Config::of_shell(file)?;
        Ok(Self { config, file: file.map(Path::to_owned), origin, out: out.clone() })
    }

    /// Reads the configuration of this host's executors, for what belongs to them.
    pub fn of_host(file: &Path, out: &Out) -> Result<Self, Failed> {
        let config = Config::load(file)?;
        Ok(Self {
            config,
            file: Some(file.to_owned()),
            origin: Origin::File(file.to_owned()),
            out: out.clone(),
        })
    }

    /// Connects to the datastore.
    pub async fn datastore(&self) -> Result<Datastore, Failed> {
        Ok(Datastore::connect(&self.config).await?)
    }

    /// Warns of records that cannot be read; the rest is printed all the same.
    pub fn warn_of(&self, damaged: &[Damaged]) {
        for record in damaged {
            tracing::warn!("{record}; repair or delete that record");
        }
    }

    /// Notes a change in the audit trail: who, by which command, from what to what. `object` is its kind and name,
    /// such as `Profile dev`. Nothing is noted where nothing changed, or in a dry run.
    pub fn record(&self, object: &str, edited: &Edited, dry_run: DryRun) {
        if edited.is_change() && !dry_run.dry_run {
            self.note(object, edited.before.as_ref(), edited.after.as_ref());
        }
    }

    /// The same for what is no resource, such as an address.
    pub fn note(&self, object: &str, before: Option<&Value>, after: Option<&Value>) {
        if !nix::unistd::geteuid().is_root() {
            tracing::warn!("this change of {object} is not in the audit trail, which root alone can write");
        }
        audit::changed(&self.config, object, before, after);
    }
}
