//! The events of a life, and the effects that they can have.

use std::time::{Duration, Instant};

use super::table::Job;
use crate::task::channel::{Cause, Kill};
use crate::task::teardown::Workload;

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LifeEvent {
    Kill(Kill),
    Done(Job),
    Failed(Job),
    /// It failed because another program did not answer: what was asked for may still happen.
    Silent(Job),
    /// It ended early because it was cancelled, and has left nothing half done.
    Cancelled(Job),
    /// The workload stands at the gate.
    Knocked,
    /// The workload has gone through the gate.
    Passed,
    /// The workload is over. `known`: Docker, or the kernel for a command, has said so.
    Ended {
        known: bool,
    },
    Health {
        healthy: bool,
        too_often: bool,
    },
    /// Consul has forgotten the task, or does not answer.
    Left,
    /// Whether the workload's process, killed without Docker, is gone.
    Killed {
        gone: bool,
    },
    Due(Timer),
    TornDown,
}

/// What a life waits for, so long and no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Jobs that were cancelled, or cannot be.
    Settle,
    /// Consul, before the workload is asked to stop.
    Leave,
    /// The grace period, where Docker does not watch it.
    Grace,
    /// The workload's end after the grace period.
    Patience,
    TearDown,
    /// The runtime of others, until it asks the gate, and from then until it has gone through.
    Knock,
}

/// Where a life stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Preparing,
    Starting,
    Running,
    /// `until`: the end of the grace period; none while Consul forgets the task.
    Stopping {
        until: Option<Instant>,
    },
    /// It will not run, and jobs are in flight.
    Settling,
    TearingDown,
    Over,
}

/// The gate's verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateOrder {
    Open,
    Refuse,
}

/// A change that the way in reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Others may start the container now, which they do for an adopted task.
    Prepared,
    Running,
    Killing,
    Health {
        healthy: bool,
        too_often: bool,
    },
}

/// Why a life is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifeFate {
    /// The workload ended by itself.
    Ended,
    Killed(Cause),
    /// This job's failure is the cause.
    Failed(Job),
    /// Docker started the container by another runtime than ours.
    NoGate,
    /// Others did not start the container after all.
    NotStarted,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Begin(Job),
    /// Ends the job at its next good moment.
    Cancel(Job),
    Gate(GateOrder),
    /// The task runs: its names and ports are looked after from now on.
    Serve,
    Tell(Word),
    /// Has Consul forget the task.
    Leave,
    /// Asks the workload to end, again and again; it has until then.
    AskToStop(Instant),
    KillNow,
    /// Kills the workload's process without Docker.
    KillProcess,
    Arm(Timer, Duration),
    /// `claimed`: the datastore may hold something of the task.
    TearDown {
        workload: Workload,
        claimed: bool,
        fate: LifeFate,
    },
    /// It has ended and may be started again: its caller decides how long namespace, endpoint and address are held.
    Hold,
    Finish(LifeFate),
}
