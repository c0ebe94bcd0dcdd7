//! The front end called `calicoctl`: this program under another name, and the way to Calico's own calicoctl.
//!
//! ```text
//!  words ──► route ──┬─► Parse      a verb of ours, in its classic order of words or in ours
//!                    ├─► Delegate   exec of Calico's own calicoctl, with our datastore in its environment
//!                    ├─► Retired    one sentence that names the successor
//!                    └─► Help
//! ```
//!
//! All verbs work under both names. The link is made by `calico-mesos calicoctl install` alone, and never over
//! another program of that name.

mod help;
mod link;
mod real;
mod route;
mod settings;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;

use crate::config::Config;
use crate::error::EXIT_USAGE;

use super::output::Out;
use super::session::Session;
use super::{failed, Failed};

pub use link::LinkVerb;

/// Calico's own program is not there.
const UNAVAILABLE: u8 = 69;
const OURS: &str = "calico-mesos";
const NAME: &str = "calicoctl";

static PROGRAM: OnceLock<&'static str> = OnceLock::new();

/// The name under which this program was called, for messages.
pub(super) fn program() -> &'static str {
    PROGRAM.get().copied().unwrap_or(OURS)
}

/// Whether it was called as `calicoctl`.
pub(super) fn is_front_end() -> bool {
    program() == NAME
}

/// Decides on the command line: what clap parses next, or how the program has ended already.
pub(super) fn dispatch(arguments: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>, ExitCode> {
    let mut arguments = arguments.into_iter();
    let called = arguments.next().unwrap_or_default();
    let is_front_end = Path::new(&called).file_name().is_some_and(|name| name == NAME);
    let program = *PROGRAM.get_or_init(|| if is_front_end { NAME } else { OURS });
    match route::route(arguments.collect(), is_front_end) {
        route::CommandRoute::Parse(words) => Ok([vec![program.into()], words].concat()),
        route::CommandRoute::Help => {
            Out::stdout().part(&help::text());
            Err(ExitCode::SUCCESS)
        }
        route::CommandRoute::Retired(sentence) => {
            eprintln!("{program}: {sentence}");
            Err(ExitCode::from(EXIT_USAGE))
        }
        route::CommandRoute::Delegate { config, words } => Err(delegate(config.as_deref(), &words)),
    }
}

/// Becomes Calico's own calicoctl; returns only where that fails.
fn delegate(config: Option<&Path>, words: &[OsString]) -> ExitCode {
    let (config, origin) = match Config::of_shell(config) {
        Ok(found) => found,
        Err(error) => return failed(&error),
    };
    let error = real::become_it(&config, &origin, words);
    match error {
        real::RealError::Missing { .. } | real::RealError::Unusable { .. } | real::RealError::Loop(_) => {
            failed(&error);
            ExitCode::from(UNAVAILABLE)
        }
        real::RealError::Password { .. } | real::RealError::Exec { .. } => failed(&error),
    }
}

/// Makes or removes the link of that name.
pub(super) fn calicoctl(verb: &LinkVerb, session: &Session) -> Result<ExitCode, Failed> {
    link::run(verb, session)
}
