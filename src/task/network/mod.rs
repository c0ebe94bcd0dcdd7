//! The Calico side of a launch, in typed stages: what a stage holds is what exists by then.
//!
//! ```text
//!  request ──choose──► Choice ───────────┐
//!             datastore read             ├─ wire ──► Wired ──(gate opens)
//!          ──make_interface──► Interface ┘   │
//!             namespace, veth                endpoint, address (one transaction);
//!                                            addresses inside, host routes, Felix is done
//! ```
//!
//! There is no undo here: the journal says what may exist, and `teardown` takes it away.

pub(super) mod felix;
pub mod holds;
pub(super) mod ports;

use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::calico::{self, CalicoError, Datastore, Identity, Terms, Wanted};
use crate::config::{Config, Dataplane};
use crate::error::{chain, Code, Failure};
use crate::host::files::make_private;
use crate::limits::ETCD_AT_THE_GATE;
use crate::logging;
use crate::names::{ContainerId, ENDPOINT};
use crate::net::forward::{self, Forward};
use crate::net::{self, local::Local, Namespace, Veth};

use self::holds::Holds;
use crate::task::record::journal::{Entry, Record};
use crate::task::record::published;
use crate::task::report::audit;
use crate::task::report::steps::{Step, Steps};
use crate::task::retry::{host_faults, host_faults_until};
use crate::task::work::gate::Gate;

/// How long the parts of a launch took, for the log and for `calico-mesos run`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing {
    /// Datastore: read and write.
    pub address: Duration,
    /// Namespace, veth, addresses and routes.
    pub interface: Duration,
    /// How long the container stood at the gate.
    pub gate: Duration,
    /// From the request to start until the workload stood at the gate.
    pub start: Duration,
}

impl fmt::Display for Timing {
    /// In the form that `calico-mesos run` reads in the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [address, interface, gate, start] =
            [self.address, self.interface, self.gate, self.start].map(|part| part.as_millis());
        write!(f, "address {address}, interface {interface}, gate {gate}, start {start}")
    }
}

/// The kernel's side: a namespace with a veth in it.
pub(super) struct Interface {
    namespace: Namespace,
    veth: Veth,
    took: Duration,
}

/// The task has its addresses.
#[derive(Debug, Clone)]
pub struct Wired {
    pub addresses: Vec<IpAddr>,
    pub profiles_created: Vec<String>,
    /// The host's ports that lead to the task, where there are any.
    pub forward: Option<Forward>,
    pub timing: Timing,
}

/// Why a task did not get its addresses.
#[derive(Debug)]
pub struct Unwired {
    pub failure: Failure,
    /// The write whose answer never came: it may still happen.
    pub pending: Option<Box<calico::Pending>>,
}

impl From<Failure> for Unwired {
    fn from(failure: Failure) -> Self {
        Self { failure, pending: None }
    }
}

impl From<CalicoError> for Unwired {
    fn from(error: CalicoError) -> Self {
        let failure = error.failure();
        let pending = match error {
            CalicoError::Lost { pending, .. } => Some(pending),
            _ => None,
        };
        Self { failure, pending }
    }
}

/// Where the task's namespace is bound.
pub fn namespace(config: &Config, container: &ContainerId) -> PathBuf {
    config.paths.task_run(container).join("netns")
}

/// Makes the task's volatile folder and listens at its gate.
pub fn listen(config: &Config, container: &ContainerId) -> Result<Gate, Failure> {
    let folder = config.paths.task_run(container);
    let make = || -> std::io::Result<Gate> {
        make_private(&config.paths.run)?;
        make_private(&folder)?;
        make_private(&config.paths.run.join("containers"))?;
        Gate::listen(&folder.join("gate"))
    };
    make().map_err(|error| {
        Failure::new(
            Code::Host,
            format!("cannot prepare {}: {error}; the executor needs root", folder.display()),
        )
    })
}

/// Tells `calico-runc` where the container with this Docker id finds its namespace and gate.
pub fn publish(config: &Config, container: &ContainerId, docker_id: &str) -> Result<(), Failure> {
    let link = config.paths.container_link(docker_id);
    let target = PathBuf::from("../tasks").join(container.as_str());
    match std::os::unix::fs::symlink(&target, &link) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
    .map_err(|error| Failure::new(Code::Host, format!("cannot make the link {}: {error}", link.display())))
}

/// The reads are done, and addresses are chosen; nothing is written yet.
pub(super) struct Choice {
    datastore: Datastore,
    claim: calico::Prepared,
    took: Duration,
}

