//! One life of a container that a client has made through the Docker API proxy, beside the executors of this machine.

use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;

use crate::bystanders::Bystanders;
use crate::fault::{is_way_back, Fault};
use crate::kit::docker_proxy::docker_at;
use crate::kit::steps::{Actor, Held};
use crate::kit::wait::at_most;
use crate::life::{fixed, tail, Verdict, CLEAN, COMING};
use crate::machine::Machine;
use crate::plan::{Plan, Work};
use crate::strike::{kill_workload, strike_service};
use crate::world::sh;

/// Pauses between starts made again grow to a minute.
const BACK: Duration = Duration::from_secs(100);

pub async fn live(machine: &mut Machine, bystanders: &mut Bystanders, plan: &Plan) -> Verdict {
    machine.steps.passed();
    machine.gc_log();
    let log = machine.docker_proxy.log().len();
    let name = format!("soak-{}", plan.seed);
    let trap = machine.steps.set(&name, plan.step, Actor::Proxy);
    let words = plan.container(&name, &fixed(bystanders, plan.offset));
    let mut client = spawn(&machine.docker_proxy.socket, &words);
    let held = come(machine, plan, &name, trap).await;
    let mut verdict = Verdict::default();
    if let Some(held) = held {
        verdict.struck = match plan.fault {
            Fault::KillWorkload => kill_workload(machine, &name, None),
            _ => strike_service(machine, plan, held).await.ok(),
        };
    }
    machine.steps.clear();
    machine.restore().await;
    machine.docker_proxy.revive().await;
    bystanders.heal(machine).await;
    let ended = at_most(BACK, async || {
        machine.tick();
        client.try_wait().ok().flatten()
    });
    let started = ended.await.is_some_and(|status| status.success());
    let _ = client.kill();
    let _ = client.wait();
    if started && plan.work == Work::Sleeps && !is_way_back(plan.step) {
        verdict.leaks.extend(is_back(machine, &name).await);
    }
    verdict.outcome = state(machine, &name).await;
    remove(machine, &name).await;
    settle(machine, bystanders, &mut verdict).await;
    if !verdict.leaks.is_empty() {
        let all = machine.docker_proxy.log();
        let own = all.get(log..).unwrap_or(&all);
        let steps = machine.steps.passed().join(", ");
        verdict.evidence = format!("steps: {steps}\n{}", tail(own, 40));
    }
    verdict
}

/// The docker command, which is not waited for.
fn spawn(socket: &std::path::Path, words: &[String]) -> Child {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    docker_at(socket, &words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Waits until the life comes to its trap; to a step of its end it is brought.
async fn come(
    machine: &mut Machine,
    plan: &Plan,
    name: &str,
    mut trap: oneshot::Receiver<Held>,
) -> Option<Held> {
    let mut asked = false;
    let came = at_most(COMING, async || {
        if let Ok(held) = trap.try_recv() {
            return Some(held);
        }
        if is_way_back(plan.step) && !asked && inspect(machine, name).await["State"]["Running"] == true {
            asked = true;
            let words = ["kill", name].map(str::to_owned);
            let _ = spawn(&machine.world.stack.docker.socket, &words).wait();
        }
        machine.tick();
        None
    });
    came.await
}

async fn inspect(machine: &Machine, name: &str) -> Value {
    let path = format!("/containers/{name}/json");
    let answer = machine.world.stack.docker.request("GET", &path, b"").await;
    answer.ok().and_then(|(_, text)| serde_json::from_str(&text).ok()).unwrap_or_default()
}

async fn state(machine: &Machine, name: &str) -> String {
    let seen = inspect(machine, name).await;
    let text = |value: &Value| value.as_str().unwrap_or_default().chars().take(40).collect::<String>();
    format!("{} {}", text(&seen["State"]["Status"]), text(&seen["State"]["Error"]))
}

/// What Docker is to restart always, and what a client has started, runs again with an address that answers.
async fn is_back(machine: &mut Machine, name: &str) -> Option<String> {
    let mut why = String::new();
    let back = at_most(BACK, async || {
        machine.tick();
        let output = machine.docker_proxy.docker(&["inspect", name]).stdout;
        let seen = serde_json::from_slice::<Value>(&output).unwrap_or_default()[0].take();
        let address = &seen["NetworkSettings"]["Networks"]["bridge"]["IPAddress"];
        let address = address.as_str().unwrap_or_default().to_owned();
        why = format!("{} '{address}'", seen["State"]);
        seen["State"]["Running"] == true
            && !address.is_empty()
            && sh(&format!("busybox ping -c 1 -W 2 {address}")).contains(" 0% packet loss")
    });
    match back.await {
        Some(()) => None,
        None => Some(format!("it does not run and answer again: {why}")),
    }
}

/// Docker may be busy with its start still.
async fn remove(machine: &mut Machine, name: &str) {
    at_most(BACK, async || {
        machine.tick();
        machine.docker_proxy.docker(&["rm", "-f", "-v", name]);
        inspect(machine, name).await.get("Id").is_none()
    })
    .await;
}

/// Nothing may be left, and nothing of others may be gone.
async fn settle(machine: &mut Machine, bystanders: &mut Bystanders, verdict: &mut Verdict) {
    let begun = std::time::Instant::now();
    let (mut left, mut gone) = (Vec::new(), Vec::new());
    at_most(CLEAN, async || {
        (left, gone) = bystanders.compare(machine, false).await;
        machine.tick();
        left.is_empty() && gone.is_empty()
    })
    .await;
    machine.quiet().await;
    verdict.cleaned = begun.elapsed().as_secs_f32();
    verdict.leaks.extend(bystanders.unreached());
    verdict.leaks.extend(left.iter().map(|thing| format!("left: {thing}")));
    verdict.leaks.extend(gone.iter().map(|thing| format!("gone: {thing}")));
    verdict.leaks.append(&mut machine.complaints);
    if let (true, Some(undone)) = (left.is_empty(), machine.undone().await) {
        verdict.leaks.extend(undone.lines().map(|line| format!("a cleaner would still: {line}")));
    }
    bystanders.tell(&left);
}
