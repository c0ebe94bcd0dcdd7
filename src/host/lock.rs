//! Lock files that programs of several releases share, as happens on every host while it is upgraded.
//!
//! The one line of a lock states the form of what the lock guards: `calico-mesos lock 1`. The number grows when
//! a release before would do harm there. A process that finds a smaller number raises it, and has to read the older
//! form as well; one that finds a greater number leaves the lock and what it guards to the newer release. Releases
//! before this rule wrote nothing, which counts as 1.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{sleep, Instant};

const WORDS: &str = "calico-mesos lock ";

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("cannot {action} the lock {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "what {} guards has format {found}; this release of calico-mesos supports up to format {known} and leaves it to the newer release",
        path.display()
    )]
    Newer { path: PathBuf, found: u32, known: u32 },
}

/// Repeats the attempt at a lock until it has it; `None` when that took longer than `limit`.
///
/// The pauses are a tenth of the time waited so far, 2 to 50 ms: a hundred executors that want one lock at once leave
/// the processor to its holder.
pub async fn within<T, E>(
    limit: Duration,
    mut attempt: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let begun = Instant::now();
    loop {
        let taken = attempt()?;
        let waited = begun.elapsed();
        if taken.is_some() || waited >= limit {
            return Ok(taken);
        }
        sleep((waited / 10).clamp(Duration::from_millis(2), Duration::from_millis(50))).await;
    }
}

/// Locks the open file alone, within `limit`; it is held until the file is dropped.
pub async fn take_file(file: File, limit: Duration) -> io::Result<Option<File>> {
    let taken = within(limit, || is_taken(file.try_lock())).await?;
    Ok(taken.map(|()| file))
}

fn is_taken(result: Result<(), TryLockError>) -> io::Result<Option<()>> {
    match result {
        Ok(()) => Ok(Some(())),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(source),
    }
}

/// Takes the lock alone, unless another process has or shares it; it is held until the file is dropped.
pub fn try_take(path: &Path, form: u32) -> Result<Option<File>, LockError> {
    attempt(path, form, File::try_lock)
}

/// Takes the lock beside others that share it, unless another process has it alone.
pub fn try_share(path: &Path, form: u32) -> Result<Option<File>, LockError> {
    attempt(path, form, File::try_lock_shared)
}

fn attempt(
    path: &Path,
    form: u32,
    lock_file: impl Fn(&File) -> Result<(), TryLockError>,
) -> Result<Option<File>, LockError> {
    let failed = |action| move |source| LockError::File { action, path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut lock = options.open(path).map_err(failed("open"))?;
    if is_taken(lock_file(&lock)).map_err(failed("take"))?.is_none() {
        return Ok(None);
    }
    if !is_named(&lock, path).map_err(failed("look at"))? {
        return Ok(None);
    }
    let mut text = String::new();
    // What is no text is none of ours; the line fits into this many bytes.
    let _ = (&mut lock).take(64).read_to_string(&mut text);
    let found = text.trim_end().strip_prefix(WORDS).and_then(|number| number.parse().ok()).unwrap_or(1);
    if found > form {
        return Err(LockError::Newer { path: path.to_owned(), found, known: form });
    }
    if found < form || text.is_empty() {
        // A full disk must not prevent a clean-up.
        let line = format!("{WORDS}{form}\n");
        let _ = lock.set_len(0).and_then(|()| lock.write_all_at(line.as_bytes(), 0));
    }
    Ok(Some(lock))
}

/// The holder of a lock may remove its file with what it guards. A process that has waited for it meanwhile then has a
/// lock on a removed file, and tries again.
fn is_named(lock: &File, path: &Path) -> io::Result<bool> {
    let ours = lock.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = try_take(&path, 1).unwrap();
        assert!(held.is_some());
        assert!(try_take(&path, 1).unwrap().is_none());
        drop(held);
        assert!(try_take(&path, 1).unwrap().is_some());
        assert_eq!(fs::read_to_string(&path).unwrap(), "calico-mesos lock 1\n");
        assert!(matches!(try_take(&folder.path().join("no/lock"), 1), Err(LockError::File { .. })));
    }

    #[test]
    fn those_that_share_keep_out_those_that_want_it_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let shared = [try_share(&path, 1).unwrap(), try_share(&path, 1).unwrap()];
        assert!(shared.iter().all(Option::is_some) && try_take(&path, 1).unwrap().is_none());
        drop(shared);
        let alone = try_take(&path, 1).unwrap();
        assert!(alone.is_some() && try_share(&path, 1).unwrap().is_none());
    }

    #[test]
    fn a_lock_whose_file_has_gone_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = try_take(&path, 1).unwrap().unwrap();
        assert!(is_named(&held, &path).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!is_named(&held, &path).unwrap());
        let next = try_take(&path, 1).unwrap().unwrap();
        assert!(is_named(&next, &path).unwrap() && !is_named(&held, &path).unwrap());
    }

    #[test]
    fn an_older_form_is_raised_and_a_newer_one_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        // As releases left it that wrote nothing, and as a disk that was full did.
        for before in ["", "calico-m", "calico-mesos lock 1\n"] {
            fs::write(&path, before).unwrap();
            assert!(try_take(&path, 2).unwrap().is_some());
            assert_eq!(fs::read_to_string(&path).unwrap(), "calico-mesos lock 2\n");
        }
        let error = try_take(&path, 1).unwrap_err();
        assert!(
            error.to_string().contains("has format 2; this release of calico-mesos supports up to format 1"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "calico-mesos lock 2\n");
        // Not even held any more.
        assert!(try_take(&path, 2).unwrap().is_some());
    }
}
