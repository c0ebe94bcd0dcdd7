//! The ExecutorInfo that an agent invents for a Docker task (pure).
//!
//! The command in it is the stock command executor's, although `mesos-docker-executor` is what runs.

use std::time::Duration;

use super::AgentOptions;
use crate::mesos::messages::{CommandInfo, DurationInfo, ExecutorInfo, KillPolicy, Resource, TaskInfo};

/// Longer commands are cut in the executor's name.
const COMMAND_MAX: usize = 15;
const COMMAND_CUT: usize = 12;
/// What reaping and reporting may take on top of the kill policy's grace.
const REAP: Duration = Duration::from_secs(2);

/// What an executor costs besides its task.
const OVERHEAD_CPUS: f64 = 0.1;
const OVERHEAD_MEM: f64 = 32.0;

pub(super) fn executor_info(options: &AgentOptions, task: &TaskInfo) -> ExecutorInfo {
    let command = task.command.clone().unwrap_or_default();
    let allocation = task.resources.first().and_then(|resource| resource.allocation_info.as_ref());
    let role = allocation.and_then(|allocation| allocation.role.as_deref());
    let launcher = options.launcher_dir.display();
    let grace = task.kill_policy.as_ref().and_then(KillPolicy::grace);
    ExecutorInfo {
        executor_id: task.task_id.value.as_str().into(),
        resources: vec![
            Resource::scalar("cpus", OVERHEAD_CPUS, role),
            Resource::scalar("mem", OVERHEAD_MEM, role),
        ],
        name: Some(format!("Command Executor (Task: {}) (Command: {})", task.task_id, summary(&command))),
        command: Some(CommandInfo {
            uris: command.uris,
            environment: command.environment,
            user: command.user,
            value: Some(format!("{launcher}/mesos-executor")),
            shell: Some(false),
            arguments: vec!["mesos-executor".into(), format!("--launcher_dir={launcher}")],
        }),
        framework_id: Some(options.framework_id.as_str().into()),
        source: Some(task.task_id.value.clone()),
        container: task.container.clone(),
        discovery: task.discovery.clone(),
        shutdown_grace_period: grace.map(|grace| DurationInfo::from_duration(grace.saturating_add(REAP))),
        labels: task.labels.clone(),
        ..ExecutorInfo::default()
    }
}

fn summary(command: &CommandInfo) -> String {
    match (command.shell(), &command.value) {
        (true, None) => "NO COMMAND".into(),
        (true, Some(value)) => format!("sh -c '{}'", cut(value)),
        (false, None) => "NO EXECUTABLE".into(),
        (false, Some(value)) => {
            let parts: Vec<&str> =
                std::iter::once(value.as_str()).chain(command.arguments.iter().map(String::as_str)).collect();
            format!("[{}]", cut(&parts.join(", ")))
        }
    }
}

fn cut(text: &str) -> String {
    if text.len() <= COMMAND_MAX {
        return text.to_owned();
    }
    let end = (0..=COMMAND_CUT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}...", &text[..end])
}
