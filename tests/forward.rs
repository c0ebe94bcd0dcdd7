//! Ports of the host that lead to tasks, with namespaces as another machine, tasks and the host itself.
//! To be run in a private network namespace, as `make test` does.

mod kit;

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use calico_mesos::names::ContainerId;
use calico_mesos::net::forward::{add, check, keep, remove, Forward, Mapping, PortHolder, Protocol};
use calico_mesos::net::local::{disable, enable, Local};
use calico_mesos::net::{self, netns, Namespace, NetError};
use futures_util::future::join_all;
use kit::netlab::{addresses, run, Lab};
use kit::wait::eventually;
use tokio_util::sync::CancellationToken;

const PORT: u16 = 31000;
/// For what is answered at once, or never.
const PATIENCE: Duration = Duration::from_secs(2);

struct Task {
    container: ContainerId,
    namespace: Namespace,
    local: Local,
}

impl Task {
    /// Lives behind its host, which forwards.
    async fn new(lab: &Lab, ips: &[&str]) -> Self {
        let container = ContainerId::random();
        let (namespace, _) = lab.container(&container.interface(), None).await;
        net::assign(&namespace, "eth0", &addresses(ips)).await.unwrap();
        let local = Local {
            link: container.interface(),
            addresses: addresses(ips),
            pools: vec!["10.66.0.0/16".parse().unwrap(), "fd66::/64".parse().unwrap()],
            state_dir: lab.path("local"),
        };
        enable(&local).await.unwrap();
        Self { container, namespace, local }
    }

    fn forward(&self, mappings: &[(Protocol, u16, u16)]) -> Forward {
        let mapping = |(protocol, host, task): &(Protocol, u16, u16)| Mapping {
            protocol: *protocol,
            host: *host,
            task: *task,
        };
        Forward {
            container: self.container.clone(),
            addresses: self.local.addresses.clone(),
            mappings: mappings.iter().map(mapping).collect(),
            loopback: false,
        }
    }

    async fn end(self) {
        net::delete_link(&self.local.link).await.unwrap();
        disable(&self.local).await.unwrap();
    }
}

/// Another machine on a wire of its own. It knows no way to the tasks.
async fn machine(lab: &Lab) -> Namespace {
    let (machine, _) = lab.container("wire0", None).await;
    run("ip", &["addr", "add", "10.77.0.1/24", "dev", "wire0"]);
    run("ip", &["-6", "addr", "add", "fd77::1/64", "dev", "wire0", "nodad"]);
    let enter = format!("--net={}", machine.path().display());
    for address in ["10.77.0.2/24", "fd77::2/64"] {
        run("nsenter", &[&enter, "ip", "addr", "add", address, "dev", "eth0"]);
    }
    machine
}

/// Answers everybody with `name` and the address he is seen with, over TCP and UDP.
async fn serve(namespace: &Namespace, name: &'static str, port: u16) {
    let sockets = netns::enter(namespace, move || {
        // Of both families.
        (TcpListener::bind(("::", port)).unwrap(), UdpSocket::bind(("::", port)).unwrap())
    });
    let (tcp, udp) = sockets.await.unwrap();
    let answer = move |peer: SocketAddr| format!("{name} sees {}", peer.ip().to_canonical());
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let text = answer(stream.peer_addr().unwrap());
            let _ = io::Write::write_all(&mut stream, text.as_bytes());
        }
    });
    std::thread::spawn(move || loop {
        let (_, peer) = udp.recv_from(&mut [0; 8]).unwrap();
        let _ = udp.send_to(answer(peer).as_bytes(), peer);
    });
}

/// Who answers there, and whom he sees.
fn ask(protocol: Protocol, address: &str, port: u16) -> io::Result<String> {
    let to = SocketAddr::new(address.parse().unwrap(), port);
    if protocol == Protocol::Tcp {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        return Ok(text);
    }
    let own: IpAddr = if to.is_ipv4() { "0.0.0.0" } else { "::" }.parse().unwrap();
    let socket = UdpSocket::bind((own, 0))?;
    socket.connect(to)?;
    ask_again(&socket)
}

fn ask_again(socket: &UdpSocket) -> io::Result<String> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"?")?;
    let mut text = [0; 64];
    let length = socket.recv(&mut text)?;
    Ok(String::from_utf8_lossy(&text[..length]).into_owned())
}

async fn ask_from(
    from: &Namespace,
    protocol: Protocol,
    address: &'static str,
    port: u16,
) -> io::Result<String> {
    netns::enter(from, move || ask(protocol, address, port)).await.unwrap()
}

async fn ask_here(protocol: Protocol, address: &'static str, port: u16) -> io::Result<String> {
    tokio::task::spawn_blocking(move || ask(protocol, address, port)).await.unwrap()
}

