//! The units that were installed by hand, and the package's that take their places.
//!
//! systemd prefers what lies in `/etc/systemd/system`. A unit of ours there that only repeats the package's is removed;
//! one that an operator has changed keeps its changes and gets the package's program.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::FileError;
use crate::host::files;

use super::super::timer::{SERVICE, TIMER};

pub const PROXY: &str = "calico-mesos-proxy.service";
const UNITS: [&str; 4] = [SERVICE, TIMER, PROXY, "calico-mesos-proxy.socket"];
/// No unit of ours in the package starts it: its timer does.
const STATIC: &str = SERVICE;

/// Where units lie, and the program that they call before and after.
#[derive(Debug)]
pub struct UnitFolders<'a> {
    /// Those that were installed by hand.
    pub by_hand: &'a Path,
    pub packaged: &'a Path,
    /// The program that units installed by hand call, and the one that takes its place.
    pub old: PathBuf,
    pub new: PathBuf,
}

/// What has to be done with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitStep {
    /// The package's unit says the same.
    Remove(PathBuf),
    /// It says something of its own: only the program changes.
    Rewrite(PathBuf, String),
}

impl UnitFolders<'_> {
    /// What differs from what should be.
    pub fn steps(&self) -> Result<Vec<UnitStep>, FileError> {
        let mut steps = Vec::new();
        for name in UNITS {
            let path = self.by_hand.join(name);
            // A link is another's: to a file elsewhere, or to /dev/null, which masks the unit.
            if fs::symlink_metadata(&path).is_ok_and(|found| found.is_file()) {
                let text = read(&path)?;
                let packaged = read(&self.packaged.join(name)).ok();
                steps.extend(self.step(name, &path, &text, packaged.as_deref()));
            }
            for path in drop_ins(&self.by_hand.join(format!("{name}.d")))? {
                let text = read(&path)?;
                let moved = self.moved(&text);
                steps.extend((moved != text).then_some(UnitStep::Rewrite(path, moved)));
            }
        }
        Ok(steps)
    }

    fn step(&self, name: &str, path: &Path, text: &str, packaged: Option<&str>) -> Option<UnitStep> {
        let moved = self.moved(text);
        let repeats = packaged.is_some_and(|packaged| {
            // `node install-timer` writes the cleaner's: they hold nothing of the operator's but the configuration.
            let written = [SERVICE, TIMER].contains(&name) && text.contains("dead Calico tasks");
            written && !moved.contains(" --config ") || settings(&moved).all(|line| has(packaged, line))
        });
        if repeats {
            return Some(UnitStep::Remove(path.into()));
        }
        (moved != text).then(|| UnitStep::Rewrite(path.into(), moved))
    }

    fn moved(&self, text: &str) -> String {
        text.replace(&self.old.display().to_string(), &self.new.display().to_string())
    }

    /// Does it. Units that were enabled stay so.
    pub fn apply(&self, steps: &[UnitStep]) -> Result<(), FileError> {
        for step in steps {
            match step {
                UnitStep::Rewrite(path, text) => files::replace(path, |new| new.write_all(text.as_bytes()))
                    .map_err(FileError::on("write", path))?,
                UnitStep::Remove(path) => {
                    fs::remove_file(path).map_err(FileError::on("remove", path))?;
                    self.lead_to_the_package(path)?;
                }
            }
        }
        Ok(())
    }

    /// The links by which the unit was enabled.
    fn lead_to_the_package(&self, unit: &Path) -> Result<(), FileError> {
        let Some(name) = unit.file_name() else { return Ok(()) };
        let folders = fs::read_dir(self.by_hand).map_err(FileError::on("read", self.by_hand))?;
        for folder in folders.flatten().map(|entry| entry.path()) {
            let link = folder.join(name);
            if !fs::read_link(&link).is_ok_and(|target| target == unit) {
                continue;
            }
            if name == STATIC {
                fs::remove_file(&link).map_err(FileError::on("remove", &link))?;
                continue;
            }
            let (target, new) = (self.packaged.join(name), folder.join(files::NEW));
            files::replace_link(&link, &target, &new).map_err(FileError::on("replace", &link))?;
        }
        Ok(())
    }
}

