//! Work that goes on by itself, because it must not be dropped half done.
//!
//! Docker finishes a create that is not waited for any more, and a thread that has begun to make a namespace makes it.
//! So a life that gives up waits for such work, for a bounded time, before it looks at what is there and takes it away.
//! What is not finished by then may appear later: the journal's record stays, and a cleaner removes it.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::error::{chain, Failure};

/// A thing in the making.
pub(super) struct Making<T> {
    /// `None` once the result has been handed out.
    work: Option<JoinHandle<Result<T, Failure>>>,
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
        Self { work: Some(tokio::spawn(make(cancel.clone()))), cancel }
    }

    /// The thing, or why there is none.
    pub(super) async fn made(&mut self) -> Result<T, Failure> {
        let Some(work) = &mut self.work else {
            return Err(Failure::host("CM-INTERNAL", "what was made has been handed out already"));
        };
        let made = work.await;
        self.work = None;
        made.unwrap_or_else(|error| Err(Failure::host("CM-INTERNAL", chain(&error))))
    }

    /// Ends the work at its next good moment and waits for that, but not longer than `limit`: the thing, where it was
    /// made after all, or the work that goes on.
    pub(super) async fn give_up(mut self, limit: Duration) -> Result<Option<T>, Self> {
        self.cancel.cancel();
        if self.work.is_none() {
            return Ok(None);
        }
        match timeout(limit, self.made()).await {
            Ok(made) => Ok(made.ok()),
            Err(_) => Err(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::Arc;

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
        assert!(matches!(making.give_up(Duration::from_secs(6)).await, Ok(Some(()))));
        assert!(done.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn giving_up_waits_no_longer_than_its_limit() {
        let making = Making::start(|_| async {
            tokio::time::sleep(Duration::from_secs(120)).await;
            Ok(7)
        });
        let begun = tokio::time::Instant::now();
        let Err(mut goes_on) = making.give_up(Duration::from_secs(15)).await else { panic!("it is over") };
        assert_eq!(begun.elapsed().as_secs(), 15);
        assert_eq!(goes_on.made().await, Ok(7), "the work was ended half done");
    }

    #[tokio::test]
    async fn what_is_made_is_not_waited_for_again() {
        let mut making = Making::start(|_| async { Ok(7) });
        assert_eq!(making.made().await, Ok(7));
        assert!(matches!(making.give_up(Duration::ZERO).await, Ok(None)));
    }
}
