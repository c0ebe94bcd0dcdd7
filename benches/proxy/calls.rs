//! What the proxy adds to small calls.

use std::time::Instant;

use calico_mesos::rig::daemons::Stack;
use serde_json::json;

use super::client::Client;
use super::figures::{Figure, Goal};
use super::program::Program;

const ROUNDS: usize = 2000;
const WARM_UP: usize = 200;

/// One call: directly, through the proxy's socket, and through its port.
#[derive(Default)]
struct Ways {
    direct: Figure,
    unix: Figure,
    tcp: Figure,
}

pub struct Calls {
    ping: Ways,
    inspect: Ways,
}

pub async fn measure(stack: &Stack, proxy: &Program) -> Calls {
    let mut docker = Client::unix(&stack.docker.socket).await;
    let plain = json!({"Image": "busybox", "Cmd": ["sleep", "1000"]}).to_string();
    docker.done("POST", "/containers/create?name=plain", &plain).await;
    docker.done("POST", "/containers/plain/start", "").await;
    let ping = ways(stack, proxy, "/_ping").await;
    let inspect = ways(stack, proxy, "/containers/plain/json").await;
    docker.done("DELETE", "/containers/plain?force=1", "").await;
    Calls { ping, inspect }
}

async fn ways(stack: &Stack, proxy: &Program, path: &str) -> Ways {
    let mut direct = Client::unix(&stack.docker.socket).await;
    let (mut unix, mut tcp) = (Client::unix(&proxy.socket).await, Client::tcp(proxy.port).await);
    let mut ways = Ways::default();
    for round in 0..WARM_UP + ROUNDS {
        let ways = [(&mut direct, &mut ways.direct), (&mut unix, &mut ways.unix), (&mut tcp, &mut ways.tcp)];
        for (client, figure) in ways {
            let begin = Instant::now();
            let (status, _) = client.call("GET", path, "").await;
            let took = begin.elapsed();
            assert_eq!(status, 200, "{path}");
            if round >= WARM_UP {
                // Microseconds: the goals are parts of one millisecond.
                figure.push(took.as_secs_f64() * 1_000_000.0);
            }
        }
    }
    ways
}

impl Ways {
    fn print(&self, name: &str) {
        println!("{}", self.direct.row(&format!("{name} at Docker's socket"), "us"));
        println!("{}", self.unix.row("  through the proxy's socket", "us"));
        println!("{}", self.tcp.row("  through the proxy's port", "us"));
    }

    /// In milliseconds.
    fn added(&self) -> [f64; 2] {
        [&self.unix, &self.tcp].map(|way| (way.median() - self.direct.median()) / 1000.0)
    }
}

impl Calls {
    pub fn print(&self) {
        self.ping.print("GET /_ping");
        self.inspect.print("inspect of a plain container");
    }

    pub fn goals(&self) -> Vec<Goal> {
        let ([ping, ping_tcp], [inspect, inspect_tcp]) = (self.ping.added(), self.inspect.added());
        vec![
            Goal::new("proxy-adds-to-ping-ms", ping, 0.3),
            Goal::new("proxy-port-adds-to-ping-ms", ping_tcp, 0.3),
            Goal::new("proxy-adds-to-inspect-ms", inspect, 0.3),
            Goal::new("proxy-port-adds-to-inspect-ms", inspect_tcp, 0.3),
        ]
    }
}
