//! `--then COMMAND`: a command of the user's that runs while the tasks run.
//!
//! It learns from its environment what there is: one word an instance in each of the lists, `-` where there
//! is no such thing.
//!
//! | variable | example |
//! | --- | --- |
//! | `CM_TASKS` `CM_SHORT_IDS` `CM_CONTAINERS` `CM_ADDRESSES` `CM_LOGS` | `192.168.17.64 192.168.17.65` |
//! | `CM_PROFILE` `CM_PORTS` | `dev`, `3000` |
//! | `CM_DNS_NAME` `CM_DNS_SERVER` `CM_DNS_PORT` | `testapp-direct.service.consul`; unset without Consul |
//! | `DOCKER_HOST` `CM_CONFIG` `CM_FOLDER` `CM_ETCD` | `unix:///tmp/…/docker.sock` |

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::cli::interrupt::Interrupt;

use super::place::RunPlace;
use super::summary::AppSummary;
use super::task::RunTask;

/// What a command that was asked to end may still do.
const PATIENCE: Duration = Duration::from_secs(2);

pub fn environment(tasks: &[RunTask], place: &RunPlace, summary: &AppSummary) -> BTreeMap<String, String> {
    let list = |word: &dyn Fn(&RunTask) -> String| tasks.iter().map(word).collect::<Vec<_>>().join(" ");
    let mut environment = BTreeMap::from([
        ("CM_TASKS", list(&|task| task.id.clone())),
        ("CM_SHORT_IDS", list(&|task| task.short.clone())),
        ("CM_CONTAINERS", list(&|task| task.container_name().unwrap_or_else(|| "-".to_owned()))),
        ("CM_ADDRESSES", list(&|task| task.address())),
        ("CM_LOGS", list(&|task| task.sandbox.join("stdout").display().to_string())),
        ("CM_PROFILE", summary.profile()),
        ("CM_PORTS", summary.ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
        ("DOCKER_HOST", place.docker.clone()),
        ("CM_CONFIG", place.config_path.display().to_string()),
        ("CM_FOLDER", place.folder.display().to_string()),
        ("CM_ETCD", place.config.etcd.endpoints.join(",")),
    ]);
    if let (Some((server, port)), Some(name)) = (&place.dns, &summary.dns) {
        environment.insert("CM_DNS_NAME", name.clone());
        environment.insert("CM_DNS_SERVER", server.clone());
        environment.insert("CM_DNS_PORT", port.to_string());
    }
    environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Runs it to its end, or until the user interrupts.
pub async fn run(
    command: &str,
    environment: BTreeMap<String, String>,
    interrupt: &Interrupt,
) -> std::io::Result<Option<ExitStatus>> {
    let mut child =
        Command::new("/bin/sh").args(["-c", command]).envs(environment).kill_on_drop(true).spawn()?;
    tokio::select! {
        status = child.wait() => status.map(Some),
        () = interrupt.asked() => {
            end(&mut child).await;
            Ok(None)
        }
    }
}

/// A terminal's Ctrl-C has reached it already; other signals have not.
async fn end(child: &mut Child) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // Gone already is what is wanted.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
        // The same: what counts is that it is gone.
        let _ = child.kill().await;
    }
}
