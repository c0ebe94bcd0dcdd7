//! The Mesos agent of a host: flags from its command line and environment, apps from a folder, launched by the embedded
//! agent through the host's own launcher folder.
//!
//! ```text
//!  WORK_DIR/lab/flags.json    its command line and environment, as it was started
//!  WORK_DIR/lab/NAME.json     an app definition that a test has put there: it is launched
//!  WORK_DIR/lab/NAME.state    what became of it, a JSON object with task, state, container, executor, message
//!  WORK_DIR/lab/NAME.kill     kills its task
//! ```
//!
//! As with a real one, executors outlive it where its unit lets them (KillMode=process), and tasks of an agent before it
//! are killed by the end of their executors. It does not start with other attributes than before, unless
//! `--reconfiguration_policy` allows it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use calico_mesos::mesos::messages::TaskState;
use calico_mesos::rig::agent::marathon::{App, AppInstance};
use calico_mesos::rig::agent::{Agent, AgentOptions};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::{json, Value};

use super::{block_on, chain};

const PAUSE: Duration = Duration::from_millis(100);

pub fn run(words: &[String]) -> Result<(), String> {
    if words.iter().any(|word| word == "--version") {
        println!("mesos 1.11.0");
        return Ok(());
    }
    let flags = Flags::read(words);
    let work_dir = PathBuf::from(flags.get("work_dir").ok_or("Missing required flag --work_dir")?);
    let folder = work_dir.join("lab");
    fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    flags.check_attributes(&work_dir)?;
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    write(&folder.join("flags.json"), &json!({"words": words, "environment": environment}));
    let options = flags.options(&work_dir)?;
    block_on(serve(options, &folder))?
}

/// The agent's flags: words win over variables.
struct Flags(BTreeMap<String, String>);

