//! The teardown, which works from the journal record alone.
//!
//! The order is: Consul entries, workload, host ports, interface and namespace, then the datastore in one transaction.
//! Every step accepts "already gone". Errors are collected and the next step is tried all the same, with one exception:
//! the address is given back only when nothing of the workload lives and no host port leads to it, because an address
//! that is assigned twice is worse than one that is held too long.
//!
//! A living executor calls this for its own task, and a cleaner for the task of a dead one. Both end with the record
//! removed, or with the record in place for the next cleaner.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::calico::{Datastore, Pending, Settled};
use crate::config::Config;
use crate::consul;
use crate::error::chain;
use crate::limits::{
    CONSUL_BEFORE_UPDATE, CONSUL_CLEANER, DOCKER_CLEANER, DOCKER_TEARDOWN, ETCD_BEFORE_UPDATE, ETCD_CLEANER,
};
use crate::net::{self, forward, local::Local, Namespace, NetError};
use crate::workload::{Docker, DockerError, DockerHost, HostProcess};

use crate::task::network::holds;
use crate::task::network::{self, EarlyLogin};
use crate::task::record::journal::{Backing, JournalEntry, Record};
use crate::task::record::published;
use crate::task::report::audit;
use crate::task::report::steps::{Step, Steps};
use crate::task::request::is_named_by_us;

mod container;

pub use container::settle;

/// How long each outside service may hold a teardown up.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    pub docker: Duration,
    pub consul: Duration,
    pub datastore: Duration,
}

impl Patience {
    /// Before a terminal update: an app with a fixed address that starts elsewhere on that update must find it free,
    /// but Mesos must not wait long.
    pub const BEFORE_UPDATE: Self =
        Self { docker: DOCKER_TEARDOWN, consul: CONSUL_BEFORE_UPDATE, datastore: ETCD_BEFORE_UPDATE };
    /// No update waits for a cleaner.
    pub const CLEANER: Self =
        Self { docker: DOCKER_CLEANER, consul: CONSUL_CLEANER, datastore: ETCD_CLEANER };
}

/// An interface usually goes a moment after its namespace.
const NAMESPACE_LAG: Duration = Duration::from_secs(1);

/// Whether Docker has to be asked about the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Docker reported that it has exited; the agent removes its own stopped containers.
    Exited,
    /// Its process is gone, or dies with its namespace, but Docker has not reported that: Docker is asked when
    /// nothing waits any more, and made to see it.
    Unconfirmed,
    /// Created and never started, or not even created: the agent has no record of it, so it is removed here.
    NeverStarted,
    /// Docker has not answered the create or the start, and would not answer now either: what it makes of it one day
    /// is removed by a cleaner. It cannot run: its gate is closed.
    Unheard,
    /// The owner died: Mesos has failed the task already, so a container that runs is stopped.
    Unknown,
}

/// Whether Calico's datastore may hold anything of the task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Not even a write was begun: an etcd that is away, or locked, holds nothing up.
    None,
    Possible,
    /// Something was seen there, the endpoint at this revision (0: none), and addresses in these blocks: what has
    /// changed since is left alone.
    Seen(i64, Vec<IpNet>),
    /// The write's answer is lost: it has to be ruled out before what is not there counts as given back.
    Lost(Box<Pending>),
}

/// What became of the release of the task's addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Release {
    #[default]
    NotDone,
    /// It was asked for, and may have happened.
    Unheard,
    /// The datastore has confirmed that it holds nothing of the task any more.
    Done,
}

/// What was taken away, and what could not be.
#[derive(Debug, Default)]
pub struct Report {
    pub services: usize,
    pub container: bool,
    pub killed: usize,
    /// Ports of the host that led to the task, one an address family.
    pub ports: usize,
    pub interface: bool,
    /// The namespace's file, the volatile folder, or a link to it.
    pub folder: bool,
    pub endpoint: bool,
    pub release: Release,
    pub addresses: Vec<IpAddr>,
    /// Docker may call the container running still; see [`settle`].
    pub(super) unconfirmed: bool,
    /// Docker's containerd may have died in the middle of the container's life: what it leaves is looked for.
    pub(super) look_below: bool,
    /// Docker's id, where Docker was asked.
    pub(super) docker_id: Option<String>,
    /// `what: why`, in the order of the steps.
    pub errors: Vec<String>,
}

