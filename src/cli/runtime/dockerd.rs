//! The Docker daemons that run on this host, found by their command lines in /proc.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{openat2, OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::{fstat, stat, FileStat};

use crate::host::processes::{command_line, pids};

/// The file that dockerd reads by default.
pub const DEFAULT_FILE: &str = "/etc/docker/daemon.json";

/// A running dockerd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerdProcess {
    pub pid: i32,
    /// Its configuration file, as it names it.
    pub config: PathBuf,
    /// Names of the runtimes that its command line adds.
    pub runtimes: Vec<String>,
    /// `--default-runtime`.
    pub default_runtime: Option<String>,
}

impl DockerdProcess {
    /// From the words of a command line; `None` when it is another program's.
    pub fn parse(pid: i32, words: &[String]) -> Option<Self> {
        let (program, words) = words.split_first()?;
        if Path::new(program).file_name()? != "dockerd" {
            return None;
        }
        let mut dockerd =
            Self { pid, config: DEFAULT_FILE.into(), runtimes: Vec::new(), default_runtime: None };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let (flag, value) = match word.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let mut value = || value.clone().or_else(|| words.next().cloned());
            match flag {
                "--config-file" => dockerd.config = value().unwrap_or_default().into(),
                "--default-runtime" => dockerd.default_runtime = value(),
                "--add-runtime" => {
                    let runtime = value().unwrap_or_default();
                    dockerd.runtimes.push(runtime.split('=').next().unwrap_or_default().to_owned());
                }
                _ => {}
            }
        }
        Some(dockerd)
    }

    /// Does it read this file? Asked from its own point of view: it may have another root folder, and what lies
    /// under the same name in another mount namespace is another file. A file that does not exist yet is known by
    /// its folder.
    fn reads(&self, file: &Path) -> bool {
        let (mut ours, mut theirs) = (file, self.config.as_path());
        loop {
            match (fs::metadata(ours), self.look_at(theirs)) {
                (Ok(ours), Ok(theirs)) => return (ours.dev(), ours.ino()) == (theirs.st_dev, theirs.st_ino),
                (Err(_), Err(_)) if ours.file_name() == theirs.file_name() => {}
                _ => return false,
            }
            let (Some(above), Some(theirs_above)) = (ours.parent(), theirs.parent()) else { return false };
            (ours, theirs) = (above, theirs_above);
        }
    }

    /// The file that the daemon finds under this name. Its links lead through its own root folder, not through ours.
    fn look_at(&self, path: &Path) -> Result<FileStat, Errno> {
        let (base, resolve) = match path.is_absolute() {
            true => ("root", ResolveFlag::RESOLVE_IN_ROOT),
            false => ("cwd", ResolveFlag::empty()),
        };
        let folder = File::open(format!("/proc/{}/{base}", self.pid))
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))?;
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(resolve);
        match openat2(&folder, path, how) {
            Ok(file) => fstat(file),
            // Linux before 5.6: as if all links were relative.
            Err(Errno::ENOSYS) => {
                let below = Path::new("/proc").join(self.pid.to_string()).join(base);
                stat(&below.join(path.strip_prefix("/").unwrap_or(path)))
            }
            Err(errno) => Err(errno),
        }
    }
}

/// Every running dockerd.
pub fn running() -> Vec<DockerdProcess> {
    pids().filter_map(|pid| DockerdProcess::parse(pid, &command_line(pid)?)).collect()
}

/// Every running dockerd that reads `file`.
pub fn readers_of(file: &Path) -> Vec<DockerdProcess> {
    running().into_iter().filter(|dockerd| dockerd.reads(file)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<DockerdProcess> {
        DockerdProcess::parse(7, &line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn dockerd_and_its_configuration_file_are_found_by_its_command_line() {
        let plain = parse("/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock").unwrap();
        assert_eq!((plain.config.to_str(), plain.runtimes.len()), (Some(DEFAULT_FILE), 0));
        let other = parse(
            "dockerd --config-file=/x.json --add-runtime calico=/c --add-runtime=k=/k --default-runtime k",
        );
        let other = other.unwrap();
        assert_eq!(other.config.to_str(), Some("/x.json"));
        assert_eq!(other.runtimes, ["calico", "k"]);
        assert_eq!(other.default_runtime.as_deref(), Some("k"));
        assert_eq!(parse("vi dockerd"), None);
        assert_eq!(parse("/usr/bin/docker-proxy dockerd"), None);
    }
}
