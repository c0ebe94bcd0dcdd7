//! One task's life: kills come in, changes go out, and exactly one outcome ends it.
//!
//! ```text
//!  way in ── Order, Kill ──► driver ── Event ──► state      what happens next (pure)
//!         ◄─ LifeChange, Ended ──│  ◄── Effect ──┘
//!                               │──► setup      the work of each job in the table; admission: of the first
//!                               └──► ending     the outcome, and the teardown
//! ```
//!
//! A life does not depend on the way in: each way in feeds it an [`Order`] and translates its [`LifeChange`]s. One life is
//! one start to one end; starting again is its caller's business ([`live_again`]), and so is a container that runs
//! since before this program ([`live_on`]). A task without CALICO variables goes through the same
//! states without the journal, the namespace and the gate, and touches neither etcd nor Consul: its kind has fewer
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

use std::net::IpAddr;
use std::sync::Arc;

use crate::error::Failure;
use crate::limits::CUSTOM_BEFORE_UPDATE;

use crate::task::channel::{Ended, LifeChannel, Order};
use crate::task::network::{hardware_address, ports, Timing, Wired};
use crate::task::record::journal::JournalEntry;
use crate::task::request::is_named_by_us;

pub use ending::{HeldNetwork, LifeEnd};

/// Lives the task to its end.
pub async fn live(order: Order, channel: LifeChannel) -> Ended {
    for note in &order.description.notes {
        tracing::warn!("{note}");
    }
    let by_custom_executor = is_named_by_us(&order.name, &order.container);
    let ended = driver::drive(Arc::new(order), channel).await.ended;
    match by_custom_executor {
        true => ended.finished_within(CUSTOM_BEFORE_UPDATE).await,
        false => ended,
    }
}

/// Lives an adopted container's first start to its end.
pub async fn live_adopted(order: Order, channel: LifeChannel) -> LifeEnd {
    driver::drive(Arc::new(order), channel).await
}

/// Lives an adopted container's next start to its end, with what its life before still holds.
pub async fn live_again(held: HeldNetwork, channel: LifeChannel) -> LifeEnd {
    let HeldNetwork { admitted, wired } = held;
    driver::drive_again(admitted.again(), wired, channel).await
}

/// Lives a container of others that runs with these addresses to its end. Its record has had another owner.
pub async fn live_on(
    entry: JournalEntry,
    order: Order,
    addresses: Vec<IpAddr>,
    channel: LifeChannel,
) -> Result<LifeEnd, Failure> {
    let admitted = admission::go_on(entry, order)?;
    let forward = ports::forward(
        &admitted.config,
        &admitted.order.container,
        admitted.entry.record.ports.clone(),
        &addresses,
    );
    let mac = hardware_address(&admitted.config, &admitted.order.container).await;
    let (profiles_created, timing) = (Vec::new(), Timing::default());
    let wired = Wired { addresses, profiles_created, mac, forward, timing };
    Ok(driver::drive_on(admitted, wired, channel).await)
}
