//! What has a log of its own below `paths.log`, and where.
//!
//! ```text
//! /var/log/calico/runtime/current  current.1 … current.9     calico-runc
//!                 gc/…                                       the cleaner
//!                 proxy/…                                    the Docker API proxy
//!                 audit/…                                    addresses: whose, from when to when
//!                 audit/tasks/…                              launches and teardowns
//!                 audit/changes/…                            what operators changed by commands
//! ```
//!
//! As Calico's own programs have it there: a folder a component, in it `current` and its older pieces.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use std::collections::HashSet;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::Rotated;
use crate::config::Config;

/// The file that is written.
const CURRENT: &str = "current";

/// The writer, or the subject, of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    Runtime,
    Gc,
    Proxy,
    /// Of the audit trail.
    Addresses,
    Tasks,
    Changes,
}

impl Component {
    fn folder(self) -> &'static str {
        match self {
            Self::Runtime => "runtime",
            Self::Gc => "gc",
            Self::Proxy => "proxy",
            Self::Addresses => "audit",
            Self::Tasks => "audit/tasks",
            Self::Changes => "audit/changes",
        }
    }

    /// Where the release before wrote it. Its executors live on after an upgrade, and do so for as long.
    fn before(self) -> Option<&'static str> {
        match self {
            Self::Runtime => Some("calico-runc.log"),
            Self::Gc => Some("gc.log"),
            Self::Proxy => None,
            Self::Addresses => Some("audit/addresses.log"),
            Self::Tasks => Some("audit/tasks.log"),
            Self::Changes => Some("audit/changes.log"),
        }
    }

    /// The file that is written; its older pieces lie beside it.
    pub fn current(self, logs: &Path) -> PathBuf {
        logs.join(self.folder()).join(CURRENT)
    }

    pub fn rotated(self, config: &Config) -> Rotated {
        let logs = &config.paths.log;
        let file = Rotated::new(self.current(logs)).bounded(config.log.file_size.0, config.log.files);
        match self.before() {
            Some(before) => file.succeeding(logs.join(before)),
            None => file,
        }
    }

    /// All pieces, the oldest first, those of the release before among them.
    ///
    /// The newest is opened first, and each file once: what is rotated or taken over meanwhile is neither missed nor
    /// read twice.
    pub fn pieces(self, logs: &Path) -> io::Result<Vec<(PathBuf, File)>> {
        let mut seen = HashSet::new();
        let before = self.before().map(|before| newest_first(&logs.join(before), &mut seen)).transpose()?;
        let mut found = newest_first(&self.current(logs), &mut seen)?;
        found.extend(before.unwrap_or_default());
        found.reverse();
        Ok(found)
    }
}

fn newest_first(file: &Path, seen: &mut HashSet<(u64, u64)>) -> io::Result<Vec<(PathBuf, File)>> {
    let (folder, name) = (file.parent().unwrap_or(Path::new("/")), file.file_name().unwrap_or_default());
    let mut found = Vec::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    let name = name.to_string_lossy();
    let number = |entry: fs::DirEntry| -> Option<u32> {
        entry.file_name().to_str()?.strip_prefix(&*name)?.strip_prefix('.')?.parse().ok()
    };
    // One more than there is: the oldest moves on as well.
    let last = entries.flatten().filter_map(number).max().map_or(1, |last| last.saturating_add(1));
    let numbered = (1..=last.min(MOST)).map(|number| folder.join(format!("{name}.{number}")));
    for path in [file.to_owned()].into_iter().chain(numbered) {
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            // A link is not a piece.
            Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => continue,
            file => file?,
        };
        let meta = file.metadata()?;
        if meta.is_file() && seen.insert((meta.dev(), meta.ino())) {
            found.push((path, file));
        }
    }
    Ok(found)
}

/// More pieces than a configuration may ask for.
const MOST: u32 = 1000;

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn told(component: Component, logs: &Path) -> String {
        let mut text = String::new();
        for (_, mut piece) in component.pieces(logs).unwrap() {
            piece.read_to_string(&mut text).unwrap();
        }
        text
    }

    fn config(logs: &Path) -> Config {
        let mut config = Config::default();
        config.paths.log = logs.into();
        config.log.file_size.0 = 10;
        config.log.files = 4;
        config
    }

    #[test]
    fn the_files_of_the_release_before_become_the_first_of_the_new_folder() {
        let dir = tempfile::tempdir().unwrap();
        let (logs, config) = (dir.path(), config(dir.path()));
        fs::write(logs.join("calico-runc.log"), "3\n").unwrap();
        fs::write(logs.join("calico-runc.log.1"), "2\n").unwrap();
        fs::write(logs.join("calico-runc.log.2"), "1\n").unwrap();
        assert_eq!(told(Component::Runtime, logs), "1\n2\n3\n");
        let log = Component::Runtime.rotated(&config);
        log.append("4").unwrap();
        assert_eq!(told(Component::Runtime, logs), "1\n2\n3\n4\n");
        assert_eq!(fs::read_to_string(logs.join("runtime/current")).unwrap(), "3\n4\n");
        let names = || {
            let entries = fs::read_dir(logs).unwrap().map(|entry| entry.unwrap().file_name());
            entries.map(|name| name.into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(names(), ["runtime"]);

        // A program of the release before that still lives makes the file anew; the next rotation takes that over.
        fs::write(logs.join("calico-runc.log"), "5\n").unwrap();
        assert_eq!(told(Component::Runtime, logs), "5\n1\n2\n3\n4\n");
        log.append("longer than is left").unwrap();
        assert_eq!(told(Component::Runtime, logs), "1\n2\n3\n4\n5\nlonger than is left\n");
        assert_eq!(names(), ["runtime"]);
    }

    #[test]
    fn nothing_is_replaced_by_what_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let (logs, config) = (dir.path(), config(dir.path()));
        let audit = logs.join("audit");
        fs::create_dir(&audit).unwrap();
        for (name, text) in [("addresses.log.1", "1\n"), ("addresses.log", "3\n"), ("current.1", "2\n")] {
            fs::write(audit.join(name), text).unwrap();
        }
        Component::Addresses.rotated(&config).append("4").unwrap();
        assert_eq!(told(Component::Addresses, logs), "1\n2\n3\n4\n");
        assert!(audit.join("addresses.log.1").exists() && !audit.join("addresses.log").exists());

        std::os::unix::fs::symlink("/etc/hostname", audit.join("tasks.log")).unwrap();
        Component::Tasks.rotated(&config).append("5").unwrap();
        assert_eq!(told(Component::Tasks, logs), "5\n");
    }

    #[test]
    fn each_has_its_folder() {
        use Component::{Addresses, Changes, Gc, Proxy, Runtime, Tasks};
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        for component in [Runtime, Gc, Proxy, Addresses, Tasks, Changes] {
            let text = format!("{component:?}");
            component.rotated(&config).append(&text).unwrap();
            assert_eq!(told(component, dir.path()), format!("{text}\n"));
        }
        assert!(dir.path().join("proxy/current").exists());
    }
}
