//! A container that others make and start as a workload.
//!
//! Docker is never asked about it: it holds the container's lock while its runtime waits for this program, and answers
//! nothing while it starts containers at boot. What can be learned comes from its runtime and from the kernel.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Attached, SeenWorkload};
use crate::logging;
use crate::task::request::ForeignContainer;
use crate::workload::{Exit, HostProcess};

/// How often the processes of this host are looked through for those of a container.
const LOOK: Duration = Duration::from_secs(2);

/// A container of others.
pub(in crate::task) struct AdoptedContainer {
    id: String,
    hostname: String,
}

impl AdoptedContainer {
    pub fn new(container: &ForeignContainer) -> Self {
        Self { id: container.id.clone(), hostname: container.hostname.clone() }
    }

    /// Docker's id of it, which its runtime sees.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The container's names for its hosts file.
    pub fn host_names(&self) -> String {
        self.hostname.clone()
    }

    /// Its output is its maker's. Its end is known by `over`, which its runtime's `delete` sets off, or by that of its
    /// process: a Docker that died calls no runtime.
    pub fn attach(&self, over: CancellationToken) -> Attached {
        let (watcher, process) = oneshot::channel::<Arc<HostProcess>>();
        let id = self.id.clone();
        let exit = logging::spawn(async move {
            tokio::select! {
                () = over.cancelled() => {}
                () = gone(process, &id) => {}
            }
            // Only Docker knows the code.
            Ok(Exit { code: 0, oom_killed: None })
        });
        let logs = logging::spawn(std::future::ready(()));
        Attached { logs, exit, watcher: Some(watcher), process: None, control: None }
    }

    /// Its first process, from the kernel.
    pub fn look(&self) -> (SeenWorkload, Option<HostProcess>) {
        (SeenWorkload::default(), HostProcess::search(&self.id))
    }
}

/// Returns when the container's first process is gone. Where none was found, because the container shares another pid
/// namespace or has ended before it was looked at, when none of the container's processes lives.
async fn gone(process: oneshot::Receiver<Arc<HostProcess>>, id: &str) {
    if let Ok(process) = process.await {
        return process.gone().await;
    }
    while !HostProcess::none_in(id) {
        sleep(LOOK).await;
    }
}
