//! calico/node's programs, as its start script and its run scripts call them: `calico-node -startup`, `-felix`,
//! `-felix-ready`, `-bird-ready`.
//!
//! `-startup` makes the records that the real one makes, and a pool of its own where there is none; Felix is in
//! [`super::felix`].

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use calico_mesos::calico::{Datastore, Kind, PoolMode, StartUp};
use calico_mesos::config::Config;
use ipnet::IpNet;

use super::{block_on, chain, felix};

/// Where Felix says how it is.
pub const HEALTH: &str = "127.0.0.1:9099";
const NODENAME: &str = "/var/lib/calico/nodename";
const CONFIG: &str = "/run/standin.toml";
const PASSWORD: &str = "/run/standin.password";

pub fn run(words: &[String]) -> Result<(), String> {
    let mut done = false;
    for word in words {
        match word.as_str() {
            "-startup" => block_on(start_up())??,
            "-felix" => block_on(felix::run(&node()?, &config()?))??,
            "-felix-ready" => felix_ready()?,
            "-bird-ready" => bird_ready()?,
            _ => return Err(format!("unknown flag {word}")),
        }
        done = true;
    }
    done.then_some(()).ok_or_else(|| "no flag".to_owned())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

pub fn node() -> Result<String, String> {
    match variable("NODENAME").or_else(|| variable("HOSTNAME")) {
        Some(name) => Ok(name.to_lowercase()),
        None => {
            fs::read_to_string(NODENAME).map(|name| name.trim().to_owned()).map_err(|error| error.to_string())
        }
    }
}

/// The datastore as calico/node's environment names it.
fn config() -> Result<Config, String> {
    let mut text = String::from("[etcd]\n");
    let endpoints = variable("ETCD_ENDPOINTS").ok_or("ETCD_ENDPOINTS is not set")?;
    let list: Vec<String> = endpoints.split(',').map(|url| format!("{:?}", url.trim())).collect();
    text += &format!("endpoints = [{}]\n", list.join(", "));
    let names = [
        ("ETCD_CA_CERT_FILE", "ca_file"),
        ("ETCD_CERT_FILE", "cert_file"),
        ("ETCD_KEY_FILE", "key_file"),
        ("ETCD_USERNAME", "username"),
    ];
    for (name, setting) in names {
        text += &variable(name).map(|value| format!("{setting} = {value:?}\n")).unwrap_or_default();
    }
    if let Some(password) = variable("ETCD_PASSWORD") {
        fs::write(PASSWORD, password).map_err(|error| format!("cannot write {PASSWORD}: {error}"))?;
        text += &format!("password_file = {PASSWORD:?}\n");
    }
    fs::write(CONFIG, text).map_err(|error| format!("cannot write {CONFIG}: {error}"))?;
    Config::load(Path::new(CONFIG)).map_err(|error| chain(&error))
}

async fn start_up() -> Result<(), String> {
    let (config, node) = (config()?, node()?);
    println!("Using node name: {node}");
    let mut datastore = loop {
        match Datastore::connect(&config).await {
            Ok(datastore) => break datastore,
            Err(error) if variable("WAIT_FOR_DATASTORE").as_deref() == Some("true") => {
                println!("Hit error connecting to datastore - retry: {}", chain(&error));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => return Err(chain(&error)),
        }
    };
    let pools = datastore.names(Kind::IpPool).await.map_err(|error| chain(&error))?;
    let default_pools = variable("NO_DEFAULT_POOLS").as_deref() != Some("true");
    let wanted = StartUp {
        node: node.clone(),
        address: variable("IP").filter(|ip| ip != "none").map(|ip| with_length(&ip)).transpose()?,
        address6: variable("IP6").filter(|ip| ip != "none").map(|ip| with_length(&ip)).transpose()?,
        pool: (pools.is_empty() && default_pools).then(default_pool).transpose()?,
    };
    for made in datastore.start_up(&wanted, false).await.map_err(|error| chain(&error))? {
        println!("{}", made.object);
    }
    fs::write(NODENAME, &node).map_err(|error| format!("cannot write {NODENAME}: {error}"))
}

fn default_pool() -> Result<(IpNet, PoolMode), String> {
    let cidr = variable("CALICO_IPV4POOL_CIDR").unwrap_or_else(|| "192.168.0.0/16".to_owned());
    let set = |name: &str| variable(name).is_some_and(|mode| mode != "Never");
    let mode = match (set("CALICO_IPV4POOL_VXLAN"), set("CALICO_IPV4POOL_IPIP")) {
        (true, _) => PoolMode::Vxlan,
        (false, true) => PoolMode::Ipip,
        (false, false) => PoolMode::Bgp,
    };
    Ok((cidr.parse().map_err(|error| format!("{cidr}: {error}"))?, mode))
}

/// The host's address with the length of its interface's network; one that no interface has is a whole network.
fn with_length(ip: &str) -> Result<IpNet, String> {
    let address: IpAddr = ip.parse().map_err(|error| format!("IP {ip}: {error}"))?;
    let output =
        Command::new("ip").args(["-o", "addr", "show"]).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let nets = text.split_whitespace().filter_map(|word| word.parse::<IpNet>().ok());
    Ok(nets.into_iter().find(|net| net.addr() == address).unwrap_or(IpNet::from(address)))
}

fn felix_ready() -> Result<(), String> {
    let mut stream =
        TcpStream::connect(HEALTH).map_err(|error| format!("calico/node is not ready: felix: {error}"))?;
    let mut answer = String::new();
    stream
        .write_all(b"GET /readiness HTTP/1.0\r\n\r\n")
        .and_then(|()| stream.read_to_string(&mut answer))
        .map_err(|error| format!("calico/node is not ready: felix: {error}"))?;
    let ready = answer.split(' ').nth(1).is_some_and(|code| code.starts_with('2'));
    ready.then_some(()).ok_or_else(|| format!("calico/node is not ready: felix answers {answer:?}"))
}

/// BIRD runs where routes go by BGP.
fn bird_ready() -> Result<(), String> {
    let stat = fs::metadata("/var/run/calico/bird.ctl");
    stat.map(|_| ()).map_err(|error| format!("calico/node is not ready: BIRD is not ready: {error}"))
}

/// As the datastore's own client sees the cluster: for what the library does not write.
pub async fn etcd(config: &Config) -> Result<etcd_client::Client, String> {
    let read = |path: &Option<std::path::PathBuf>| -> Result<Option<Vec<u8>>, String> {
        path.as_ref()
            .map(|path| fs::read(path).map_err(|error| format!("{}: {error}", path.display())))
            .transpose()
    };
    let mut options = etcd_client::ConnectOptions::new();
    if let Some(ca) = read(&config.etcd.ca_file)? {
        let mut tls = etcd_client::TlsOptions::new().ca_certificate(etcd_client::Certificate::from_pem(ca));
        if let (Some(cert), Some(key)) = (read(&config.etcd.cert_file)?, read(&config.etcd.key_file)?) {
            tls = tls.identity(etcd_client::Identity::from_pem(cert, key));
        }
        options = options.with_tls(tls);
    }
    let client = etcd_client::Client::connect(&config.etcd.endpoints, Some(options)).await;
    client.map_err(|error| format!("cannot reach etcd: {error}"))
}

/// What a person set aside for the log's lines.
pub fn log(words: &str, details: &BTreeMap<&str, String>) {
    let details: Vec<String> = details.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    println!("[INFO] felix/standin: {words} {}", details.join(" "));
}
