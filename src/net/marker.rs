//! What `dataplane = "local"` remembers about the host: who uses it, and what was there before.
//!
//! One JSON file, replaced as a whole, under a lock file. It is written before each change that it
//! describes, so a process that dies in between leaves a marker from which the next one can repair. It lies in
//! the volatile folder: a reboot undoes the changes and forgets the marker alike.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{lock, NetError};
use crate::host::files::{self, make_private};
use crate::host::processes::boot_id;

/// A chain that got our accept rules, as nft names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Chain {
    pub family: String,
    pub table: String,
    pub name: String,
}

/// A kernel setting before we touched it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    pub key: String,
    pub value: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Marker {
    /// The network namespace that all this is about; a marker of another one says nothing here.
    pub namespace: u64,
    /// The boot of the host that all this is about; the release before wrote none.
    pub boot: String,
    /// Link and addresses of every task that relies on the host-wide part.
    pub tasks: BTreeMap<String, Vec<IpAddr>>,
    pub pools: Vec<IpNet>,
    /// Has the host-wide part of the family been begun?
    pub ipv4: bool,
    pub ipv6: bool,
    /// `false` while a change is under way.
    pub ready: bool,
    pub sysctls: Vec<Saved>,
    pub chains: Vec<Chain>,
    /// Programs of the old iptables whose FORWARD chain got our rules.
    pub legacy: Vec<String>,
}

impl Marker {
    /// Whether tasks rely on the host-wide part.
    pub fn is_used(&self) -> bool {
        !self.tasks.is_empty() && (self.ipv4 || self.ipv6)
    }

    /// Takes over what another one has changed on the host, to restore it in its place.
    pub fn inherit(&mut self, other: &Self) {
        for saved in &other.sysctls {
            if !self.sysctls.iter().any(|own| own.key == saved.key) {
                self.sysctls.push(saved.clone());
            }
        }
        for chain in &other.chains {
            if !self.chains.contains(chain) {
                self.chains.push(chain.clone());
            }
        }
        for program in &other.legacy {
            if !self.legacy.contains(program) {
                self.legacy.push(program.clone());
            }
        }
    }
}

/// The marker, held alone until this is dropped.
pub(super) struct LockedMarker {
    pub marker: Marker,
    path: PathBuf,
    _lock: File,
}

impl LockedMarker {
    /// The marker that lies in `state_dir`, if there is one.
    pub async fn existing(state_dir: &Path) -> Result<Option<Self>, NetError> {
        match state_dir.join("host.json").exists() {
            true => Self::lock(state_dir).await.map(Some),
            false => Ok(None),
        }
    }

    pub async fn lock(state_dir: &Path) -> Result<Self, NetError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| NetError::State { action, path, source }
        };
        make_private(state_dir).map_err(failed("make", state_dir))?;
        let lock = lock::take(&state_dir.join("lock")).await?;
        let path = state_dir.join("host.json");
        let own = Path::new("/proc/self/ns/net");
        let namespace = fs::metadata(own).map_err(failed("look at", own))?.ino();
        let boot = boot_id();
        let marker = read(&path).map_err(failed("read", &path))?;
        let is_of_now = |it: &Marker| it.namespace == namespace && (it.boot.is_empty() || it.boot == boot);
        let marker =
            marker.filter(is_of_now).unwrap_or_else(|| Marker { namespace, boot, ..Marker::default() });
        Ok(Self { marker, path, _lock: lock })
    }

    /// Writes the marker as it is now.
    pub fn save(&self) -> Result<(), NetError> {
        let failed = |source| NetError::State { action: "write", path: self.path.clone(), source };
        let text = serde_json::to_vec(&self.marker).map_err(|error| failed(error.into()))?;
        files::replace_as(&self.path, 0o644, |new| new.write_all(&text)).map_err(failed)
    }

    /// Forgets everything: the host is as it was.
    pub fn clear(&mut self) -> Result<(), NetError> {
        let Marker { namespace, boot, .. } = std::mem::take(&mut self.marker);
        self.marker = Marker { namespace, boot, ..Marker::default() };
        match fs::remove_file(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(NetError::State { action: "remove", path: self.path.clone(), source })
            }
            _ => Ok(()),
        }
    }
}

fn read(path: &Path) -> io::Result<Option<Marker>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
