//! A router over time: Sessions come and go, datagrams arrive, flows open and close. A model of it knows what must hold.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use mirrord_certs::{GateMaster, UnixTime};
use mirrord_ingress::{
    flows::{Bounds, FlowId},
    router::{Knock, Moment, Router, Verdict},
    routes::{Change, GRACE, Grant, SKEW},
};
use mirrord_protocol::{
    packet::{Form, Packet},
    route::{ConnectionId, Purpose, RouteId},
};

use crate::bytes::Bytes;

const BOUNDS: Bounds = Bounds { total: 8, per_client: 3 };
/// What no step of the model comes near.
const START: UnixTime = 1_000_000;

/// Steps, one after the other; see [`World::step`].
pub fn router(data: &[u8]) {
    let mut world = World::new();
    let mut steps = Bytes(data);
    while let Some(kind) = steps.byte() {
        world.step(kind, &mut steps);
        world.check();
    }
}

struct World {
    router: Router,
    master: GateMaster,
    began: Instant,
    seconds: u64,
    sessions: HashMap<String, Grant>,
    /// Where routes lead, also those that no Session names any more.
    addresses: HashMap<RouteId, SocketAddr>,
    flows: HashMap<FlowId, (SocketAddr, RouteId)>,
    /// When a Session named a route last.
    named: HashMap<RouteId, u64>,
}

impl World {
    fn new() -> Self {
        let master = GateMaster::new(&[7; 32]).expect("32 bytes");
        let other = GateMaster::new(&[8; 32]).expect("32 bytes");
        Self {
            router: Router::new(BOUNDS, vec![other, master.clone()]),
            master,
            began: Instant::now(),
            seconds: 0,
            sessions: HashMap::new(),
            addresses: HashMap::new(),
            flows: HashMap::new(),
            named: HashMap::new(),
        }
    }

    /// One step; what it needs is in the bytes that follow its kind.
    fn step(&mut self, kind: u8, rest: &mut Bytes<'_>) {
        match kind % 8 {
            0 => self.datagram(rest.text(), rest.number()),
            1 | 2 => {
                let (client, route) = (rest.number(), route(rest.number()));
                let token = self.master.issue(route, START + u64::from(rest.number()));
                self.datagram(&initial(route, &token), client);
            }
            3 | 4 => {
                let (client, route) = (rest.number(), route(rest.number()));
                self.datagram(&[&[0x40], &id(route)[..]].concat(), client);
            }
            5 => self.seconds += u64::from(rest.number()),
            6 => {
                let name = rest.number().to_string();
                let routes = (0..rest.number() % 4).map(|_| (route(rest.number()), address(rest.number())));
                let grant = Grant { routes: routes.collect(), until: START + u64::from(rest.number()) };
                self.change(Change::Set(name, grant));
            }
            _ => {
                let name = rest.number().to_string();
                self.change(Change::Remove(name));
            }
        }
    }

    fn now(&self) -> Moment {
        Moment { instant: self.began + Duration::from_secs(self.seconds), unix: START + self.seconds }
    }

    fn change(&mut self, change: Change) {
        match &change {
            Change::Set(name, grant) => {
                self.sessions.insert(name.clone(), grant.clone());
                self.addresses.extend(grant.routes.iter().copied());
            }
            Change::Remove(name) => drop(self.sessions.remove(name)),
        }
        let closed = self.router.apply(change, self.now().instant);
        self.closed(&closed);
    }

    fn closed(&mut self, closed: &[FlowId]) {
        for flow in closed {
            assert!(self.flows.remove(flow).is_some(), "{flow:?} wasn't open");
        }
    }

    fn datagram(&mut self, datagram: &[u8], client: u8) {
        let Ok(knock) = Knock::read(datagram) else { return };
        let (client, now) =
            (SocketAddr::from(([192, 0, 2, client % 4], 1000 + u16::from(client % 16))), self.now());
        let form = Packet::parse(datagram).expect("it knocks").form;
        let vouched = match form {
            Form::Initial { token } => Some(self.master.verify(token, knock.route, now.unix).is_ok()),
            Form::Long { .. } => Some(false),
            Form::Short => None,
        };
        let open = self.flows.iter().find(|(_, flow)| **flow == (client, knock.route)).map(|(id, _)| *id);
        match self.router.decide(client, &knock, now) {
            Verdict::Forward(flow) => assert_eq!(open, Some(flow)),
            verdict if open.is_some() => panic!("{verdict:?} for a flow that stands"),
            Verdict::Open(flow, address) => {
                assert_ne!(vouched, Some(false), "a long header without a good token opens nothing");
                assert_eq!(self.leads_to(knock.route, now), Some(address));
                assert_eq!(self.flows.insert(flow, (client, knock.route)), None, "a flow is opened once");
            }
            Verdict::Hold => {
                assert_eq!((vouched, self.leads_to(knock.route, now)), (Some(true), None));
            }
            Verdict::Drop(_) => {}
        }
    }

    /// Where new flows of a route go.
    fn leads_to(&self, route: RouteId, now: Moment) -> Option<SocketAddr> {
        let names = |grant: &&Grant| grant.routes.iter().any(|(id, _)| *id == route);
        // Of a route that several Sessions name, the last moment that one of them ever said counts.
        let named = self.sessions.values().any(|grant| names(&grant));
        let knows = self.router.knows(route, now.unix);
        assert!(!knows || named, "a route that no Session names is known");
        let current = |grant: &Grant| now.unix <= grant.until + SKEW;
        assert!(knows || !self.sessions.values().filter(names).any(current), "a route is forgotten");
        self.addresses.get(&route).copied().filter(|_| knows)
    }

    /// What holds after each step.
    fn check(&mut self) {
        let routes = self.sessions.values().flat_map(|grant| &grant.routes);
        self.named.extend(routes.map(|(route, _)| (*route, self.seconds)));
        let closed = self.router.tick(self.now().instant);
        self.closed(&closed);
        assert_eq!(self.router.flows(), self.flows.len());
        assert!(self.flows.len() <= BOUNDS.total);
        for (client, route) in self.flows.values() {
            let silent = Duration::from_secs(self.seconds - self.named[route]);
            assert!(silent < GRACE, "a flow outlives its route");
            let own = self.flows.values().filter(|(other, _)| other.ip() == client.ip()).count();
            assert!(own <= BOUNDS.per_client as usize);
        }
        assert_eq!(self.router.routes().1, self.sessions.len());
        assert!(self.router.ticks() || self.flows.is_empty());
    }
}

fn route(number: u8) -> RouteId {
    RouteId([number % 4; 8])
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 1 + u16::from(number % 3)))
}

fn id(route: RouteId) -> [u8; 16] {
    ConnectionId { purpose: Purpose::Session, route, random: [9; 7] }.to_bytes()
}

fn initial(route: RouteId, token: &[u8]) -> Vec<u8> {
    [&[0xc0, 0, 0, 0, 1, 16], &id(route)[..], &[0, token.len() as u8], token].concat()
}
