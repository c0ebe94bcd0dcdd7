//! Logs below `paths.log`: never worth a task, a runtime call or a clean-up.
//!
//! A fault of the disk is logged once a process, with the logger that it has: a full `/var/log` would otherwise be
//! reported with every line. `calico-runc` has no logger, since its standard error is the task's own; the executors of
//! the same host, which write to the same folder, report the fault.
//!
//! On a thread of a runtime nothing waits here, since a wait would stop all tasks of an executor: a line that cannot
//! be placed at once, while another process holds a rotation up, goes to the logger (the sandbox) alone.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use tokio::runtime::Handle;

use super::line::one_line;
use super::{Component, Rotated};
use crate::config::Config;

/// One file of the folder; nothing is touched before the first line.
#[derive(Debug, Clone)]
pub struct Log {
    /// None where there is no writing: custom executors may run as another user than root.
    file: Option<Rotated>,
}

impl Log {
    pub fn of(component: Component, config: &Config) -> Self {
        let root = nix::unistd::geteuid().is_root();
        Self { file: root.then(|| component.rotated(config)) }
    }

    /// `2026-11-23T19:02:11.042Z 4711 text`, for people.
    pub fn say(&self, text: &str) {
        self.write(&format!("{} {} {}", timestamp(), std::process::id(), one_line(text)));
    }

    /// A line as it is, for programs.
    pub fn write(&self, line: &str) {
        static REPORTED: AtomicBool = AtomicBool::new(false);
        let Some(file) = &self.file else { return };
        match append(file, line) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                tracing::warn!(
                    "cannot write to {} without waiting: {error}; the line: {line}",
                    file.path().display()
                );
            }
            Err(error) if !REPORTED.swap(true, Ordering::Relaxed) => {
                tracing::warn!("cannot write {}: {error}; further lines may be lost", file.path().display());
            }
            Err(_) => {}
        }
    }
}

/// Waits for nothing on a thread of a runtime.
fn append(file: &Rotated, line: &str) -> io::Result<()> {
    match Handle::try_current() {
        Ok(_) => file.append_now(line),
        Err(_) => file.append(line),
    }
}

/// Standard error, and a log besides: for a program whose lines stand in a journal that others keep.
///
/// A line that the file does not take is on standard error, where the first such fault is reported, too: not by the
/// logger, which is at work here.
#[derive(Debug, Clone)]
pub(super) struct Both(pub Log);

impl io::Write for Both {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        static REPORTED: AtomicBool = AtomicBool::new(false);
        if let Some(file) = &self.0.file {
            let text = String::from_utf8_lossy(lines);
            if let Err(error) = append(file, text.trim_end_matches('\n')) {
                if error.kind() != ErrorKind::WouldBlock && !REPORTED.swap(true, Ordering::Relaxed) {
                    let path = file.path().display();
                    let _ = writeln!(io::stderr(), "cannot write {path}: {error}; further lines may be lost");
                }
            }
        }
        // The logger writes a line at once.
        io::stderr().write_all(lines)?;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Now, in RFC 3339 with milliseconds, UTC.
pub fn timestamp() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::tests::Sink;
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_runtime_of_one_thread_goes_on_while_another_process_holds_the_rotation() {
        const LINES: u32 = 200;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let log = Log { file: Some(Rotated::new(&path).bounded(10, 3)) };
        // A lock belongs to the opened file, not to the process: this one is like another process's.
        let lock = File::create(folder.path().join(".x.log.lock")).unwrap();
        lock.lock().unwrap();
        let sandbox = Sink::default();
        let writer = sandbox.clone();
        let logger = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        // The lock is held until all lines are written: a writer that waited for it would never come to an end, and one
        // that gave up after pauses would lose the line.
        tracing::subscriber::with_default(logger, || {
            (0..LINES).for_each(|n| log.write(&format!("line {n}.")))
        });
        let (file, sandbox) = (std::fs::read_to_string(&path).unwrap(), sandbox.text());
        for n in 0..LINES {
            let line = format!("line {n}.");
            assert!(file.contains(&line) != sandbox.contains(&line), "{line}: {file}{sandbox}");
        }
        drop(lock);
        log.write("last");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "last\n");
    }
}
