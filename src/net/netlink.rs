//! A routing netlink connection that ends when it is dropped.

use futures_util::StreamExt;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST};
use tokio::task::AbortHandle;

use super::netns::{self, Namespace};
use super::NetError;

/// How often a listing is begun anew that the kernel changed meanwhile.
const DUMP_ATTEMPTS: usize = 5;

/// One socket and the task that serves it. Executors live for months, so none is kept.
pub struct Netlink {
    handle: rtnetlink::Handle,
    task: AbortHandle,
}

impl Netlink {
    /// In the network namespace of this program.
    pub fn here() -> Result<Self, NetError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetError::Socket)?;
        Ok(Self { handle, task: tokio::spawn(connection).abort_handle() })
    }

    /// In another namespace: a thread that enters it opens the socket.
    pub async fn inside(namespace: &Namespace) -> Result<Self, NetError> {
        let runtime = tokio::runtime::Handle::current();
        let opened = netns::enter(namespace, move || {
            let _reactor = runtime.enter();
            rtnetlink::new_connection()
        })
        .await?;
        let (connection, handle, _) = opened.map_err(NetError::Socket)?;
        Ok(Self { handle, task: tokio::spawn(connection).abort_handle() })
    }

    pub fn handle(&self) -> &rtnetlink::Handle {
        &self.handle
    }

    /// Everything the kernel lists for `request`, whole: a listing that changed meanwhile is begun anew.
    pub async fn dump(
        &self,
        what: &'static str,
        request: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetError> {
        let failed = |source| NetError::Link { action: "list", link: what.into(), source: Box::new(source) };
        for _ in 0..DUMP_ATTEMPTS {
            let mut message = NetlinkMessage::from(request.clone());
            message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
            let mut answers = self.handle.clone().request(message).map_err(failed)?;
            let mut whole = true;
            let mut list = Vec::new();
            while let Some(answer) = answers.next().await {
                whole &= answer.header.flags & NLM_F_DUMP_INTR == 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(inner) => list.push(inner),
                    NetlinkPayload::Error(error) => {
                        return Err(failed(rtnetlink::Error::NetlinkError(error)))
                    }
                    _ => {}
                }
            }
            if whole {
                return Ok(list);
            }
        }
        Err(NetError::Interrupted { what })
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The error number in a kernel's refusal, e.g. `libc::ENODEV`, positive.
pub fn errno(error: &rtnetlink::Error) -> Option<nix::errno::Errno> {
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            message.code.map(|code| nix::errno::Errno::from_raw(code.get().abs()))
        }
        _ => None,
    }
}