/// A masqueraded client has an address of the host; which, the kernel chooses.
fn is_the_hosts(answer: &str) {
    let address = answer.strip_prefix("task sees ").unwrap();
    let own = run("ip", &["-o", "addr"]).contains(&format!(" {address}/"));
    assert!(own && address != "127.0.0.1", "{answer}, which is no address of the host");
}

fn ruleset() -> String {
    run("nft", &["-s", "list", "ruleset"])
}

const BOTH: [(Protocol, u16, u16); 2] = [(Protocol::Tcp, PORT, 80), (Protocol::Udp, PORT, 80)];

/// A host of two tasks, and another machine: every way in works, and the client's address is kept wherever
/// it can be.
async fn every_way_in(lab: &Lab) {
    let machine = machine(lab).await;
    let task = Task::new(lab, &["10.66.0.1", "fd66::1"]).await;
    let neighbour = Task::new(lab, &["10.66.0.2", "fd66::2"]).await;
    serve(&task.namespace, "task", 80).await;
    let before = ruleset();
    add(&task.forward(&BOTH)).await.unwrap();
    let hosts = [["10.77.0.1", "10.77.0.2", "10.66.0.2"], ["fd77::1", "fd77::2", "fd66::2"]];
    for (protocol, _, _) in BOTH {
        for [host, machines, neighbours] in hosts {
            let seen = |who: &str| format!("task sees {who}");
            let answers = [
                (ask_from(&machine, protocol, host, PORT).await, machines),
                (ask_from(&neighbour.namespace, protocol, host, PORT).await, neighbours),
                (ask_here(protocol, host, PORT).await, host),
            ];
            for (answer, who) in answers {
                assert_eq!(
                    answer.unwrap_or_else(|error| panic!("{who}: {error}")),
                    seen(who),
                    "{protocol:?}"
                );
            }
            // It would throw away what comes from its own address.
            is_the_hosts(&ask_from(&task.namespace, protocol, host, PORT).await.unwrap());
        }
    }
    assert_eq!(remove(&task.container).await.unwrap(), 4);
    assert_eq!(ruleset(), before);
    assert_eq!(remove(&task.container).await.unwrap(), 0);
    for (protocol, _, _) in BOTH {
        let error = ask_here(protocol, "10.77.0.1", PORT).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{protocol:?}");
    }
    task.end().await;
    neighbour.end().await;
    net::delete_link("wire0").await.unwrap();
}

#[tokio::test]
async fn every_way_in_on_a_plain_host() {
    every_way_in(&Lab::new()).await;
}

#[tokio::test]
async fn every_way_in_where_docker_set_forward_to_drop() {
    let lab = Lab::new();
    for program in ["iptables-nft", "ip6tables-nft"] {
        run(program, &["-P", "FORWARD", "DROP"]);
    }
    every_way_in(&lab).await;
    run("nft", &["flush", "ruleset"]);
}

#[tokio::test]
async fn loopback_leads_to_the_task_where_its_interface_allows_that() {
    let lab = Lab::new();
    let _machine = machine(&lab).await;
    let task = Task::new(&lab, &["10.66.0.1", "fd66::1"]).await;
    serve(&task.namespace, "task", 80).await;
    let mut forward = task.forward(&BOTH);
    add(&forward).await.unwrap();
    for address in ["127.0.0.1", "::1"] {
        // Refused: lost packets would have the client wait.
        let error = ask_here(Protocol::Tcp, address, PORT).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{address}");
    }
    // As Felix does.
    let setting = format!("/proc/sys/net/ipv4/conf/{}/route_localnet", task.local.link);
    std::fs::write(setting, "1").unwrap();
    forward.loopback = true;
    add(&forward).await.unwrap();
    is_the_hosts(&ask_here(Protocol::Tcp, "127.0.0.1", PORT).await.unwrap());
    remove(&task.container).await.unwrap();
    task.end().await;
    net::delete_link("wire0").await.unwrap();
}

#[tokio::test]
async fn only_the_hosts_own_addresses_are_forwarded() {
    let lab = Lab::new();
    let machine = machine(&lab).await;
    let task = Task::new(&lab, &["10.66.0.1"]).await;
    serve(&machine, "machine", PORT).await;
    serve(&task.namespace, "task", PORT).await;
    add(&task.forward(&[(Protocol::Tcp, PORT, PORT)])).await.unwrap();
    assert_eq!(ask_here(Protocol::Tcp, "10.77.0.2", PORT).await.unwrap(), "machine sees 10.77.0.1");
    let by_task = ask_from(&task.namespace, Protocol::Tcp, "10.77.0.2", PORT).await.unwrap();
    assert_eq!(by_task, "machine sees 10.77.0.1");
    assert_eq!(ask_here(Protocol::Tcp, "10.77.0.1", PORT).await.unwrap(), "task sees 10.77.0.1");
    remove(&task.container).await.unwrap();
    task.end().await;
    net::delete_link("wire0").await.unwrap();
}

