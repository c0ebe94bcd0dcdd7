//! The folder of links that an agent takes for its launcher folder, with our executor in one place.
//!
//! ```text
//!  /usr/lib/calico-mesos/launcher/              the agent's --launcher_dir
//!    .calico-mesos                              what this folder was made of
//!    mesos-containerizer   ─► /usr/libexec/mesos/mesos-containerizer
//!    mesos-docker-executor ─► /usr/bin/calico-executor
//!    mesos-fetcher         ─► /usr/libexec/mesos/mesos-fetcher      and so on
//! ```
//!
//! The agent may start a program at any moment, so every link is made under another name and renamed
//! into place. Nothing is ever replaced or removed but links that an earlier run made.

mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::stock_launcher::LauncherError;
use crate::host::files::{self, NEW};
use steps::{list, plan, strangers, FolderEntry, FolderStep, Mark};

pub use steps::{told, EXECUTOR};

/// The default folder for `--launcher_dir`.
pub const DEFAULT_DIR: &str = "/usr/lib/calico-mesos/launcher";
/// The file that remembers what the folder was made of.
const MARK: &str = ".calico-mesos";

#[derive(Debug, thiserror::Error)]
pub enum LauncherFolderError {
    #[error(transparent)]
    Launcher(#[from] LauncherError),
    #[error("{} exists, and calico-mesos did not make it; name another folder with --dir", .0.display())]
    NotOurs(PathBuf),
    #[error("{} contains {}, which calico-mesos did not make; move that away, then try again", dir.display(), list(names))]
    Foreign { dir: PathBuf, names: Vec<OsString> },
    #[error("cannot read {}", path.display())]
    Mark {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot {action} {}{}", path.display(), hint(source))]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What can be done about it where the system's own words do not say so.
fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        ErrorKind::ReadOnlyFilesystem => " (name a folder that can be written to with --dir)",
        _ => "",
    }
}

fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LauncherFolderError {
    let path = path.to_owned();
    move |source| LauncherFolderError::File { action, path, source }
}

/// The launcher folder that is wanted.
#[derive(Debug)]
pub struct LauncherFolder {
    dir: PathBuf,
    from: PathBuf,
    executor: PathBuf,
    programs: BTreeSet<OsString>,
}

/// A launcher folder as it is found.
struct Found {
    /// `None`: there is no folder, or an empty one.
    mark: Option<Mark>,
    entries: BTreeMap<OsString, FolderEntry>,
}

impl LauncherFolder {
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `from`: the agent's own launcher folder; `executor`: the program that takes the stock one's place.
    pub fn of(dir: &Path, from: &Path, executor: &Path) -> Result<Self, LauncherFolderError> {
        let programs = names(from).map_err(file("read", from))?;
        Ok(Self { dir: dir.into(), from: from.into(), executor: executor.into(), programs })
    }

    /// What [`LauncherFolder::make`] would do now.
    pub fn steps(&self) -> Result<Vec<FolderStep>, LauncherFolderError> {
        let found = Found::at(&self.dir)?;
        let new = self.mark(&found);
        self.plan(&found, &new)
    }

    /// Makes it so. Repeating it changes nothing.
    pub fn make(&self) -> Result<Vec<FolderStep>, LauncherFolderError> {
        let made = topmost_missing(&self.dir);
        make_folders(&self.dir, &made)?;
        let _lock = lock(&self.dir)?;
        let found = Found::at(&self.dir)?;
        let mut new = self.mark(&found);
        if found.mark.is_none() {
            // First, so that an interrupted run recognises its own links.
            new.made = made;
            write_mark(&self.dir, &new)?;
        }
        let steps = self.plan(&found, &new)?;
        for step in &steps {
            match step {
                FolderStep::Add(name) | FolderStep::Change(name) => {
                    link(&self.dir, Path::new(name), &new.target(name))?;
                }
                FolderStep::Remove(name) => remove(&self.dir.join(name))?,
            }
        }
        if found.mark.is_some_and(|old| old != new) {
            // Last, for the same reason.
            write_mark(&self.dir, &new)?;
        }
        Ok(steps)
    }

    fn mark(&self, found: &Found) -> Mark {
        let made = found.mark.as_ref().map_or_else(|| self.dir.clone(), |mark| mark.made.clone());
        Mark { from: self.from.clone(), executor: self.executor.clone(), made }
    }

