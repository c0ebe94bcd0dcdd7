//! The journal: one file a task, which names what has to be taken away when the task ends.
//!
//! Ownership takes the place of flags. The executor writes the file once, before it makes anything else, and holds an
//! exclusive `flock` on it as long as it lives. A process that can take that lock has proof that the owner is dead, and
//! finishes the teardown; the teardown never has to write. So SIGKILL, OOM, reboot and power loss all end the same way.
//!
//! A second line stands there while a write to the datastore is under way, and names it. If the owner dies before the
//! answer arrives, its successor has to rule that write out; see [`JournalEntry::expect`]. An owner that ends without
//! having received the answer to a release names the addresses there, for the audit trail; see
//! [`JournalEntry::leave_word`]. The next line records how the task ended, because an agent may destroy the executor at
//! its own terminal update; see [`JournalEntry::conclude`]. The previous release reads past that line.
//!
//! The file is made under a temporary name, locked, and then linked into place, so that no process can see it unlocked
//! while its owner lives. It is never renamed. A process that has locked a file compares it with the file at its path:
//! a different inode means that another process was faster.

mod backing;
mod lines;
mod view;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::calico::{Identity, Pending};
use crate::host::files::make_private;
use crate::host::processes::{boot_id, Stat};
use crate::host::trust::{self, TrustError};
use crate::names::ContainerId;
use crate::net::forward::Mapping;

use crate::task::channel::Ending;
pub use backing::Backing;
use lines::{is_blank, parse, text, HeldLine, Parsed};
pub use view::View;

/// What this release writes of a container that others start and stop: its record counts as long as something lives in
/// its namespace. It grows when the release before could not read a record, or would leave something
/// behind that the record names; each release reads that of the one before and leaves all others alone.
const FORMAT: u32 = 2;
/// What the release before wrote, and what this one writes of tasks that end with their executor: it can be set back
/// under them.
const FORMAT_BEFORE: u32 = 1;

const NOT_A_RECORD: &str = "not a journal file";

/// A temporary that is older than this and not locked has no writer any more: it is locked in the moment in which it
/// is made. Who was stopped in that moment finds it gone, and writes it anew.
const TEMPORARY_AGE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("cannot make the journal folder {path}")]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Unsafe(#[from] TrustError),
    #[error("cannot write the journal file {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the journal file {path} exists already: another executor owns this container")]
    Owned { path: PathBuf },
    #[error("cannot read the journal file {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot remove the journal file {path}")]
    Remove {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Everything that a teardown needs, written before anything is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub format: u32,
    pub container: ContainerId,
    /// What runs the workload.
    #[serde(flatten)]
    pub backing: Backing,
    pub framework: String,
    /// The task's identity in Calico.
    pub identity: Identity,
    /// Consul ids, registered or not.
    pub services: Vec<String>,
    /// Ports of the host that lead to the task, or are to lead to it. Records of releases before ports were forwarded
    /// have none; those releases read past the field, and what they do not remove is taken over by the next task that
    /// gets the port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Mapping>,
    /// `dataplane = "local"`: routes and sysctls are ours to restore.
    pub local: bool,
    pub owner: Owner,
    /// RFC 3339, UTC.
    pub written: String,
}

impl Record {
    /// The same with what runs the workload.
    pub fn backed_by(self, backing: Backing) -> Self {
        let format = if backing.adopted().is_some() { FORMAT } else { FORMAT_BEFORE };
        Self { format, backing, ..self }
    }

    /// Written now by this process; the task has nothing yet.
    pub fn new(container: ContainerId, identity: Identity) -> Self {
        Self {
            format: FORMAT_BEFORE,
            container,
            backing: Backing::Process,
            framework: String::new(),
            identity,
            services: Vec::new(),
            ports: Vec::new(),
            local: false,
            owner: Owner::current(),
            written: timestamp(),
        }
    }
}

/// Who wrote the record; for people, since the lock alone decides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Owner {
    pub pid: u32,
    /// Field 22 of `/proc/<pid>/stat`, clock ticks since boot: it reveals a reused pid.
    pub start_time: u64,
    pub boot_id: String,
    pub version: String,
}

