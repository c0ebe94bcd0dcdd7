//! HTTP, HTTPS and TCP health checks of real listeners in a network namespace of their own.
//!
//! To be run in a private network namespace: `unshare --net` with `lo` up, as `make test` does.

mod kit;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use calico_mesos::net::{self, netns, Namespace};
use calico_mesos::task::health::{
    Check, CheckFamily, CheckTiming, Checks, CommandLine, Exec, Probe, Scheme, Target,
};
use calico_mesos::workload::CommandSpec;
use kit::netlab::{self, Lab};
use kit::wait::within;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A namespace with whatever listens in it.
struct Inside {
    lab: Lab,
    namespace: Namespace,
    addresses: Vec<IpAddr>,
}

impl Inside {
    async fn new() -> Self {
        let lab = Lab::new();
        let namespace = Namespace::create(&lab.path("ns")).await.unwrap();
        Self { lab, namespace, addresses: Vec::new() }
    }

    async fn listen(&self, at: &str) -> (TcpListener, u16) {
        let at: SocketAddr = at.parse().unwrap();
        let listener = netns::enter(&self.namespace, move || std::net::TcpListener::bind(at).unwrap());
        let listener = listener.await.unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        (TcpListener::from_std(listener).unwrap(), port)
    }

    /// Answers every request with what `answer` makes of its head, and tells the heads.
    async fn serve(
        &self,
        at: &str,
        answer: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> (u16, mpsc::UnboundedReceiver<String>) {
        let (listener, port) = self.listen(at).await;
        let (tell, heads) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                converse(stream, &answer, &tell).await;
            }
        });
        (port, heads)
    }

    fn target(&self) -> Target {
        Target {
            namespace: Some(self.namespace.path().into()),
            addresses: self.addresses.clone(),
            exec: Exec::Process {
                executor: env!("CARGO_BIN_EXE_calico-executor").into(),
                spec: task(),
                namespace: Some(self.namespace.path().into()),
            },
        }
    }

    /// What the first look says.
    async fn look(&self, probe: Probe) -> Result<(), String> {
        let verdict = Checks::begin(check(probe), self.target()).verdict().await;
        assert_eq!(verdict.kill, !verdict.healthy);
        verdict.healthy.then_some(()).ok_or(verdict.why)
    }

    async fn get(&self, port: u16, path: &str) -> Result<(), String> {
        self.look(http(Scheme::Http, port, path, CheckFamily::V4)).await
    }
}

/// A command workload, for the checks that run beside one.
fn task() -> CommandSpec {
    let variables = [("PATH", "/usr/bin:/bin"), ("A", "task"), ("B", "task")];
    CommandSpec {
        program: "sleep".into(),
        arguments: vec!["sleep".into(), "1000".into()],
        environment: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        user: Some("65534:65534".into()),
        directory: "/".into(),
    }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &impl Fn(&str) -> String,
    tell: &mpsc::UnboundedSender<String>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    // A probe that has heard enough goes away.
    let _ = stream.write_all(answer(&head).as_bytes()).await;
    let _ = stream.shutdown().await;
    let _ = tell.send(head);
}

fn check(probe: Probe) -> Check {
    let timing = CheckTiming {
        delay: Duration::ZERO,
        interval: Duration::ZERO,
        timeout: Some(Duration::from_secs(20)),
        grace: Duration::ZERO,
        failures: 1,
    };
    Check { timing, probe }
}

fn http(scheme: Scheme, port: u16, path: &str, family: CheckFamily) -> Probe {
    Probe::Http { scheme, port, path: path.into(), family }
}

fn redirect(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
}

