//! Builds the control plane from its settings and runs it until SIGTERM.
//!
//! Keys first, since everything needs them; then the watches, which run beside the servers. On SIGTERM readiness ends
//! first, so that the API server is sent elsewhere, then the listener closes and requests under way are finished.

use std::{sync::Arc, time::Duration};

use kube::{Api, Client};
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
        bundle::{Bundle, Configuration},
        keep::{Keeper, Names},
        keys::Keyring,
        secrets::SecretError,
        serving::{Serving, ServingError},
    },
    clock,
    injection::{self, Authorities},
    limit_ranges::LimitRanges,
    metrics,
    server::{
        connections::Bounds,
        health::{self, Health},
        https, routes,
    },
    sessions::{GATE_LEEWAY, Lifetimes, Sessions, ingress},
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
    let secrets = Api::namespaced(client.clone(), &settings.namespace);
    let names = Names {
        authority: settings.ca_secret.clone(),
        gate: settings.gate_secret.clone(),
        supply: settings.supplied_ca_secret.clone(),
    };
    // A session's token is made anew with each renewal; the last one outlives it.
    let token_life = settings.session_ttl_seconds + GATE_LEEWAY;
    let keeper = Keeper::load(secrets, names, token_life, clock::now()).await?;
    let keyring = keeper.keyring();
    let serving = Serving::new(keyring.clone(), &settings.service, &settings.namespace, clock::now())?;
    let tls = serving.tls()?;
    let listener = TcpListener::bind(settings.listen).await.map_err(system("the HTTPS listener"))?;
    let health_listener =
        TcpListener::bind(settings.health_listen).await.map_err(system("the health listener"))?;
    let endpoint = boot::channel::endpoint().map_err(system("the UDP socket of the boot channel"))?;

    let (stopping_tx, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(keeper.clone().run(stopping.clone()));
    let known = follow(&mut tasks, &client, &settings, keeper, stopping.clone());
    let health = Health {
        configuration: known.configuration.clone(),
        limit_ranges: known.limit_ranges_known.clone(),
        stopping,
    };
    tasks.spawn(health::serve(health_listener, health, metrics::registry()));
    let answerers = answerers(&mut tasks, client, &settings, keyring.clone(), known, endpoint);
    tracing::info!(address = %settings.listen, version = env!("CARGO_PKG_VERSION"), "serving");

    let (drain_tx, drain_rx) = watch::channel(false);
    tasks.spawn(stop(signals, stopping_tx, drain_tx));
    https::serve(listener, tls, routes::router(answerers, keyring), Bounds::default(), drain_rx).await;
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
    keyring: Keyring,
    known: Known,
    endpoint: Endpoint,
) -> routes::Answerers {
    let enroller = Enroller { client: client.clone(), keyring: keyring.clone() };
    let bounds = boot::Bounds { grace: settings.session_grace_seconds, per_user: settings.sessions_per_user };
    let (boot, prepare) = Boot::new(enroller, endpoint, known.configuration.clone(), bounds);
    let crowd = boot.crowd();
    tasks.spawn(boot.run());
    routes::Answerers {
        injection: injection_settings(tasks, settings, keyring.clone()),
        limit_ranges: known.limit_ranges,
        sessions: Sessions {
            client,
            lifetimes: Lifetimes {
                ttl: settings.session_ttl_seconds,
                deadline: settings.session_deadline_seconds,
            },
            keyring,
            ingress: known.ingress,
            configuration: known.configuration,
            crowd,
            per_user: settings.sessions_per_user,
            prepare,
        },
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
    keeper: Arc<Keeper>,
    stopping: watch::Receiver<bool>,
) -> Known {
    let (configuration_tx, configuration) = watch::channel(Configuration::default());
    let name = settings.webhook_configuration.clone();
    let bundle = Bundle { api: Api::all(client.clone()), name, keeper, stopping };
    tasks.spawn(async move { bundle.keep(&configuration_tx).await });

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

/// What is put into pods. They trust the authority of the day that they are made.
fn injection_settings(
    tasks: &mut JoinSet<()>,
    settings: &Settings,
    mut keyring: Keyring,
) -> injection::Settings {
    let authorities = Authorities::new(&[keyring.seen().authority.certificate()]);
    let mut injection = injection::Settings::new(&settings.agent_image, &settings.namespace, authorities);
    injection.pull_policy = settings.agent_pull_policy.into();
    injection.log_format = settings.log_format;
    let authorities = injection.authorities.clone();
    tasks.spawn(async move {
        loop {
            keyring.changed().await;
            authorities.replace(&[keyring.seen().authority.certificate()]);
        }
    });
    injection
}
