//! `start`: the last step before the workload's first instruction waits at the gate.
//!
//! On a refusal the waiting init is killed first and the reason reported afterwards. Docker 20.10
//! would otherwise keep the init, the shim and the runtime's state for ever; this way every engine
//! calls `delete` by itself.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{prepared, Call, RuntimeError};
use crate::config::Config;
use crate::gate::{self, GateVerb, GateVerdict, Unanswered};

/// How long the shim may take to reap the killed init.
const REAP_LIMIT: Duration = Duration::from_secs(2);
/// From reaping to waiting for the lock that this very call holds takes the shim microseconds. If
/// `delete` came first, containerd 1.6 would answer "task must be stopped before deletion" and leak.
const SHIM_PAUSE: Duration = Duration::from_millis(100);

/// Returns when the executor opened the gate, with what happened there, for the log.
pub fn wait(call: &Call, config: &Config) -> Result<String, RuntimeError> {
    let verdict = prepared(call, config).and_then(|folder| {
        let gate = folder.join("gate");
        match gate::question(GateVerb::Start, &gate, call.id()?, config.runtime.gate_timeout) {
            Ok(GateVerdict::Open) => Ok("the gate opened".to_owned()),
            Ok(GateVerdict::Refused(reason)) | Err(Unanswered(reason)) => Err(RuntimeError::Refused(reason)),
        }
    });
    if verdict.is_err() {
        kill_init(call, &config.runtime.path);
    }
    verdict
}

/// Kills the init that waits for this start, and returns when Docker's shim has noticed.
///
/// Its failure changes nothing: the refusal is reported anyway, and the executor's teardown kills what
/// lives in the namespace.
pub fn kill_init(call: &Call, runtime: &Path) {
    let Ok(id) = call.id() else { return };
    let pid = init_pid(call, runtime, id);
    let killed = beneath(call, runtime).args(["kill", id, "KILL"]).status();
    let (Some(pid), Ok(_)) = (pid, killed) else { return };
    let ends = Instant::now() + REAP_LIMIT;
    while Path::new("/proc").join(pid.to_string()).exists() && Instant::now() < ends {
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(SHIM_PAUSE);
}

fn init_pid(call: &Call, runtime: &Path, id: &str) -> Option<u64> {
    let state = beneath(call, runtime).args(["state", id]).stdout(Stdio::piped()).output().ok()?;
    let state: serde_json::Value = serde_json::from_slice(&state.stdout).ok()?;
    state["pid"].as_u64().filter(|pid| *pid > 0)
}

fn beneath(call: &Call, runtime: &Path) -> Command {
    let mut command = Command::new(runtime);
    command.args(call.global_args()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