impl Owner {
    /// This process.
    pub fn current() -> Self {
        let pid = std::process::id();
        Self {
            pid,
            start_time: start_time(pid).unwrap_or(0),
            boot_id: boot_id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Does the process live that wrote the record? It may, and yet not own the record any more.
    pub fn lives(&self) -> bool {
        self.boot_id == boot_id() && start_time(self.pid) == Some(self.start_time)
    }
}

fn start_time(pid: u32) -> Option<u64> {
    Stat::of(i32::try_from(pid).ok()?)?.start_time()
}

/// The folder `<paths.state>/tasks`.
#[derive(Debug, Clone)]
pub struct Journal {
    folder: PathBuf,
}

/// A record together with the lock that makes this process its owner.
#[derive(Debug)]
pub struct JournalEntry {
    pub record: Record,
    /// A write to the datastore that was under way when the owner died.
    pub pending: Option<Box<Pending>>,
    /// Addresses that the datastore gave, and whose return is not in the audit trail yet.
    held: OnceLock<Vec<IpAddr>>,
    /// How the task ended.
    ending: OnceLock<Ending>,
    /// The line about the datastore, as it stands in the file; may be empty.
    line: Mutex<Vec<u8>>,
    path: PathBuf,
    lock: Flock<File>,
    /// The length of the record alone, in bytes.
    length: u64,
}

/// A record as it was seen in passing.
#[derive(Debug, Clone, PartialEq)]
pub enum Peeked {
    /// Its owner lives. A record that this release cannot read may have one too.
    Owned(Option<Box<Record>>),
    /// Its owner is dead.
    Orphan(Box<Record>),
    /// Not ours to touch: a newer format, or not a journal file.
    Unreadable { why: String },
}

/// What lies in the folder besides what living owners hold.
#[derive(Debug)]
pub enum Found {
    /// Its owner was dead; this process owns it now.
    Orphan(Box<JournalEntry>),
    /// Not ours to touch: a newer format, or not a journal file.
    Unreadable { path: PathBuf, why: String },
}

impl Journal {
    /// Makes the folder, readable by root only, where it is missing. What others can write into is no journal:
    /// its records say what root takes away.
    pub fn open(folder: &Path) -> Result<Self, JournalError> {
        trust::private_folder(folder)?;
        make_private(folder).map_err(|source| JournalError::Folder { path: folder.into(), source })?;
        Ok(Self { folder: folder.into() })
    }

    pub fn path(&self, container: &ContainerId) -> PathBuf {
        path(&self.folder, container)
    }

    /// Writes the record and takes ownership. The data reaches the disk with [`JournalEntry::sync`].
    pub fn begin(&self, record: Record) -> Result<JournalEntry, JournalError> {
        let path = self.path(&record.container);
        let temporary = self.folder.join(format!(".{}.{}", record.container, std::process::id()));
        let result = write_locked(&temporary, &record).and_then(|(lock, length)| {
            fs::hard_link(&temporary, &path)?;
            Ok((lock, length))
        });
        // Gone either way: after the link the file has its real name, after an error none.
        let _ = fs::remove_file(&temporary);
        match result {
            Ok((lock, length)) => {
                let parsed = Parsed { record, pending: None, held: None, ending: None, length };
                Ok(JournalEntry::new(parsed, path, lock))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(JournalError::Owned { path }),
            Err(source) => Err(JournalError::Write { path, source }),
        }
    }

    /// Every file of the folder, in no order; each is for [`Journal::take_over`] or [`Journal::peek`] to judge.
    pub fn files(&self) -> Result<Vec<PathBuf>, JournalError> {
        let read = |source| JournalError::Read { path: self.folder.clone(), source };
        fs::read_dir(&self.folder)
            .map_err(read)?
            .map(|entry| entry.map(|entry| entry.path()).map_err(read))
            .collect()
    }

    /// Takes a record over if its owner is dead; `None` when it has an owner, or has gone.
    pub fn take_over(path: &Path) -> Result<Option<Found>, JournalError> {
        match adopt(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result.map_err(|source| JournalError::Read { path: path.into(), source }),
        }
    }

    /// Looks at one file without taking it over; `None` when it has gone or never was a record.
    pub fn peek(path: &Path) -> Result<Option<Peeked>, JournalError> {
        match peek(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result.map_err(|source| JournalError::Read { path: path.into(), source }),
        }
    }

    /// Reads a record, owned or not; for people.
    pub fn look(&self, container: &ContainerId) -> Option<Record> {
        fs::read_to_string(self.path(container))
            .ok()
            .and_then(|text| parse(&text).ok())
            .map(|parsed| parsed.record)
    }

    /// Number of records, owned or not; for people.
    pub fn len(&self) -> usize {
        fs::read_dir(&self.folder)
            .map_or(0, |entries| entries.flatten().filter(|e| is_record(&e.path())).count())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl JournalEntry {
    fn new(parsed: Parsed, path: PathBuf, lock: Flock<File>) -> Self {
        let line = parsed.line();
        let Parsed { record, pending, held, ending, length } = parsed;
        Self {
            record,
            pending,
            held: held.map(OnceLock::from).unwrap_or_default(),
            ending: ending.map(OnceLock::from).unwrap_or_default(),
            line: line.into(),
            path,
            lock,
            length,
        }
    }

    /// Brings file and folder to the disk. Slow (milliseconds): done beside the datastore's reads.
    pub fn sync(&self) -> Result<(), JournalError> {
        let sync = || {
            self.lock.sync_all()?;
            File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()
        };
        sync().map_err(|source| JournalError::Write { path: self.path.clone(), source })
    }

    /// A second handle for syncing on another thread.
    pub fn syncer(&self) -> Result<impl FnOnce() -> Result<(), JournalError> + Send + 'static, JournalError> {
        let path = self.path.clone();
        let file =
            self.lock.try_clone().map_err(|source| JournalError::Write { path: path.clone(), source })?;
        Ok(move || {
            file.sync_all()
                .and_then(|()| File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all())
                .map_err(|source| JournalError::Write { path, source })
        })
    }

    /// Notes a write to the datastore that is about to be sent. Not brought to the disk: what a host has sent
    /// before a loss of power is decided long before its cleaner looks.
    pub fn expect(&self, pending: &Pending) -> io::Result<()> {
        self.add(pending)
    }

    /// The answer has come: these addresses are the task's.
    pub fn given(&self, addresses: &[IpAddr]) {
        let _ = self.held.set(addresses.to_vec());
        self.settled();
    }

    /// The answer to their release was lost; the next cleaner reports that they went.
    pub fn leave_word(&self) {
        if let Some(held) = self.held.get() {
            // What cannot be written is missing in the audit trail alone.
            let _ = self.add(&HeldLine { held: held.clone() });
        }
    }

    pub fn held(&self) -> &[IpAddr] {
        self.held.get().map_or(&[], Vec::as_slice)
    }

    /// Notes how the task ended, before it is reported: the cleaner that may have to finish the teardown reports the
    /// same.
    pub fn conclude(&self, ending: &Ending) {
        let _ = self.ending.set(ending.clone());
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        // What cannot be written is missing in a cleaner's line of the audit trail alone.
        let _ = self.put(&line);
    }

    /// It has been started again, and has not ended any more.
    pub fn reopen(&mut self) {
        self.ending = OnceLock::new();
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        // What cannot be cut off is wrong in a cleaner's line of the audit trail alone.
        let _ = self.put(&line);
    }

    /// How the task ended, where its owner got so far.
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.get()
    }

    fn add(&self, what: &impl Serialize) -> io::Result<()> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        *line = lines::line(what)?;
        self.put(&line).inspect_err(|_| {
            line.clear();
            // Half of it says nothing.
            let _ = self.lock.set_len(self.length);
        })
    }

    /// The datastore has nothing of the task, or nothing any more.
    pub fn settled(&self) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.clear();
        // What could not be cut off does no harm: a write that has happened is found to have happened.
        let _ = self.put(&line);
    }

    /// Puts this line and the ending behind the record. What is left of longer ones goes afterwards: at no time
    /// is the ending missing.
    fn put(&self, line: &[u8]) -> io::Result<()> {
        let mut text = line.to_vec();
        if let Some(ending) = self.ending.get() {
            text.extend(lines::line(ending)?);
        }
        self.lock.write_all_at(&text, self.length)?;
        self.lock.set_len(self.length + text.len() as u64)
    }

    /// Nothing is left of the task: the record goes, and with it the lock.
    pub fn finish(self) -> Result<(), JournalError> {
        match fs::remove_file(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(JournalError::Remove { path: self.path.clone(), source })
            }
            _ => Ok(()),
        }
    }
}

