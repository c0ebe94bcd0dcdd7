//! COMMAND: a command in the task's surroundings; what it prints goes into the executor's stderr.

use super::probe::ProbeError;
use super::{CommandLine, Exec};
use crate::workload::Sink;

/// Of one command's output; a check is made thousands of times in a task's life.
const OUTPUT: usize = 8 << 10;

/// Runs it to its end. `begun` becomes true when Docker has taken it on. Dropped before its end, the command is
/// killed with whatever it has started.
pub(super) async fn run(exec: &Exec, line: &CommandLine, begun: &mut bool) -> Result<(), ProbeError> {
    let Exec::Docker { docker, id } = exec;
    let running = docker.exec(id, &line.arguments, &line.environment).await?;
    *begun = true;
    match running.exit(Sink::stderr().ok(), OUTPUT).await? {
        0 => Ok(()),
        code => Err(ProbeError::Exit(code)),
    }
}
