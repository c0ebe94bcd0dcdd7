//! Where a task's output lies.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Story;

/// A task's sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// As its executor sees it, for messages.
    pub path: PathBuf,
    /// By which this program reaches it: an executor may have a mount namespace of its own.
    pub reach: PathBuf,
}

/// The sandbox: where the living executor works, else where the audit trail says that it worked. The agent removes the
/// folder some days after the task's end.
pub fn sandbox(story: &Story) -> Option<Sandbox> {
    let owner = story.view.as_ref().map(|view| &view.record.owner).filter(|owner| owner.lives());
    let works_in = owner.and_then(|owner| {
        let link = PathBuf::from(format!("/proc/{}/cwd", owner.pid));
        Some(Sandbox { path: fs::read_link(&link).ok()?, reach: link })
    });
    match works_in {
        // By its own name it can be read after the executor's end.
        Some(Sandbox { path, reach }) if is_same(&path, &reach) => {
            Some(Sandbox { reach: path.clone(), path })
        }
        Some(sandbox) => Some(sandbox),
        None => {
            let path = story.life.as_ref()?.launch.as_ref()?.sandbox.clone()?;
            Some(Sandbox { reach: path.clone(), path })
        }
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let number = |path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    number(one).is_some_and(|number_of_one| number(other) == Some(number_of_one))
}
