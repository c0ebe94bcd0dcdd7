//! What can go wrong with Docker, and whose fault it is.
//!
//! Docker reports its reasons in prose only. `of_create` and `of_start` sort that prose into the
//! kinds that a reader can act on; everything else keeps the daemon's words.

use std::error::Error;
use std::time::Duration;

use crate::error::{chain, Blame, Code, Failure};
use crate::names::RUNTIME;
use crate::tls::{self, TlsFault};

/// One failed step. `words` are the daemon's own.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// Not reached, or no TLS with it.
    #[error("{}", away(address, &**source))]
    Away {
        address: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("Docker at {address} did not {doing} within {} s", limit.as_secs())]
    Slow { address: String, doing: String, limit: Duration },
    #[error("image {image} is not there and cannot be pulled: {words}")]
    Image { image: String, words: String, blame: Blame },
    /// 126 (cannot be executed) or 127 (not found), the codes that a shell would give.
    #[error("cannot start the command: {words}")]
    Command { code: i64, words: String },
    #[error("Docker does not have the runtime '{runtime}'")]
    Runtime { runtime: String },
    /// An older daemon would leave it out without a word.
    #[error("{what} needs a newer Docker (API {}.{}); the one on this agent speaks {}.{}", needs.0, needs.1, speaks.0, speaks.1)]
    TooOld { what: &'static str, needs: (u32, u32), speaks: (u32, u32) },
    #[error("cannot use the seccomp profile {path}")]
    Profile {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("a container named {name} exists already")]
    NameTaken { name: String },
    /// calico-runc refused to let the workload begin; the reason is its own sentence.
    #[error("{reason}")]
    Refused { reason: String },
    #[error("there is no container {container}")]
    NoContainer { container: String },
    /// The container that the app describes: no command, an unknown network, a mount that cannot be.
    #[error("Docker could not {doing}: {words}")]
    Rejected { doing: String, words: String },
    #[error("Docker could not {doing}: {words}")]
    Daemon { doing: String, status: Option<u16>, words: String },
    /// The process is gone, but Docker never reported its exit code (moby issue 33820).
    #[error("Failed to get exit status of container")]
    ExitUnknown,
}

impl DockerError {
    /// The failure as the framework gets to see it.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Away { .. } | Self::Slow { .. } => {
                Failure::new(Code::Docker, format!("{}; {}", chain(self), self.advice()))
            }
            Self::Image { blame: Blame::App, .. } => Failure::new(Code::Image, self.to_string()),
            Self::Image { blame: Blame::Host, .. } => Failure::new(Code::ImagePull, self.to_string()),
            Self::Command { .. } => Failure::new(Code::Command, self.to_string()),
            Self::TooOld { .. } | Self::Profile { .. } => Failure::new(Code::Parameter, chain(self)),
            Self::Runtime { runtime } if runtime == RUNTIME => Failure::new(
                Code::Runtime,
                format!("Docker on this agent does not have the runtime '{runtime}'; run `calico-mesos node install-runtime` there"),
            ),
            Self::Runtime { .. } => Failure::new(
                Code::DockerRefused,
                format!("{self}; correct the parameter runtime, or register that runtime in the agent's daemon.json"),
            ),
            Self::NameTaken { name } => Failure::new(
                Code::Name,
                format!("a container named {name} exists already on this agent; remove it with `docker rm -f {name}`"),
            ),
            Self::Refused { reason } => Failure::new(Code::Gate, reason.clone()),
            Self::ExitUnknown => Failure::new(Code::Docker, self.to_string()),
            Self::NoContainer { .. } => Failure::new(Code::Docker, self.to_string()),
            Self::Rejected { .. } => Failure::new(Code::DockerRefused, self.to_string()),
            Self::Daemon { .. } => Failure::new(Code::Docker, self.to_string()),
        }
    }

    fn advice(&self) -> &'static str {
        let fault = match self {
            Self::Away { source, .. } => tls::fault(&**source),
            _ => None,
        };
        match fault {
            None => "check that dockerd runs on this agent and listens there",
            Some(TlsFault::Peer) => {
                "check cert_file and key_file of [docker] in config.toml, and the CA of dockerd's --tlscacert"
            }
            Some(TlsFault::Here) => {
                "check ca_file of [docker] in config.toml, and the names in dockerd's certificate"
            }
            Some(TlsFault::Files | TlsFault::Plain) => {
                "check ca_file, cert_file and key_file of [docker] in config.toml"
            }
        }
    }

    /// Worth asking again at once: the daemon was not reached, or not in time.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::Slow { .. })
    }

    /// True for Docker's answer to the removal of a container that it removes already.
    pub(super) fn is_of_removal_in_progress(&self) -> bool {
        matches!(self, Self::Daemon { status: Some(409), words, .. } if words.contains("in progress"))
    }

    /// Sorts what `docker create` answered.
    pub(super) fn of_create(self, name: &str, image: &str) -> Self {
        let Self::Daemon { status, words, .. } = &self else { return self };
        let words = words.clone();
        match status {
            Some(404)
                if ["No such image", "no such image", "specified platform"]
                    .iter()
                    .any(|w| words.contains(w)) =>
            {
                Self::Image { image: image.to_owned(), words, blame: Blame::App }
            }
            Some(400) if words.contains("invalid reference format") => {
                Self::Image { image: image.to_owned(), words, blame: Blame::App }
            }
            Some(409) if words.contains("is already in use by container") => {
                Self::NameTaken { name: name.to_owned() }
            }
            _ => unknown_runtime(&words).unwrap_or_else(|| self.of_definition()),
        }
    }

    /// Sorts what `docker start` answered.
    pub(super) fn of_start(self) -> Self {
        let Self::Daemon { status, mut words, doing } = self else { return self };
        // A later Docker's sentence where 20.10 writes "<nil>" into the hosts file.
        if words.contains("host-gateway") {
            words += " (it runs without a bridge: give host-gateway-ip in its daemon.json, or an address in the parameter add-host)";
        }
        if let Some(reason) = refusal(&words) {
            return Self::Refused { reason };
        }
        if let Some(error) = unknown_runtime(&words) {
            return error;
        }
        // A wrong mount is a "bad request" with "not a directory" or "no such file" in it as well.
        let of_mount = words.contains("mount");
        if words.contains("executable file not found")
            || (status == Some(400) && !of_mount && words.contains("no such file or directory"))
        {
            return Self::Command { code: 127, words: tidy(&words) };
        }
        if status == Some(400) && !of_mount && words.contains("permission denied") {
            return Self::Command { code: 126, words: tidy(&words) };
        }
        Self::Daemon { status, words, doing }.of_definition()
    }

    /// What Docker reports as a bad request, forbidden or not found is in the app definition when it creates or starts
    /// the container; the rest, a conflict with something else among it, is trouble of this host.
    fn of_definition(self) -> Self {
        match self {
            Self::Daemon { status: Some(400 | 403 | 404), words, doing } => Self::Rejected { doing, words },
            other => other,
        }
    }
}

