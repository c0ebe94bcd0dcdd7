//! A run that is interrupted ends its daemons, its executors and their containers, and removes its folder.
//!
//! Ctrl-C reaches the whole foreground group; a SIGTERM only the process that it is sent to, and of a killed `cargo` or
//! `make` nothing is heard: their ends are watched.

use std::time::Duration;

use calico_mesos::host::processes::{command_line, Stat};
use calico_mesos::workload::HostProcess;
use nix::sys::signal::Signal;
use tokio::signal::unix::{signal, SignalKind};

use crate::kit::wait::at_most;
use crate::machine::Machine;
use crate::processes;

/// How long killed processes may take to be gone.
const DYING: Duration = Duration::from_secs(5);

/// Returns when the run has to end, with the reason.
pub async fn asked() -> &'static str {
    let listen = |kind| signal(kind).unwrap();
    let mut int = listen(SignalKind::interrupt());
    let mut term = listen(SignalKind::terminate());
    let mut hangup = listen(SignalKind::hangup());
    let (sender, mut orphaned) = tokio::sync::mpsc::channel(1);
    for parent in parents() {
        let sender = sender.clone();
        tokio::spawn(async move {
            HostProcess::child(parent).gone().await;
            // The first of them counts.
            let _ = sender.try_send(());
        });
    }
    tokio::select! {
        _ = int.recv() => "interrupted",
        _ = term.recv() => "terminated",
        _ = hangup.recv() => "the terminal was closed",
        Some(()) = orphaned.recv() => "its parent has ended",
    }
}

/// The process that started this one, and all up to the `make` that was called, if one was.
fn parents() -> Vec<i32> {
    let mut chain = Vec::new();
    let mut pid = i32::try_from(std::os::unix::process::parent_id()).unwrap();
    while pid > 1 {
        chain.push(pid);
        pid = Stat::of(pid).and_then(|stat| stat.parent()).unwrap_or_default();
    }
    let is_make = |pid: &i32| {
        let words = command_line(*pid).unwrap_or_default();
        let program = words.first().map_or("", String::as_str).rsplit('/').next().unwrap_or_default();
        matches!(program, "make" | "gmake") && words.iter().any(|word| word == "soak")
    };
    let ours = chain.iter().rposition(is_make).map_or(1, |index| index + 1);
    chain.truncate(ours);
    chain
}

/// Kills what the agent has started, before the folders go into which it would write again; the daemons end with the
/// machine.
pub async fn end(machine: Machine) {
    machine.world.agent.stop().await.unwrap();
    let dead = async || {
        let left = processes::ids(&machine);
        left.iter().for_each(|pid| processes::signal(*pid, Signal::SIGKILL));
        left.is_empty()
    };
    at_most(DYING, dead).await;
    drop(machine);
}
