//! The kernel's side of a launch: a namespace with a veth pair. It needs nothing from the datastore.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::folder::namespace;
use crate::config::Config;
use crate::error::{chain, Code, Failure};
use crate::names::{ContainerId, ENDPOINT};
use crate::net::{self, Namespace, Veth};

use crate::task::report::steps::{Step, Steps};
use crate::task::retry::host_faults_until;
use crate::workload::HostProcess;

/// How long processes that outlived their container may take to die.
const LEFTOVERS: Duration = Duration::from_secs(5);

/// The kernel's side: a namespace with a veth in it.
pub(in crate::task) struct Interface {
    pub(super) namespace: Namespace,
    pub(super) veth: Veth,
    pub(super) took: Duration,
}

/// Makes the namespace and the veth pair, retried like everything that is the host's fault. IPv6 is switched on only
/// for a task that asks for an IPv6 address.
pub(in crate::task) async fn make_interface(
    config: Arc<Config>,
    container: ContainerId,
    ipv6: bool,
    steps: Steps,
    cancel: CancellationToken,
) -> Result<Interface, Failure> {
    let failure = |error: net::NetError| {
        Failure::new(Code::Net, format!("cannot make the task's network interface: {}", chain(&error)))
    };
    let path = namespace(&config, &container);
    host_faults_until(&cancel, config.launch.retry_for, || async {
        let started = Instant::now();
        let namespace = Namespace::create(&path).await.map_err(failure)?;
        steps.pass(Step::Namespace).await;
        let (link, purpose) = (container.interface(), purpose(&config, &container));
        let veth = net::create_veth(&namespace, &link, ENDPOINT, net::mtu(&config), Some(&purpose));
        let veth = veth.await.map_err(failure)?;
        if ipv6 {
            net::enable_ipv6(&veth.host).map_err(failure)?;
        }
        steps.pass(Step::Interface).await;
        Ok(Interface { namespace, veth, took: started.elapsed() })
    })
    .await
}

/// The interface that the life before has left, with nothing living behind it, and with the hardware address that its
/// endpoint has; in a new namespace, without the rules that the life before has made in its own, unless other
/// containers live in that.
pub(in crate::task) async fn renew_interface(
    config: &Config,
    container: &ContainerId,
    docker_id: &str,
    mac: Option<&str>,
) -> Result<Interface, Failure> {
    let failure = |error: net::NetError| {
        Failure::new(
            Code::Net,
            format!("cannot use the container's network interface again: {}", chain(&error)),
        )
    };
    let started = Instant::now();
    let path = namespace(config, container);
    let mut namespace = Namespace::open(&path).map_err(failure)?;
    // Other containers that clients have put there keep it.
    let leftover = |pid| HostProcess::is_in(pid, docker_id);
    namespace.kill_some(LEFTOVERS, leftover).await.map_err(failure)?;
    if namespace.processes().is_empty() {
        let new = Namespace::create(&path).await.map_err(failure)?;
        net::move_link(&namespace, ENDPOINT, &new).await.map_err(failure)?;
        namespace = new;
    }
    let veth =
        net::existing_veth(&namespace, &container.interface(), ENDPOINT, mac).await.map_err(failure)?;
    Ok(Interface { namespace, veth, took: started.elapsed() })
}

/// The hardware address of a container's interface; none where it has none.
pub(in crate::task) async fn hardware_address(config: &Config, container: &ContainerId) -> Option<String> {
    let namespace = Namespace::open(&namespace(config, container)).ok()?;
    net::hardware_address(&namespace, ENDPOINT).await.ok().flatten()
}

/// What the task's interface is for; distinguishes it from those of other tools and other configurations. It is for
/// cleaners that have no journal any more.
pub fn purpose(config: &Config, container: &ContainerId) -> String {
    config.paths.task_run(container).display().to_string()
}
