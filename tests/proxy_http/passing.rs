//! Requests and answers, whole and unchanged.

use nix::sys::signal::Signal;
use std::time::Duration;

use super::kit::{soon, Proxy};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";

#[tokio::test]
async fn target_header_names_values_and_body_do_not_differ() {
    let proxy = Proxy::start().await;
    let requests = [
        "GET /v1.41/containers/json?all=1&filters=%7B%22label%22%3A%5B%22a%2Bb%22%5D%7D HTTP/1.1\r\nHost: docker\r\n\
         User-Agent: Docker-Client/28.2.2 (linux)\r\nX-Odd_name: a  b\t c\r\nX-Twice: 1\r\nX-Twice: 2\r\n\r\n",
        "POST /v1.41/containers/create?name=web HTTP/1.1\r\nHost: api.moby.localhost\r\nContent-Type: application/json\r\n\
         Content-Length: 28\r\nx-lower: y\r\n\r\n{ \"Image\":\"busybox\" , \"a\":1}",
        "POST /session%2fx/%7e HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\n\r\n",
        "DELETE /containers/web?force=1 HTTP/1.1\r\nHost: docker\r\nX-Empty:\r\nX-Latin: caf\u{e9}\r\n\r\n",
        "PUT /containers/web/archive?path=/ HTTP/1.1\r\nHost:\r\nContent-Length: 3\r\n\r\n\0\r\n",
        "GET http://docker/info HTTP/1.1\r\nHost: docker\r\n\r\n",
    ];
    for request in requests {
        let mut client = proxy.unix().await;
        client.send(request).await;
        let mut docker = proxy.accept().await;
        docker.answered(request).await;
        docker.send(OK).await;
        client.expects(OK).await;
    }
}