impl Flags {
    fn read(words: &[String]) -> Self {
        let variable = |(name, value): (String, String)| {
            Some((name.strip_prefix("MESOS_")?.to_ascii_lowercase(), value))
        };
        let mut flags: BTreeMap<String, String> = std::env::vars().filter_map(variable).collect();
        for (name, value) in words.iter().filter_map(|word| word.strip_prefix("--")?.split_once('=')) {
            flags.insert(name.to_owned(), value.to_owned());
        }
        Self(flags)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A real agent does not recover with attributes that differ from those it has checkpointed, unless it may have more.
    fn check_attributes(&self, work_dir: &Path) -> Result<(), String> {
        let slaves = work_dir.join("meta/slaves");
        let (file, now) = (slaves.join("latest/attributes"), self.get("attributes").unwrap_or_default());
        let may_have_more = self.get("reconfiguration_policy") == Some("additive");
        let split = |text: &str| {
            text.split(';').filter(|one| !one.is_empty()).map(str::to_owned).collect::<BTreeSet<_>>()
        };
        if let Ok(before) = fs::read_to_string(&file) {
            let (before, now) = (split(&before), split(now));
            if before != now && !(may_have_more && before.is_subset(&now)) {
                let incompatible = "Failed to perform recovery: Incompatible agent info detected";
                return Err(format!("{incompatible}: attributes {before:?} have become {now:?}"));
            }
        } else {
            // A new agent: as one that registers.
            let id = slaves.join(format!("{}-S0", uuid::Uuid::new_v4()));
            fs::create_dir_all(&id)
                .and_then(|()| std::os::unix::fs::symlink(&id, slaves.join("latest")))
                .map_err(|error| format!("cannot checkpoint in {}: {error}", slaves.display()))?;
        }
        fs::write(&file, now).map_err(|error| format!("cannot write {}: {error}", file.display()))
    }

    fn options(&self, work_dir: &Path) -> Result<AgentOptions, String> {
        let launcher = PathBuf::from(self.get("launcher_dir").unwrap_or("/usr/libexec/mesos"));
        let mut options = AgentOptions::new(work_dir, launcher.join("mesos-docker-executor"));
        options.launcher_dir = launcher;
        options.hostname = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(socket) = self.get("docker_socket") {
            options.docker_socket = socket.to_owned();
        }
        if let Some(ip) = self.get("ip").map(str::to_owned).or_else(|| own_address(&options.hostname)) {
            options.ip = ip.parse().map_err(|error| format!("Failed to load flag 'ip': {error}"))?;
        }
        if let Some(text) = self.get("executor_environment_variables") {
            options.executor_environment = serde_json::from_str(text)
                .map_err(|error| format!("Failed to load flag 'executor_environment_variables': {error}"))?;
        }
        Ok(options)
    }
}

/// What this host's name stands for, as an agent without `--ip` finds it.
fn own_address(hostname: &str) -> Option<String> {
    let hosts = fs::read_to_string("/etc/hosts").ok()?;
    let named = |line: &&str| line.split_whitespace().skip(1).any(|name| name == hostname);
    hosts.lines().find(named)?.split_whitespace().next().map(str::to_owned)
}

/// A task that this process has launched.
struct Launch {
    task: String,
    container: String,
    executor: u32,
    over: bool,
}

async fn serve(options: AgentOptions, folder: &Path) -> Result<(), String> {
    let socket = options.docker_socket.clone();
    let agent = Agent::start(options).await.map_err(|error| chain(&error))?;
    println!("the agent {} is up", agent.pid());
    let mut launches: BTreeMap<String, Launch> = BTreeMap::new();
    loop {
        for name in names(folder, ".json") {
            if name != "flags" && !folder.join(format!("{name}.state")).exists() {
                if let Some(launch) = launch(&agent, folder, &name).await {
                    launches.insert(name, launch);
                }
            }
        }
        for (name, launch) in &mut launches {
            report(&agent, folder, name, launch, &socket);
        }
        for name in names(folder, ".kill") {
            // What it kills is seen by the state.
            let _ = fs::remove_file(folder.join(format!("{name}.kill")));
            match launches.get(&name) {
                Some(launch) => drop(agent.kill(&launch.task, Some(Duration::ZERO)).await),
                None => end_earlier(folder, &name, &socket),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn launch(agent: &Agent, folder: &Path, name: &str) -> Option<Launch> {
    let state = folder.join(format!("{name}.state"));
    let refuse = |why: String| {
        write(&state, &json!({"state": "REFUSED", "message": why}));
        None
    };
    let text = fs::read(folder.join(format!("{name}.json"))).ok()?;
    let app = match String::from_utf8(text)
        .map_err(|error| error.to_string())
        .and_then(|text| App::parse(&text).map_err(|error| chain(&error)))
    {
        Ok(app) => app,
        Err(why) => return refuse(why),
    };
    // What one task has no other gets, not even one of an agent before this one.
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let first = 31000 + (std::process::id() % 90 * 10) as u16;
    let ports = (0..app.free_ports()).map(|_| first + GIVEN.fetch_add(1, Ordering::Relaxed)).collect();
    let info = app.task_info(&AppInstance::new(agent.options().hostname.clone(), ports));
    let task = info.task_id.value.clone();
    match agent.launch(info).await {
        Ok(launched) => {
            let (container, executor) = (launched.container_id, launched.executor_pid);
            write(
                &state,
                &json!({"task": task, "state": "STAGING", "container": container, "executor": executor}),
            );
            Some(Launch { task, container, executor, over: false })
        }
        Err(error) => refuse(chain(&error)),
    }
}

/// Writes down how far a task is; removes its container when it is over, as an agent does some time later.
fn report(agent: &Agent, folder: &Path, name: &str, launch: &mut Launch, socket: &str) {
    let Some(update) = agent.history(&launch.task).pop().filter(|_| !launch.over) else { return };
    let state = update.status.state();
    launch.over = state.is_terminal() && fs::metadata(format!("/proc/{}", launch.executor)).is_err();
    let addresses: Vec<String> = update
        .status
        .container_status
        .iter()
        .flat_map(|status| &status.network_infos)
        .flat_map(|info| &info.ip_addresses)
        .filter_map(|address| address.ip_address.clone())
        .collect();
    let word = match state {
        TaskState::TaskRunning => "RUNNING",
        state if state.is_terminal() && !launch.over => "ENDING",
        state => state.short(),
    };
    let told = json!({
        "task": launch.task, "state": word, "container": launch.container, "executor": launch.executor,
        "addresses": addresses, "message": update.status.message.unwrap_or_default(),
    });
    write(&folder.join(format!("{name}.state")), &told);
    if launch.over {
        remove_container(&launch.container, socket);
    }
}

/// Ends a task whose agent is gone: by its executor, and its executor by a signal.
fn end_earlier(folder: &Path, name: &str, socket: &str) {
    let file = folder.join(format!("{name}.state"));
    let Some(mut told) = fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok())
    else {
        return;
    };
    let executor = told["executor"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    if let Some(executor) = executor {
        // Gone already is what is wanted.
        let _ = kill(Pid::from_raw(executor), Signal::SIGTERM);
        for _ in 0..300 {
            if fs::metadata(format!("/proc/{executor}")).is_err() {
                break;
            }
            std::thread::sleep(PAUSE);
        }
    }
    remove_container(told["container"].as_str().unwrap_or_default(), socket);
    told["state"] = "KILLED".into();
    write(&file, &told);
}

fn remove_container(id: &str, socket: &str) {
    let container = format!("mesos-{id}");
    // A task that was refused has none.
    let _ = Command::new("docker")
        .args(["-H", &format!("unix://{socket}"), "rm", "-f", &container])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

fn names(folder: &Path, end: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(end)?.to_owned())).collect()
}

/// Whole or not: it is read while it is written.
fn write(file: &Path, value: &Value) {
    let new = file.with_extension("new");
    let done = fs::write(&new, value.to_string()).and_then(|()| fs::rename(&new, file));
    if let Err(error) = done {
        eprintln!("cannot write {}: {error}", file.display());
    }
}
