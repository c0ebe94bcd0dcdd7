//! `calico-mesos calicoctl install|uninstall`: the link under which this program is the front end.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{json, Value};

use crate::error::FileError;

use super::super::change::{ChangeFlags, ChangedObject};
use super::super::session::Session;
use super::super::Failed;
use super::real::{self, BESIDE_US};
use super::NAME;

#[derive(Debug, Subcommand)]
pub enum LinkVerb {
    /// Make the link `calicoctl` to this program; refused where another program of that name lies there.
    Install(LinkPlace),
    /// Remove the link that `calicoctl install` made.
    Uninstall(LinkPlace),
}

#[derive(Debug, Args)]
pub struct LinkPlace {
    /// The folder of the link
    #[arg(long, value_name = "DIR", default_value = "/usr/local/bin")]
    dir: PathBuf,
    #[command(flatten)]
    flags: ChangeFlags,
}

#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("{0} is another program: move it to {BESIDE_US}, where the front end finds it, or choose another --dir")]
    Foreign(PathBuf),
    #[error(transparent)]
    File(#[from] FileError),
}

/// What lies where the link belongs.
#[derive(Debug, PartialEq)]
enum There {
    Nothing,
    Ours,
    Foreign,
}

pub(super) fn run(verb: &LinkVerb, session: &Session) -> Result<ExitCode, Failed> {
    let program = std::env::current_exe().map_err(FileError::on("find", Path::new("/proc/self/exe")))?;
    match verb {
        LinkVerb::Install(place) => {
            let link = place.dir.join(NAME);
            let changed = install(&link, &program, place.flags.dry_run)?;
            let words = ("to make", "is made", "is there already");
            let mut sentences = vec![sentence(&link, changed, place.flags.dry_run, words)];
            let own = fs::metadata(&program).ok();
            let search = std::env::var_os("PATH");
            sentences.push(
                match real::find(&session.config, search.as_deref(), own.as_ref(), &["get".into()]) {
                    Ok(path) => format!("Calico's own calicoctl: {}", path.display()),
                    Err(error) => format!("note: {error}"),
                },
            );
            let target = Some(json!(program));
            let changed = of_link(&link, if changed { None } else { target.clone() }, target);
            Ok(session.report(place.flags, &[changed], &sentences))
        }
        LinkVerb::Uninstall(place) => {
            let link = place.dir.join(NAME);
            let changed = uninstall(&link, &program, place.flags.dry_run)?;
            let words = ("to remove", "is removed", "is not there");
            let sentence = sentence(&link, changed, place.flags.dry_run, words);
            let changed = of_link(&link, changed.then(|| json!(program)), None);
            Ok(session.report(place.flags, &[changed], &[sentence]))
        }
    }
}

fn of_link(link: &Path, before: Option<Value>, after: Option<Value>) -> ChangedObject {
    ChangedObject::on_host(&link.display().to_string(), before, after)
}

fn sentence(link: &Path, changed: bool, dry_run: bool, words: (&str, &str, &str)) -> String {
    match (changed, dry_run) {
        (true, true) => format!("{}: {}", words.0, link.display()),
        (true, false) => format!("{} {}", link.display(), words.1),
        (false, _) => format!("{} {}", link.display(), words.2),
    }
}

/// Whether there is something to make; it is made unless in a dry run.
fn install(link: &Path, program: &Path, dry_run: bool) -> Result<bool, LinkError> {
    match look(link, program)? {
        There::Ours => return Ok(false),
        There::Foreign => return Err(LinkError::Foreign(link.into())),
        There::Nothing if dry_run => {}
        // Fails where another program has come in between.
        There::Nothing => std::os::unix::fs::symlink(program, link).map_err(FileError::on("make", link))?,
    }
    Ok(true)
}

fn uninstall(link: &Path, program: &Path, dry_run: bool) -> Result<bool, LinkError> {
    match look(link, program)? {
        There::Nothing => return Ok(false),
        There::Foreign => return Err(LinkError::Foreign(link.into())),
        There::Ours if dry_run => {}
        There::Ours => fs::remove_file(link).map_err(FileError::on("remove", link))?,
    }
    Ok(true)
}

/// Ours: a link to this program, or to one of its name that is gone.
fn look(link: &Path, program: &Path) -> Result<There, LinkError> {
    let target = match fs::read_link(link) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(There::Nothing),
        // Not a link.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(There::Foreign),
        Err(source) => return Err(FileError::on("read", link)(source).into()),
    };
    let same_name = target.file_name() == program.file_name();
    let ours = match (fs::metadata(link), fs::metadata(program)) {
        (Ok(there), Ok(own)) => (there.dev(), there.ino()) == (own.dev(), own.ino()) || same_name,
        _ => same_name,
    };
    Ok(if ours { There::Ours } else { There::Foreign })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_comes_and_goes_and_never_replaces_a_program() {
        let dir = tempfile::tempdir().unwrap();
        let (link, program) = (dir.path().join(NAME), dir.path().join("calico-mesos"));
        fs::write(&program, "").unwrap();
        assert!(install(&link, &program, true).unwrap() && !link.exists());
        assert!(install(&link, &program, false).unwrap());
        assert_eq!(fs::read_link(&link).unwrap(), program);
        assert!(!install(&link, &program, false).unwrap());
        assert!(uninstall(&link, &program, true).unwrap() && link.exists());
        // Also when the program has gone before its link.
        fs::remove_file(&program).unwrap();
        assert!(uninstall(&link, &program, false).unwrap());
        assert!(!uninstall(&link, &program, false).unwrap());

        for foreign in ["file", "link"] {
            match foreign {
                "file" => fs::write(&link, "calico's own").unwrap(),
                _ => std::os::unix::fs::symlink("/opt/calico/calicoctl-3.29", &link).unwrap(),
            }
            let refused = |result| matches!(result, Err(LinkError::Foreign(path)) if path == link);
            assert!(refused(install(&link, &program, false)) && refused(uninstall(&link, &program, false)));
            fs::remove_file(&link).unwrap();
        }
    }
}
