//! One question to nftables without running `nft`: is a table there?
//!
//! Asked on every launch with `dataplane = "local"`, because a reload of the host's own firewall
//! (`flush ruleset`) takes our table along. Message layout: linux/netfilter/nfnetlink.h, nf_tables.h.

use std::io;

use rtnetlink::sys::{protocols::NETLINK_NETFILTER, Socket};

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE`, and what answers it.
const GET_TABLE: u16 = 10 << 8 | 1;
const NEW_TABLE: u16 = 10 << 8;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NFTA_TABLE_NAME: u16 = 1;

/// `ip` or `ip6`, as `NFPROTO_IPV4` and `NFPROTO_IPV6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Ip = 2,
    Ip6 = 10,
}

/// Does the table exist in this program's network namespace?
pub(super) fn has_table(family: Family, name: &str) -> io::Result<bool> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.send(&question(family, name), 0)?;
    // The kernel answers before `send` returns.
    let (answer, _) = socket.recv_from_full()?;
    let too_short = || io::Error::new(io::ErrorKind::InvalidData, "answer of nftables is too short");
    let kind = answer.get(4..6).ok_or_else(too_short)?;
    match u16::from_ne_bytes([kind[0], kind[1]]) {
        NEW_TABLE => Ok(true),
        NLMSG_ERROR => {
            let code = answer.get(16..20).and_then(|code| code.try_into().ok()).ok_or_else(too_short)?;
            let error = io::Error::from_raw_os_error(i32::from_ne_bytes(code).abs());
            if error.kind() == io::ErrorKind::NotFound {
                Ok(false)
            } else {
                Err(error)
            }
        }
        other => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("nftables answered with kind {other}")))
        }
    }
}

fn question(family: Family, name: &str) -> Vec<u8> {
    let mut attribute = Vec::new();
    // Header, text and its zero byte; only the padding is not counted.
    attribute.extend((4 + name.len() as u16 + 1).to_ne_bytes());
    attribute.extend(NFTA_TABLE_NAME.to_ne_bytes());
    attribute.extend(name.as_bytes());
    attribute.push(0);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    let mut message = Vec::new();
    message.extend((16 + 4 + attribute.len() as u32).to_ne_bytes());
    message.extend(GET_TABLE.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and port: the only question on this socket.
    message.extend([0; 8]);
    // nfgenmsg: family, version, resource.
    message.extend([family as u8, 0, 0, 0]);
    message.extend(attribute);
    message
}
