//! From the file's text to a [`Config`], or to one sentence that lists all mistakes.
//!
//! No error quotes a line or a value of a place where a secret might stand: it reaches the framework.

use std::path::{Path, PathBuf};

use super::{Config, Docker, Log, DEFAULT_PATH};
use crate::error::redacted;
use crate::host::trust::{self, TrustError};

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// In our own words: the library's text quotes the line, and a secret may stand there by mistake.
    #[error("{path} is not a valid configuration: line {line}: {problem}")]
    Parse { path: PathBuf, line: usize, problem: String },
    #[error("{path}: {problems}")]
    Invalid { path: PathBuf, problems: String },
    #[error(transparent)]
    Unsafe(#[from] TrustError),
}

impl ConfigError {
    /// The library's message about the text, without a quotation of it.
    pub fn parse(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        // `invalid type: string "…", expected …`: the value is left out.
        let problem = match (error.message().split_once(" \""), error.message().rsplit_once("\", ")) {
            (Some((kind, _)), Some((_, expected))) => format!("{kind}, {expected}"),
            _ => error.message().to_owned(),
        };
        Self::Parse { path: path.into(), line, problem }
    }
}

impl Config {
    /// Reads the file; a missing file at the default place means the defaults, any other fault is an error.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && path == Path::new(DEFAULT_PATH) => {
                return Ok(Self::default())
            }
            Err(source) => return Err(ConfigError::Read { path: path.into(), source }),
        };
        trust::file(path)?;
        let config: Self = toml::from_str(&text).map_err(|error| ConfigError::parse(path, &text, &error))?;
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(ConfigError::Invalid { path: path.into(), problems: problems.join("; ") });
        }
        Ok(config)
    }

    /// All mistakes in the values, so that the operator can correct them at once.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.etcd.endpoints.is_empty() {
            problems.push("etcd.endpoints is empty".to_owned());
        }
        let urls = self.etcd.endpoints.iter().map(|endpoint| ("etcd.endpoints", endpoint));
        for (name, url) in urls.chain([("consul.address", &self.consul.address)]) {
            let shown = redacted(url);
            if !url.starts_with("http://") && !url.starts_with("https://") {
                problems.push(format!("{name}: '{shown}' must begin with http:// or https://"));
            } else if shown != *url {
                problems
                    .push(format!("{name}: '{shown}' contains a user or password, which belong in files"));
            }
        }
        for (name, cert, key) in [
            ("etcd", &self.etcd.cert_file, &self.etcd.key_file),
            ("consul", &self.consul.cert_file, &self.consul.key_file),
            ("docker", &self.docker.cert_file, &self.docker.key_file),
        ] {
            if cert.is_some() != key.is_some() {
                problems.push(format!("set both {name}.cert_file and {name}.key_file, or neither"));
            }
        }
        if self.etcd.username.is_some() != self.etcd.password_file.is_some() {
            problems.push("set both etcd.username and etcd.password_file, or neither".to_owned());
        }
        // An executor stands in its task's sandbox. The path itself is not reported: it may be the secret.
        for (name, path) in self.named_paths() {
            if !path.is_absolute() {
                problems.push(format!("{name} must be an absolute path"));
            }
        }
        let runtime = &self.runtime.path;
        if !runtime.is_absolute() && runtime.components().count() != 1 {
            problems.push("runtime.path must be an absolute path, or a name without a slash".to_owned());
        }
        if let Some(mtu) = self.node.mtu.filter(|mtu| !(576..=65535).contains(mtu)) {
            problems.push(format!("node.mtu: {mtu} is not between 576 and 65535"));
        }
        problems
    }

    fn named_paths(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let Self { etcd, consul, docker, metrics, paths, .. } = self;
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

    /// The section `[log]` in the same way: it counts before anything is known of a task.
    pub fn log_only(path: &Path) -> Log {
        section(path, "log").and_then(|table| table.try_into().ok()).unwrap_or_default()
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
