//! Finds the blocks of other hosts that hold addresses of this node.
//!
//! A task whose pool has no free block borrows an address from a block of another host. Only a look at every block of
//! the cluster shows what is left there, and one look an hour is enough. Between two such looks the cleaner reads the
//! blocks that the last one found together with the node's own, so that what it found stays in reports and figures.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::calico::Inventory;
use crate::config::Config;
use crate::host::files;

const EVERY: Duration = Duration::from_secs(3600);

fn file(config: &Config) -> PathBuf {
    config.paths.run.join("borrowed.json")
}

/// The blocks that the last look at the whole cluster found; `None`: another one is due.
pub(super) fn known(config: &Config) -> Option<Vec<IpNet>> {
    let file = file(config);
    let age = fs::metadata(&file).and_then(|meta| meta.modified()).ok()?.elapsed().ok()?;
    let blocks = serde_json::from_slice(&fs::read(&file).ok()?).ok();
    blocks.filter(|_| age < EVERY)
}

/// The blocks of others in what such a look has seen.
pub(super) fn of(inventory: &Inventory, node: &str) -> BTreeSet<IpNet> {
    let its = inventory.allocations.iter().filter(|allocation| allocation.node.as_deref() == Some(node));
    its.map(|allocation| allocation.block).filter(|block| !inventory.blocks.contains(block)).collect()
}

/// Without the file the next run looks at the whole cluster again.
pub(super) fn remember(config: &Config, blocks: &BTreeSet<IpNet>) {
    let written = (|| {
        files::make_private(&config.paths.run)?;
        files::replace(&file(config), |new| Ok(serde_json::to_writer(new, blocks)?))
    })();
    if let Err(error) = written {
        tracing::debug!("cannot write {}: {error}", file(config).display());
    }
}
