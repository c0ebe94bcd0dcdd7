//! The executor's side of version 1: one stream of events, one call for each update.
//!
//! ```text
//!          SUBSCRIBE        200            broken, checkpoint
//!  start ─────────► asking ─────► open ──────────────────────► asking ◄──────┐
//!                     ▲ │           │ SUBSCRIBED: Registered,     │           │ within 0.8 s,
//!                     │ │           │   later ones: Reregistered  │ 503, 404, │ at most for
//!                     │ │           │ LAUNCH, KILL, ...           │ no agent  │ MESOS_RECOVERY_TIMEOUT
//!                     │ └───────────┼─────────────────────────────┴─► waiting ┘
//!                     │             │ SHUTDOWN and the end of the stream;
//!   403 to an update ─┘             ▼ or broken, no checkpoint: Event::Shutdown
//!                                leaving: updates are sent, none is acknowledged
//!                                   │ agent away
//!      401, 403, "cannot be found"  ▼
//!        ─────────────────────► gone: Event::Shutdown
//! ```
//!
//! The stream has a connection to itself; calls go over another one, one after the other. What is not
//! acknowledged goes into the next SUBSCRIBE, together with the tasks of which nothing was
//! acknowledged; a call that was not answered is made again, with the same uuid. An agent forgets what
//! it said over a broken stream, so a new one is asked for at once, whether or not the agent was away.
//! `state` decides (pure, with `calls` and `events` as its words), `shell` does what it says over
//! `transport`. The handle and the events are those of version 0.

mod calls;
mod events;
pub mod recordio;
mod shell;
mod state;
mod transport;
mod verify;

use std::time::Duration;

use tokio::sync::mpsc;

use self::calls::SubscriberIdentity;
use self::shell::HttpShell;
use self::state::HttpState;
use self::transport::AgentTransport;
use super::driver::{Driver, DriverError, Event};
use super::environment::HttpEnvironment;

struct Times {
    recovery: Duration,
    backoff_max: Duration,
}

/// Subscribes in the background: an agent that is not there yet, or not yet ready, is waited for.
///
/// Must be called within a runtime.
pub fn connect(
    environment: &HttpEnvironment,
) -> Result<(Driver, mpsc::UnboundedReceiver<Event>), DriverError> {
    let common = &environment.common;
    let identity = SubscriberIdentity {
        framework_id: common.framework_id.as_str().into(),
        executor_id: common.executor_id.as_str().into(),
    };
    let transport = AgentTransport::new(environment)?;
    let times = Times { recovery: common.recovery_timeout, backoff_max: environment.backoff_max };
    let (commands, events) = HttpShell::start(HttpState::new(identity, common.checkpoint), transport, times);
    Ok((Driver::new(commands, None), events))
}
