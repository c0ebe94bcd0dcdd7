//! The programs that were installed by hand, and the links that take their places.
//!
//! The links stay for what this host cannot change: Docker's shim of a container that lives calls `calico-runc` where it
//! lay when the container started, and apps in Marathon name `calico-executor` by its path.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::FileError;
use crate::host::files::{self, NEW};

/// What is installed together.
pub const PROGRAMS: [&str; 3] = ["calico-executor", "calico-runc", "calico-mesos"];
/// The front end's name, a link to `calico-mesos` that `calicoctl install` made.
pub const FRONT_END: &str = "calicoctl";

/// The places below `from` that still hold something else than a link into `own`, with that link's target.
pub fn to_link(from: &Path, own: &Path) -> Result<Vec<(PathBuf, PathBuf)>, FileError> {
    let mut places = Vec::new();
    for name in PROGRAMS {
        let (place, target) = (from.join(name), own.join(name));
        if fs::symlink_metadata(&place).is_ok() && link_at(&place)?.as_ref() != Some(&target) {
            places.push((place, target));
        }
    }
    let (front_end, target) = (from.join(FRONT_END), own.join("calico-mesos"));
    // Another program of that name is Calico's own.
    let is_ours = |link: &PathBuf| *link == from.join("calico-mesos") || *link == Path::new("calico-mesos");
    if link_at(&front_end)?.as_ref().is_some_and(is_ours) {
        places.push((front_end, target));
    }
    Ok(places)
}

/// Replaces them by renames: who starts a program meanwhile gets the old or the new one, and who runs keeps its own.
pub fn link(places: &[(PathBuf, PathBuf)]) -> Result<(), FileError> {
    for (place, target) in places {
        let new = place.with_file_name(NEW);
        files::replace_link(place, target, &new).map_err(FileError::on("replace", place))?;
    }
    Ok(())
}

/// The links below `from` that lead into `own`.
pub fn links(from: &Path, own: &Path) -> Result<Vec<PathBuf>, FileError> {
    let mut found = Vec::new();
    for name in PROGRAMS.into_iter().chain([FRONT_END]) {
        let place = from.join(name);
        let target = own.join(if name == FRONT_END { "calico-mesos" } else { name });
        if link_at(&place)?.as_ref() == Some(&target) {
            found.push(place);
        }
    }
    Ok(found)
}

/// When the link took the program's place; containers that are older call the runtime by it.
pub fn made(link: &Path) -> Option<SystemTime> {
    fs::symlink_metadata(link).ok()?.modified().ok()
}

/// The target of a link; none where there is no link.
fn link_at(place: &Path) -> Result<Option<PathBuf>, FileError> {
    match fs::read_link(place) {
        Ok(target) => Ok(Some(target)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {
            Ok(None)
        }
        Err(source) => Err(FileError::on("read", place)(source)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn programs_become_links_and_a_calicoctl_of_calicos_stays() {
        let root = tempfile::tempdir().unwrap();
        let (from, own) = (root.path().join("local"), root.path().join("bin"));
        for folder in [&from, &own] {
            fs::create_dir(folder).unwrap();
            for name in PROGRAMS {
                fs::write(folder.join(name), name).unwrap();
            }
        }
        fs::write(from.join(FRONT_END), "calico's own").unwrap();
        // A folder of versions behind a link.
        fs::remove_file(from.join("calico-runc")).unwrap();
        symlink("/opt/1/calico-runc", from.join("calico-runc")).unwrap();
        let places = to_link(&from, &own).unwrap();
        assert_eq!(places.len(), 3);
        link(&places).unwrap();
        assert_eq!(fs::read_link(from.join("calico-runc")).unwrap(), own.join("calico-runc"));
        assert!(to_link(&from, &own).unwrap().is_empty());
        assert_eq!(links(&from, &own).unwrap().len(), 3);
        assert!(made(&from.join("calico-runc")).unwrap() <= SystemTime::now());
        assert_eq!(fs::read_dir(&from).unwrap().count(), 4);

        fs::remove_file(from.join(FRONT_END)).unwrap();
        symlink(from.join("calico-mesos"), from.join(FRONT_END)).unwrap();
        link(&to_link(&from, &own).unwrap()).unwrap();
        assert_eq!(links(&from, &own).unwrap().len(), 4);
    }
}
