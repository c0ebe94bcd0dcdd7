//! RecordIO, the framing of an event stream: a decimal length, a line feed, so many bytes (pure).
//!
//! Where HTTP's chunks begin and end means nothing. An invalid length ends the stream: the beginning of the next record
//! is unknown then.

use bytes::{Buf, Bytes, BytesMut};

/// No event comes near it: the largest one carries the TaskInfos of a group.
pub const MAX_RECORD: usize = 64 << 20;
/// As many digits as that has.
const MAX_DIGITS: usize = 8;

/// The bytes of one record.
pub fn encode(record: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{}\n", record.len()).into_bytes();
    bytes.extend_from_slice(record);
    bytes
}

/// Why a stream is not a stream of records; it is given up then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordGarbage {
    #[error("a record's length that is not a decimal number")]
    Length,
    #[error("a record of more than {MAX_RECORD} bytes")]
    TooLong,
}

/// Cuts a stream of bytes into records.
#[derive(Debug, Default)]
pub struct RecordDecoder {
    buffer: BytesMut,
    /// The length of the record that has begun.
    length: Option<usize>,
}

impl RecordDecoder {
    /// Takes what has been read.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole record, or `None` until more bytes are there.
    pub fn next_record(&mut self) -> Result<Option<Bytes>, RecordGarbage> {
        let length = match self.length {
            Some(length) => length,
            None => match self.length()? {
                Some(length) => *self.length.insert(length),
                None => return Ok(None),
            },
        };
        if self.buffer.len() < length {
            return Ok(None);
        }
        self.length = None;
        let record = self.buffer.split_to(length).freeze();
        if self.buffer.is_empty() {
            // Nothing is kept for a stream that is silent for months.
            self.buffer = BytesMut::new();
        }
        Ok(Some(record))
    }

    /// Whether the stream may end here.
    pub fn is_idle(&self) -> bool {
        self.buffer.is_empty() && self.length.is_none()
    }

    fn length(&mut self) -> Result<Option<usize>, RecordGarbage> {
        let end = self.buffer.iter().position(|byte| *byte == b'\n');
        let digits = &self.buffer[..end.unwrap_or(self.buffer.len())];
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(RecordGarbage::Length);
        }
        if digits.len() > MAX_DIGITS {
            return Err(RecordGarbage::TooLong);
        }
        let Some(end) = end else { return Ok(None) };
        let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        let length: usize = number.ok_or(RecordGarbage::Length)?;
        if length > MAX_RECORD {
            return Err(RecordGarbage::TooLong);
        }
        self.buffer.advance(end + 1);
        Ok(Some(length))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds the bytes in pieces of the given sizes, over and over.
    fn decode(bytes: &[u8], pieces: &[usize]) -> Result<Vec<Bytes>, RecordGarbage> {
        let mut decoder = RecordDecoder::default();
        let mut records = Vec::new();
        let mut rest = bytes;
        for size in pieces.iter().cycle() {
            while let Some(record) = decoder.next_record()? {
                records.push(record);
            }
            if rest.is_empty() {
                break;
            }
            let (piece, left) = rest.split_at((*size).clamp(1, rest.len()));
            decoder.feed(piece);
            rest = left;
        }
        Ok(records)
    }

    proptest! {
        #[test]
        fn records_come_back_however_they_are_cut(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            pieces in prop::collection::vec(1..40usize, 1..8),
        ) {
            let bytes: Vec<u8> = records.iter().flat_map(|record| encode(record)).collect();
            prop_assert_eq!(decode(&bytes, &pieces).unwrap(), records);
        }

        #[test]
        fn garbage_is_an_error_or_waits_and_never_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            pieces in prop::collection::vec(1..40usize, 1..8),
        ) {
            // How the bytes were cut changes nothing about what they mean.
            prop_assert_eq!(decode(&bytes, &pieces), decode(&bytes, &[bytes.len().max(1)]));
        }
    }

    #[test]
    fn lengths_of_records_are_bounded() {
        for bad in ["x", "-1\n", "+1\n", " 1\n", "1 \n", "0x1\n", "1\r\n", "\n", "\u{661}\n"] {
            assert_eq!(decode(bad.as_bytes(), &[1]), Err(RecordGarbage::Length), "{bad:?}");
        }
        for long in ["99999999\n", "123456789", "000000001\nx"] {
            assert_eq!(decode(long.as_bytes(), &[3]), Err(RecordGarbage::TooLong), "{long:?}");
        }
        assert_eq!(decode(b"0\n2\nab", &[1]).unwrap(), [&b""[..], b"ab"]);
    }

    #[test]
    fn a_stream_may_end_between_records_only() {
        let mut decoder = RecordDecoder::default();
        decoder.feed(b"2\nab1");
        assert_eq!(decoder.next_record().unwrap().unwrap(), &b"ab"[..]);
        assert!(!decoder.is_idle());
        decoder.feed(b"\n");
        assert_eq!(decoder.next_record(), Ok(None));
        assert!(!decoder.is_idle());
        decoder.feed(b"c");
        assert_eq!(decoder.next_record().unwrap().unwrap(), &b"c"[..]);
        assert!(decoder.is_idle());
    }
}
