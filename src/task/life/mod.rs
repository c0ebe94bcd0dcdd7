//! One task's life: kills come in, changes go out, and exactly one outcome ends it.
//!
//! ```text
//!  way in ── Order, Kill ──► driver ── Event ──► state      what happens next (pure)
//!         ◄─ LifeChange, Ended ──│  ◄── Effect ──┘
//!                               │──► setup      the work of each job in the table; admission: of the first
//!                               └──► ending     the outcome, and the teardown
//! ```
//!
//! A life does not depend on the way in: each way in feeds it an [`Order`] and translates its [`LifeChange`]s. One life
//! is one start to one end; starting again is its caller's business. A task without CALICO variables goes through the
//! same states without the journal, the namespace and the gate, and touches neither etcd nor Consul: its kind has fewer
//! jobs. Start with `state`, which draws the states.
//!
//! [`LifeChange`]: crate::task::channel::LifeChange

mod admission;
mod consul_entries;
mod driver;
mod ending;
mod event;
mod setup;
mod state;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::limits::CUSTOM_BEFORE_UPDATE;

use crate::task::channel::{Ended, LifeChannel, Order};
use crate::task::request::is_named_by_us;

/// Lives the task to its end.
pub async fn live(order: Order, channel: LifeChannel) -> Ended {
    for note in &order.description.notes {
        tracing::warn!("{note}");
    }
    let by_custom_executor = is_named_by_us(&order.name, &order.container);
    let ended = driver::drive(Arc::new(order), channel).await;
    match by_custom_executor {
        true => ended.finished_within(CUSTOM_BEFORE_UPDATE).await,
        false => ended,
    }
}
