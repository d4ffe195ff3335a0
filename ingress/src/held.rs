//! First packets of clients that are quicker than our watch: kept until their route is known, a moment at most.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use mirrord_protocol::route::RouteId;
use quinn_udp::EcnCodepoint;

use crate::socket::{Origin, Train};

/// How many are kept; the oldest goes first.
const MAX: usize = 64;
/// For how long: by then the client has sent it again (RFC 9002 §6.2.2).
const PATIENCE: Duration = Duration::from_secs(1);

/// Datagrams that wait.
#[derive(Debug, Default)]
pub struct Held(VecDeque<Waiting>);

#[derive(Debug)]
struct Waiting {
    route: RouteId,
    since: Instant,
    origin: Origin,
    bytes: Vec<u8>,
    ecn: Option<EcnCodepoint>,
}

impl Held {
    /// Keeps a datagram; returns whose was dropped for it.
    pub fn push(
        &mut self,
        route: RouteId,
        origin: Origin,
        datagram: Train<'_>,
        now: Instant,
    ) -> Option<SocketAddr> {
        let dropped = if self.0.len() == MAX { self.0.pop_front() } else { None };
        self.0.push_back(Waiting {
            route,
            since: now,
            origin,
            bytes: datagram.bytes.to_vec(),
            ecn: datagram.ecn,
        });
        dropped.map(|waiting| waiting.origin.sender)
    }

    /// Gives back what can go now, in the order of arrival, and forgets what waited too long.
    pub fn take(
        &mut self,
        now: Instant,
        known: impl Fn(RouteId) -> bool,
    ) -> Vec<(Origin, Vec<u8>, Option<EcnCodepoint>)> {
        self.0.retain(|waiting| now.duration_since(waiting.since) < PATIENCE);
        let (going, staying): (VecDeque<_>, _) = self.0.drain(..).partition(|waiting| known(waiting.route));
        self.0 = staying;
        going.into_iter().map(|waiting| (waiting.origin, waiting.bytes, waiting.ecn)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: RouteId = RouteId([1; 8]);
    const OTHER: RouteId = RouteId([2; 8]);

    fn push(held: &mut Held, route: RouteId, port: u16, now: Instant) -> Option<SocketAddr> {
        let origin = Origin { sender: ([192, 0, 2, 1], port).into(), local: None };
        held.push(route, origin, Train { bytes: &port.to_be_bytes(), stride: 2, ecn: None }, now)
    }

    fn ports(held: &mut Held, now: Instant, route: RouteId) -> Vec<u16> {
        held.take(now, |known| known == route).iter().map(|(origin, ..)| origin.sender.port()).collect()
    }

    #[test]
    fn what_waits_goes_in_order_once_its_route_is_known() {
        let (mut held, now) = (Held::default(), Instant::now());
        push(&mut held, ROUTE, 1, now);
        push(&mut held, OTHER, 2, now);
        push(&mut held, ROUTE, 3, now);
        assert_eq!(ports(&mut held, now, ROUTE), [1, 3]);
        assert!(ports(&mut held, now, ROUTE).is_empty());
        assert_eq!(ports(&mut held, now, OTHER), [2]);
    }

    #[test]
    fn what_waited_too_long_is_forgotten() {
        let (mut held, now) = (Held::default(), Instant::now());
        push(&mut held, ROUTE, 1, now);
        push(&mut held, ROUTE, 2, now + PATIENCE / 2);
        assert_eq!(ports(&mut held, now + PATIENCE, ROUTE), [2]);
    }

    #[test]
    fn only_so_many_wait() {
        let (mut held, now) = (Held::default(), Instant::now());
        for port in 0..64 {
            assert_eq!(push(&mut held, ROUTE, port, now), None);
        }
        assert_eq!(push(&mut held, ROUTE, 99, now).map(|client| client.port()), Some(0));
        assert_eq!(ports(&mut held, now, ROUTE).len(), MAX);
    }
}
