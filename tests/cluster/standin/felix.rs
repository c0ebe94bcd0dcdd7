//! Felix, and BIRD's routes: what makes tasks reachable from their host and from the others.
//!
//! For an endpoint of this node a route to its interface, proxy ARP and the file in endpoint-status; for the block of
//! another node a route by that node's address, as on hosts of one network; for the whole a chain `cali-FORWARD`, as
//! Docker drops what it does not know; and a report of its life in the datastore. No policy.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use calico_mesos::calico::{Datastore, EndpointFilter, EndpointRecord};
use calico_mesos::config::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::chain;
use super::node::{etcd, log, HEALTH};

const PAUSE: Duration = Duration::from_millis(300);
const STATUS: &str = "/var/run/calico/endpoint-status";

pub async fn run(node: &str, config: &Config) -> Result<(), String> {
    fs::create_dir_all(STATUS).map_err(|error| format!("cannot make {STATUS}: {error}"))?;
    allow_forwarding();
    let begun = Instant::now();
    let mut datastore = Datastore::connect(config).await.map_err(|error| chain(&error))?;
    let mut programmed = Programmed::default();
    let health =
        TcpListener::bind(HEALTH).await.map_err(|error| format!("cannot listen on {HEALTH}: {error}"))?;
    let mut reported = None;
    let interval =
        std::env::var("FELIX_REPORTINGINTERVALSECS").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    let mut answering = false;
    loop {
        match look(&mut datastore, node, &mut programmed).await {
            Ok(()) if !answering => {
                // Ready when all that was there has been programmed once.
                answering = true;
                log("Felix is in sync", &BTreeMap::from([("node", node.to_owned())]));
            }
            Ok(()) => {}
            Err(why) => log("cannot read the datastore", &BTreeMap::from([("error", why)])),
        }
        if reported.is_none_or(|at: Instant| at.elapsed() > Duration::from_secs(interval)) {
            match report(node, config, begun.elapsed(), interval).await {
                Ok(()) => reported = Some(Instant::now()),
                Err(why) => log("cannot report", &BTreeMap::from([("error", why)])),
            }
        }
        answer_for(&health, answering).await;
    }
}