#[tokio::test]
async fn answers_from_200_to_399_are_healthy() {
    let inside = Inside::new().await;
    let (port, mut heads) = inside
        .serve("127.0.0.1:0", |head| {
            let status = head.split(['/', ' ', '?']).nth(2).unwrap();
            format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\n\r\n")
        })
        .await;
    for good in ["200", "204", "304", "399"] {
        inside.get(port, &format!("/{good}")).await.unwrap();
    }
    for bad in ["400", "404", "500", "599"] {
        let why = inside.get(port, &format!("/{bad}?x")).await.unwrap_err();
        assert_eq!(why, format!("'http://127.0.0.1:{port}/{bad}?x' answered {bad}"));
    }
    let head = heads.recv().await.unwrap().to_lowercase();
    assert!(head.starts_with("get /200 http/1.1\r\n"), "{head}");
    assert!(
        head.contains(&format!("host: 127.0.0.1:{port}\r\n")) && head.contains("accept: */*\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn redirects_are_followed_but_not_for_ever() {
    let inside = Inside::new().await;
    let (port, mut heads) = inside
        .serve("127.0.0.1:0", |head| match head.split(' ').nth(1).unwrap() {
            "/here" => redirect("there?a=b#c"),
            "/there?a=b" => OK.into(),
            "/away" => redirect("ftp://127.0.0.1/"),
            "/dead" => redirect("http://127.0.0.1:1/"),
            _ => redirect("/loop"),
        })
        .await;
    inside.get(port, "/here").await.unwrap();
    let (first, second) = (heads.recv().await.unwrap(), heads.recv().await.unwrap());
    assert!(first.starts_with("GET /here ") && second.starts_with("GET /there?a=b "), "{first}{second}");
    let why = inside.get(port, "/away").await.unwrap_err();
    assert!(why.contains("redirects to 'ftp://127.0.0.1/'"), "{why}");
    let why = inside.get(port, "/dead").await.unwrap_err();
    assert!(why.starts_with("cannot connect to 127.0.0.1:1"), "{why}");
    let why = inside.get(port, "/loop").await.unwrap_err();
    assert!(why.contains("too often"), "{why}");
    heads.close();
    let mut loops = 0;
    while heads.recv().await.is_some_and(|head| !head.is_empty()) {
        loops += 1;
    }
    assert_eq!(loops, 2 + 51, "two failures, and a request and fifty redirects");
}

/// An answer that names 127.0.0.1, or nothing where another type is asked for.
fn dns_answer(query: &[u8]) -> Vec<u8> {
    // The header has twelve bytes; type and class follow the name's last, empty label.
    let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let is_a = query[end - 3] == 1;
    let counts = [0, 1, 0, u8::from(is_a), 0, 0, 0, 0];
    let mut answer = [&query[..2], &[0x81, 0x80], &counts, &query[12..end]].concat();
    if is_a {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    answer
}

/// What a policy keeps from a task, its health check does not ask the host's name servers for.
#[tokio::test]
async fn names_are_looked_up_from_within() {
    let inside = Inside::new().await;
    let configured = std::fs::read_to_string("/etc/resolv.conf").unwrap();
    let server = configured.lines().find_map(|line| line.strip_prefix("nameserver "));
    let server: IpAddr = server.expect("a name server in /etc/resolv.conf").trim().parse().unwrap();
    netlab::run_inside(&inside.namespace, &["address", "replace", &server.to_string(), "dev", "lo"]);
    let bound = netns::enter(&inside.namespace, move || std::net::UdpSocket::bind((server, 53)).unwrap());
    let socket = bound.await.unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
    tokio::spawn(async move {
        let mut query = [0; 512];
        while let Ok((count, from)) = socket.recv_from(&mut query).await {
            socket.send_to(&dns_answer(&query[..count]), from).await.unwrap();
        }
    });
    let (port, mut heads) = inside.serve("127.0.0.1:0", |_| OK.into()).await;
    let away = format!("http://elsewhere.example:{port}/");
    let (door, _heads) = inside.serve("127.0.0.1:0", move |_| redirect(&away)).await;
    inside.get(door, "/").await.unwrap();
    assert!(heads.recv().await.unwrap().contains("elsewhere.example"));
}

/// A loop is broken by the check's time, too.
#[tokio::test]
async fn who_is_silent_is_ill_when_the_time_is_up() {
    let inside = Inside::new().await;
    let (silent, port) = inside.listen("127.0.0.1:0").await;
    let mut check = check(http(Scheme::Http, port, "/", CheckFamily::V4));
    check.timing.timeout = Some(Duration::from_millis(300));
    let verdict = Checks::begin(check, inside.target()).verdict().await;
    assert_eq!(verdict.why, "no answer within 0.3 s");
    let (mut stream, _) = silent.accept().await.unwrap();
    let mut head = Vec::new();
    stream.read_to_end(&mut head).await.unwrap();
    assert!(head.starts_with(b"GET / "), "the connection was closed after the request");
}

#[tokio::test]
async fn a_probe_ends_with_the_checks() {
    let inside = Inside::new().await;
    let (listener, port) = inside.listen("127.0.0.1:0").await;
    let checks = Checks::begin(check(http(Scheme::Http, port, "/", CheckFamily::V4)), inside.target());
    let (mut stream, _) = listener.accept().await.unwrap();
    drop(checks);
    stream.read_to_end(&mut Vec::new()).await.unwrap();
}

#[tokio::test]
async fn what_is_no_http_is_ill_and_what_never_ends_is_not() {
    let inside = Inside::new().await;
    for rubbish in ["", "hello\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"] {
        let (port, _heads) = inside.serve("127.0.0.1:0", |_| rubbish.to_owned()).await;
        let why = inside.get(port, "/").await.unwrap_err();
        assert!(why.contains(&format!("'http://127.0.0.1:{port}/' failed")), "{why}");
    }
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(4 << 20));
    let (port, _heads) = inside.serve("127.0.0.1:0", move |_| endless.clone()).await;
    inside.get(port, "/").await.unwrap();
}

#[tokio::test]
async fn any_certificate_will_do() {
    let inside = Inside::new().await;
    let read = |name: &str| std::fs::read(format!("tests/fixtures/health/{name}.pem")).unwrap();
    let certificate = CertificateDer::from_pem_slice(&read("certificate")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&read("key")).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(ring)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.clone_key())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (listener, port) = inside.listen("127.0.0.1:0").await;
        let serving = tokio::spawn(async move {
            let (tell, _heads) = mpsc::unbounded_channel();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if let Ok(stream) = acceptor.accept(stream).await {
                    converse(stream, &|_: &str| OK.to_owned(), &tell).await;
                }
            }
        });
        inside.look(http(Scheme::Https, port, "/", CheckFamily::V4)).await.unwrap();
        let (plain, _heads) =
            inside.serve("127.0.0.1:0", move |_| redirect(&format!("https://localhost:{port}/"))).await;
        inside.get(plain, "/").await.unwrap();
        serving.abort();
    }
    let (listener, port) = inside.listen("127.0.0.1:0").await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(OK.as_bytes()).await.unwrap();
    });
    let why = inside.look(http(Scheme::Https, port, "/", CheckFamily::V4)).await.unwrap_err();
    assert!(why.contains("secure connection"), "{why}");
}

