//! Tells sidecars which sessions to serve: what was read back from the API server's store, and nothing else.
//!
//! Each replica watches all Sessions, computes what each sidecar should know, and tends those that have sessions. All
//! that is told is idempotent and ordered by resource version, so replicas need not know of each other.
//!
//! | module | what it does |
//! |---|---|
//! | [`desired`] | stored Sessions → what each sidecar should know: pure |
//! | `watch` | follows the stored Sessions |
//! | `tend` | one sidecar, for as long as it has sessions |
//! | [`enroll`] | proves a sidecar and gives it its certificate |
//! | `report` | what sidecars say they did |
//! | `news` | tells people of starts and ends |
//! | [`channel`] | one connection |

pub mod channel;
pub mod desired;
pub mod enroll;

mod news;
mod report;
mod tend;
mod watch;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use kube::{
    Api, Client, Error, ResourceExt,
    api::{DeleteParams, Preconditions},
};
use mirrord_certs::UnixTime;
use mirrord_protocol::route::RouteId;
use mirrord_session::Session;
use quinn::Endpoint;
use tokio::{
    sync::{mpsc, watch as state},
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use self::{
    desired::{Change, Desired, Rules, Twin},
    enroll::Enroller,
    tend::{Hub, Order, Tending},
};
use crate::{
    certificates::bundle::Configuration,
    clock,
    events::Events,
    metrics::metrics,
    sessions::{crowd::Crowd, sidecars::Serving},
};

/// How often time itself is looked at: for expiry, and what is left to delete.
const TICK: Duration = Duration::from_secs(20);
/// How long a sidecar that was woken up waits for its session to be stored.
const HOLD: Duration = Duration::from_secs(10);
/// Sidecars to be woken up that may wait here; beyond, they are only told later.
const PREPARED: usize = 256;

/// Wakes sidecars up before their session is stored: they are proved and get their certificates while the answer is
/// on its way to the client. Tells them nothing about sessions.
#[derive(Clone)]
pub struct Prepare {
    twin_tx: mpsc::Sender<Twin>,
}

impl Prepare {
    /// Wakes up what will serve a session.
    pub fn wake(&self, namespace: &str, pod: &Serving) {
        let Ok(address) = pod.address.parse() else { return };
        let twin = Twin {
            route: pod.route,
            address: SocketAddr::new(address, pod.port),
            namespace: namespace.to_owned(),
            pod: pod.name.clone(),
            pod_uid: pod.uid.clone(),
        };
        // Where too many wait, this one will be woken by its session.
        let _ = self.twin_tx.try_send(twin);
    }
}

/// Which stored Sessions are told about, besides that our admission was in force.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long an expired Session is kept, in seconds.
    pub grace: u64,
    /// How many of one user's Sessions in a namespace count.
    pub per_user: usize,
}

/// The part of the control plane that tells sidecars.
pub struct Boot {
    client: Client,
    hub: Arc<Hub>,
    configuration: state::Receiver<Configuration>,
    bounds: Bounds,
    crowd_tx: state::Sender<Crowd>,
    prepared_rx: mpsc::Receiver<Twin>,
    desired: Desired,
    told: HashMap<RouteId, Told>,
    tasks: JoinSet<()>,
}

/// A sidecar that is tended.
struct Told {
    order_tx: state::Sender<Order>,
    task: AbortHandle,
}

impl Boot {
    /// Prepares; nothing happens before [`Self::run`].
    #[must_use]
    pub fn new(
        enroller: Enroller,
        endpoint: Endpoint,
        configuration: state::Receiver<Configuration>,
        bounds: Bounds,
    ) -> (Self, Prepare) {
        let (twin_tx, prepared_rx) = mpsc::channel(PREPARED);
        let boot = Self {
            client: enroller.client.clone(),
            hub: Arc::new(Hub { endpoint, events: Arc::new(Events::new(enroller.client.clone())), enroller }),
            configuration,
            bounds,
            crowd_tx: state::Sender::default(),
            prepared_rx,
            desired: Desired::default(),
            told: HashMap::new(),
            tasks: JoinSet::new(),
        };
        (boot, Prepare { twin_tx })
    }

