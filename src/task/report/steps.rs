//! The steps of a Calico task's life, by name: the audit trail has their times, and tests inject faults at them.
//!
//! Every point at which something begins or ceases to exist is one of these steps; a life passes each at most once.
//! Only in debug builds, a program may listen at the unix socket `paths.steps`: it reads `<task id> <step>\n` for each
//! step, and the life waits until the program closes the connection. So a test can act at a certain step. Without a
//! listener nothing waits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Config;

/// Names each step once, so that a loop over all of them misses none.
macro_rules! steps {
    ($($(#[$doc:meta])+ $name:ident = $word:literal,)+) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Step {
            $($(#[$doc])+ $name,)+
        }

        impl Step {
            /// In the order of a life; those of a launch happen side by side.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }
        }
    };
}

steps! {
    /// The journal's record stands, though not yet safely on the disk.
    Recorded = "recorded",
    /// The executor listens at the gate.
    Listening = "listening",
    /// The record is safe from a loss of power.
    Synced = "synced",
    /// The network namespace is bound.
    Namespace = "namespace",
    /// The veth pair stands.
    Interface = "interface",
    /// The workload can be started; a container exists in Docker.
    Created = "created",
    /// The datastore has been read, and addresses are chosen.
    Chosen = "chosen",
    /// Docker's runtime can find namespace and gate.
    Published = "published",
    /// Output and end of the workload are listened to.
    Attached = "attached",
    /// Endpoint and addresses are in the datastore.
    Claimed = "claimed",
    /// The interface has its addresses and routes.
    Addressed = "addressed",
    /// Ports of the host lead to the task.
    Forwarded = "forwarded",
    /// Felix is done with the endpoint, as far as that is waited for.
    Programmed = "programmed",
    /// The workload stands at the gate.
    Waiting = "waiting",
    /// The gate is open.
    Opened = "opened",
    /// The workload's first instruction has run.
    Started = "started",
    /// The framework is about to hear that it runs.
    Running = "running",
    /// The workload is over, or never was.
    Ended = "ended",
    /// Consul has forgotten the task.
    Deregistered = "deregistered",
    /// Nothing of the workload lives any more.
    Stopped = "stopped",
    /// No port of the host leads to the task any more.
    Unforwarded = "unforwarded",
    /// Interface and namespace are gone.
    Unwired = "unwired",
    /// Endpoint and addresses are gone from the datastore.
    Released = "released",
    /// The host's share of `dataplane = "local"` is as it was.
    Tidied = "tidied",
    /// The journal's record is gone.
    Forgotten = "forgotten",
}

/// The steps that one life, or its cleaner, has passed.
#[derive(Debug, Clone)]
pub struct Steps(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    #[cfg(debug_assertions)]
    task: String,
    begun: Instant,
    passed: Mutex<Vec<(Step, Duration)>>,
    #[cfg(debug_assertions)]
    listener: Option<std::path::PathBuf>,
}

impl Steps {
    /// The clock starts.
    pub fn begin(config: &Config, task: &str) -> Self {
        #[cfg(not(debug_assertions))]
        let _ = (config, task);
        Self(Arc::new(Inner {
            #[cfg(debug_assertions)]
            task: task.to_owned(),
            begun: Instant::now(),
            passed: Mutex::default(),
            #[cfg(debug_assertions)]
            listener: config.paths.steps.clone(),
        }))
    }

    pub async fn pass(&self, step: Step) {
        let at = self.0.begun.elapsed();
        self.0.passed.lock().unwrap_or_else(PoisonError::into_inner).push((step, at));
        #[cfg(debug_assertions)]
        if let Some(listener) = &self.0.listener {
            hold(listener, &self.0.task, step).await;
        }
    }

    /// What has been passed and when, counted from the beginning.
    pub fn passed(&self) -> Vec<(Step, Duration)> {
        self.0.passed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Until the other side closes.
#[cfg(debug_assertions)]
async fn hold(listener: &std::path::Path, task: &str, step: Step) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let Ok(mut stream) = tokio::net::UnixStream::connect(listener).await else { return };
    if stream.write_all(format!("{task} {}\n", step.name()).as_bytes()).await.is_ok() {
        let _ = stream.read(&mut [0]).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncBufReadExt;

    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = Step::ALL.iter().map(|step| step.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Step::ALL.len());
    }

    #[tokio::test]
    async fn a_listener_holds_a_life_up() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.paths.steps = Some(folder.path().join("steps"));
        let steps = Steps::begin(&config, "web.1");
        steps.pass(Step::Recorded).await;
        let listener = tokio::net::UnixListener::bind(folder.path().join("steps")).unwrap();
        let passing = tokio::spawn({
            let steps = steps.clone();
            async move { steps.pass(Step::Claimed).await }
        });
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = tokio::io::BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        assert_eq!(line, "web.1 claimed\n");
        assert!(!passing.is_finished());
        drop(stream);
        passing.await.unwrap();
        let passed: Vec<Step> = steps.passed().into_iter().map(|(step, _)| step).collect();
        assert_eq!(passed, [Step::Recorded, Step::Claimed]);
    }
}
