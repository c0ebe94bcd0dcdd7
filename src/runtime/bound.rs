//! A container that was made through the Docker API proxy: it has a binding, and no executor.
//!
//! Docker starts it when it likes: at a client's call, by its restart policy, at boot. So the runtime is what asks for
//! the namespace, and what says that the container is over.

use std::io::Write;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::{Call, RuntimeError};
use crate::config::Config;
use crate::gate::{self, GateVerb, GateVerdict, Unanswered};
use crate::host::files;

/// The proxy answers this at once; without it the proxy sees the end by the container's process.
const ENDED: Duration = Duration::from_secs(1);

/// Has the namespace made; nothing for a container without a binding.
pub fn prepare(call: &Call, config: &Config) -> Result<(), RuntimeError> {
    let id = call.id()?;
    if !config.paths.binding(id).exists() {
        return Ok(());
    }
    match gate::question(GateVerb::Prepare, &config.paths.proxy_gate(), id, config.runtime.gate_timeout) {
        Ok(GateVerdict::Open) => Ok(()),
        Ok(GateVerdict::Refused(reason)) => Err(RuntimeError::Refused(reason)),
        Err(Unanswered(why)) => {
            note_refusal(call, config, &why);
            Err(RuntimeError::Refused(why))
        }
    }
}

/// What was done, for the log; `None` for a container without a binding.
pub fn say_ended(call: &Call, config: &Config) -> Option<String> {
    let id = call.id().ok().filter(|id| config.paths.binding(id).exists())?;
    Some(match gate::question(GateVerb::Ended, &config.paths.proxy_gate(), id, ENDED) {
        Ok(_) => "the proxy has been told".to_owned(),
        Err(Unanswered(why)) => why,
    })
}

/// Notes that a container of the proxy's could not start because the proxy did not answer: Docker never tries again,
/// and the proxy, once it is back, does.
pub fn note_refusal(call: &Call, config: &Config, why: &str) {
    let Ok(id) = call.id() else { return };
    if !config.paths.binding(id).exists() {
        return;
    }
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let line = json!({ "time": time, "why": why }).to_string();
    // Without the note the container stays as Docker left it.
    let _ = files::replace(&config.paths.refused_start(id), |new| new.write_all(line.as_bytes()));
}
