//! Retries what the host or the cluster cannot do right now.
//!
//! The app's own faults fail at once. Faults of the host are retried until `launch.retry_for` has passed, so that one
//! broken agent does not fail a whole deployment in seconds.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::{Blame, Failure};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Runs `attempt` until it succeeds, blames the app, or `limit` has passed since the first try.
///
/// The failure then states for how long it was tried.
pub async fn host_faults<T, F>(limit: Duration, attempt: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    host_faults_until(&CancellationToken::new(), limit, attempt).await
}

/// The same for an attempt that must not be dropped half done: after `cancel` none is begun any more.
pub async fn host_faults_until<T, F>(
    cancel: &CancellationToken,
    limit: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut told = String::new();
    loop {
        // Boxed: what an attempt is made of would otherwise lie on the stack of all that waits for it.
        let failure = match Box::pin(attempt()).await {
            Ok(value) => return Ok(value),
            Err(failure) if failure.blame() == Blame::App => return Err(failure),
            Err(failure) => failure,
        };
        if cancel.is_cancelled() || started.elapsed() + pause > limit {
            let seconds = started.elapsed().as_secs();
            return Err(match seconds {
                0 => failure,
                _ => Failure { message: format!("{}; tried for {seconds} s", failure.message), ..failure },
            });
        }
        if told != failure.message {
            tracing::warn!("{failure}; trying again for up to {} s", limit.as_secs());
            told.clone_from(&failure.message);
        }
        if tokio::time::timeout(pause, cancel.cancelled()).await.is_ok() {
            return Err(failure);
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::error::Code;

    #[tokio::test(start_paused = true)]
    async fn faults_of_the_host_are_retried() {
        let tries = Cell::new(0);
        let result = host_faults(Duration::from_secs(30), || async {
            tries.set(tries.get() + 1);
            if tries.get() < 5 {
                Err(Failure::new(Code::Etcd, "etcd is away"))
            } else {
                Ok(7)
            }
        })
        .await;
        assert_eq!((result, tries.get()), (Ok(7), 5));
    }

    #[tokio::test(start_paused = true)]
    async fn retries_end_with_their_time_limit() {
        let started = Instant::now();
        let result: Result<(), _> =
            host_faults(Duration::from_secs(30), || async { Err(Failure::new(Code::Etcd, "etcd is away")) })
                .await;
        let failure = result.unwrap_err();
        assert!(failure.message.starts_with("etcd is away; tried for "), "{failure}");
        assert!(started.elapsed() <= Duration::from_secs(30) && started.elapsed() > Duration::from_secs(25));
    }

    #[tokio::test]
    async fn faults_of_the_app_are_not_retried() {
        let failure = Failure::new(Code::IpInvalid, "no address");
        let result: Result<(), _> =
            host_faults(Duration::from_secs(30), || async { Err(failure.clone()) }).await;
        assert_eq!(result.unwrap_err(), failure);
    }
}
