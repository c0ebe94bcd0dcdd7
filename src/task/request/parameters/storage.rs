//! The parameters for volumes, mounts and file systems in memory.

use std::path::{Component, Path, PathBuf};

use super::values::{boolean, fields, pair, size};
use super::Draft;
use crate::workload::{Mount, MountKind, Propagation, Recursion};

/// `source:target[:options]`, or a target alone, which gets a volume without a name.
pub(super) fn volume(draft: &mut Draft<'_>, text: &str) -> Result<(), String> {
    let parts: Vec<&str> = text.split(':').collect();
    if text.trim().is_empty() || parts.iter().any(|part| part.is_empty()) || parts.len() > 3 {
        return Err("is not source:target[:options]".into());
    }
    let [source, rest @ ..] = &parts[..] else { return Ok(()) };
    let own = in_sandbox(source, draft.sandbox);
    let (list, volume) = match rest {
        [] => (&mut draft.spec.volumes, text.to_owned()),
        [target, options @ ..] if own.contains(':') => {
            let mount = Mount {
                kind: MountKind::Bind,
                source: own,
                target: (*target).to_owned(),
                ..Mount::default()
            };
            draft.spec.mounts.push(with_options(mount, options)?);
            return Ok(());
        }
        rest => (&mut draft.spec.binds, format!("{own}:{}", rest.join(":"))),
    };
    if !list.contains(&volume) {
        list.push(volume);
    }
    Ok(())
}

/// A bind's options, as far as a mount has them.
fn with_options(mut mount: Mount, options: &[&str]) -> Result<Mount, String> {
    for word in options.iter().flat_map(|options| options.split(',')) {
        match word {
            "ro" => mount.read_only = true,
            "rw" => mount.read_only = false,
            word => option(&mut mount, "bind-propagation", Some(word)).map_err(|_| {
                format!("has the option {word}, which does not work in a sandbox whose path has a colon")
            })?,
        }
    }
    Ok(mount)
}

/// The docker CLI reads `./data` from its own folder, which is the sandbox under Mesos.
fn in_sandbox(source: &str, sandbox: &Path) -> String {
    if !source.starts_with('.') {
        return source.to_owned();
    }
    let mut path = PathBuf::new();
    for part in sandbox.join(source).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                path.pop();
            }
            part => path.push(part),
        }
    }
    path.display().to_string()
}

/// `path[:options]`; the options are the kernel's.
pub(super) fn tmpfs(draft: &mut Draft<'_>, text: &str) -> Result<(), String> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    if !path.starts_with('/') {
        return Err("is not path[:options] with an absolute path".into());
    }
    draft.spec.tmpfs.insert(path.to_owned(), options.to_owned());
    Ok(())
}

/// `type=bind,source=/srv,target=/srv,readonly` and its kind.
pub(super) fn mount(draft: &mut Draft<'_>, text: &str) -> Result<(), String> {
    let mut mount = Mount::default();
    // Which of volume, bind, tmpfs and image the options given so far are for.
    let mut families = Vec::new();
    for field in fields(text)? {
        let (key, value) = field.split_once('=').map_or((&*field, None), |(key, value)| (key, Some(value)));
        let key = key.to_ascii_lowercase();
        let family = ["volume", "bind", "tmpfs", "image"]
            .into_iter()
            .find(|family| key.strip_prefix(family).is_some_and(|rest| rest.starts_with('-')));
        families.extend(family);
        option(&mut mount, &key, value).map_err(|reason| format!("is not a valid mount: {key} {reason}"))?;
    }
    mount.source = in_sandbox(&mount.source, draft.sandbox);
    let own = match mount.kind {
        MountKind::Volume => "volume",
        MountKind::Bind => "bind",
        MountKind::Tmpfs => "tmpfs",
        MountKind::Image => "image",
    };
    if let Some(other) = families.iter().find(|family| **family != own) {
        return Err(format!("mixes options for {other} with the type {own}"));
    }
    if mount.target.is_empty() {
        return Err("has no target".into());
    }
    if matches!(mount.recursion, Recursion::Writable | Recursion::ReadOnly) && !mount.read_only {
        return Err("has a bind-recursive that needs readonly beside it".into());
    }
    if mount.recursion == Recursion::ReadOnly && mount.propagation != Some(Propagation::RPrivate) {
        return Err("has bind-recursive=readonly, which needs bind-propagation=rprivate beside it".into());
    }
    draft.spec.mounts.push(mount);
    Ok(())
}

fn option(mount: &mut Mount, key: &str, value: Option<&str>) -> Result<(), String> {
    let Some(value) = value else {
        match key {
            "readonly" | "ro" => mount.read_only = true,
            "volume-nocopy" => mount.no_copy = true,
            "bind-nonrecursive" => mount.recursion = Recursion::Disabled,
            _ => return Err("needs a value".into()),
        }
        return Ok(());
    };
    match key {
        "type" => {
            mount.kind = match value.to_ascii_lowercase().as_str() {
                "volume" => MountKind::Volume,
                "bind" => MountKind::Bind,
                "tmpfs" => MountKind::Tmpfs,
                "image" => MountKind::Image,
                _ => return Err("is not volume, bind, tmpfs or image".into()),
            }
        }
        "source" | "src" => value.clone_into(&mut mount.source),
        "target" | "dst" | "destination" => value.clone_into(&mut mount.target),
        "readonly" | "ro" => mount.read_only = boolean(value)?,
        "consistency" => mount.consistency = Some(value.to_ascii_lowercase()),
        "bind-propagation" => {
            mount.propagation = Some(match value.to_ascii_lowercase().as_str() {
                "private" => Propagation::Private,
                "rprivate" => Propagation::RPrivate,
                "shared" => Propagation::Shared,
                "rshared" => Propagation::RShared,
                "slave" => Propagation::Slave,
                "rslave" => Propagation::RSlave,
                _ => return Err("is none of private, shared, slave, rprivate, rshared and rslave".into()),
            })
        }
        "bind-nonrecursive" => {
            mount.recursion = if boolean(value)? { Recursion::Disabled } else { Recursion::Enabled }
        }
        "bind-recursive" => {
            mount.recursion = match value {
                "enabled" => Recursion::Enabled,
                "disabled" => Recursion::Disabled,
                "writable" => Recursion::Writable,
                "readonly" => Recursion::ReadOnly,
                _ => return Err("is none of enabled, disabled, writable and readonly".into()),
            }
        }
        "volume-subpath" | "image-subpath" => mount.subpath = Some(value.to_owned()),
        "volume-nocopy" => mount.no_copy = boolean(value)?,
        "volume-label" => mount.labels.extend([pair(value)?]),
        "volume-driver" => mount.driver = Some(value.to_owned()),
        "volume-opt" => mount.driver_options.extend([pair(value)?]),
        "tmpfs-size" => mount.tmpfs_size = Some(size(value)?),
        "tmpfs-mode" => {
            let mode = u32::from_str_radix(value, 8).map_err(|_| "is not an octal mode such as 1777")?;
            mount.tmpfs_mode = Some(mode.into());
        }
        _ => return Err("is not an option of a mount".into()),
    }
    Ok(())
}
