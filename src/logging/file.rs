//! Logs below `paths.log`: never worth a task, a runtime call or a clean-up.
//!
//! Whatever is wrong with the disk is told once a process, through whatever logger it has: a full `/var/log`
//! would otherwise say so with every line. `calico-runc` has none, for its standard error is the task's own;
//! there the executors of the same host, which write beside it, are the ones that tell.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use super::line::one_line;
use super::Rotated;

/// One file of the folder; nothing is touched before the first line.
#[derive(Debug, Clone)]
pub struct Log {
    /// None where there is no writing: custom executors may run as somebody else than root.
    file: Option<Rotated>,
}

impl Log {
    pub fn new(folder: &Path, name: &str) -> Self {
        let root = nix::unistd::geteuid().is_root();
        Self { file: root.then(|| Rotated::new(folder.join(name))) }
    }

    /// `2026-11-23T19:02:11.042Z 4711 text`, for people.
    pub fn say(&self, text: &str) {
        self.write(&format!("{} {} {}", timestamp(), std::process::id(), one_line(text)));
    }

    /// A line as it is, for programs.
    pub fn write(&self, line: &str) {
        static TOLD: AtomicBool = AtomicBool::new(false);
        let Some(file) = &self.file else { return };
        if let Err(error) = file.append(line) {
            if !TOLD.swap(true, Ordering::Relaxed) {
                tracing::warn!("cannot write {}: {error}; further lines may be lost", file.path().display());
            }
        }
    }
}

/// Now, in RFC 3339 with milliseconds, UTC.
pub fn timestamp() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}
