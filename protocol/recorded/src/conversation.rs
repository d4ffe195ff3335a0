//! Recorded streams as text that people can read and machines play.
//!
//! ```text
//! # A comment: the header of the frame below in CBOR's diagnostic notation (RFC 8949 §8), and the length of its tail.
//! [name of the conversation]
//! > 0000000700000000 a16470696e67a0      who dialled says a frame: lengths, header, tail; blanks don't count
//! < 0000000500000000 a1626f6ba0          the sidecar says a frame
//! >> 68656c6c6f                          bytes without a frame
//! << 61*3                                61 three times
//! ```

use std::fmt::Write;

use ciborium::Value;
use mirrord_protocol::frame::{self, PREFIX_BYTES, Prefix};

/// One stream from its beginning to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    /// What it is about.
    pub name: String,
    /// What was said, in order.
    pub turns: Vec<Turn>,
}

/// What one side said.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// Who.
    pub side: Side,
    /// What.
    pub said: Said,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client or the control plane.
    Dialler,
    /// The sidecar.
    Sidecar,
}

/// What is said.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// A frame.
    Frame(Frame),
    /// Bytes of a connection.
    Raw(Vec<u8>),
}

/// A frame whose header was taken apart, without knowing its type.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// CBOR.
    pub header: Value,
    /// Raw.
    pub tail: Vec<u8>,
}

impl Frame {
    /// The bytes on the wire.
    ///
    /// # Panics
    /// Where the wire's bounds are exceeded.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        frame::encode_with_tail(&self.header, &self.tail).expect("within the bounds")
    }

    /// Takes a frame apart.
    ///
    /// # Panics
    /// Where it is none.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let (prefix, body) = bytes.split_first_chunk::<PREFIX_BYTES>().expect("lengths");
        let prefix = Prefix::parse(*prefix).expect("within the bounds");
        assert_eq!(prefix.body(), body.len(), "another length than announced");
        let (header, tail) = body.split_at(prefix.header);
        Self { header: frame::decode(header).expect("CBOR"), tail: tail.to_vec() }
    }
}

impl Conversation {
    /// The first frame that a side says.
    ///
    /// # Panics
    /// Where it says none.
    #[must_use]
    pub fn first(&self, side: Side) -> &Frame {
        let mut frames =
            self.turns.iter().filter(|turn| turn.side == side).filter_map(|turn| match &turn.said {
                Said::Frame(frame) => Some(frame),
                Said::Raw(_) => None,
            });
        frames.next().unwrap_or_else(|| panic!("[{}] has no frame of {side:?}", self.name))
    }
}

/// Reads conversations.
///
/// # Panics
/// Where the text isn't of the form.
#[must_use]
pub fn read(text: &str) -> Vec<Conversation> {
    let mut conversations: Vec<Conversation> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            conversations.push(Conversation { name: name.to_owned(), turns: Vec::new() });
            continue;
        }
        let side = match line.as_bytes()[0] {
            b'>' => Side::Dialler,
            b'<' => Side::Sidecar,
            _ => panic!("neither a comment, a name nor a turn: {line}"),
        };
        let said = match line[1..].strip_prefix(['>', '<']) {
            Some(raw) => Said::Raw(unhex(raw)),
            None => Said::Frame(Frame::parse(&unhex(&line[1..]))),
        };
        conversations.last_mut().expect("a name before the first turn").turns.push(Turn { side, said });
    }
    conversations
}

