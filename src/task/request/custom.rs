//! Decides what a task of a custom executor is: a command, or a Docker container.
//!
//! | the task has | it is |
//! | --- | --- |
//! | a container of type `DOCKER` | that container |
//! | the label or variable `CALICO_DOCKER_IMAGE` | a container of that image |
//! | neither | a command, which the executor runs itself |
//!
//! The command is the TaskInfo's own. Where a framework such as Marathon gives the TaskInfo none, it is what the
//! executor was started with. Where there is neither, it is the text in TaskInfo.data, a line for the shell:
//! Singularity puts a deploy's `command` there, and Chronos a job's, behind its `|`.
//!
//! Marathon's `"executor": "/path"` passes the app's `cmd` as arguments, after a shell has split it. A single argument
//! with a blank in it can only have been quoted, and is a line for the shell; anything else is the words of the
//! command. A first `--` is dropped, so that Marathon, which requires a `cmd`, can run an image's own command.
//!
//! The environment is that of ExecutorInfo.command, below that of TaskInfo.command. Nothing of this process's own
//! environment is in it.

use std::collections::BTreeMap;

use super::{as_argument, environment, invalid, name, network, ports, refuse_unsupported, resources};
use super::{describe, kind, labels, Context, Description, Work};
use crate::error::{Code, Failure};
use crate::mesos::messages::container_info::{self, DockerInfo};
use crate::mesos::messages::environment::variable::Type;
use crate::mesos::messages::{CommandInfo, ContainerInfo, Environment, ExecutorInfo, TaskInfo};
use crate::names::ContainerId;
use crate::task::request::calico::shown;
use crate::workload::init::{DEFAULT_PATH, SHELL};
use crate::workload::CommandSpec;

/// Names the image of a container where the framework cannot.
pub const IMAGE: &str = "CALICO_DOCKER_IMAGE";
/// Names the user of a command: that of the executor has to be root.
pub const USER: &str = "CALICO_USER";

/// The agent's proof of who an executor is; a task could speak for it.
const TOKEN: &str = "MESOS_EXECUTOR_AUTHENTICATION_TOKEN";

/// What a custom executor has besides the TaskInfo.
#[derive(Debug, Clone, Copy)]
pub struct Custom<'a> {
    pub executor: &'a ExecutorInfo,
    /// What it was started with, after its own name and options.
    pub arguments: &'a [String],
}

/// Names of containers begin so. An agent that starts kills unknown containers with a name of its own kind,
/// `mesos-<ContainerID>`.
pub const CONTAINER_PREFIX: &str = "calico-mesos-";

/// Docker's name of a task's container.
pub fn container_name(container: &ContainerId) -> String {
    format!("{CONTAINER_PREFIX}{container}")
}

/// Is it a custom executor's container, which no agent would ever remove?
pub fn is_named_by_us(name: &str, container: &ContainerId) -> bool {
    name == container_name(container)
}

/// Understands a task of a custom executor.
pub fn describe_custom(
    task: &TaskInfo,
    custom: &Custom<'_>,
    context: &Context<'_>,
) -> Result<Description, Failure> {
    refuse_executor_in_image(custom.executor)?;
    let task = whole(task, custom)?;
    match &task.container {
        Some(_) => describe(&task, context),
        None => command(&task, context),
    }
}

fn command(task: &TaskInfo, context: &Context<'_>) -> Result<Description, Failure> {
    refuse_unsupported(task)?;
    resources::check(task)?;
    let mut notes = Vec::new();
    let calico = network::request_of_variables(task, false)?;
    let spec = command_spec(task, context, &mut notes)?;
    let host_ports = match calico {
        Some(_) => ports::own(task),
        None => Vec::new(),
    };
    Description::of(task, kind(task, Work::Command(spec), calico, host_ports), notes)
}

/// With `--executor` or `executor` and a Docker app of Marathon, Mesos starts us in the app's image.
fn refuse_executor_in_image(executor: &ExecutorInfo) -> Result<(), Failure> {
    let docker = container_info::Type::Docker as i32;
    match executor.container.as_ref().is_some_and(|container| container.r#type == docker) {
        false => Ok(()),
        true => Err(Failure::new(
            Code::Unsupported,
            format!("the app names an executor and a Docker container, so that Mesos runs the executor inside the app's image; leave the executor out (the drop-in mesos-docker-executor serves such apps), or leave the container out and name the image in {IMAGE}"),
        )),
    }
}

/// The task with its command, its whole environment and its container in the places where [`describe`] and
/// its parts look for them.
fn whole(task: &TaskInfo, custom: &Custom<'_>) -> Result<TaskInfo, Failure> {
    let mut command = own_command(task, custom.arguments)?;
    if custom.arguments.is_empty() && command.value.is_none() && command.arguments.is_empty() {
        if let Some(line) = line_in_data(task) {
            command = CommandInfo { shell: Some(true), value: Some(line), ..command };
        }
    }
    let below = custom.executor.command.iter().filter_map(|command| command.environment.as_ref());
    let above = task.command.iter().filter_map(|command| command.environment.as_ref());
    let variables = below.chain(above).flat_map(|environment| &environment.variables);
    let variables = variables.filter(|variable| variable.name != TOKEN).cloned().collect();
    command.environment = Some(Environment { variables });
    let mut whole = TaskInfo { command: Some(command), ..task.clone() };
    if let Some(user) = setting(&whole, USER)? {
        let own = whole.command.as_mut().and_then(|command| command.user.replace(user.clone()));
        if own.as_ref().is_some_and(|own| *own != user) {
            return Err(twice(USER, &user, "the task's own command", &own.unwrap_or_default()));
        }
    }
    if let Some(image) = setting(&whole, IMAGE)? {
        let docker = |image| DockerInfo { image, ..Default::default() };
        let r#type = container_info::Type::Docker as i32;
        let container = whole.container.get_or_insert_with(|| ContainerInfo {
            r#type,
            docker: Some(docker(image.clone())),
            ..Default::default()
        });
        let own = container.docker.as_ref().map(|docker| docker.image.as_str()).unwrap_or_default();
        if own != image {
            return Err(twice(IMAGE, &image, "the task's own container", own));
        }
    }
    Ok(whole)
}

