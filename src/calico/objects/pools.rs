//! IP pools as an operator reads and changes them. What Calico's own tools would refuse is refused here as well, before
//! anything is written.

mod wish;

use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::ledger::{self, BookedBlock};
use super::profiles::{nearest, some_of};
use super::{Damaged, Edit, Edited, Kind, Object};
use crate::calico::model::to_json;
use crate::calico::overlap::overlap;
use crate::calico::pool::Pool;
use crate::calico::txn::Range;
use crate::calico::{keys, CalicoError, Datastore, Family};
use crate::names::is_resource_name;

pub use wish::PoolWish;

/// How long Calico waits for assignments that have begun, before it takes a disabled pool apart.
const DRAIN: Duration = Duration::from_millis(500);

/// Why a command about pools or addresses was not done.
#[derive(Debug, thiserror::Error)]
pub enum IpamError {
    #[error(transparent)]
    Calico(#[from] CalicoError),
    /// Nothing was written.
    #[error("{0}")]
    Refused(String),
}

/// When packets between hosts are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encapsulation {
    Never,
    Always,
    /// Between hosts of different subnets.
    CrossSubnet,
}

impl Encapsulation {
    /// As it stands in the records.
    pub fn word(self) -> &'static str {
        match self {
            Self::Never => "Never",
            Self::Always => "Always",
            Self::CrossSubnet => "CrossSubnet",
        }
    }

    fn of(word: Option<&str>) -> Result<Self, String> {
        match word.unwrap_or_default() {
            "" | "Never" => Ok(Self::Never),
            "Always" => Ok(Self::Always),
            "CrossSubnet" => Ok(Self::CrossSubnet),
            other => Err(format!("'{other}' is not a mode: Never, Always or CrossSubnet")),
        }
    }
}

/// An IP pool with Calico's defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolRecord {
    pub name: String,
    pub cidr: IpNet,
    /// Prefix length of its blocks.
    pub block_length: u8,
    /// Whether addresses are given out.
    pub enabled: bool,
    /// The operator's switch; a pool may be not enabled for other reasons as well.
    pub disabled: bool,
    pub ipip: Encapsulation,
    pub vxlan: Encapsulation,
    pub nat_outgoing: bool,
    pub node_selector: String,
    /// The whole record.
    pub record: Value,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    ipip_mode: Option<String>,
    vxlan_mode: Option<String>,
    nat_outgoing: Option<bool>,
    node_selector: Option<String>,
    disabled: Option<bool>,
    cidr: Option<String>,
}

impl PoolRecord {
    /// Reads a pool's record.
    pub fn of(object: &Object) -> Result<Self, Damaged> {
        let damaged = |reason: String| Damaged { key: object.key().to_owned(), reason };
        let spec: Spec = object.spec()?;
        let cidr = spec.cidr.unwrap_or_default();
        cidr.parse::<IpNet>().map_err(|_| damaged(format!("its cidr '{cidr}' is not a network")))?;
        let pool = Pool::parse(&to_json(&object.value), &object.name)
            .ok_or_else(|| damaged("its blockSize does not fit its cidr".to_owned()))?;
        let selector = spec.node_selector.filter(|text| !text.trim().is_empty());
        Ok(Self {
            name: object.name.clone(),
            cidr: pool.cidr,
            block_length: pool.block_length,
            enabled: pool.is_enabled(),
            disabled: spec.disabled.unwrap_or_default(),
            ipip: Encapsulation::of(spec.ipip_mode.as_deref())
                .map_err(|why| damaged(format!("ipipMode: {why}")))?,
            vxlan: Encapsulation::of(spec.vxlan_mode.as_deref())
                .map_err(|why| damaged(format!("vxlanMode: {why}")))?,
            nat_outgoing: spec.nat_outgoing.unwrap_or_default(),
            node_selector: selector.unwrap_or_else(|| "all()".to_owned()),
            record: object.value.clone(),
        })
    }

