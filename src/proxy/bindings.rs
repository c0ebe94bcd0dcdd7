//! The containers that were made through the proxy: one file each, named after Docker's id.
//!
//! A binding is on the disk before the client hears of its container, and lasts as long as the container: Docker starts
//! it without asking the proxy, and its runtime goes by this file. Only root can write the folder.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::create::Bound;
use crate::config::{Config, Paths};
use crate::error::{Code, Failure};
use crate::host::files::{self, make_private, remove};
use crate::host::trust::{self, TrustError};
use crate::names::ContainerId;

/// What this release writes and reads. It grows when the release before would give a container the wrong network.
const FORMAT: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum BindingError {
    #[error("cannot {action} {path}")]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Unsafe(#[from] TrustError),
}

/// A container of Docker's, and what its client has asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Binding {
    pub format: u32,
    /// Docker's id.
    pub id: String,
    /// What its interface, handle and endpoint are named after.
    pub container: ContainerId,
    /// The Docker that has it, as `unix:///path` or `tcp://host:port`.
    pub docker: String,
    /// The names of its own line in its hosts file.
    pub hostname: String,
    /// Docker checks its health.
    #[serde(default)]
    pub checked: bool,
    pub bound: Bound,
    /// The addresses that it had last.
    #[serde(default)]
    pub last: Vec<IpAddr>,
    /// It has run.
    #[serde(default)]
    pub ran: bool,
}

impl Binding {
    /// Of a container that has just been made.
    pub fn new(id: &str, docker: String, hostname: String, bound: Bound) -> Self {
        Self {
            format: FORMAT,
            id: id.to_owned(),
            container: ContainerId::random(),
            docker,
            hostname,
            checked: false,
            bound,
            last: Vec::new(),
            ran: false,
        }
    }
}

/// All bindings of this host.
#[derive(Debug)]
pub struct Bindings {
    paths: Paths,
    known: RwLock<BTreeMap<String, Arc<Binding>>>,
    /// How often each container's note was struck.
    strikes: Mutex<BTreeMap<String, u64>>,
}

impl Bindings {
    /// Reads the folder, which is made where it is missing. A file that cannot be read is left alone and named: its
    /// container cannot start.
    pub fn open(config: &Config) -> Result<(Self, Vec<(PathBuf, String)>), BindingError> {
        let folder = config.paths.bindings();
        make_private(&config.paths.state).map_err(failed("make", &config.paths.state))?;
        trust::private_folder(&folder)?;
        make_private(&folder).map_err(failed("make", &folder))?;
        let (mut known, mut unreadable) = (BTreeMap::new(), Vec::new());
        for entry in fs::read_dir(&folder).map_err(failed("read", &folder))? {
            let path = entry.map_err(failed("read", &folder))?.path();
            let Some(id) = id_of(&path) else { continue };
            match read(&path, &id) {
                Ok(binding) => drop(known.insert(id, Arc::new(binding))),
                Err(why) => unreadable.push((path, why)),
            }
        }
        let bindings =
            Self { paths: config.paths.clone(), known: RwLock::new(known), strikes: Mutex::default() };
        bindings.strike_those_of_none(&folder).map_err(failed("read", &folder))?;
        Ok((bindings, unreadable))
    }

    pub fn is_empty(&self) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub fn get(&self, id: &str) -> Option<Arc<Binding>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// The container's, or why there is none.
    pub fn require(&self, id: &str) -> Result<Arc<Binding>, Failure> {
        if let Some(binding) = self.get(id) {
            return Ok(binding);
        }
        let path = self.paths.binding(id);
        let message = match read(&path, id) {
            Err(why) if path.exists() => format!(
                "cannot read the container's binding {}: {why}; remove the container and make it anew",
                path.display()
            ),
            _ => "the container was not made through this proxy; make it anew".to_owned(),
        };
        Err(Failure::new(Code::Journal, message))
    }

