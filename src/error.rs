//! How errors are told: one chain printer, and the failures a framework gets to see.
//!
//! Inside the library an error says what its own layer was doing and carries its source; nobody
//! repeats the source in the text. [`chain`] prints the whole story once, at the place that logs it.
//! What ends a task is a [`Failure`]: a sentence for the owner of the app with a stable code.

use std::error::Error;
use std::fmt;

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

/// Whose fault it is, which decides whether trying again on this host can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The app definition asks for something impossible: the task fails at once.
    App,
    /// This host or the cluster cannot do it now: retried until `launch.retry_for` has passed, so
    /// that one broken agent does not eat a whole deployment in seconds.
    Host,
}

/// Why a task failed, in words for the person who wrote the app definition.
///
/// The text reaches Marathon as the message of TASK_FAILED, with the agent and the code behind it:
/// `CALICO_IP 10.9.9.9 is in no enabled IP pool (...) [agent-17, CM-IP-OUTSIDE]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Stable, for dashboards and search engines, e.g. `CM-IP-TAKEN`. Listed in the README.
    pub code: &'static str,
    pub blame: Blame,
    /// What, who, and what to do. No code, no agent name: [`Failure::on`] adds them.
    pub message: String,
}

impl Failure {
    pub fn app(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, blame: Blame::App, message: message.into() }
    }

    pub fn host(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, blame: Blame::Host, message: message.into() }
    }

    /// The sentence as it is sent to the framework.
    pub fn on(&self, agent: &str) -> String {
        format!("{} [{agent}, {}]", self.message, self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.code)
    }
}

impl Error for Failure {}
