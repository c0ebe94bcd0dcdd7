//! Any order of clients' calls and of faults, beside an executor's task on the same host.
//!
//! `SEED` and `LIVES` (the number of steps) come from the environment, as for the soak of executors.

use std::collections::BTreeSet;

use fastrand::Rng;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::kit::faults::kill_dockerd;
use crate::lab::Lab;
use crate::wait::eventually;
use crate::world::{app, calico, sh};

const STEPS: u64 = 25;
const SEED: u64 = 11;
const POLICIES: [&str; 4] = ["no", "always", "on-failure:3", "unless-stopped"];

fn number(name: &str, otherwise: u64) -> u64 {
    let given = std::env::var(name).ok().filter(|text| !text.is_empty());
    given.map_or(otherwise, |text| text.parse().expect("SEED and LIVES are numbers"))
}

/// What can be done, or can happen.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Call(&'static [&'static str]),
    /// At Docker's own socket.
    Directly(&'static [&'static str]),
    MakeAnew,
    KillProxy,
    EndProxy,
    KillDocker,
    KillEtcd,
    Clean,
}

const DEEDS: [Deed; 14] = [
    Deed::Call(&["start"]),
    Deed::Call(&["stop", "-t", "0"]),
    Deed::Call(&["restart", "-t", "0"]),
    Deed::Call(&["kill"]),
    Deed::Call(&["pause"]),
    Deed::Call(&["unpause"]),
    Deed::Directly(&["start"]),
    Deed::Directly(&["stop", "-t", "0"]),
    Deed::MakeAnew,
    Deed::KillProxy,
    Deed::EndProxy,
    Deed::KillDocker,
    Deed::KillEtcd,
    Deed::Clean,
];

/// A call that fails, because something is away or the container is in another state, is as good as any other.
fn call(lab: &Lab, rng: &mut Rng, deed: Deed) {
    let which = rng.usize(..POLICIES.len());
    let name = format!("c{which}");
    match deed {
        Deed::Call(words) => drop(lab.docker(&[words, &[name.as_str()]].concat())),
        Deed::Directly(words) => drop(lab.docker_directly(&[words, &[name.as_str()]].concat())),
        Deed::MakeAnew => {
            lab.docker(&["rm", "-f", &name]);
            make(lab, which);
        }
        Deed::Clean => drop(lab.world.gc()),
        Deed::KillProxy | Deed::EndProxy | Deed::KillDocker | Deed::KillEtcd => {}
    }
}

fn make(lab: &Lab, which: usize) {
    let name = format!("c{which}");
    let script = if which == 2 { "sleep 1; exit 1" } else { "exec sleep 1000" };
    let variables = ["-e", "CALICO_IP=auto", "-e", "CALICO_PROFILE=dev"];
    let container = ["--name", &name, "--restart", POLICIES[which], "busybox", "sh", "-c", script];
    lab.docker(&[&["run", "-d"], &variables[..], &container[..]].concat());
}

/// Does it, and whatever else comes while it is done.
async fn happens(lab: &mut Lab, rng: &mut Rng, deed: Deed) {
    let meanwhile = DEEDS[rng.usize(..DEEDS.len())];
    match deed {
        Deed::KillProxy | Deed::EndProxy => {
            lab.end_proxy(if matches!(deed, Deed::KillProxy) { Signal::SIGKILL } else { Signal::SIGTERM });
            call(lab, rng, meanwhile);
            lab.start_proxy().await;
        }
        Deed::KillDocker => {
            kill_dockerd(&lab.world.stack.docker);
            lab.world.stack.docker.restart_dockerd().await.unwrap();
        }
        Deed::KillEtcd => {
            lab.world.stack.etcd.as_mut().unwrap().kill();
            call(lab, rng, meanwhile);
            lab.world.stack.etcd.as_mut().unwrap().restart().await.unwrap();
        }
        _ => call(lab, rng, deed),
    }
}

/// Each container that runs has an address of its own, which the datastore knows and which answers.
async fn is_well(lab: &Lab) -> Result<(), String> {
    let mut addresses = BTreeSet::new();
    let known: Vec<Value> =
        lab.world.endpoints().await.into_iter().map(|it| it["spec"]["ipNetworks"][0].clone()).collect();
    for which in 0..POLICIES.len() {
        let name = format!("c{which}");
        let seen = lab.docker(&["inspect", &name]);
        let seen = serde_json::from_slice::<Value>(&seen.stdout).unwrap_or_default()[0].take();
        // One that crashes is between two lives at most times.
        if seen["State"]["Running"] != true || which == 2 {
            continue;
        }
        let address = seen["NetworkSettings"]["Networks"]["bridge"]["IPAddress"].as_str().unwrap_or_default();
        if address.is_empty() || !addresses.insert(address.to_owned()) {
            return Err(format!("{name} runs with the address '{address}'"));
        }
        if !known.contains(&format!("{address}/32").into()) {
            return Err(format!("the datastore has no endpoint of {name} with {address}: {known:?}"));
        }
        let answers = sh(&format!("busybox ping -c 1 -W 2 {address}")).contains(" 0% packet loss");
        if seen["State"]["Paused"] != true && !answers {
            return Err(format!("{name} does not answer at {address}"));
        }
    }
    Ok(())
}

#[tokio::test]
async fn any_order_of_calls_and_faults_leaves_running_containers_well_and_nothing_behind() {
    let (seed, steps) = (number("SEED", SEED), number("LIVES", STEPS));
    println!("{steps} steps, SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let mut lab = Lab::beside_executors().await;
    let task = lab.world.launch(&app("/beside", "sleep 1000", calico())).await.id;
    (0..POLICIES.len()).for_each(|which| make(&lab, which));
    let mut done = Vec::new();
    for _ in 0..steps {
        let deed = DEEDS[rng.usize(..DEEDS.len())];
        done.push(format!("{deed:?}"));
        happens(&mut lab, &mut rng, deed).await;
        let what = "running containers are well";
        eventually(what, async || {
            let well = is_well(&lab).await;
            well.map_err(|why| format!("SEED={seed}: {why}\nafter {}\n{}", done.join(", "), lab.log()))
        })
        .await;
    }
    for which in 0..POLICIES.len() {
        lab.docker(&["rm", "-f", &format!("c{which}")]);
    }
    let _ = lab.world.agent.kill(&task, Some(std::time::Duration::ZERO)).await;
    eventually("nothing is left", async || {
        lab.world.gc();
        let left = lab.world.leftovers().await;
        let bindings = std::fs::read_dir(lab.world.config.paths.bindings()).map_or(0, Iterator::count);
        match left.is_empty() && bindings == 0 {
            true => Ok(()),
            false => {
                Err(format!("SEED={seed}: {left:?}, {bindings} bindings\n{}\n{}", done.join(", "), lab.log()))
            }
        }
    })
    .await;
}
