//! The COMMAND check: runs a command where the task runs, and copies its output to the executor's stderr.

use std::path::Path;

use super::probe::ProbeError;
use super::{CommandLine, Exec};
use crate::workload::{CommandOutput, CommandSpec, Docker, Held, Sink};

/// The longest output of one command; a check is made thousands of times in a task's life.
const OUTPUT: usize = 8 << 10;

/// Runs it to its end. `begun` becomes true when only the command is still waited for. Dropped before its end, it is
/// killed with all that it has started.
pub(super) async fn run(exec: &Exec, line: &CommandLine, begun: &mut bool) -> Result<(), ProbeError> {
    let code = match exec {
        Exec::Docker { docker, id } => in_container(docker, id, line, begun).await?,
        Exec::Process { executor, spec, namespace } => {
            *begun = true;
            beside_process(executor, spec, namespace.as_deref(), line).await?
        }
    };
    match code {
        0 => Ok(()),
        code => Err(ProbeError::Exit(code)),
    }
}

async fn in_container(
    docker: &Docker,
    id: &str,
    line: &CommandLine,
    begun: &mut bool,
) -> Result<i64, ProbeError> {
    let running = docker.exec(id, &line.arguments, &line.environment).await?;
    *begun = true;
    Ok(running.exit(Sink::stderr().ok(), OUTPUT).await?)
}

async fn beside_process(
    executor: &Path,
    task: &CommandSpec,
    namespace: Option<&Path>,
    line: &CommandLine,
) -> Result<i64, ProbeError> {
    let own = line.environment.iter().map(|(name, value)| (name.clone(), value.clone()));
    let spec = CommandSpec {
        program: line.program.clone(),
        arguments: line.arguments.clone(),
        environment: task.environment.clone().into_iter().chain(own).collect(),
        user: task.user.clone(),
        directory: task.directory.clone(),
    };
    let held = Held::start_by(executor, &spec, namespace, CommandOutput::ToErrors).await?;
    Ok(held.release().await?.exit().await?.code)
}
