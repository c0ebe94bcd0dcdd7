//! The project's own files, links and folders, made and replaced so that no reader finds half of one.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{fchown, symlink, DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use tempfile::NamedTempFile;

/// How the name of a file begins that is about to replace another one.
pub const NEW: &str = ".calico-mesos-new";

/// How the name of a private cluster's folder begins, the one that `calico-mesos run --dev` makes.
pub const PRIVATE_CLUSTER: &str = "cmdev-";

/// Makes the folder where it is missing, and those above it, for their owner's eyes only.
///
/// The folder of a private cluster is made by its owner alone: an executor that outlives the cluster would bring it
/// back without owner, and no sweep would remove it.
pub fn make_private(folder: &Path) -> io::Result<()> {
    let is_cluster = |path: &&Path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PRIVATE_CLUSTER))
    };
    if let Some(cluster) = folder.ancestors().find(is_cluster).filter(|cluster| !cluster.exists()) {
        let text = format!("the private cluster of {} has ended", cluster.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Replaces the file by what is written, as a whole or not, with the mode and owner that it had; a new one gets mode
/// 0644.
pub fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let new = written(path, write)?;
    match fs::metadata(path) {
        Ok(old) => {
            new.as_file().set_permissions(old.permissions())?;
            fchown(new.as_file(), Some(old.uid()), Some(old.gid()))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            new.as_file().set_permissions(Permissions::from_mode(0o644))?;
        }
        Err(error) => return Err(error),
    }
    new.persist(path)?;
    Ok(())
}

/// Replaces the file by what is written, as a whole or not. It gets this mode and belongs to the process's user,
/// also where another file was there before.
pub fn replace_as(path: &Path, mode: u32, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let new = written(path, write)?;
    new.as_file().set_permissions(Permissions::from_mode(mode))?;
    new.persist(path)?;
    Ok(())
}

/// A complete file beside its place; dropped, it is removed. Until it gets its mode, only its owner can read it.
fn written(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<NamedTempFile> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut new = tempfile::Builder::new().prefix(NEW).tempfile_in(folder)?;
    write(new.as_file_mut())?;
    Ok(new)
}

/// Replaces what the link is by a link to `target`, at no moment without one. `new` is its name until then: callers
/// hold a lock, so that no two processes use the name at once.
pub fn replace_link(link: &Path, target: &Path, new: &Path) -> io::Result<()> {
    remove(new)?;
    symlink(target, new)?;
    fs::rename(new, link)
}

/// Removes a file or a link; one that is missing is not an error.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_or_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mode = || fs::metadata(&path).unwrap().mode() & 0o777;
        replace(&path, |file| file.write_all(b"one")).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode()), ("one", 0o644));
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        replace(&path, |file| file.write_all(b"two")).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode()), ("two", 0o640));
        let full = |file: &mut File| file.write_all(b"thr").and(Err(io::ErrorKind::StorageFull.into()));
        assert_eq!(replace(&path, full).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_replaced_file_gets_the_given_mode_whatever_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        replace_as(&path, 0o600, |file| file.write_all(b"new")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let full = |_: &mut File| Err(io::ErrorKind::StorageFull.into());
        assert_eq!(replace_as(&path, 0o644, full).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_replaced_in_spite_of_what_a_killed_process_has_left() {
        let folder = tempfile::tempdir().unwrap();
        let (link, new) = (folder.path().join("link"), folder.path().join("new"));
        symlink("half", &new).unwrap();
        for target in ["one", "two"] {
            replace_link(&link, Path::new(target), &new).unwrap();
            assert_eq!(fs::read_link(&link).unwrap(), Path::new(target));
        }
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
        remove(&link).unwrap();
        remove(&link).unwrap();
        assert!(remove(folder.path()).is_err());
    }

    #[test]
    fn a_private_folder_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        make_private(&path).unwrap();
        make_private(&path).unwrap();
        for path in [path.as_path(), path.parent().unwrap()] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o700);
        }
    }
    #[test]
    fn the_folder_of_a_private_cluster_that_has_ended_is_not_made_again() {
        let base = tempfile::tempdir().unwrap();
        let cluster = base.path().join("cmdev-x");
        let error = make_private(&cluster.join("state/journal")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("cmdev-x has ended") && !cluster.exists(), "{error}");
        fs::create_dir(&cluster).unwrap();
        make_private(&cluster.join("state/journal")).unwrap();
    }
}
