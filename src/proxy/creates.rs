//! Creates that are under way. Each has a note beside the bindings, from before Docker hears of it until its container is
//! bound.
//!
//! A proxy that is killed in between leaves a container that nothing binds, and that therefore can never start; its
//! client has heard of no container. The next proxy finds the note, and removes what Docker has made.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bindings::Bindings;
use crate::config::Config;
use crate::error::{chain, Code, Failure};
use crate::host::files;
use crate::limits::DOCKER_INSPECT;
use crate::names::RUNTIME;
use crate::task::record::journal::{Backing, Journal, Peeked};
use crate::workload::{ContainerState, Docker, Listed};

const SUFFIX: &str = ".creating";
/// Docker goes on with a create whose client has gone: how long what it makes is looked for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Docker dates containers in whole seconds.
const SECOND: Duration = Duration::from_secs(1);

/// What is known of a container that is about to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Begun {
    since: SystemTime,
    /// Docker invents one otherwise.
    name: Option<String>,
    image: String,
    env: Vec<String>,
}

/// The note of one create, which goes with this value.
pub(super) struct CreateNote(PathBuf);

impl Drop for CreateNote {
    fn drop(&mut self) {
        if let Err(error) = files::remove(&self.0) {
            tracing::warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Notes that Docker is about to get this body.
pub(super) fn note(config: &Config, name: Option<&str>, body: &[u8]) -> Result<CreateNote, Failure> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let begun = Begun {
        since: SystemTime::now(),
        name: name.map(str::to_owned),
        image: text(&body["Image"]),
        env: body["Env"].as_array().into_iter().flatten().map(text).collect(),
    };
    let path = config.paths.bindings().join(format!("{}{SUFFIX}", uuid::Uuid::new_v4()));
    let line = serde_json::to_vec(&begun).map_err(io::Error::from);
    let written = line.and_then(|line| files::replace(&path, |new| new.write_all(&line)));
    written
        .map(|()| CreateNote(path.clone()))
        .map_err(|error| Failure::new(Code::Journal, format!("cannot write {}: {error}", path.display())))
}

/// The creates that a proxy before this one had begun.
pub(super) struct LeftCreates(Vec<(CreateNote, Begun)>);

impl LeftCreates {
    /// Reads the folder, for a proxy that has begun none yet.
    pub fn read(config: &Config) -> Self {
        let entries = fs::read_dir(config.paths.bindings()).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path()).filter(|path| is_note(path));
        let notes = paths.map(CreateNote).filter_map(|note| {
            // One that cannot be read goes at once: what it is about is not known.
            let begun = serde_json::from_slice(&fs::read(&note.0).ok()?).ok()?;
            Some((note, begun))
        });
        Self(notes.collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes the containers that are there, and forgets what has been looked for long enough.
    pub async fn take_away(&mut self, docker: &Docker, config: &Config, bindings: &Bindings) {
        if self.is_empty() {
            return;
        }
        let Ok(listed) = docker.containers().await else { return };
        let ours = of_executors(config);
        let candidates = listed.iter().filter(|container| {
            let unbound = bindings.get(&container.id).is_none() && !ours.contains(&container.name);
            unbound && container.state == ContainerState::NeverStarted
        });
        for container in candidates {
            let Some(index) = self.index_of(docker, container).await else { continue };
            match docker.remove(&container.id, false).await {
                Ok(()) => {
                    tracing::warn!(
                        "{}: removed; the proxy before was killed while it was made, so that it could never start",
                        container.name
                    );
                    self.0.swap_remove(index);
                }
                Err(error) => tracing::warn!("{}: cannot be removed: {}", container.name, chain(&error)),
            }
        }
        self.0.retain(|(_, begun)| begun.since.elapsed().is_ok_and(|age| age < PATIENCE));
    }

    /// The create that the container is of.
    async fn index_of(&self, docker: &Docker, container: &Listed) -> Option<usize> {
        let fits = |begun: &Begun| {
            let named = begun.name.as_ref().is_none_or(|name| name.trim_start_matches('/') == container.name);
            named && container.created.is_some_and(|created| created + SECOND > begun.since)
        };
        if !self.0.iter().any(|(_, begun)| fits(begun)) {
            return None;
        }
        let seen = docker.inspect_once(&container.id, DOCKER_INSPECT).await.ok()?;
        if seen.started || seen.runtime != RUNTIME {
            return None;
        }
        let text: Value = serde_json::from_str(&seen.text).ok()?;
        let settings = text.pointer("/0/Config")?;
        let env: BTreeSet<&str> = settings["Env"].as_array()?.iter().filter_map(Value::as_str).collect();
        self.0.iter().position(|(_, begun)| {
            let asked = begun.env.iter().all(|line| env.contains(line.as_str()));
            fits(begun) && asked && settings["Image"] == begun.image.as_str()
        })
    }
}

fn is_note(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(SUFFIX))
}

/// The names of the containers that executors have made, or are about to make.
fn of_executors(config: &Config) -> BTreeSet<String> {
    let journal = Journal::open(&config.paths.journal()).and_then(|journal| journal.files());
    let name = |path: PathBuf| match Journal::peek(&path) {
        Ok(Some(Peeked::Owned(Some(record)) | Peeked::Orphan(record))) => match record.backing {
            Backing::Container { name, adopted: false, .. } => Some(name),
            _ => None,
        },
        _ => None,
    };
    journal.unwrap_or_default().into_iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_lasts_as_long_as_its_create() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.paths.state = folder.path().to_owned();
        fs::create_dir(config.paths.bindings()).unwrap();
        let body = br#"{"Image": "busybox", "Env": ["CALICO_IP=auto"]}"#;
        drop(note(&config, None, body).unwrap());
        assert!(LeftCreates::read(&config).is_empty());
        // A proxy that is killed drops nothing.
        std::mem::forget(note(&config, Some("web"), body).unwrap());
        fs::write(config.paths.bindings().join(format!("cut{SUFFIX}")), "{").unwrap();
        let left = LeftCreates::read(&config);
        let [(_, begun)] = left.0.as_slice() else { panic!("{} notes", left.0.len()) };
        assert_eq!((begun.name.as_deref(), begun.image.as_str()), (Some("web"), "busybox"));
        assert_eq!(begun.env, ["CALICO_IP=auto"]);
    }
}