#[tokio::test]
async fn tcp_of_both_families() {
    let inside = Inside::new().await;
    for (loopback, family, other) in
        [("127.0.0.1:0", CheckFamily::V4, CheckFamily::V6), ("[::1]:0", CheckFamily::V6, CheckFamily::V4)]
    {
        let (_listener, port) = inside.listen(loopback).await;
        inside.look(Probe::Tcp { port, family }).await.unwrap();
        let why = inside.look(Probe::Tcp { port, family: other }).await.unwrap_err();
        assert!(why.ends_with("Connection refused (os error 111)"), "{why}");
    }
    let (port, _heads) = inside.serve("[::1]:0", |_| OK.into()).await;
    inside.look(http(Scheme::Http, port, "/", CheckFamily::V6)).await.unwrap();
}

#[tokio::test]
async fn a_task_bound_to_its_own_address_alone_is_found() {
    let mut inside = Inside::new().await;
    net::create_veth(&inside.namespace, "calihealth", "eth0", None, None).await.unwrap();
    inside.addresses = netlab::addresses(&["10.9.0.1", "fd80::9"]);
    net::assign(&inside.namespace, "eth0", &inside.addresses).await.unwrap();
    for (own, family) in [("10.9.0.1", CheckFamily::V4), ("[fd80::9]", CheckFamily::V6)] {
        let (port, mut heads) = inside.serve(&format!("{own}:0"), |_| OK.into()).await;
        inside.look(http(Scheme::Http, port, "/", family)).await.unwrap();
        let head = heads.recv().await.unwrap();
        assert!(head.contains(&format!("host: {own}:{port}\r\n")), "{head}");
        inside.look(Probe::Tcp { port, family }).await.unwrap();
        let (_listener, closed) = inside.listen("127.0.0.1:0").await;
        drop(_listener);
        let why = inside.look(Probe::Tcp { port: closed, family }).await.unwrap_err();
        let loopback = if family == CheckFamily::V4 { "127.0.0.1" } else { "[::1]" };
        assert!(why.starts_with(&format!("cannot connect to {loopback}:{closed}: ")), "{why}");
    }
    assert!(net::delete_link("calihealth").await.unwrap());
}

