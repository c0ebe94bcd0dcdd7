//! Two pipes in a sandbox, by which a workload says that it has begun, and is asked to end.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::stat::Mode;
use tokio::task::JoinHandle;

/// The workload's first instruction opens a pipe that the bench holds the other end of; it ends when
/// the second pipe is written to.
pub const COMMAND: &str = ": > /mnt/mesos/sandbox/started; read end < /mnt/mesos/sandbox/end";

/// Makes the workload's pipes; the answer is the moment when it opens the first.
pub fn watch_pipes(sandbox: &Path) -> JoinHandle<Instant> {
    for name in ["started", "end"] {
        nix::unistd::mkfifo(&sandbox.join(name), Mode::S_IRWXU).expect("a pipe in the sandbox");
    }
    let path: PathBuf = sandbox.join("started");
    tokio::task::spawn_blocking(move || {
        // Returns as soon as the workload opens the other end.
        let _reader = File::open(path).expect("the pipe is there");
        Instant::now()
    })
}

pub async fn let_end(sandbox: &Path) {
    let path = sandbox.join("end");
    let write = move || {
        OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut end| std::io::Write::write_all(&mut end, b"\n"))
    };
    tokio::task::spawn_blocking(write).await.expect("no panic").expect("the workload reads");
}
