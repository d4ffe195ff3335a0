//! A proxy's life: session, tunnel, environment, doors, end.
//!
//! Steps and the result of the start go to stdout, as JSON lines, to the command that started it; after that it has
//! nobody to talk to but its log. It ends when the session is over and no layer asks any more, when it has lingered long
//! enough, or on SIGTERM; each time the Session is deleted, if the API server can be reached.

use std::{
    io::{self, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use mirrord_certs::SelfSigned;
use mirrord_protocol::{control::View, feature::Feature, reply::Environment, request::Request};
use mirrord_session::SessionStatus;
use mirrord_tunnel::framing::Frame;
use serde::{Deserialize, Serialize};
use tokio::{
    net::UnixListener,
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};

use super::{
    control::{Start, Summary},
    door::{Desk, Door},
    folder::Folder,
    holds::Holds,
    job::Job,
    layer::Serving,
};
use crate::{
    exit::{Exit, Problem},
    kubernetes::api::{Lease, Sessions},
    tunnel::{
        Patience,
        ask::{AskError, End, Tunnel},
        dial::Dialler,
        keeper::{Keeper, Stop},
        link::Link,
    },
};

/// How long layers may go on asking after the end, to be told why.
const EPILOGUE: Duration = Duration::from_secs(600);

/// A line on the proxy's stdout.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// A step is done.
    Step(String),
    /// The door is open.
    Ready {},
    /// There will be no proxy.
    Problem(Problem),
}

impl Report {
    /// Tells whoever started us.
    pub fn tell(&self) {
        let Ok(line) = serde_json::to_string(self) else { return };
        // Who started us may have been interrupted.
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

/// A session that stands.
struct Opened {
    lease: Arc<dyn Lease>,
    dialler: Dialler,
    status: SessionStatus,
    tunnel: Tunnel,
    summary: Summary,
    environment: Vec<u8>,
    start: Start,
}

/// Runs a proxy until its end.
///
/// # Errors
/// What was wrong at the start.
pub async fn run(job: Job, folder: Folder) -> Result<(), Problem> {
    let mut terminate = signal(SignalKind::terminate()).map_err(internal)?;
    let opened = tokio::select! {
        opened = open(&job) => opened?,
        _ = terminate.recv() => return Err(Problem::new(Exit::Temporary, "the proxy was told to end while it started")),
    };
    let Opened { lease, dialler, status, tunnel, summary, environment, start } = opened;
    let (keeper, link, stop) = Keeper::new(lease, dialler, status, tunnel);
    let keeper = tokio::spawn(keeper.run());
    let holds = Holds::default();
    let layer = folder.layer(&job.name, std::process::id());
    let _ = std::fs::remove_file(&layer);
    let layers = UnixListener::bind(&layer).map_err(internal)?;
    tokio::spawn(Serving::new(link.clone(), holds.clone()).accept(layers));
    let desk = Desk {
        link: link.clone(),
        holds: holds.clone(),
        stop: stop.clone(),
        layer: layer.clone(),
        summary,
        environment,
        start,
    };
    let (door, commands) = Door::open(&folder, &job.name).map_err(internal)?;
    tokio::spawn(Arc::new(desk).accept(commands));
    Report::Ready {}.tell();
    mute();

    let linger = Duration::from_secs(job.linger_seconds);
    until_end(&link, &holds, &stop, linger, &mut terminate).await;
    // New commands find no door; layers are told why for a while.
    drop(door);
    let _ = keeper.await;
    let _ = timeout(EPILOGUE, holds.free()).await;
    let _ = std::fs::remove_file(&layer);
    Ok(())
}

/// Waits for a reason to end, and ends.
async fn until_end(link: &Link, holds: &Holds, stop: &Stop, linger: Duration, terminate: &mut Signal) {
    let reason = tokio::select! {
        reason = link.over() => reason,
        () = holds.idle(linger) => "its proxy had nothing to do any more".to_owned(),
        _ = terminate.recv() => "its proxy was told to end".to_owned(),
    };
    tracing::info!(reason, "the proxy ends");
    stop.stop(reason);
}

async fn open(job: &Job) -> Result<Opened, Problem> {
    let mut clock = Clock(Instant::now());
    let say = |step: &str| Report::Step(step.to_owned()).tell();
    let server = job.access.server(say).await?;
    let client_ms = clock.lap();
    let key = SelfSigned::generate().map_err(internal)?;
    let sessions = Sessions::new(server.clone(), Some(&job.namespace));
    let public_key = key.public_key();
    let (held, status) = server.patiently(say, sessions.create(&job.wanted, &public_key)).await?;
    let session_ms = clock.lap();
    let summary = summary(job, held.name(), &status);
    Report::Step(format!("granted {} on {}", summary.features.join(", "), summary.target)).tell();
    let features = status.features.iter().filter_map(|verb| verb.parse().ok()).collect();
    let dialler = Dialler::new(Arc::new(key), features, Patience::default());
    let early =
        status.features.iter().any(|verb| verb == Feature::Env.verb()).then_some(Request::Environment {});
    let connected = async {
        let (tunnel, answer) = dialler.dial_asking(&status, early.as_ref()).await?;
        let environment = environment(&tunnel, answer.as_ref())?;
        Report::Step(format!("connected to pod {} through {}", tunnel.pod(), status.ingress)).tell();
        Ok::<_, Problem>((tunnel, environment))
    };
    match connected.await {
        Ok((tunnel, environment)) => {
            let start = Start { client_ms, session_ms, tunnel_ms: clock.lap() };
            let summary = summary.on(&tunnel);
            Ok(Opened { lease: Arc::new(held), dialler, status, tunnel, summary, environment, start })
        }
        Err(problem) => {
            // It serves nobody.
            let _ = timeout(Duration::from_secs(3), held.end()).await;
            Err(problem)
        }
    }
}

/// The pod's environment, at hand for each `exec`.
fn environment(tunnel: &Tunnel, answer: Option<&Frame>) -> Result<Vec<u8>, Problem> {
    let Some(frame) = answer.filter(|_| tunnel.rights().features.contains(&Feature::Env)) else {
        return Ok(Vec::new());
    };
    match tunnel.decode::<Environment>(frame) {
        Ok(_) => Ok(frame.tail.to_vec()),
        Err(AskError::Failed(failure)) => {
            let message = format!("pod {}: its environment can't be had: {failure}", tunnel.pod());
            Err(Problem::new(Exit::Temporary, message).help("try again"))
        }
        Err(AskError::End(End::Over(reason) | End::Lost(reason))) => Err(internal(reason)),
    }
}

fn summary(job: &Job, session: &str, status: &SessionStatus) -> Summary {
    Summary {
        session: session.to_owned(),
        namespace: job.namespace.clone(),
        target: status.workload.replacen('.', "/", 1),
        container: status.container.clone(),
        pod: status.pods.first().map(|pod| pod.name.clone()).unwrap_or_default(),
        features: status.features.clone(),
        without_sidecar: status.without_sidecar.clone(),
        running: status.running,
        injected: status.injected,
        view: View::Unknown,
        obstacle: None,
    }
}

fn internal(error: impl std::fmt::Display) -> Problem {
    Problem::new(Exit::Internal, format!("the proxy can't run: {error}"))
}

/// Lets go of the pipe to whoever started us.
fn mute() {
    if let Ok(nowhere) = std::fs::File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&nowhere);
        let _ = rustix::stdio::dup2_stderr(&nowhere);
    }
}

/// Measures one part after another.
struct Clock(Instant);

impl Clock {
    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let lap = now - std::mem::replace(&mut self.0, now);
        (lap.as_secs_f64() * 10_000.0).round() / 10.0
    }
}
