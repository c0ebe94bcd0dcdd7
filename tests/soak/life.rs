//! One life with its fault, and what is left of it.

use std::time::{Duration, Instant};

use calico_mesos::mesos::messages::TaskState;
use nix::sys::signal::Signal;
use serde_json::{json, Value};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::bystanders::Bystanders;
use crate::fault::{is_way_back, Fault};
use crate::kit::steps::Actor;
use crate::kit::steps::Held;
use crate::kit::wait::at_most;
use crate::machine::{Given, Machine, Service};
use crate::plan::{app_of, Plan, Work};
use crate::processes;
use crate::proxied;
use crate::restored;
use crate::strike::strike;
use crate::world::task_info;

/// How long a life may take to come to the step.
pub const COMING: Duration = Duration::from_secs(30);
/// After an owner's death nothing may be left.
pub const CLEAN: Duration = Duration::from_secs(60);
/// How long a life may take to end when it has been told to.
pub const ENDING: Duration = Duration::from_secs(100);
/// Between two kills.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// How long a task may do what it likes once it has been struck.
const FREE: Duration = Duration::from_secs(4);

/// The tasks of one life.
pub struct Lives {
    pub app: Value,
    pub first: Given,
    /// A second launch, a task beside it.
    pub others: Vec<Given>,
}

/// What one life came to.
#[derive(Default)]
pub struct Verdict {
    /// What was done; none when the step was not reached, or there was nothing to strike.
    pub struck: Option<String>,
    pub outcome: String,
    pub leaks: Vec<String>,
    pub doubles: Vec<String>,
    /// Seconds from the owner's death until nothing was left.
    pub cleaned: f32,
    /// For whoever has to find out why.
    pub evidence: String,
}

pub async fn live(machine: &mut Machine, bystanders: &mut Bystanders, plan: &Plan) -> Verdict {
    if plan.actor == Actor::Proxy {
        return proxied::live(machine, bystanders, plan).await;
    }
    let problems = machine.world.agent.problems().len();
    let mut others = Vec::new();
    if let Some(way) = plan.companion {
        let info = task_info(&app_of("/companion", way, "exec sleep 1000", json!({})));
        let companion = machine.launch(info).await;
        // What becomes of a start without Calico while Docker dies is Docker's and the agent's to mend.
        at_most(COMING, async || machine.is_running(&companion)).await;
        others.push(companion);
    }
    machine.steps.passed();
    machine.gc_log();
    let app = plan.app(&fixed(bystanders, plan.offset));
    let info = task_info(&app);
    let (step, actor) = match plan.actor {
        Actor::Executor | Actor::Proxy => (plan.step, Actor::Executor),
        Actor::Cleaner => (plan.dies, Actor::Executor),
    };
    let backs_up = plan.fault == Fault::RestoreEtcd;
    if backs_up && plan.backup.is_none() {
        restored::back_up(machine);
    }
    let first_step = plan.backup.unwrap_or(step);
    let trap = machine.steps.set(&info.task_id.value, first_step, actor);
    let early = plan.fault == Fault::FillDisk && plan.coin;
    if early {
        machine.take(Service::Disk).await;
    }
    let first = machine.launch(info).await;
    let mut lives = Lives { app, first, others };
    let mut struck = match early {
        true => {
            sleep(plan.pause * 4).await;
            machine.restore().await;
            Some("before the launch".to_owned())
        }
        false => None,
    };
    let mut held = come(machine, plan, &lives, trap, is_way_back(first_step)).await;
    if plan.backup.is_some() {
        if let Some(owner) = held.take() {
            restored::back_up(machine);
            let trap = machine.steps.set(&lives.first.id, step, actor);
            drop(owner);
            // Killed once is enough.
            let to_its_end = is_way_back(step) && !is_way_back(first_step);
            held = come(machine, plan, &lives, trap, to_its_end).await;
        }
    }
    if plan.actor == Actor::Cleaner {
        if let Some(owner) = held.take() {
            let trap = machine.steps.set(&lives.first.id, plan.step, Actor::Cleaner);
            processes::signal(owner.pid, Signal::SIGKILL);
            drop(owner);
            held = be_cleaned(machine, trap).await;
        }
    }
    if let (Some(held), false) = (held, early) {
        struck = strike(machine, plan, &mut lives, held).await;
    }
    machine.steps.clear();
    finish(machine, plan, &lives).await;
    machine.restore().await;
    bystanders.heal(machine).await;
    if plan.companion.is_some() {
        // Whatever became of it, of a task without Calico its container is the agent's alone.
        remove_containers(machine, &lives.others[..1]).await;
    }
    let mut verdict = Verdict { struck, ..Verdict::default() };
    settle(machine, bystanders, plan, &lives, &mut verdict).await;
    let problems = machine.world.agent.problems().split_off(problems);
    for problem in problems {
        match problem.contains("behind its terminal") {
            true => verdict.doubles.push(problem),
            false => verdict.leaks.push(format!("the agent complains: {problem}")),
        }
    }
    remove_containers(machine, &lives.others).await;
    remove_containers(machine, std::slice::from_ref(&lives.first)).await;
    verdict
}