    /// The options in calicoctl's words: `ipip,nat-outgoing`.
    pub fn options(&self) -> String {
        let mode = |name: &str, mode: Encapsulation| match mode {
            Encapsulation::Never => None,
            Encapsulation::Always => Some(name.to_owned()),
            Encapsulation::CrossSubnet => Some(format!("{name}=cross-subnet")),
        };
        let options = [
            mode("ipip", self.ipip),
            mode("vxlan", self.vxlan),
            self.nat_outgoing.then(|| "nat-outgoing".to_owned()),
            self.disabled.then(|| "disabled".to_owned()),
        ];
        options.into_iter().flatten().collect::<Vec<_>>().join(",")
    }

    /// `web (10.65.0.0/16)`, for messages.
    pub fn shown(&self) -> String {
        format!("{} ({})", self.name, self.cidr)
    }
}

const NEW_TUNNEL: &str = "restart calico/node there, or run `calico-mesos node init`";
/// The name of a pool that got none: its CIDR, with dashes for what a name cannot have. Calico's upgrade from 2.x made
/// the same.
fn name_of(cidr: &IpNet) -> String {
    let name = cidr.to_string().replace(['.', ':', '/'], "-");
    match name.starts_with('-') {
        true => format!("pool{name}"),
        false => name,
    }
}

/// The text of a network; the error says what to write instead.
fn parse_cidr(text: &str) -> Result<IpNet, IpamError> {
    let wrong = || IpamError::Refused(format!("'{text}' is not a network; write one such as 10.65.0.0/16"));
    text.parse().map_err(|_| wrong())
}

/// What `pool remove` found or did.
#[derive(Debug, Clone, PartialEq)]
pub struct RemovedPool {
    pub pool: PoolRecord,
    pub edited: Edited,
    /// Blocks that were given up; those of a dry run that would be.
    pub blocks: usize,
}

impl Datastore {
    /// All pools, and those whose records cannot be read.
    pub async fn pool_records(&mut self) -> Result<(Vec<PoolRecord>, Vec<Damaged>), CalicoError> {
        let objects = self.objects(Kind::IpPool).await?;
        let (mut pools, mut damaged) = (Vec::new(), objects.damaged);
        for object in &objects.found {
            match PoolRecord::of(object) {
                Ok(pool) => pools.push(pool),
                Err(record) => damaged.push(record),
            }
        }
        Ok((pools, damaged))
    }

    /// The pool of this name or CIDR.
    pub async fn find_pool(&mut self, text: &str) -> Result<PoolRecord, IpamError> {
        let (pools, damaged) = self.pool_records().await?;
        let cidr = text.parse::<IpNet>().ok().map(|cidr| cidr.trunc());
        if let Some(pool) = pools.iter().find(|pool| pool.name == text || Some(pool.cidr) == cidr) {
            return Ok(pool.clone());
        }
        if let Some(record) = damaged.into_iter().find(|record| record.key == keys::pool(text)) {
            return Err(CalicoError::from(record).into());
        }
        let nearest = nearest(text, pools.iter().map(|pool| pool.name.as_str()));
        let nearest = pools.iter().find(|pool| nearest.as_ref() == Some(&pool.name));
        let all = || pools.iter().map(PoolRecord::shown).collect::<Vec<_>>().join(", ");
        Err(IpamError::Refused(match nearest {
            Some(pool) => format!("there is no IP pool '{text}'; did you mean {}?", pool.shown()),
            None if pools.is_empty() => {
                format!("there is no IP pool '{text}'; there is none in this cluster")
            }
            None => format!("there is no IP pool '{text}'; there are: {}", all()),
        }))
    }

