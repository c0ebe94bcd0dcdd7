//! What the proxy has done so far, for its log.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Code;

/// Shared by all connections.
#[derive(Debug, Default)]
pub(super) struct Counts {
    requests: AtomicUsize,
    connections: AtomicUsize,
    streams: AtomicUsize,
    /// Requests that Docker never saw, by the code that the client was given.
    refused: Mutex<BTreeMap<&'static str, usize>>,
}

impl Counts {
    pub fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub fn refused(&self, code: Code) {
        // Each change is a whole one: what a panic left is in order.
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused.entry(code.name()).or_default() += 1;
    }

    /// Counts a connection as long as the value lives.
    pub fn connection(self: &Arc<Self>) -> Counted {
        Counted::new(self, |counts| &counts.connections)
    }

    /// The same for a connection that has become a stream of raw bytes.
    pub fn stream(self: &Arc<Self>) -> Counted {
        Counted::new(self, |counts| &counts.streams)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |number: &AtomicUsize| number.load(Ordering::Relaxed);
        let (requests, connections, streams) = (of(&self.requests), of(&self.connections), of(&self.streams));
        write!(f, "{requests} requests, {connections} connections and {streams} streams open")?;
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.iter().try_for_each(|(code, number)| write!(f, ", {number} refused by {code}"))
    }
}

/// One of what is open now.
#[derive(Debug)]
pub(super) struct Counted {
    counts: Arc<Counts>,
    which: fn(&Counts) -> &AtomicUsize,
}

impl Counted {
    fn new(counts: &Arc<Counts>, which: fn(&Counts) -> &AtomicUsize) -> Self {
        which(counts).fetch_add(1, Ordering::Relaxed);
        Self { counts: counts.clone(), which }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.which)(&self.counts).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_counted_until_it_is_dropped() {
        let counts = Arc::new(Counts::default());
        counts.request();
        let (first, second) = (counts.connection(), counts.connection());
        let stream = counts.stream();
        drop((first, stream));
        counts.refused(Code::NotAllowed);
        counts.refused(Code::NotAllowed);
        let text = "1 requests, 1 connections and 0 streams open, 2 refused by CM-NOT-ALLOWED";
        assert_eq!(counts.to_string(), text);
        drop(second);
        assert!(counts.to_string().contains(" 0 connections"));
    }
}
