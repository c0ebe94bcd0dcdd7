//! The executor. Called as `mesos-docker-executor` it stands in for the stock one; under any other name it
//! is a custom executor.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;

use calico_mesos::config::{self, Config};
use calico_mesos::error::{chain, EXIT_USAGE};
use calico_mesos::host::privileges;
use calico_mesos::mesos::environment::{Environment, HttpEnvironment};
use calico_mesos::mesos::flags::{Flags, PROGRAM};
use calico_mesos::workload::init;
use calico_mesos::{logging, task};

/// The stack of the threads beside the first one, which wait for disks and names.
const STACK: usize = 2 << 20;
/// Every executor gets this one from its agent.
const STARTED_BY_AGENT: &str = "MESOS_EXECUTOR_ID";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // Before anything else: what becomes a task's command must have one thread and touch nothing.
    if arguments.first().is_some_and(|name| name == init::NAME) {
        return init::main();
    }
    let name = arguments.first().and_then(|name| Path::new(name).file_name());
    match name == Some(OsStr::new(PROGRAM)) {
        true => drop_in(arguments),
        false => custom(arguments),
    }
}

fn drop_in(arguments: Vec<OsString>) -> ExitCode {
    let flags = match Flags::parse(arguments) {
        Ok(flags) => flags,
        Err(error) => return usage(&chain(&error)),
    };
    if flags.help {
        return help();
    }
    let config = flags.config.clone().unwrap_or_else(|| config::DEFAULT_PATH.into());
    logging::executor(&Config::log_only(&config), &flags.logging_level);
    if let Err(error) = privileges::give_up() {
        // It would go on with what any executor of Mesos has.
        tracing::warn!("cannot give up the privileges that are not needed: {error}");
    }
    let variables: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    match Environment::from(variables.clone()) {
        Ok(environment) => run(Box::pin(task::ways_in::drop_in::run(flags, environment, variables))),
        Err(error) => usage(&chain(&error)),
    }
}

/// The command line belongs to the app: it is the command of Marathon's path executors.
fn custom(arguments: Vec<OsString>) -> ExitCode {
    if std::env::var_os(STARTED_BY_AGENT).is_none() {
        return match arguments.get(1).and_then(|argument| argument.to_str()) {
            Some("--help" | "-h") => help(),
            _ => {
                usage("the Mesos agent starts this program, with variables that are missing here; see --help")
            }
        };
    }
    let arguments = arguments.into_iter().skip(1).map(OsString::into_string);
    let Ok(arguments) = arguments.collect::<Result<Vec<String>, _>>() else {
        return usage("the task's command line is not valid UTF-8");
    };
    // Whether the agent set the variable shows only with the executor's definition; here it selects the log alone.
    let config =
        std::env::var_os(config::VARIABLE).map_or_else(|| config::DEFAULT_PATH.into(), PathBuf::from);
    logging::executor(&Config::log_only(&config), "INFO");
    let variables: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    match HttpEnvironment::from(variables.clone()) {
        Ok(environment) => run(Box::pin(task::ways_in::custom::run(arguments, environment, variables))),
        Err(error) => usage(&chain(&error)),
    }
}

/// On one thread: an executor waits nearly all its life, and there may be hundreds on a host. `executor` comes boxed:
/// a stack that was deep once keeps its memory.
fn run(executor: Pin<Box<impl Future<Output = ExitCode>>>) -> ExitCode {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    // Otherwise RUST_MIN_STACK decides, which a task can set.
    builder.enable_all().thread_stack_size(STACK);
    match builder.build() {
        Ok(runtime) => runtime.block_on(executor),
        Err(error) => {
            eprintln!("calico-executor: cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}

fn help() -> ExitCode {
    println!("{}", HELP.trim());
    ExitCode::SUCCESS
}

fn usage(message: &str) -> ExitCode {
    eprintln!("calico-executor: {message}");
    ExitCode::from(EXIT_USAGE)
}

const HELP: &str = "
calico-executor: runs tasks of Apache Mesos, with a Calico interface if they ask for one

The Mesos agent starts it, in one of two ways; see the README.

As mesos-docker-executor, a file of that name in the agent's --launcher_dir, it runs one Docker task in
place of the stock executor. The flags are those of the stock one; besides them:

  --config=FILE   configuration (default /etc/calico-mesos/config.toml)

Under any other name it is a custom executor, for the field executor of a Marathon app and for any framework's
ExecutorInfo: it runs commands and Docker containers. Its command line is then the command of the task.
";
