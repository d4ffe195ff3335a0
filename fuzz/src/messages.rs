//! Headers of frames: what clients, the control plane and sidecars say to each other.

use std::fmt::Debug;

use ciborium::Value;
use mirrord_protocol::{
    boot::{CALLS, Call, Done, Enrolled, Report},
    control::{Control, Hello},
    frame::{self, FrameError, PREFIX_BYTES},
    limits::PATH_BYTES,
    path::RemotePath,
    reply::{
        Attributes, Connected, Data, Environment, Failure, Link, Listing, Opened, Pong, Reply, Resolved,
    },
    request::{REQUESTS, Read, Request},
};
use mirrord_recorded::later;
use serde::{Serialize, de::DeserializeOwned};

/// The first byte says which message the rest shall be. What is understood survives being written, also by a later release;
/// what isn't known is told apart from nonsense.
pub fn messages(data: &[u8]) {
    let Some((kind, header)) = data.split_first() else { return };
    match kind % 17 {
        0 => drop(understood::<Hello>(header)),
        1 => drop(understood::<Control>(header)),
        2 => request(header),
        3 => drop(understood::<Read>(header)),
        4 => call(header),
        5 => reply::<Environment>(header),
        6 => reply::<Opened>(header),
        7 => reply::<Data>(header),
        8 => reply::<Attributes>(header),
        9 => reply::<Listing>(header),
        10 => reply::<Link>(header),
        11 => reply::<Connected>(header),
        12 => reply::<Resolved>(header),
        13 => reply::<Pong>(header),
        14 => reply::<Enrolled>(header),
        15 => reply::<Done>(header),
        _ => reply::<Report>(header),
    }
}

/// What can be asked of a message.
pub(crate) trait Message: Serialize + DeserializeOwned + PartialEq + Debug {}

impl<T: Serialize + DeserializeOwned + PartialEq + Debug> Message for T {}

/// The header that a message is written as.
pub(crate) fn header(message: &impl Serialize) -> Vec<u8> {
    frame::encode(message, 0).expect("what was read can be written").split_off(PREFIX_BYTES)
}

/// The message, if it is one, which is then understood again, and as a later release would write it.
fn understood<T: Message>(bytes: &[u8]) -> Option<T> {
    let message: T = frame::decode(bytes).ok()?;
    let written = header(&message);
    assert_eq!(frame::decode(&written).as_ref(), Ok(&message));
    let value: Value = frame::decode(&written).expect("CBOR");
    assert_eq!(frame::decode(&header(&later(&value))).as_ref(), Ok(&message));
    Some(message)
}

fn reply<T: Message>(bytes: &[u8]) {
    if let Some(reply) = understood::<Reply<T>>(bytes) {
        let failed = matches!(reply, Reply::Failed(Failure { .. }));
        assert_eq!(reply.into_result().is_err(), failed);
    }
}

fn request(bytes: &[u8]) {
    let path = match question(understood(bytes), Request::decode(bytes), &REQUESTS) {
        Some(Request::Open(open)) => open.path,
        Some(Request::Stat(stat)) => stat.path,
        Some(Request::List(list)) => list.path,
        Some(Request::ReadLink(link)) => link.path,
        _ => return,
    };
    let text = path.as_bytes();
    assert!(text.starts_with(b"/") && !text.contains(&0) && text.len() <= PATH_BYTES);
    assert_eq!(RemotePath::new(text), Ok(path));
}

fn call(bytes: &[u8]) {
    if let Some(Call::Install(install)) = question(understood(bytes), Call::decode(bytes), &CALLS) {
        let keys = install.gate_keys.len();
        let shown = format!("{install:?}");
        assert!(shown.len() < 40, "{shown} tells more of {keys} keys than how long the chain is");
    }
}

/// Questions are decoded in a way of their own, which knows what it doesn't know.
fn question<T: Message>(message: Option<T>, decoded: Result<T, FrameError>, known: &[&str]) -> Option<T> {
    match &decoded {
        Err(FrameError::Unsupported(name)) => {
            assert!(!known.contains(&name.as_str()) && name.chars().count() <= 64, "{name:?}");
        }
        Err(FrameError::Malformed(_)) => {}
        Err(FrameError::TooLong { .. }) => panic!("{decoded:?}"),
        Ok(_) => {}
    }
    assert_eq!(decoded.ok(), message);
    message
}