/// What can be slow or refused before anything is claimed. Only reads: it may be dropped at any time.
pub(super) async fn choose(
    config: &Config,
    record: &Record,
    wanted: &Wanted,
    early: Option<EarlyLogin>,
    steps: &Steps,
) -> Result<Choice, Failure> {
    let choice = async {
        felix::can_report(config).await?;
        let choice = read(config, &record.identity, wanted, early).await?;
        steps.pass(Step::Chosen).await;
        Ok(choice)
    };
    let (choice, ()) = tokio::try_join!(choice, ports::available(config, record))?;
    Ok(choice)
}

/// A connection to the datastore that was begun before anything was known of the task but that it needs one: a login
/// with a password takes etcd some 75 ms.
pub(super) struct EarlyLogin(AbortOnDropHandle<Result<Datastore, CalicoError>>);

impl EarlyLogin {
    /// Connects in the background, until it is dropped.
    pub(super) fn begin(config: &Config) -> Self {
        let config = config.clone();
        Self(AbortOnDropHandle::new(logging::spawn(async move { Datastore::connect(&config).await })))
    }

    /// The connection, or why there is none.
    pub(super) async fn datastore(self) -> Result<Datastore, CalicoError> {
        match self.0.await {
            Ok(connected) => connected,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is at its end, and this wait with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

/// The datastore's reads and the choice, retried; an address that is still held is waited for.
async fn read(
    config: &Config,
    identity: &Identity,
    wanted: &Wanted,
    early: Option<EarlyLogin>,
) -> Result<Choice, Failure> {
    let waiting_since = Instant::now();
    let early = Mutex::new(early);
    loop {
        let result = host_faults(config.launch.retry_for, || async {
            let started = Instant::now();
            let first = early.lock().ok().and_then(|mut early| early.take());
            let connected = match first {
                Some(early) => early.datastore().await,
                None => Datastore::connect(config).await,
            };
            let mut datastore = connected.map_err(|error| error.failure())?;
            let mut result = datastore.prepare(identity, wanted).await;
            if config.node.dataplane == Dataplane::Local
                && result.as_ref().is_err_and(CalicoError::is_uninitialised)
            {
                // calico/node does this on other hosts.
                datastore
                    .initialise_local(&identity.node, &config.node.local_pools)
                    .await
                    .map_err(|error| error.failure())?;
                result = datastore.prepare(identity, wanted).await;
            }
            match result {
                Ok(claim) => Ok(Ok(Choice { datastore, claim, took: started.elapsed() })),
                Err(error) if error.is_held() => Ok(Err(error)),
                Err(error) => Err(error.failure()),
            }
        })
        .await?;
        let held = match result {
            Ok(ready) => return Ok(ready),
            Err(held) => held,
        };
        let waited = waiting_since.elapsed();
        if waited >= config.launch.ip_wait {
            return Err(held.failure_after(waited));
        }
        tracing::info!("{}; waiting for it", held.failure().message);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Makes the namespace and the veth pair, retried like everything that is the host's fault. IPv6 is switched on only
/// for a task that asks for an IPv6 address.
pub(super) async fn make_interface(
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
        let veth = net::create_veth(&namespace, &container.interface(), ENDPOINT, net::mtu(&config))
            .await
            .map_err(failure)?;
        if ipv6 {
            net::enable_ipv6(&veth.host).map_err(failure)?;
        }
        mark(&config, &container, &veth).await;
        steps.pass(Step::Interface).await;
        Ok(Interface { namespace, veth, took: started.elapsed() })
    })
    .await
}

/// What the task's interface is for; distinguishes it from those of other tools and other configurations.
pub fn purpose(config: &Config, container: &ContainerId) -> String {
    config.paths.task_run(container).display().to_string()
}

/// A mark is for cleaners that have no journal any more; a task runs as well without.
async fn mark(config: &Config, container: &ContainerId, veth: &Veth) {
    if let Err(error) = net::name_purpose(&veth.host, &purpose(config, container)).await {
        tracing::debug!("{} bears no mark: {}", veth.host, chain(&error));
    }
}

impl Choice {
    /// Writes endpoint and address, and makes the interface work. Runs beside `docker start`.
    pub async fn wire(
        self,
        interface: Interface,
        config: &Config,
        entry: &Entry,
        steps: &Steps,
        give_up: CancellationToken,
    ) -> Result<Wired, Unwired> {
        let Self { mut datastore, claim, took } = self;
        let mut timing = Timing { address: took, interface: interface.took, ..Timing::default() };
        let profiles = claim.profiles().to_vec();
        let Interface { namespace, veth, .. } = interface;
        let (begun, started) = (tokio::time::Instant::now(), Instant::now());
        let own = Holds::new(config, &entry.record);
        let holds = &own;
        let terms = Terms {
            note: Box::new(|pending| entry.expect(pending)),
            hold: Box::new(|addresses| Box::pin(async move { holds.take(&addresses).await })),
            patience: config.launch.retry_for.min(ETCD_AT_THE_GATE),
            give_up: give_up.clone(),
        };
        let committed = datastore.commit(claim, &veth.mac, terms).await;
        match &committed {
            Ok(committed) => {
                audit::given(config, &entry.record, &committed.addresses, &profiles);
                entry.given(&committed.addresses);
                published::Committed::of(config, &entry.record.container).note(&committed.kept);
            }
            Err(CalicoError::Lost { .. }) => {}
            Err(_) => entry.settled(),
        }
        let committed = committed?;
        // The connection has done its work: a running task holds none.
        drop(datastore);
        steps.pass(Step::Claimed).await;
        timing.address += started.elapsed();
        let pool = |address| committed.pools.iter().find(|pool| pool.contains(address));
        tracing::info!(
            "address {}{}, profile {} ({})",
            join(&committed.addresses),
            committed
                .addresses
                .iter()
                .find_map(pool)
                .map_or(String::new(), |pool| format!(" from pool {pool}")),
            profiles.join(", "),
            if committed.profiles_created.is_empty() { "existing" } else { "new" },
        );

        let started = Instant::now();
        net::assign(&namespace, &veth.container, &committed.addresses).await.map_err(|error| {
            Failure::new(Code::Net, format!("cannot configure the task's interface: {}", chain(&error)))
        })?;
        if config.node.dataplane == Dataplane::Local {
            let local = Local {
                link: veth.host.clone(),
                addresses: committed.addresses.clone(),
                pools: committed.pools.clone(),
                state_dir: config.paths.run.join("local"),
            };
            net::local::enable(&local).await.map_err(|error| {
                Failure::new(Code::Net, format!("cannot set up the host's side: {}", chain(&error)))
            })?;
        }
        steps.pass(Step::Addressed).await;
        let ports = entry.record.ports.clone();
        let forward = ports::forward(config, &entry.record.container, ports, &committed.addresses);
        let forwarding = async {
            let result = match &forward {
                Some(forward) => forward::add(forward).await,
                None => Ok(()),
            };
            timing.interface += started.elapsed();
            steps.pass(Step::Forwarded).await;
            result.map_err(|error| ports::failure(config, &error))
        };
        let felix = async {
            felix::wait(config, &entry.record.identity, &committed.addresses, begun, &give_up).await?;
            steps.pass(Step::Programmed).await;
            Ok(())
        };
        // Neither is dropped half done.
        let (forwarded, felix) = tokio::join!(forwarding, felix);
        forwarded.and(felix)?;
        let calico::Committed { addresses, profiles_created, .. } = committed;
        Ok(Wired { addresses, profiles_created, forward, timing })
    }
}

/// Writes a line with the task's names for each of its addresses into its hosts file, as Docker does on its own
/// networks but not on `none`.
///
/// The link was made by `calico-runc create`, and only to a file of Docker's own. A container that
/// brings its own hosts file has no link, and keeps its file as it is.
pub fn write_hosts(
    config: &Config,
    container: &ContainerId,
    names: &str,
    addresses: &[IpAddr],
) -> Result<(), String> {
    let path = config.paths.task_run(container).join("hosts");
    let failed = |error| format!("cannot write the task's hosts file {}: {error}", path.display());
    let mut file = match fs::OpenOptions::new().read(true).append(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    if let Some(host) = text.lines().find_map(|line| line.strip_prefix(NO_GATEWAY)) {
        return Err(format!(
            "Docker has no address for the parameter add-host={}:host-gateway: it runs without a bridge (--bridge=none); give host-gateway-ip in its daemon.json, or an address in the parameter",
            host.trim()
        ));
    }
    file.write_all(hosts_lines(addresses, names).as_bytes()).map_err(failed)
}

/// A line for each address, in the form of Docker's own.
pub fn hosts_lines(addresses: &[IpAddr], names: &str) -> String {
    addresses.iter().map(|address| format!("{address}\t{names}\n")).collect()
}

/// What Docker 20.10 writes for `host-gateway` in place of an address where it has none.
const NO_GATEWAY: &str = "<nil>\t";

/// `192.168.17.64, fd00::1`
pub fn join(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
