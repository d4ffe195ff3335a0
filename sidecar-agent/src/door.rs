//! Who may begin a handshake. Each one costs cryptography and memory, and the first packet of one can be made by anybody
//! who knows the route (for a session: and has seen a token). So there is room for a few, and nobody takes it from others:
//!
//! * boot calls and sessions have places of their own;
//! * while several handshakes are under way, further callers prove that they are where they say (Retry, RFC 9000 §8.1.2),
//!   which costs us nothing to remember: packets with forged senders end there;
//! * one address has a part of boot's places. Sessions come through routers, so theirs are not counted by address;
//! * handshakes leave places to sessions that stand.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use mirrord_protocol::route::Purpose;

/// What one purpose has.
struct Bounds {
    /// Connections at once, handshakes included.
    places: usize,
    /// Handshakes at once.
    handshakes: usize,
    /// Handshakes from which on callers have to prove their address.
    unproven: usize,
    /// Places of one address.
    client: usize,
}

/// Each replica of the control plane has one connection, and a further one while it replaces that.
const BOOT: Bounds = Bounds { places: 32, handshakes: 32, unproven: 4, client: 8 };
const SESSION: Bounds = Bounds { places: 128, handshakes: 64, unproven: 16, client: usize::MAX };

/// The places of both purposes.
#[derive(Debug, Default)]
pub(crate) struct Door {
    boot: Mutex<Taken>,
    session: Mutex<Taken>,
    failures: AtomicU64,
}

#[derive(Debug, Default)]
struct Taken {
    places: usize,
    handshakes: usize,
    clients: HashMap<IpAddr, usize>,
}

/// What to do with a caller.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Go on, in this place.
    Enter(Place),
    /// Let it prove its address first.
    Prove,
    /// There is no place: say so, for it comes back later.
    Refuse,
    /// There will be one in a moment: it sends its packet again.
    Ignore,
}

/// A place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    door: Arc<Door>,
    purpose: Purpose,
    client: IpAddr,
    in_handshake: bool,
}

impl Door {
    /// Decides on a caller, who may have proved its address.
    pub(crate) fn knock(self: &Arc<Self>, purpose: Purpose, client: IpAddr, proven: bool) -> Verdict {
        let bounds = bounds(purpose);
        let client = client.to_canonical();
        let mut taken = self.taken(purpose);
        if taken.handshakes >= bounds.unproven && !proven {
            return Verdict::Prove;
        }
        if taken.clients.get(&client).is_some_and(|count| *count >= bounds.client)
            || taken.handshakes >= bounds.handshakes
        {
            return Verdict::Ignore;
        }
        if taken.places >= bounds.places {
            return Verdict::Refuse;
        }
        taken.places += 1;
        taken.handshakes += 1;
        *taken.clients.entry(client).or_default() += 1;
        Verdict::Enter(Place { door: Arc::clone(self), purpose, client, in_handshake: true })
    }

    /// Counts a handshake that failed; returns how many did where it is time to speak of it: at the first, the second,
    /// the fourth … so that no flood of packets becomes a flood of lines.
    pub(crate) fn failed(&self) -> Option<u64> {
        let count = self.failures.fetch_add(1, Relaxed) + 1;
        count.is_power_of_two().then_some(count)
    }

    fn taken(&self, purpose: Purpose) -> MutexGuard<'_, Taken> {
        let taken = match purpose {
            Purpose::Boot => &self.boot,
            Purpose::Session => &self.session,
        };
        taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// What it is for.
    pub(crate) fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// The handshake is done.
    pub(crate) fn entered(&mut self) {
        if std::mem::take(&mut self.in_handshake) {
            self.door.taken(self.purpose).handshakes -= 1;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.entered();
        let mut taken = self.door.taken(self.purpose);
        taken.places -= 1;
        if let Some(count) = taken.clients.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                taken.clients.remove(&self.client);
            }
        }
    }
}

fn bounds(purpose: Purpose) -> &'static Bounds {
    match purpose {
        Purpose::Boot => &BOOT,
        Purpose::Session => &SESSION,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn client(number: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, number).into()
    }

    /// Knocks until no more get in.
    fn fill(door: &Arc<Door>, purpose: Purpose, client: IpAddr, proven: bool) -> (Vec<Place>, Verdict) {
        let mut places = Vec::new();
        loop {
            match door.knock(purpose, client, proven) {
                Verdict::Enter(place) => places.push(place),
                verdict => return (places, verdict),
            }
        }
    }

    #[test]
    fn callers_prove_their_address_once_several_handshakes_are_under_way() {
        let door = Arc::new(Door::default());
        for (purpose, unproven) in [(Purpose::Boot, BOOT.unproven), (Purpose::Session, SESSION.unproven)] {
            let (places, verdict) = fill(&door, purpose, client(1), false);
            assert!(matches!(verdict, Verdict::Prove), "{verdict:?}");
            assert_eq!(places.len(), unproven);
            assert!(matches!(door.knock(purpose, client(2), true), Verdict::Enter(_)));
            drop(places);
            assert!(matches!(door.knock(purpose, client(1), false), Verdict::Enter(_)), "room again");
        }
    }

    #[test]
    fn one_address_leaves_boots_places_to_others_and_sessions_have_their_own() {
        let door = Arc::new(Door::default());
        let (own, verdict) = fill(&door, Purpose::Boot, client(1), true);
        assert!(matches!(verdict, Verdict::Ignore), "{verdict:?}");
        assert_eq!(own.len(), BOOT.client);
        let mapped = Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().into();
        assert!(matches!(door.knock(Purpose::Boot, mapped, true), Verdict::Ignore), "the same address");
        let others: Vec<_> = (2..).map(|it| fill(&door, Purpose::Boot, client(it), true).0).take(4).collect();
        assert_eq!(own.len() + others.iter().map(Vec::len).sum::<usize>(), BOOT.places);
        assert!(matches!(door.knock(Purpose::Session, client(1), true), Verdict::Enter(_)));
    }

    #[test]
    fn handshakes_leave_places_to_sessions_that_stand() {
        let door = Arc::new(Door::default());
        let (mut places, verdict) = fill(&door, Purpose::Session, client(1), true);
        assert!(matches!(verdict, Verdict::Ignore), "{verdict:?}");
        assert_eq!(places.len(), SESSION.handshakes);
        places.iter_mut().for_each(Place::entered);
        let (more, _) = fill(&door, Purpose::Session, client(1), true);
        places.extend(more);
        places.iter_mut().for_each(Place::entered);
        assert_eq!(places.len(), SESSION.places);
        assert!(matches!(door.knock(Purpose::Session, client(1), true), Verdict::Refuse));
        places.clear();
        let taken = door.taken(Purpose::Session);
        assert_eq!((taken.places, taken.handshakes, taken.clients.len()), (0, 0, 0));
    }

    #[test]
    fn the_log_hears_of_failures_at_powers_of_two() {
        let door = Door::default();
        let heard: Vec<u64> = (0..20).filter_map(|_| door.failed()).collect();
        assert_eq!(heard, [1, 2, 4, 8, 16]);
    }
}
