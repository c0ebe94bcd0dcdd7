//! Docker's multiplexed output: frames of an eight-byte header (stream, three zeros, big-endian length)
//! and the payload.

use bytes::{Buf, Bytes, BytesMut};

/// Longer frames do not exist (dockerd copies by 32 KiB; a log line split by the json-file driver has
/// 16 KiB): a sender of one is not Docker, and must not make us allocate gigabytes.
const MAX_FRAME: usize = 16 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StdStream {
    Out,
    Err,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream is not in Docker's format")]
pub(super) struct BadFrame;

/// Collects bytes and gives back whole frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    buffer: BytesMut,
}

impl Frames {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame that is there as a whole.
    pub(super) fn take(&mut self) -> Result<Option<(StdStream, Bytes)>, BadFrame> {
        let Some((header, _)) = self.buffer.split_first_chunk::<8>() else { return Ok(None) };
        let stream = match header {
            // 0 is stdin, which the Engine uses for output of stdin-less streams; the CLI prints it as output.
            [0 | 1, 0, 0, 0, ..] => StdStream::Out,
            // 3 is the daemon's own error in the middle of a stream.
            [2 | 3, 0, 0, 0, ..] => StdStream::Err,
            _ => return Err(BadFrame),
        };
        let [.., a, b, c, d] = *header;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).map_err(|_| BadFrame)?;
        if length > MAX_FRAME {
            return Err(BadFrame);
        }
        if self.buffer.len() < 8 + length {
            return Ok(None);
        }
        self.buffer.advance(8);
        let payload = self.buffer.split_to(length).freeze();
        if self.buffer.is_empty() {
            // Lets the memory of a burst go: the executor lives for months.
            self.buffer = BytesMut::new();
        }
        Ok(Some((stream, payload)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![stream, 0, 0, 0];
        frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    }

    proptest! {
        #[test]
        fn frames_are_read_however_the_bytes_are_cut(
            frames in proptest::collection::vec((1u8..=2, proptest::collection::vec(any::<u8>(), 0..50)), 0..20),
            cut in 1usize..30,
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(stream, payload)| frame(*stream, payload)).collect();
            let mut decoder = Frames::default();
            let mut seen = Vec::new();
            for piece in bytes.chunks(cut) {
                decoder.push(piece);
                while let Some((stream, payload)) = decoder.take().unwrap() {
                    seen.push((if stream == StdStream::Out { 1 } else { 2 }, payload.to_vec()));
                }
            }
            prop_assert_eq!(seen, frames);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Frames::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.take() {}
        }
    }

    #[test]
    fn a_terminal_or_an_absurd_length_is_refused() {
        let mut decoder = Frames::default();
        decoder.push(b"plain text\n");
        assert_eq!(decoder.take(), Err(BadFrame));
        let mut decoder = Frames::default();
        decoder.push(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(decoder.take(), Err(BadFrame));
    }
}
