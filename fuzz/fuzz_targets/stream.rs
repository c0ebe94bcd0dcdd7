//! What a peer sends, in pieces of any length: HTTP of libprocess, and records of version 1.
#![no_main]

use calico_mesos::mesos::http::recordio;
use calico_mesos::mesos::libprocess::framing;
use calico_mesos::mesos::messages::{Event, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((size, bytes)) = data.split_first() else { return };
    let size = usize::from(*size).max(1);
    let mut requests = framing::Decoder::default();
    for piece in bytes.chunks(size) {
        requests.buffer.extend_from_slice(piece);
        while let Ok(Some(request)) = requests.next_request() {
            assert!(request.body.len() <= bytes.len());
            let _ = request.for_actor("executor(1)");
        }
    }
    let mut records = recordio::Decoder::default();
    for piece in bytes.chunks(size) {
        records.feed(piece);
        while let Ok(Some(record)) = records.next_record() {
            let _ = Event::decode(record);
        }
    }
});
