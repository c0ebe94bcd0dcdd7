//! A lock file that is waited for, shorter than a launch may take.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use super::NetError;
use crate::host::lock::{self, LockError};

/// A process holds such a lock for a few runs of `nft`.
const LIMIT: Duration = Duration::from_secs(30);
/// The form of the tables and routes that the locks here guard.
const FORM: u32 = 1;

/// The lock alone, held until the file is dropped.
pub(super) async fn take(path: &Path) -> Result<File, NetError> {
    wait(path, lock::try_take).await
}

/// The same beside others that share it.
pub(super) async fn share(path: &Path) -> Result<File, NetError> {
    wait(path, lock::try_share).await
}

async fn wait(
    path: &Path,
    attempt: impl Fn(&Path, u32) -> Result<Option<File>, LockError>,
) -> Result<File, NetError> {
    let taken = lock::within(LIMIT, || attempt(path, FORM)).await?;
    taken.ok_or_else(|| NetError::Locked { path: path.to_owned(), seconds: LIMIT.as_secs() })
}
