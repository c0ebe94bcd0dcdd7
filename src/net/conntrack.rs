//! The kernel's memory of connections, where a changed port must not outlive itself.
//!
//! The kernel keeps a sender where its first packet went, with or without a translation, as long as it does not pause:
//! a sender of statistics over UDP would never notice that the port leads elsewhere now. Message layout:
//! linux/netfilter/nfnetlink_conntrack.h; deleting by part of an address exists since Linux 5.8, and older kernels
//! refuse it.

use std::io;
use std::net::IpAddr;

use super::netfilter::{attribute, nested, NetfilterFamily, NetfilterQuestion};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = 1 << 8 | 2;
/// Since this version the family of a deletion counts.
const VERSION: u8 = 1;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
/// Which parts of a tuple count: bits of include/net/netfilter/nf_conntrack's filter.
const BY_SOURCE: u32 = 1 << 0;
const BY_PROTOCOL_AND_PORT: u32 = 1 << 3 | 1 << 5;

/// Deletes the connections that this address answers, forwarded to it or not.
pub(super) fn forget_address(address: IpAddr) -> io::Result<()> {
    let (family, source) = match address {
        IpAddr::V4(address) => (NetfilterFamily::Ip, attribute(CTA_IP_V4_SRC, &address.octets())),
        IpAddr::V6(address) => (NetfilterFamily::Ip6, attribute(CTA_IP_V6_SRC, &address.octets())),
    };
    let tuple = nested(CTA_TUPLE_REPLY, &[nested(CTA_TUPLE_IP, &[source])]);
    delete(family, tuple, CTA_TUPLE_REPLY, BY_SOURCE)
}

/// Forgets what was sent to this port, wherever it went.
pub(super) fn forget_port(family: NetfilterFamily, protocol: u8, port: u16) -> io::Result<()> {
    let parts = [attribute(CTA_PROTO_NUM, &[protocol]), attribute(CTA_PROTO_DST_PORT, &port.to_be_bytes())];
    let tuple = nested(CTA_TUPLE_ORIG, &[nested(CTA_TUPLE_PROTO, &parts)]);
    delete(family, tuple, CTA_TUPLE_ORIG, BY_PROTOCOL_AND_PORT)
}

/// The filter's attributes have the numbers of the tuples that they are for.
fn delete(family: NetfilterFamily, tuple: Vec<u8>, counts: u16, parts: u32) -> io::Result<()> {
    let filter = nested(CTA_FILTER, &[attribute(counts, &parts.to_ne_bytes())]);
    let attributes = [tuple, filter].concat();
    match (NetfilterQuestion { kind: DELETE, family, version: VERSION, attributes }).ask(true) {
        // Nothing was remembered.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map(drop),
    }
}
