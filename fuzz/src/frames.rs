//! Frames as they come on a stream, and what commands and the client's proxy say to each other in them.

use ciborium::Value;
use mirrord_cli::proxy::control::{self, Answer, Question};
use mirrord_protocol::{
    frame::{self, FrameError, PREFIX_BYTES, Prefix},
    limits::{HEADER_BYTES, TAIL_BYTES},
};
use serde::{Serialize, de::DeserializeOwned};

/// Reads a stream, frame by frame. What is read and written again is read as the same.
pub fn frames(data: &[u8]) {
    conversation::<Question>(data);
    conversation::<Answer>(data);
    let mut stream = data;
    while let Some((prefix, rest)) = stream.split_first_chunk() {
        let Some((header, tail, next)) = take(*prefix, rest) else { return };
        if let Ok(value) = frame::decode::<Value>(header) {
            unchanged(&value, tail);
        }
        stream = next;
    }
}

/// The parts of the frame that begins with these lengths, and what follows it.
fn take(prefix: [u8; PREFIX_BYTES], rest: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let [header, tail] = [&prefix[..4], &prefix[4..]]
        .map(|length| length.iter().fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte)));
    match Prefix::parse(prefix) {
        Ok(parsed) => {
            assert_eq!((parsed.header, parsed.tail), (header, tail));
            assert!(header <= HEADER_BYTES && tail <= TAIL_BYTES);
            let (body, next) = rest.split_at_checked(parsed.body())?;
            let (header, tail) = body.split_at(parsed.header);
            Some((header, tail, next))
        }
        Err(error) => {
            assert!(matches!(error, FrameError::TooLong { .. }), "{error}");
            assert!(header > HEADER_BYTES || tail > TAIL_BYTES);
            None
        }
    }
}

/// Compared as bytes: not every number equals itself.
fn unchanged(value: &Value, tail: &[u8]) {
    let bytes = frame::encode_with_tail(value, tail).expect("what was read can be written");
    let (prefix, body) = bytes.split_first_chunk().expect("lengths");
    let (header, same_tail, rest) = take(*prefix, body).expect("a whole frame");
    assert_eq!((same_tail, rest), (tail, &[][..]));
    let again: Value = frame::decode(header).expect("what was written can be read");
    assert_eq!(frame::encode_with_tail(&again, tail), Ok(bytes));
}

fn conversation<T: Serialize + DeserializeOwned>(data: &[u8]) {
    let mut stream = data;
    let Ok((message, tail)) = control::read::<T>(&mut stream) else { return };
    let bytes = control::encode(&message, &tail).expect("what was read can be written");
    let (again, same_tail) = control::read::<T>(&mut &bytes[..]).expect("what was written can be read");
    assert_eq!(same_tail, tail);
    assert_eq!(control::encode(&again, &tail).expect("as before"), bytes);
}
