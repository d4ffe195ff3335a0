//! Which routes exist, and where they lead: a pure function of the Sessions.
//!
//! Several Sessions may name one route; it stands as long as one of them does. When the last is gone the route is
//! *retired*: nobody can open a flow to it, but flows that stand get [`GRACE`] to carry the sidecar's farewell.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use mirrord_certs::UnixTime;
use mirrord_protocol::route::RouteId;

/// How long flows outlive their route.
pub const GRACE: Duration = Duration::from_secs(10);
/// How far our clock may be ahead of the control plane's, in seconds.
pub const SKEW: u64 = 360;

/// The routes that one Session grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Each with its sidecar's address.
    pub routes: Vec<(RouteId, SocketAddr)>,
    /// When the Session ends for good. (One that is only suspended can be renewed, so its routes stay.)
    pub until: UnixTime,
}

/// What happened to a Session, known by any name that is its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is there, and grants this.
    Set(String, Grant),
    /// It is gone.
    Remove(String),
}

/// The table of routes.
#[derive(Debug, Default)]
pub struct Routes {
    sessions: HashMap<String, Grant>,
    routes: HashMap<RouteId, Route>,
    retired: usize,
}

#[derive(Debug)]
struct Route {
    address: SocketAddr,
    until: UnixTime,
    sessions: usize,
    retired: Option<Instant>,
}

impl Routes {
    /// Applies a change; returns routes that now lead elsewhere.
    pub fn apply(&mut self, change: Change, now: Instant) -> Vec<RouteId> {
        let (name, grant) = match change {
            Change::Set(name, grant) => (name, Some(grant)),
            Change::Remove(name) => (name, None),
        };
        let before = match &grant {
            Some(grant) => self.sessions.insert(name, grant.clone()),
            None => self.sessions.remove(&name),
        };
        let moved = grant.map(|grant| self.add(&grant)).unwrap_or_default();
        if let Some(before) = before {
            self.remove(&before, now);
        }
        moved
    }

    fn add(&mut self, grant: &Grant) -> Vec<RouteId> {
        let mut moved = Vec::new();
        for &(id, address) in &grant.routes {
            let route =
                self.routes.entry(id).or_insert(Route { address, until: 0, sessions: 0, retired: None });
            if route.address != address {
                route.address = address;
                moved.push(id);
            }
            if route.retired.take().is_some() {
                self.retired -= 1;
                route.until = 0;
            }
            route.sessions += 1;
            route.until = route.until.max(grant.until);
        }
        moved
    }

    fn remove(&mut self, grant: &Grant, now: Instant) {
        for (id, _) in &grant.routes {
            let Some(route) = self.routes.get_mut(id) else { continue };
            route.sessions -= 1;
            if route.sessions == 0 {
                route.retired = Some(now);
                self.retired += 1;
            }
        }
    }

    /// Where a route leads, if new flows may open towards it.
    #[must_use]
    pub fn open(&self, id: RouteId, unix: UnixTime) -> Option<SocketAddr> {
        let route = self.routes.get(&id)?;
        (route.retired.is_none() && unix <= route.until.saturating_add(SKEW)).then_some(route.address)
    }

    /// Whether flows towards a route may go on.
    #[must_use]
    pub fn stands(&self, id: RouteId) -> bool {
        self.routes.contains_key(&id)
    }

    /// Forgets routes that retired more than [`GRACE`] ago.
    pub fn expire(&mut self, now: Instant) {
        if self.retired > 0 {
            self.routes
                .retain(|_, route| route.retired.is_none_or(|since| now.duration_since(since) < GRACE));
            self.retired = self.routes.values().filter(|route| route.retired.is_some()).count();
        }
    }

    /// How many routes stand, and how many Sessions are known.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.routes.len(), self.sessions.len())
    }

    /// Whether [`Self::expire`] will have something to do.
    #[must_use]
    pub fn any_retired(&self) -> bool {
        self.retired > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: RouteId = RouteId([1; 8]);
    const B: RouteId = RouteId([2; 8]);

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    fn set(name: &str, routes: &[(RouteId, SocketAddr)], until: UnixTime) -> Change {
        Change::Set(name.into(), Grant { routes: routes.into(), until })
    }

    #[test]
    fn a_route_stands_while_one_session_names_it() {
        let (mut routes, now) = (Routes::default(), Instant::now());
        routes.apply(set("one", &[(A, address(1)), (B, address(2))], 100), now);
        routes.apply(set("two", &[(A, address(1))], 100), now);
        routes.apply(Change::Remove("one".into()), now);
        assert_eq!(routes.open(A, 0), Some(address(1)));
        assert_eq!(routes.open(B, 0), None);
        assert!(routes.stands(B), "its flows may still say good-bye");
        assert_eq!(routes.counts(), (2, 1));
        routes.expire(now + GRACE);
        assert!(!routes.stands(B));
        assert!(!routes.any_retired());
        assert!(routes.stands(A));
    }

    #[test]
    fn a_changed_session_drops_what_it_no_longer_names() {
        let (mut routes, now) = (Routes::default(), Instant::now());
        routes.apply(set("one", &[(A, address(1))], 100), now);
        routes.apply(set("one", &[(B, address(2))], 100), now);
        assert_eq!((routes.open(A, 0), routes.open(B, 0)), (None, Some(address(2))));
    }

    #[test]
    fn a_retired_route_comes_back() {
        let (mut routes, now) = (Routes::default(), Instant::now());
        routes.apply(set("one", &[(A, address(1))], 100), now);
        routes.apply(Change::Remove("one".into()), now);
        routes.apply(set("one", &[(A, address(1))], 100), now);
        routes.expire(now + GRACE);
        assert_eq!(routes.open(A, 0), Some(address(1)));
    }

    #[test]
    fn a_new_address_is_reported_as_a_move_and_the_same_one_is_not() {
        let (mut routes, now) = (Routes::default(), Instant::now());
        assert_eq!(routes.apply(set("one", &[(A, address(1))], 100), now), []);
        assert_eq!(routes.apply(set("one", &[(A, address(1))], 200), now), []);
        assert_eq!(routes.apply(set("one", &[(A, address(9))], 200), now), [A]);
        assert_eq!(routes.open(A, 0), Some(address(9)));
    }

    #[test]
    fn the_deadline_of_the_last_session_closes_a_route() {
        let (mut routes, now) = (Routes::default(), Instant::now());
        routes.apply(set("one", &[(A, address(1))], 100), now);
        routes.apply(set("two", &[(A, address(1))], 50), now);
        assert!(routes.open(A, 100 + SKEW).is_some());
        assert!(routes.open(A, 101 + SKEW).is_none());
        assert!(routes.stands(A));
    }

    #[test]
    fn removing_what_was_never_there_changes_nothing() {
        let mut routes = Routes::default();
        assert_eq!(routes.apply(Change::Remove("one".into()), Instant::now()), []);
        assert!(!routes.any_retired());
    }
}
