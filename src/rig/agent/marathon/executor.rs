//! Marathon's path executor: a program on the agent runs the task, the app's command is its arguments.
//!
//! Marathon puts it into one shell line, quoted by single quotes and nothing else, and puts the app's
//! container into the executor's own: with an image, Mesos runs the executor inside it.

use serde_json::Value;

use super::fields::Fields;
use super::model::{App, AppCommand, AppNetwork};
use super::AppError;
use crate::mesos::messages::{CommandInfo, ExecutorInfo};

/// What Marathon calls its own way of running commands.
const COMMAND_MODE: &str = "//cmd";

/// The executor's path, unless the task is run in Marathon's own way.
pub(super) fn read(
    top: Fields<'_>,
    default: Option<&str>,
    command: &AppCommand,
    network: &AppNetwork,
) -> Result<Option<String>, AppError> {
    let own = top.text("executor")?.filter(|executor| !executor.is_empty());
    let Some(path) = own.or(default).filter(|executor| *executor != COMMAND_MODE) else { return Ok(None) };
    let wrong = |problem: String| Err(top.error("executor", format!("'{path}' {problem}")));
    if path.contains(['\'', '\0']) {
        return wrong("holds a single quote, which Marathon's shell line cannot carry".to_owned());
    }
    if let Some(container) = top.get("container") {
        return wrong(with_a_container(container).to_owned());
    }
    match command {
        AppCommand::Shell(line) if !line.trim().is_empty() => {}
        _ => {
            return wrong(
                "needs a cmd: without one Marathon asks Mesos for a program of that whole line".to_owned(),
            )
        }
    }
    if !matches!(network, AppNetwork::Host(_)) {
        return wrong(
            "needs the host's network: Mesos would put the executor itself into any other".to_owned(),
        );
    }
    Ok(Some(path.to_owned()))
}

/// Why an executor and a container exclude each other, and what to do about it.
fn with_a_container(container: &Value) -> &'static str {
    match container["type"].as_str() {
        Some("MESOS") => {
            "cannot be used with a container of type MESOS: Mesos would put the executor itself into it. Leave \
             container out: a command sees the host's files, and an image can be named in CALICO_DOCKER_IMAGE"
        }
        _ => {
            "cannot be used with a Docker container: Mesos would run the executor inside the app's image. Leave \
             executor (or Marathon's --executor) out and let our mesos-docker-executor run the app as it is, or \
             leave container out and name the image in CALICO_DOCKER_IMAGE"
        }
    }
}

/// A warning where the shell that starts the executor keeps part of the line for itself.
pub(super) fn cut(line: &str) -> Option<String> {
    let end = shell_operator(line)?;
    let operator = line[end..].chars().next()?.escape_default();
    Some(format!(
        "cmd is cut by the shell that starts the executor: the executor receives '{}', and the shell takes what \
         begins with '{operator}' for itself; put the whole line into single quotes",
        line[..end].trim()
    ))
}

/// Where a POSIX shell sees the first operator, redirection or comment outside of quotes.
fn shell_operator(line: &str) -> Option<usize> {
    // Blanks and line ends behind the last word separate nothing.
    let line = line.trim_end();
    let mut quote = None;
    let mut word_begins = true;
    let mut substitutions = 0_usize;
    let mut chars = line.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') | (Some('`'), '`') => quote = None,
            (Some('\''), _) => {}
            // What is behind it means itself.
            (_, '\\') => drop(chars.next()),
            (Some(_), _) => {}
            (None, '\'' | '"' | '`') => quote = Some(c),
            (None, '$') if chars.peek().is_some_and(|(_, next)| *next == '(') => {
                chars.next();
                substitutions += 1;
            }
            (None, '(') if substitutions > 0 => substitutions += 1,
            (None, ')') if substitutions > 0 => substitutions -= 1,
            (None, ';' | '&' | '|' | '<' | '>' | '(' | ')' | '\n') if substitutions == 0 => return Some(at),
            (None, '#') if word_begins && substitutions == 0 => return Some(at),
            (None, _) => {}
        }
        word_begins = quote.is_none() && c.is_whitespace();
    }
    None
}

impl App {
    /// `command` is the app's own, with its variables and files.
    pub(super) fn executor_info(&self, path: &str, task_id: &str, command: CommandInfo) -> ExecutorInfo {
        let arguments = command.value.unwrap_or_default();
        let line = format!("chmod ug+rx '{path}' && exec '{path}' {arguments}");
        ExecutorInfo {
            executor_id: format!("marathon-{task_id}").into(),
            command: Some(CommandInfo { value: Some(line), ..command }),
            ..ExecutorInfo::default()
        }
    }
}