impl Report {
    fn note(&mut self, what: &str, error: &(dyn std::error::Error + 'static)) {
        self.errors.push(format!("{what}: {}", chain(error)));
    }

    /// The value of a step that succeeded; the error of another one is noted.
    fn accept<T, E: std::error::Error + 'static>(&mut self, what: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.note(what, &error)).ok()
    }

    pub fn complete(&self) -> bool {
        self.errors.is_empty()
    }

    /// Something was there and is gone.
    pub fn has_removed(&self) -> bool {
        self.services > 0
            || self.container
            || self.killed > 0
            || self.ports > 0
            || self.interface
            || self.folder
            || self.endpoint
            || !self.addresses.is_empty()
    }
}

/// Takes everything away that the record names. The record goes last, and only when nothing is left.
pub async fn take_down(
    entry: JournalEntry,
    config: &Config,
    workload: Workload,
    claim: Claim,
    patience: Patience,
    steps: &Steps,
) -> Report {
    let report = give_back(&entry.record, config, workload, claim, patience, steps).await;
    if report.release == Release::Done {
        // By a release whose answer came too late for its caller.
        let gone = entry.held().iter().filter(|held| !report.addresses.contains(held));
        audit::returned(config, &entry.record, &gone.copied().collect::<Vec<_>>());
    }
    tidy_up(entry, config, report, steps).await
}

/// All that an update may wait for: names, workload, interface, address.
pub async fn give_back(
    record: &Record,
    config: &Config,
    workload: Workload,
    claim: Claim,
    patience: Patience,
    steps: &Steps,
) -> Report {
    let mut report = Report {
        unconfirmed: workload == Workload::Unconfirmed,
        look_below: workload != Workload::Exited,
        ..Report::default()
    };
    steps.pass(Step::Ended).await;
    // A login takes etcd some time; the address itself is not touched before everything else is done.
    let login = (claim != Claim::None).then(|| EarlyLogin::begin(config));
    match deregister(record, config, patience.consul).await {
        Ok(removed) => report.services = removed,
        Err(why) => report.errors.push(format!("consul: {why}")),
    }
    steps.pass(Step::Deregistered).await;
    let at_rest = stop(record, config, workload, patience.docker, &mut report).await;
    steps.pass(Step::Stopped).await;
    let unreached = ports(record, &mut report).await;
    steps.pass(Step::Unforwarded).await;
    interface(record, config, at_rest, &mut report).await;
    steps.pass(Step::Unwired).await;
    if at_rest && unreached {
        // From here on the task has no use for its address. Other launches here may have it as soon as the
        // datastore calls it free, and no cleaner may write it again.
        published::CommittedNote::of(config, &record.container).forget();
        if let Err(error) = holds::give_back(config, &record.container) {
            report.note("links of its addresses", &error);
        }
    }
    // Where something else lives behind the interface, that must be gone: it could use the address.
    let unused =
        record.backing.adopted().is_none() || !net::exists(&record.identity.interface).await.unwrap_or(true);
    if let Some(login) = login.filter(|_| at_rest && unreached && unused) {
        datastore(record, config, &claim, login, patience, &mut report).await;
    }
    steps.pass(Step::Released).await;
    report
}

/// What no update waits for: the container as Docker has to see it, the host's side of `dataplane = "local"`, which the
/// last task takes with it, and the journal's record.
pub async fn tidy_up(entry: JournalEntry, config: &Config, mut report: Report, steps: &Steps) -> Report {
    match report.release {
        // The record may have to stay for something else.
        Release::Done => entry.settled(),
        Release::Unheard => entry.leave_word(),
        Release::NotDone => {}
    }
    settle(&entry.record, config, DOCKER_TEARDOWN, &mut report).await;
    restore_host(&entry.record, config, &mut report).await;
    steps.pass(Step::Tidied).await;
    if report.complete() {
        if let Err(error) = entry.finish() {
            report.note("journal", &error);
        }
    }
    steps.pass(Step::Forgotten).await;
    report
}

