//! How the reason of a refusal gets to Docker: as one line in the runtime's log file.
//!
//! Docker shows that line's message as it is; what stands on stderr alone comes wrapped in the
//! shim's path and an exit status.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::SystemTime;

use serde_json::json;

use super::Call;

/// Appends to the `--log` file and writes to stderr, for people who call the runtime by hand.
pub fn tell(call: &Call, message: &str) {
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let line = if call.log_json {
        json!({"level": "error", "msg": message, "time": time}).to_string()
    } else {
        format!("time=\"{time}\" level=error msg={message:?}")
    };
    if let Some(path) = &call.log {
        // When the report itself fails, only stderr is left.
        let log = OpenOptions::new().create(true).append(true).open(path);
        let _ = log.and_then(|mut log| writeln!(log, "{line}"));
    }
    eprintln!("calico-runc: {message}");
}
