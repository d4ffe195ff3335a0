//! HTTP/2 by hand (RFC 9113, RFC 7541): what no client library would send.

/// How a client begins, with settings of its own.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = [0, 0, 0, 8];
/// ENHANCE_YOUR_CALM, the answer to who makes a lot of work (RFC 9113 §7).
const CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A POST whose body follows, or not.
pub(crate) fn post(stream: u32, path: &str, ends: bool) -> Vec<u8> {
    // `:method POST`, `:scheme https` of the static table; `:path` and `:authority` as they are, not to be remembered.
    let mut block = vec![0x83, 0x87, 0x04, 0x7f];
    // Lengths from 127 on go on in a second octet.
    let length = path.len();
    if length < 127 {
        *block.last_mut().unwrap() = u8::try_from(length).unwrap();
    } else {
        block.push(u8::try_from(length - 127).unwrap());
    }
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(b"\x01\x01x");
    frame(HEADERS, END_HEADERS | if ends { END_STREAM } else { 0 }, stream, &block)
}

/// A part of a body.
pub(crate) fn data(stream: u32, bytes: &[u8], ends: bool) -> Vec<u8> {
    frame(DATA, if ends { END_STREAM } else { 0 }, stream, bytes)
}

pub(crate) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL)
}

/// Headers that never end.
pub(crate) fn endless(stream: u32) -> Vec<u8> {
    frame(HEADERS, 0, stream, &[0x83, 0x87])
}

/// More of them: a field with a long value, not to be remembered.
pub(crate) fn more(stream: u32) -> Vec<u8> {
    let mut block = vec![0, 1, b'a', 0x7f, 0x81, 0x7d];
    block.resize(block.len() + 127 + 1 + (0x7d << 7), b'b');
    frame(CONTINUATION, 0, stream, &block)
}

/// Whether a server's last word was to keep calm.
pub(crate) fn says_calm(mut bytes: &[u8]) -> bool {
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some((payload, next)) = rest.split_at_checked(length) else { return false };
        if head[3] == GOAWAY && payload.get(4..8) == Some(&CALM.to_be_bytes()) {
            return true;
        }
        bytes = next;
    }
    false
}
