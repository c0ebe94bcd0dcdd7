//! The proxy, or dockerd, dies at a certain step of a container's life.

use calico_mesos::task::report::steps::Step;
use nix::sys::signal::Signal;

use crate::kit::docker_proxy::docker_at;
use crate::kit::faults::{kill_dockerd, Freeze};
use crate::kit::steps::{Actor, Held, Steps};
use crate::lab::Lab;
use crate::wait::eventually;

/// The lab, with lives that can be held up.
async fn held_lab() -> (Lab, Steps) {
    let lab = Lab::new().await;
    let socket = lab.world.stack.dir.join("steps");
    let steps = Steps::listen(&socket);
    lab.world.configure("paths.steps", &format!("\"{}\"", socket.display()));
    (lab, steps)
}

/// The steps of one whole life, in their order: of its start, and of its end and the end of its linger time.
async fn all_steps(lab: &Lab, steps: &Steps) -> (Vec<Step>, Vec<Step>) {
    lab.run(&["--name", "web", "busybox", "sleep", "1000"]);
    lab.runs("web").await;
    lab.ok(&["kill", "web"]);
    lab.given_back().await;
    lab.ok(&["rm", "web"]);
    lab.nothing_left().await;
    passed(steps).partition(|step| *step < Step::Ended)
}

/// The container's steps since the last look, each once.
fn passed(steps: &Steps) -> impl Iterator<Item = Step> {
    let passed = steps.passed();
    let is_passed =
        move |step: &Step| passed.iter().any(|line| line.ends_with(&format!(" web {}", step.name())));
    Step::ALL.iter().copied().filter(is_passed)
}

async fn come(lab: &Lab, held: tokio::sync::oneshot::Receiver<Held>, step: Step) -> Held {
    let limit = tokio::time::timeout(crate::world::LIMIT, held).await;
    limit.unwrap_or_else(|_| panic!("no life comes to {}:\n{}", step.name(), lab.log())).unwrap()
}

/// Kills the proxy when its life has come to the step.
async fn kill_proxy_at(lab: &mut Lab, held: tokio::sync::oneshot::Receiver<Held>, step: Step) {
    let held = come(lab, held, step).await;
    lab.end_proxy(Signal::SIGKILL);
    drop(held);
}

/// Whatever is there when the proxy dies is taken over or taken down by the next one, and the container can be started.
#[tokio::test]
async fn a_proxy_that_is_killed_at_any_step_of_a_start_leaves_nothing_behind() {
    let (mut lab, steps) = held_lab().await;
    let (start, _) = all_steps(&lab, &steps).await;
    assert!(start.len() >= 12, "{start:?}");
    for step in start {
        let id = lab.ok(&["create", "--name", "web", "-e", "CALICO_IP=auto", "busybox", "sleep", "1000"]);
        let held = steps.set("web", step, Actor::Proxy);
        let mut start = lab.start_directly(&id);
        kill_proxy_at(&mut lab, held, step).await;
        // A start that has passed the gate succeeds without the proxy.
        let started = start.wait().unwrap().success();
        assert_eq!(started, step >= Step::Opened, "{}", step.name());
        lab.start_proxy().await;
        lab.starts_and_goes("web").await;
    }
}

#[tokio::test]
async fn a_proxy_that_is_killed_at_any_step_of_an_end_leaves_nothing_behind() {
    let (mut lab, steps) = held_lab().await;
    let (_, end) = all_steps(&lab, &steps).await;
    assert!(end.len() >= 4, "{end:?}");
    for step in end {
        lab.run(&["--name", "web", "busybox", "sleep", "1000"]);
        lab.runs("web").await;
        let held = steps.set("web", step, Actor::Proxy);
        assert!(lab.docker_directly(&["kill", "web"]).status.success());
        kill_proxy_at(&mut lab, held, step).await;
        lab.start_proxy().await;
        lab.given_back().await;
        lab.starts_and_goes("web").await;
    }
}

/// The same within the linger time, in which namespace and address of the life before are taken again.
#[tokio::test]
async fn a_proxy_that_is_killed_at_any_step_of_a_restart_leaves_nothing_behind() {
    let (mut lab, steps) = held_lab().await;
    lab.run(&["--name", "web", "busybox", "sleep", "1000"]);
    let address = lab.runs("web").await;
    steps.passed();
    lab.ok(&["restart", "-t", "0", "web"]);
    lab.runs("web").await;
    let again: Vec<Step> = passed(&steps).filter(|step| *step < Step::Ended).collect();
    assert!(again.len() >= 7, "{again:?}");
    for step in again {
        let held = steps.set("web", step, Actor::Proxy);
        lab.ok(&["kill", "web"]);
        let mut start = lab.start_directly("web");
        kill_proxy_at(&mut lab, held, step).await;
        let started = start.wait().unwrap().success();
        assert_eq!(started, step >= Step::Opened, "{}", step.name());
        lab.start_proxy().await;
        lab.ok(&["start", "web"]);
        assert_eq!(lab.runs("web").await, address, "{}", step.name());
    }
    lab.ok(&["rm", "-f", "web"]);
    lab.nothing_left().await;
}

