//! From the file's text to a [`Config`], or to one sentence that lists all mistakes.
//!
//! No error quotes a line or a value of a place where a secret might stand: it reaches the framework.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use toml::de::{DeTable, DeValue};
use toml::Spanned;

use super::{Config, Docker, Logs, Proxy, DEFAULT_PATH};
use crate::error::redacted;
use crate::host::trust::{self, TrustError};
use crate::names;

/// How similar a known name has to be, between 0 and 1, to be suggested for an unknown one.
const SIMILAR: f64 = 0.8;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// In our own words: the library's text quotes the line, and a secret may stand there by mistake.
    #[error("{path} is not a valid configuration: {}", listed(.problems))]
    Parse { path: PathBuf, problems: Vec<Problem> },
    #[error("{path}: {}", listed(.problems))]
    Invalid { path: PathBuf, problems: Vec<Problem> },
    #[error("{0}")]
    Operator(String),
    #[error(transparent)]
    Unsafe(#[from] TrustError),
}

/// One mistake in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// From 1 on; none where nothing stands in the file that is wrong.
    pub line: Option<usize>,
    pub text: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl ConfigError {
    /// All mistakes; none where the file could not be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Parse { problems, .. } | Self::Invalid { problems, .. } => problems,
            _ => &[],
        }
    }

    /// A text of TOML that is not what it has to be, for other files than ours.
    pub fn parse(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let line = error.span().map(|span| line_of(text, span.start));
        Self::Parse { path: path.into(), problems: vec![Problem { line, text: without_values(error) }] }
    }
}

