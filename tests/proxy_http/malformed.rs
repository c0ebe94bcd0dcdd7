//! Malformed and smuggled requests: each is refused, or reaches Docker as the one request that the proxy saw.

use super::kit::{Peer, Proxy};
use tokio::net::UnixStream;

const HOST: &str = "Host: docker\r\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// The client's answer, or nothing where the connection is closed without one.
async fn refusal(client: &mut Peer<UnixStream>) -> String {
    // The client sends no more: what is not whole is never.
    client.end().await;
    client.text().await
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let proxy = Proxy::start().await;
    let post = "POST /containers/create HTTP/1.1\r\n";
    let requests: [(&str, String); 21] = [
        ("two lengths", format!("{post}{HOST}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}x")),
        ("a list of lengths", format!("{post}{HOST}Content-Length: 2, 2\r\n\r\n{{}}")),
        ("a signed length", format!("{post}{HOST}Content-Length: +2\r\n\r\n{{}}")),
        ("a negative length", format!("{post}{HOST}Content-Length: -2\r\n\r\n{{}}")),
        ("a length beyond 64 bits", format!("{post}{HOST}Content-Length: 99999999999999999999\r\n\r\n{{}}")),
        ("a length in hexadecimal", format!("{post}{HOST}Content-Length: 0x2\r\n\r\n{{}}")),
        ("an unknown coding", format!("{post}{HOST}Transfer-Encoding: gzip\r\n\r\n{{}}")),
        ("chunked not last", format!("{post}{HOST}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n")),
        ("chunked in HTTP/1.0", "POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned()),
        ("a folded header", format!("{post}{HOST}X-A: b\r\n c\r\n\r\n")),
        ("a blank before the colon", format!("{post}{HOST}Content-Length : 2\r\n\r\n{{}}")),
        ("a NUL in a value", format!("{post}{HOST}X-A: b\0c\r\n\r\n")),
        ("a CR in a value", format!("{post}{HOST}X-A: b\rX-B: c\r\n\r\n")),
        ("a header without a colon", format!("{post}{HOST}X-A\r\n\r\n")),
        ("a header without a name", format!("{post}{HOST}: b\r\n\r\n")),
        ("a blank in the target", format!("POST /containers/create x HTTP/1.1\r\n{HOST}\r\n")),
        ("a control character in the target", format!("POST /a\x07b HTTP/1.1\r\n{HOST}\r\n")),
        ("no target", format!("POST  HTTP/1.1\r\n{HOST}\r\n")),
        ("HTTP/0.9", "GET /containers/json\r\n\r\n".to_owned()),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("TLS", "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03\r\n\r\n".to_owned()),
    ];
    for (what, request) in requests {
        let mut client = proxy.unix().await;
        client.send(&request).await;
        let answer = refusal(&mut client).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{what}: {answer}");
        assert!(proxy.docker_is_quiet().await, "{what}");
    }
}

#[tokio::test]
async fn a_body_in_broken_chunks_never_becomes_a_whole_one() {
    let proxy = Proxy::start().await;
    for chunks in
        ["x\r\n{}\r\n0\r\n\r\n", "2\r\n{}x\r\n0\r\n\r\n", "-1\r\n", "2\r\n{}\r\n", "fffffffffffffffff\r\n{}"]
    {
        let mut client = proxy.unix().await;
        client
            .send(format!("POST /build HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{chunks}"))
            .await;
        client.end().await;
        let mut docker = proxy.accept().await;
        // As much of it as was sent before the fault was seen.
        let body = docker.text().await;
        assert!(!body.contains("0\r\n\r\n"), "{chunks:?}: {body:?}");
        drop(docker);
        client.text().await;
    }
}

/// What follows in the connection is smuggled where two servers see different ends of a request.
#[tokio::test]
async fn what_is_a_request_reaches_docker_as_one() {
    let proxy = Proxy::start().await;
    let requests = [
        // Both lengths: the chunks count, as for Go, and the other header is gone.
        format!("POST /build HTTP/1.1\r\n{HOST}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("POST /build HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"),
        format!("POST /build HTTP/1.1\r\n{HOST}Content-Length: 2\r\nContent-Length: 2\r\n\r\n{{}}"),
        format!("POST /build HTTP/1.1\r\n{HOST}Transfer-Encoding: CHUNKED\r\n\r\n2;x=y\r\n{{}}\r\n0\r\nX-T: 1\r\n\r\n"),
        format!("POST /build HTTP/1.1\n{}\n", "Host: docker\n"),
        format!("\r\nGET /info HTTP/1.1\r\n{HOST}\r\n"),
        format!("GET /info HTTP/1.1\r\n{HOST}Content-Length: 2\r\n\r\n{{}}"),
        format!("GET http://evil.example/info HTTP/1.1\r\n{HOST}\r\n"),
        format!("OPTIONS * HTTP/1.1\r\n{HOST}\r\n"),
        format!("post /containers/create HTTP/1.1\r\n{HOST}Content-Length: 2\r\n\r\n{{}}"),
        "GET /info HTTP/1.1\r\n\r\n".to_owned(),
    ];
    for request in requests {
        let mut client = proxy.unix().await;
        client.send(format!("{request}GET /smuggled HTTP/1.1\r\nHost: docker\r\n\r\n")).await;
        let mut docker = proxy.accept().await;
        let head = docker.head().await;
        let lower = head.to_lowercase();
        assert!(!(lower.contains("content-length") && lower.contains("transfer-encoding")), "{head}");
        assert_eq!(
            lower.matches("content-length").count(),
            request.to_lowercase().matches("length: 2").count().min(1)
        );
        docker.send(ANSWER).await;
        client.head().await;
        let rest = docker.text().await;
        let body = request.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        match lower.contains("transfer-encoding") {
            true => assert!(rest.ends_with("0\r\n\r\n") && !rest.contains("GET"), "{rest}"),
            false => assert_eq!(rest, body),
        }
    }
}

#[tokio::test]
async fn a_connect_is_no_call_of_dockers() {
    let proxy = Proxy::start().await;
    let mut client = proxy.unix().await;
    client.send(format!("CONNECT docker:2375 HTTP/1.1\r\n{HOST}\r\n")).await;
    let answer = refusal(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    assert!(proxy.docker_is_quiet().await);
}
