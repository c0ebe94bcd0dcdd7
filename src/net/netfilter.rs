//! Single questions to the kernel's netfilter, without running a program.
//!
//! Message layout: linux/netfilter/nfnetlink.h.

use std::io;

use rtnetlink::sys::{protocols::NETLINK_NETFILTER, Socket};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_ROOT | NLM_F_MATCH`.
const NLM_F_DUMP: u16 = 0x300;
/// What is listed changed meanwhile: the list may be incomplete.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// Attempts at a list that changes all the time.
const DUMPS: u32 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLA_F_NESTED: u16 = 1 << 15;
/// Header of a netlink message and netfilter's own behind it.
const HEADERS: usize = 16 + 4;

/// `NFPROTO_IPV4` and `NFPROTO_IPV6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NetfilterFamily {
    Ip = 2,
    Ip6 = 10,
}

impl NetfilterFamily {
    pub const BOTH: [Self; 2] = [Self::Ip, Self::Ip6];

    /// As nft calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
        }
    }
}

/// A message: subsystem and kind in one number, the family, and netfilter's version of the question.
pub(super) struct NetfilterQuestion {
    pub kind: u16,
    pub family: NetfilterFamily,
    pub version: u8,
    pub attributes: Vec<u8>,
}

impl NetfilterQuestion {
    /// The attributes of the answer; an error that the kernel answers with is an error.
    ///
    /// `acknowledged`: the kernel answers with nothing else but success or an error.
    pub fn ask(&self, acknowledged: bool) -> io::Result<Vec<u8>> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.send(&self.message(acknowledged), 0)?;
        // The kernel answers before `send` returns.
        let (answer, _) = socket.recv_from_full()?;
        let too_short = || io::Error::new(io::ErrorKind::InvalidData, "answer of netfilter is too short");
        let kind = answer.get(4..6).ok_or_else(too_short)?;
        if u16::from_ne_bytes([kind[0], kind[1]]) == NLMSG_ERROR {
            let code = answer.get(16..20).and_then(|code| code.try_into().ok()).ok_or_else(too_short)?;
            return match i32::from_ne_bytes(code) {
                0 => Ok(Vec::new()),
                code => Err(io::Error::from_raw_os_error(code.abs())),
            };
        }
        answer.get(HEADERS..).map(<[u8]>::to_vec).ok_or_else(too_short)
    }

    fn message(&self, acknowledged: bool) -> Vec<u8> {
        let flags = if acknowledged { NLM_F_REQUEST | NLM_F_ACK } else { NLM_F_REQUEST };
        message(self.kind, self.family as u8, self.version, flags, &self.attributes)
    }
}

/// One object of a list: the family's number and the attributes.
type Dumped = (u8, Vec<u8>);

/// All objects of a kind, of every family.
pub(super) fn dump(kind: u16) -> io::Result<Vec<Dumped>> {
    for _ in 0..DUMPS {
        if let Some(found) = dump_once(kind)? {
            return Ok(found);
        }
    }
    Err(io::Error::new(io::ErrorKind::Interrupted, "netfilter's rules change all the time"))
}

/// `None`: they changed while they were listed.
fn dump_once(kind: u16) -> io::Result<Option<Vec<Dumped>>> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.send(&message(kind, 0, 0, NLM_F_REQUEST | NLM_F_DUMP, &[]), 0)?;
    let mut found = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = &answer[..];
        while let [a, b, c, d, e, f, g, h, ..] = rest {
            let length = u32::from_ne_bytes([*a, *b, *c, *d]) as usize;
            let (kind, flags) = (u16::from_ne_bytes([*e, *f]), u16::from_ne_bytes([*g, *h]));
            if flags & NLM_F_DUMP_INTR != 0 {
                return Ok(None);
            }
            let too_short = || io::Error::new(io::ErrorKind::InvalidData, "answer of netfilter is too short");
            match kind {
                NLMSG_DONE => return Ok(Some(found)),
                NLMSG_ERROR => {
                    let code =
                        rest.get(16..20).and_then(|code| code.try_into().ok()).ok_or_else(too_short)?;
                    return Err(io::Error::from_raw_os_error(i32::from_ne_bytes(code).abs()));
                }
                _ => {
                    let family = *rest.get(16).ok_or_else(too_short)?;
                    found.push((family, rest.get(HEADERS..length).ok_or_else(too_short)?.to_vec()));
                }
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn message(kind: u16, family: u8, version: u8, flags: u16, attributes: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend(((HEADERS + attributes.len()) as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Sequence number and port: the only question on this socket.
    message.extend([0; 8]);
    // nfgenmsg: family, version, resource.
    message.extend([family, version, 0, 0]);
    message.extend(attributes);
    message
}

/// One attribute, padded; only the padding is not counted in its length.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut attribute = Vec::new();
    attribute.extend((4 + value.len() as u16).to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// An attribute made of others.
pub(super) fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NLA_F_NESTED, &parts.concat())
}

/// The value of the first attribute of this kind.
pub(super) fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    while let [a, b, c, d, ..] = attributes {
        let length = usize::from(u16::from_ne_bytes([*a, *b]));
        if u16::from_ne_bytes([*c, *d]) & !NLA_F_NESTED == kind {
            return attributes.get(4..length);
        }
        attributes = attributes.get(length.next_multiple_of(4).max(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_again() {
        let attributes = [attribute(1, b"abcde"), attribute(4, &7u64.to_be_bytes())].concat();
        assert_eq!(find(&attributes, 4), Some(&7u64.to_be_bytes()[..]));
        assert_eq!(find(&attributes, 1), Some(&b"abcde"[..]));
        assert_eq!(find(&attributes, 9), None);
        assert_eq!(find(&attributes[..6], 1), None);
        assert_eq!(find(&[0, 0, 9, 0, 0, 0, 9, 0], 1), None);
    }
}
