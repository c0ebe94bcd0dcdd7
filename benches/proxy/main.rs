//! How fast the Docker API proxy is beside Docker's own socket: the second part of `make bench`.
//!
//! Interleaved in one run against one private dockerd, so that whatever slows the machine down slows both ways alike:
//!
//! | what | this way | and that way |
//! | --- | --- | --- |
//! | small calls | `GET /_ping`, and inspect of a plain container, over a kept connection | the same at Docker's socket |
//! | transfers | the docker command's `cp`, `save` and `load` | the same at Docker's socket |
//! | open streams | 1000 of them through the proxy | none: memory alone counts |
//! | a Calico container | create and start through the proxy, to its first instruction | a task's LAUNCH to the same |
//!
//! Needs root and a network namespace of its own, which `make bench` gives it. Ends with one line a goal, and with exit
//! code 1 when one is missed.

#[path = "../launch/figures.rs"]
mod figures;
#[path = "../launch/pipes.rs"]
mod pipes;
#[path = "../launch/profile.rs"]
#[allow(dead_code, reason = "the launch bench needs more of it")]
mod profile;
#[path = "../launch/world.rs"]
#[allow(dead_code, reason = "the launch bench needs more of it")]
mod world;

mod calls;
mod client;
mod program;
mod starts;
mod streams;
mod transfers;

use std::process::ExitCode;
use std::time::Instant;

use figures::{header, Goal};
use program::Program;
use world::World;

fn main() -> ExitCode {
    // `cargo bench` hands over flags that only its own harness knows; `cargo test --benches` runs nothing here.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let goals = runtime.block_on(async {
        let begin = Instant::now();
        let world = World::start().await;
        let proxy = Program::start(&world.stack).await;
        let calls = calls::measure(&world.stack, &proxy).await;
        let starts = starts::measure(&world, &proxy).await;
        let transfers = transfers::measure(&world.stack, &proxy).await;
        let streams = streams::measure(&world.stack, &proxy).await;
        proxy.stop();
        world.stop().await;

        println!("{}", header());
        calls.print();
        transfers.print();
        streams.print();
        starts.print();
        println!("\nmeasured in {} s\n", begin.elapsed().as_secs());
        [calls.goals(), transfers.goals(), streams.goals(), starts.goals()].concat()
    });
    goals.iter().for_each(|goal| println!("{goal}"));
    if goals.iter().all(Goal::is_met) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