/// containerd lets the container run, and the next dockerd does not know that: it refuses another start, and cannot stop
/// it. The proxy ends it, and makes the start that its restart policy asks for.
#[tokio::test]
async fn a_dockerd_that_is_killed_while_a_start_waits_at_the_gate_has_its_container_back() {
    let (mut lab, steps) = held_lab().await;
    lab.run(&["--name", "web", "--restart", "always", "busybox", "sleep", "1000"]);
    lab.runs("web").await;
    lab.ok(&["stop", "-t", "0", "web"]);
    let held = steps.set("web", Step::Waiting, Actor::Proxy);
    let mut start = lab.start_directly("web");
    let held = come(&lab, held, Step::Waiting).await;
    kill_dockerd(&lab.world.stack.docker);
    drop(held);
    assert!(!start.wait().unwrap().success());
    lab.world.stack.docker.restart_dockerd().await.unwrap();
    let refused = lab.fails(&["start", "web"]);
    assert!(refused.contains("already in use") || refused.contains("exists"), "{refused}");
    lab.runs("web").await;
    lab.ok(&["rm", "-f", "web"]);
    lab.nothing_left().await;
}

/// With its containerd, as when both are restarted: the waiting init is left behind, and nothing starts it any more.
#[tokio::test]
async fn a_docker_that_is_killed_whole_while_a_start_waits_at_the_gate_can_start_its_container() {
    let (mut lab, steps) = held_lab().await;
    lab.ok(&["create", "--name", "web", "-e", "CALICO_IP=auto", "busybox", "sleep", "1000"]);
    let held = steps.set("web", Step::Waiting, Actor::Proxy);
    let mut start = lab.start_directly("web");
    let held = come(&lab, held, Step::Waiting).await;
    lab.world.stack.docker.kill();
    drop(held);
    assert!(!start.wait().unwrap().success());
    lab.world.stack.docker.restart().await.unwrap();
    eventually("it can be started", async || match lab.docker(&["start", "web"]).status {
        status if status.success() => Ok(()),
        _ => Err(lab.log()),
    })
    .await;
    lab.runs("web").await;
    lab.ok(&["rm", "-f", "web"]);
    lab.nothing_left().await;
}

/// Docker goes on with a create whose proxy has died, and its client has heard of no container.
#[tokio::test]
async fn a_proxy_that_is_killed_during_a_create_leaves_no_container_that_cannot_start() {
    let mut lab = Lab::new().await;
    // Of others, and as alike as can be.
    let plain = lab.ok(&["create", "--network", "none", "-e", "X=1", "busybox", "sleep", "1000"]);
    let bound = lab.ok(&["create", "-e", "CALICO_IP=auto", "busybox", "sleep", "1000"]);
    lab.world.stack.docker.freeze();
    let words = ["create", "--name", "web", "-e", "CALICO_IP=auto", "busybox", "sleep", "1000"];
    let mut client = docker_at(lab.socket(), &words).env("DOCKER_API_VERSION", "1.41").spawn().unwrap();
    let notes = lab.world.config.paths.bindings();
    eventually("the create is noted", async || {
        let mut files = std::fs::read_dir(&notes).unwrap().flatten();
        files.any(|file| file.file_name().to_string_lossy().ends_with(".creating"))
    })
    .await;
    lab.end_proxy(Signal::SIGKILL);
    lab.world.stack.docker.thaw();
    assert!(!client.wait().unwrap().success());
    let there = || lab.docker_directly(&["ps", "-aq", "--no-trunc"]).stdout;
    let made = eventually("Docker makes it all the same", async || {
        let all = String::from_utf8(there()).unwrap();
        (all.lines().count() == 3).then_some(all).ok_or(lab.log())
    })
    .await;
    let web = lab.docker_directly(&["start", "web"]);
    assert!(String::from_utf8_lossy(&web.stderr).contains("remove it and make it anew"), "{made}: {web:?}");
    lab.start_proxy().await;
    eventually("it is removed", async || {
        let all = lab.ok(&["ps", "-aq", "--no-trunc"]);
        (all.lines().count() == 2).then_some(()).ok_or(format!("{all}\n{}", lab.log()))
    })
    .await;
    lab.ok(&words);
    lab.ok(&["start", "web"]);
    lab.runs("web").await;
    lab.ok(&["rm", "-f", "web", &plain, &bound]);
    lab.nothing_left().await;
}
