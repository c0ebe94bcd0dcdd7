//! Waits until Felix has programmed a task's endpoint, as far as `policy.wait` requires it.
//!
//! ```text
//!  best-effort ── report, or the host routes for a while ──► start; at the deadline start all the same
//!  required ───── report ──► start; at the deadline fail
//!                   └─ another endpoint's report appears or goes: the deadline moves on
//! ```
//!
//! A report is the file that Felix writes once all rules of an endpoint are in force. The host route proves less: it
//! comes before the last rules, and a Felix that dies in between leaves it behind. Security does not depend on the
//! wait: Felix drops packets from interfaces that it has not programmed.

use std::future::ready;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tokio::time::{sleep, Instant};
use tokio_util::sync::CancellationToken;

use crate::calico::{self, Identity};
use crate::config::{Config, Dataplane, PolicyWait};
use crate::error::{Code, Failure};
use crate::net;

use crate::task::retry::host_faults;

/// How often the dataplane is asked whether Felix is done.
const POLL: Duration = Duration::from_millis(5);
/// The same once it takes long, when routes are listed for it as well.
const SLOW_POLL: Duration = Duration::from_millis(50);
/// How long Felix's host route may be there before it counts in place of a report that does not come:
/// the folder for reports may be of a Felix that wrote some, before a roll-back or a changed setting.
/// Reports follow their routes by less than a tenth of that.
const REPORT_GRACE: Duration = Duration::from_millis(500);
/// Felix sets a task's host route 20 to 45 ms before the last of its rules: how long the route has to be
/// there where no report will come.
const RULES_LAG: Duration = Duration::from_millis(50);
/// What the wait leaves of the gate's time, for the gate to open in.
const GATE_RESERVE: Duration = Duration::from_secs(10);

/// Ends every wait for Felix at once; only a life that is being given up sees it.
const GIVEN_UP: Code = Code::Killed;

/// Refuses a task that `policy.wait = "required"` could never start, before anything is claimed for it. Felix makes
/// the folder for its reports when it starts, so that it is waited for like any other part of the host.
pub(in crate::task) async fn can_report(config: &Config) -> Result<(), Failure> {
    if config.policy.wait != PolicyWait::Required || config.node.dataplane != Dataplane::Felix {
        return Ok(());
    }
    let folder = &config.paths.endpoint_status;
    host_faults(config.launch.retry_for, || {
        ready(match folder.is_dir() {
            true => Ok(()),
            false => Err(Failure::new(
                Code::Policy,
                format!(
                    "policy.wait = \"required\" needs Felix's reports, but Felix writes none: there is no folder {}; start calico/node on this agent, before Calico 3.30 with FELIX_ENDPOINTSTATUSPATHPREFIX={}",
                    folder.display(),
                    folder.parent().unwrap_or(folder).display(),
                ),
            )),
        })
    })
    .await
}

/// Waits until Felix has programmed the endpoint. `begun`: when Docker was asked to start the container.
pub(in crate::task) async fn wait(
    config: &Config,
    identity: &Identity,
    addresses: &[IpAddr],
    begun: Instant,
    give_up: &CancellationToken,
) -> Result<(), Failure> {
    if config.policy.wait == PolicyWait::Off || config.node.dataplane != Dataplane::Felix {
        return Ok(());
    }
    let started = Instant::now();
    let folder = &config.paths.endpoint_status;
    let wait = async {
        match config.policy.wait {
            PolicyWait::Required => {
                let file = calico::endpoint_status_file(config, identity);
                let latest = begun + config.runtime.gate_timeout.saturating_sub(GATE_RESERVE);
                reported(&file, folder, config.policy.timeout(), latest).await
            }
            _ => done(config, identity, addresses, started).await,
        }
    };
    let is_done = tokio::select! {
        biased;
        is_done = wait => is_done,
        () = give_up.cancelled() => return Err(Failure::new(GIVEN_UP, "the wait for Felix was given up")),
    };
    let took = started.elapsed();
    if is_done {
        tracing::info!("Felix was done with {} after {took:?}", identity.interface);
        return Ok(());
    }
    let message =
        format!("calico/node did not program {} within {:.1} s", identity.interface, took.as_secs_f64());
    if config.policy.wait == PolicyWait::Required {
        return Err(Failure::new(
            Code::Policy,
            format!(
                "{message}: no report of it in {}; check that Felix runs on this agent and, before Calico 3.30, that FELIX_ENDPOINTSTATUSPATHPREFIX={} is set for it",
                folder.display(),
                folder.parent().unwrap_or(folder).display(),
            ),
        ));
    }
    tracing::warn!("{message}; starting all the same, Felix lets nothing through until it has");
    Ok(())
}

/// True for the failure of a wait that was given up: it is never the reason that the life ends.
pub(in crate::task) fn is_given_up(failure: &Failure) -> bool {
    failure.code == GIVEN_UP
}

/// Waits for the report alone. While other reports come and go, Felix is at work, and this one is to come yet: the
/// deadline moves on, but not beyond `latest`.
async fn reported(file: &Path, folder: &Path, timeout: Duration, latest: Instant) -> bool {
    let started = Instant::now();
    let mut deadline = started + timeout;
    let mut seen = changed(folder);
    loop {
        if file.exists() {
            return true;
        }
        let now = Instant::now();
        let newest = changed(folder);
        if newest != seen {
            seen = newest;
            deadline = deadline.max((now + timeout).min(latest));
        }
        if now >= deadline {
            return false;
        }
        sleep(if now - started >= REPORT_GRACE { SLOW_POLL } else { POLL }).await;
    }
}