    /// How many Sessions each user has, kept up to date while it runs.
    #[must_use]
    pub fn crowd(&self) -> state::Receiver<Crowd> {
        self.crowd_tx.subscribe()
    }

    /// Follows the stored Sessions and tells sidecars, for ever.
    pub async fn run(mut self) {
        let (change_tx, mut change_rx) = mpsc::channel(256);
        let watching = tokio::spawn(watch::follow(Api::all(self.client.clone()), change_tx));
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                change = change_rx.recv() => {
                    let Some(change) = change else { break };
                    let listed = matches!(change, Change::Listed(..));
                    let news = self.desired.apply(change);
                    news::tell(&self.hub.events, news, clock::now(), self.rules());
                    if listed {
                        self.collect_garbage();
                    }
                }
                Some(twin) = self.prepared_rx.recv() => self.wake(twin),
                Some(_) = self.tasks.join_next() => self.told.retain(|_, told| !told.task.is_finished()),
                Ok(()) = self.configuration.changed() => {}
                _ = ticks.tick() => self.collect_garbage(),
            }
            self.reconcile();
        }
        watching.abort();
    }

    fn rules(&self) -> Rules {
        let Bounds { grace, per_user } = self.bounds;
        Rules { configuration: *self.configuration.borrow(), grace, per_user }
    }

    /// Gives each sidecar its order, where that has changed.
    fn reconcile(&mut self) {
        let now = clock::now();
        let mut wanted = self.desired.twins(now, self.rules());
        self.crowd_tx.send_replace(self.desired.crowd(now, self.rules()));
        let revision = self.desired.revision();
        for (route, told) in &self.told {
            let sessions = wanted.remove(route).map(|(_, sessions)| sessions).unwrap_or_default();
            told.order_tx.send_if_modified(|order| {
                let changed = *order.sessions != *sessions;
                if changed {
                    order.sessions = sessions.into();
                    order.revision = revision;
                }
                changed
            });
        }
        for (twin, sessions) in std::mem::take(&mut wanted).into_values() {
            self.tend(twin, Order { revision, sessions: sessions.into(), hold_until: None });
        }
        self.count(now);
    }

    fn count(&self, now: UnixTime) {
        let (stored, live) = self.desired.counts(now, self.rules());
        let gauges = &metrics().boot;
        for (gauge, count) in
            [(&gauges.stored, stored), (&gauges.live, live), (&gauges.tended, self.told.len())]
        {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    fn wake(&mut self, twin: Twin) {
        let hold_until = Some(Instant::now() + HOLD);
        match self.told.get(&twin.route) {
            Some(told) => {
                told.order_tx.send_modify(|order| order.hold_until = hold_until);
            }
            None => self.tend(twin, Order { hold_until, ..Order::default() }),
        }
    }

    fn tend(&mut self, twin: Twin, order: Order) {
        let route = twin.route;
        let (order_tx, order_rx) = state::channel(order);
        let task = self.tasks.spawn(Tending::new(self.hub.clone(), twin).run(order_rx));
        self.told.insert(route, Told { order_tx, task });
    }

    /// Deletes Sessions that are over. Both replicas do: who comes second finds nothing.
    fn collect_garbage(&self) {
        let garbage = self.desired.garbage(clock::now(), self.rules());
        let mut by_namespace: BTreeMap<String, Vec<(String, DeleteParams)>> = BTreeMap::new();
        for session in garbage {
            // A renewal that comes first wins.
            let preconditions =
                Preconditions { uid: session.uid(), resource_version: session.resource_version() };
            let params = DeleteParams::default().preconditions(preconditions);
            by_namespace
                .entry(session.namespace().unwrap_or_default())
                .or_default()
                .push((session.name_any(), params));
        }
        if by_namespace.is_empty() {
            return;
        }
        let client = self.client.clone();
        tokio::spawn(async move {
            for (namespace, sessions) in by_namespace {
                let api: Api<Session> = Api::namespaced(client.clone(), &namespace);
                for (name, params) in sessions {
                    match api.delete(&name, &params).await {
                        Ok(_) => tracing::info!(namespace, session = name, "over: deleted"),
                        Err(Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                        Err(error) => tracing::warn!(namespace, session = name, "can't be deleted: {error}"),
                    }
                }
            }
        });
    }
}