    /// Makes a pool of this CIDR, or changes in the one that has it what is wished. Returns its name.
    pub async fn add_pool(
        &mut self,
        text: &str,
        name: Option<&str>,
        wish: &PoolWish,
        dry_run: bool,
    ) -> Result<(String, Edited), IpamError> {
        let cidr = parse_cidr(text)?;
        let refused = IpamError::Refused;
        let (pools, damaged) = self.pool_records().await?;
        let present = pools.iter().find(|pool| pool.cidr == cidr);
        wish.check(&cidr, text, present.map(|pool| pool.block_length)).map_err(refused)?;
        let name = match (present, name) {
            (Some(pool), Some(name)) if pool.name != name => {
                return Err(refused(format!(
                    "the pool {} exists already: Calico cannot rename a pool",
                    pool.shown()
                )))
            }
            (Some(pool), _) => pool.name.clone(),
            (None, name) => name.map_or_else(|| name_of(&cidr), ToOwned::to_owned),
        };
        if present.is_none() {
            self.may_be_made(&cidr, &name, wish, &pools, &damaged).await?;
        }
        let edited = self
            .edit(Kind::IpPool, &name, dry_run, |object| match object {
                None => Ok(Edit::Put(Object::new(Kind::IpPool, &name, wish.spec(&cidr).map_err(refused)?))),
                Some(mut object) => {
                    let pool = PoolRecord::of(&object).map_err(CalicoError::from)?;
                    if pool.cidr != cidr {
                        return Err(refused(format!("the name {name} belongs to the pool {}", pool.shown())));
                    }
                    wish.check(&cidr, text, Some(pool.block_length)).map_err(refused)?;
                    wish.apply(object.spec_mut()).map_err(refused)?;
                    Ok(Edit::Put(object))
                }
            })
            .await?;
        Ok((name, edited))
    }

    /// What only concerns a pool that does not exist yet.
    async fn may_be_made(
        &mut self,
        cidr: &IpNet,
        name: &str,
        wish: &PoolWish,
        pools: &[PoolRecord],
        damaged: &[Damaged],
    ) -> Result<(), IpamError> {
        let refused = |text: String| Err(IpamError::Refused(text));
        if !is_resource_name(name) {
            return refused(format!(
                "'{name}' is not a valid name: use lower-case letters, digits, dashes and dots, at most 253, and begin \
                 and end with a letter or digit"
            ));
        }
        if let Some(pool) = pools.iter().find(|pool| pool.name == name) {
            return refused(format!("the name {name} belongs to the pool {}", pool.shown()));
        }
        if let Some(record) = damaged.iter().find(|record| record.key == keys::pool(name)) {
            return Err(CalicoError::from(record.clone()).into());
        }
        if let Some(pool) = pools.iter().find(|pool| overlap(&pool.cidr, cidr)) {
            return refused(format!("the pool {cidr} overlaps the pool {}", pool.shown()));
        }
        let spec = wish.spec(cidr).map_err(IpamError::Refused)?;
        let length = spec["blockSize"].as_u64().unwrap_or_default();
        let blocks = self.blocks_within(cidr).await?;
        match blocks.into_iter().find(|block| u64::from(block.prefix_len()) != length) {
            Some(block) => refused(format!(
                "the block {block} of an earlier pool still lives in {cidr}; use --block-size {}, or end the tasks that \
                 have its addresses",
                block.prefix_len()
            )),
            None => Ok(()),
        }
    }

    /// The blocks that share addresses with a network, whatever their records say.
    pub async fn blocks_within(&mut self, cidr: &IpNet) -> Result<Vec<IpNet>, CalicoError> {
        let answer = self.read(&[Range::Names(keys::blocks(Family::of(cidr.addr())))]).await?;
        let blocks = answer.ranges.iter().flatten().filter_map(|entry| keys::cidr_of_key(&entry.key));
        Ok(blocks.filter(|block| overlap(block, cidr)).collect())
    }

    /// Lets a pool give out addresses, or no more of them. What is in use stays.
    pub async fn enable_pool(
        &mut self,
        name: &str,
        enable: bool,
        dry_run: bool,
    ) -> Result<Edited, IpamError> {
        self.edit(Kind::IpPool, name, dry_run, |object| {
            let gone = || IpamError::Refused(format!("the IP pool {name} is gone by now"));
            let mut object = object.ok_or_else(gone)?;
            if PoolRecord::of(&object).map_err(CalicoError::from)?.disabled == enable {
                match enable {
                    true => object.spec_mut().shift_remove("disabled"),
                    false => object.spec_mut().insert("disabled".to_owned(), true.into()),
                };
            }
            Ok(Edit::Put(object))
        })
        .await
    }

