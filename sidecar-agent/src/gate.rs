//! Which datagrams reach QUIC: a filter between the socket and quinn, so that what is dropped here costs no
//! cryptography, no memory and no answer.
//!
//! | datagram | verdict |
//! |---|---|
//! | not QUIC, or another route's | dropped |
//! | first packet to an id that we issued, or of a boot channel | passes |
//! | first packet of a session | passes with a valid gate token; before the keys are installed a few wait |
//! | anything else of this route | passes: quinn knows its connections |

use std::{
    collections::VecDeque,
    fmt,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use mirrord_certs::{GateKey, UnixTime};
use mirrord_protocol::{
    packet::{Form, Packet},
    route::{ConnectionId, Purpose},
};
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use crate::{
    clock,
    dormant::{Datagram, EARLY},
    ids::Ids,
};

/// The filter's memory: keys, and what waits for them.
#[derive(Debug)]
pub(crate) struct Gate {
    ids: Ids,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    keys: Option<Vec<GateKey>>,
    /// First packets of sessions that came before the keys.
    waiting: VecDeque<Datagram>,
    /// What passed without coming from the socket just now.
    passed: VecDeque<Datagram>,
    waker: Option<Waker>,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    Wait,
    Drop,
}

impl Gate {
    /// A gate without keys, with what arrived while there was no endpoint.
    pub(crate) fn new(ids: Ids, early: Vec<Datagram>, now: UnixTime) -> Self {
        let mut state = State::default();
        for datagram in early {
            match judge(&datagram.bytes, &ids, None, now) {
                Verdict::Pass => state.passed.push_back(datagram),
                Verdict::Wait => state.waiting.push_back(datagram),
                Verdict::Drop => {}
            }
        }
        Self { ids, state: Mutex::new(state) }
    }

    /// Checks tokens with these keys from now on; what waited for them is judged at once.
    pub(crate) fn install(&self, keys: Vec<GateKey>, now: UnixTime) {
        let mut state = self.state();
        let waiting = std::mem::take(&mut state.waiting);
        state.passed.extend(
            waiting
                .into_iter()
                .filter(|datagram| judge(&datagram.bytes, &self.ids, Some(&keys), now) == Verdict::Pass),
        );
        state.keys = Some(keys);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// The ids that pass without a token.
    pub(crate) fn ids(&self) -> &Ids {
        &self.ids
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what is dropped out of a train of datagrams of one sender, each `stride` octets but the last.
    fn filter(&self, buffer: &mut [u8], meta: &mut RecvMeta, now: UnixTime) {
        let mut state = self.state();
        let mut kept = 0;
        let mut start = 0;
        while start < meta.len {
            let end = meta.len.min(start.saturating_add(meta.stride.max(1)));
            match judge(&buffer[start..end], &self.ids, state.keys.as_deref(), now) {
                Verdict::Pass => {
                    buffer.copy_within(start..end, kept);
                    kept += end - start;
                }
                Verdict::Wait => {
                    if state.waiting.len() == EARLY {
                        state.waiting.pop_front();
                    }
                    state.waiting.push_back(Datagram { from: meta.addr, bytes: buffer[start..end].to_vec() });
                }
                Verdict::Drop => {}
            }
            start = end;
        }
        meta.len = kept;
    }

    /// Gives one datagram that passed without coming from the socket, or remembers whom to wake for it.
    fn replay(&self, context: &Context<'_>, buffer: &mut [u8], meta: &mut RecvMeta) -> bool {
        let mut state = self.state();
        while let Some(Datagram { from, bytes }) = state.passed.pop_front() {
            let Some(target) = buffer.get_mut(..bytes.len()) else { continue };
            target.copy_from_slice(&bytes);
            *meta = received(from, bytes.len());
            return true;
        }
        if state.keys.is_none() {
            state.waker = Some(context.waker().clone());
        }
        false
    }
}

fn received(from: SocketAddr, length: usize) -> RecvMeta {
    RecvMeta { addr: from, len: length, stride: length, ..RecvMeta::default() }
}

fn judge(datagram: &[u8], ids: &Ids, keys: Option<&[GateKey]>, now: UnixTime) -> Verdict {
    let Some(packet) = Packet::parse(datagram) else { return Verdict::Drop };
    let Some(id) = ConnectionId::parse(packet.destination).filter(|id| id.route == ids.route()) else {
        return Verdict::Drop;
    };
    let Form::Initial { token } = packet.form else { return Verdict::Pass };
    if id.purpose == Purpose::Boot || ids.issued(&id) {
        return Verdict::Pass;
    }
    match keys {
        None => Verdict::Wait,
        Some(keys) if keys.iter().any(|key| key.verify(token, ids.route(), now).is_ok()) => Verdict::Pass,
        Some(_) => Verdict::Drop,
    }
}

/// A socket behind a gate.
pub(crate) struct GatedSocket {
    pub(crate) socket: Arc<dyn AsyncUdpSocket>,
    pub(crate) gate: Arc<Gate>,
}

impl fmt::Debug for GatedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatedSocket").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for GatedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if let (Some(buffer), Some(meta)) = (buffers.first_mut(), metas.first_mut())
            && self.gate.replay(context, buffer, meta)
        {
            return Poll::Ready(Ok(1));
        }
        let count = ready!(self.socket.poll_recv(context, buffers, metas))?;
        let now = clock::now();
        for (buffer, meta) in buffers.iter_mut().zip(metas).take(count) {
            self.gate.filter(buffer, meta, now);
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use mirrord_protocol::route::RouteId;
    use quinn::ConnectionIdGenerator as _;

    use super::*;

    const ROUTE: RouteId = RouteId([1, 2, 3, 4, 5, 6, 7, 8]);
    const NOW: UnixTime = 1_000;

    fn id(purpose: Purpose, route: RouteId) -> [u8; 16] {
        ConnectionId { purpose, route, random: [9; 7] }.to_bytes()
    }

    fn initial(destination: &[u8], token: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0xc0, 0, 0, 0, 1, 16];
        bytes.extend(destination);
        bytes.push(0);
        bytes.push(u8::try_from(token.len()).expect("short"));
        bytes.extend(token);
        bytes
    }

    fn short(route: RouteId) -> Vec<u8> {
        let mut bytes = vec![0x40];
        bytes.extend(id(Purpose::Session, route));
        bytes
    }

    fn key() -> GateKey {
        GateKey::new(&[3; 32]).expect("32 octets")
    }

    fn from() -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 9))
    }

    #[test]
    fn verdicts_follow_the_table() {
        let mut ids = Ids::new(ROUTE);
        let issued = ids.generate_cid();
        let session = id(Purpose::Session, ROUTE);
        let token = key().issue(ROUTE, NOW + 10);
        let keys = [GateKey::new(&[4; 32]).expect("32 octets"), key()];
        let with_keys = |datagram: &[u8]| judge(datagram, &ids, Some(&keys), NOW);
        assert_eq!(with_keys(&initial(&session, &token)), Verdict::Pass);
        assert_eq!(with_keys(&initial(&session, b"")), Verdict::Drop);
        assert_eq!(with_keys(&initial(&session, &key().issue(ROUTE, NOW - 1))), Verdict::Drop, "expired");
        assert_eq!(with_keys(&initial(&session, &key().issue(RouteId([0; 8]), NOW + 10))), Verdict::Drop);
        assert_eq!(with_keys(&initial(&issued, b"")), Verdict::Pass);
        assert_eq!(with_keys(&initial(&id(Purpose::Boot, ROUTE), b"")), Verdict::Pass);
        assert_eq!(with_keys(&short(ROUTE)), Verdict::Pass);
        assert_eq!(with_keys(&short(RouteId([0; 8]))), Verdict::Drop);
        assert_eq!(with_keys(b"\x17noise"), Verdict::Drop);
        assert_eq!(judge(&initial(&session, &token), &ids, None, NOW), Verdict::Wait);
    }

    #[test]
    fn a_train_loses_only_its_foreign_wagons() {
        let gate = Gate::new(Ids::new(ROUTE), Vec::new(), NOW);
        let mut train: Vec<u8> = Vec::new();
        for (route, fill) in [(ROUTE, 1), (RouteId([0; 8]), 2), (ROUTE, 3)] {
            train.extend(short(route));
            train.extend([fill; 3]);
        }
        train.truncate(train.len() - 2);
        let mut meta = received(from(), train.len());
        meta.stride = 20;
        gate.filter(&mut train, &mut meta, NOW);
        assert_eq!((meta.len, meta.stride), (38, 20));
        assert_eq!((train[19], train[37]), (1, 3));
    }

    #[test]
    fn what_waited_is_judged_when_the_keys_come() {
        let session = id(Purpose::Session, ROUTE);
        let good = Datagram { from: from(), bytes: initial(&session, &key().issue(ROUTE, NOW + 10)) };
        let bad = Datagram { from: from(), bytes: initial(&session, b"bad") };
        let boot = Datagram { from: from(), bytes: initial(&id(Purpose::Boot, ROUTE), b"") };
        let gate = Gate::new(Ids::new(ROUTE), vec![bad.clone(), good.clone(), boot.clone()], NOW);
        let mut late = good.bytes.clone();
        gate.filter(&mut late, &mut received(from(), good.bytes.len()), NOW);
        let context = Context::from_waker(Waker::noop());
        let next = || {
            let (mut buffer, mut meta) = ([0; 128], RecvMeta::default());
            gate.replay(&context, &mut buffer, &mut meta).then(|| buffer[..meta.len].to_vec())
        };
        assert_eq!(next(), Some(boot.bytes));
        assert_eq!(next(), None);
        gate.install(vec![key()], NOW);
        assert_eq!((next(), next(), next()), (Some(good.bytes.clone()), Some(good.bytes), None));
    }

    #[test]
    fn few_packets_wait() {
        let gate = Gate::new(Ids::new(ROUTE), Vec::new(), NOW);
        for _ in 0..3 * EARLY {
            let mut bytes = initial(&id(Purpose::Session, ROUTE), b"");
            let mut meta = received(from(), bytes.len());
            gate.filter(&mut bytes, &mut meta, NOW);
            assert_eq!(meta.len, 0);
        }
        assert_eq!(gate.state().waiting.len(), EARLY);
    }
}
