//! The other end of a veth, by which a link under one of our names is known to be ours.
//!
//! ```text
//!  no link of that name ─────────────────────────────────► nothing to do
//!  its other end is in the given namespace ──────────────► ours: deleted
//!  a veth with Calico's hardware address, whose other
//!  end is in a namespace in which nothing lives ─────────► left by an earlier attempt: deleted
//!  anything else ────────────────────────────────────────► another program's, or another task's: an error
//! ```
//!
//! A name is derived from a ContainerID by a hash, and Calico's other orchestrators use the same prefix.

use std::os::fd::AsRawFd;

use futures_util::StreamExt;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload, NLM_F_REQUEST};

use super::link::{failed, find, mac_text, KernelLink};
use super::netlink::{errno, Netlink};
use super::netns::{self, Namespace};
use super::plan::HOST_MAC;
use super::NetError;

/// Deletes the link of this name, and with it its other end; false when there is none. An error when it is not
/// the veth that leads to `namespace`, nor one that leads to nothing.
pub(super) async fn delete_own(
    here: &Netlink,
    name: &str,
    namespace: Option<&Namespace>,
) -> Result<bool, NetError> {
    let Some(link) = find(here, name).await? else { return Ok(false) };
    if !leads_to(here, name, &link, namespace).await? {
        if let Some(why) = stranger(here, name, &link).await? {
            return Err(NetError::LinkTaken { link: name.to_owned(), why });
        }
    }
    match here.handle().link().del(link.index).execute().await {
        Ok(()) => Ok(true),
        Err(error) if errno(&error) == Some(Errno::ENODEV) => Ok(false),
        Err(error) => Err(failed("delete", name, error)),
    }
}

async fn leads_to(
    here: &Netlink,
    name: &str,
    link: &KernelLink,
    namespace: Option<&Namespace>,
) -> Result<bool, NetError> {
    let (Some(namespace), Some(peer)) = (namespace, link.peer) else { return Ok(false) };
    let file = u32::try_from(namespace.file().as_raw_fd()).unwrap_or_default();
    let number = number_of(here, NsidAttribute::Fd(file)).await;
    Ok(number.map_err(|source| failed("find the other end of", name, source))? == Some(peer))
}

/// Why the link is not one that an earlier attempt has left; `None` when it is.
async fn stranger(here: &Netlink, name: &str, link: &KernelLink) -> Result<Option<String>, NetError> {
    if !link.veth {
        return Ok(Some("it is not a veth".to_owned()));
    }
    if link.mac != HOST_MAC {
        return Ok(Some(format!(
            "its hardware address is {}, and not {}",
            mac_text(&link.mac),
            mac_text(&HOST_MAC)
        )));
    }
    let Some(peer) = link.peer else {
        return Ok(Some("its other end is in this host's own namespace".to_owned()));
    };
    for pid in netns::inhabitants().into_values() {
        let number = number_of(here, NsidAttribute::Pid(u32::try_from(pid).unwrap_or_default())).await;
        match number {
            Ok(number) if number == Some(peer) => {
                return Ok(Some(format!("its other end is in the namespace of process {pid}")))
            }
            Ok(_) => {}
            // The process has ended.
            Err(error) if errno(&error) == Some(Errno::ESRCH) => {}
            Err(error) => return Err(failed("find the other end of", name, error)),
        }
    }
    Ok(None)
}

/// The number of another namespace within this one; `None` where it has none.
async fn number_of(here: &Netlink, other: NsidAttribute) -> Result<Option<i32>, rtnetlink::Error> {
    let mut question = NsidMessage::default();
    question.attributes.push(other);
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(question));
    message.header.flags = NLM_F_REQUEST;
    let mut answers = here.handle().clone().request(message)?;
    match answers.next().await.map(|answer| answer.payload) {
        Some(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(answer))) => {
            Ok(answer.attributes.into_iter().find_map(|attribute| match attribute {
                NsidAttribute::Id(number) if number >= 0 => Some(number),
                _ => None,
            }))
        }
        Some(NetlinkPayload::Error(error)) => Err(rtnetlink::Error::NetlinkError(error)),
        _ => Err(rtnetlink::Error::RequestFailed),
    }
}
