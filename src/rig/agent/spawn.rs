//! How an agent starts an executor: folders, command line, environment, process.
//!
//! The process gets a group of its own (a real agent gives it a session; that needs `unsafe` in Rust
//! and differs only for programs that look for a terminal), the sandbox as its working directory, a
//! pipe as stdin, and nothing of our own environment.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

use super::{AgentError, AgentOptions};
use crate::mesos::duration;
use crate::mesos::libprocess::Upid;
use crate::mesos::messages::ExecutorInfo;
use crate::workload::init::DEFAULT_PATH;

/// What is executed.
#[derive(Debug)]
pub(super) struct Program {
    pub path: PathBuf,
    /// Its own name first.
    pub argv: Vec<String>,
}

/// One run of an executor.
#[derive(Debug)]
pub(super) struct ExecutorContainer {
    pub id: String,
    pub folders: ExecutorFolders,
}

/// Where the files of one container lie.
#[derive(Debug, Clone)]
pub(super) struct ExecutorFolders {
    pub sandbox: PathBuf,
    pub meta: PathBuf,
}

impl ExecutorFolders {
    pub fn of(options: &AgentOptions, executor: &str, container: &str) -> Self {
        let below = Path::new("slaves")
            .join(&options.slave_id)
            .join("frameworks")
            .join(&options.framework_id)
            .join("executors")
            .join(executor)
            .join("runs")
            .join(container);
        Self { sandbox: options.work_dir.join(&below), meta: options.work_dir.join("meta").join(below) }
    }

    pub fn create(&self) -> Result<(), AgentError> {
        let make = |path: &Path, mode: u32| {
            DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(path)
                .map_err(|source| AgentError::Sandbox { path: path.to_owned(), source })
        };
        if let Some(parent) = self.sandbox.parent() {
            make(parent, 0o755)?;
        }
        make(&self.sandbox, 0o750)?;
        make(&self.meta.join("pids"), 0o755)
    }
}

/// The command line of `mesos-docker-executor`, program name first: every flag that has a value, alphabetical.
pub(super) fn argv(options: &AgentOptions, container: &str, sandbox: &Path) -> Vec<String> {
    let mut argv = vec![
        "mesos-docker-executor".to_owned(),
        format!("--cgroups_enable_cfs={}", options.cgroups_enable_cfs),
        format!("--container=mesos-{container}"),
    ];
    argv.extend(options.default_container_dns.as_ref().map(|dns| format!("--default_container_dns={dns}")));
    argv.extend([
        format!("--docker={}", options.docker),
        format!("--docker_socket={}", options.docker_socket),
        "--help=false".into(),
        "--initialize_driver_logging=true".into(),
        format!("--launcher_dir={}", options.launcher_dir.display()),
        "--logbufsecs=0".into(),
        "--logging_level=INFO".into(),
        format!("--mapped_directory={}", options.mapped_directory),
        "--quiet=false".into(),
        format!("--sandbox_directory={}", sandbox.display()),
        format!("--stop_timeout={}", duration::format(options.docker_stop_timeout)),
    ]);
    argv.extend(options.extra_flags.iter().cloned());
    argv
}

/// The whole environment; the variables of the executor's command, which are a Docker task's own, come
/// last and win. Only the MesosContainerizer passes the sandbox by that name.
pub(super) fn environment(
    options: &AgentOptions,
    agent: &Upid,
    info: &ExecutorInfo,
    (tell_sandbox, token): (bool, Option<&str>),
    sandbox: &Path,
) -> BTreeMap<String, String> {
    let grace = info.shutdown_grace_period.as_ref().and_then(|grace| grace.to_duration());
    let mut environment = BTreeMap::from([("LIBPROCESS_IP".to_owned(), options.ip.to_string())]);
    environment.extend(options.executor_environment.clone());
    let mut set = |name: &str, value: String| drop(environment.insert(name.to_owned(), value));
    set("LIBPROCESS_PORT", "0".into());
    set("MESOS_AGENT_ENDPOINT", agent.address.to_string());
    set("MESOS_CHECKPOINT", u8::from(options.checkpoint).to_string());
    set("MESOS_DIRECTORY", sandbox.display().to_string());
    set("MESOS_EXECUTOR_ID", info.executor_id.value.clone());
    set("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", duration::format(grace.unwrap_or(options.shutdown_grace)));
    set("MESOS_FRAMEWORK_ID", options.framework_id.clone());
    set("MESOS_HTTP_COMMAND_EXECUTOR", "0".into());
    set("MESOS_SLAVE_ID", options.slave_id.clone());
    set("MESOS_SLAVE_PID", agent.to_string());
    if options.checkpoint {
        set("MESOS_RECOVERY_TIMEOUT", duration::format(options.recovery_timeout));
        set("MESOS_SUBSCRIPTION_BACKOFF_MAX", duration::format(options.reregistration_timeout));
    }
    let socket = options.domain_socket.as_ref().map(|path| path.display().to_string());
    let told = tell_sandbox.then(|| sandbox.display().to_string());
    let optional = [
        ("MESOS_DOMAIN_SOCKET", socket),
        ("MESOS_EXECUTOR_AUTHENTICATION_TOKEN", token.map(str::to_owned)),
        ("MESOS_SANDBOX", told),
    ];
    environment.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    environment.entry("PATH".to_owned()).or_insert_with(|| DEFAULT_PATH.to_owned());
    let own = info.command.iter().flat_map(|command| &command.environment).flat_map(|own| &own.variables);
    environment.extend(own.map(|own| (own.name.clone(), own.value.clone().unwrap_or_default())));
    environment
}

pub(super) fn spawn(
    program: &Program,
    environment: &BTreeMap<String, String>,
    folders: &ExecutorFolders,
) -> Result<Child, AgentError> {
    let output = |name: &str| -> Result<File, AgentError> {
        let path = folders.sandbox.join(name);
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|source| AgentError::Sandbox { path, source })
    };
    let (stdout, stderr) = (output("stdout")?, output("stderr")?);
    let failed = |source: io::Error| AgentError::Spawn { program: program.path.clone(), source };
    let child = Command::new(&program.path)
        .arg0(program.argv.first().map_or("", String::as_str))
        .args(program.argv.iter().skip(1))
        .env_clear()
        .envs(environment)
        .current_dir(&folders.sandbox)
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(stderr)
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    if let Some(pid) = child.id() {
        let path = folders.meta.join("pids/forked.pid");
        fs::write(&path, pid.to_string()).map_err(|source| AgentError::Sandbox { path, source })?;
    }
    Ok(child)
}
