//! What the stock docker executor does, duty by duty, asked of ours: a kill, an exit, a flow of updates each.
//!
//! Every test runs once for a plain task and, where Calico could make a difference, once for a Calico task.
//! What other test programs show already is not shown again here; the README's table names the test of
//! every duty.

mod exits;
mod flow;
mod kills;
#[path = "../kit/mod.rs"]
mod kit;

use kit::world;

use calico_mesos::mesos::messages::{TaskState, TaskStatus};
use serde_json::{json, Value};
use world::Task;

/// The environments that every duty is tried with.
fn plain_and_calico() -> [Value; 2] {
    [json!({}), world::calico()]
}

/// The first update of this state.
fn update(task: &Task<'_>, state: TaskState) -> TaskStatus {
    let history = task.world.agent.history(&task.id);
    let found = history.into_iter().find(|update| update.status.state() == state);
    found.unwrap_or_else(|| panic!("no {} in {:?}", state.short(), task.states())).status
}