    pub fn all(&self) -> Vec<Arc<Binding>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Brings the binding to the disk, file and folder.
    pub fn put(&self, binding: Binding) -> Result<(), BindingError> {
        let (path, folder) = (self.paths.binding(&binding.id), self.paths.bindings());
        let text = serde_json::to_vec_pretty(&binding).map_err(io::Error::from);
        let write = |text: Vec<u8>| {
            files::replace(&path, |new| {
                new.write_all(&text)?;
                new.sync_all()
            })
        };
        text.and_then(write).map_err(failed("write", &path))?;
        File::open(&folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", &folder))?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(binding.id.clone(), Arc::new(binding));
        Ok(())
    }

    /// The container is gone, and the note of its refused start with it.
    pub fn remove(&self, id: &str) -> Result<(), BindingError> {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        self.strikes.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        self.remove_note(id);
        let path = self.paths.binding(id);
        remove(&path).map_err(failed("remove", &path))
    }

    /// The containers whose start was refused because something was away, as their runtime has noted.
    pub fn refused(&self) -> Vec<Arc<Binding>> {
        self.all().into_iter().filter(|binding| self.is_refused(&binding.id)).collect()
    }

    /// Removes the notes of containers that are gone.
    fn strike_those_of_none(&self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".refused"));
            if let Some(id) = id.filter(|id| is_docker_id(id) && !self.paths.binding(id).exists()) {
                self.strike(id);
            }
        }
        Ok(())
    }

    /// Notes a start that has come to nothing without its client's doing, as the runtime notes those that it refuses.
    pub fn note_refused(&self, id: &str, why: &str) {
        let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let line = json!({ "time": time, "why": why }).to_string();
        let path = self.paths.refused_start(id);
        if let Err(error) = files::replace(&path, |new| new.write_all(line.as_bytes())) {
            tracing::warn!("cannot write {}: {error}; the container is not started again", path.display());
        }
    }

    pub fn is_refused(&self, id: &str) -> bool {
        self.paths.refused_start(id).exists()
    }

    /// That start is not to be made any more.
    pub fn strike(&self, id: &str) {
        *self.strikes.lock().unwrap_or_else(PoisonError::into_inner).entry(id.to_owned()).or_default() += 1;
        self.remove_note(id);
    }

    /// For a start that the proxy is about to make by itself; see [`Bindings::strike_again`].
    pub fn strikes(&self, id: &str) -> u64 {
        self.strikes.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied().unwrap_or_default()
    }

    /// The start was refused, and its runtime has noted that: the note does not stand if a client has struck the one
    /// before in the meantime.
    pub fn strike_again(&self, id: &str, strikes_before: u64) {
        if self.strikes(id) != strikes_before {
            self.remove_note(id);
        }
    }

    fn remove_note(&self, id: &str) {
        let path = self.paths.refused_start(id);
        if let Err(error) = remove(&path) {
            tracing::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> BindingError + 'a {
    move |source| BindingError::File { action, path: path.into(), source }
}

/// Docker's id in the name of a binding's file.
fn id_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_suffix(".json")?;
    is_docker_id(name).then(|| name.to_owned())
}

/// Docker's whole id of a container.
pub fn is_docker_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn read(path: &Path, id: &str) -> Result<Binding, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    match value["format"].as_u64() {
        Some(format) if format == u64::from(FORMAT) => {}
        format => {
            return Err(format!("it has format {}, and this release reads {FORMAT}", format.unwrap_or(0)))
        }
    }
    let binding: Binding = serde_json::from_value(value).map_err(|error| error.to_string())?;
    match binding.id == id {
        true => Ok(binding),
        false => Err(format!("it is that of container {}", binding.id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &Path) -> Config {
        let mut config = Config::default();
        config.paths.state = folder.into();
        config
    }

    fn binding(id: &str) -> Binding {
        Binding::new(id, "unix:///var/run/docker.sock".to_owned(), "web".to_owned(), Bound::default())
    }

    #[test]
    fn a_binding_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (config, id) = (config(folder.path()), "ab".repeat(32));
        let (bindings, _) = Bindings::open(&config).unwrap();
        assert!(bindings.is_empty());
        let binding = binding(&id);
        bindings.put(binding.clone()).unwrap();
        fs::write(config.paths.refused_start(&id), "{}").unwrap();

        let (again, unreadable) = Bindings::open(&config).unwrap();
        assert_eq!((again.get(&id).as_deref(), unreadable.len()), (Some(&binding), 0));
        assert_eq!(again.refused().len(), 1);
        again.remove(&id).unwrap();
        assert_eq!(fs::read_dir(config.paths.bindings()).unwrap().count(), 0);
        again.remove(&id).unwrap();
    }

    #[test]
    fn a_note_that_is_written_after_its_strike_does_not_stand() {
        let folder = tempfile::tempdir().unwrap();
        let (config, id) = (config(folder.path()), "ab".repeat(32));
        let (bindings, _) = Bindings::open(&config).unwrap();
        bindings.put(binding(&id)).unwrap();
        let before = bindings.strikes(&id);
        bindings.note_refused(&id, "etcd is away");
        bindings.strike_again(&id, before);
        assert!(bindings.is_refused(&id), "no client has struck it");
        // A client stops the container while the proxy starts it, and the refusal is noted behind that.
        bindings.strike(&id);
        bindings.note_refused(&id, "etcd is away");
        bindings.strike_again(&id, before);
        assert!(!bindings.is_refused(&id));
    }

    #[test]
    fn what_cannot_be_read_is_named_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let (bindings, _) = Bindings::open(&config).unwrap();
        let [newer, cut, other, good] = ["a1", "a2", "a3", "a4"].map(|byte| byte.repeat(32));
        bindings.put(Binding { format: 99, ..binding(&newer) }).unwrap();
        fs::write(config.paths.binding(&cut), "{").unwrap();
        bindings.put(binding(&good)).unwrap();
        fs::copy(config.paths.binding(&good), config.paths.binding(&other)).unwrap();
        fs::write(config.paths.bindings().join("notes.txt"), "").unwrap();
        let (again, mut unreadable) = Bindings::open(&config).unwrap();
        unreadable.sort();
        let whys: Vec<&str> = unreadable.iter().map(|(_, why)| why.as_str()).collect();
        assert!(
            whys[0].contains("format 99") && whys[1].contains("EOF") && whys[2].contains("that of"),
            "{whys:?}"
        );
        assert_eq!(again.all().len(), 1);
        assert!(config.paths.binding(&newer).exists());
    }

    #[test]
    fn only_whole_ids_of_docker_name_a_binding() {
        assert!(is_docker_id(&"0f".repeat(32)));
        for other in ["web", "0f", &"0F".repeat(32), &"0g".repeat(32), &"../".repeat(22)] {
            assert!(!is_docker_id(other), "{other}");
        }
    }
}
