//! The datastore for Calico's own calicoctl, in the two forms that it reads: variables of the environment, and a file.
//!
//! Where `/etc/calico/calicoctl.cfg` exists, calicoctl reads that file and ignores the environment (libcalico-go,
//! `apiconfig.LoadClientConfig`). So that it speaks to the datastore of our own verbs all the same, it is then given a
//! file that lives in memory alone: a password is in neither a file on disk nor a command line.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;

use nix::sys::memfd::{memfd_create, MFdFlags};
use serde_json::{json, Map, Value};

use crate::config::Etcd;

use super::real::RealError;

/// The variables that calicoctl reads, and their names in its file. Each variable may carry the prefix `CALICO_`.
const FIELDS: [(&str, &str); 7] = [
    ("DATASTORE_TYPE", "datastoreType"),
    ("ETCD_ENDPOINTS", "etcdEndpoints"),
    ("ETCD_CA_CERT_FILE", "etcdCACertFile"),
    ("ETCD_CERT_FILE", "etcdCertFile"),
    ("ETCD_KEY_FILE", "etcdKeyFile"),
    ("ETCD_USERNAME", "etcdUsername"),
    ("ETCD_PASSWORD", "etcdPassword"),
];

type Variables = Vec<(&'static str, OsString)>;

/// The datastore of our configuration as calicoctl reads it, but for what is set already. An environment that names
/// endpoints has a datastore of its own: our password is not for it.
pub(super) fn environment(etcd: &Etcd, is_set: impl Fn(&str) -> bool) -> Result<Variables, RealError> {
    let unset = |name: &&str| !is_set(name) && !is_set(&format!("CALICO_{name}"));
    let mut variables: Vec<(&str, Option<OsString>)> = vec![("DATASTORE_TYPE", Some("etcdv3".into()))];
    if unset(&"ETCD_ENDPOINTS") {
        let file = |file: &Option<std::path::PathBuf>| file.as_ref().map(OsString::from);
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

/// Whether the command reads calicoctl's file, and names none itself.
pub(super) fn reads_file(words: &[OsString]) -> bool {
    let text: Vec<&str> = words.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    let named = text.iter().any(|word| word.starts_with("-c") || word.starts_with("--conf"));
    let verb: Vec<&str> = text.into_iter().filter(|word| !word.starts_with('-')).collect();
    !named
        && !matches!(verb.as_slice(), [] | ["convert", ..] | ["node", "diags" | "checksystem" | "status", ..])
}

/// The content of calicoctl's file; none where the environment chooses another kind of datastore.
fn document(variables: &Variables, set: impl Fn(&str) -> Option<OsString>) -> Option<Value> {
    let value = |name: &str| {
        let ours = || variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
        let value = set(&format!("CALICO_{name}")).or_else(|| set(name)).or_else(ours)?;
        value.into_string().ok()
    };
    let fields = FIELDS.iter().filter_map(|(name, field)| Some(((*field).to_owned(), value(name)?.into())));
    let spec: Map<String, Value> = fields.collect();
    (spec.get("datastoreType")? == "etcdv3").then(|| {
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "CalicoAPIConfig", "metadata": {}, "spec": spec,
        })
    })
}

/// A file for calicoctl with the datastore that these variables and the environment name, and the option that names the
/// file. It lives as long as a process has it open, and outlives an exec.
pub(super) fn file(variables: &Variables) -> io::Result<Option<(File, OsString)>> {
    let set = |name: &str| std::env::var_os(name).filter(|value| value != OsStr::new(""));
    let Some(document) = document(variables, set) else { return Ok(None) };
    let mut file = File::from(memfd_create(c"calicoctl.cfg", MFdFlags::empty())?);
    file.write_all(document.to_string().as_bytes())?;
    let option = format!("--config=/proc/self/fd/{}", file.as_raw_fd());
    Ok(Some((file, option.into())))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

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

    #[test]
    fn the_file_has_what_the_environment_would_have() {
        let ours = vec![("DATASTORE_TYPE", "etcdv3".into()), ("ETCD_ENDPOINTS", "http://a:1".into())];
        let spec = |set: &[(&str, &str)]| {
            let set =
                |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
            document(&ours, set).map(|document| document["spec"].clone())
        };
        assert_eq!(spec(&[]), Some(json!({"datastoreType": "etcdv3", "etcdEndpoints": "http://a:1"})));
        let other = spec(&[("ETCD_ENDPOINTS", "http://b:1"), ("CALICO_ETCD_USERNAME", "me")]).unwrap();
        let wanted = json!({"datastoreType": "etcdv3", "etcdEndpoints": "http://b:1", "etcdUsername": "me"});
        assert_eq!(other, wanted);
        assert_eq!(spec(&[("DATASTORE_TYPE", "kubernetes")]), None);
    }

    #[test]
    fn commands_without_a_datastore_get_no_file() {
        let reads = |line: &str| reads_file(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>());
        for line in ["get nodes", "--log-level=debug apply -f x", "ipam split 4", "node run", "version"] {
            assert!(reads(line), "{line}");
        }
        for line in ["convert -f x", "node status", "get nodes -c /x", "get nodes --config=/x", "node diags"]
        {
            assert!(!reads(line), "{line}");
        }
    }
}
