//! Calico's own programs, as an operator or a kubelet would call them.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::kube::Kube;

const VARIABLE: &str = "CALICO_PEERS";
const CALICO: [&str; 3] = ["calicoctl", "calico-felix", "calico-ipam"];
/// What Felix calls; without them it only fails later and less clearly.
const SYSTEM: [(&str, &str); 3] =
    [("iptables-nft-save", "iptables"), ("ipset", "ipset"), ("conntrack", "conntrack")];

/// Where Calico's programs are. Fails the test when one is missing, or one of those that they call.
pub fn folder() -> PathBuf {
    let folder = std::env::var_os(VARIABLE).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| panic!("{VARIABLE} must name a folder with {}", CALICO.join(", ")));
    for program in CALICO {
        assert!(folder.join(program).exists(), "{VARIABLE}={} has no {program}", folder.display());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    for (program, package) in SYSTEM {
        let found = std::env::split_paths(&path).any(|folder| folder.join(program).exists());
        assert!(found, "{program} is not in PATH, and Felix needs it: install the package {package}");
    }
    folder
}

/// BIRD, which speaks BGP for calico/node.
pub fn bird() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into()]).map(|folder| folder.join("bird"));
    let found = places.into_iter().find(|place| place.exists());
    found.expect("bird is not in PATH: install the package bird")
}

pub struct Peers {
    folder: PathBuf,
    endpoint: String,
    kube: Kube,
}

impl Peers {
    /// Speaks to this etcd.
    pub fn new(endpoint: &str) -> Self {
        Self { folder: folder(), endpoint: endpoint.to_owned(), kube: Kube::start() }
    }

    pub fn path(&self, program: &str) -> PathBuf {
        self.folder.join(program)
    }

    /// How Calico's programs find the datastore. Felix ignores FELIX_DATASTORETYPE from its environment.
    pub fn environment(&self) -> [(&'static str, &str); 2] {
        [("DATASTORE_TYPE", "etcdv3"), ("ETCD_ENDPOINTS", &self.endpoint)]
    }

    /// Runs calicoctl and returns what it prints; it must succeed.
    pub async fn calicoctl(&self, arguments: &str) -> String {
        self.feed(arguments, "").await
    }

    /// `calicoctl apply` of this object.
    pub async fn apply(&self, object: &Value) {
        self.feed("apply -f -", &object.to_string()).await;
    }

    pub async fn get(&self, what: &str) -> Value {
        serde_json::from_str(&self.calicoctl(&format!("get {what} -o json")).await).unwrap()
    }

    async fn feed(&self, arguments: &str, input: &str) -> String {
        let mut command = Command::new(self.path("calicoctl"));
        command.args(arguments.split(' ')).arg("--allow-version-mismatch").env_clear();
        // 3.30 and later look for load balancers' addresses in Kubernetes, wherever Calico's own data are.
        if arguments.starts_with("ipam check") {
            command.env("KUBECONFIG", self.kube.config());
        }
        let output = run(command.envs(self.environment()), input).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "calicoctl {arguments}: {text}{errors}");
        text
    }

    /// Runs the IPAM plugin for a container and returns its answer.
    pub async fn ipam(&self, command: &str, node: &str, container: &str, lock: &Path) -> Value {
        let config = serde_json::json!({
            "cniVersion": "0.3.1", "name": "net", "type": "calico", "datastore_type": "etcdv3",
            "etcd_endpoints": self.endpoint, "nodename": node, "nodename_file_optional": true,
            "log_level": "error", "ipam": {"type": "calico-ipam"}, "ipam_lock_file": lock,
        });
        let mut plugin = Command::new(self.path("calico-ipam"));
        plugin
            .env_clear()
            .envs([("CNI_COMMAND", command), ("CNI_CONTAINERID", container), ("CNI_IFNAME", "eth0")])
            .envs([("CNI_NETNS", "/var/run/netns/none"), ("CNI_PATH", "/")]);
        let output = run(&mut plugin, &config.to_string()).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command} {container}: {text}{errors}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// What `calicoctl ipam check` of 3.30 and later wants to read before it begins.
    pub async fn prepare_check(&self) {
        self.apply(&serde_json::json!({
            "apiVersion": "projectcalico.org/v3", "kind": "KubeControllersConfiguration",
            "metadata": {"name": "default"}, "spec": {"controllers": {}},
        }))
        .await;
    }

    /// `calicoctl ipam check` finds nothing to complain about.
    pub async fn check_ipam(&self) {
        self.check_ipam_without_endpoints(0).await;
    }

    /// The same with addresses of the plugin alone: it writes no endpoints, which counts as a problem each.
    pub async fn check_ipam_without_endpoints(&self, addresses: usize) {
        let report = self.calicoctl("ipam check").await;
        assert!(report.contains(&format!("found {addresses} problems")), "{report}");
    }
}

async fn run(command: &mut Command, input: &str) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.kill_on_drop(true).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that reads nothing has closed its end.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    child.wait_with_output().await.unwrap()
}