#[tokio::test]
async fn tasks_do_not_touch_each_others_ports() {
    let lab = Lab::new();
    let _machine = machine(&lab).await;
    let before = ruleset();
    let one = Task::new(&lab, &["10.66.0.1", "fd66::1"]).await;
    let two = Task::new(&lab, &["10.66.0.2"]).await;
    serve(&one.namespace, "one", 80).await;
    serve(&two.namespace, "two", 80).await;
    let alone = ruleset();
    let first = one.forward(&[(Protocol::Tcp, PORT, 80), (Protocol::Tcp, PORT + 1, 80)]);
    let second = two.forward(&[(Protocol::Tcp, PORT + 2, 80), (Protocol::Udp, PORT, 80)]);
    for _ in 0..5 {
        let (a, b) = tokio::join!(add(&first), add(&second));
        a.and(b).unwrap();
        assert_eq!(ask_here(Protocol::Tcp, "10.77.0.1", PORT + 1).await.unwrap(), "one sees 10.77.0.1");
        let (a, b) = tokio::join!(remove(&one.container), add(&second));
        assert_eq!(a.unwrap(), 4);
        b.unwrap();
        assert!(ask_here(Protocol::Tcp, "10.77.0.1", PORT).await.is_err());
        assert_eq!(ask_here(Protocol::Tcp, "10.77.0.1", PORT + 2).await.unwrap(), "two sees 10.77.0.1");
        assert_eq!(ask_here(Protocol::Udp, "10.77.0.1", PORT).await.unwrap(), "two sees 10.77.0.1");
    }
    // Other ports in place of these.
    add(&two.forward(&[(Protocol::Tcp, PORT + 3, 80)])).await.unwrap();
    assert!(ask_here(Protocol::Tcp, "10.77.0.1", PORT + 2).await.is_err());
    assert_eq!(ask_here(Protocol::Tcp, "10.77.0.1", PORT + 3).await.unwrap(), "two sees 10.77.0.1");
    assert_eq!(remove(&two.container).await.unwrap(), 1);
    assert_eq!(ruleset(), alone);
    one.end().await;
    two.end().await;
    assert_eq!(ruleset(), before);
    net::delete_link("wire0").await.unwrap();
}

/// Every one of them adds and removes its own ports while the others do: none is lost, and nothing is left.
#[tokio::test]
async fn many_tasks_at_once() {
    const TASKS: u8 = 40;
    let lab = Lab::new();
    let _machine = machine(&lab).await;
    let before = ruleset();
    let forwards: Vec<Forward> = (0..TASKS)
        .map(|number| Forward {
            container: ContainerId::random(),
            addresses: addresses(&[&format!("10.66.1.{number}"), &format!("fd66::1:{number}")]),
            mappings: vec![Mapping { protocol: Protocol::Tcp, host: PORT + u16::from(number), task: 80 }],
            loopback: false,
        })
        .collect();
    for _ in 0..2 {
        for added in join_all(forwards.iter().map(add)).await {
            added.unwrap();
        }
        let rules = ruleset();
        for number in 0..TASKS {
            let element = format!("tcp . {} ", PORT + u16::from(number));
            assert_eq!(rules.matches(&element).count(), 2, "{element} in\n{rules}");
        }
        let containers = forwards.iter().map(|forward| &forward.container);
        for removed in join_all(containers.map(remove)).await {
            assert_eq!(removed.unwrap(), 2);
        }
        assert_eq!(ruleset(), before);
    }
    net::delete_link("wire0").await.unwrap();
}

