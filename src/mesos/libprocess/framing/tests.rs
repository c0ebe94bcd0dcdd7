//! Framing: what is written is read back, whatever way it is cut; garbage never panics.

use proptest::prelude::*;

use super::*;

fn upid(text: &str) -> Upid {
    text.parse().unwrap()
}

fn all(decoder: &mut Decoder) -> Vec<ActorRequest> {
    std::iter::from_fn(|| decoder.next_request().unwrap()).collect()
}

fn decode(bytes: &[u8]) -> Vec<ActorRequest> {
    let mut decoder = Decoder::default();
    decoder.buffer.extend_from_slice(bytes);
    let requests = all(&mut decoder);
    assert!(decoder.is_idle());
    requests
}

#[test]
fn an_empty_body_has_no_length() {
    let bytes = encode(&upid("slave(1)@127.0.0.1:5051"), &upid("executor(1)@127.0.0.1:38705"), "a.B", b"");
    assert_eq!(
        String::from_utf8(bytes.clone()).unwrap(),
        "POST /executor(1)/a.B HTTP/1.1\r\nUser-Agent: libprocess/slave(1)@127.0.0.1:5051\r\n\
         Libprocess-From: slave(1)@127.0.0.1:5051\r\nConnection: Keep-Alive\r\nHost: 127.0.0.1:38705\r\n\r\n"
    );
    let incoming = decode(&bytes).remove(0).for_actor("executor(1)").unwrap();
    assert_eq!((incoming.name.as_str(), incoming.body.len()), ("a.B", 0));
}

#[test]
fn other_ways_to_write_a_request() {
    let requests = decode(
        b"POST /executor%281%29/m?x=1 HTTP/1.1\r\nuser-agent: libprocess/a@1.2.3.4:5\r\nContent-Length: 3\r\n\r\nabc\
          POST /executor(1)/n HTTP/1.1\r\nLibprocess-From: a@1.2.3.4:5\r\nTransfer-Encoding: chunked\r\n\r\n\
          2;x=y\r\nab\r\n1\r\nc\r\n0\r\nTrailer: x\r\n\r\n",
    );
    let messages: Vec<_> =
        requests.into_iter().map(|request| request.for_actor("executor(1)").unwrap()).collect();
    assert!(messages.iter().all(|message| message.body == b"abc" && message.from.is_some()));
    assert_eq!((messages[0].name.as_str(), messages[1].name.as_str()), ("m", "n"));
}

#[test]
fn requests_that_are_not_messages_are_refused() {
    let request = |bytes: &[u8]| decode(bytes).remove(0).for_actor("executor(1)");
    assert!(request(b"GET /executor(1)/m HTTP/1.1\r\nLibprocess-From: a@1.2.3.4:5\r\n\r\n").is_none());
    assert!(request(b"POST /executor(1)/m HTTP/1.1\r\n\r\n").is_none());
    assert!(request(b"POST /other/m HTTP/1.1\r\nLibprocess-From: a@1.2.3.4:5\r\n\r\n").is_none());
}

#[test]
fn garbage_is_distinguished_from_an_unfinished_request() {
    let error = |bytes: &[u8]| {
        let mut decoder = Decoder::default();
        decoder.buffer.extend_from_slice(bytes);
        decoder.next_request().unwrap_err()
    };
    assert_eq!(error(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), Garbage::Head);
    assert_eq!(error(b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"), Garbage::Length);
    assert_eq!(error(b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n"), Garbage::BodyTooLong);
    assert_eq!(
        error(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n"),
        Garbage::BodyTooLong
    );
    assert_eq!(error(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\n"), Garbage::Length);
    let long = [b"POST /".as_slice(), &vec![b'a'; MAX_HEAD + 1]].concat();
    assert_eq!(error(&long), Garbage::HeadTooLong);
}

proptest! {
    #[test]
    fn every_written_request_is_read_back(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..5),
        cuts in prop::collection::vec(1usize..200, 1..20),
    ) {
        let (from, to) = (upid("slave(1)@127.0.0.1:5051"), upid("executor(1)@127.0.0.1:38705"));
        let stream: Vec<u8> = bodies.iter().flat_map(|body| encode(&from, &to, "m", body)).collect();
        let (mut decoder, mut read, mut rest) = (Decoder::default(), Vec::new(), stream.as_slice());
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            decoder.buffer.extend_from_slice(now);
            read.extend(all(&mut decoder));
            rest = later;
        }
        let read: Vec<_> = read.into_iter().map(|request| request.for_actor("executor(1)").unwrap().body).collect();
        prop_assert_eq!(read, bodies);
    }

    #[test]
    fn garbage_never_panics(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..8)) {
        let mut decoder = Decoder::default();
        for piece in pieces {
            decoder.buffer.extend_from_slice(&piece);
            while let Ok(Some(_)) = decoder.next_request() {}
        }
    }

    #[test]
    fn half_right_requests_never_panic(
        length in "(Content-Length: [0-9]{1,20}|Transfer-Encoding: chunked|X: y)",
        path in "[!-~]{0,40}",
        rest in "[0-9a-f\r\n;]{0,60}",
    ) {
        let mut decoder = Decoder::default();
        decoder.buffer.extend_from_slice(format!("POST /{path} HTTP/1.1\r\n{length}\r\n\r\n{rest}").as_bytes());
        while let Ok(Some(_)) = decoder.next_request() {}
    }
}
