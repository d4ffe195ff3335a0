//! The bounded table of flows: who talks to which route, and since when not.
//!
//! A flow is *vouched for* when a gate token opened it. The others come from clients whose flow was lost (router
//! restarted, another replica, the client's address changed) and carry nothing that can be checked, so they have a
//! smaller pool, a bound per route, and less patience: whoever learned a route id on the path and forges sources for it
//! can use up that route's share of unvouched flows, and nothing else. The bounds are what a flood can cost.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use mirrord_protocol::{limits, route::RouteId};
use slab::Slab;

use crate::reason::Reason;

/// How many flows there may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// In all; of these, one half without a gate token.
    pub total: usize,
    /// From one IPv4 address or IPv6 /64 network.
    pub per_client: u32,
}

/// Flows towards one route. A client may have several connections to a sidecar.
const PER_ROUTE: u32 = 4 * UNVOUCHED_PER_ROUTE;
/// Flows towards one route without a gate token: as many as a sidecar may have sessions.
const UNVOUCHED_PER_ROUTE: u32 = limits::SESSIONS as u32;
/// A flow whose client is silent for so long is gone: twice the idle timeout of connections.
const IDLE: Duration = Duration::from_secs(120);
/// The same for flows without a token: clients send something each 12 s to keep NAT bindings.
const UNVOUCHED_IDLE: Duration = Duration::from_secs(45);

/// A place in the table, used again once the flow is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub usize);

#[derive(Debug)]
struct Flow {
    client: SocketAddr,
    route: RouteId,
    vouched: bool,
    seen: Instant,
}

#[derive(Debug, Default)]
struct Load {
    flows: u32,
    unvouched: u32,
}

/// The table.
#[derive(Debug)]
pub struct Flows {
    bounds: Bounds,
    flows: Slab<Flow>,
    places: HashMap<(SocketAddr, RouteId), FlowId>,
    clients: HashMap<IpAddr, u32>,
    routes: HashMap<RouteId, Load>,
    unvouched: usize,
}

impl Flows {
    /// An empty table.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            flows: Slab::new(),
            places: HashMap::new(),
            clients: HashMap::new(),
            routes: HashMap::new(),
            unvouched: 0,
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// The flow of a client towards a route, which was just heard of.
    pub fn touch(&mut self, client: SocketAddr, route: RouteId, now: Instant) -> Option<FlowId> {
        let id = *self.places.get(&(client, route))?;
        if let Some(flow) = self.flows.get_mut(id.0) {
            flow.seen = now;
        }
        Some(id)
    }

    /// Opens a flow that isn't there yet.
    ///
    /// # Errors
    /// Which bound is reached.
    pub fn open(
        &mut self,
        client: SocketAddr,
        route: RouteId,
        vouched: bool,
        now: Instant,
    ) -> Result<FlowId, Reason> {
        self.room(client, route, vouched)?;
        *self.clients.entry(network(client.ip())).or_default() += 1;
        let load = self.routes.entry(route).or_default();
        load.flows += 1;
        if !vouched {
            load.unvouched += 1;
            self.unvouched += 1;
        }
        let id = FlowId(self.flows.insert(Flow { client, route, vouched, seen: now }));
        self.places.insert((client, route), id);
        Ok(id)
    }

    fn room(&self, client: SocketAddr, route: RouteId, vouched: bool) -> Result<(), Reason> {
        let load = self.routes.get(&route);
        if self.len() >= self.bounds.total {
            Err(Reason::Full)
        } else if self
            .clients
            .get(&network(client.ip()))
            .is_some_and(|&count| count >= self.bounds.per_client)
        {
            Err(Reason::ClientFull)
        } else if load.is_some_and(|load| load.flows >= PER_ROUTE) {
            Err(Reason::RouteFull)
        } else if vouched {
            Ok(())
        } else if self.unvouched >= self.bounds.total / 2
            || load.is_some_and(|load| load.unvouched >= UNVOUCHED_PER_ROUTE)
        {
            Err(Reason::UnvouchedFull)
        } else {
            Ok(())
        }
    }