fn holder(result: Result<(), NetError>) -> (PortHolder, String) {
    match result {
        Err(NetError::PortTaken(taken)) => (taken.holder.clone(), taken.to_string()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_port_of_a_living_task_is_refused_and_a_dead_ones_taken_over() {
    let lab = Lab::new();
    let _machine = machine(&lab).await;
    let one = Task::new(&lab, &["10.66.0.1"]).await;
    let two = Task::new(&lab, &["10.66.0.2"]).await;
    serve(&two.namespace, "two", 80).await;
    let (first, second) = (one.forward(&BOTH), two.forward(&BOTH[..1]));
    check(&one.container, &first.mappings).await.unwrap();
    add(&first).await.unwrap();
    check(&one.container, &first.mappings).await.unwrap();
    let added = add(&second).await;
    for refused in [check(&two.container, &second.mappings).await, added] {
        let (holder, text) = holder(refused);
        assert_eq!(holder, PortHolder::Task(one.container.clone()));
        assert!(text.contains("31000/tcp") && text.contains(one.container.as_str()), "{text}");
    }
    // Killed with everything that could have cleaned up.
    net::delete_link(&one.local.link).await.unwrap();
    check(&two.container, &second.mappings).await.unwrap();
    add(&second).await.unwrap();
    assert_eq!(ask_here(Protocol::Tcp, "10.77.0.1", PORT).await.unwrap(), "two sees 10.77.0.1");
    // Its address was given back, and is another's now.
    let three = Task::new(&lab, &["10.66.0.1"]).await;
    add(&three.forward(&[(Protocol::Tcp, PORT + 1, 80)])).await.unwrap();
    // The late cleaner of the dead one takes what is left of its own.
    assert_eq!(remove(&one.container).await.unwrap(), 1);
    assert_eq!(ask_here(Protocol::Tcp, "10.77.0.1", PORT).await.unwrap(), "two sees 10.77.0.1");
    assert_eq!(remove(&two.container).await.unwrap(), 1);
    assert_eq!(remove(&three.container).await.unwrap(), 1);
    disable(&one.local).await.unwrap();
    two.end().await;
    three.end().await;
    net::delete_link("wire0").await.unwrap();
}

#[tokio::test]
async fn a_port_that_somebody_listens_on_is_refused_by_name() {
    let _lab = Lab::new();
    let container = ContainerId::random();
    let udp = UdpSocket::bind(("127.0.0.1", PORT)).unwrap();
    let mapping = |protocol| [Mapping { protocol, host: PORT, task: 80 }];
    check(&container, &mapping(Protocol::Tcp)).await.unwrap();
    let (found, text) = holder(check(&container, &mapping(Protocol::Udp)).await);
    let PortHolder::Listener(listener) = found else { panic!("{found:?}") };
    assert_eq!(listener.process.unwrap().0, i32::try_from(std::process::id()).unwrap());
    assert!(text.contains("31000/udp") && text.contains(&std::process::id().to_string()), "{text}");
    drop(udp);
    check(&container, &mapping(Protocol::Udp)).await.unwrap();
}

/// One sender, one socket, all the time: the kernel would keep it where its first packet went.
#[tokio::test]
async fn a_steady_udp_sender_follows_the_port() {
    let lab = Lab::new();
    let machine = machine(&lab).await;
    let one = Task::new(&lab, &["10.66.0.1"]).await;
    let two = Task::new(&lab, &["10.66.0.2"]).await;
    serve(&one.namespace, "one", 80).await;
    serve(&two.namespace, "two", 80).await;
    let sender = netns::enter(&machine, || {
        let socket = UdpSocket::bind("10.77.0.2:0").unwrap();
        socket.connect(("10.77.0.1", PORT)).unwrap();
        socket
    });
    let sender = std::sync::Arc::new(sender.await.unwrap());
    let send = || {
        let sender = sender.clone();
        async move { tokio::task::spawn_blocking(move || ask_again(&sender)).await.unwrap() }
    };
    assert_eq!(send().await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    for (task, name) in [(&one, "one"), (&two, "two")] {
        add(&task.forward(&BOTH)).await.unwrap();
        assert_eq!(send().await.unwrap(), format!("{name} sees 10.77.0.2"));
        remove(&task.container).await.unwrap();
        assert_eq!(send().await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
    one.end().await;
    two.end().await;
    net::delete_link("wire0").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reset_of_the_hosts_firewall_is_mended() {
    let lab = Lab::new();
    let one = Task::new(&lab, &["10.66.0.1"]).await;
    let two = Task::new(&lab, &["10.66.0.2"]).await;
    let (first, second) = (one.forward(&BOTH), two.forward(&[(Protocol::Tcp, PORT + 1, 80)]));
    add(&first).await.unwrap();
    add(&second).await.unwrap();
    let stop = CancellationToken::new();
    let keepers = [first, second].map(|forward| tokio::spawn(keep(forward, stop.clone())));
    run("nft", &["flush", "ruleset"]);
    eventually("both ports are forwarded again", async || {
        let rules = ruleset();
        let forwards = |port: &u16| rules.contains(&format!("tcp . {port} "));
        if [PORT, PORT + 1].iter().all(forwards) {
            Ok(())
        } else {
            Err(rules)
        }
    })
    .await;
    stop.cancel();
    for keeper in keepers {
        keeper.await.unwrap();
    }
    remove(&one.container).await.unwrap();
    remove(&two.container).await.unwrap();
    assert!(!ruleset().contains("calico-mesos-ports"));
    one.end().await;
    two.end().await;
}
