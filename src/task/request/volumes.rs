//! Volumes, the sandbox among them: as Docker's `source:target:mode`, or as a mount where the sandbox's path has a
//! colon, which separates the parts of that notation.

use std::path::{Component, Path, PathBuf};

use super::{invalid, name, unsupported, Context};
use crate::config::Config;
use crate::error::{Code, Failure};
use crate::mesos::messages::container_info::DockerInfo;
use crate::mesos::messages::volume::source::{DockerVolume, Type};
use crate::mesos::messages::volume::Mode;
use crate::mesos::messages::{ContainerInfo, Volume};
use crate::task::request::calico::shown;
use crate::workload::{ContainerSpec, Mount, MountKind};

/// All volumes of the task in its order, then the sandbox.
pub(super) fn apply(
    container: &ContainerInfo,
    docker: &DockerInfo,
    context: &Context<'_>,
    spec: &mut ContainerSpec,
    notes: &mut Vec<String>,
) -> Result<(), Failure> {
    let mut driver = docker.volume_driver.clone();
    for volume in &container.volumes {
        let target = target(volume, context)?;
        let mode = if volume.mode() == Mode::Ro { "ro" } else { "rw" };
        let source = match (&volume.host_path, &volume.source) {
            (Some(path), _) => host_path(path, volume, driver.is_some(), context)?,
            (None, Some(source)) => match (source.r#type(), &source.docker_volume) {
                (Type::DockerVolume, Some(named)) => named_volume(named, &mut driver, notes)?,
                _ => return Err(unsupported("a volume that is neither a host path nor a Docker volume")),
            },
            (None, None) => {
                let path = shown(&volume.container_path);
                return Err(invalid(format!("the volume for {path} has neither a host path nor a source")));
            }
        };
        match source.contains(':') {
            false => spec.binds.push(format!("{source}:{target}:{mode}")),
            true => spec.mounts.push(in_sandbox_with_colon(&source, &target, mode == "ro")),
        }
    }
    spec.volume_driver = driver;
    let sandbox = context.sandbox.display().to_string();
    match sandbox.contains(':') {
        false => spec.binds.push(format!("{sandbox}:{}", context.mapped_directory)),
        true => spec.mounts.push(in_sandbox_with_colon(&sandbox, &context.mapped_directory, false)),
    }
    Ok(())
}

/// What the app names has no colon, so this one is the sandbox's own: Mesos makes the path of the ids of framework
/// and executor.
fn in_sandbox_with_colon(source: &str, target: &str, read_only: bool) -> Mount {
    let (source, target) = (source.to_owned(), target.to_owned());
    Mount { kind: MountKind::Bind, source, target, read_only, ..Mount::default() }
}

/// Folders of the sandbox that Docker would make for a bind, and does not make for a mount.
pub fn missing_folders<'a>(spec: &'a ContainerSpec, sandbox: &'a Path) -> impl Iterator<Item = &'a Path> {
    let binds = spec.mounts.iter().filter(|mount| mount.kind == MountKind::Bind);
    let sources = binds.map(|mount| Path::new(&mount.source));
    sources.filter(move |source| {
        let colon = source.as_os_str().as_encoded_bytes().contains(&b':');
        colon && source.starts_with(sandbox) && !source.exists()
    })
}

/// A relative path of the container lies in its sandbox.
fn target(volume: &Volume, context: &Context<'_>) -> Result<String, Failure> {
    let path = plain("the container path of a volume", &volume.container_path)?;
    match path.starts_with('/') {
        true => Ok(path.to_owned()),
        false => Ok(format!("{}/{path}", context.mapped_directory.trim_end_matches('/'))),
    }
}

/// A relative path of the host lies in the sandbox, unless a volume driver makes a volume's name of it.
fn host_path(
    path: &str,
    volume: &Volume,
    has_driver: bool,
    context: &Context<'_>,
) -> Result<String, Failure> {
    let path = plain("the host path of a volume", path)?;
    if path.starts_with('/') {
        return Ok(path.to_owned());
    }
    if !volume.container_path.starts_with('/') {
        return Err(invalid(format!(
            "the host path {} and the container path {} of a volume cannot both be relative",
            shown(path),
            shown(&volume.container_path)
        )));
    }
    match has_driver {
        true => Ok(path.to_owned()),
        false => Ok(format!("{}/{path}", context.sandbox.display())),
    }
}

fn named_volume(
    volume: &DockerVolume,
    driver: &mut Option<String>,
    notes: &mut Vec<String>,
) -> Result<String, Failure> {
    if let Some(own) = &volume.driver {
        match driver {
            Some(other) if other != own => {
                return Err(invalid(format!(
                    "the task's volumes need two drivers, {} and {}; Docker can use only one",
                    shown(other),
                    shown(own)
                )))
            }
            _ => *driver = Some(own.clone()),
        }
    }
    if volume.driver_options.is_some() {
        notes.push(format!("the driver options of the volume {} have no effect", shown(&volume.name)));
    }
    plain("the name of a volume", &volume.name).map(str::to_owned)
}

/// In Docker's notation a colon would begin the next part.
fn plain<'a>(what: &str, text: &'a str) -> Result<&'a str, Failure> {
    match name(what, text)?.contains(':') {
        true => Err(invalid(format!("{what} {} contains a colon", shown(text)))),
        false => Ok(text),
    }
}