    /// Closes a flow.
    pub fn close(&mut self, id: FlowId) {
        let Some(flow) = self.flows.try_remove(id.0) else { return };
        self.places.remove(&(flow.client, flow.route));
        less(&mut self.clients, network(flow.client.ip()), |count| {
            *count -= 1;
            *count == 0
        });
        less(&mut self.routes, flow.route, |load| {
            load.flows -= 1;
            load.unvouched -= u32::from(!flow.vouched);
            load.flows == 0
        });
        self.unvouched -= usize::from(!flow.vouched);
    }

    /// Closes flows whose client fell silent or whose route no longer stands; returns them.
    pub fn expire(&mut self, now: Instant, stands: impl Fn(RouteId) -> bool) -> Vec<FlowId> {
        self.close_where(|flow| {
            let patience = if flow.vouched { IDLE } else { UNVOUCHED_IDLE };
            now.duration_since(flow.seen) >= patience || !stands(flow.route)
        })
    }

    /// Closes all flows of some routes; returns them.
    pub fn close_routes(&mut self, routes: &[RouteId]) -> Vec<FlowId> {
        if routes.is_empty() { Vec::new() } else { self.close_where(|flow| routes.contains(&flow.route)) }
    }

    fn close_where(&mut self, condition: impl Fn(&Flow) -> bool) -> Vec<FlowId> {
        let closed: Vec<FlowId> =
            self.flows.iter().filter(|(_, flow)| condition(flow)).map(|(place, _)| FlowId(place)).collect();
        closed.iter().for_each(|&id| self.close(id));
        closed
    }
}

/// Counts down in a map, and removes what comes to nothing.
fn less<K: Eq + Hash, V>(map: &mut HashMap<K, V>, key: K, nothing: impl FnOnce(&mut V) -> bool) {
    if let std::collections::hash_map::Entry::Occupied(mut entry) = map.entry(key)
        && nothing(entry.get_mut())
    {
        entry.remove();
    }
}

