//! Connections of one session: a few, so that nobody's session takes the places of all others.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use mirrord_certs::KeyHash;
use mirrord_protocol::control::CloseCode;
use quinn::{Connection, VarInt};

/// A client has one connection. While it looks for a better way it has two, and those that it lost without a word are here
/// until they are silent for too long.
const OF_ONE_SESSION: usize = 8;

/// The connections of every session, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<HashMap<KeyHash, VecDeque<Connection>>>);

/// A connection among those of its session, until this is dropped.
pub(super) struct Entry<'a> {
    all: &'a Connections,
    key: KeyHash,
    connection: Connection,
}

impl Connections {
    /// Enters a connection. Where there are too many then, the oldest is closed: a client uses its newest.
    pub(super) fn enter(&self, key: KeyHash, connection: &Connection) -> Entry<'_> {
        let mut all = self.lock();
        let own = all.entry(key).or_default();
        own.push_back(connection.clone());
        if own.len() > OF_ONE_SESSION
            && let Some(oldest) = own.pop_front()
        {
            let reason = format!("this session has {OF_ONE_SESSION} newer connections");
            oldest.close(VarInt::from(CloseCode::Busy.number()), reason.as_bytes());
        }
        Entry { all: self, key, connection: connection.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<KeyHash, VecDeque<Connection>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        if let Some(own) = all.get_mut(&self.key) {
            own.retain(|connection| connection.stable_id() != self.connection.stable_id());
            if own.is_empty() {
                all.remove(&self.key);
            }
        }
    }
}
