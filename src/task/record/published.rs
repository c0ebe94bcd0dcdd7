//! Records what Consul and Calico's datastore hold of a task: one file for each in the task's volatile folder.
//!
//! A Consul agent that was rebuilt, or a datastore that was restored from a backup, has lost that, and the cleaner
//! writes it again. A file exists only while the executor wants the entries to exist; the executor removes it before
//! the entries. A cleaner looks again after its write, and takes back what it wrote after the executor had removed the
//! file.

use std::fs;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::Serialize;

use crate::calico::Kept;
use crate::config::Config;
use crate::consul::Service;
use crate::host::files;
use crate::names::ContainerId;

/// One of a task's files.
#[derive(Debug)]
pub struct Note<T>(PathBuf, PhantomData<fn() -> T>);

impl<T> Clone for Note<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

/// The task's entries in Consul.
pub type Told = Note<Vec<Service>>;

/// The task's records in Calico's datastore.
pub type CommittedNote = Note<Kept>;

impl Told {
    /// The file of this container's task.
    pub fn of(config: &Config, container: &ContainerId) -> Self {
        Self(config.paths.task_run(container).join("consul.json"), PhantomData)
    }
}

impl CommittedNote {
    /// The file of this container's task. Tasks of releases before this file have none.
    pub fn of(config: &Config, container: &ContainerId) -> Self {
        Self(config.paths.task_run(container).join("calico.json"), PhantomData)
    }
}

impl<T: Serialize + DeserializeOwned> Note<T> {
    /// Replaces what was noted before. What cannot be noted is not written again by a cleaner, no more.
    pub fn note(&self, what: &T) {
        static WARNED: AtomicBool = AtomicBool::new(false);
        self.note_or_warn(what, &WARNED);
    }

    /// The first failure is a warning, since a full disk makes all of a life's notes fail.
    fn note_or_warn(&self, what: &T, warned: &AtomicBool) {
        let text = serde_json::to_vec(what).map_err(io::Error::from);
        let written = text.and_then(|text| files::replace_as(&self.0, 0o644, |new| new.write_all(&text)));
        let Err(error) = written else { return };
        let file = self.0.display();
        match warned.swap(true, Ordering::Relaxed) {
            true => tracing::debug!("cannot write {file}: {error}"),
            false => tracing::warn!(
                "cannot write {file}: {error}; `calico-mesos gc` cannot write the task's records again when Calico's datastore or Consul loses them"
            ),
        }
    }

    /// The executor is about to remove what the file names.
    pub fn forget(&self) {
        // Not there: nothing had been written.
        let _ = fs::remove_file(&self.0);
    }

    pub fn is_there(&self) -> bool {
        self.0.exists()
    }

    /// What was noted, and when.
    pub fn read(&self) -> Option<(T, SystemTime)> {
        let noted = fs::metadata(&self.0).and_then(|meta| meta.modified()).ok()?;
        Some((serde_json::from_slice(&fs::read(&self.0).ok()?).ok()?, noted))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_note_is_read_back_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.paths.run = folder.path().into();
        let container = ContainerId::random();
        let told = Told::of(&config, &container);
        told.note(&Vec::new());
        assert_eq!(told.read(), None, "the task's folder is not there");
        fs::create_dir_all(config.paths.task_run(&container)).unwrap();
        let listed = r#"{"ID":"x","Name":"web","Address":"10.0.0.1","Port":80,"Tags":[],"Meta":{"a":"b"},
            "Check":{"Name":"Mesos health check","TTL":"1h","Status":"critical","Notes":"not yet"}}"#;
        let service: Service = serde_json::from_str(listed).unwrap();
        told.note(&vec![service.clone()]);
        assert_eq!(told.read().unwrap().0, [service]);
        told.forget();
        assert!(!told.is_there());
    }

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_note_that_cannot_be_written_is_one_warning() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.paths.run = folder.path().into();
        let told = Told::of(&config, &ContainerId::random());
        let (sink, warned) = (Sink::default(), AtomicBool::new(false));
        let writer = sink.clone();
        let logger = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .finish();
        tracing::subscriber::with_default(logger, || {
            told.note_or_warn(&Vec::new(), &warned);
            told.note_or_warn(&Vec::new(), &warned);
        });
        let log = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = log.lines().collect();
        assert!(lines.len() == 2 && lines[0].contains(" WARN ") && lines[1].contains(" DEBUG "), "{log}");
        assert!(lines.iter().all(|line| line.contains("consul.json: No such file")), "{log}");
    }
}
