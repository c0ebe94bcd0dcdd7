//! `calico-mesos task exec`: a program of the host in a task's network namespace.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use crate::cli::complete;
use crate::cli::session::Session;
use crate::cli::Failed;
use crate::net::{netns, Namespace};
use crate::task::network;
use crate::task::story::StoryPhase;

#[derive(Debug, clap::Args)]
pub struct TaskExecArguments {
    /// Any unique beginning of its id or of its container's, its app, or an address
    #[arg(value_name = "ID", add = complete::tasks())]
    task: String,
    /// A program of this host and its arguments; only the network is the task's. Its exit code is this one's
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Returns only when the command could not be run: it takes this program's place.
pub fn exec(arguments: TaskExecArguments, session: &Session) -> Result<ExitCode, Failed> {
    let story = super::the_task(session, &arguments.task)?;
    let path = network::namespace(&session.config, &story.container);
    if !path.exists() {
        let name = &story.task;
        return Err(match story.state {
            StoryPhase::Ended => format!("{name} has ended, and its network namespace is gone; its output is in `calico-mesos task logs`"),
            state => format!("{name} is {}, and has no network namespace at {}", state.word(), path.display()),
        }
        .into());
    }
    let namespace = Namespace::open(&path)?;
    let mut words = arguments.command.into_iter();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    Err(netns::exec(&namespace, command).into())
}