/// An address in the block of the bystander's.
pub fn fixed(bystanders: &Bystanders, offset: u8) -> String {
    let address: std::net::Ipv4Addr = bystanders.addresses[0].parse().unwrap();
    let [a, b, c, d] = address.octets();
    let wanted = (d & 0xc0) + offset;
    let free = if wanted == d { wanted + 1 } else { wanted };
    std::net::Ipv4Addr::from([a, b, c, free]).to_string()
}

/// Waits until the life comes to its trap; `to_its_end`: it is brought there.
async fn come(
    machine: &mut Machine,
    plan: &Plan,
    lives: &Lives,
    mut trap: oneshot::Receiver<Held>,
    to_its_end: bool,
) -> Option<Held> {
    let mut asked = false;
    let mut over = None;
    let came = at_most(COMING, async || {
        if let Ok(held) = trap.try_recv() {
            return Some(Some(held));
        }
        if machine.is_gone(&lives.first).await {
            // What it said last may still be on its way.
            if over.get_or_insert_with(Instant::now).elapsed() > Duration::from_millis(300) {
                return Some(None);
            }
        }
        if to_its_end && !asked && plan.work == Work::Sleeps && machine.is_running(&lives.first) {
            asked = true;
            machine.world.agent.kill(&lives.first.id, Some(plan.grace)).await.unwrap();
        }
        machine.tick();
        None
    });
    came.await.flatten()
}

/// Waits until a cleaner comes to the trap.
async fn be_cleaned(machine: &mut Machine, mut trap: oneshot::Receiver<Held>) -> Option<Held> {
    let look = async || {
        machine.tick();
        trap.try_recv().ok()
    };
    at_most(COMING, look).await
}

/// Lives on as planned, and comes to an end in any case; the timer goes on meanwhile.
async fn finish(machine: &mut Machine, plan: &Plan, lives: &Lives) {
    let begun = Instant::now();
    let tasks: Vec<&Given> = std::iter::once(&lives.first).chain(&lives.others).collect();
    let mut asked: Vec<Option<Instant>> = vec![None; tasks.len()];
    let ended = async || {
        let mut alive = false;
        for (task, asked) in tasks.iter().zip(&mut asked) {
            if machine.is_gone(task).await {
                continue;
            }
            alive = true;
            let ends_itself = plan.work != Work::Sleeps && begun.elapsed() < FREE * 2;
            let due = machine.is_running(task) && !ends_itself || begun.elapsed() > FREE;
            // Marathon asks again too: an agent that has just come back may have nobody to pass it on to.
            let asked_lately = asked.is_some_and(|at| at.elapsed() < ASK_AGAIN);
            if due && !asked_lately && machine.ends(task) == 0 {
                *asked = Some(Instant::now());
                // It may be ending by itself at this moment.
                let _ = machine.world.agent.kill(&task.id, Some(plan.grace)).await;
            }
        }
        machine.tick();
        !alive
    };
    at_most(ENDING, ended).await;
}

