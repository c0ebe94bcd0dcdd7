//! The environment of a task, from weak to strong: the task's own variables, those of the agent's hook modules, and the
//! three that Mesos forces. The parameter `env` overrides them, as on a command line.

use std::collections::BTreeMap;

use super::{invalid, Context};
use crate::error::Failure;
use crate::host::processes::MAX_STRING;
use crate::mesos::messages::environment::variable::Type;
use crate::mesos::messages::environment::Variable;
use crate::mesos::messages::{CommandInfo, TaskInfo};
use crate::task::request::calico::shown;

/// A variable of the task's own environment as the app has set it; of two of one name the last.
pub(super) fn own<'a>(task: &'a TaskInfo, name: &str) -> Option<&'a str> {
    let own = listed(task).iter().rev().find(|variable| variable.name == name)?;
    Some(own.value.as_deref().unwrap_or_default())
}

/// Is this variable of the task's own environment a secret, which Docker tasks cannot read?
pub(super) fn is_secret(task: &TaskInfo, name: &str) -> bool {
    let own = listed(task).iter().rev().find(|variable| variable.name == name);
    own.is_some_and(|variable| variable.r#type() == Type::Secret)
}

pub(super) fn listed(task: &TaskInfo) -> &[Variable] {
    of(task.command.as_ref())
}

/// Whether this command, of a task or of an executor, sets the variable.
pub fn sets_variable(command: Option<&CommandInfo>, name: &str) -> bool {
    of(command).iter().any(|variable| variable.name == name)
}

fn of(command: Option<&CommandInfo>) -> &[Variable] {
    let environment = command.and_then(|command| command.environment.as_ref());
    environment.map_or(&[], |environment| &environment.variables)
}

pub(super) fn variables(
    task: &TaskInfo,
    context: &Context<'_>,
    notes: &mut Vec<String>,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut variables = BTreeMap::new();
    for variable in listed(task) {
        let value = match variable.r#type() {
            Type::Secret => {
                notes.push(format!(
                    "the variable {} is empty: secrets do not reach Docker containers",
                    shown(&variable.name)
                ));
                ""
            }
            _ => variable.value.as_deref().unwrap_or_default(),
        };
        insert(&mut variables, &variable.name, value)?;
    }
    for (name, value) in &context.hooks {
        insert(&mut variables, name, value)?;
    }
    insert(&mut variables, "MESOS_SANDBOX", &context.mapped_directory)?;
    insert(&mut variables, "MESOS_CONTAINER_NAME", &context.name)?;
    if let Some(role) = role(task) {
        insert(&mut variables, "MESOS_ALLOCATION_ROLE", role)?;
    }
    Ok(variables)
}

/// The role that the task's resources were allocated to.
pub(super) fn role(task: &TaskInfo) -> Option<&str> {
    task.resources.first()?.allocation_info.as_ref()?.role.as_deref()
}

/// Sets one variable, and replaces its old value.
pub(super) fn insert(
    variables: &mut BTreeMap<String, String>,
    name: &str,
    value: &str,
) -> Result<(), Failure> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(invalid(format!(
            "the environment variable {} has an invalid name: it is empty or contains '=' or NUL",
            shown(name)
        )));
    }
    // Only the name: values can be secrets.
    if value.contains('\0') {
        return Err(invalid(format!("the environment variable {} contains a NUL character", shown(name))));
    }
    let bytes = name.len() + "=".len() + value.len();
    if bytes >= MAX_STRING {
        return Err(invalid(format!(
            "the environment variable {} has {bytes} bytes with its name; the kernel takes less than {MAX_STRING}",
            shown(name)
        )));
    }
    variables.insert(name.to_owned(), value.to_owned());
    Ok(())
}

/// As Docker wants them, sorted by name.
pub(super) fn lines(variables: BTreeMap<String, String>) -> Vec<String> {
    variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}
