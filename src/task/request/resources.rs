//! CPU and memory. Mesos counts memory in MiB and Docker in bytes; CPU quotas are microseconds for each
//! period of 100 ms.

use super::{invalid, Context};
use crate::error::Failure;
use crate::mesos::messages::TaskInfo;
use crate::task::request::calico::shown;
use crate::workload::ContainerSpec;

const SHARES_PER_CPU: f64 = 1024.0;
const MIN_SHARES: f64 = 2.0;
const PERIOD_US: f64 = 100_000.0;
const MIN_QUOTA_US: f64 = 1_000.0;
const MIB: f64 = 1_048_576.0;
const MIN_MEMORY_MIB: f64 = 32.0;
/// Far beyond every machine, far below what an f64 holds exactly in bytes.
const MAX_CPUS: f64 = 1e6;
const MAX_MEMORY_MIB: f64 = 1e9;
const MAX_OOM_SCORE: f64 = 1000.0;

pub(super) fn apply(task: &TaskInfo, context: &Context<'_>, spec: &mut ContainerSpec) -> Result<(), Failure> {
    let cpus = requested(task, "cpus", MAX_CPUS)?;
    let cpu_limit = limit(task, "cpus", MAX_CPUS)?;
    spec.cpu_shares = cpus.map(|cpus| (SHARES_PER_CPU * cpus).max(MIN_SHARES) as i64);
    let quota = match cpu_limit {
        Some(limit) => limit.is_finite().then_some(limit),
        None => cpus.filter(|_| context.cfs_quota),
    };
    spec.cpu_quota = quota.map(|cpus| (PERIOD_US * cpus).max(MIN_QUOTA_US) as i64);

    let Some(request) = requested(task, "mem", MAX_MEMORY_MIB)? else { return Ok(()) };
    let bytes = |mib: f64| (mib.max(MIN_MEMORY_MIB) * MIB) as i64;
    let Some(limit) = limit(task, "mem", MAX_MEMORY_MIB)? else {
        spec.memory = Some(bytes(request));
        return Ok(());
    };
    if limit < request {
        return Err(invalid(format!("the memory limit of {limit} MB is below the requested {request} MB")));
    }
    spec.memory = limit.is_finite().then(|| bytes(limit));
    spec.memory_reservation = Some(bytes(request));
    if let Some(memory) = context.memory.filter(|memory| *memory > 0 && request < limit) {
        // A task that requested little and takes more is killed first. Rounded as Mesos does it.
        let share = (MAX_OOM_SCORE * request * MIB / memory as f64).floor();
        spec.oom_score_adj = Some((MAX_OOM_SCORE - share).clamp(0.0, MAX_OOM_SCORE) as i64);
    }
    Ok(())
}

/// For a task that the agent itself limits: whether its amounts are possible ones.
pub(super) fn check(task: &TaskInfo) -> Result<(), Failure> {
    for (name, max) in [("cpus", MAX_CPUS), ("mem", MAX_MEMORY_MIB)] {
        requested(task, name, max)?;
        limit(task, name, max)?;
    }
    Ok(())
}

/// A scalar resource, summed up over roles and reservations; that of an executor is part of it.
fn requested(task: &TaskInfo, name: &str, max: f64) -> Result<Option<f64>, Failure> {
    let executors = task.executor.iter().flat_map(|executor| &executor.resources);
    let mut sum = None;
    for resource in task.resources.iter().chain(executors).filter(|resource| resource.name == name) {
        let Some(scalar) = &resource.scalar else {
            return Err(invalid(format!("the resource {} has no number", shown(name))));
        };
        let value = sum.unwrap_or(0.0) + checked(name, scalar.value, max)?;
        sum = Some(checked(name, value, max)?);
    }
    Ok(sum)
}

/// A limit of the task's own; may be infinite.
fn limit(task: &TaskInfo, name: &str, max: f64) -> Result<Option<f64>, Failure> {
    match task.limits.get(name) {
        None => Ok(None),
        Some(limit) if limit.value == f64::INFINITY => Ok(Some(f64::INFINITY)),
        Some(limit) => checked(name, limit.value, max).map(Some),
    }
}

fn checked(name: &str, value: f64, max: f64) -> Result<f64, Failure> {
    match (0.0..=max).contains(&value) {
        true => Ok(value),
        false => Err(invalid(format!("{value} is not a possible amount of the resource {name}"))),
    }
}

/// The host's memory in bytes, for [`super::describe`].
pub fn total_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
