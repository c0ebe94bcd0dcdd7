//! The texts with which a plan names things and their states.

use std::time::{Duration, SystemTime};

use crate::names::ContainerId;
use crate::task::cleaner::seen::{Death, Survey, Trace};
use crate::task::record::journal::{Backing, Record};
use crate::workload::ContainerState;

use super::SHORT;

pub(super) fn why_dead(record: &Record, death: Death, trace: &Trace) -> String {
    let pid = record.owner.pid;
    let owner = match death {
        Death::Died => format!("executor pid {pid} dead"),
        Death::Rebooted => "host rebooted since".to_owned(),
        Death::LetGo => format!("executor pid {pid} has given it up"),
    };
    let workload = match (&record.backing, trace.container.as_ref().map(|its| its.state)) {
        (Backing::Process, _) if trace.folder.as_ref().is_some_and(|folder| folder.inhabited) => {
            "command runs"
        }
        (Backing::Process, _) => "command over",
        (Backing::Container { .. }, None) => "no container",
        (_, Some(ContainerState::NeverStarted)) => "container never started",
        (_, Some(ContainerState::Living)) => "container runs",
        (_, Some(ContainerState::Lost)) => "container ended, which Docker has missed",
        (_, Some(ContainerState::Exited)) => "container exited",
    };
    format!("{owner}, {workload}")
}

pub(super) fn service_name(service: &crate::consul::Service, container: &ContainerId) -> String {
    format!("{} ({})", service.name, short(container.as_str(), container))
}

/// A name with the container's id cut to what people need.
pub(super) fn short(name: &str, container: &ContainerId) -> String {
    name.replace(container.as_str(), &container.as_str()[..SHORT])
}

/// A time in the future is of a clock that was set back: as young as can be.
pub(super) fn age(survey: &Survey, time: Option<SystemTime>) -> Option<Duration> {
    Some(survey.now.duration_since(time?).unwrap_or_default())
}
