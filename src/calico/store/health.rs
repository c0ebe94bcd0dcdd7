//! How etcd itself fares: its members, its size, its alarms, and how far back its history reaches.
//!
//! etcd keeps every version of every key until a client or a setting of etcd's compacts the history, and refuses all
//! writes once the database has reached its quota. Calico's own compactor is part of kube-controllers: without
//! Kubernetes it does not run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use etcd_client::{AlarmAction, AlarmType, Error, GetOptions, WatchOptions};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Options, Store, StoreError};
use crate::calico::members::{self, Member};
use crate::calico::{keys, CalicoError, Datastore};
use crate::limits::{ETCD_HISTORY, ETCD_REQUEST};

/// etcd's own default, where the server does not report its quota (before 3.6).
const DEFAULT_QUOTA: u64 = 2 << 30;
const COMPACTED: &str = "compacted";

/// One look at the cluster through the member that this program speaks to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreHealth {
    /// The member that answered, as configured.
    pub endpoint: String,
    pub tls: bool,
    pub version: String,
    /// Of one read.
    pub latency: Duration,
    /// Bytes on the disk.
    pub size: u64,
    /// Bytes that are in use; the rest is free for etcd alone.
    pub used: u64,
    pub quota: u64,
    /// Whether the quota is etcd's own word and not its default.
    pub quota_reported: bool,
    /// Each member with whether it answers; empty where the login may not list them.
    pub members: BTreeMap<String, bool>,
    /// `NOSPACE` and the like; none where the login may not ask.
    pub alarms: Option<Vec<String>>,
    pub revision: i64,
    pub history: History,
}

/// How far back the datastore's history reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum History {
    /// It was never compacted.
    Whole,
    /// From this revision on, which was written at this time, where Felix's own reports show it.
    Since { revision: i64, time: Option<SystemTime> },
    /// The login may not find out, or etcd did not answer in time.
    Unknown,
}

impl Datastore {
    /// Asks etcd about itself. `node` is the one whose Felix dates the history.
    pub async fn health(&mut self, node: &str) -> Result<StoreHealth, CalicoError> {
        let mut health = match self.store.health().await {
            Ok(health) => health,
            Err(source) => return Err(self.store_error(source)),
        };
        if let History::Since { revision, time } = &mut health.history {
            *time = self.store.felix_time(node, *revision).await;
        }
        Ok(health)
    }
}

impl Store {
    async fn health(&mut self) -> Result<StoreHealth, StoreError> {
        let begun = Instant::now();
        let mut kv = self.client.kv_client();
        let read = kv.get(keys::cluster_information(), None);
        let answer = within(read).await?;
        let latency = begun.elapsed();
        let status = within(self.client.maintenance_client().status()).await?;
        let number = |value: i64| u64::try_from(value).unwrap_or_default();
        let reported = number(status.db_size_quota());
        Ok(StoreHealth {
            endpoint: self.targets[self.current].endpoint.clone(),
            tls: self.targets[self.current].https,
            version: status.version().to_owned(),
            latency,
            size: number(status.db_size()),
            used: number(status.raft_used_db_size()),
            quota: if reported > 0 { reported } else { DEFAULT_QUOTA },
            quota_reported: reported > 0,
            members: self.members().await,
            alarms: self.alarms().await,
            revision: answer.header().map_or(0, |header| header.revision()),
            history: self.history().await,
        })
    }

    /// Every member, asked at once.
    async fn members(&self) -> BTreeMap<String, bool> {
        let mut cluster = self.client.cluster_client();
        let Ok(list) = within(cluster.member_list()).await else { return BTreeMap::new() };
        let mut asking = JoinSet::new();
        let mut found = BTreeMap::new();
        for member in list.members() {
            let urls = member.client_urls().to_vec();
            let name = match member.name() {
                "" => urls.first().cloned().unwrap_or_else(|| member.id().to_string()),
                name => name.to_owned(),
            };
            found.insert(name.clone(), false);
            let options = Options { user: self.options.user.clone(), files: self.options.files.clone() };
            asking.spawn(async move { (name, answers(&options, &urls).await) });
        }
        while let Some(answer) = asking.join_next().await {
            if let Ok((name, answers)) = answer {
                found.insert(name, answers);
            }
        }
        found
    }

    async fn alarms(&self) -> Option<Vec<String>> {
        let mut maintenance = self.client.maintenance_client();
        let list = within(maintenance.alarm(AlarmAction::Get, AlarmType::None, None)).await.ok()?;
        let name = |alarm: AlarmType| match alarm {
            AlarmType::None => None,
            AlarmType::Nospace => Some("NOSPACE".to_owned()),
            AlarmType::Corrupt => Some("CORRUPT".to_owned()),
        };
        let mut alarms: Vec<String> = list.alarms().iter().filter_map(|alarm| name(alarm.alarm())).collect();
        alarms.dedup();
        Some(alarms)
    }

    /// The first revision can be read only where nothing was compacted; where it was, a watch from there on is refused
    /// with the revision from which on there is history.
    async fn history(&self) -> History {
        let first = GetOptions::new().with_revision(1).with_keys_only();
        let mut kv = self.client.kv_client();
        match timeout(ETCD_HISTORY, kv.get(keys::cluster_information(), Some(first))).await {
            Ok(Ok(_)) => return History::Whole,
            Ok(Err(Error::GRpcStatus(status))) if status.message().contains(COMPACTED) => {}
            _ => return History::Unknown,
        }
        let mut watches = self.client.watch_client();
        let from_first = WatchOptions::new().with_start_revision(1);
        let refused = async {
            let mut stream = watches.watch(keys::cluster_information(), Some(from_first)).await.ok()?;
            while let Some(answer) = stream.message().await.ok()? {
                if answer.compact_revision() > 0 {
                    return Some(answer.compact_revision());
                }
            }
            None
        };
        match timeout(ETCD_HISTORY, refused).await {
            Ok(Some(revision)) => History::Since { revision, time: None },
            _ => History::Unknown,
        }
    }

    /// When Felix reported last before this revision.
    async fn felix_time(&self, node: &str, revision: i64) -> Option<SystemTime> {
        let then = GetOptions::new().with_revision(revision);
        let mut kv = self.client.kv_client();
        let answer = within(kv.get(keys::felix_last_status(node), Some(then))).await.ok()?;
        let report: serde_json::Value = serde_json::from_slice(answer.kvs().first()?.value()).ok()?;
        humantime::parse_rfc3339(report.get("time")?.as_str()?).ok()
    }
}

async fn within<T>(ask: impl std::future::Future<Output = Result<T, Error>>) -> Result<T, StoreError> {
    match timeout(ETCD_REQUEST, Box::pin(ask)).await {
        Ok(answer) => answer.map_err(|error| StoreError::from(&error)),
        Err(_) => Err(StoreError::Timeout(ETCD_REQUEST)),
    }
}

/// Whether a member reports its status at one of its addresses.
async fn answers(options: &Options, urls: &[String]) -> bool {
    for url in urls {
        let Ok(target) = Member::resolve(url).await else { continue };
        let Ok((_, address)) = members::first_open(std::slice::from_ref(&target), Vec::new()).await else {
            continue;
        };
        let Ok(client) = options.client(&target, address).await else { continue };
        if within(client.maintenance_client().status()).await.is_ok() {
            return true;
        }
    }
    false
}
