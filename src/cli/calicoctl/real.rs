//! Calico's own calicoctl: where it is, and how this process becomes it.

use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::config::{Config, Origin, CALICOCTL_CFG};

use super::{settings, NAME};

/// Where a package or an operator puts it once the front end has its name.
pub(super) const BESIDE_US: &str = "/usr/lib/calico-mesos/calicoctl";
/// Set for the program that we become: should that be a copy of this one, it must not look on.
const MARK: &str = "CALICO_MESOS_DELEGATED";

#[derive(Debug, thiserror::Error)]
pub(super) enum RealError {
    #[error("`{NAME} {verb}` needs Calico's own calicoctl, which is neither at {BESIDE_US} nor in PATH: install it there, or name it in [calicoctl] path")]
    Missing { verb: String },
    #[error("`{NAME} {verb}` needs Calico's own calicoctl, and {path} ([calicoctl] path) is not an executable file other than this program")]
    Unusable { verb: String, path: PathBuf },
    #[error("{0} is a copy of calico-mesos, not Calico's own calicoctl: name that one in [calicoctl] path")]
    Loop(PathBuf),
    #[error("cannot read the password for etcd from {path}")]
    Password {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot start {path}")]
    Exec {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Replaces this process by Calico's own calicoctl with these words; returns only where that fails.
/// `origin` is where the choice of our datastore comes from.
pub(super) fn become_it(config: &Config, origin: &Origin, words: &[OsString]) -> RealError {
    let own = std::fs::metadata("/proc/self/exe").ok();
    let path = match find(config, std::env::var_os("PATH").as_deref(), own.as_ref(), words) {
        Ok(path) => path,
        Err(error) => return error,
    };
    if std::env::var_os(MARK).is_some() {
        return RealError::Loop(std::env::current_exe().unwrap_or(path));
    }
    let variables = match settings::environment(&config.etcd, |name| std::env::var_os(name).is_some()) {
        Ok(variables) => variables,
        Err(error) => return error,
    };
    // With that file there, it would not look at the environment.
    let ignores = !matches!(origin, Origin::Calicoctl(_)) && Path::new(CALICOCTL_CFG).exists();
    let file = match ignores && settings::reads_file(words) {
        true => settings::file(&variables),
        false => Ok(None),
    };
    let (_file, option) = match file {
        Ok(file) => file.unzip(),
        Err(source) => return RealError::Exec { path, source },
    };
    let source = Command::new(&path).args(words).args(option).envs(variables).env(MARK, "1").exec();
    RealError::Exec { path, source }
}

/// The configured one, else the one beside us, else the first in `search` that is not this program.
pub(super) fn find(
    config: &Config,
    search: Option<&OsStr>,
    own: Option<&Metadata>,
    words: &[OsString],
) -> Result<PathBuf, RealError> {
    // `node` and `ipam` are ours; only some of their verbs are Calico's.
    let count = words.first().map_or(1, |word| if word == "node" || word == "ipam" { 2 } else { 1 });
    let verb = || words.iter().take(count).map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    if let Some(path) = &config.calicoctl.path {
        return match is_another_program(path, own) {
            true => Ok(path.clone()),
            false => Err(RealError::Unusable { verb: verb(), path: path.clone() }),
        };
    }
    let folders = search.map(|search| std::env::split_paths(search).collect::<Vec<_>>()).unwrap_or_default();
    let in_path = folders.into_iter().filter(|folder| folder.is_absolute()).map(|folder| folder.join(NAME));
    let mut places = std::iter::once(PathBuf::from(BESIDE_US)).chain(in_path);
    places.find(|path| is_another_program(path, own)).ok_or_else(|| RealError::Missing { verb: verb() })
}

/// Whether it is an executable file, and not this program under another name.
fn is_another_program(path: &Path, own: Option<&Metadata>) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| {
        let is_own = own.is_some_and(|own| (own.dev(), own.ino()) == (meta.dev(), meta.ino()));
        meta.is_file() && meta.permissions().mode() & 0o111 != 0 && !is_own
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn program(folder: &Path) -> PathBuf {
        fs::create_dir_all(folder).unwrap();
        let path = folder.join(NAME);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn the_configured_one_comes_first_then_the_first_other_in_path() {
        let dir = tempfile::tempdir().unwrap();
        let (us, real) = (program(&dir.path().join("us")), program(&dir.path().join("real")));
        let link = dir.path().join("linked");
        fs::create_dir(&link).unwrap();
        std::os::unix::fs::symlink(&us, link.join(NAME)).unwrap();
        let own = fs::metadata(&us).unwrap();
        let folders = [Path::new("relative"), &link, &dir.path().join("us"), &dir.path().join("real")];
        let search = std::env::join_paths(folders).unwrap();
        let find = |config: &Config, search: &OsStr| find(config, Some(search), Some(&own), &["get".into()]);

        let mut config = Config::default();
        assert_eq!(find(&config, &search).unwrap(), real);
        let ours_alone = std::env::join_paths(&folders[..3]).unwrap();
        let error = find(&config, &ours_alone).unwrap_err().to_string();
        assert!(error.contains("`calicoctl get`") && error.contains("[calicoctl] path"), "{error}");
        for unusable in [us, link.join(NAME), dir.path().to_owned(), dir.path().join("none")] {
            config.calicoctl.path = Some(unusable.clone());
            let error = find(&config, &search).unwrap_err().to_string();
            assert!(error.contains(&unusable.display().to_string()), "{error}");
        }
    }
}
