//! What the layer in a user's program and the client's proxy say to each other, and the listings that pass between them.

use mirrord_layer_brain::{
    conversation::{self, Ask, Attributes, Connected, Done, Link, Opened, Resolved, Welcome},
    listing::{self, NAME_BYTES},
};
use mirrord_protocol::{
    frame::{self, PREFIX_BYTES},
    limits::HEADER_BYTES,
    reply::{Entry, Listing},
};

use crate::messages::{Message, header};

/// The first byte says what the rest shall be.
pub fn layer_conversation(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    match kind % 11 {
        0 => ask(body),
        1 => answer::<Welcome>(body),
        2 => answer::<Opened>(body),
        3 => answer::<Attributes>(body),
        4 => answer::<Link>(body),
        5 => answer::<Connected>(body),
        6 => answer::<Done>(body),
        7 => answer::<Resolved>(body),
        8 => lengths(body),
        9 => written(body),
        _ => read(body).for_each(drop),
    }
}

fn ask(body: &[u8]) {
    if let Ok(ask) = Ask::decode(body) {
        assert_eq!(Ask::decode(&header(&ask)), Ok(ask));
    }
}

fn answer<T: Message>(body: &[u8]) {
    if let Ok(answer) = conversation::decode_answer::<T>(body) {
        assert_eq!(conversation::decode_answer(&header(&answer)), Ok(answer));
    }
}

/// There is never a tail, and a body of a bounded length.
fn lengths(body: &[u8]) {
    let Some(prefix) = body.first_chunk::<PREFIX_BYTES>() else { return };
    let length = conversation::body_length(*prefix);
    let [a, b, c, d, tail @ ..] = *prefix;
    let announced = u32::from_be_bytes([a, b, c, d]) as usize;
    assert_eq!(length.is_ok(), announced <= HEADER_BYTES && tail == [0; 4]);
    assert!(length.is_err() || length == Ok(announced));
}

/// A pod's listing: the program finds the names that a kernel could give, in their order, and no other.
fn written(body: &[u8]) {
    let Ok(Listing { entries, attributes, .. }) = frame::decode(body) else { return };
    let folder = attributes.unwrap_or_default();
    let bytes = listing::encode(&folder, 1, &entries);
    let found: Vec<_> = read(&bytes).collect();
    assert_eq!(found.last().map(|record| record.next), Some(bytes.len()), "read to its end");
    let possible = |entry: &&Entry| {
        let name = entry.name.as_slice();
        let wrong = |byte: &u8| [0, b'/'].contains(byte);
        let own = [&b""[..], b".", b".."].contains(&name);
        !own && name.len() <= NAME_BYTES && !name.iter().any(wrong)
    };
    let names = entries.iter().filter(possible).map(|entry| entry.name.as_slice());
    let expected: Vec<_> = [&b"."[..], b".."].into_iter().chain(names).collect();
    assert_eq!(found.iter().map(|record| record.name).collect::<Vec<_>>(), expected);
    assert!(found.iter().skip(2).all(|record| record.ino != 0), "0 is a deleted one's");
}

/// The records of a listing, of which each ends behind its name and within the bytes.
fn read(bytes: &[u8]) -> impl Iterator<Item = listing::Record<'_>> {
    let mut position = 0;
    std::iter::from_fn(move || {
        let record = listing::record(bytes, position)?;
        assert!(record.next > position + record.name.len() && record.next <= bytes.len());
        assert!(!record.name.contains(&0));
        position = record.next;
        Some(record)
    })
}
