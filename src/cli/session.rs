//! What the operator's verbs share: the configuration and the datastore.

use std::path::{Path, PathBuf};

use crate::calico::{Damaged, Datastore};
use crate::config::{Config, Origin};

use super::output::Out;
use super::Failed;

/// One run of a verb.
pub struct Session {
    pub config: Config,
    /// The file of `--config`, where that was given.
    pub file: Option<PathBuf>,
    /// Where the choice of the datastore comes from.
    pub origin: Origin,
    pub out: Out,
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
}
