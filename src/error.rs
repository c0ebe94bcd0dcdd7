//! Errors as users read them: one printer for chains of errors, and the failures that reach a framework.
//!
//! Inside the library an error describes what its own layer was doing and carries its source, which its own text does
//! not repeat. [`chain`] prints the whole chain once, at the place that logs it. What ends a task is a [`Failure`]: a
//! sentence for the author of the app with a stable [`Code`], which also decides whether the launch is retried.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

mod code;

pub use code::{Blame, Code, Party, UnknownCode};

/// The exit code of a program whose command line or environment it cannot use, as in sysexits.h. What clap itself would
/// use, 2, is taken by scripts for "found nothing" and the like.
pub const EXIT_USAGE: u8 = 64;

/// The error and all its sources on one line, `outer: inner: innermost`.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

/// What could not be done with a file or folder.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}", path = path.display())]
pub struct FileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    /// Makes the error of an action, such as `write`, on this path.
    pub fn on(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self { action, path, source }
    }
}

/// An address without the user and password that may stand in it, for texts that others read.
pub fn redacted(address: &str) -> String {
    let begin = address.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = address.split_at(begin);
    let end = rest.find('/').unwrap_or(rest.len());
    // An unescaped slash in a password would end the host's part too early: then all of it is left out.
    let end = if rest[..end].contains('@') { end } else { rest.len() };
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}…{}", &rest[at..]),
        None => address.to_owned(),
    }
}

/// What would end a line, hide a part of it or turn it around on a terminal.
pub fn is_deceptive(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Why a task failed, in words for the person who wrote the app definition.
///
/// The text reaches Marathon as the message of TASK_FAILED, with the agent and the code behind it:
/// `CALICO_IP 10.9.9.9 is in no enabled IP pool (...) [agent-17, CM-IP-OUTSIDE]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Stable, for dashboards and search engines, e.g. `CM-IP-TAKEN`.
    pub code: Code,
    /// What, who, and what to do. No code, no agent name: [`Failure::on`] adds them.
    pub message: String,
}

impl Failure {
    /// The failure with this code, which decides whose fault it is.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Whether another attempt on this host can help.
    pub fn blame(&self) -> Blame {
        self.code.blame()
    }

    /// The sentence as it is sent to the framework: one line, for any names and answers of others that it quotes.
    pub fn on(&self, agent: &str) -> String {
        format!("{} [{agent}, {}]", self.message.replace(is_deceptive, " "), self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.code)
    }
}

impl Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_printed_without_their_credentials() {
        for (address, told) in [
            ("http://10.0.0.1:2379", "http://10.0.0.1:2379"),
            ("https://user:hunter2@etcd:2379/", "https://…@etcd:2379/"),
            ("tcp://hunter2@h:1", "tcp://…@h:1"),
            ("user:hun/ter2@h:1", "…@h:1"),
            ("http://a:hunter@2@h", "http://…@h"),
            ("unix:///run/docker.sock", "unix:///run/docker.sock"),
            ("", ""),
        ] {
            assert_eq!(redacted(address), told);
        }
    }
}
