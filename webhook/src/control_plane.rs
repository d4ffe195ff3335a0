//! Builds the control plane from its settings and runs it until SIGTERM.
//!
//! Keys first, since everything needs them; then the watches, which run beside the servers. On SIGTERM readiness ends
//! first, so that the API server is sent elsewhere, then the listener closes and requests under way are finished.

use std::{sync::Arc, time::Duration};

use kube::{Api, Client};
use mirrord_certs::{Authority, GateMaster};
use quinn::Endpoint;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

use crate::{
    boot::{self, Boot, enroll::Enroller},
    certificates::{
        bundle::{self, Configuration, Ours},
        secrets::{self, SecretError},
        serving::{Serving, ServingError},
    },
    clock,
    injection::{self, Authorities},
    limit_ranges::LimitRanges,
    metrics::{self, Certificate, metrics},
    server::{
        connections::Bounds,
        health::{self, Health},
        https, routes,
    },
    sessions::{Lifetimes, Sessions, ingress},
    settings::Settings,
};

/// How long Services may go on sending requests to a replica that is no longer ready.
const LEAVE: Duration = Duration::from_secs(4);

/// Why the control plane can't start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No way to the API server.
    #[error("no access to Kubernetes: {0}")]
    Kubernetes(#[from] kube::Error),
    /// A Secret can't be had.
    #[error("{0}")]
    Secret(#[from] SecretError),
    /// No serving certificate.
    #[error("{0}")]
    Serving(#[from] ServingError),
    /// A socket or a signal handler can't be had.
    #[error("{what}: {error}")]
    System {
        /// Which.
        what: &'static str,
        /// Why.
        error: std::io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> RunError {
    move |error| RunError::System { what, error }
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// See [`RunError`].
pub async fn run(settings: Settings) -> Result<(), RunError> {
    let signals = (
        signal(SignalKind::terminate()).map_err(system("SIGTERM"))?,
        signal(SignalKind::interrupt()).map_err(system("SIGINT"))?,
    );
    // kube's TLS asks for the process-wide provider; a second installation would say so, and there is none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_default().await?;
    let keys = Keys::load(&client, &settings).await?;
    let expiry = i64::try_from(keys.authority.not_after()).unwrap_or(i64::MAX);
    metrics().cluster.certificate_expiry.of(Certificate::Authority).set(expiry);
    let serving = Serving::new(keys.authority.clone(), &settings.service, &settings.namespace, clock::now())?;
    let tls = serving.tls()?;
    let listener = TcpListener::bind(settings.listen).await.map_err(system("the HTTPS listener"))?;
    let health_listener =
        TcpListener::bind(settings.health_listen).await.map_err(system("the health listener"))?;
    let endpoint = boot::channel::endpoint().map_err(system("the UDP socket of the boot channel"))?;

    let (stopping_tx, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { serving.keep_fresh().await });
    let known = follow(&mut tasks, &client, &settings, &keys, stopping.clone());
    let health = Health {
        configuration: known.configuration.clone(),
        limit_ranges: known.limit_ranges_known.clone(),
        stopping,
    };
    tasks.spawn(health::serve(health_listener, health, metrics::registry()));
    let path_key = keys.authority.webhook_path_key();
    let answerers = answerers(&mut tasks, client, &settings, keys, known, endpoint);
    tracing::info!(address = %settings.listen, version = env!("CARGO_PKG_VERSION"), "serving");

    let (drain_tx, drain_rx) = watch::channel(false);
    tasks.spawn(stop(signals, stopping_tx, drain_tx));
    https::serve(listener, tls, routes::router(answerers, path_key), Bounds::default(), drain_rx).await;
    tasks.shutdown().await;
    Ok(())
}

/// Waits for a signal, then ends readiness, and the server a little later.
async fn stop(
    mut signals: (Signal, Signal),
    stopping_tx: watch::Sender<bool>,
    drain_tx: watch::Sender<bool>,
) {
    tokio::select! {
        _ = signals.0.recv() => {}
        _ = signals.1.recv() => {}
    }
    tracing::info!("stopping");
    stopping_tx.send_replace(true);
    clock::pause(LEAVE).await;
    drain_tx.send_replace(true);
}

/// Starts telling sidecars, and puts together who answers the API server.
fn answerers(
    tasks: &mut JoinSet<()>,
    client: Client,
    settings: &Settings,
    keys: Keys,
    known: Known,
    endpoint: Endpoint,
) -> routes::Answerers {
    let Keys { authority, gate } = keys;
    let enroller = Enroller { client: client.clone(), authority: authority.clone(), gate: gate.clone() };
    let bounds = boot::Bounds { grace: settings.session_grace_seconds, per_user: settings.sessions_per_user };
    let (boot, prepare) = Boot::new(enroller, endpoint, known.configuration.clone(), bounds);
    let crowd = boot.crowd();
    tasks.spawn(boot.run());
    routes::Answerers {
        injection: injection_settings(settings, &authority),
        limit_ranges: known.limit_ranges,
        sessions: Sessions {
            client,
            lifetimes: Lifetimes {
                ttl: settings.session_ttl_seconds,
                deadline: settings.session_deadline_seconds,
            },
            gate,
            authority,
            ingress: known.ingress,
            configuration: known.configuration,
            crowd,
            per_user: settings.sessions_per_user,
            prepare,
        },
    }
}

/// The installation's keys.
struct Keys {
    authority: Arc<Authority>,
    gate: GateMaster,
}

impl Keys {
    async fn load(client: &Client, settings: &Settings) -> Result<Self, SecretError> {
        let secrets = Api::namespaced(client.clone(), &settings.namespace);
        let authority = Arc::new(secrets::authority(&secrets, &settings.ca_secret, clock::now()).await?);
        let gate = secrets::gate_key(&secrets, &settings.gate_secret).await?;
        Ok(Self { authority, gate })
    }
}

/// What the watches know.
struct Known {
    configuration: watch::Receiver<Configuration>,
    ingress: watch::Receiver<Option<Arc<str>>>,
    limit_ranges: Arc<LimitRanges>,
    limit_ranges_known: watch::Receiver<bool>,
}

/// Starts the watches. While `stopping` they look on and write nothing.
fn follow(
    tasks: &mut JoinSet<()>,
    client: &Client,
    settings: &Settings,
    keys: &Keys,
    stopping: watch::Receiver<bool>,
) -> Known {
    let (configuration_tx, configuration) = watch::channel(Configuration::default());
    let api = Api::all(client.clone());
    let name = settings.webhook_configuration.clone();
    let ours = Ours {
        authority_pem: keys.authority.certificate_pem().to_owned(),
        path_key: keys.authority.webhook_path_key(),
    };
    tasks.spawn(async move { bundle::keep(api, &name, &ours, &stopping, &configuration_tx).await });

    let (ingress_tx, ingress) = watch::channel(settings.ingress_address.as_deref().map(Arc::from));
    if settings.ingress_address.is_none() {
        let (api, name) =
            (Api::namespaced(client.clone(), &settings.namespace), settings.ingress_service.clone());
        tasks.spawn(async move { ingress::follow(api, &name, &ingress_tx).await });
    }

    let limit_ranges = Arc::new(LimitRanges::default());
    let (known_tx, limit_ranges_known) = watch::channel(false);
    let (ranges, client) = (limit_ranges.clone(), client.clone());
    tasks.spawn(async move { ranges.follow(client, &known_tx).await });
    Known { configuration, ingress, limit_ranges, limit_ranges_known }
}

fn injection_settings(settings: &Settings, authority: &Authority) -> injection::Settings {
    let authorities = Authorities::new(&[authority.certificate()]);
    let mut injection = injection::Settings::new(&settings.agent_image, &settings.namespace, authorities);
    injection.pull_policy = settings.agent_pull_policy.into();
    injection.log_format = settings.log_format;
    injection
}
