//! A container that was made through the Docker API proxy: it has a binding, and no executor.
//!
//! Docker starts it when it likes: at a client's call, by its restart policy, at boot. So the runtime is what asks for
//! the namespace, and what says that the container is over.

use std::io::Write;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::{Call, RuntimeError};
use crate::config::Config;
use crate::error::{chain, Blame, Code};
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
        Ok(GateVerdict::Refused(reason)) | Err(Unanswered(reason)) => Err(RuntimeError::Refused(reason)),
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

/// Notes that a container of the proxy's could not start for a reason that may pass, as when the proxy or etcd is away:
/// Docker never tries again, and the proxy does. It is on the disk before any client hears of the refusal, so that a
/// client can strike it.
pub fn note_refusal(call: &Call, config: &Config, refusal: &RuntimeError) {
    let Ok(id) = call.id() else { return };
    let why = chain(refusal);
    if !config.paths.binding(id).exists() || !may_pass(refusal, &why) {
        return;
    }
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let line = json!({ "time": time, "why": why }).to_string();
    // Without the note the container stays as Docker left it.
    let _ = files::replace(&config.paths.refused_start(id), |new| new.write_all(line.as_bytes()));
}

/// What the proxy refuses because of the request itself, it refuses again; its sentence ends with the code.
fn may_pass(refusal: &RuntimeError, why: &str) -> bool {
    let code =
        why.strip_suffix(']').and_then(|why| why.rsplit_once('[')).map(|(_, code)| code.parse::<Code>());
    match (refusal, code) {
        (RuntimeError::Refused(_), Some(Ok(code))) => code.blame() == Blame::Host,
        (RuntimeError::Refused(_) | RuntimeError::NotPrepared, _) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_request_itself_is_refused_for_does_not_pass() {
        for (refusal, passes) in [
            (RuntimeError::Refused("etcd does not answer [CM-ETCD]".into()), true),
            (RuntimeError::Refused("CALICO_IP '10.9' is no address [CM-IP-INVALID]".into()), false),
            (RuntimeError::Refused("the proxy died".into()), true),
            (RuntimeError::NotPrepared, true),
            (RuntimeError::NoId, false),
        ] {
            assert_eq!(may_pass(&refusal, &chain(&refusal)), passes, "{refusal}");
        }
    }
}
