//! A command as a task's workload: a process of the executor's own, in the task's network namespace.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::sys::signal::Signal;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{mpsc, oneshot};

use super::{Attached, End};
use crate::error::{Code, Failure};
use crate::gate::GateVerdict;
use crate::logging;
use crate::task::health::Exec;
use crate::task::work::gate_listener::Gate;
use crate::workload::{Blank, CommandOutput, CommandSpec, HostProcess, Process, OWN_PROGRAM};

/// A command that has not been started.
pub(in crate::task) struct StagedCommand {
    spec: CommandSpec,
    /// `None`: the executor's own network.
    namespace: Option<PathBuf>,
    /// The process that is to become the command, until the start takes it.
    blank: Mutex<Option<Blank>>,
}

/// The two lines to the one that waits for the command's end, and owns the process.
pub(super) struct Control {
    started: Option<oneshot::Sender<Process>>,
    pub(super) signals: UnboundedSender<Signal>,
}

impl StagedCommand {
    /// Starts the process that is to become the command. It does nothing before it has its instructions, and ends
    /// with this value.
    pub fn create(spec: &CommandSpec, namespace: Option<PathBuf>) -> Result<Self, Failure> {
        let blank = Blank::spawn(Path::new(OWN_PROGRAM), CommandOutput::Inherited);
        let blank = Mutex::new(Some(blank.map_err(|error| error.failure())?));
        Ok(Self { spec: spec.clone(), namespace, blank })
    }

    /// The output is not read here: the command inherits the executor's own.
    pub fn attach(&self) -> Attached {
        let (started, process) = oneshot::channel();
        let (signals, asked) = mpsc::unbounded_channel();
        Attached {
            logs: logging::spawn(std::future::ready(())),
            exit: logging::spawn(supervise(process, asked)),
            watcher: None,
            process: None,
            control: Some(Control { started: Some(started), signals }),
        }
    }

    /// How a health check's command gets beside it.
    pub fn exec(&self) -> Exec {
        Exec::Process {
            executor: OWN_PROGRAM.into(),
            spec: self.spec.clone(),
            namespace: self.namespace.clone(),
        }
    }

    /// Returns when the first instruction has run; before that the process waits at the gate, if there is one.
    pub async fn start(&self, attached: &mut Attached, gate: Option<&Gate>) -> Result<(), Failure> {
        self.spec.give_directory().map_err(|error| error.failure())?;
        let blank = self.blank.lock().unwrap_or_else(PoisonError::into_inner).take();
        let blank = blank.ok_or_else(|| Failure::new(Code::Internal, "the command was started already"))?;
        let held = blank.instruct(&self.spec, self.namespace.as_deref()).await;
        let held = held.map_err(|error| error.failure())?;
        if let Some(gate) = gate {
            if let GateVerdict::Refused(reason) = gate.pass().await {
                held.refuse().await;
                return Err(Failure::new(Code::Gate, format!("the command was not let through: {reason}")));
            }
        }
        let process = held.release().await.map_err(|error| error.failure())?;
        attached.process = Some(HostProcess::child(process.pid()).into());
        if let Some(started) = attached.control.as_mut().and_then(|control| control.started.take()) {
            // The one who waits lives as long as `attached`.
            let _ = started.send(process);
        }
        Ok(())
    }
}

/// Waits for the end and passes signals on meanwhile.
async fn supervise(process: oneshot::Receiver<Process>, mut signals: UnboundedReceiver<Signal>) -> End {
    let Ok(mut process) = process.await else { return std::future::pending().await };
    loop {
        tokio::select! {
            exit = process.exit() => return exit.map_err(|error| error.failure()),
            Some(signal) = signals.recv() => process.signal(signal),
        }
    }
}