/// Refuses volumes through which a Calico task would see or replace the namespaces, gates, journals and
/// credentials of all of them. Links are followed, as Docker would.
pub fn refuse_our_folders(spec: &ContainerSpec, config: &Config) -> Result<(), Failure> {
    let etc = Path::new(crate::config::DEFAULT_PATH).parent().unwrap_or(Path::new("/"));
    let ours: Vec<&Path> =
        [config.paths.run.as_path(), &config.paths.state, etc].into_iter().chain(config.secrets()).collect();
    let binds = spec.binds.iter().map(|bind| bind.split(':').next().unwrap_or_default());
    let mounts = spec.mounts.iter().flat_map(sources);
    for source in binds.chain(mounts).filter(|source| source.starts_with('/')) {
        let real = real_path(Path::new(source));
        for folder in &ours {
            let folder = real_path(folder);
            if real.starts_with(&folder) || folder.starts_with(&real) {
                return Err(Failure::new(
                    Code::Volume,
                    format!(
                        "the volume {} contains {}, which a Calico task must not see; mount a narrower folder",
                        shown(source),
                        folder.display()
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// What a mount shows of the host. Docker's own volumes can be made to bind a folder, or to lay an overlay
/// over some; those on a file server have paths that are not this host's.
fn sources(mount: &Mount) -> Vec<&str> {
    let option = |name: &str| mount.driver_options.get(name).map_or("", String::as_str);
    let remote = ["nfs", "cifs", "smb"].iter().any(|kind| option("type").starts_with(kind));
    match mount.kind {
        MountKind::Bind => vec![&mount.source],
        MountKind::Volume if !remote => {
            option("device").split(':').chain(option("o").split([',', '=', ':'])).collect()
        }
        MountKind::Volume | MountKind::Tmpfs | MountKind::Image => Vec::new(),
    }
}

/// The path without links; what does not exist yet stays as it is written, without `..`.
fn real_path(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    match (path.parent(), path.components().next_back()) {
        (Some(parent), Some(Component::Normal(last))) => real_path(parent).join(last),
        (Some(parent), Some(Component::ParentDir)) => {
            real_path(parent).parent().unwrap_or(Path::new("/")).to_owned()
        }
        (Some(parent), _) => real_path(parent),
        (None, _) => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same for every way of showing a folder.
    fn refused(path: &str, config: &Config) -> bool {
        let options = |list: &[(&str, &str)]| {
            list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let volume = |list: &[(&str, &str)]| Mount { driver_options: options(list), ..Mount::default() };
        let mounts = [
            Mount { kind: MountKind::Bind, source: path.to_owned(), ..Mount::default() },
            volume(&[("type", "none"), ("o", "bind"), ("device", path)]),
            volume(&[
                ("type", "overlay"),
                ("device", "overlay"),
                ("o", &format!("lowerdir=/srv:{path},upperdir=/srv")),
            ]),
        ];
        let with = |binds, mounts| {
            refuse_our_folders(&ContainerSpec { binds, mounts, ..ContainerSpec::default() }, config).is_err()
        };
        let bind = with(vec![format!("{path}:/x:ro")], Vec::new());
        for mount in mounts {
            assert_eq!(with(Vec::new(), vec![mount.clone()]), bind, "{mount:?}");
        }
        bind
    }

    #[test]
    fn volumes_never_lead_into_our_folders() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run/cm");
        std::fs::create_dir_all(&run).unwrap();
        std::os::unix::fs::symlink(&run, folder.path().join("link")).unwrap();
        let mut config = Config::default();
        config.paths.run.clone_from(&run);
        let path = |tail: &str| folder.path().join(tail).display().to_string();
        for bind in [
            "run/cm",
            "run",
            "",
            "link",
            "link/tasks",
            "run/cm/tasks/x",
            "run/cm/../cm",
            "nothing/../run/cm/x",
        ] {
            assert!(refused(&path(bind), &config), "{bind}");
        }
        for bind in [
            "/",
            "/etc",
            "/etc/calico-mesos",
            "/etc/calico-mesos/config.toml",
            "/var/lib",
            "/var/lib/calico-mesos/tasks",
        ] {
            assert!(refused(bind, &config), "{bind}");
        }
        for bind in ["/etc/localtime", "/srv", "/var/lib/calico-mesos-not", &path("other"), &path("run/cm2")]
        {
            assert!(!refused(bind, &config), "{bind}");
        }
        config.etcd.key_file = Some(folder.path().join("pki/etcd.key"));
        assert!(refused(&path("pki"), &config) && refused(&path("pki/etcd.key"), &config));
        assert!(!refused(&path("pki/ca.pem"), &config));
        let named = ContainerSpec { binds: vec!["volume-name:/x".into()], ..ContainerSpec::default() };
        assert!(refuse_our_folders(&named, &config).is_ok());
        // The root of a file server is not this host's.
        let options = [("type", "nfs"), ("o", "addr=10.0.0.1,rw"), ("device", ":/")];
        let options = options.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let nfs = Mount { driver_options: options.into(), ..Mount::default() };
        assert!(refuse_our_folders(&ContainerSpec { mounts: vec![nfs], ..named }, &config).is_ok());
    }
}
