//! The configuration of a person's shell: which datastore a command speaks to, and where each value comes from.
//!
//! Executors read config.toml alone. A command of an operator may also run on a workstation or beside calicoctl, so
//! that the datastore is taken from the first of these that names one:
//!
//! | source | names a datastore by |
//! | --- | --- |
//! | the file of `--config`, or config.toml at its usual place | any key of `[etcd]` |
//! | the environment, also with `CALICO_` in front of each name | `ETCD_ENDPOINTS` |
//! | calicoctl's own configuration | `spec.etcdEndpoints` |
//! | the environment of the first calicoctl | `ETCD_AUTHORITY` |
//! | none of them | the default: etcd on this host |

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::read::places;
use super::{Config, ConfigError, Etcd, DEFAULT_PATH};

/// Where calicoctl looks for its configuration.
pub const CALICOCTL_CFG: &str = "/etc/calico/calicoctl.cfg";

/// Where the choice of the datastore comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The section of a configuration file.
    File(PathBuf),
    /// A variable of the environment.
    Variable(String),
    Calicoctl(PathBuf),
    Default,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "[etcd] of {}", path.display()),
            Self::Variable(name) => write!(f, "{name} of the environment"),
            Self::Calicoctl(path) => path.display().fmt(f),
            Self::Default => f.write_str("the default"),
        }
    }
}

/// One value of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Such as `etcd.endpoints`.
    pub key: String,
    /// As it would stand in JSON; null where nothing is set.
    pub value: Value,
    pub origin: String,
}

/// Looks up a variable of the environment; empty counts as not set.
type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// calicoctl.cfg, as far as it chooses a datastore.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    datastore_type: String,
    etcd_endpoints: String,
    etcd_username: Option<String>,
    etcd_password: Option<String>,
    #[serde(rename = "etcdCACertFile")]
    ca_file: Option<PathBuf>,
    #[serde(rename = "etcdCertFile")]
    cert_file: Option<PathBuf>,
    #[serde(rename = "etcdKeyFile")]
    key_file: Option<PathBuf>,
    #[serde(rename = "etcdCACert")]
    ca: Option<String>,
    #[serde(rename = "etcdCert")]
    cert: Option<String>,
    #[serde(rename = "etcdKey")]
    key: Option<String>,
}

impl Config {
    /// The configuration of a command in this process's environment.
    pub fn of_shell(file: Option<&Path>) -> Result<(Self, Origin), ConfigError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::for_operator(file, Path::new(CALICOCTL_CFG), &variable)
    }

    /// The configuration of a command, and where its datastore comes from. `file` is that of `--config`.
    fn for_operator(
        file: Option<&Path>,
        calicoctl: &Path,
        environment: Environment<'_>,
    ) -> Result<(Self, Origin), ConfigError> {
        let path = file.unwrap_or(Path::new(DEFAULT_PATH));
        let text = Self::text(path)?;
        let mut config = match &text {
            Some(text) => Self::from_text(path, text)?,
            None => Self::default(),
        };
        if text.is_some_and(|text| places(&text).keys().any(|key| key.starts_with("etcd."))) {
            return Ok((config, Origin::File(path.into())));
        }
        let (spec, origin) = match from_environment(environment) {
            Some(found) => found,
            None => match from_calicoctl(calicoctl)? {
                Some(spec) => (spec, Origin::Calicoctl(calicoctl.into())),
                None => match from_authority(environment) {
                    Some(found) => found,
                    None => return Ok((config, Origin::Default)),
                },
            },
        };
        config.etcd = spec.etcd(&origin)?;
        // The same rules as for the file: a wrong address is refused before it is used.
        let problems = config.problems();
        match problems.is_empty() {
            true => Ok((config, origin)),
            false => {
                let texts: Vec<String> = problems.into_iter().map(|(_, text)| text).collect();
                Err(ConfigError::Operator(format!("{origin}: {}", texts.join("; "))))
            }
        }
    }

    /// All values in the order of the documentation, each with its origin.
    pub fn settings(&self, file: Option<&Path>, datastore: &Origin) -> Vec<Setting> {
        let path = file.unwrap_or(Path::new(DEFAULT_PATH));
        let lines = Self::text(path).ok().flatten().map(|text| places(&text)).unwrap_or_default();
        let all = serde_json::to_value(self).unwrap_or_default();
        let sections = all.as_object().into_iter().flatten();
        let of_section = |(section, keys): (&String, &Value)| {
            let keys = keys.as_object().cloned().unwrap_or_default();
            keys.into_iter()
                .map(|(key, value)| (section.clone(), format!("{section}.{key}"), value))
                .collect()
        };
        let values: Vec<(String, String, Value)> =
            sections.flat_map(|section| -> Vec<_> { of_section(section) }).collect();
        let origin = |section: &str, key: &str, value: &Value| match lines.get(key) {
            Some(line) => format!("{}:{line}", path.display()),
            None if section == "etcd" && !matches!(datastore, Origin::File(_) | Origin::Default) => {
                match value {
                    Value::Null => "default".to_owned(),
                    _ => datastore.to_string(),
                }
            }
            None => "default".to_owned(),
        };
        let setting = |(section, key, value): (String, String, Value)| {
            let origin = origin(&section, &key, &value);
            Setting { key, value, origin }
        };
        values.into_iter().map(setting).collect()
    }
}

