//! What kept a connection from being made, or an answer from coming.

use std::io;
use std::time::Duration;

/// The kinds that callers distinguish. No text repeats its source.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The host answers that nothing listens there, or there is no such socket.
    #[error("cannot connect")]
    Refused(#[source] io::Error),
    /// No way to the host, or no answer from it.
    #[error("cannot connect")]
    Away(#[source] io::Error),
    /// Within the limit that the caller gave.
    #[error("no answer within {} s", .0.as_secs())]
    Slow(Duration),
    /// This side or the peer refuses TLS, or this side's files cannot be used: see [`crate::tls::fault`].
    #[error("cannot make a secure connection")]
    Tls(#[source] io::Error),
    /// This host cannot make a connection now: too many files are open, it is not permitted, or the queue of a local
    /// socket is full.
    #[error("cannot connect")]
    Local(#[source] io::Error),
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    #[error("the request cannot be formed")]
    Form(#[source] hyper::http::Error),
}

impl DialError {
    /// Sorts what the kernel returned.
    pub(super) fn of_connect(error: io::Error) -> Self {
        use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, NotFound, TimedOut};
        match error.kind() {
            ConnectionRefused | NotFound => Self::Refused(error),
            HostUnreachable | NetworkUnreachable | TimedOut => Self::Away(error),
            _ => Self::Local(error),
        }
    }

    /// Nothing accepts connections there, or nothing that can be reached.
    pub fn is_nothing_there(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Away(_))
    }
}

/// For callers whose own error describes the action: the cause alone.
impl From<DialError> for io::Error {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Refused(source)
            | DialError::Away(source)
            | DialError::Tls(source)
            | DialError::Local(source) => source,
            slow @ DialError::Slow(_) => io::Error::new(io::ErrorKind::TimedOut, slow),
            DialError::Broken(source) => io::Error::other(source),
            DialError::Form(source) => io::Error::other(source),
        }
    }
}
