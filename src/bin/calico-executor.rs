//! The executor. Called as `mesos-docker-executor` it stands in for the stock one.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;

use calico_mesos::error::chain;
use calico_mesos::mesos::environment::Environment;
use calico_mesos::mesos::flags::Flags;
use calico_mesos::workload::init;
use calico_mesos::{logging, task};

/// Bad usage, as sysexits.h has it.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // Before anything else: what becomes a task's command must have one thread and touch nothing.
    if arguments.first().is_some_and(|name| name == init::NAME) {
        return init::main();
    }
    let flags = match Flags::parse(arguments) {
        Ok(flags) => flags,
        Err(error) => return usage(&chain(&error)),
    };
    if flags.help {
        println!("{}", HELP.trim());
        return ExitCode::SUCCESS;
    }
    logging::executor();
    let variables: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    let environment = match Environment::from(variables.clone()) {
        Ok(environment) => environment,
        Err(error) => return usage(&chain(&error)),
    };
    // One thread: an executor waits nearly all its life, and there may be hundreds on a host.
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(task::drop_in::run(flags, environment, variables)),
        Err(error) => {
            eprintln!("calico-executor: cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage(message: &str) -> ExitCode {
    eprintln!("calico-executor: {message}");
    ExitCode::from(USAGE)
}

const HELP: &str = "
calico-executor: runs one Docker task of Apache Mesos, with a Calico interface if it asks for one

It is started by the Mesos agent under the name mesos-docker-executor, which must stand in the agent's
--launcher_dir; see the README. The flags are those of the stock mesos-docker-executor; besides them:

  --config=FILE   configuration (default /etc/calico-mesos/config.toml)
";