impl Config {
    /// Reads the file; a missing file at the default place means the defaults, any other fault is an error.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        match Self::text(path)? {
            Some(text) => Self::from_text(path, &text),
            None => Ok(Self::default()),
        }
    }

    /// The file's text, if it may decide over this host; none where it is missing at the default place.
    pub(super) fn text(path: &Path) -> Result<Option<String>, ConfigError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && path == Path::new(DEFAULT_PATH) => {
                return Ok(None)
            }
            Err(source) => return Err(ConfigError::Read { path: path.into(), source }),
        };
        trust::file(path)?;
        Ok(Some(text))
    }

    pub(super) fn from_text(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = match toml::from_str(text) {
            Ok(config) => config,
            Err(error) => {
                // The library stops at the first mistake.
                let problems = mistakes(text);
                if problems.is_empty() {
                    return Err(ConfigError::parse(path, text, &error));
                }
                return Err(ConfigError::Parse { path: path.into(), problems });
            }
        };
        let problems = config.problems();
        if problems.is_empty() {
            return Ok(config);
        }
        // Only now: each launch reads the file, and nearly always it is in order.
        let lines = places(text);
        let placed = |(key, text): (Option<&str>, String)| {
            let line = key.and_then(|key| lines.get(key).copied());
            Problem { line, text }
        };
        let problems = problems.into_iter().map(placed).collect();
        Err(ConfigError::Invalid { path: path.into(), problems })
    }

    /// All mistakes in the values, with the key of each, so that the operator can correct them at once.
    pub(super) fn problems(&self) -> Vec<(Option<&'static str>, String)> {
        let mut problems = Vec::new();
        if self.etcd.endpoints.is_empty() {
            problems.push((Some("etcd.endpoints"), "etcd.endpoints is empty".to_owned()));
        }
        let urls = self.etcd.endpoints.iter().map(|endpoint| ("etcd.endpoints", endpoint));
        for (name, url) in urls.chain([("consul.address", &self.consul.address)]) {
            let shown = redacted(url);
            if !url.starts_with("http://") && !url.starts_with("https://") {
                problems.push((Some(name), format!("{name}: '{shown}' must begin with http:// or https://")));
            } else if shown != *url {
                let text = format!("{name}: '{shown}' contains a user or password, which belong in files");
                problems.push((Some(name), text));
            }
        }
        for (name, cert, key) in [
            ("etcd", &self.etcd.cert_file, &self.etcd.key_file),
            ("consul", &self.consul.cert_file, &self.consul.key_file),
            ("docker", &self.docker.cert_file, &self.docker.key_file),
        ] {
            if cert.is_some() != key.is_some() {
                problems.push((None, format!("set both {name}.cert_file and {name}.key_file, or neither")));
            }
        }
        let has_password = self.etcd.password_file.is_some() || self.etcd.password.is_some();
        if self.etcd.username.is_some() != has_password {
            let text = "set both etcd.username and etcd.password_file, or neither".to_owned();
            problems.push((None, text));
        }
        // An executor stands in its task's sandbox. The path itself is not reported: it may be the secret.
        for (name, path) in self.named_paths() {
            if !path.is_absolute() {
                problems.push((Some(name), format!("{name} must be an absolute path")));
            }
        }
        let runtime = &self.runtime.path;
        if !runtime.is_absolute() && runtime.components().count() != 1 {
            let text = "runtime.path must be an absolute path, or a name without a slash".to_owned();
            problems.push((Some("runtime.path"), text));
        }
        if let Some(mtu) = self.node.mtu.filter(|mtu| !(576..=65535).contains(mtu)) {
            problems.push((Some("node.mtu"), format!("node.mtu: {mtu} is not between 576 and 65535")));
        }
        problems.extend(self.log.problems());
        problems
    }

    fn named_paths(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let Self { etcd, consul, docker, calicoctl, metrics, paths, .. } = self;
        let optional = [
            ("etcd.ca_file", &etcd.ca_file),
            ("etcd.cert_file", &etcd.cert_file),
            ("etcd.key_file", &etcd.key_file),
            ("etcd.password_file", &etcd.password_file),
            ("consul.ca_file", &consul.ca_file),
            ("consul.cert_file", &consul.cert_file),
            ("consul.key_file", &consul.key_file),
            ("consul.token_file", &consul.token_file),
            ("docker.ca_file", &docker.ca_file),
            ("docker.cert_file", &docker.cert_file),
            ("docker.key_file", &docker.key_file),
            ("docker.config_file", &docker.config_file),
            ("calicoctl.path", &calicoctl.path),
            ("metrics.textfile", &metrics.textfile),
            #[cfg(debug_assertions)]
            ("paths.steps", &paths.steps),
        ];
        let always = [
            ("paths.run", &paths.run),
            ("paths.state", &paths.state),
            ("paths.log", &paths.log),
            ("paths.ipam_lock", &paths.ipam_lock),
            ("paths.mtu_file", &paths.mtu_file),
            ("paths.nodename_file", &paths.nodename_file),
            ("paths.endpoint_status", &paths.endpoint_status),
        ];
        let optional = optional.into_iter().filter_map(|(name, path)| Some((name, path.as_deref()?)));
        optional.chain(always.map(|(name, path)| (name, path.as_path())))
    }

    /// The section `[docker]` out of a file that may otherwise be broken: tasks without Calico need no more.
    /// One that others can write counts as none.
    pub fn docker_only(path: &Path) -> Docker {
        let read = || {
            let table = section(path, "docker")?;
            let text = |key: &str| Some(table.get(key)?.as_str()?.to_owned());
            let file = |key: &str| text(key).map(PathBuf::from).filter(|path| path.is_absolute());
            Some(Docker {
                host: text("host"),
                config_file: file("config_file"),
                ca_file: file("ca_file"),
                cert_file: file("cert_file"),
                key_file: file("key_file"),
            })
        };
        read().unwrap_or_default()
    }

    /// Where the Docker API proxy is; the defaults where the file or the section cannot be read.
    pub fn proxy_only(path: &Path) -> Proxy {
        section(path, "proxy").and_then(|table| table.try_into().ok()).unwrap_or_default()
    }

    /// The section `[log]` in the same way: it counts before anything is known of a task.
    pub fn log_only(path: &Path) -> Logs {
        section(path, "log").and_then(|table| table.try_into().ok()).unwrap_or_default()
    }
}

