//! Moves datagrams: one task on the socket that clients send to, and one per flow on its socket towards the sidecar.
//!
//! A flow's socket is connected, so what arrives on it is for that flow's client and nobody reads it; it leaves by the
//! listening socket, from the address that the client sent to. Trains pass as trains. Everything is on one thread and
//! shares one set of buffers, so a flow costs its socket and a small task.

use std::{
    cell::{Cell, RefCell},
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mirrord_protocol::route::RouteId;
use tokio::{
    sync::{mpsc, oneshot},
    task::{AbortHandle, LocalSet, spawn_local, yield_now},
    time::{MissedTickBehavior, interval},
};

use crate::{
    flows::FlowId,
    gate::GateFolder,
    held::Held,
    reason::{Counters, Reason},
    router::{Knock, Moment, Router, Verdict},
    routes::Change,
    socket::{Buffers, Origin, Socket, Train},
};

/// How often idle flows are looked for, while there are flows.
const TICK: Duration = Duration::from_secs(5);
/// A router that shall stop does so once no packet has come for so long …
const QUIET: Duration = Duration::from_secs(3);
/// … or after so long in any case: less than the 30 s that Kubernetes grants.
const DRAIN: Duration = Duration::from_secs(20);
/// Batches after which others get their turn.
const TURN: u32 = 4;

/// The router at work.
pub struct Forwarder {
    listen: Rc<Socket>,
    buffers: Rc<RefCell<Buffers>>,
    core: Core,
}

/// All of it but the listening socket's reading side.
struct Core {
    listen: Rc<Socket>,
    buffers: Rc<RefCell<Buffers>>,
    counters: Arc<Counters>,
    router: Router,
    gate: GateFolder,
    upstreams: Vec<Option<Upstream>>,
    held: Held,
    heard: Instant,
}

/// A flow's way to its sidecar; its task ends with it.
struct Upstream {
    socket: Rc<Socket>,
    sidecar: SocketAddr,
    local: Rc<Cell<Option<IpAddr>>>,
    replies: AbortHandle,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.replies.abort();
    }
}

impl Forwarder {
    /// Binds the socket that clients send to.
    ///
    /// # Errors
    /// Where the address can't be bound.
    pub fn bind(
        address: SocketAddr,
        router: Router,
        gate: GateFolder,
        counters: Arc<Counters>,
    ) -> io::Result<Self> {
        let listen = Rc::new(Socket::listen(address)?);
        let buffers = Rc::new(RefCell::new(Buffers::default()));
        let core = Core {
            listen: Rc::clone(&listen),
            buffers: Rc::clone(&buffers),
            counters,
            router,
            gate,
            upstreams: Vec::new(),
            held: Held::default(),
            heard: Instant::now(),
        };
        core.count();
        Ok(Self { listen, buffers, core })
    }

    /// Where clients send to.
    ///
    /// # Errors
    /// As getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listen.local_addr()
    }

    /// Forwards until told to stop (or until whoever could tell is gone), and then until clients have gone elsewhere.
    pub async fn run(self, changes: mpsc::Receiver<Change>, stop: oneshot::Receiver<()>) {
        LocalSet::new().run_until(self.serve(changes, stop)).await;
    }

    async fn serve(mut self, mut changes: mpsc::Receiver<Change>, mut stop: oneshot::Receiver<()>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turn = 0;
        loop {
            tokio::select! {
                received = self.listen.receive(&self.buffers, |origin, train| self.core.train(origin, train)) => {
                    if let Err(error) = received {
                        tracing::debug!(%error, "receiving from clients");
                    }
                    turn += 1;
                    if turn % TURN == 0 {
                        yield_now().await;
                    }
                }
                Some(change) = changes.recv() => self.core.change(change),
                _ = tick.tick(), if self.core.router.ticks() => self.core.tick(),
                _ = &mut stop => break,
            }
        }
        self.drain().await;
    }

    /// Goes on for clients that don't know yet that they are routed elsewhere.
    async fn drain(mut self) {
        let mut tick = interval(Duration::from_secs(1));
        let started = Instant::now();
        self.core.heard = started;
        while started.elapsed() < DRAIN && self.core.heard.elapsed() < QUIET {
            tokio::select! {
                _ = self.listen.receive(&self.buffers, |origin, train| self.core.train(origin, train)) => {}
                _ = tick.tick() => {}
            }
        }
    }
}

impl Core {
    /// Forwards a train; one with packets of several flows is taken apart.
    fn train(&mut self, origin: Origin, train: Train<'_>) {
        let now = moment();
        self.heard = now.instant;
        let (mut start, mut last) = (0, None);
        for (place, datagram) in train.bytes.chunks(train.stride).enumerate() {
            let next = self.place(origin, Train { bytes: datagram, ..train }, last, now);
            if next.map(|(_, flow)| flow) != last.map(|(_, flow): (RouteId, FlowId)| flow) {
                self.forward(last, origin, &train, start..place * train.stride);
                start = place * train.stride;
            }
            last = next;
        }
        self.forward(last, origin, &train, start..train.bytes.len());
    }

    /// The flow of one datagram; that of the one before where the route is the same.
    fn place(
        &mut self,
        origin: Origin,
        datagram: Train<'_>,
        last: Option<(RouteId, FlowId)>,
        now: Moment,
    ) -> Option<(RouteId, FlowId)> {
        let client = origin.sender;
        let knock = match Knock::read(datagram.bytes) {
            Ok(knock) => knock,
            Err(reason) => return self.drop(client, reason),
        };
        if last.is_some_and(|(route, _)| route == knock.route) {
            return last;
        }
        let mut verdict = self.router.decide(client, &knock, now);
        if verdict == Verdict::Drop(Reason::TokenForged)
            && let Some(keys) = self.gate.refresh(now.instant)
        {
            self.router.set_keys(keys);
            self.count();
            verdict = self.router.decide(client, &knock, now);
        }
        match verdict {
            Verdict::Forward(flow) => Some((knock.route, flow)),
            Verdict::Open(flow, sidecar) => self.open(flow, client, sidecar).map(|flow| (knock.route, flow)),
            Verdict::Hold => {
                let overflow = self.held.push(knock.route, origin, datagram, now.instant);
                overflow.and_then(|client| self.drop(client, Reason::UnknownRoute))
            }
            Verdict::Drop(reason) => self.drop(client, reason),
        }
    }