/// Both spellings, `ETCD_ENDPOINTS` and `CALICO_ETCD_ENDPOINTS`.
fn variable(environment: Environment<'_>, name: &str) -> Option<(String, String)> {
    let long = format!("CALICO_{name}");
    [name, long.as_str()].iter().find_map(|name| Some(((*name).to_owned(), environment(name)?)))
}

fn from_environment(environment: Environment<'_>) -> Option<(Spec, Origin)> {
    let value = |name: &str| variable(environment, name).map(|(_, value)| value);
    let endpoints = variable(environment, "ETCD_ENDPOINTS");
    let kind = variable(environment, "DATASTORE_TYPE");
    // A type alone names no datastore, unless it is one that we cannot speak to.
    let chosen = match (&endpoints, &kind) {
        (Some((name, _)), _) => name.clone(),
        (None, Some((name, kind))) if kind != "etcdv3" => name.clone(),
        (None, _) => return None,
    };
    let spec = Spec {
        datastore_type: kind.map(|(_, kind)| kind).unwrap_or_default(),
        etcd_endpoints: endpoints.map(|(_, endpoints)| endpoints).unwrap_or_default(),
        etcd_username: value("ETCD_USERNAME"),
        etcd_password: value("ETCD_PASSWORD"),
        ca_file: value("ETCD_CA_CERT_FILE").map(PathBuf::from),
        cert_file: value("ETCD_CERT_FILE").map(PathBuf::from),
        key_file: value("ETCD_KEY_FILE").map(PathBuf::from),
        ca: value("ETCD_CA_CERT"),
        cert: value("ETCD_CERT"),
        key: value("ETCD_KEY"),
    };
    Some((spec, Origin::Variable(chosen)))
}

fn from_authority(environment: Environment<'_>) -> Option<(Spec, Origin)> {
    let authority = environment("ETCD_AUTHORITY")?;
    let scheme = environment("ETCD_SCHEME").unwrap_or_else(|| "http".to_owned());
    let spec = Spec { etcd_endpoints: format!("{scheme}://{authority}"), ..Spec::default() };
    Some((spec, Origin::Variable("ETCD_AUTHORITY".to_owned())))
}

fn from_calicoctl(path: &Path) -> Result<Option<Spec>, ConfigError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ConfigError::Read { path: path.into(), source }),
    };
    // The library's message may quote the text, where a password can stand.
    let document: Document = serde_saphyr::from_str(&text).map_err(|_| {
        ConfigError::Operator(format!(
            "{} is not a configuration of calicoctl: it has to be YAML with a section spec",
            path.display()
        ))
    })?;
    let chooses = !document.spec.etcd_endpoints.is_empty() || !document.spec.datastore_type.is_empty();
    Ok(chooses.then_some(document.spec))
}

