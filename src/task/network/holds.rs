//! The addresses that tasks of this host hold, independent of the datastore.
//!
//! A datastore that was restored from a backup, or edited by hand, may report an address as free that a task here still
//! holds. So a launch takes its addresses on the host before it writes them: `<run>/addresses/<ip>` is a link to the
//! task's folder, made exclusively. The link leads to a living task as long as the journal has a record of that task,
//! or the host has its interface. The teardown removes it once nothing of the workload lives. An address whose link
//! leads to a living task is skipped (`auto`) or refused with that task's name (explicit). A link whose task is gone is
//! replaced under the folder's lock: either the link that was judged is replaced, or the launch starts its choice anew.
//!
//! Tasks of the previous release have no links. They are recognised by the host route of the address, which leads to
//! their interface; in Felix mode, too, as long as Felix has not seen that their endpoint is gone.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::calico::{HeldHere, Holder};
use crate::config::{Config, Paths};
use crate::error::chain;
use crate::host::files::{self, make_private, remove};
use crate::host::lock::take_file;
use crate::names::ContainerId;
use crate::net;

use crate::task::record::journal::{self, Journal, Record};

/// How long the folder's lock is waited for: its owner may be frozen.
const LOCK: Duration = Duration::from_secs(2);

/// The addresses that one launch takes on its host.
pub struct Holds<'a> {
    config: &'a Config,
    record: &'a Record,
    taken: Mutex<BTreeSet<IpAddr>>,
}

impl<'a> Holds<'a> {
    /// None so far.
    pub fn new(config: &'a Config, record: &'a Record) -> Self {
        Self { config, record, taken: Mutex::default() }
    }

    /// Takes exactly these addresses in place of those taken before, or names the tasks that have some of them.
    pub async fn take(&self, addresses: &[IpAddr]) -> io::Result<HeldHere> {
        let mut held = HeldHere::new();
        for address in addresses {
            if let Some(holder) = self.take_one(*address).await? {
                held.push((*address, holder));
            }
        }
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        for address in taken.iter().filter(|address| !addresses.contains(address)) {
            remove(&link(&self.config.paths, *address))?;
        }
        let others = |address: &&IpAddr| held.iter().all(|(other, _)| other != *address);
        *taken = addresses.iter().filter(others).copied().collect();
        Ok(held)
    }

    /// The task that has the address; none: this one has it now.
    async fn take_one(&self, address: IpAddr) -> io::Result<Option<Holder>> {
        let (paths, container) = (&self.config.paths, &self.record.container);
        if let Some(holder) = self.routed(address).await {
            return Ok(Some(holder));
        }
        let (link, ours) = (link(paths, address), target(container));
        loop {
            match symlink(&ours, &link) {
                Ok(()) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::NotFound => make_private(&paths.addresses())?,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    let found = match fs::read_link(&link) {
                        // Its task has ended meanwhile.
                        Err(error) if error.kind() == ErrorKind::NotFound => continue,
                        found => found?,
                    };
                    if found == ours {
                        return Ok(None);
                    }
                    if let Some(other) = container_of(&found) {
                        if lives(paths, &other).await {
                            return Ok(Some(holder(paths, &other, &self.record.identity.node)));
                        }
                    }
                    if replace(paths, &link, &found, &ours).await? {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The task to whose interface the address's host route leads.
    async fn routed(&self, address: IpAddr) -> Option<Holder> {
        let identity = &self.record.identity;
        let interface = match net::task_with_route(address).await {
            Ok(interface) => interface.filter(|interface| *interface != identity.interface)?,
            Err(error) => {
                // The links cover all tasks of this release.
                tracing::warn!("{}; tasks of the previous release are not checked", chain(&error));
                return None;
            }
        };
        let records = Journal::open(&self.config.paths.journal()).and_then(|journal| journal.files());
        let names = records.unwrap_or_default().into_iter().filter_map(|path| {
            let stem = path.file_stem()?.to_str()?;
            ContainerId::parse(stem).ok()
        });
        let mut owners = names.filter(|container| container.interface() == interface);
        Some(match owners.next() {
            Some(container) => holder(&self.config.paths, &container, &identity.node),
            None => Holder {
                name: format!("a task with the interface {interface}, to which the host routes the address,"),
                node: Some(identity.node.clone()),
                ..Holder::default()
            },
        })
    }
}

/// Gives up every address that the container's task has on this host; how many.
pub fn give_back(config: &Config, container: &ContainerId) -> io::Result<usize> {
    let mut removed = 0;
    for link in links(config) {
        let leads_here = fs::read_link(&link).is_ok_and(|found| found == target(container));
        if leads_here {
            // It is this task's to remove as long as its record stands, and no launch replaces it.
            remove(&link)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Every link, stale or not.
pub fn links(config: &Config) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(config.paths.addresses()) else { return Vec::new() };
    let links = entries.flatten().map(|entry| entry.path());
    links
        .filter(|path| path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b".")))
        .collect()
}

/// The addresses that a container's task holds.
pub fn of(config: &Config, container: &ContainerId) -> Vec<IpAddr> {
    let ours = target(container);
    let mine = links(config).into_iter().filter(|link| fs::read_link(link).is_ok_and(|found| found == ours));
    mine.filter_map(|link| link.file_name()?.to_str()?.parse().ok()).collect()
}

/// The container to whose folder a link leads.
pub fn container_of(target: &Path) -> Option<ContainerId> {
    let name = target.file_name()?.to_str()?;
    ContainerId::parse(name).ok().filter(|container| container.as_str() == name)
}

fn link(paths: &Paths, address: IpAddr) -> PathBuf {
    paths.addresses().join(address.to_string())
}

fn target(container: &ContainerId) -> PathBuf {
    PathBuf::from("../tasks").join(container.as_str())
}

/// May something of the task still use its address? The record of a dead owner counts: its cleaner has yet to come.
async fn lives(paths: &Paths, container: &ContainerId) -> bool {
    journal::path(&paths.journal(), container).exists()
        || net::exists(&container.interface()).await.unwrap_or(true)
}

fn holder(paths: &Paths, container: &ContainerId, node: &str) -> Holder {
    let record = Journal::open(&paths.journal()).ok().and_then(|journal| journal.look(container));
    let identity = record.map(|record| record.identity);
    Holder {
        name: identity.as_ref().map_or_else(|| format!("container {container}"), |it| it.task_id.clone()),
        app: identity.map(|identity| identity.app),
        node: Some(node.to_owned()),
        handle: Some(container.handle()),
    }
}

/// Replaces a stale link, unless another launch was faster.
async fn replace(paths: &Paths, link: &Path, found: &Path, ours: &Path) -> io::Result<bool> {
    let lock = lock(&paths.addresses()).await?;
    let same = fs::read_link(link).is_ok_and(|now| now == found);
    if same {
        let name = link.file_name().unwrap_or_default().to_string_lossy();
        // One name for all: only the owner of the lock makes it.
        let new = link.with_file_name(format!(".{name}.new"));
        files::replace_link(link, ours, &new)?;
    }
    drop(lock);
    Ok(same)
}

/// The folder's lock, which launches hold for a few system calls.
async fn lock(path: &Path) -> io::Result<File> {
    take_file(File::open(path)?, LOCK).await?.ok_or_else(|| {
        let why = format!("another process holds the lock of {} for over {LOCK:?}", path.display());
        io::Error::new(ErrorKind::TimedOut, why)
    })
}

#[cfg(test)]
mod tests;
