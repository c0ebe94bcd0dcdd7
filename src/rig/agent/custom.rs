//! Tasks that bring their executor: a program of the framework's, which may run several of them.

use std::path::PathBuf;
use std::time::Instant;

use super::executor::{AgentExecutor, Containerizer, ExecutorEnding, ExecutorPhase, Queued};
use super::hub::Hub;
use super::spawn::Program;
use super::{AgentError, Fetched, Launched};
use crate::mesos::messages::{container_info, CommandInfo, ContainerInfo, ExecutorInfo, TaskInfo};

impl Hub {
    pub(super) fn launch_group(
        &mut self,
        executor: ExecutorInfo,
        mut tasks: Vec<TaskInfo>,
    ) -> Result<Launched, AgentError> {
        for task in &mut tasks {
            self.admit(task)?;
            task.executor = Some(executor.clone());
        }
        self.launch_custom(executor, Queued::Group(tasks), None)
    }

    /// Starts the executor, unless it runs.
    pub(super) fn launch_custom(
        &mut self,
        mut info: ExecutorInfo,
        queued: Queued,
        fetched: Option<&Fetched>,
    ) -> Result<Launched, AgentError> {
        let at = Instant::now();
        let id = info.executor_id.value.clone();
        let wrong = |problem| AgentError::Executor { executor: id.clone(), problem };
        if !super::launch::is_file_name(&id) {
            return Err(wrong("has an id that cannot be a folder's name"));
        }
        if let Some(executor) = self.executors.get_mut(&id).filter(|executor| executor.is_alive()) {
            if executor.phase == ExecutorPhase::Terminating {
                return Err(wrong("is about to end"));
            }
            executor.adopt(&queued);
            let launched = executor.launched(at);
            match executor.phase {
                ExecutorPhase::Running => self.hand_over(&id, queued),
                _ => executor.queued.push(queued),
            }
            return Ok(launched);
        }
        if info.container.as_ref().is_some_and(runs_elsewhere) {
            return Err(wrong(
                "would run inside the image of its ContainerInfo, which is not supported here",
            ));
        }
        let command = info.command.clone().ok_or_else(|| wrong("has no command"))?;
        let program = program(&command).ok_or_else(|| wrong("has no program to run"))?;
        info.framework_id = Some(self.options.framework_id.as_str().into());
        let mut executor = self.start_executor(info, Containerizer::Mesos, fetched, |_| program)?;
        executor.ending =
            ExecutorEnding { message: "Executor terminated".into(), ..ExecutorEnding::default() };
        executor.adopt(&queued);
        executor.queued.push(queued);
        let launched = executor.launched(at);
        self.executors.insert(id, executor);
        Ok(launched)
    }

    /// Ends the event stream only.
    pub(super) fn cut(&mut self, task: &str) -> Result<(), AgentError> {
        let id = self.executor_of(task)?;
        if let Some(executor) = self.executors.get_mut(&id) {
            executor.link = None;
        }
        Ok(())
    }
}

/// As the MesosContainerizer runs a command.
fn program(command: &CommandInfo) -> Option<Program> {
    let value = command.value.clone().filter(|value| !value.is_empty())?;
    Some(match command.shell() {
        true => Program { path: "/bin/sh".into(), argv: vec!["sh".into(), "-c".into(), value] },
        false if command.arguments.is_empty() => Program { path: PathBuf::from(&value), argv: vec![value] },
        false => Program { path: value.into(), argv: command.arguments.clone() },
    })
}

/// An executor with an image is run by Docker, or in a root file system made of the image.
fn runs_elsewhere(container: &ContainerInfo) -> bool {
    container.r#type == i32::from(container_info::Type::Docker)
}

impl AgentExecutor {
    fn adopt(&mut self, queued: &Queued) {
        self.tasks.extend(queued.ids().map(|id| (id.to_owned(), super::executor::AgentTask::default())));
    }

    pub(super) fn launched(&self, at: Instant) -> Launched {
        Launched {
            container_id: self.container_id.clone(),
            sandbox: self.sandbox.clone(),
            at,
            executor_pid: self.process,
        }
    }
}
