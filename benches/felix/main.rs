//! How fast a task gets its address beside Calico's own Felix: the last part of `make test-peers`.
//!
//! Interleaved in one run: a launch through the real executor, and `docker create` + `docker start` of the same
//! container on the host's network. Felix programs each endpoint meanwhile, on the same processors. Once with the wait
//! for its report and once without, so that the difference shows what the wait alone takes. Prints a goal line and
//! never fails: how fast Felix is depends on its version.

#[path = "../launch/figures.rs"]
mod figures;
#[path = "../launch/pipes.rs"]
mod pipes;
#[path = "../launch/reference.rs"]
mod reference;

#[path = "../../tests/calico_peers/felix.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod felix;
#[path = "../../tests/kit/mod.rs"]
mod kit;
#[path = "../../tests/calico_peers/kube.rs"]
mod kube;
#[path = "../../tests/calico_peers/lab.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod lab;
#[path = "../../tests/calico_peers/programs.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod programs;

use calico_mesos::mesos::messages::TaskState;
use calico_mesos::rig::agent::Direction;
use figures::{header, Figure, Goal};
use kit::{netlab, world};
use lab::Lab;

const ROUNDS: usize = 25;
const WARM_UP: usize = 3;

fn main() {
    // `cargo test --benches` runs nothing here.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let [waiting, off] = ["best-effort", "off"].map(|wait| runtime.block_on(measure(wait)));
    println!("{}", header());
    for ((launch, host), wait) in [(&waiting, "best-effort"), (&off, "off")] {
        println!("{}", launch.row(&format!("LAUNCH to the first instruction, policy.wait = {wait}"), "ms"));
        println!("{}", host.row("docker create + start, network host", "ms"));
    }
    let ratio = |(launch, host): &(Figure, Figure)| launch.median() / host.median();
    println!("{}", Goal::new("launch-beside-felix-to-host-ratio", ratio(&waiting), 1.2));
    println!("launch beside Felix without waiting for it, to host: {:.2}", ratio(&off));
}

/// Launches beside a Felix, and the same container without us.
async fn measure(wait: &str) -> (Figure, Figure) {
    let lab = Lab::new(&[("policy.wait", &format!("\"{wait}\""))]).await;
    let _felix = lab.felix().await;
    let mut app = world::app("/bench", pipes::COMMAND, world::calico());
    app["portDefinitions"] = serde_json::json!([]);
    let (mut launches, mut references) = (Figure::default(), Figure::default());
    for round in 0..WARM_UP + ROUNDS {
        let task = lab.world.launch(&app).await;
        let started = pipes::watch_pipes(&task.launched.sandbox);
        let first_instruction = started.await.expect("the task starts");
        let records = lab.world.agent.records();
        let mut own = records.iter().filter(|record| record.at >= task.launched.at);
        let handed_over = own.find(|record| {
            record.direction == Direction::ToExecutor && record.name == "mesos.internal.RunTaskMessage"
        });
        let launch = first_instruction.duration_since(handed_over.expect("it was launched").at);
        task.reaches(TaskState::TaskRunning).await;
        pipes::let_end(&task.launched.sandbox).await;
        task.ends().await;
        task.executor_exit().await;
        // The container itself is the agent's to remove, and removing it takes time of the next round.
        lab.world.nothing_left().await;
        let reference = reference::create_and_start(&lab.world.stack, "host", round).await;
        if round >= WARM_UP {
            launches.add(launch);
            references.add(reference);
        }
    }
    (launches, references)
}
