//! Work that goes on by itself, because it must not be dropped half done.
//!
//! Docker finishes a create that nobody waits for any more, and a thread that has been told to make a
//! namespace makes it. So whoever gives up waits for such work before he looks at what is there, and takes
//! it away; otherwise it would appear behind his back.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::{chain, Failure};

/// A thing in the making.
pub(super) struct Making<T> {
    work: JoinHandle<Result<T, Failure>>,
    cancel: CancellationToken,
}

impl<T: Send + 'static> Making<T> {
    /// `make` gets the token by which it learns that it is not wanted any more; it looks at it where it
    /// can stop without leaving something unknown behind.
    pub(super) fn start<W>(make: impl FnOnce(CancellationToken) -> W) -> Self
    where
        W: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let cancel = CancellationToken::new();
        Self { work: tokio::spawn(make(cancel.clone())), cancel }
    }

    /// The thing, or why there is none.
    pub(super) async fn made(&mut self) -> Result<T, Failure> {
        (&mut self.work).await.unwrap_or_else(|error| Err(Failure::host("CM-INTERNAL", chain(&error))))
    }

    /// Ends the work at its next good moment and waits for that.
    pub(super) async fn give_up(self) {
        self.cancel.cancel();
        if !self.work.is_finished() {
            let _ = self.work.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn giving_up_waits_for_what_is_under_way() {
        let done = Arc::new(AtomicBool::new(false));
        let seen = done.clone();
        let mut making = Making::start(|cancel| async move {
            cancel.cancelled().await;
            tokio::time::sleep(Duration::from_secs(5)).await;
            seen.store(true, Ordering::SeqCst);
            Ok(())
        });
        assert!(tokio::time::timeout(Duration::from_secs(1), making.made()).await.is_err());
        making.give_up().await;
        assert!(done.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn what_is_made_is_not_waited_for_again() {
        let mut making = Making::start(|_| async { Ok(7) });
        assert_eq!(making.made().await, Ok(7));
        making.give_up().await;
    }
}
