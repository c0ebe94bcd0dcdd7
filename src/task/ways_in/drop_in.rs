//! Way in A: the drop-in `mesos-docker-executor`, which the agent starts once for every Docker task.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use crate::config;
use crate::error::{chain, Code, Failure};
use crate::logging;
use crate::mesos::driver;
use crate::mesos::environment::Environment;
use crate::mesos::flags::Flags;
use crate::mesos::messages::{ExecutorInfo, TaskInfo};
use crate::names::ContainerId;

use crate::task::channel::Order;
use crate::task::request::{self, docker_host, Context};
use crate::task::ways_in::executor::{self, Way};

/// Serves one task and returns when it is over.
pub async fn run(
    flags: Flags,
    environment: Environment,
    variables: BTreeMap<OsString, OsString>,
) -> ExitCode {
    let (driver, events) = match driver::connect(&environment).await {
        Ok(connected) => connected,
        Err(error) => {
            tracing::error!("cannot register with the agent: {}", chain(&error));
            return ExitCode::FAILURE;
        }
    };
    let agent = environment.slave_pid.address.ip().to_string();
    executor::run(driver, events, DropIn { flags, environment, variables }, agent).await
}

struct DropIn {
    flags: Flags,
    environment: Environment,
    /// This process's environment as it was at the start.
    variables: BTreeMap<OsString, OsString>,
}

impl Way for DropIn {
    fn registered(&mut self, _: ExecutorInfo) {}

    fn most_tasks(&self) -> usize {
        1
    }

    fn kill_grace(&self) -> Duration {
        self.shutdown_grace()
    }

    fn shutdown_grace(&self) -> Duration {
        self.environment.shutdown_grace.max(self.flags.stop_timeout)
    }

    fn order(&self, info: &TaskInfo) -> Result<Order, Failure> {
        let carries = |name: &str| request::sets_variable(info.command.as_ref(), name);
        let own = |name: &str| self.variables.get(OsStr::new(name)).and_then(|value| value.to_str());
        if !carries(logging::VERBOSITY) {
            logging::follow_verbosity(own(logging::VERBOSITY));
        }
        let config_path = self.flags.config.clone().unwrap_or_else(|| config::DEFAULT_PATH.into());
        let docker = || {
            let socket = Some(self.flags.docker_socket.as_str());
            docker_host::choose(own("DOCKER_HOST"), carries("DOCKER_HOST"), &config_path, socket)
        };
        let context = Context::of_agent(&self.flags, request::total_memory(), &docker)?;
        let description = request::describe(info, &context)?;
        let container = match self.flags.container_id() {
            // Names are made from it for Calico tasks only.
            Err(_) if description.task.calico().is_none() => ContainerId::random(),
            id => id.map_err(|error| Failure::new(Code::AgentFlags, chain(&error)))?,
        };
        Ok(Order {
            container,
            name: context.name,
            description,
            config_path,
            framework: self.environment.framework_id.clone(),
            host_address: self.host_address(),
        })
    }
}

impl DropIn {
    fn host_address(&self) -> Option<IpAddr> {
        Some(self.environment.slave_pid.address.ip()).filter(|ip| !ip.is_unspecified())
    }
}