#[tokio::test]
async fn chunked_bodies_pass_both_ways() {
    let proxy = Proxy::start().await;
    let mut client = proxy.tcp().await;
    client
        .send("POST /build HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .await;
    let mut docker = proxy.accept().await;
    let head = docker.head().await;
    assert!(head.contains("\r\nTransfer-Encoding: chunked\r\n"), "{head}");
    docker.expects("3\r\nabc\r\n").await;
    docker.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n").await;
    let head = client.head().await;
    assert_eq!(head, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.expects("4\r\nfour\r\n").await;
    // Both go on in turn.
    client.send("2\r\nde\r\n").await;
    docker.expects("2\r\nde\r\n").await;
    docker.send("1\r\n!\r\n").await;
    client.expects("1\r\n!\r\n").await;
    client.send("0\r\n\r\n").await;
    docker.expects("0\r\n\r\n").await;
    docker.send("0\r\n\r\n").await;
    client.expects("0\r\n\r\n").await;
}

#[tokio::test]
async fn requests_are_pipelined_and_connections_kept() {
    let proxy = Proxy::start().await;
    let mut client = proxy.unix().await;
    client.send("GET /a HTTP/1.1\r\nHost: d\r\n\r\nGET /b HTTP/1.1\r\nHost: d\r\n\r\n").await;
    for path in ["/a", "/b", "/c"] {
        let mut docker = proxy.accept().await;
        assert!(docker.head().await.starts_with(&format!("GET {path} HTTP/1.1\r\n")));
        docker.send(OK).await;
        client.expects(OK).await;
        if path == "/b" {
            client.send("GET /c HTTP/1.1\r\nHost: d\r\n\r\n").await;
        }
    }
}

#[tokio::test]
async fn the_head_of_an_answer_passes_at_once() {
    let proxy = Proxy::start().await;
    let mut client = proxy.tcp().await;
    client.send("POST /containers/web/wait?condition=next-exit HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut docker = proxy.accept().await;
    docker.head().await;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    docker.send(head).await;
    client.expects(head).await;
    let body = "11\r\n{\"StatusCode\": 0}\r\n0\r\n\r\n";
    docker.send(body).await;
    client.expects(body).await;
}

#[tokio::test]
async fn header_sections_of_1_mb_and_1000_headers_pass() {
    let proxy = Proxy::start().await;
    let large = "x".repeat(1_000_000);
    let many: String = (0..998).map(|number| format!("X-{number}: {number}\r\n")).collect();
    for headers in [format!("X-Large: {large}\r\n"), many] {
        let mut client = proxy.unix().await;
        client.send(format!("GET /info HTTP/1.1\r\nHost: docker\r\n{headers}\r\n")).await;
        let mut docker = proxy.accept().await;
        let head = docker.head().await;
        assert!(head.ends_with(&format!("\r\n{headers}\r\n")), "{} bytes", head.len());
        docker.send(format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 0\r\n\r\n")).await;
        let head = client.head().await;
        assert!(head.contains(&headers), "{} bytes", head.len());
    }
}

#[tokio::test]
async fn errors_of_docker_are_unchanged() {
    let proxy = Proxy::start().await;
    let body = "{\"message\":\"No such container: web\"}\n";
    let refused = format!(
        "HTTP/1.1 404 Not here\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\nDocker-Experimental: false\r\n\
         Server: Docker/20.10.24 (linux)\r\nDate: Mon, 23 Nov 2026 19:02:11 GMT\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for answer in [
        &refused,
        "HTTP/1.1 304 Not Modified\r\nApi-Version: 1.41\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nServer: Docker\r\n\r\n",
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    ] {
        let mut client = proxy.unix().await;
        client.send("POST /containers/web/start HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\n\r\n").await;
        let mut docker = proxy.accept().await;
        docker.head().await;
        docker.send(answer).await;
        client.expects(answer).await;
    }
    let mut client = proxy.unix().await;
    client.send("HEAD /_ping HTTP/1.1\r\nHost: docker\r\n\r\nGET /x HTTP/1.1\r\nHost: docker\r\n\r\n").await;
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nPragma: no-cache\r\n\r\n";
    proxy.answers(answer).await;
    client.expects(answer).await;
}

#[tokio::test]
async fn a_docker_that_is_away_is_an_error_of_dockers_kind() {
    let mut proxy = Proxy::start().await;
    proxy.docker_dies();
    let mut client = proxy.tcp().await;
    for _ in 0..2 {
        client.send("GET /info HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let head = client.head().await.to_lowercase();
        assert!(
            head.starts_with("http/1.1 503 ") && head.contains("content-type: application/json"),
            "{head}"
        );
        let body = client.until("\n").await;
        let message = "{\"message\":\"Cannot connect to the Docker daemon at unix://";
        assert!(body.starts_with(message) && body.ends_with("Is the docker daemon running?\"}\n"), "{body}");
    }
}

#[tokio::test]
async fn a_docker_that_dies_before_or_within_an_answer_is_noticed() {
    let proxy = Proxy::start().await;
    let mut client = proxy.unix().await;
    client.send("GET /info HTTP/1.1\r\nHost: docker\r\n\r\n").await;
    proxy.answers("").await;
    assert!(client.head().await.starts_with("HTTP/1.1 503 "));
    let mut client = proxy.unix().await;
    client.send("GET /events HTTP/1.1\r\nHost: docker\r\n\r\n").await;
    let mut docker = proxy.accept().await;
    docker.head().await;
    docker.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n").await;
    drop(docker);
    // Without the last chunk: the client sees that something is missing.
    assert!(client.text().await.ends_with("\r\n\r\n2\r\n{}\r\n"));
}

#[tokio::test]
async fn a_client_of_http_1_0_is_answered() {
    let proxy = Proxy::start().await;
    let mut client = proxy.unix().await;
    client.send("GET /_ping HTTP/1.0\r\n\r\n").await;
    let mut docker = proxy.accept().await;
    assert_eq!(docker.head().await, "GET /_ping HTTP/1.0\r\n\r\n");
    docker.send("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nOK").await;
    drop(docker);
    let answer = client.text().await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\nOK"), "{answer}");
}

/// What takes 10 s is how long a client may take for a head.
#[tokio::test]
async fn only_the_reading_of_a_head_is_limited_in_time() {
    let proxy = Proxy::start().await;
    let (mut idle, mut kept, mut slow, mut streaming) =
        (proxy.unix().await, proxy.unix().await, proxy.tcp().await, proxy.unix().await);
    kept.send("GET /a HTTP/1.1\r\nHost: d\r\n\r\n").await;
    proxy.answers(OK).await;
    kept.expects(OK).await;
    streaming.send("GET /events HTTP/1.1\r\nHost: d\r\n\r\n").await;
    let mut events = proxy.accept().await;
    events.head().await;
    events.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    streaming.head().await;
    slow.send("GET /events HTTP/1.1\r\nHo").await;
    assert_eq!(slow.text().await, "");
    for client in [&mut idle, &mut kept] {
        client.send("GET /b HTTP/1.1\r\nHost: d\r\n\r\n").await;
        proxy.answers(OK).await;
        client.expects(OK).await;
    }
    events.send("2\r\n{}\r\n").await;
    streaming.expects("2\r\n{}\r\n").await;
}

#[tokio::test]
async fn a_hangup_changes_nothing() {
    let mut proxy = Proxy::start().await;
    proxy.signal(Signal::SIGHUP);
    soon(tokio::time::sleep(Duration::from_millis(100))).await;
    assert!(proxy.is_running());
}
