//! The IP pools.

use serde_json::{json, Value};

use super::{FULL, NEARLY_FULL};
use crate::cli::output::count;
use crate::cli::status::draft::{grouped, Draft, StatusCheck};
use crate::cli::status::facts::{HostFacts, PoolFacts};

/// A check for each pool, or one that says that there is none.
pub fn pools(facts: &HostFacts) -> Vec<StatusCheck> {
    let Ok(store) = &facts.store else { return Vec::new() };
    if !store.pools.iter().any(|pool| pool.usage.enabled) {
        let mut draft = Draft::default();
        draft.fail(
            "there is no enabled IP pool: no task gets an address",
            "add one: calico-mesos pool add 192.168.0.0/16 --vxlan",
        );
        return vec![draft.done("pool", Value::Null)];
    }
    store.pools.iter().map(|pool| one_pool(pool, facts.mtu)).collect()
}

fn one_pool(PoolFacts { usage, vxlan, ipip }: &PoolFacts, mtu: Option<u32>) -> StatusCheck {
    let mut draft = Draft::default();
    let all = usage.allocated + usage.reserved + usage.free;
    let taken = usage.allocated + usage.reserved;
    let percent = u64::try_from(taken.saturating_mul(100) / all.max(1)).unwrap_or(100);
    let head = format!("{}  {} of {} used", usage.cidr, grouped(usage.allocated), grouped(all));
    let advice = "add another pool: calico-mesos pool add";
    match percent {
        _ if !usage.enabled => draft.say(format!("{head}, disabled")),
        FULL.. => draft.fail(format!("{head} ({percent} %)"), advice),
        NEARLY_FULL.. => draft.warn(format!("{head} ({percent} %)"), advice),
        _ => draft.say(format!("{head} ({percent} %)")),
    }
    let blocks = usage.affine_blocks + usage.loose_blocks;
    draft.say(format!("{} of {} blocks", grouped(blocks), grouped(blocks + usage.free_blocks)));
    if usage.damaged_blocks > 0 {
        let blocks = count(usize::try_from(usage.damaged_blocks).unwrap_or(usize::MAX), "damaged block");
        draft.warn(
            format!("{blocks} left out of these numbers"),
            "see which and why: calico-mesos ipam check",
        );
    }
    if let Some(mtu) = mtu {
        draft.say(format!("MTU {mtu}"));
    }
    let mode = match (vxlan, ipip) {
        (true, _) => "vxlan",
        (_, true) => "ipip",
        _ => "none",
    };
    let number = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
    draft.done(
        "pool",
        json!({
            "name": usage.name, "cidr": usage.cidr, "enabled": usage.enabled, "encapsulation": mode,
            "allocated": number(usage.allocated), "reserved": number(usage.reserved), "free": number(usage.free),
            "blocks": number(blocks), "free_blocks": number(usage.free_blocks),
            "damaged_blocks": number(usage.damaged_blocks), "mtu": mtu,
        }),
    )
}
