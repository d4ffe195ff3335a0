//! A control plane, in the parts that a test needs.

use std::sync::Arc;

use kube::Client;
use mirrord_certs::{Authority, GateMaster};
use mirrord_webhook::{
    boot::{Boot, Bounds, Prepare, channel, enroll::Enroller},
    certificates::{
        bundle::Configuration,
        keys::{Keyring, Keys},
    },
    injection,
    limit_ranges::LimitRanges,
    server::routes::Answerers,
    sessions::{Lifetimes, Sessions, crowd::Crowd},
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::{sync::watch, task::JoinHandle};

use super::{api_server::ApiServer, now};

/// The name that the webhook's certificate is for.
pub(crate) const NAME: &str = "mirrord-webhook.mirrord.svc";

/// An installation: its API server, its keys and its webhook configuration.
pub(crate) struct Plane {
    pub(crate) api: Arc<ApiServer>,
    pub(crate) client: Client,
    pub(crate) keys_tx: watch::Sender<Arc<Keys>>,
    pub(crate) configuration_tx: watch::Sender<Configuration>,
    /// How many sessions a user may have.
    pub(crate) per_user: usize,
}

impl Plane {
    /// One whose webhook configuration is an hour old.
    pub(crate) async fn start() -> Self {
        let (api, client) = ApiServer::start().await;
        let configuration = Configuration { agrees: true, created: Some(now() - 3600) };
        Self {
            api,
            client,
            keys_tx: watch::Sender::new(Arc::new(keys())),
            configuration_tx: watch::Sender::new(configuration),
            per_user: 64,
        }
    }

    pub(crate) fn keys(&self) -> Arc<Keys> {
        self.keys_tx.borrow().clone()
    }

    pub(crate) fn keyring(&self) -> Keyring {
        Keyring::new(self.keys_tx.subscribe())
    }

    /// What tells sidecars, not running yet.
    pub(crate) fn boot(&self) -> (Boot, Prepare) {
        let enroller = Enroller { client: self.client.clone(), keyring: self.keyring() };
        let bounds = Bounds { grace: 600, per_user: self.per_user };
        Boot::new(enroller, channel::endpoint().unwrap(), self.configuration_tx.subscribe(), bounds)
    }

    /// A replica that tells sidecars.
    pub(crate) fn replica(&self) -> (Prepare, JoinHandle<()>) {
        let (boot, prepare) = self.boot();
        (prepare, tokio::spawn(boot.run()))
    }

    /// What answers reviews of Sessions.
    pub(crate) fn sessions(&self, prepare: Prepare) -> Sessions {
        Sessions {
            client: self.client.clone(),
            lifetimes: Lifetimes { ttl: 300, deadline: 600 },
            keyring: self.keyring(),
            ingress: watch::channel(Some("203.0.113.7:443".into())).1,
            configuration: self.configuration_tx.subscribe(),
            crowd: watch::channel(Crowd::default()).1,
            per_user: self.per_user,
            prepare,
        }
    }

    /// What answers all reviews.
    pub(crate) fn answerers(&self, prepare: Prepare) -> Answerers {
        let authorities = injection::Authorities::new(&[self.keys().authority.certificate()]);
        Answerers {
            injection: injection::Settings::new("registry.example/agent:1", "mirrord", authorities),
            limit_ranges: Arc::new(LimitRanges::default()),
            sessions: self.sessions(prepare),
        }
    }
}

/// Keys of a new installation.
pub(crate) fn keys() -> Keys {
    Keys::new(Authority::create(now()).unwrap(), GateMaster::generate().unwrap())
}

/// TLS of an API server that trusts an authority.
pub(crate) fn tls(authority: &Authority) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}