    fn plan(&self, found: &Found, new: &Mark) -> Result<Vec<FolderStep>, LauncherFolderError> {
        let old = found.mark.as_ref().unwrap_or(new);
        plan(&found.entries, &self.programs, old, new)
            .map_err(|names| LauncherFolderError::Foreign { dir: self.dir.clone(), names })
    }
}

impl Found {
    fn at(dir: &Path) -> Result<Self, LauncherFolderError> {
        let mut entries = BTreeMap::new();
        for name in names_or_none(dir)? {
            let path = dir.join(&name);
            let entry = match fs::read_link(&path) {
                Ok(target) => FolderEntry::Link(target),
                Err(error) if error.kind() == ErrorKind::InvalidInput => FolderEntry::Other,
                Err(source) => return Err(file("look at", &path)(source)),
            };
            entries.insert(name, entry);
        }
        let mark = read_mark(dir)?;
        if mark.is_none() && !entries.is_empty() {
            return Err(LauncherFolderError::NotOurs(dir.into()));
        }
        Ok(Self { mark, entries })
    }
}

/// The agent's own launcher folder, from which the one at `dir` was made, if there is one.
pub fn source_of(dir: &Path) -> Result<Option<PathBuf>, LauncherFolderError> {
    Ok(made_of(dir)?.map(|(from, _)| from))
}

/// The same, with the executor in it.
pub fn made_of(dir: &Path) -> Result<Option<(PathBuf, PathBuf)>, LauncherFolderError> {
    Ok(read_mark(dir)?.map(|mark| (mark.from, mark.executor)))
}

/// Removes the launcher folder, with the folders that were made for it. Returns whether there was one; a dry
/// run only finds out whether it could be done.
pub fn remove_folder(dir: &Path, dry_run: bool) -> Result<bool, LauncherFolderError> {
    let Some(mark) = Found::at(dir)?.mark else { return Ok(false) };
    let _lock = lock(dir)?;
    let found = Found::at(dir)?;
    let names = strangers(&found.entries, &mark);
    if !names.is_empty() {
        return Err(LauncherFolderError::Foreign { dir: dir.into(), names });
    }
    if dry_run {
        return Ok(true);
    }
    let left = all_names(dir).map_err(file("read", dir))?;
    for name in left.iter().filter(|name| *name != MARK) {
        remove(&dir.join(name))?;
    }
    // Last: an interrupted run leaves a folder that the next one can remove.
    remove(&dir.join(MARK))?;
    for folder in dir.ancestors().take_while(|folder| folder.starts_with(&mark.made)) {
        match fs::remove_dir(folder) {
            // Something else has been put into the folder in the meantime.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => break,
            result => result.map_err(file("remove", folder))?,
        }
    }
    Ok(true)
}

fn all_names(dir: &Path) -> io::Result<BTreeSet<OsString>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect()
}

/// Without our own files, and what a run that was interrupted left of them.
fn names(dir: &Path) -> io::Result<BTreeSet<OsString>> {
    let mut names = all_names(dir)?;
    names.retain(|name| name != MARK && !name.as_encoded_bytes().starts_with(NEW.as_bytes()));
    Ok(names)
}

fn names_or_none(dir: &Path) -> Result<BTreeSet<OsString>, LauncherFolderError> {
    match names(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(BTreeSet::new()),
        result => result.map_err(file("read", dir)),
    }
}

fn read_mark(dir: &Path) -> Result<Option<Mark>, LauncherFolderError> {
    let path = dir.join(MARK);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(file("read", &path)(source)),
        Ok(text) => {
            serde_json::from_str(&text).map(Some).map_err(|source| LauncherFolderError::Mark { path, source })
        }
    }
}

fn write_mark(dir: &Path, mark: &Mark) -> Result<(), LauncherFolderError> {
    let path = dir.join(MARK);
    let write = |new: &mut File| {
        serde_json::to_writer_pretty(&mut *new, mark)?;
        new.write_all(b"\n")?;
        new.sync_all()
    };
    files::replace_as(&path, 0o644, write).map_err(file("write", &path))
}

fn link(dir: &Path, name: &Path, target: &Path) -> Result<(), LauncherFolderError> {
    let (new, path) = (dir.join(NEW), dir.join(name));
    files::replace_link(&path, target, &new).map_err(file("make", &path))
}

fn remove(path: &Path) -> Result<(), LauncherFolderError> {
    files::remove(path).map_err(file("remove", path))
}

/// The first of a path's folders that is not there; the last one when all are.
fn topmost_missing(dir: &Path) -> PathBuf {
    let missing = dir.ancestors().take_while(|folder| !folder.exists());
    missing.last().unwrap_or(dir).to_owned()
}

/// Open to all, independent of the umask: a task's own user starts programs from there.
fn make_folders(dir: &Path, topmost: &Path) -> Result<(), LauncherFolderError> {
    let missing: Vec<&Path> =
        dir.ancestors().take_while(|folder| folder.starts_with(topmost) && !folder.exists()).collect();
    for folder in missing.into_iter().rev() {
        match fs::create_dir(folder) {
            // Another run came first.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            result => result.map_err(file("make", folder))?,
        }
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder, open).map_err(file("open to all", folder))?;
    }
    Ok(())
}

/// Two runs at once take turns.
fn lock(dir: &Path) -> Result<File, LauncherFolderError> {
    let open = File::open(dir).and_then(|folder| folder.lock().map(|()| folder));
    open.map_err(file("lock", dir))
}