/// The host's side of `dataplane = "local"`.
pub async fn restore_host(record: &Record, config: &Config, report: &mut Report) {
    if !record.local {
        return;
    }
    let local = Local {
        link: record.identity.interface.clone(),
        addresses: Vec::new(),
        pools: Vec::new(),
        state_dir: config.paths.local(),
    };
    if let Err(error) = net::local::disable(&local).await {
        report.note("host routes", &error);
    }
}

/// Removes the task's entries from Consul and returns how many there were, or why they stay.
///
/// An address is never held back for Consul: then the journal's record stays, and a cleaner asks again.
pub async fn deregister(record: &Record, config: &Config, limit: Duration) -> Result<usize, String> {
    if record.services.is_empty() || !config.consul.enabled {
        return Ok(0);
    }
    let work = async {
        let client = consul::Client::new(config)?;
        let mut removed = 0;
        for id in &record.services {
            removed += usize::from(client.deregister(id).await?);
        }
        Ok::<_, consul::ConsulError>(removed)
    };
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(removed)) => Ok(removed),
        Ok(Err(error)) => Err(format!("{}; consul.enabled = false if this host has none", chain(&error))),
        Err(_) => Err("it did not answer in time; consul.enabled = false if this host has none".to_owned()),
    }
}

/// True when nothing of the workload lives any more.
async fn stop(
    record: &Record,
    config: &Config,
    workload: Workload,
    limit: Duration,
    report: &mut Report,
) -> bool {
    match workload {
        Workload::Exited | Workload::Unconfirmed => {}
        Workload::Unheard => report.errors.push(
            "container: Docker has not answered the create or the start; a cleaner removes what comes of it"
                .into(),
        ),
        Workload::NeverStarted | Workload::Unknown => {
            if let Err(error) = stop_container(record, config, workload, limit, report).await {
                report.errors.push(format!("container: {error}"));
            }
        }
    }
    // Independent of Docker: the workload is gone when no process lives in its namespace.
    let Some(namespace) = report.accept("processes", bound(record, config)) else { return false };
    let Some(namespace) = namespace else { return !lives_unseen(record, report).await };
    // Clients may have put other containers into that of an adopted one. Those lose the interface and live on.
    let of_task = |pid| record.backing.adopted().is_none_or(|id| HostProcess::is_in(pid, id));
    let killed = namespace.kill_some(Duration::from_secs(10), of_task).await;
    let Some(killed) = report.accept("processes", killed) else { return false };
    report.killed = killed;
    true
}

