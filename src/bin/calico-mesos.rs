//! The operator's program: dispatch and exit code only, see `calico_mesos::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    calico_mesos::cli::main(std::env::args_os())
}
