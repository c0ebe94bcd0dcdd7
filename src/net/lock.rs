//! A lock file that is waited for, shorter than a launch may take.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::NetError;

/// Nobody holds such a lock for longer than a few runs of `nft`.
const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(2);

/// Held until the file is dropped.
pub(super) async fn take(path: &Path) -> Result<File, NetError> {
    let failed = |action| move |source| NetError::State { action, path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let lock = options.open(path).map_err(failed("open"))?;
    let ends = Instant::now() + LIMIT;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
            Err(TryLockError::WouldBlock) if Instant::now() >= ends => {
                return Err(NetError::Locked { path: path.to_owned(), seconds: LIMIT.as_secs() })
            }
            Err(TryLockError::WouldBlock) => tokio::time::sleep(PAUSE).await,
        }
    }
}
