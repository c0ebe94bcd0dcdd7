//! The fault harness: lives through many task lives, does something to each at one of its steps, and looks
//! what is left.
//!
//! ```text
//!  SEED ──► deck of faults, a seed a life ──► Plan: way in (an executor's, or the Docker API proxy), network,
//!                                              │    workload, step, fault
//!  Steps: the step is reached, the life held up ──► strike ──► services back, the cleaner's timer ──► census
//! ```
//!
//! `LIVES`, `SEED` and `LIFE` (one life of an earlier run, again, by its own seed or by its number in the run of
//! `SEED`) come from the environment. Anything left behind, reported twice or, in a large run, never struck is a
//! failure. Interrupted, a run ends everything that it has started; `cargo test` tries that too, and
//! `cargo test --test soak interrupted` that alone.

mod bystanders;
mod census;
mod fault;
mod interrupt;
mod interrupted;
#[path = "../kit/mod.rs"]
mod kit;
mod life;
mod machine;
mod plan;
mod processes;
mod proxied;
mod restored;
mod strike;
mod table;

use kit::{proxy, world};

use std::process::ExitCode;

use fastrand::Rng;

use crate::bystanders::Bystanders;
use crate::fault::Fault;
use crate::machine::Machine;
use crate::plan::Plan;
use crate::table::Table;

/// What `cargo test` does: every fault comes up.
const LIVES: usize = Fault::ALL.len();
const SEED: u64 = 5;
/// A smaller LIFE is the number of a life: seeds have more digits.
const NUMBERS: u64 = 100_000;
/// As a shell tells the end by Ctrl-C.
pub const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |name: &str| filters.iter().all(|filter| name.contains(filter.as_str()));
    // Not where a run is asked for, such as those that the test itself starts.
    let is_test = ["SEED", "LIVES", "LIFE"].iter().all(|name| std::env::var_os(name).is_none());
    if std::env::args().any(|word| word == "--list") {
        for name in ["interrupted", "soak"].into_iter().filter(|name| wanted(name)) {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if is_test && wanted("interrupted") {
        interrupted::test();
    }
    // Filters of `cargo test` that mean other tests.
    if !wanted("soak") {
        return ExitCode::SUCCESS;
    }
    let number =
        |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| text.parse());
    let (Ok(seed), Ok(lives), Ok(life)) =
        (number("SEED").transpose(), number("LIVES").transpose(), number("LIFE").transpose())
    else {
        eprintln!("soak: SEED, LIVES and LIFE are numbers");
        return ExitCode::from(64);
    };
    let seed = seed.unwrap_or(SEED);
    let lives = lives.map(|lives| lives as usize);
    let of_number = |life: u64| match life {
        1..NUMBERS => plans(seed, life as usize).pop(),
        seed => Plan::of(seed),
    };
    let plans = match life.map(of_number) {
        Some(Some(plan)) => vec![plan; lives.unwrap_or(1)],
        Some(None) => {
            eprintln!("soak: LIFE is neither the seed nor the number of a life");
            return ExitCode::from(64);
        }
        None => plans(seed, lives.unwrap_or(LIVES)),
    };
    println!("soak: {} lives, SEED={seed}", plans.len());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(plans))
}

fn interrupted_by(why: &str) -> ExitCode {
    eprintln!("soak: {why}; the daemons are ended");
    ExitCode::from(INTERRUPTED)
}

/// Faults are dealt from a shuffled deck, so that each comes up as often as the others.
fn plans(seed: u64, lives: usize) -> Vec<Plan> {
    let mut rng = Rng::with_seed(seed);
    let mut deck = Vec::new();
    let mut deal = || {
        if deck.is_empty() {
            deck = Fault::ALL.to_vec();
            rng.shuffle(&mut deck);
        }
        Plan::of(plan::seed(&mut rng, deck.pop()?))
    };
    (0..lives).map_while(|_| deal()).collect()
}

async fn run(plans: Vec<Plan>) -> ExitCode {
    let mut asked = std::pin::pin!(interrupt::asked());
    let mut machine = tokio::select! {
        machine = Machine::start() => machine,
        // Daemons that have been started already end with this.
        why = &mut asked => return interrupted_by(why),
    };
    println!("soak: data in {}", machine.world.stack.dir.display());
    let done = tokio::select! {
        done = live_all(&mut machine, &plans) => Ok(done),
        why = &mut asked => Err(why),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            interrupt::end(machine).await;
            interrupted_by(why)
        }
    }
}

/// True when all is well.
async fn live_all(machine: &mut Machine, plans: &[Plan]) -> bool {
    let mut bystanders = Bystanders::settle_in(machine).await;
    let mut table = Table::begin();
    for plan in plans {
        let verdict = life::live(machine, &mut bystanders, plan).await;
        table.row(plan, &verdict);
    }
    // Before their folders go, or they would write into them again.
    bystanders.leave(machine).await;
    table.end()
}