/// What one client has to itself: an IPv4 address, or the /64 that an IPv6 host picks its addresses from.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { total: 20, per_client: 6 };

    fn client(host: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, host], port))
    }

    fn route(number: u8) -> RouteId {
        RouteId([number; 8])
    }

    #[test]
    fn a_flow_is_one_client_and_one_route() {
        let (mut flows, now) = (Flows::new(BOUNDS), Instant::now());
        let first = flows.open(client(1, 1), route(1), true, now).unwrap();
        let second = flows.open(client(1, 1), route(2), true, now).unwrap();
        assert_eq!(flows.touch(client(1, 1), route(1), now), Some(first));
        assert_eq!(flows.touch(client(1, 1), route(2), now), Some(second));
        assert_eq!(flows.touch(client(1, 2), route(1), now), None);
    }

    #[test]
    fn silence_closes_unvouched_flows_sooner() {
        let (mut flows, now) = (Flows::new(BOUNDS), Instant::now());
        let vouched = flows.open(client(1, 1), route(1), true, now).unwrap();
        let unvouched = flows.open(client(2, 1), route(1), false, now).unwrap();
        assert_eq!(flows.expire(now + UNVOUCHED_IDLE - Duration::from_secs(1), |_| true), []);
        assert_eq!(flows.expire(now + UNVOUCHED_IDLE, |_| true), [unvouched]);
        flows.touch(client(1, 1), route(1), now + UNVOUCHED_IDLE);
        assert_eq!(flows.expire(now + IDLE, |_| true), [], "it was heard of since");
        assert_eq!(flows.expire(now + IDLE + UNVOUCHED_IDLE, |_| true), [vouched]);
        assert!(flows.is_empty());
    }

    #[test]
    fn flows_go_with_their_route() {
        let (mut flows, now) = (Flows::new(BOUNDS), Instant::now());
        let gone = flows.open(client(1, 1), route(1), true, now).unwrap();
        let moved = flows.open(client(1, 1), route(2), true, now).unwrap();
        flows.open(client(1, 1), route(3), true, now).unwrap();
        assert_eq!(flows.expire(now, |id| id != route(1)), [gone]);
        assert_eq!(flows.close_routes(&[route(2)]), [moved]);
        assert_eq!(flows.len(), 1);
    }

    #[test]
    fn one_client_cannot_take_all() {
        let (mut flows, now) = (Flows::new(BOUNDS), Instant::now());
        for port in 1..=6 {
            flows.open(client(1, port), route(1), true, now).unwrap();
        }
        assert_eq!(flows.open(client(1, 7), route(1), true, now), Err(Reason::ClientFull));
        let mapped = SocketAddr::new("::ffff:192.0.2.1".parse().unwrap(), 7);
        assert_eq!(flows.open(mapped, route(1), true, now), Err(Reason::ClientFull));
        flows.open(client(2, 1), route(1), true, now).unwrap();
    }

    #[test]
    fn an_ipv6_network_counts_as_one_client() {
        let (mut flows, now) = (Flows::new(BOUNDS), Instant::now());
        for host in 1..=6 {
            flows.open(format!("[2001:db8::{host}]:1").parse().unwrap(), route(1), true, now).unwrap();
        }
        let open = |flows: &mut Flows, client: &str| flows.open(client.parse().unwrap(), route(1), true, now);
        assert_eq!(open(&mut flows, "[2001:db8::ffff:0:0:7]:1"), Err(Reason::ClientFull));
        assert!(open(&mut flows, "[2001:db8:0:1::1]:1").is_ok());
    }

    #[test]
    fn packets_without_a_token_leave_room_for_those_with_one() {
        let (mut flows, now) = (Flows::new(BOUNDS), Instant::now());
        let opened =
            (0..=255).filter(|&host| flows.open(client(host, 1), route(1), false, now).is_ok()).count();
        assert_eq!(opened, BOUNDS.total / 2);
        assert_eq!(flows.open(client(255, 2), route(2), false, now), Err(Reason::UnvouchedFull));
        assert!(flows.open(client(255, 2), route(2), true, now).is_ok());
    }

    #[test]
    fn a_route_has_its_own_bounds() {
        let now = Instant::now();
        let mut flows = Flows::new(Bounds { total: 1_000_000, per_client: 1_000_000 });
        let unvouched = (0..5000).map(|port| flows.open(client(1, port), route(1), false, now));
        assert_eq!(unvouched.filter(Result::is_ok).count(), UNVOUCHED_PER_ROUTE as usize);
        assert!(flows.open(client(1, 1), route(2), false, now).is_ok(), "other routes are not affected");
        let vouched = (5000..10_000).map(|port| flows.open(client(1, port), route(1), true, now));
        assert_eq!(vouched.filter(Result::is_ok).count(), (PER_ROUTE - UNVOUCHED_PER_ROUTE) as usize);
        assert_eq!(flows.open(client(1, 1), route(1), true, now), Err(Reason::RouteFull));
    }

    proptest! {
        #[test]
        fn the_books_balance_whatever_happens(
            steps in proptest::collection::vec((0u8..5, 0u8..6, 0u16..4, 0u8..4, any::<bool>()), 0..300),
        ) {
            let (mut flows, mut now) = (Flows::new(BOUNDS), Instant::now());
            for (kind, host, port, number, vouched) in steps {
                now += Duration::from_secs(5);
                match kind {
                    0 => drop(flows.expire(now, |id| id != route(number))),
                    1 => drop(flows.close_routes(&[route(number)])),
                    2 => flows.close(FlowId(usize::from(port))),
                    _ => if flows.touch(client(host, port), route(number), now).is_none() {
                        let _ = flows.open(client(host, port), route(number), vouched, now);
                    },
                }
                prop_assert!(flows.len() <= BOUNDS.total);
                prop_assert!(flows.unvouched <= BOUNDS.total / 2);
                prop_assert_eq!(flows.places.len(), flows.len());
                prop_assert!(flows.clients.values().all(|&count| count > 0 && count <= BOUNDS.per_client));
                prop_assert_eq!(flows.clients.values().sum::<u32>() as usize, flows.len());
                prop_assert_eq!(flows.routes.values().map(|load| load.flows).sum::<u32>() as usize, flows.len());
                prop_assert_eq!(
                    flows.routes.values().map(|load| load.unvouched).sum::<u32>() as usize, flows.unvouched
                );
            }
        }
    }
}
