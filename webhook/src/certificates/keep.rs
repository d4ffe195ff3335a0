//! Follows the two Secrets for as long as the control plane runs: takes on what others put there, and rotates when it is time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    runtime::{WatchStreamExt, watcher::watch_object},
};
use mirrord_certs::{Authority, UnixTime};
use tokio::sync::watch;

use super::{
    keys::{Keyring, Keys},
    rotation::{self, Maker, Marks, Step},
    secrets::{self, SecretError},
};
use crate::{
    clock,
    metrics::{Certificate, Watch, metrics},
};

/// How often to look at least. (Clocks jump; a timer over months would not notice.)
const LOOK: Duration = Duration::from_secs(3600);
/// How often to look for an authority without which nothing can begin.
const LACKING: Duration = Duration::from_secs(2);
/// After so long a failed look is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Where the keys are kept.
#[derive(Clone, Debug)]
pub struct Names {
    /// The authority's Secret.
    pub authority: String,
    /// The gate keys' Secret.
    pub gate: String,
    /// The Secret by which others supply authorities, where they do.
    pub supply: Option<String>,
}

/// Keeps the keys.
pub struct Keeper {
    api: Api<Secret>,
    names: Names,
    token_life: u64,
    keys_tx: watch::Sender<Arc<Keys>>,
}

/// Both Secrets.
struct Pair {
    authority: Secret,
    gate: Secret,
}

impl Keeper {
    /// Reads the keys, or makes them. `token_life`: how long a gate token lives at most, in seconds.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub async fn load(
        api: Api<Secret>,
        names: Names,
        token_life: u64,
        now: UnixTime,
    ) -> Result<Arc<Self>, SecretError> {
        // Where there is one already, it serves until a supply that can be used takes over.
        let make = async || match &names.supply {
            Some(supply) => first(&api, supply).await,
            None => Ok(Authority::create(now)?),
        };
        let authority = secrets::authority(&api, &names.authority, make).await?;
        let gate = secrets::gate(&api, &names.gate).await?;
        let keys = read(&names, &Pair { authority, gate })?;
        expires(&keys);
        Ok(Arc::new(Self { api, names, token_life, keys_tx: watch::Sender::new(Arc::new(keys)) }))
    }

    /// Where to ask for the keys.
    #[must_use]
    pub fn keyring(&self) -> Keyring {
        Keyring::new(self.keys_tx.subscribe())
    }

    /// The keys as they are now.
    #[must_use]
    pub fn keys(&self) -> Arc<Keys> {
        self.keys_tx.borrow().clone()
    }

    /// Keeps the keys until this replica is to stop: from then on those who stay decide.
    pub async fn run(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        let Names { authority, gate, supply } = &self.names;
        let names = [Some(authority), Some(gate), supply.as_ref()].into_iter().flatten();
        let changes = stream::select_all(names.map(|name| self.changes(name).boxed()));
        let mut changes = std::pin::pin!(changes);
        loop {
            let wait = match self.look(clock::now()).await {
                Ok(due) => Duration::from_secs(due.saturating_sub(clock::now())).clamp(RETRY / 10, LOOK),
                Err(error) => {
                    tracing::error!("the keys stay as they are: {error}");
                    RETRY
                }
            };
            tokio::select! {
                Some(()) = changes.next() => {}
                () = clock::pause(wait) => {}
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
        }
    }

    fn changes(&self, name: &str) -> impl Stream<Item = ()> {
        watch_object(self.api.clone(), name).default_backoff().map(|change| {
            if let Err(error) = change {
                metrics().cluster.watch_restarts.of(Watch::Secrets).inc();
                tracing::warn!("our Secrets can't be watched: {error}");
            }
        })
    }

    /// Takes on what the Secrets hold.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub async fn refresh(&self) -> Result<(), SecretError> {
        self.read().await.map(|_| ())
    }

    async fn read(&self) -> Result<Pair, SecretError> {
        let Names { authority, gate, .. } = &self.names;
        let (authority, gate) =
            futures::future::try_join(secrets::get(&self.api, authority), secrets::get(&self.api, gate))
                .await?;
        let pair = Pair { authority, gate };
        let found = read(&self.names, &pair)?;
        self.keys_tx.send_if_modified(|keys| {
            let changed = !is_same(keys, &found);
            if changed {
                tracing::info!("the keys are others now");
                expires(&found);
                *keys = Arc::new(found);
            }
            changed
        });
        Ok(pair)
    }

    /// Takes on what the Secrets hold, does what is due, and returns when to look again.
    async fn look(&self, now: UnixTime) -> Result<UnixTime, SecretError> {
        let Pair { authority, gate } = self.read().await?;
        let keys = self.keys();
        let supplied = self.supplied(now).await;
        let maker = supplied.as_ref().map_or(Maker::Own, |supplied| Maker::Others(supplied.as_ref()));
        let marks = Marks::of(&authority);
        if supplied.is_some() && marks.is_asked() {
            tracing::warn!("authorities are supplied: to have another, renew it where it comes from");
        }
        let authority_due = async {
            let step = rotation::authority(&keys, marks, maker, now)?;
            self.done(authority, step, now).await
        };
        let gate_due = async {
            let step = rotation::gate(&keys.gate, Marks::of(&gate), self.token_life, now);
            self.done(gate, step.ok_or(SecretError::NoRandomness)?, now).await
        };
        // What keeps one from its step is nothing to the other.
        let (authority_due, gate_due) = (authority_due.await, gate_due.await);
        Ok(authority_due?.min(gate_due?))
    }

    /// What others supply, where they do; inside, `None` where that can't be used: what is in use stays.
    async fn supplied(&self, now: UnixTime) -> Option<Option<Authority>> {
        let name = self.names.supply.as_ref()?;
        match secrets::supply(&self.api, name, now).await {
            Ok(supplied) => Some(Some(supplied)),
            Err(error) => {
                tracing::error!("the authority stays as it is: {error}");
                Some(None)
            }
        }
    }

    /// Does a step; returns when to look again. What is written here is taken on when the watch tells of it, as by all
    /// replicas.
    async fn done(&self, mut secret: Secret, step: Step, now: UnixTime) -> Result<UnixTime, SecretError> {
        let data = match step {
            Step::Wait(until) => return Ok(until),
            Step::Write(data) => data,
        };
        secret.data = Some(data);
        Marks::done(&mut secret, now);
        if secrets::replace(&self.api, &secret).await? {
            let name = secret.metadata.name.as_deref().unwrap_or_default();
            tracing::info!(secret = name, "keys rotated");
            metrics().cluster.rotations.inc();
        }
        Ok(now)
    }
}