/// Answers questions about its health until the next look.
async fn answer_for(health: &TcpListener, ready: bool) {
    let until = tokio::time::Instant::now() + PAUSE;
    while let Ok(Ok((mut stream, _))) = tokio::time::timeout_at(until, health.accept()).await {
        let code = if ready { "200 OK" } else { "503 Service Unavailable" };
        // A client that has gone away needs no answer.
        let _ = stream.read(&mut [0; 512]).await;
        let _ = stream.write_all(format!("HTTP/1.0 {code}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await;
    }
}

#[derive(Default)]
struct Programmed {
    interfaces: BTreeMap<String, PathBuf>,
    blocks: BTreeSet<String>,
}

async fn look(datastore: &mut Datastore, node: &str, programmed: &mut Programmed) -> Result<(), String> {
    let filter = EndpointFilter { host: Some(node.to_owned()), ..EndpointFilter::default() };
    let endpoints = datastore.endpoint_records(&filter).await.map_err(|error| chain(&error))?;
    let here = |endpoint: &&EndpointRecord| Path::new("/sys/class/net").join(&endpoint.interface).exists();
    let living: Vec<&EndpointRecord> = endpoints.found.iter().filter(here).collect();
    for endpoint in &living {
        if !programmed.interfaces.contains_key(&endpoint.interface) {
            program(endpoint);
            let file = status_file(endpoint);
            fs::write(&file, "{}").map_err(|error| format!("cannot write {}: {error}", file.display()))?;
            programmed.interfaces.insert(endpoint.interface.clone(), file);
        }
    }
    programmed.interfaces.retain(|interface, file| {
        let lives = living.iter().any(|endpoint| endpoint.interface == *interface);
        // Gone already is what is wanted.
        let _ = lives || fs::remove_file(file).is_ok();
        lives
    });
    let nodes = datastore.nodes().await.map_err(|error| chain(&error))?.found;
    let (blocks, _) = datastore.booked_blocks().await.map_err(|error| chain(&error))?;
    for block in blocks {
        let Some(owner) = block.affinity.as_deref().and_then(|text| text.strip_prefix("host:")) else {
            continue;
        };
        let address = nodes.iter().find(|node| node.name == owner).and_then(|node| node.address.clone());
        let net = block.cidr.to_string();
        let Some(address) = address.filter(|_| owner != node && !programmed.blocks.contains(&net)) else {
            continue;
        };
        let by = address.split('/').next().unwrap_or_default().to_owned();
        // As BIRD marks its own: 12.
        ip(&["route", "replace", &net, "via", &by, "proto", "12"]);
        log("route to a block", &BTreeMap::from([("block", net.clone()), ("via", by)]));
        programmed.blocks.insert(net);
    }
    Ok(())
}

fn program(endpoint: &EndpointRecord) {
    for net in endpoint.networks.iter().filter(|net| net.contains('.')) {
        ip(&["route", "replace", net, "dev", &endpoint.interface, "scope", "link", "proto", "80"]);
    }
    // An interface that has gone meanwhile has no switches.
    for (name, value) in [("proxy_arp", "1"), ("rp_filter", "1")] {
        let _ = fs::write(format!("/proc/sys/net/ipv4/conf/{}/{name}", endpoint.interface), value);
    }
    log(
        "endpoint",
        &BTreeMap::from([("interface", endpoint.interface.clone()), ("nets", endpoint.networks.join(","))]),
    );
}

fn status_file(endpoint: &EndpointRecord) -> PathBuf {
    let workload = format!("{}/{}", endpoint.namespace, endpoint.workload);
    let words = [endpoint.orchestrator.as_str(), &workload, &endpoint.endpoint];
    let name = words.map(|word| word.replace('%', "%25").replace('/', "%2F")).join(" ");
    Path::new(STATUS).join(name)
}

fn ip(words: &[&str]) {
    run_quietly("ip", words);
}

fn run_quietly(program: &str, words: &[&str]) -> bool {
    let status = Command::new(program).args(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// In a chain and with a comment of the form of Felix's own, so that what removes those removes these.
fn allow_forwarding() {
    let comment = ["-m", "comment", "--comment", "cali:standinFORWARD0"];
    let jump = [&comment[..], &["-j", "cali-FORWARD"]].concat();
    run_quietly("iptables", &["-N", "cali-FORWARD"]);
    if !run_quietly("iptables", &[&["-C", "FORWARD"], &jump[..]].concat()) {
        run_quietly("iptables", &[&["-I", "FORWARD"], &jump[..]].concat());
        for direction in ["-i", "-o"] {
            run_quietly("iptables", &["-A", "cali-FORWARD", direction, "cali+", "-j", "ACCEPT"]);
        }
    }
}

/// With a lease, and without: what tells whether it lives, and when it did.
async fn report(node: &str, config: &Config, uptime: Duration, interval: u64) -> Result<(), String> {
    let mut client = etcd(config).await?;
    let time = humantime::format_rfc3339_seconds(SystemTime::now());
    let status = format!(r#"{{"time":"{time}","uptime":{}.0}}"#, uptime.as_secs());
    let prefix = format!("/calico/felix/v2/no-region/host/{node}");
    let lease =
        client.lease_grant(interval.cast_signed() * 3, None).await.map_err(|error| error.to_string())?;
    let leased = etcd_client::PutOptions::new().with_lease(lease.id());
    client
        .put(format!("{prefix}/status"), status.clone(), Some(leased))
        .await
        .map_err(|error| error.to_string())?;
    let done = client.put(format!("{prefix}/last_reported_status"), status, None).await;
    done.map(|_| ()).map_err(|error| error.to_string())
}
