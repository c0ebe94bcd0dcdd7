//! What only the tests ask of the agent: orders of other frameworks, ends of executors, and its own absence.
//!
//! All of it needs the state that the hub owns, so it cannot be done from outside by process ids.

use super::hub::HubCommand;
use super::{Agent, AgentError, Destruction, Launched};
use crate::mesos::messages::{ExecutorInfo, TaskInfo};

impl Agent {
    /// Tasks that their executor is to start together; the executor's info is put into each of them.
    pub async fn launch_group(
        &self,
        executor: ExecutorInfo,
        tasks: Vec<TaskInfo>,
    ) -> Result<Launched, AgentError> {
        self.ask(|reply| HubCommand::LaunchGroup { executor: Box::new(executor), tasks, reply }).await?
    }

    /// Hands one more task to the executor of another task, as a careless scheduler would.
    pub async fn launch_on(&self, executor: &str, task: TaskInfo) -> Result<(), AgentError> {
        let executor = executor.to_owned();
        self.ask(|reply| HubCommand::LaunchOn { executor, task: Box::new(task), reply }).await?
    }

    /// Asks the executor to end; SIGTERM follows after the grace period.
    pub async fn shutdown_executor(&self, task: &str) -> Result<(), AgentError> {
        let task = task.to_owned();
        self.ask(|reply| HubCommand::Shutdown { task, reply }).await?
    }

    /// Ends the executor of the task without asking it first: by SIGTERM where the Docker containerizer has it, by
    /// SIGKILL else.
    pub async fn destroy(&self, task: &str, why: Destruction) -> Result<(), AgentError> {
        let task = task.to_owned();
        self.ask(|reply| HubCommand::Destroy { task, why, reply }).await?
    }

    /// Data from the framework.
    pub async fn message(&self, task: &str, data: Vec<u8>) -> Result<(), AgentError> {
        let task = task.to_owned();
        self.ask(|reply| HubCommand::Message { task, data, reply }).await?
    }

    /// Ends the event stream to an executor of version 1, and nothing else: what is said until it
    /// subscribes again is lost.
    pub async fn cut(&self, task: &str) -> Result<(), AgentError> {
        let task = task.to_owned();
        self.ask(|reply| HubCommand::Cut { task, reply }).await?
    }

    /// The framework goes away: every executor is shut down and no update is acknowledged any more.
    pub async fn tear_down(&self) -> Result<(), AgentError> {
        self.ask(|reply| HubCommand::Teardown { reply }).await
    }

    /// Goes away as if killed: listener and links are closed, executors live on.
    pub async fn stop(&self) -> Result<(), AgentError> {
        self.ask(|reply| HubCommand::Stop { reply }).await
    }

    /// Comes back after [`Agent::stop`] and recovers its executors; returns when the window for
    /// re-registration has opened.
    pub async fn restart(&self) -> Result<(), AgentError> {
        self.ask(|reply| HubCommand::Restart { reply }).await?
    }
}