/// When a report was last made or removed.
fn changed(folder: &Path) -> Option<SystemTime> {
    folder.metadata().and_then(|meta| meta.modified()).ok()
}

/// Waits for the report, or for the host routes where none is written; false after `policy.timeout`.
async fn done(config: &Config, identity: &Identity, addresses: &[IpAddr], started: Instant) -> bool {
    let file = calico::endpoint_status_file(config, identity);
    let reports = file.parent().is_some_and(Path::exists);
    let needed = if reports { REPORT_GRACE } else { RULES_LAG };
    let mut routed_since = None;
    loop {
        let slow = started.elapsed() >= REPORT_GRACE;
        if reports && file.exists() {
            return true;
        }
        if (!reports || slow) && routed(&identity.interface, addresses).await {
            let since = routed_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= needed {
                return true;
            }
        }
        if started.elapsed() >= config.policy.timeout() {
            return false;
        }
        sleep(if slow { SLOW_POLL } else { POLL }).await;
    }
}

async fn routed(link: &str, addresses: &[IpAddr]) -> bool {
    for address in addresses {
        if !net::has_host_route(link, *address).await.unwrap_or(false) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ContainerId;

    /// A host whose Felix writes reports into the folder.
    fn host(timeout: u64) -> (tempfile::TempDir, Config, Identity) {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.policy.wait = PolicyWait::Required;
        config.policy.timeout = Some(Duration::from_secs(timeout));
        config.launch.retry_for = Duration::from_secs(5);
        config.paths.endpoint_status = dir.path().join("endpoint-status");
        let container = ContainerId::parse("3f6b0e4e-6b1a-4c57-9d0f-0e0c6b1a2f3d").unwrap();
        let identity = Identity::new("agent-1", &container, "/web", "web.1");
        (dir, config, identity)
    }

    /// Felix reports one endpoint after the other, ours at last.
    async fn felix(config: &Config, identity: &Identity, others: u32) {
        for other in 0..others {
            sleep(Duration::from_secs(2)).await;
            std::fs::write(config.paths.endpoint_status.join(format!("other {other} eth0")), "").unwrap();
            // The kernel's clock for files has a coarse tick.
            std::thread::sleep(Duration::from_millis(10));
        }
        sleep(Duration::from_secs(2)).await;
        std::fs::write(calico::endpoint_status_file(config, identity), "").unwrap();
    }

    async fn waited(config: &Config, identity: &Identity) -> Result<(), Failure> {
        wait(config, identity, &[], Instant::now(), &CancellationToken::new()).await
    }

    #[tokio::test(start_paused = true)]
    async fn required_is_refused_beforehand_where_felix_writes_no_reports() {
        let (_dir, config, _) = host(3);
        let failure = can_report(&config).await.unwrap_err();
        assert_eq!(failure.code, Code::Policy);
        assert!(failure.message.contains("FELIX_ENDPOINTSTATUSPATHPREFIX=/"), "{failure}");
        std::fs::create_dir(&config.paths.endpoint_status).unwrap();
        assert_eq!(can_report(&config).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_moves_on_while_felix_reports_other_endpoints() {
        let (_dir, config, identity) = host(3);
        std::fs::create_dir(&config.paths.endpoint_status).unwrap();
        let started = Instant::now();
        let (result, ()) = tokio::join!(waited(&config, &identity), felix(&config, &identity, 10));
        assert_eq!(result, Ok(()));
        assert!(started.elapsed() >= Duration::from_secs(22), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_never_moves_into_the_last_ten_seconds_of_the_gate() {
        let (_dir, config, identity) = host(3);
        std::fs::create_dir(&config.paths.endpoint_status).unwrap();
        let started = Instant::now();
        let result = tokio::select! {
            result = waited(&config, &identity) => result,
            () = felix(&config, &identity, 100) => panic!("the wait has no end"),
        };
        assert_eq!(result.unwrap_err().code, Code::Policy);
        let took = started.elapsed().as_secs();
        assert!((49..=51).contains(&took), "{took} s of a gate that opens for 60 s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_felix_that_reports_nothing_is_waited_for_until_the_timeout() {
        let (_dir, config, identity) = host(3);
        std::fs::create_dir(&config.paths.endpoint_status).unwrap();
        let started = Instant::now();
        let failure = waited(&config, &identity).await.unwrap_err();
        assert!(failure.message.contains("FELIX_ENDPOINTSTATUSPATHPREFIX"), "{failure}");
        assert_eq!(started.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_given_up_ends_at_once() {
        for policy in [PolicyWait::Required, PolicyWait::BestEffort] {
            let (_dir, mut config, identity) = host(3000);
            config.policy.wait = policy;
            std::fs::create_dir(&config.paths.endpoint_status).unwrap();
            let given_up = CancellationToken::new();
            let addresses = ["192.0.2.1".parse().unwrap()];
            let started = Instant::now();
            let killed = async {
                sleep(Duration::from_secs(1)).await;
                given_up.cancel();
            };
            let (result, ()) =
                tokio::join!(wait(&config, &identity, &addresses, Instant::now(), &given_up), killed);
            assert!(is_given_up(&result.unwrap_err()));
            assert_eq!(started.elapsed().as_secs(), 1);
        }
    }
}