/// The line that a byte of the text is in.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The library's message without a value that it quotes: `invalid type: string "…", expected …`.
fn without_values(error: &toml::de::Error) -> String {
    match (error.message().split_once(" \""), error.message().rsplit_once("\", ")) {
        (Some((kind, _)), Some((_, expected))) => format!("{kind}, {expected}"),
        _ => error.message().to_owned(),
    }
}

/// The line of each section and of each key, as `etcd` and `etcd.endpoints`. Nothing of a text that is no TOML.
pub(super) fn places(text: &str) -> BTreeMap<String, usize> {
    let mut places = BTreeMap::new();
    let Ok(document) = DeTable::parse(text) else { return places };
    for (section, value) in document.get_ref() {
        let name = section.get_ref();
        places.insert(name.to_string(), line_of(text, section.span().start));
        if let DeValue::Table(table) = value.get_ref() {
            for key in table.keys() {
                places.insert(format!("{name}.{}", key.get_ref()), line_of(text, key.span().start));
            }
        }
    }
    places
}

/// Everything that keeps the text from being a configuration, each key looked at alone.
fn mistakes(text: &str) -> Vec<Problem> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let problem = |error: &toml::de::Error| Problem {
            line: error.span().map(|span| line_of(text, span.start)),
            text: without_values(error),
        };
        return errors.iter().map(problem).collect();
    }
    let known = serde_json::to_value(Config::default()).unwrap_or_default();
    let mut problems = Vec::new();
    for (section, value) in document.get_ref() {
        let line = Some(line_of(text, section.span().start));
        let name = section.get_ref().as_ref();
        let Some(keys) = known.get(name).and_then(Value::as_object) else {
            problems.push(Problem { line, text: unknown(name, "section", known.as_object()) });
            continue;
        };
        let DeValue::Table(table) = value.get_ref() else {
            problems.push(Problem { line, text: format!("{name} has to be a section: [{name}]") });
            continue;
        };
        for (key, value) in table {
            let line = Some(line_of(text, key.span().start));
            if !keys.contains_key(key.get_ref().as_ref()) {
                problems.push(Problem {
                    line,
                    text: unknown(key.get_ref(), &format!("key of [{name}]"), Some(keys)),
                });
                continue;
            }
            // The section with this key alone: the others of the file cannot hide its mistake, nor it theirs.
            let alone = DeTable::from_iter([(key.clone(), value.clone())]);
            let alone = Spanned::new(section.span(), DeValue::Table(alone));
            let document = Spanned::new(0..text.len(), DeTable::from_iter([(section.clone(), alone)]));
            if let Err(error) = Config::deserialize(toml::Deserializer::from(document)) {
                problems.push(Problem { line, text: without_values(&error) });
            }
        }
    }
    problems.sort_by_key(|problem| problem.line);
    problems
}

/// A name that does not exist, and the one that may be meant.
fn unknown(name: &str, what: &str, known: Option<&serde_json::Map<String, Value>>) -> String {
    let names = known.into_iter().flat_map(|known| known.keys()).map(String::as_str);
    let nearest = names::nearest(name, names, SIMILAR);
    match nearest {
        Some(nearest) => format!("'{name}' is not a {what}; did you mean '{nearest}'?"),
        None => format!("'{name}' is not a {what}"),
    }
}

fn section(path: &Path, name: &str) -> Option<toml::Value> {
    let text = std::fs::read_to_string(path).ok()?;
    if let Err(error) = trust::file(path) {
        tracing::warn!("the configuration {} is ignored: {}", path.display(), crate::error::chain(&error));
        return None;
    }
    text.parse::<toml::Table>().ok()?.remove(name)
}