/// The container's file in the journal's folder.
pub fn path(folder: &Path, container: &ContainerId) -> PathBuf {
    folder.join(format!("{container}.json"))
}

fn is_record(path: &Path) -> bool {
    path.extension().is_some_and(|ext| ext == "json")
}

/// The locked file, and its length.
fn write_locked(path: &Path, record: &Record) -> io::Result<(Flock<File>, u64)> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    let mut lock =
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| io::Error::from(errno))?;
    let mut text = serde_json::to_vec_pretty(record)?;
    text.push(b'\n');
    lock.write_all(&text)?;
    Ok((lock, text.len() as u64))
}

/// Locks one file of the folder if its owner is dead.
fn adopt(path: &Path) -> io::Result<Option<Found>> {
    let strange = || Ok(Some(Found::Unreadable { path: path.into(), why: NOT_A_RECORD.into() }));
    if !fs::symlink_metadata(path)?.is_file() {
        return strange();
    }
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
        Err((_, errno)) => return Err(errno.into()),
    };
    let (ours, named) = (lock.metadata()?, fs::symlink_metadata(path)?);
    if (ours.dev(), ours.ino()) != (named.dev(), named.ino()) {
        return Ok(None);
    }
    if !is_record(path) {
        // A temporary whose writer died before it was linked: nothing had been made yet. A young one may
        // have a writer that is just about to lock it.
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            if ours.modified()?.elapsed().is_ok_and(|age| age > TEMPORARY_AGE) {
                fs::remove_file(path)?;
            }
            return Ok(None);
        }
        return strange();
    }
    let text = text(&lock)?;
    if is_blank(&text) {
        fs::remove_file(path)?;
        return Ok(None);
    }
    // One that is broken must not keep the others from being found.
    Ok(Some(match parse(&text) {
        Ok(parsed) => Found::Orphan(Box::new(JournalEntry::new(parsed, path.into(), lock))),
        Err(why) => Found::Unreadable { path: path.into(), why },
    }))
}

fn peek(path: &Path) -> io::Result<Option<Peeked>> {
    if !is_record(path) || !fs::symlink_metadata(path)?.is_file() {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        return Ok((!hidden).then(|| Peeked::Unreadable { why: NOT_A_RECORD.into() }));
    }
    let file = File::open(path)?;
    let text = text(&file)?;
    let record = parse(&text).map(|parsed| Box::new(parsed.record));
    // Shared, so that two who look do not take each other for the owner.
    Ok(Some(match (Flock::lock(file, FlockArg::LockSharedNonblock), record) {
        (Err((_, Errno::EWOULDBLOCK)), record) => Peeked::Owned(record.ok()),
        (Err((_, errno)), _) => return Err(errno.into()),
        (Ok(_), Ok(record)) => Peeked::Orphan(record),
        (Ok(_), Err(_)) if is_blank(&text) => return Ok(None),
        (Ok(_), Err(why)) => Peeked::Unreadable { why },
    }))
}

/// Now, as records and Calico's metadata carry it.
pub(in crate::task) fn timestamp() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

#[cfg(test)]
mod tests;