impl Spec {
    fn etcd(self, origin: &Origin) -> Result<Etcd, ConfigError> {
        let refused = |why: &str| Err(ConfigError::Operator(format!("{origin}: {why}")));
        if !matches!(self.datastore_type.as_str(), "" | "etcdv3") {
            return refused(&format!(
                "the datastore is '{}'; calico-mesos works with etcdv3 alone, so that tasks of Mesos need an etcd (ETCD_ENDPOINTS, or [etcd] of config.toml)",
                self.datastore_type
            ));
        }
        if self.ca.is_some() || self.cert.is_some() || self.key.is_some() {
            return refused("it holds a certificate or key itself; write each into a file and name the file");
        }
        let endpoints: Vec<String> = self
            .etcd_endpoints
            .split(',')
            .map(str::trim)
            .filter(|url| !url.is_empty())
            .map(str::to_owned)
            .collect();
        if endpoints.is_empty() {
            return refused("it names no endpoints of etcd");
        }
        Ok(Etcd {
            endpoints,
            ca_file: self.ca_file,
            cert_file: self.cert_file,
            key_file: self.key_file,
            username: self.etcd_username,
            password_file: None,
            password: self.etcd_password,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Shell {
        folder: tempfile::TempDir,
        variables: Vec<(&'static str, &'static str)>,
    }

    impl Shell {
        fn new(variables: &[(&'static str, &'static str)]) -> Self {
            Self { folder: tempfile::tempdir().unwrap(), variables: variables.to_vec() }
        }

        fn file(&self, name: &str, text: &str) -> PathBuf {
            let path = self.folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        }

        fn load(&self, config: &str, cfg: Option<&str>) -> Result<(Config, Origin), String> {
            let config = self.file("config.toml", config);
            let cfg = match cfg {
                Some(text) => self.file("calicoctl.cfg", text),
                None => self.folder.path().join("none"),
            };
            let find = |name: &str| {
                self.variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            };
            let loaded = Config::for_operator(Some(&config), &cfg, &find);
            loaded.map_err(|error| crate::error::chain(&error))
        }
    }

    const CFG: &str = "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n  datastoreType: etcdv3\n  etcdEndpoints: https://e1:2379,https://e2:2379\n  etcdUsername: joe\n  etcdPassword: \"hunter2\"\n";

    #[test]
    fn the_first_source_that_names_a_datastore_counts() {
        let shell = Shell::new(&[("CALICO_ETCD_ENDPOINTS", "http://v:1"), ("ETCD_AUTHORITY", "a:2")]);
        let (config, origin) = shell.load("[etcd]\nendpoints = [\"http://f:3\"]", Some(CFG)).unwrap();
        assert_eq!(config.etcd.endpoints, ["http://f:3"]);
        assert!(matches!(origin, Origin::File(_)), "{origin}");
        let (config, origin) = shell.load("", Some(CFG)).unwrap();
        assert_eq!(config.etcd.endpoints, ["http://v:1"]);
        assert_eq!(origin.to_string(), "CALICO_ETCD_ENDPOINTS of the environment");

        let shell = Shell::new(&[("ETCD_AUTHORITY", "a:2")]);
        let (config, origin) = shell.load("", Some(CFG)).unwrap();
        assert_eq!(config.etcd.endpoints, ["https://e1:2379", "https://e2:2379"]);
        assert_eq!(
            (config.etcd.username.as_deref(), config.etcd.password.as_deref()),
            (Some("joe"), Some("hunter2"))
        );
        assert!(matches!(origin, Origin::Calicoctl(_)), "{origin}");
        let (config, _) = shell.load("", None).unwrap();
        assert_eq!(config.etcd.endpoints, ["http://a:2"]);
        let (config, origin) = Shell::new(&[]).load("", None).unwrap();
        assert_eq!((config.etcd.endpoints, origin), (Etcd::default().endpoints, Origin::Default));
    }

    #[test]
    fn what_we_cannot_use_is_refused() {
        for (variables, cfg, words) in [
            (&[("DATASTORE_TYPE", "kubernetes")][..], None, "works with etcdv3 alone"),
            (&[("DATASTORE_TYPE", "kubernetes"), ("ETCD_ENDPOINTS", "http://v:1")], None, "'kubernetes'"),
            (&[("ETCD_ENDPOINTS", "v:1")], None, "must begin with http://"),
            (&[("ETCD_ENDPOINTS", "http://v:1"), ("ETCD_CA_CERT", "x")], None, "name the file"),
            (&[("ETCD_ENDPOINTS", "https://v:1"), ("ETCD_CERT_FILE", "/x")], None, "etcd.key_file"),
            (&[], Some("spec:\n  datastoreType: kubernetes\n"), "works with etcdv3 alone"),
            (&[], Some("spec: [hunter2"), "is not a configuration of calicoctl"),
            (&[], Some("spec:\n  datastoreType: etcdv3\n"), "names no endpoints"),
        ] {
            let error = Shell::new(variables).load("", cfg).unwrap_err();
            assert!(error.contains(words) && !error.contains("hunter2"), "{error}");
        }
        // Chosen elsewhere: what the shell says of Kubernetes does not matter.
        let shell = Shell::new(&[("DATASTORE_TYPE", "kubernetes")]);
        assert!(shell.load("[etcd]\nendpoints = [\"http://f:3\"]\n", None).is_ok());
        assert!(shell.load("[etcd]\n", None).is_err());
    }

    #[test]
    fn every_value_has_an_origin() {
        let shell = Shell::new(&[("ETCD_ENDPOINTS", "http://v:1")]);
        let path = shell.file("config.toml", "[policy]\nwait = \"off\"\n\n[launch]\nretry_for = \"2m\"\n");
        let find = |name: &str| (name == "ETCD_ENDPOINTS").then(|| "http://v:1".to_owned());
        let (config, origin) = Config::for_operator(Some(&path), Path::new("/none"), &find).unwrap();
        let settings = config.settings(Some(&path), &origin);
        let find = |key: &str| settings.iter().find(|setting| setting.key == key).unwrap();
        let at = |line| format!("{}:{line}", path.display());
        assert_eq!((&find("policy.wait").value, &find("policy.wait").origin), (&"off".into(), &at(2)));
        assert_eq!(
            (&find("launch.retry_for").value, &find("launch.retry_for").origin),
            (&"2m".into(), &at(5))
        );
        assert_eq!(find("etcd.endpoints").origin, "ETCD_ENDPOINTS of the environment");
        assert_eq!(
            (&find("etcd.ca_file").value, find("etcd.ca_file").origin.as_str()),
            (&Value::Null, "default")
        );
        assert_eq!(find("gc.grace").value, "5m");
    }
}
