//! What becomes of one datagram: a decision without I/O or clock.
//!
//! A packet names its route in its connection id and its client by where it comes from; both together are a *flow*.
//! What belongs to a flow that stands passes. A new flow opens
//! * by an Initial with a valid gate token of its route, or
//! * by a short-header packet towards a route that a Session names. That is a connection that lost its flow: the router
//!   restarted, another replica had it, or the client's address changed (to the sidecar, all three are a migration,
//!   RFC 9000 §9). It carries nothing that we could check, so it is granted from a smaller pool: see [`crate::flows`].
//!
//! Nothing else opens a flow; boot connections never pass.
//!
//! A client may be quicker than our watch: it got its Session in the answer to its POST. An Initial with a valid token
//! for a route that isn't known yet is therefore worth keeping for a moment; dropped, it would come again only after
//! the second that RFC 9002 §6.2.2 waits for a first answer.

use std::{net::SocketAddr, time::Instant};

use mirrord_certs::{GateError, GateMaster, UnixTime};
use mirrord_protocol::{
    packet::{Form, Packet},
    route::{ConnectionId, Purpose, RouteId},
};

use crate::{
    flows::{Bounds, FlowId, Flows},
    reason::Reason,
    routes::{Change, Routes},
};

/// Now, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For idle times.
    pub instant: Instant,
    /// For expiries.
    pub unix: UnixTime,
}

/// What a datagram's first packet shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knock<'a> {
    /// Which route it is for.
    pub route: RouteId,
    form: Form<'a>,
}

/// What to do with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Forward it on a flow that stands.
    Forward(FlowId),
    /// Open this flow to a sidecar, and forward it there.
    Open(FlowId, SocketAddr),
    /// Keep it until its route is known, if that is soon.
    Hold,
    /// Drop it.
    Drop(Reason),
}

/// All that the router knows.
#[derive(Debug)]
pub struct Router {
    routes: Routes,
    flows: Flows,
    keys: Vec<GateMaster>,
}

impl<'a> Knock<'a> {
    /// Reads a datagram.
    ///
    /// # Errors
    /// Why it can never be forwarded.
    pub fn read(datagram: &'a [u8]) -> Result<Self, Reason> {
        let packet = Packet::parse(datagram).ok_or(Reason::NotQuic)?;
        let id = ConnectionId::parse(packet.destination).ok_or(Reason::ForeignId)?;
        match id.purpose {
            Purpose::Boot => Err(Reason::Boot),
            Purpose::Session => Ok(Self { route: id.route, form: packet.form }),
        }
    }
}

impl Router {
    /// A router that knows no route yet.
    #[must_use]
    pub fn new(bounds: Bounds, keys: Vec<GateMaster>) -> Self {
        Self { routes: Routes::default(), flows: Flows::new(bounds), keys }
    }

    /// Replaces the keys that gate tokens are checked with.
    pub fn set_keys(&mut self, keys: Vec<GateMaster>) {
        self.keys = keys;
    }

    /// Applies a change of a Session; returns the flows that closed by it.
    pub fn apply(&mut self, change: Change, now: Instant) -> Vec<FlowId> {
        let moved = self.routes.apply(change, now);
        self.flows.close_routes(&moved)
    }

    /// Decides on a datagram, or on the first of a train.
    pub fn decide(&mut self, client: SocketAddr, knock: &Knock<'_>, now: Moment) -> Verdict {
        if let Some(flow) = self.flows.touch(client, knock.route, now.instant) {
            return Verdict::Forward(flow);
        }
        match (self.open(client, knock, now), knock.form) {
            (Ok((flow, sidecar)), _) => Verdict::Open(flow, sidecar),
            (Err(Reason::UnknownRoute), Form::Initial { token })
                if !self.routes.stands(knock.route) && self.vouch(token, knock.route, now.unix).is_ok() =>
            {
                Verdict::Hold
            }
            (Err(reason), _) => Verdict::Drop(reason),
        }
    }

    /// Whether flows may open towards a route.
    #[must_use]
    pub fn knows(&self, route: RouteId, unix: UnixTime) -> bool {
        self.routes.open(route, unix).is_some()
    }

    fn open(
        &mut self,
        client: SocketAddr,
        knock: &Knock<'_>,
        now: Moment,
    ) -> Result<(FlowId, SocketAddr), Reason> {
        let sidecar = self.routes.open(knock.route, now.unix).ok_or(Reason::UnknownRoute)?;
        let vouched = match knock.form {
            Form::Initial { token } => self.vouch(token, knock.route, now.unix).map(|()| true)?,
            Form::Short => false,
            Form::Long { .. } => return Err(Reason::NoFlow),
        };
        Ok((self.flows.open(client, knock.route, vouched, now.instant)?, sidecar))
    }

    fn vouch(&self, token: &[u8], route: RouteId, now: UnixTime) -> Result<(), Reason> {
        let mut refusal = GateError::Forged;
        for key in &self.keys {
            match key.verify(token, route, now) {
                Ok(()) => return Ok(()),
                Err(error) => refusal = error,
            }
        }
        Err(match refusal {
            GateError::Malformed => Reason::NoToken,
            GateError::OtherRoute => Reason::TokenOfOtherRoute,
            GateError::Expired => Reason::TokenExpired,
            GateError::Forged => Reason::TokenForged,
        })
    }

    /// Gives back a flow for which no socket could be had.
    pub fn close(&mut self, flow: FlowId) {
        self.flows.close(flow);
    }

    /// Closes flows whose time is over; returns them. To be called now and then while [`Self::ticks`].
    pub fn tick(&mut self, now: Instant) -> Vec<FlowId> {
        self.routes.expire(now);
        self.flows.expire(now, |route| self.routes.stands(route))
    }

    /// Whether time changes anything.
    #[must_use]
    pub fn ticks(&self) -> bool {
        !self.flows.is_empty() || self.routes.any_retired()
    }

    /// How many routes stand, and how many Sessions are known.
    #[must_use]
    pub fn routes(&self) -> (usize, usize) {
        self.routes.counts()
    }

    /// How many keys there are.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// How many flows stand.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.flows.len()
    }
}