/// What went wrong before Docker could answer anything; the source follows.
fn away(address: &str, source: &(dyn Error + 'static)) -> String {
    match tls::fault(source) {
        None => format!("Docker does not answer at {address}"),
        Some(TlsFault::Peer) => format!("Docker at {address} refuses the TLS connection"),
        Some(TlsFault::Here) => format!("the TLS connection to Docker at {address} fails on this side"),
        Some(TlsFault::Files) => format!("the TLS connection to Docker at {address} cannot be prepared"),
        Some(TlsFault::Plain) => format!("Docker at {address} expects TLS, which is not configured"),
    }
}

/// Docker 20.10 says "Unknown runtime specified calico", later ones "unknown or invalid runtime name: calico".
fn unknown_runtime(words: &str) -> Option<DockerError> {
    let lower = words.to_ascii_lowercase();
    let at = ["unknown runtime specified ", "unknown or invalid runtime name: "]
        .iter()
        .find_map(|phrase| lower.find(phrase).map(|at| at + phrase.len()))?;
    // Lower-casing ASCII moves no byte, so the place is the same in the original.
    let runtime = words.get(at..)?.split_whitespace().next()?.trim_matches([':', ',', '\'', '"']);
    Some(DockerError::Runtime { runtime: runtime.to_owned() })
}

/// The reason that calico-runc gave in `start`; stock runc hardly ever fails there, since it finds a
/// missing command in `create` already.
fn refusal(words: &str) -> Option<String> {
    let (_, reason) = words.split_once("OCI runtime start failed: ")?;
    Some(reason.trim().trim_end_matches(": unknown").to_owned())
}

/// The part of a runtime's error that the owner of the app needs: from `exec:` on, without containerd's tail.
fn tidy(words: &str) -> String {
    let start = words.find("exec: ").unwrap_or(0);
    words[start..].trim().trim_end_matches(": unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon(status: u16, words: &str) -> DockerError {
        DockerError::Daemon { doing: "start".into(), status: Some(status), words: words.into() }
    }

    /// The words of Docker 23 and later; `tests/docker` has those of the Docker that it finds.
    #[test]
    fn the_words_of_later_releases_are_sorted_as_well() {
        let failure = daemon(400, "unknown or invalid runtime name: calico").of_create("n", "i").failure();
        assert_eq!((failure.code, failure.blame()), (Code::Runtime, Blame::Host));
        let words = "failed to create task for container: OCI runtime start failed: etcd is away: unknown";
        let failure = daemon(500, words).of_start().failure();
        assert_eq!((failure.code, failure.message.as_str()), (Code::Gate, "etcd is away"));
    }

    /// Where the status decides and no word.
    #[test]
    fn what_docker_refuses_of_the_definition_is_told_from_its_own_trouble() {
        for status in [400, 403, 404] {
            for error in [daemon(status, "x").of_create("n", "i"), daemon(status, "x").of_start()] {
                let failure = error.failure();
                assert_eq!((failure.code, failure.blame()), (Code::DockerRefused, Blame::App), "{failure}");
            }
        }
        for status in [409, 500] {
            for error in [daemon(status, "x").of_create("n", "i"), daemon(status, "x").of_start()] {
                assert_eq!((error.failure().code, error.failure().blame()), (Code::Docker, Blame::Host));
            }
        }
        // Any other call says nothing about the app: here the daemon speaks another version.
        assert_eq!(daemon(400, "x").failure().code, Code::Docker);
    }
}
