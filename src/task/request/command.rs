//! The command: a line for the shell, or arguments for the image's own entrypoint.

use super::{as_argument, invalid};
use crate::error::Failure;
use crate::mesos::messages::TaskInfo;
use crate::workload::ContainerSpec;

/// With `shell` (the default) `/bin/sh -c <value>` replaces the image's entrypoint; without it the entrypoint is
/// kept and gets the value, if any, and all arguments; with none of them the image's own command runs.
pub(super) fn apply(
    task: &TaskInfo,
    spec: &mut ContainerSpec,
    notes: &mut Vec<String>,
) -> Result<(), Failure> {
    let Some(command) = &task.command else {
        return Err(invalid(
            "the task has no command; set cmd or args, or an empty command to run the image's own",
        ));
    };
    if let Some(value) = &command.value {
        as_argument("the command", value)?;
    }
    for argument in &command.arguments {
        as_argument("the argument", argument)?;
    }
    if command.user.is_some() {
        notes.push("the command's user has no effect on a Docker container; the image's USER applies".into());
    }
    if command.shell() {
        let Some(value) = &command.value else {
            return Err(invalid("the task wants a shell but names no command"));
        };
        if !command.arguments.is_empty() {
            notes.push("the arguments have no effect, because the command is run by a shell".into());
        }
        spec.entrypoint = Some(vec!["/bin/sh".to_owned()]);
        spec.command = Some(vec!["-c".to_owned(), value.clone()]);
        return Ok(());
    }
    let words: Vec<String> = command.value.iter().chain(&command.arguments).cloned().collect();
    spec.command = (!words.is_empty()).then_some(words);
    Ok(())
}