    fn drop<T>(&self, client: SocketAddr, reason: Reason) -> Option<T> {
        if self.counters.count(reason, 1) {
            tracing::info!(%reason, %client, count = self.counters.dropped(reason), "dropped");
        }
        None
    }

    fn open(&mut self, flow: FlowId, client: SocketAddr, sidecar: SocketAddr) -> Option<FlowId> {
        let socket = match Socket::connect(sidecar) {
            Ok(socket) => Rc::new(socket),
            Err(error) => {
                self.router.close(flow);
                tracing::debug!(%error, %sidecar, "no socket");
                return self.drop(client, Reason::NoSocket);
            }
        };
        let local = Rc::new(Cell::new(None));
        let replies = Replies {
            upstream: Rc::clone(&socket),
            listen: Rc::clone(&self.listen),
            buffers: Rc::clone(&self.buffers),
            counters: Arc::clone(&self.counters),
            local: Rc::clone(&local),
            client,
        };
        let replies = spawn_local(replies.run()).abort_handle();
        if self.upstreams.len() <= flow.0 {
            self.upstreams.resize_with(flow.0 + 1, || None);
        }
        self.upstreams[flow.0] = Some(Upstream { socket, sidecar, local, replies });
        self.counters.flows_opened.fetch_add(1, Relaxed);
        self.counters.flows.store(self.router.flows() as u64, Relaxed);
        tracing::debug!(%client, %sidecar, flow = flow.0, "flow opened");
        Some(flow)
    }

    /// Sends a part of a train to its flow's sidecar.
    fn forward(
        &self,
        flow: Option<(RouteId, FlowId)>,
        origin: Origin,
        train: &Train<'_>,
        part: std::ops::Range<usize>,
    ) {
        let Some(upstream) = flow.and_then(|(_, flow)| self.upstreams.get(flow.0)?.as_ref()) else { return };
        let Some(bytes) = train.bytes.get(part) else { return };
        upstream.local.set(origin.local);
        let part = Train { bytes, ..*train };
        match upstream.socket.send(upstream.sidecar, None, part) {
            Ok(()) => drop(self.counters.bytes_in.fetch_add(bytes.len() as u64, Relaxed)),
            Err(error) => unsent(&self.counters, &error, part),
        }
    }

    fn change(&mut self, change: Change) {
        let now = moment();
        let closed = self.router.apply(change, now.instant);
        self.close(&closed);
        self.count();
        for (origin, bytes, ecn) in self.held.take(now.instant, |route| self.router.knows(route, now.unix)) {
            self.train(origin, Train { bytes: &bytes, stride: bytes.len(), ecn });
        }
    }

    fn tick(&mut self) {
        let closed = self.router.tick(Instant::now());
        self.close(&closed);
        self.count();
        self.listen.heal();
    }

    /// Tells how much there is of what changes seldom.
    fn count(&self) {
        let (routes, sessions) = self.router.routes();
        self.counters.routes.store(routes as u64, Relaxed);
        self.counters.sessions.store(sessions as u64, Relaxed);
        self.counters.gate_keys.store(self.router.keys() as u64, Relaxed);
    }

    fn close(&mut self, closed: &[FlowId]) {
        for flow in closed {
            if let Some(upstream) = self.upstreams.get_mut(flow.0) {
                *upstream = None;
            }
        }
        self.counters.flows.store(self.router.flows() as u64, Relaxed);
    }
}

/// One flow's way back.
struct Replies {
    upstream: Rc<Socket>,
    listen: Rc<Socket>,
    buffers: Rc<RefCell<Buffers>>,
    counters: Arc<Counters>,
    local: Rc<Cell<Option<IpAddr>>>,
    client: SocketAddr,
}

impl Replies {
    async fn run(self) {
        let mut turn = 0u32;
        loop {
            let mut full = false;
            let received = self.upstream.receive(&self.buffers, |_, train| full |= self.forward(train)).await;
            if let Err(error) = received {
                tracing::debug!(%error, client = %self.client, "receiving from a sidecar");
            }
            if full {
                self.listen.writable().await;
            }
            turn = turn.wrapping_add(1);
            if turn.is_multiple_of(TURN) {
                yield_now().await;
            }
        }
    }

    /// Sends a train to the client; returns whether the listening socket is full.
    fn forward(&self, train: Train<'_>) -> bool {
        match self.listen.send(self.client, self.local.get(), train) {
            Ok(()) => {
                self.counters.bytes_out.fetch_add(train.bytes.len() as u64, Relaxed);
                false
            }
            Err(error) => {
                unsent(&self.counters, &error, train);
                error.kind() == ErrorKind::WouldBlock
            }
        }
    }
}

fn unsent(counters: &Counters, error: &io::Error, train: Train<'_>) {
    let full = error.kind() == ErrorKind::WouldBlock;
    let reason = if full { Reason::Congested } else { Reason::Unsendable };
    if counters.count(reason, train.datagrams()) {
        tracing::debug!(%reason, %error, bytes = train.bytes.len(), stride = train.stride, "dropped");
    }
}

fn moment() -> Moment {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Moment { instant: Instant::now(), unix }
}
