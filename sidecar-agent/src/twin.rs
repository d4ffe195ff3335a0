//! What all connections of an awake sidecar share.

use std::sync::{Arc, Mutex, PoisonError};

use mirrord_certs::{SelfSigned, UnixTime};
use mirrord_protocol::{limits::HELLOS_WAITING, route::RouteId};
use rustls::pki_types::{self, CertificateDer, ServerName};
use tokio::sync::{Semaphore, watch};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::{
    counts::Counts,
    gate::Gate,
    identity::Identity,
    ids::ResetKey,
    session::Connections,
    sessions::Sessions,
    view::{Eyes, Views},
    worker::{Diary, Memory},
};

/// A certificate that ends so soon doesn't count as installed, in seconds.
const RENEW_BEFORE: u64 = 3600;
/// Look-ups at once; more wait, so that a slow name server never takes all threads from files.
const LOOKUPS: usize = 4;
/// Listings at once, for the same reason: each holds a thread until its client has read it.
pub(crate) const LISTINGS: usize = 3;

/// What all connections share.
pub(crate) struct Twin {
    pub(crate) identity: Identity,
    pub(crate) key: SelfSigned,
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) reset_key: Arc<ResetKey>,
    pub(crate) windows: mirrord_tunnel::setup::Windows,
    pub(crate) views: Views,
    /// Whom we serve; each connection watches it.
    pub(crate) sessions: watch::Sender<Sessions>,
    /// Connections of announced sessions.
    pub(crate) connections: Connections,
    /// Connections that wait to be announced.
    pub(crate) hellos: Semaphore,
    pub(crate) lookups: Semaphore,
    pub(crate) listings: Semaphore,
    /// What was done, for the control plane's metrics.
    pub(crate) counts: Counts,
    installed: Mutex<Option<Installed>>,
    memory: Mutex<Memory>,
    diary: Diary,
}

/// What the control plane installed.
#[derive(Clone)]
pub(crate) struct Installed {
    /// Leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// How sessions are accepted with it.
    pub(crate) server: Arc<quinn::ServerConfig>,
}

/// What a new [`Twin`] is made of.
pub(crate) struct Parts {
    pub(crate) identity: Identity,
    pub(crate) key: SelfSigned,
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) reset_key: Arc<ResetKey>,
    pub(crate) windows: mirrord_tunnel::setup::Windows,
    pub(crate) views: Views,
    pub(crate) memory: Memory,
    pub(crate) diary: Diary,
}

impl Twin {
    pub(crate) fn new(parts: Parts) -> Self {
        let counts = Counts::default();
        counts.wakes.add(1);
        let Parts { identity, key, authorities, gate, reset_key, windows, views, memory, diary } = parts;
        Self {
            identity,
            key,
            authorities,
            gate,
            reset_key,
            windows,
            views,
            sessions: watch::Sender::new(Sessions::after(memory.revision)),
            connections: Connections::default(),
            hellos: Semaphore::new(HELLOS_WAITING),
            lookups: Semaphore::new(LOOKUPS),
            listings: Semaphore::new(LISTINGS),
            counts,
            installed: Mutex::new(None),
            memory: Mutex::new(memory),
            diary,
        }
    }

    /// What is installed.
    pub(crate) fn installed(&self) -> Option<Installed> {
        self.installed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Serves sessions with this from now on.
    pub(crate) fn install(&self, installed: Installed) {
        *self.installed.lock().unwrap_or_else(PoisonError::into_inner) = Some(installed);
    }

    /// Changes what outlives this worker.
    pub(crate) fn note(&self, change: impl FnOnce(&mut Memory)) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *memory;
        change(&mut memory);
        if *memory != before {
            self.diary.note(*memory);
        }
    }

    /// Whether clients would accept the installed certificate, now and a while longer.
    pub(crate) fn is_installed(&self, now: UnixTime) -> bool {
        let installed = self.installed();
        installed.is_some_and(|installed| {
            is_valid(
                &installed.chain,
                &self.authorities,
                self.identity.route,
                now.saturating_add(RENEW_BEFORE),
            )
        })
    }
}

/// Runs work that may block, on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    // Fails only where the runtime stops or the work panicked: there is no answer then.
    tokio::task::spawn_blocking(work).await.ok()
}

/// Runs work on the best view there is.
pub(crate) async fn look<T: Send + 'static>(
    twin: &Arc<Twin>,
    work: impl FnOnce(&Eyes) -> T + Send + 'static,
) -> Option<T> {
    let twin = Arc::clone(twin);
    blocking(move || work(&twin.views.current(std::time::Instant::now()))).await
}

fn is_valid(
    chain: &[CertificateDer<'_>],
    authorities: &[CertificateDer<'_>],
    route: RouteId,
    at: UnixTime,
) -> bool {
    let Some((leaf, intermediates)) = chain.split_first() else { return false };
    let Ok(leaf) = EndEntityCert::try_from(leaf) else { return false };
    let Ok(name) = ServerName::try_from(route.server_name()) else { return false };
    let anchors: Vec<_> =
        authorities.iter().filter_map(|authority| anchor_from_trusted_cert(authority).ok()).collect();
    let at = pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(at));
    let usage = KeyUsage::server_auth();
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
    let path = leaf.verify_for_usage(algorithms, &anchors, intermediates, at, usage, None, None);
    path.is_ok() && leaf.verify_is_valid_for_subject_name(&name).is_ok()
}

#[cfg(test)]
mod tests {
    use mirrord_certs::Authority;

    use super::*;

    const NOW: UnixTime = 1_800_000_000;
    const ROUTE: RouteId = RouteId([1; 8]);

    #[test]
    fn a_certificate_counts_while_clients_would_take_it() {
        let authority = Authority::create(NOW).expect("created");
        let key = SelfSigned::generate().expect("generated");
        let request = key.signing_request().expect("signed");
        let leaf = authority.sidecar(&request, ROUTE, NOW, 7_200).expect("signed");
        let other = Authority::create(NOW).expect("created");
        let ours = [authority.certificate().clone()];
        assert!(is_valid(std::slice::from_ref(&leaf), &ours, ROUTE, NOW));
        assert!(!is_valid(std::slice::from_ref(&leaf), &ours, ROUTE, NOW + 7_300), "ended");
        assert!(!is_valid(std::slice::from_ref(&leaf), &ours, RouteId([2; 8]), NOW), "of another route");
        assert!(
            !is_valid(&[leaf], std::slice::from_ref(other.certificate()), ROUTE, NOW),
            "of another authority"
        );
        assert!(!is_valid(&[], &ours, ROUTE, NOW));
    }
}