/// The lines that systemd obeys.
fn settings(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';']))
}

fn has(text: &str, wanted: &str) -> bool {
    settings(text).any(|line| line == wanted)
}

fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
            .collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(FileError::on("read", folder)(source)),
    }
}

fn read(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(FileError::on("read", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const PACKAGED: &str = include_str!("../../../../mesos/calico-mesos-proxy.service");

    #[test]
    fn what_repeats_the_package_goes_and_what_an_operator_changed_stays() {
        let root = tempfile::tempdir().unwrap();
        let (etc, lib) = (root.path().join("etc"), root.path().join("lib"));
        for folder in [&etc, &lib, &etc.join("multi-user.target.wants"), &etc.join(format!("{PROXY}.d"))] {
            fs::create_dir(folder).unwrap();
        }
        fs::write(lib.join(PROXY), PACKAGED).unwrap();
        fs::write(lib.join(SERVICE), include_str!("../../../../mesos/calico-mesos-gc.service")).unwrap();
        let by_hand = |text: &str| text.replace("/usr/bin/", "/usr/local/bin/");
        let folders = UnitFolders {
            by_hand: &etc,
            packaged: &lib,
            old: "/usr/local/bin/calico-mesos".into(),
            new: "/usr/bin/calico-mesos".into(),
        };
        assert!(folders.steps().unwrap().is_empty());

        // An older release's: without some of what the package's has.
        let older = by_hand(PACKAGED).replace("KeyringMode=private\n", "").replace("Docker API", "API");
        fs::write(etc.join(PROXY), older.replace("Description=API", "Description=Docker API")).unwrap();
        symlink(etc.join(PROXY), etc.join("multi-user.target.wants").join(PROXY)).unwrap();
        let drop_in = etc.join(format!("{PROXY}.d/override.conf"));
        fs::write(
            &drop_in,
            "[Service]\nExecStart=\nExecStart=/usr/local/bin/calico-mesos --config /x proxy\n",
        )
        .unwrap();
        let steps = folders.steps().unwrap();
        assert_eq!(steps[0], UnitStep::Remove(etc.join(PROXY)));
        assert!(matches!(&steps[1], UnitStep::Rewrite(path, _) if *path == drop_in));
        folders.apply(&steps).unwrap();
        assert!(fs::read_to_string(&drop_in).unwrap().contains("=/usr/bin/calico-mesos --config"));
        let link = etc.join("multi-user.target.wants").join(PROXY);
        assert_eq!(fs::read_link(link).unwrap(), lib.join(PROXY));
        assert!(!etc.join(PROXY).exists() && folders.steps().unwrap().is_empty());

        let changed = by_hand(PACKAGED) + "Environment=A=b\n";
        fs::write(etc.join(PROXY), &changed).unwrap();
        let steps = folders.steps().unwrap();
        let moved = changed.replace("/usr/local/bin/", "/usr/bin/");
        assert_eq!(steps, [UnitStep::Rewrite(etc.join(PROXY), moved)]);
        folders.apply(&steps).unwrap();
        assert!(folders.steps().unwrap().is_empty());

        // The cleaner's, as `node install-timer` wrote them: with another configuration, and without.
        let gc = "# Takes away what is left of dead Calico tasks\nExecStart=/usr/local/bin/calico-mesos gc\n";
        fs::write(etc.join(SERVICE), gc.replace(" gc", " --config /x gc")).unwrap();
        assert!(
            matches!(&folders.steps().unwrap()[..], [UnitStep::Rewrite(_, text)] if text.contains("=/usr/bin/"))
        );
        fs::write(etc.join(SERVICE), format!("{gc}Nice=5\n")).unwrap();
        assert_eq!(folders.steps().unwrap(), [UnitStep::Remove(etc.join(SERVICE))]);
        // Masked.
        fs::remove_file(etc.join(SERVICE)).unwrap();
        symlink("/dev/null", etc.join(SERVICE)).unwrap();
        assert!(folders.steps().unwrap().is_empty());
    }
}
