//! Who is connected, and who has to go: anybody in the cluster can knock, and the API server must still get in.
//!
//! Nobody is turned away at the door. Where a bound is reached, the connection that was quiet for longest is closed: of
//! the same client where that one has too many, else of the client that has most. So a flood drives out itself.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, time::Instant};

use crate::metrics::metrics;

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// In all.
    pub total: usize,
    /// Of one address.
    pub client: usize,
}

impl Default for Bounds {
    /// An API server has a few, long-lived ones. One costs about 50 KiB.
    fn default() -> Self {
        Self { total: 512, client: 64 }
    }
}

/// All connections.
#[derive(Debug)]
pub struct Connections {
    bounds: Bounds,
    open: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    entries: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    client: IpAddr,
    /// Requests under way.
    busy: usize,
    active_at: Instant,
    leave: Arc<Notify>,
}

/// A connection's place; free again when dropped.
#[derive(Debug)]
pub struct Place {
    connections: Arc<Connections>,
    id: u64,
    leave: Arc<Notify>,
}

impl Connections {
    /// None yet.
    #[must_use]
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, open: Mutex::default() })
    }

    /// Takes one in; another one may have to leave for it.
    #[must_use]
    pub fn admit(self: &Arc<Self>, client: IpAddr, now: Instant) -> Arc<Place> {
        let client = client.to_canonical();
        let mut open = self.open();
        let own = open.entries.values().filter(|entry| entry.client == client).count();
        let crowded = if own >= self.bounds.client {
            Some(client)
        } else if open.entries.len() >= self.bounds.total {
            open.largest()
        } else {
            None
        };
        if let Some(entry) = crowded.and_then(|client| open.remove_quietest(client)) {
            entry.leave.notify_one();
            metrics().server.evicted.inc();
        }
        metrics().server.opened.inc();
        metrics().server.connections.inc();
        let id = open.next;
        open.next += 1;
        let leave = Arc::new(Notify::new());
        open.entries.insert(id, Entry { client, busy: 0, active_at: now, leave: leave.clone() });
        Arc::new(Place { connections: self.clone(), id, leave })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open().entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn open(&self) -> MutexGuard<'_, Table> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// The client with most connections.
    fn largest(&self) -> Option<IpAddr> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for entry in self.entries.values() {
            *counts.entry(entry.client).or_default() += 1;
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(client, _)| client)
    }

    fn remove_quietest(&mut self, client: IpAddr) -> Option<Entry> {
        let own = self.entries.iter().filter(|(_, entry)| entry.client == client);
        let id = *own.min_by_key(|(_, entry)| (entry.busy > 0, entry.active_at))?.0;
        self.entries.remove(&id)
    }
}

impl Place {
    /// Ends when the connection has to leave.
    pub async fn evicted(&self) {
        self.leave.notified().await;
    }

    /// A request began; it ends, answered or given up, when this is dropped.
    #[must_use]
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.change(|entry| (entry.busy, entry.active_at) = (entry.busy + 1, Instant::now()));
        Busy(self.clone())
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.connections.open().entries.get_mut(&self.id) {
            change(entry);
        }
    }
}

/// A request under way.
#[derive(Debug)]
pub struct Busy(Arc<Place>);

impl Drop for Busy {
    fn drop(&mut self) {
        let end = |entry: &mut Entry| (entry.busy, entry.active_at) = (entry.busy - 1, Instant::now());
        self.0.change(end);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().entries.remove(&self.id);
        metrics().server.connections.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const API_SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn open(places: &[Arc<Place>]) -> Vec<bool> {
        places.iter().map(|place| place.connections.open().entries.contains_key(&place.id)).collect()
    }

    #[test]
    fn a_crowd_drives_out_itself_and_never_the_api_server() {
        let connections = Connections::new(Bounds { total: 4, client: 3 });
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let server = [connections.admit(API_SERVER, at(0))];
        let mut strangers: Vec<Arc<Place>> =
            (1..=3).map(|second| connections.admit(STRANGER, at(second))).collect();
        let busy = strangers[0].busy();
        strangers.push(connections.admit(STRANGER, at(4)));
        assert_eq!(open(&strangers), [true, false, true, true], "its own quietest, busy ones last");
        let other = [connections.admit("10.0.0.3".parse().unwrap(), at(5))];
        assert_eq!((open(&server), open(&other)), (vec![true], vec![true]));
        assert_eq!(open(&strangers), [true, false, false, true], "of who has most");
        drop((busy, strangers));
        assert_eq!(connections.len(), 2);
    }

    #[tokio::test]
    async fn who_has_to_leave_is_told() {
        let connections = Connections::new(Bounds { total: 1, client: 1 });
        let first = connections.admit(STRANGER, Instant::now());
        let _second = connections.admit("::ffff:10.0.0.2".parse().unwrap(), Instant::now());
        first.evicted().await;
    }
}
