//! Way in B: a custom executor, for any framework's ExecutorInfo and for Marathon's path executors.
//!
//! It speaks version 1 of the executor API and runs any number of tasks: commands in network namespaces of their own,
//! and Docker containers. A task's names derive from a ContainerID made here: the agent's own is that of this executor,
//! which may run several tasks.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::config;
use crate::error::{chain, Code, Failure};
use crate::logging;
use crate::mesos::environment::HttpEnvironment;
use crate::mesos::http;
use crate::mesos::messages::{ExecutorInfo, TaskInfo};
use crate::names::ContainerId;

use crate::task::channel::Order;
use crate::task::request::{self, docker_host, Context};
use crate::task::ways_in::executor::{self, Way};

/// Serves tasks until none is left. `arguments`: what follows the program's name on the command line, which is
/// the command of Marathon's path executors.
pub async fn run(
    arguments: Vec<String>,
    environment: HttpEnvironment,
    variables: BTreeMap<OsString, OsString>,
) -> ExitCode {
    let (driver, events) = match http::connect(&environment) {
        Ok(connected) => connected,
        Err(error) => {
            tracing::error!("cannot subscribe with the agent: {}", chain(&error));
            return ExitCode::FAILURE;
        }
    };
    let agent = environment.endpoint.ip().to_string();
    let way = Custom { arguments, environment, variables, executor: ExecutorInfo::default() };
    executor::run(driver, events, way, agent).await
}

struct Custom {
    arguments: Vec<String>,
    environment: HttpEnvironment,
    /// This process's environment as it was at the start.
    variables: BTreeMap<OsString, OsString>,
    executor: ExecutorInfo,
}

impl Way for Custom {
    fn registered(&mut self, executor: ExecutorInfo) {
        self.executor = executor;
    }

    fn most_tasks(&self) -> usize {
        usize::MAX
    }

    fn kill_grace(&self) -> Duration {
        self.shutdown_grace()
    }

    fn shutdown_grace(&self) -> Duration {
        self.environment.common.shutdown_grace
    }

    fn order(&self, info: &TaskInfo) -> Result<Order, Failure> {
        logging::follow_verbosity(self.operators(logging::VERBOSITY, info));
        // For this task alone: an executor may have several, and what one has left must not bear the name of another.
        let container = ContainerId::random();
        let config_path =
            self.operators(config::VARIABLE, info).map_or(config::DEFAULT_PATH.into(), PathBuf::from);
        let docker = || {
            let host = self.operators("DOCKER_HOST", info);
            let task_sets_it = self.variables.contains_key(OsStr::new("DOCKER_HOST")) && host.is_none();
            docker_host::choose(host, task_sets_it, &config_path, None)
        };
        let sandbox = &self.environment.common.directory;
        let context = Context::of_custom(&container, sandbox, request::total_memory(), &docker);
        let custom = request::Custom { executor: &self.executor, arguments: &self.arguments };
        let description = request::describe_custom(info, &custom, &context)?;
        if description.task.calico().is_some() && !nix::unistd::geteuid().is_root() {
            return Err(Failure::new(
                Code::Root,
                "the executor does not run as root, which it needs for network namespaces; set the app's user to root, or run the agent with --no-switch_user",
            ));
        }
        Ok(Order {
            name: context.name,
            container,
            description,
            config_path,
            framework: self.environment.common.framework_id.clone(),
            host_address: Some(self.environment.endpoint.ip()).filter(|ip| !ip.is_unspecified()),
        })
    }
}

impl Custom {
    /// A variable that the agent's operator has set: nothing that executor or task carry too.
    fn operators(&self, name: &str, info: &TaskInfo) -> Option<&str> {
        let commands = [&self.executor.command, &info.command];
        if commands.into_iter().any(|command| request::sets_variable(command.as_ref(), name)) {
            return None;
        }
        self.variables.get(OsStr::new(name))?.to_str()
    }
}