    /// Removes a pool as Calico does: disables it, gives up its blocks, deletes it. Refused while an address of it is
    /// in use; Calico's own tunnel addresses do not count, since calico/node takes others, but are warned of.
    pub async fn remove_pool(&mut self, pool: PoolRecord, dry_run: bool) -> Result<RemovedPool, IpamError> {
        self.without_holders(&pool, true).await?;
        let blocks = self.affine_blocks(&pool.cidr).await?;
        if dry_run {
            let edited = Edited { before: Some(pool.record.clone()), after: None };
            return Ok(RemovedPool { pool, edited, blocks: blocks.len() });
        }
        self.enable_pool(&pool.name, false, false).await?;
        tokio::time::sleep(DRAIN).await;
        if let Err(holders) = self.without_holders(&pool, false).await {
            // An address was given out in the last moment.
            self.enable_pool(&pool.name, !pool.disabled, false).await?;
            return Err(holders);
        }
        let blocks = self.affine_blocks(&pool.cidr).await?;
        for (node, cidr) in &blocks {
            self.let_go_of_block(node, cidr).await?;
        }
        let edited = self.edit::<IpamError>(Kind::IpPool, &pool.name, false, |_| Ok(Edit::Delete)).await?;
        let edited = Edited { before: Some(pool.record.clone()), ..edited };
        Ok(RemovedPool { pool, edited, blocks: blocks.len() })
    }

    /// The blocks inside a pool that belong to a node.
    async fn affine_blocks(&mut self, pool: &IpNet) -> Result<Vec<(String, IpNet)>, CalicoError> {
        let affinities = self.affinities().await?.0;
        let ours = affinities.into_iter().filter(|affinity| overlap(&affinity.cidr, pool));
        Ok(ours.map(|affinity| (affinity.node, affinity.cidr)).collect())
    }

    async fn without_holders(&mut self, pool: &PoolRecord, warn: bool) -> Result<(), IpamError> {
        let holders = self.pool_holders(&pool.cidr, warn).await?;
        if holders.is_empty() {
            return Ok(());
        }
        Err(IpamError::Refused(format!(
            "the pool {} has {} in use: {}; end these tasks first (`pool disable {}` keeps new ones out), or \
             release what no task has with `ipam release --ip`",
            pool.shown(),
            if holders.len() == 1 { "an address".to_owned() } else { format!("{} addresses", holders.len()) },
            some_of(&holders),
            pool.name
        )))
    }

    /// The addresses of a network that are in use, with their holders; without Calico's own.
    async fn pool_holders(&mut self, cidr: &IpNet, warn: bool) -> Result<Vec<String>, IpamError> {
        let (blocks, damaged) = self.booked_blocks().await?;
        let concerns =
            |record: &Damaged| keys::cidr_of_key(&record.key).is_some_and(|block| overlap(&block, cidr));
        if let Some(record) = damaged.into_iter().find(concerns) {
            return Err(CalicoError::from(record).into());
        }
        let endpoints = self.objects(Kind::WorkloadEndpoint).await?;
        let (users, unclear) = ledger::users_of(&endpoints.found);
        // It may have an address of the network.
        if let Some(record) = endpoints.damaged.into_iter().chain(unclear).next() {
            return Err(CalicoError::from(record).into());
        }
        let mut holders = std::collections::BTreeMap::new();
        for taken in blocks.iter().flat_map(|block: &BookedBlock| &block.taken) {
            let (address, holder) = (taken.address, taken.holder());
            match (cidr.contains(&address), taken.is_calicos_own()) {
                (true, false) => drop(holders.insert(address, holder)),
                (true, true) if warn => {
                    tracing::warn!("{address} is a node's tunnel address ({holder}): {NEW_TUNNEL}")
                }
                _ => {}
            }
        }
        for (address, endpoint) in users.into_iter().filter(|(address, _)| cidr.contains(address)) {
            holders.insert(address, endpoint);
        }
        Ok(holders.into_iter().map(|(address, holder)| format!("{address} ({holder})")).collect())
    }
}

#[cfg(test)]
mod tests;
