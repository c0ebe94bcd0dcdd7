//! Running the firewall's programs.
//!
//! They run with an empty environment and are looked for in fixed folders only: an executor's
//! environment holds what the task put there.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::NetError;

const FOLDERS: [&str; 6] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"];

pub(super) fn locate(program: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(program)).find(|path| path.exists())
}

/// What the program wrote; its complaints are the error.
pub(super) async fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, NetError> {
    let command = [&[program], arguments].concat().join(" ");
    let failed = |source| NetError::Program { command: command.clone(), source };
    let path = locate(program).ok_or_else(|| {
        failed(std::io::Error::new(
            std::io::ErrorKind::NotFound,
            format!("it is in none of {}; install it", FOLDERS.join(", ")),
        ))
    })?;
    let mut child = Command::new(path)
        .args(arguments)
        .env_clear()
        .env("PATH", FOLDERS.join(":"))
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may have ended without reading; its status and output show more.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        return Err(NetError::Firewall { command, output: words });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