/// Nothing may be left, nothing of others may be gone, and everybody has ended once.
async fn settle(
    machine: &mut Machine,
    bystanders: &mut Bystanders,
    plan: &Plan,
    lives: &Lives,
    verdict: &mut Verdict,
) {
    let booted = plan.fault == Fault::Reboot && verdict.struck.is_some();
    let begun = Instant::now();
    let (mut left, mut gone) = (Vec::new(), Vec::new());
    at_most(CLEAN, async || {
        (left, gone) = bystanders.compare(machine, booted).await;
        machine.tick();
        left.is_empty() && gone.is_empty()
    })
    .await;
    machine.quiet().await;
    verdict.cleaned = begun.elapsed().as_secs_f32();
    if !booted {
        verdict.leaks.extend(bystanders.unreached());
    }
    let mut tasks: Vec<(String, Given)> = vec![("life".into(), lives.first.clone())];
    tasks.extend(lives.others.iter().map(|task| ("other".to_owned(), task.clone())));
    if booted {
        tasks.extend(bystanders.tasks().into_iter().map(|task| ("bystander".to_owned(), task)));
    }
    for (who, task) in &tasks {
        match machine.ends(task) {
            0 => verdict.leaks.push(format!("{who} {}: no terminal update", task.id)),
            1 => {}
            more => verdict.doubles.push(format!("{who} {}: {more} terminal updates", task.id)),
        }
    }
    verdict.outcome = outcome(machine, &lives.first);
    verdict.leaks.extend(left.iter().map(|thing| format!("left: {thing}")));
    verdict.leaks.extend(gone.iter().map(|thing| format!("gone: {thing}")));
    verdict.leaks.extend(missing_container(machine, plan, lives).await);
    verdict.leaks.append(&mut machine.complaints);
    for (who, task) in &tasks {
        let log = task.log();
        let panics = log.lines().filter(|line| line.contains("panicked at") || line.contains("CM-INTERNAL"));
        verdict.leaks.extend(panics.map(|line| format!("{who}: {line}")));
    }
    if let (true, Some(undone)) = (left.is_empty(), machine.undone().await) {
        verdict.leaks.extend(undone.lines().map(|line| format!("a cleaner would still: {line}")));
    }
    if !verdict.leaks.is_empty() || !verdict.doubles.is_empty() {
        verdict.evidence = evidence(machine, &tasks);
    }
    bystanders.tell(&left);
    if booted {
        bystanders.return_after_boot(machine).await;
    }
}

fn outcome(machine: &Machine, task: &Given) -> String {
    let history = machine.world.agent.history(&task.id);
    let last = history.iter().rev().find(|update| update.status.state().is_terminal());
    match last {
        Some(update) => {
            let message = update.status.message.clone().unwrap_or_default();
            let state = format!("{:?}", update.status.state()).replace("Task", "");
            format!("{state}: {}", message.chars().take(48).collect::<String>())
        }
        None => "nothing".into(),
    }
}

/// The container of a task that ran stays until the agent removes it.
async fn missing_container(machine: &Machine, plan: &Plan, lives: &Lives) -> Option<String> {
    let ran = machine.states(&lives.first).contains(&TaskState::TaskRunning);
    if plan.way != crate::plan::Way::DropIn || !ran {
        return None;
    }
    let name = format!("mesos-{}", lives.first.launched.container_id);
    let asked = machine.world.stack.docker.request("GET", &format!("/containers/{name}/json"), b"").await;
    matches!(asked, Ok((404, _))).then(|| format!("gone: the exited container {name}"))
}

/// As the agent does a while later.
async fn remove_containers(machine: &Machine, tasks: &[Given]) {
    for task in tasks {
        remove(machine, &format!("mesos-{}", task.launched.container_id)).await;
    }
}

async fn remove(machine: &Machine, container: &str) {
    let path = format!("/containers/{container}?force=1&v=1");
    // Gone already, or never made.
    let _ = machine.world.stack.docker.request("DELETE", &path, b"").await;
}

fn evidence(machine: &Machine, tasks: &[(String, Given)]) -> String {
    let mut text = format!("steps: {}\n", machine.steps.passed().join(", "));
    for (who, task) in tasks {
        text.push_str(&format!(
            "--- {who} {} {:?}\n{}",
            task.id,
            machine.states(task),
            tail(&task.log(), 40)
        ));
    }
    let idle = ["nothing to clean up", "not written by calico-mesos", "WHY", "skipped"];
    let gc: String = machine
        .gc_log()
        .lines()
        .filter(|line| !idle.iter().any(|words| line.contains(words)))
        .map(|line| format!("{line}\n"))
        .collect();
    text.push_str(&format!("--- gc\n{}", tail(&gc, 15)));
    text
}

pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| format!("{line}\n")).collect()
}