/// The command line in TaskInfo.data. Other data of a framework's own, such as the JSON object of a whole app or of
/// Singularity's `executorData`, is not a command.
fn line_in_data(task: &TaskInfo) -> Option<String> {
    let text = std::str::from_utf8(task.data.as_deref()?).ok()?.trim();
    // `true` alone would be JSON too.
    let is_json = text.starts_with(['{', '[']) && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    // Chronos: the executor's flags, of which there are none, a bar, the command.
    let line = text.strip_prefix('|').unwrap_or(text).trim_start();
    (!is_json && !line.is_empty() && !line.contains('\0')).then(|| line.to_owned())
}

fn own_command(task: &TaskInfo, arguments: &[String]) -> Result<CommandInfo, Failure> {
    let own = task.command.clone().unwrap_or_default();
    let arguments = match arguments {
        [first, rest @ ..] if first == "--" => rest,
        all => all,
    };
    let (value, arguments) = match (own.value.is_some() || !own.arguments.is_empty(), arguments) {
        (true, []) => return Ok(own),
        (true, _) => {
            return Err(invalid(
                "the task has a command of its own, and its executor was started with another one; only one of them can run",
            ))
        }
        (false, [line]) if line.contains(char::is_whitespace) => (Some(line.clone()), Vec::new()),
        (false, words) => (None, words.to_vec()),
    };
    Ok(CommandInfo { shell: Some(value.is_some()), value, arguments, ..own })
}

/// A setting of ours, for which an app has a variable and a label.
fn setting(task: &TaskInfo, name_of_it: &str) -> Result<Option<String>, Failure> {
    let label = labels(task).remove(name_of_it);
    let variable = environment::own(task, name_of_it).map(str::to_owned);
    if let (Some(variable), Some(label)) = (&variable, &label) {
        if variable != label {
            return Err(twice(name_of_it, variable, "the label of that name", label));
        }
    }
    let found = variable.or(label);
    found.map(|value| name(name_of_it, &value).map(str::to_owned)).transpose()
}

fn twice(name: &str, value: &str, where_else: &str, other: &str) -> Failure {
    invalid(format!("{name} is {}, but {where_else} has {}", shown(value), shown(other)))
}

fn command_spec(
    task: &TaskInfo,
    context: &Context<'_>,
    notes: &mut Vec<String>,
) -> Result<CommandSpec, Failure> {
    let command = task.command.clone().unwrap_or_default();
    let (program, arguments) = words(&command, notes)?;
    for word in arguments.iter().chain([&program]) {
        as_argument("the command", word)?;
    }
    let user = command.user.as_deref().map(|user| name("the command's user", user)).transpose()?;
    Ok(CommandSpec {
        program,
        arguments,
        environment: variables(task, context, notes)?,
        user: user.map(str::to_owned),
        directory: context.sandbox.clone(),
    })
}

/// The program and its whole argv. Mesos counts argv[0] among the arguments, where there are any.
fn words(command: &CommandInfo, notes: &mut Vec<String>) -> Result<(String, Vec<String>), Failure> {
    let value = command.value.as_deref().filter(|value| !value.is_empty());
    let (program, arguments) = match (value, &command.arguments[..]) {
        (Some(line), arguments) if command.shell() => {
            if !arguments.is_empty() {
                notes.push("the arguments have no effect, because the command is run by a shell".into());
            }
            return Ok((SHELL.to_owned(), ["sh", "-c", line].map(str::to_owned).into()));
        }
        (None, _) if command.shell() => {
            return Err(invalid("the task wants a shell but names no command"));
        }
        (Some(program), []) => (program, vec![program.to_owned()]),
        (Some(program), arguments) => (program, arguments.to_vec()),
        (None, [program, ..]) => (program.as_str(), command.arguments.clone()),
        (None, []) => {
            return Err(invalid(
                "the task has no command: give one in TaskInfo.command, as arguments of the executor (in Marathon: cmd), or as a text in TaskInfo.data (in Singularity: command; executorData is not read)",
            ))
        }
    };
    match program.is_empty() {
        true => Err(invalid("the command's first word is empty")),
        false => Ok((program.to_owned(), arguments)),
    }
}

/// Everything the command finds in its environment.
fn variables(
    task: &TaskInfo,
    context: &Context<'_>,
    notes: &mut Vec<String>,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut variables = BTreeMap::from([("PATH".to_owned(), DEFAULT_PATH.to_owned())]);
    for variable in environment::listed(task) {
        if variable.r#type() == Type::Secret {
            notes.push(format!(
                "the variable {} is left out: secrets are not read here",
                shown(&variable.name)
            ));
        } else {
            environment::insert(
                &mut variables,
                &variable.name,
                variable.value.as_deref().unwrap_or_default(),
            )?;
        }
    }
    environment::insert(&mut variables, "MESOS_SANDBOX", &context.sandbox.display().to_string())?;
    if let Some(role) = environment::role(task) {
        environment::insert(&mut variables, "MESOS_ALLOCATION_ROLE", role)?;
    }
    Ok(variables)
}
