//! Calico's own calicoctl: where it is, and how this process becomes it.

use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::config::{Config, Etcd};

use super::NAME;

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
pub(super) fn become_it(config: &Config, words: &[OsString]) -> RealError {
    let own = std::fs::metadata("/proc/self/exe").ok();
    let path = match find(config, std::env::var_os("PATH").as_deref(), own.as_ref(), words) {
        Ok(path) => path,
        Err(error) => return error,
    };
    if std::env::var_os(MARK).is_some() {
        return RealError::Loop(std::env::current_exe().unwrap_or(path));
    }
    let variables = match environment(&config.etcd, |name| std::env::var_os(name).is_some()) {
        Ok(variables) => variables,
        Err(error) => return error,
    };
    let source = Command::new(&path).args(words).envs(variables).env(MARK, "1").exec();
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

/// The datastore of our configuration as calicoctl reads it, but for what is set already. Each variable may carry
/// the prefix `CALICO_`. An environment that names endpoints has a datastore of its own: our password is not for it.
fn environment(
    etcd: &Etcd,
    is_set: impl Fn(&str) -> bool,
) -> Result<Vec<(&'static str, OsString)>, RealError> {
    let unset = |name: &&str| !is_set(name) && !is_set(&format!("CALICO_{name}"));
    let mut variables: Vec<(&str, Option<OsString>)> = vec![("DATASTORE_TYPE", Some("etcdv3".into()))];
    if unset(&"ETCD_ENDPOINTS") {
        let file = |file: &Option<PathBuf>| file.as_ref().map(OsString::from);
        variables.extend([
            ("ETCD_ENDPOINTS", Some(etcd.endpoints.join(",").into())),
            ("ETCD_CA_CERT_FILE", file(&etcd.ca_file)),
            ("ETCD_CERT_FILE", file(&etcd.cert_file)),
            ("ETCD_KEY_FILE", file(&etcd.key_file)),
            ("ETCD_USERNAME", etcd.username.as_ref().map(OsString::from)),
            ("ETCD_PASSWORD", etcd.password.as_ref().map(OsString::from)),
        ]);
        if let Some(path) = etcd.password_file.as_ref().filter(|_| unset(&"ETCD_PASSWORD")) {
            let text = std::fs::read_to_string(path)
                .map_err(|source| RealError::Password { path: path.clone(), source })?;
            variables.push(("ETCD_PASSWORD", Some(text.trim_end_matches(['\r', '\n']).into())));
        }
    }
    let wanted = variables.into_iter().filter_map(|(name, value)| Some((name, value?)));
    Ok(wanted.filter(|(name, _)| unset(name)).collect())
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

    #[test]
    fn the_environment_is_filled_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let password = dir.path().join("password");
        fs::write(&password, "secret word\n").unwrap();
        let mut etcd = Etcd {
            endpoints: vec!["https://a:2379".into(), "https://b:2379".into()],
            ca_file: Some("/ca".into()),
            username: Some("me".into()),
            password_file: Some(password),
            ..Etcd::default()
        };
        let all = environment(&etcd, |_| false).unwrap();
        let value = |name: &str| all.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
        assert_eq!(value("DATASTORE_TYPE"), Some("etcdv3".into()));
        assert_eq!(value("ETCD_ENDPOINTS"), Some("https://a:2379,https://b:2379".into()));
        assert_eq!(value("ETCD_CA_CERT_FILE"), Some("/ca".into()));
        assert_eq!(value("ETCD_PASSWORD"), Some("secret word".into()));
        assert_eq!(value("ETCD_CERT_FILE"), None);
        etcd.password_file = Some("/nowhere".into());
        assert!(environment(&etcd, |_| false).unwrap_err().to_string().contains("/nowhere"));
        let names = |set: &[&str]| -> Vec<&str> {
            let all = environment(&etcd, |name| set.contains(&name)).unwrap();
            all.into_iter().map(|(name, _)| name).collect()
        };
        let all_but_these = ["ETCD_ENDPOINTS", "ETCD_USERNAME"];
        assert_eq!(names(&["ETCD_PASSWORD", "DATASTORE_TYPE", "CALICO_ETCD_CA_CERT_FILE"]), all_but_these);
        assert_eq!(names(&["CALICO_ETCD_ENDPOINTS"]), ["DATASTORE_TYPE"]);
    }
}
