//! etcd: members, size, alarms, history.

use std::time::{Duration, SystemTime};

use serde_json::{json, Value};

use super::{FULL, NEARLY_FULL};
use crate::calico::{History, StoreHealth};
use crate::cli::output::count;
use crate::cli::status::draft::{bytes, grouped, some, span, Draft, StatusCheck};
use crate::cli::status::facts::StoreFacts;

/// Revisions without a compaction that are a burden.
const LONG_HISTORY: i64 = 100_000;
/// A compaction is overdue after this.
const OLD_HISTORY: Duration = Duration::from_secs(24 * 3600);

/// etcd.
pub fn datastore(store: &Result<StoreFacts, String>, now: SystemTime) -> StatusCheck {
    let mut draft = Draft::default();
    let StoreFacts { health, damaged, .. } = match store {
        Ok(store) => store,
        Err(why) => {
            draft.fail(
                why.clone(),
                "check etcd with `etcdctl endpoint health`, and what is configured with `calico-mesos config show`; until it answers no task with Calico can start or give its address back",
            );
            return draft.done("datastore", json!({ "error": why }));
        }
    };
    draft.say(format!("etcd {}", health.version));
    members(&mut draft, health);
    draft.say(if health.tls { "TLS" } else { "no TLS" });
    draft.say(match health.latency.as_millis() {
        0 => "under 1 ms".to_owned(),
        milliseconds => format!("{milliseconds} ms"),
    });
    size(&mut draft, health);
    history(&mut draft, health, now);
    if !damaged.is_empty() {
        draft.warn(
            format!("{}: {}", count(damaged.len(), "damaged record"), some(damaged)),
            "the verb that lists such records says what is wrong with each (`calico-mesos ipam check` for addresses); write it anew with `calicoctl apply`, or delete it with `etcdctl del KEY`",
        );
    }
    let since = match &health.history {
        History::Since { revision, .. } => json!(revision),
        History::Whole => json!(0),
        History::Unknown => Value::Null,
    };
    draft.done(
        "datastore",
        json!({
            "endpoint": health.endpoint, "version": health.version, "tls": health.tls,
            "latency_ms": health.latency.as_secs_f64() * 1000.0,
            "size": health.size, "used": health.used, "quota": health.quota, "members": health.members,
            "alarms": health.alarms, "revision": health.revision, "compacted_revision": since,
            "damaged": damaged,
        }),
    )
}

fn members(draft: &mut Draft, health: &StoreHealth) {
    let down: Vec<String> =
        health.members.iter().filter(|(_, answers)| !**answers).map(|(name, _)| name.clone()).collect();
    let (all, up) = (health.members.len(), health.members.len() - down.len());
    match (all, down.len()) {
        (0, _) => draft.say(format!("members not shown to this login, {} answers", health.endpoint)),
        (_, 0) => draft.say(format!("{up} of {}", count(all, "member"))),
        _ if up * 2 <= all => draft.fail(
            format!("{up} of {} ({} down): no majority", count(all, "member"), some(&down)),
            "start the missing members of etcd: without a majority nothing can be written",
        ),
        _ => draft.warn(
            format!("{up} of {} ({} down)", count(all, "member"), some(&down)),
            "start the missing members of etcd, or check that their client URLs can be reached from here",
        ),
    }
}

fn size(draft: &mut Draft, health: &StoreHealth) {
    let default = if health.quota_reported { "" } else { ", the default" };
    let text = format!("{} of {}{default}", bytes(health.size), bytes(health.quota));
    let percent = health.size.saturating_mul(100) / health.quota.max(1);
    let advice = "compact and defragment etcd (etcdctl compact, etcdctl defrag), or raise --quota-backend-bytes: at the quota etcd refuses every write";
    match percent {
        FULL.. => draft.fail(format!("{text}: nearly full"), advice),
        NEARLY_FULL.. => draft.warn(format!("{text}: {percent} % full"), advice),
        _ => draft.say(text),
    }
    match &health.alarms {
        None => {}
        Some(alarms) if alarms.is_empty() => {}
        Some(alarms) => draft.fail(
            format!("etcd has raised {}", alarms.join(" and ")),
            "no write succeeds: compact, defragment, then `etcdctl alarm disarm`",
        ),
    }
}

fn revisions(number: i64) -> String {
    match number.unsigned_abs() {
        1 => "1 revision".to_owned(),
        number => format!("{} revisions", grouped(number.into())),
    }
}

fn history(draft: &mut Draft, health: &StoreHealth, now: SystemTime) {
    let advice = "nothing compacts this etcd: Calico's compactor is part of kube-controllers; start etcd with --auto-compaction-mode=periodic --auto-compaction-retention=1h";
    match health.history {
        History::Unknown => {}
        History::Whole if health.revision > LONG_HISTORY => {
            draft.warn(format!("never compacted in {}", revisions(health.revision)), advice)
        }
        History::Whole => draft.say(format!("not compacted yet ({})", revisions(health.revision))),
        History::Since { revision, time } => {
            let kept = health.revision.saturating_sub(revision);
            let age = time.and_then(|time| now.duration_since(time).ok());
            let reach = match age {
                Some(age) => format!("history of {}", span(age)),
                None => format!("history of {}", revisions(kept)),
            };
            match kept > LONG_HISTORY && age.is_none_or(|age| age > OLD_HISTORY) {
                true => draft.warn(format!("{reach}: compacted once, and not since"), advice),
                false => draft.say(format!("compacted, {reach}")),
            }
        }
    }
}
