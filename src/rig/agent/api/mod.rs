//! Version 1 of the executor API as an agent serves it: `POST /slave(1)/api/v1/executor`.
//!
//! ```text
//!  connection: head and body checked, as a real agent words it ─► hub: Asked ─► ApiReply ─► connection
//! ```
//!
//! On the agent's port both paths are served, on its domain socket only the long one. Bodies are
//! protobuf: JSON, which a real agent takes too, is refused.

mod check;
mod connection;
mod socket;
mod subscribe;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

pub(super) use self::socket::Socket;
use super::hub::Internal;
use crate::mesos::libprocess::server::{Api, Foreign};
use crate::mesos::messages::Call;

/// A call that stands for itself; only the hub finds whose it is.
#[derive(Debug)]
pub(super) struct Asked {
    pub call: Call,
    /// What stood behind `Bearer`.
    pub token: Option<String>,
    pub reply: oneshot::Sender<ApiReply>,
}

#[derive(Debug)]
pub(super) enum ApiReply {
    Accepted,
    Refused(u16, String),
    /// Events as long as there are any, and a sign of life now and then.
    Stream {
        records: mpsc::UnboundedReceiver<Vec<u8>>,
        heartbeat: Duration,
    },
}

impl ApiReply {
    fn refused(status: u16, text: &str) -> Self {
        Self::Refused(status, text.to_owned())
    }
}

/// What the libprocess server does with connections that speak version 1.
pub(super) fn over_tcp(hub: mpsc::UnboundedSender<Internal>) -> Api {
    Arc::new(move |Foreign { request, decoder, stream }| {
        let hub = hub.clone();
        Box::pin(connection::serve(stream, decoder, Some(request), check::Paths::Any, hub))
    })
}