/// The task's namespace, where it is bound and can be seen from here.
fn bound(record: &Record, config: &Config) -> Result<Option<Namespace>, NetError> {
    match Namespace::open(&network::namespace(config, &record.container)) {
        Ok(namespace) => Ok(Some(namespace)),
        Err(NetError::NotANamespace(_)) => Ok(None),
        Err(NetError::Namespace { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// An interface lives no longer than its namespace: one that is not bound here is bound, or lived in, under another
/// mount namespace, as that of a custom executor whose agent isolates its file systems.
async fn lives_unseen(record: &Record, report: &mut Report) -> bool {
    let begun = Instant::now();
    loop {
        match net::exists(&record.identity.interface).await {
            Ok(false) => return false,
            // The kernel takes a moment after the last process.
            Ok(true) if begun.elapsed() < NAMESPACE_LAG => tokio::time::sleep(NAMESPACE_LAG / 20).await,
            Ok(true) => {
                let words =
                    "processes: the task's namespace lives on in another mount namespace than this one";
                report.errors.push(words.to_owned());
                return true;
            }
            Err(error) => {
                report.note("processes", &error);
                return true;
            }
        }
    }
}

/// Stops the container, and removes it where no agent does. `limit` is for all of Docker's answers together.
async fn stop_container(
    record: &Record,
    config: &Config,
    workload: Workload,
    limit: Duration,
    report: &mut Report,
) -> Result<(), String> {
    let stopped = tokio::time::timeout(limit, ask_docker(record, config, workload, report)).await;
    stopped.unwrap_or_else(|_| Err(format!("Docker did not answer within {} s", limit.as_secs())))
}

async fn ask_docker(
    record: &Record,
    config: &Config,
    workload: Workload,
    report: &mut Report,
) -> Result<(), String> {
    // What others have made is never stopped, killed or removed here.
    let Backing::Container { docker: address, name, adopted: false } = &record.backing else { return Ok(()) };
    let host = DockerHost::parse(address).map_err(|error| chain(&error))?;
    let docker = Docker::connect_with(&host, config.docker.tls(), "the journal")
        .await
        .map_err(|error| chain(&error))?;
    let container = match docker.inspect(name).await {
        Ok(container) => container,
        Err(DockerError::NoContainer { .. }) => return Ok(()),
        Err(error) => return Err(chain(&error)),
    };
    let remove =
        workload == Workload::NeverStarted || !container.started || is_named_by_us(name, &record.container);
    report.docker_id = Some(container.id.clone());
    if container.running {
        // Also before a removal: Docker removes what it cannot end, and leaves processes behind.
        container::end(&docker, &container.id, name).await?;
    }
    if remove {
        docker.remove(&container.id, true).await.map_err(|error| chain(&error))?;
    }
    report.container |= remove || container.running;
    Ok(())
}

/// True when no port of the host leads to the task any more. Before the interface goes: without it any program may
/// take the ports over.
async fn ports(record: &Record, report: &mut Report) -> bool {
    if record.ports.is_empty() {
        return true;
    }
    let removed = forward::remove(&record.container).await;
    let Some(removed) = report.accept("ports", removed) else { return false };
    report.ports = removed;
    true
}

/// The namespace stays as long as something lives in it: the next cleaner finds it by that, or, where it cannot be
/// seen, by its interface.
async fn interface(record: &Record, config: &Config, at_rest: bool, report: &mut Report) {
    if !at_rest && matches!(bound(record, config), Ok(None)) {
        return;
    }
    let namespace = bound(record, config).ok().flatten();
    match net::delete_veth(&record.identity.interface, namespace.as_ref()).await {
        Ok(deleted) => report.interface = deleted,
        // It has never been this task's: its launch was refused because of it.
        Err(error @ NetError::LinkTaken { .. }) => tracing::warn!("{}", chain(&error)),
        Err(error) => return report.note("interface", &error),
    }
    drop(namespace);
    if !at_rest {
        return;
    }
    let folder = config.paths.task_run(&record.container);
    match Namespace::unbind(&network::namespace(config, &record.container)) {
        Ok(there) => report.folder = there,
        Err(error) => return report.note("namespace", &error),
    }
    // By them the cleaner finds what lies below Docker, should this not come so far.
    let links = if report.look_below { Vec::new() } else { container::links(config, record) };
    match remove_folder(&folder, links) {
        Ok(there) => report.folder |= there,
        Err(error) => report.note("volatile folder", &error),
    }
}

/// Removes the task's volatile folder and the links to it; false when there was neither.
fn remove_folder(folder: &Path, links: Vec<PathBuf>) -> io::Result<bool> {
    let linked = !links.is_empty();
    for link in links {
        fs::remove_file(link)?;
    }
    match fs::remove_dir_all(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(linked),
        Err(error) => Err(error),
    }
}

async fn datastore(
    record: &Record,
    config: &Config,
    claim: &Claim,
    login: EarlyLogin,
    patience: Patience,
    report: &mut Report,
) {
    let work = async {
        let mut datastore = match login.datastore().await {
            Ok(datastore) => datastore,
            // It may have come back since.
            Err(_) => Datastore::connect(config).await?,
        };
        if let Claim::Lost(pending) = claim {
            if let Settled::Committed(addresses) = datastore.settle(&record.identity, pending).await? {
                audit::given(config, record, &addresses, &[]);
            }
        }
        match claim {
            Claim::Seen(revision, blocks) => {
                datastore.release_as_seen(&record.identity, *revision, blocks).await
            }
            _ => datastore.release(&record.identity).await.map(Some),
        }
    };
    match tokio::time::timeout(patience.datastore, work).await {
        Ok(Ok(None)) => report.errors.push("address: the endpoint has changed meanwhile".into()),
        Ok(Ok(Some(released))) => {
            audit::returned(config, record, &released.addresses);
            report.release = Release::Done;
            report.endpoint = released.endpoint;
            report.addresses = released.addresses;
        }
        Ok(Err(error)) => report.note("address", &error),
        Err(_) => {
            report.release = Release::Unheard;
            report.errors.push(format!("address: etcd did not answer within {:?}", patience.datastore));
        }
    }
}