/// Waits until others supply an authority.
async fn first(api: &Api<Secret>, name: &str) -> Result<Authority, SecretError> {
    loop {
        match secrets::supply(api, name, clock::now()).await {
            Err(error @ SecretError::Supply { .. }) => tracing::warn!("waiting: {error}"),
            answer => return answer,
        }
        clock::pause(LACKING).await;
    }
}

fn read(names: &Names, pair: &Pair) -> Result<Keys, SecretError> {
    let unusable = |name: &str| {
        let name = name.to_owned();
        move |what| SecretError::Unusable { name, what }
    };
    let none = BTreeMap::new();
    let Pair { authority, gate } = pair;
    let (authority, path_key) = secrets::read_authority(authority.data.as_ref().unwrap_or(&none))
        .map_err(unusable(&names.authority))?;
    let gate = secrets::read_gate(gate.data.as_ref().unwrap_or(&none)).map_err(unusable(&names.gate))?;
    Ok(Keys { authority, gate, path_key })
}

fn is_same(one: &Keys, other: &Keys) -> bool {
    let all = |keys: &Keys| {
        let gate = [Some(&keys.gate.current), keys.gate.next.as_ref(), keys.gate.previous.as_ref()];
        (
            keys.authority.trusted_pem(),
            keys.authority.cross_pem(),
            keys.path_key.clone(),
            gate.map(|key| key.map(|key| *key.as_bytes())),
        )
    };
    all(one) == all(other)
}

fn expires(keys: &Keys) {
    let expiry = i64::try_from(keys.authority.not_after()).unwrap_or(i64::MAX);
    metrics().cluster.certificate_expiry.of(Certificate::Authority).set(expiry);
}
