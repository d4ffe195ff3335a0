//! What a session may do at this moment.

use std::sync::Arc;

use mirrord_certs::{KeyHash, UnixTime};
use mirrord_protocol::{
    feature::Feature,
    reply::{Failure, FailureCode},
};
use thiserror::Error;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::{
    clock,
    root::Secrets,
    sessions::{Grant, Sessions},
    twin::{self, Twin},
};

/// A session that was announced once.
pub(crate) struct Session {
    twin: Arc<Twin>,
    key: KeyHash,
    /// What the client asked for; it gets no more, whatever is announced.
    wanted: Vec<Feature>,
    /// What is read of files before the client takes it, in KiB.
    ahead: Semaphore,
    /// Folders that it lists at once.
    listings: Semaphore,
}

/// What may be read of files for one connection before its client takes it, in KiB; of the largest read several fit.
const AHEAD_KIB: usize = 8 * 1024;
/// Listings of one connection at once: fewer than all may have, so that others' turn comes.
const LISTINGS: usize = twin::LISTINGS - 1;

/// Why a session is over.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum Ended {
    #[error("was deleted")]
    Deleted,
    #[error("expired: its client did not renew it in time")]
    Expired,
}

impl Session {
    pub(crate) fn new(twin: Arc<Twin>, key: KeyHash, wanted: Vec<Feature>) -> Self {
        Self { twin, key, wanted, ahead: Semaphore::new(AHEAD_KIB), listings: Semaphore::new(LISTINGS) }
    }

    pub(crate) fn twin(&self) -> &Arc<Twin> {
        &self.twin
    }

    pub(crate) fn key(&self) -> KeyHash {
        self.key
    }

    /// Tells of changes of any session.
    pub(crate) fn changes(&self) -> watch::Receiver<Sessions> {
        self.twin.sessions.subscribe()
    }

    /// What is announced for it.
    pub(crate) fn grant(&self, now: UnixTime) -> Result<Grant, Ended> {
        let sessions = self.twin.sessions.borrow();
        let grant = sessions.grant(self.key).ok_or(Ended::Deleted)?;
        if grant.is_live(now) { Ok(grant.clone()) } else { Err(Ended::Expired) }
    }

    /// What is both announced and wanted.
    pub(crate) fn granted(&self, grant: &Grant) -> Vec<Feature> {
        Feature::ALL.into_iter().filter(|feature| self.covers(grant, *feature)).collect()
    }

    fn covers(&self, grant: &Grant, feature: Feature) -> bool {
        grant.features.contains(&feature) && self.wanted.contains(&feature)
    }

    /// Whether it may use a feature now.
    pub(crate) fn check(&self, feature: Feature) -> Result<(), Failure> {
        let refuse = |message| Failure::new(FailureCode::NotGranted, libc::EACCES, message);
        match self.grant(clock::now()) {
            Ok(grant) if self.covers(&grant, feature) => Ok(()),
            Ok(_) => Err(refuse(format!(
                "the session was not granted `{feature}`: it needs the verb {feature} on workloads.mirrord.dev"
            ))),
            Err(ended) => Err(refuse(format!("the session {ended}"))),
        }
    }

    /// What it may see of mounted Secrets now.
    pub(crate) fn secrets(&self) -> Secrets {
        if self.check(Feature::Secrets).is_ok() { Secrets::Shown } else { Secrets::Withheld }
    }

    /// Waits until so many bytes may be read ahead. A client that takes nothing holds up itself only.
    pub(super) async fn share(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let kib = u32::try_from(bytes.div_ceil(1024).min(AHEAD_KIB)).unwrap_or(u32::MAX);
        // Fails only where the semaphore is closed, which nobody does.
        self.ahead.acquire_many(kib).await.ok()
    }

    /// Waits until it may list a further folder.
    pub(super) async fn listing(&self) -> Option<SemaphorePermit<'_>> {
        self.listings.acquire().await.ok()
    }

    /// Ends when it may no longer use a feature.
    pub(crate) async fn revoked(&self, feature: Feature) {
        let mut changes = self.changes();
        while self.check(feature).is_ok() && changes.changed().await.is_ok() {}
    }
}
