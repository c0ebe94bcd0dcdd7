//! A lock file that is waited for, shorter than a launch may take.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use super::NetError;
use crate::host::lock::try_take;

/// Nobody holds such a lock for longer than a few runs of `nft`.
const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(2);
/// Of the tables and routes that the locks here guard.
const FORM: u32 = 1;

/// Held until the file is dropped.
pub(super) async fn take(path: &Path) -> Result<File, NetError> {
    let ends = Instant::now() + LIMIT;
    loop {
        match try_take(path, FORM)? {
            Some(lock) => return Ok(lock),
            None if Instant::now() >= ends => {
                return Err(NetError::Locked { path: path.to_owned(), seconds: LIMIT.as_secs() })
            }
            None => tokio::time::sleep(PAUSE).await,
        }
    }
}
