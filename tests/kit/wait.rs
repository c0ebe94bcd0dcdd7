//! Waiting for a condition: the one way in which tests wait.
//!
//! A test hands in a look at the world; the wait ends with what the look has found. [`Look`] says what can be returned:
//! a `bool`, an `Option`, or a `Result` whose error is the last state, printed when time runs out.

use std::fmt::Display;
use std::future::Future;
use std::panic::Location;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Long after anything that a test waits for.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The result of one look.
pub trait Look {
    type Found;
    type Last: Display;

    /// What was waited for, or the state instead.
    fn found(self) -> Result<Self::Found, Self::Last>;
}

impl Look for bool {
    type Found = ();
    type Last = &'static str;

    fn found(self) -> Result<(), &'static str> {
        self.then_some(()).ok_or("it is not so")
    }
}

impl<T> Look for Option<T> {
    type Found = T;
    type Last = &'static str;

    fn found(self) -> Result<T, &'static str> {
        self.ok_or("there is none")
    }
}

impl<T, E: Display> Look for Result<T, E> {
    type Found = T;
    type Last = E;

    fn found(self) -> Self {
        self
    }
}

/// Counts the time, and fails the test at its end.
struct Clock<W> {
    what: W,
    caller: &'static Location<'static>,
    begun: Instant,
    limit: Duration,
}

impl<W: Display> Clock<W> {
    /// How long to pause before the next look: a tenth of the time so far, so that a wait takes hardly longer than
    /// what it waits for, and a long one leaves the processor alone.
    fn pause(&self, last: &impl Display) -> Duration {
        let waited = self.begun.elapsed();
        let Self { what, caller, limit, .. } = self;
        assert!(waited < *limit, "{caller}: not within {limit:?}: {what}: {last}");
        pause(waited)
    }
}

fn pause(waited: Duration) -> Duration {
    (waited / 10).clamp(Duration::from_millis(1), Duration::from_millis(50))
}

/// Waits until something is so, for [`LIMIT`] at most.
#[track_caller]
pub fn eventually<L: Look>(
    what: impl Display,
    look: impl AsyncFnMut() -> L,
) -> impl Future<Output = L::Found> {
    within(LIMIT, what, look)
}

/// The same with a limit of its own.
#[track_caller]
pub fn within<L: Look>(
    limit: Duration,
    what: impl Display,
    mut look: impl AsyncFnMut() -> L,
) -> impl Future<Output = L::Found> {
    let clock = Clock { what, caller: Location::caller(), begun: Instant::now(), limit };
    async move {
        loop {
            match look().await.found() {
                Ok(found) => return found,
                Err(last) => tokio::time::sleep(clock.pause(&last)).await,
            }
        }
    }
}

/// Waits for at most so long; `None` when it is not so until then, which is no failure.
pub async fn at_most<L: Look>(limit: Duration, mut look: impl AsyncFnMut() -> L) -> Option<L::Found> {
    let begun = Instant::now();
    loop {
        if let Ok(found) = look().await.found() {
            return Some(found);
        }
        if begun.elapsed() > limit {
            return None;
        }
        tokio::time::sleep(pause(begun.elapsed())).await;
    }
}

/// Waits until the clock shows another second, for what others date in whole seconds.
pub async fn next_second() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let begun = now();
    eventually("the next second has begun", async || now() > begun).await;
}

/// As [`within`], in a thread that may block.
#[track_caller]
pub fn blocking<L: Look>(limit: Duration, what: impl Display, mut look: impl FnMut() -> L) -> L::Found {
    let clock = Clock { what, caller: Location::caller(), begun: Instant::now(), limit };
    loop {
        match look().found() {
            Ok(found) => return found,
            Err(last) => std::thread::sleep(clock.pause(&last)),
        }
    }
}
