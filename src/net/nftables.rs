//! nftables: rules by the program `nft`, a whole script being one transaction; and questions without it, which would
//! take several milliseconds each: is a table there, and which chains are there?
//!
//! They are asked often (on every launch with `dataplane = "local"`, and as long as a task has ports
//! forwarded), because a reload of the host's own firewall (`flush ruleset`) takes our tables along.
//! Message layout: linux/netfilter/nf_tables.h.

use std::io;

use serde_json::Value;

use super::netfilter::{attribute, dump, find, NetfilterFamily, NetfilterQuestion};
use super::program::run;
use super::NetError;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE`.
const GET_TABLE: u16 = 10 << 8 | 1;
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN`.
const GET_CHAIN: u16 = 10 << 8 | 4;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_HOOK_HOOKNUM: u16 = 1;
/// `NF_INET_FORWARD`.
const FORWARD: u32 = 2;
/// `NF_DROP`.
const DROP: u32 = 0;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_HANDLE: u16 = 4;

/// Does the table exist in this program's network namespace? If so, returns its number in the kernel:
/// a table that was taken away and made again has another one.
pub(super) fn table(family: NetfilterFamily, name: &str) -> io::Result<Option<u64>> {
    let text = [name.as_bytes(), &[0]].concat();
    let attributes = attribute(NFTA_TABLE_NAME, &text);
    match (NetfilterQuestion { kind: GET_TABLE, family, version: 0, attributes }).ask(false) {
        Ok(answer) => {
            let handle = find(&answer, NFTA_TABLE_HANDLE).and_then(|value| value.try_into().ok());
            Ok(Some(handle.map_or(0, u64::from_be_bytes)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the table has a chain of this name.
pub(super) fn has_chain(family: NetfilterFamily, table: &str, chain: &str) -> io::Result<bool> {
    let text = |kind, text: &str| attribute(kind, &[text.as_bytes(), &[0]].concat());
    let attributes = [text(NFTA_CHAIN_TABLE, table), text(NFTA_CHAIN_NAME, chain)].concat();
    match (NetfilterQuestion { kind: GET_CHAIN, family, version: 0, attributes }).ask(false) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A chain of any table of this network namespace.
pub(super) struct SeenChain {
    /// As nft calls it.
    pub family: &'static str,
    pub table: String,
    pub name: String,
    /// A base chain at the forward hook that drops what no rule accepts.
    pub drops_forwarded: bool,
}

/// The chains that routed packets may meet: of the families ip, ip6 and inet.
pub(super) fn chains() -> io::Result<Vec<SeenChain>> {
    let found = dump(GET_CHAIN)?;
    Ok(found.iter().filter_map(|(family, attributes)| seen(*family, attributes)).collect())
}

fn seen(family: u8, attributes: &[u8]) -> Option<SeenChain> {
    let family = match family {
        1 => "inet",
        2 => "ip",
        10 => "ip6",
        _ => return None,
    };
    let text = |kind| {
        let value = find(attributes, kind)?;
        Some(String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned())
    };
    let number = |value: &[u8]| value.try_into().ok().map(u32::from_be_bytes);
    let hook = find(attributes, NFTA_CHAIN_HOOK).and_then(|hook| number(find(hook, NFTA_HOOK_HOOKNUM)?));
    let policy = find(attributes, NFTA_CHAIN_POLICY).and_then(number);
    Some(SeenChain {
        family,
        table: text(NFTA_CHAIN_TABLE)?,
        name: text(NFTA_CHAIN_NAME)?,
        drops_forwarded: hook == Some(FORWARD) && policy == Some(DROP),
    })
}

/// Does all of the script, or nothing.
pub(super) async fn apply(script: &str) -> Result<(), NetError> {
    run("nft", &["-f", "-"], script).await.map(drop)
}

/// What a listing of nft holds.
pub(super) async fn list(arguments: &[&str]) -> Result<Vec<Value>, NetError> {
    let arguments: Vec<&str> = [&["-j"], arguments].concat();
    let text = run("nft", &arguments, "").await?;
    let answer: Value = serde_json::from_str(&text).map_err(|error| NetError::Firewall {
        command: format!("nft {}", arguments.join(" ")),
        output: format!("not JSON: {error}"),
    })?;
    Ok(answer["nftables"].as_array().cloned().unwrap_or_default())
}