#[tokio::test]
async fn the_host_is_not_asked_in_place_of_the_task() {
    let inside = Inside::new().await;
    let outside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = outside.local_addr().unwrap().port();
    let before = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    inside.look(Probe::Tcp { port, family: CheckFamily::V4 }).await.unwrap_err();
    assert_eq!(std::fs::read_link("/proc/thread-self/ns/net").unwrap(), before);
    // A task on the host's network is looked at there.
    let host = Target { namespace: Some("/proc/self/ns/net".into()), ..inside.target() };
    let verdict = Checks::begin(check(Probe::Tcp { port, family: CheckFamily::V4 }), host).verdict().await;
    assert!(verdict.healthy, "{}", verdict.why);
}

fn command(script: &str) -> Probe {
    Probe::Command(CommandLine {
        program: "sh".into(),
        arguments: vec!["sh".into(), "-c".into(), script.into()],
        environment: [("B".to_owned(), "check".to_owned())].into(),
    })
}

#[tokio::test]
async fn a_command_runs_as_the_task_does() {
    let inside = Inside::new().await;
    inside
        .look(command("test $A = task && test $B = check && test $(id -u) = 65534 && test $PWD = /"))
        .await
        .unwrap();
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    inside
        .look(command(&format!("test $(readlink /proc/self/ns/net) != '{}'", own.display())))
        .await
        .unwrap();
    assert_eq!(inside.look(command("exit 7")).await.unwrap_err(), "the command exits with status 7");
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_with_its_children() {
    let inside = Inside::new().await;
    let mut check = check(command("sleep 1000 & trap '' TERM; sleep 1000"));
    check.timing.timeout = Some(Duration::from_millis(700));
    let verdict = Checks::begin(check, inside.target()).verdict().await;
    assert_eq!(verdict.why, "no answer within 0.7 s");
    within(Duration::from_secs(10), "no process is left", async || {
        let left = inside.namespace.processes();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn where_nobody_knows_the_task_nothing_is_said() {
    let inside = Inside::new().await;
    let nowhere = Target { namespace: None, ..inside.target() };
    let mut checks = Checks::begin(check(Probe::Tcp { port: 1, family: CheckFamily::V4 }), nowhere);
    let limit = Duration::from_millis(500);
    assert!(tokio::time::timeout(limit, checks.verdict()).await.is_err());
    // But a namespace that is gone is the task's end.
    let gone = Target { namespace: Some(inside.lab.path("gone")), ..inside.target() };
    let verdict = Checks::begin(check(Probe::Tcp { port: 1, family: CheckFamily::V4 }), gone).verdict().await;
    assert!(verdict.kill && verdict.why.contains("gone"), "{}", verdict.why);
}
