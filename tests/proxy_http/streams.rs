//! Connections that become streams of raw bytes.

use super::kit::Proxy;

const UPGRADED: &str = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\
                        Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
const RAW: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n";

#[tokio::test]
async fn an_upgraded_stream_passes_both_ways_with_what_comes_early() {
    let proxy = Proxy::start().await;
    for tcp in [true, false] {
        let request = "POST /containers/web/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
                       Upgrade: tcp\r\nContent-Length: 0\r\n\r\n";
        let (mut over_tcp, mut over_unix) = (proxy.tcp().await, proxy.unix().await);
        match tcp {
            true => over_tcp.send(format!("{request}early")).await,
            false => over_unix.send(format!("{request}early")).await,
        }
        let mut docker = proxy.accept().await;
        let head = docker.head().await;
        assert!(
            head.contains("\r\nUpgrade: tcp\r\n") && head.contains("\r\nConnection: Upgrade\r\n"),
            "{head}"
        );
        docker.send(format!("{UPGRADED}prompt")).await;
        docker.expects("early").await;
        let answer = match tcp {
            true => over_tcp.exactly(UPGRADED.len() + 6).await,
            false => over_unix.exactly(UPGRADED.len() + 6).await,
        };
        assert_eq!(String::from_utf8_lossy(&answer), format!("{UPGRADED}prompt"));
    }
}

#[tokio::test]
async fn one_side_may_end_before_the_other() {
    let proxy = Proxy::start().await;
    for upgrade in ["Connection: Upgrade\r\nUpgrade: tcp\r\n", ""] {
        let mut client = proxy.tcp().await;
        client
            .send(format!("POST /v1.41/containers/web/attach HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n"))
            .await;
        let mut docker = proxy.accept().await;
        docker.head().await;
        docker.send(UPGRADED).await;
        client.head().await;
        // The input ends, as of `docker run -i < file`; output goes on.
        client.send("input").await;
        client.end().await;
        assert_eq!(docker.text().await, "input");
        docker.send("output").await;
        client.expects("output").await;
        drop(docker);
        assert_eq!(client.text().await, "");

        let mut client = proxy.unix().await;
        client.send(format!("POST /exec/e/start HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n")).await;
        let mut docker = proxy.accept().await;
        docker.head().await;
        docker.send(format!("{UPGRADED}output")).await;
        docker.end().await;
        client.head().await;
        assert_eq!(client.text().await, "output");
        client.send("input").await;
        client.end().await;
        assert_eq!(docker.text().await, "input");
    }
}

#[tokio::test]
async fn bytes_after_101_are_never_read() {
    let proxy = Proxy::start().await;
    for path in ["/session", "/grpc"] {
        let mut client = proxy.unix().await;
        client
            .send(format!(
                "POST {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nX-A: b\r\n\r\n"
            ))
            .await;
        let mut docker = proxy.accept().await;
        assert!(docker.head().await.contains("\r\nUpgrade: h2c\r\n"));
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
        docker.send(answer).await;
        client.expects(answer).await;
        // HTTP/2, and what would be a request that the proxy looks into.
        let bytes =
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0POST /containers/create HTTP/1.1\r\n\r\n";
        client.send(bytes).await;
        docker.expects(bytes).await;
        docker.send(bytes).await;
        client.expects(bytes).await;
    }
}

#[tokio::test]
async fn a_stream_without_upgrade_is_taken_out_of_the_http_server() {
    let proxy = Proxy::start().await;
    let mut client = proxy.tcp().await;
    client
        .send(
            "POST /exec/e/start HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n\
             {\"Tty\":   true}early",
        )
        .await;
    let mut docker = proxy.accept().await;
    let head = docker.head().await;
    assert!(head.contains("onnection: Upgrade\r\n") && head.contains("pgrade: tcp\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Length: 15\r\n"), "{head}");
    docker.expects("{\"Tty\":   true}").await;
    docker.send(format!("{UPGRADED}prompt")).await;
    client.expects(&format!("{RAW}prompt")).await;
    docker.expects("early").await;
    client.send("exit\n").await;
    docker.expects("exit\n").await;
    drop(docker);
    assert_eq!(client.text().await, "");
}

#[tokio::test]
async fn headers_of_a_stream_are_kept_and_bodies_in_chunks_read() {
    let proxy = Proxy::start().await;
    let mut client = proxy.unix().await;
    client
        .send("POST /exec/e/start HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
        .await;
    let mut docker = proxy.accept().await;
    let head = docker.head().await.to_lowercase();
    assert!(head.contains("content-length: 2\r\n") && !head.contains("chunked"), "{head}");
    docker.expects("{}").await;
    docker
        .send(
            "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\n\
             Upgrade: tcp\r\nApi-Version: 1.44\r\n\r\n",
        )
        .await;
    let head = client.head().await;
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n"),
        "{head}"
    );
    assert!(head.to_lowercase().contains("\r\napi-version: 1.44\r\n"), "{head}");
}

#[tokio::test]
async fn a_stream_that_docker_refuses_is_an_answer_as_any_other() {
    let proxy = Proxy::start().await;
    let mut client = proxy.unix().await;
    for path in ["/containers/gone/attach", "/exec/e/start"] {
        client.send(format!("POST {path} HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")).await;
        let mut docker = proxy.accept().await;
        docker.head().await;
        let answer = "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"message\":\"\"}";
        docker.send(answer).await;
        client.expects(answer).await;
    }
    // A detached exec is no stream.
    client
        .send("POST /exec/e/start HTTP/1.1\r\nHost: d\r\nContent-Length: 15\r\n\r\n{\"Detach\":true}")
        .await;
    let mut docker = proxy.accept().await;
    docker.head().await;
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    docker.send(answer).await;
    client.expects(answer).await;
}

#[tokio::test]
async fn a_thousand_streams_take_little_memory() {
    use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let proxy = Proxy::start().await;
    let mut held = Vec::new();
    for number in 0..1000 {
        let mut client = proxy.unix().await;
        // Half of them attached, half of them reading an answer without an end.
        let (call, answer) = match number % 2 {
            0 => ("POST /containers/web/attach", UPGRADED),
            _ => ("GET /events", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        };
        client.send(format!("{call} HTTP/1.1\r\nHost: d\r\n\r\n")).await;
        let mut docker = proxy.accept().await;
        docker.head().await;
        docker.send(answer).await;
        client.head().await;
        docker.send("5\r\nevent\r\n").await;
        client.expects("5\r\nevent\r\n").await;
        held.push((client, docker));
    }
    let memory = proxy.memory();
    eprintln!("{memory} KiB with {} streams", held.len());
    // Of a build without optimisation.
    assert!(memory < 96 << 10, "{memory} KiB");
}
