//! `create`: the container's init is made inside the namespace that the executor prepared.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{symlink, MetadataExt};
use std::path::{Path, PathBuf};

use super::{bound, oci, prepared, Call, RuntimeError};
use crate::config::Config;
use crate::gate;
use crate::host::files;
use crate::net::netns;

/// Edits the bundle; what remains is to exec the runtime beneath. Returns what was done, for the log.
pub fn prepare(call: &Call, config: &Config) -> Result<String, RuntimeError> {
    bound::prepare(call, config)?;
    let folder = prepared(call, config)?;
    // The task's own folder, not the link, which goes with the container's first teardown step.
    let folder = fs::canonicalize(&folder).map_err(|source| file("look at", &folder, source))?;
    let namespace = namespace(&folder)?;
    let bundle = call.bundle.clone().unwrap_or_else(|| PathBuf::from("."));
    let path = bundle.join("config.json");
    let text = fs::read_to_string(&path).map_err(|source| file("read", &path, source))?;
    let edited = oci::edit(&text, call.id()?, &namespace)
        .map_err(|source| RuntimeError::Oci { path: path.clone(), source })?;
    files::replace(&path, |new| new.write_all(edited.text.as_bytes()))
        .map_err(|source| file("write", &path, source))?;
    if let Some(hosts) = edited.hosts {
        let link = folder.join("hosts");
        point(&link, &hosts).map_err(|source| file("make", &link, source))?;
    }
    Ok(format!("into {}", namespace.display()))
}

/// Where the prepared namespace is to be found from here.
///
/// An executor in a mount namespace of its own (an agent in a container, the isolator `filesystem/linux`,
/// systemd's PrivateTmp) has bound it where only itself sees it: then the way leads through its root.
fn namespace(folder: &Path) -> Result<PathBuf, RuntimeError> {
    let path = folder.join("netns");
    match check(&path) {
        Err(RuntimeError::NotANamespace) => {}
        result => return result.map(|()| path),
    }
    let Some(owner) = gate::owner(&folder.join("gate")) else { return Err(RuntimeError::NotANamespace) };
    let path =
        Path::new("/proc").join(owner.to_string()).join("root").join(path.strip_prefix("/").unwrap_or(&path));
    check(&path).map(|()| path)
}

/// A container that slipped into the host's own namespace could do anything to the host's network.
fn check(namespace: &Path) -> Result<(), RuntimeError> {
    let opened = match File::open(namespace) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(RuntimeError::NotPrepared),
        Err(source) => return Err(file("open", namespace, source)),
    };
    if !netns::is_network_namespace(&opened).map_err(|source| file("look at", namespace, source))? {
        return Err(RuntimeError::NotANamespace);
    }
    let inode = opened.metadata().map_err(|source| file("look at", namespace, source))?.ino();
    if netns::own_inodes().contains(&inode) {
        return Err(RuntimeError::HostNamespace);
    }
    Ok(())
}

/// The executor writes the task's address and name there before it opens the gate.
fn point(link: &Path, target: &Path) -> io::Result<()> {
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(target, link)
}

fn file(action: &'static str, path: &Path, source: io::Error) -> RuntimeError {
    RuntimeError::File { action, path: path.into(), source }
}