/// Writes conversations, after a comment.
#[must_use]
pub fn write(about: &str, conversations: &[Conversation]) -> String {
    let mut text = String::new();
    about.lines().for_each(|line| add(&mut text, format_args!("# {line}\n")));
    for Conversation { name, turns } in conversations {
        add(&mut text, format_args!("\n[{name}]\n"));
        for Turn { side, said } in turns {
            let sign = if *side == Side::Dialler { '>' } else { '<' };
            match said {
                Said::Raw(bytes) => add(&mut text, format_args!("{sign}{sign} {}\n", hex(bytes))),
                Said::Frame(frame) => {
                    add(&mut text, format_args!("# {}", notation(&frame.header)));
                    if !frame.tail.is_empty() {
                        add(&mut text, format_args!(", tail: {} bytes", frame.tail.len()));
                    }
                    let bytes = frame.bytes();
                    let (prefix, body) = bytes.split_at(PREFIX_BYTES);
                    let (header, tail) = body.split_at(body.len() - frame.tail.len());
                    let line = format!("{sign} {} {} {}", hex(prefix), hex(header), hex(tail));
                    add(&mut text, format_args!("\n{}\n", line.trim_end()));
                }
            }
        }
    }
    text
}

fn add(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a String takes everything");
}

/// Runs of at least this many equal bytes are written as one.
const RUN: usize = 64;

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for run in bytes.chunk_by(|one, other| one == other) {
        if run.len() >= RUN {
            add(&mut text, format_args!(" {:02x}*{} ", run[0], run.len()));
        } else {
            run.iter().for_each(|byte| add(&mut text, format_args!("{byte:02x}")));
        }
    }
    text.trim().to_owned()
}

fn unhex(text: &str) -> Vec<u8> {
    let byte =
        |digits: &str| u8::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("no hexadecimal: {digits}"));
    let word = |word: &str| match word.split_once('*') {
        Some((digits, times)) => vec![byte(digits); times.parse().expect("a number of times")],
        None => {
            word.as_bytes().chunks(2).map(|pair| byte(std::str::from_utf8(pair).expect("ASCII"))).collect()
        }
    };
    text.split_whitespace().flat_map(word).collect()
}

/// A value in CBOR's diagnostic notation (RFC 8949 §8); byte strings of printable characters as text in single quotes.
fn notation(value: &Value) -> String {
    let list = |items: Vec<String>| items.join(", ");
    match value {
        Value::Integer(number) => i128::from(*number).to_string(),
        Value::Text(text) => format!("{text:?}"),
        Value::Bytes(bytes)
            if !bytes.is_empty() && bytes.iter().all(|byte| matches!(byte, b' '..=b'&' | b'('..=b'~')) =>
        {
            format!("'{}'", String::from_utf8_lossy(bytes))
        }
        Value::Bytes(bytes) => format!("h'{}'", hex(bytes)),
        Value::Bool(truth) => truth.to_string(),
        Value::Null => "null".to_owned(),
        Value::Array(items) => format!("[{}]", list(items.iter().map(notation).collect())),
        Value::Map(fields) => {
            let field = |(name, value): &(Value, Value)| format!("{}: {}", notation(name), notation(value));
            format!("{{{}}}", list(fields.iter().map(field).collect()))
        }
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let frame = |header: Value, tail: &[u8]| Said::Frame(Frame { header, tail: tail.to_vec() });
        let question = Value::Map(vec![(
            "open".into(),
            Value::Map(vec![("path".into(), Value::Bytes(b"/x".to_vec()))]),
        )]);
        let turns = vec![
            Turn { side: Side::Dialler, said: frame(question, b"") },
            Turn {
                side: Side::Sidecar,
                said: frame(
                    Value::Array(vec![true.into(), (-3).into()]),
                    &[[7; 70].as_slice(), b"end"].concat(),
                ),
            },
            Turn { side: Side::Dialler, said: Said::Raw(b"hello".to_vec()) },
        ];
        let conversations = vec![Conversation { name: "open a file".into(), turns }];
        let text = write("two lines\nof comment", &conversations);
        assert_eq!(read(&text), conversations);
        for line in [
            "# of comment",
            "[open a file]",
            r#"# {"open": {"path": '/x'}}"#,
            "# [true, -3], tail: 73 bytes",
            "< 0000000300000049 82f522 07*70 656e64",
            ">> 68656c6c6f",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} is not in\n{text}");
        }
    }
}
