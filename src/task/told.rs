//! What Consul has been told of a task: a file in the task's volatile folder.
//!
//! A Consul agent that was rebuilt has lost it; the cleaner tells it anew. The file is there only while the
//! executor wants the entries to be: whoever registers looks again afterwards, and takes back what he has
//! registered behind the executor's back.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::config::Config;
use crate::consul::Service;
use crate::names::ContainerId;

/// One task's file.
#[derive(Debug, Clone)]
pub struct Told(PathBuf);

impl Told {
    pub fn of(config: &Config, container: &ContainerId) -> Self {
        Self(config.paths.task_run(container).join("consul.json"))
    }

    /// Replaces what was noted before. What cannot be noted is not given back by anybody, no more.
    pub fn note(&self, services: &[Service]) {
        let new = self.0.with_extension("new");
        let written = serde_json::to_vec(services).map_err(io::Error::from);
        let written = written.and_then(|text| fs::write(&new, text)).and_then(|()| fs::rename(&new, &self.0));
        if let Err(error) = written {
            tracing::debug!("cannot note in {} what Consul was told: {error}", self.0.display());
        }
    }

    /// The executor is about to remove its entries.
    pub fn forget(&self) {
        // Not there: nothing had been told.
        let _ = fs::remove_file(&self.0);
    }

    pub fn is_there(&self) -> bool {
        self.0.exists()
    }

    /// What was noted, and when.
    pub fn read(&self) -> Option<(Vec<Service>, SystemTime)> {
        let noted = fs::metadata(&self.0).and_then(|meta| meta.modified()).ok()?;
        Some((serde_json::from_slice(&fs::read(&self.0).ok()?).ok()?, noted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_there_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.paths.run = folder.path().into();
        let container = ContainerId::random();
        let told = Told::of(&config, &container);
        told.note(&[]);
        assert_eq!(told.read(), None, "the task's folder is not there");
        fs::create_dir_all(config.paths.task_run(&container)).unwrap();
        let listed = r#"{"ID":"x","Name":"web","Address":"10.0.0.1","Port":80,"Tags":[],"Meta":{"a":"b"},
            "Check":{"Name":"Mesos health check","TTL":"1h","Status":"critical","Notes":"not yet"}}"#;
        let service: Service = serde_json::from_str(listed).unwrap();
        told.note(std::slice::from_ref(&service));
        assert_eq!(told.read().unwrap().0, [service]);
        told.forget();
        assert!(!told.is_there());
    }
}
