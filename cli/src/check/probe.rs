//! A session on a target of the admin's choice, opened and ended: the one proof that the whole way works. It changes
//! something (a Session comes and goes, the sidecar wakes up), so it is done only where it is asked for.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mirrord_certs::SelfSigned;
use mirrord_protocol::{feature::Feature, reply::Pong, request::Request};
use mirrord_session::Target;
use tokio::time::timeout;

use super::finding::{Finding, Topic};
use crate::{
    exit::{Exit, Problem},
    kubernetes::{
        api::{Lease, Sessions, Wanted},
        server::Server,
    },
    tunnel::{
        Patience,
        ask::{AskError, End},
        dial::Dialler,
    },
};

/// Saying good-bye takes no longer.
const END: Duration = Duration::from_secs(3);
/// A ping takes no longer.
const PING: Duration = Duration::from_secs(5);

/// What a session took, in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Probed {
    pod: String,
    ingress: String,
    created_ms: f64,
    connected_ms: f64,
    ping_ms: f64,
}

/// Opens a session, pings the sidecar, and ends the session.
///
/// # Errors
/// What was in the way.
pub async fn session(server: &Server, namespace: &str, target: &Target) -> Result<Probed, Problem> {
    let internal = |error: &dyn std::fmt::Display| Problem::new(Exit::Internal, format!("no key: {error}"));
    let key = SelfSigned::generate().map_err(|error| internal(&error))?;
    let wanted = Wanted::new(target, Vec::new(), Feature::ALL.to_vec());
    let started = Instant::now();
    let sessions = Sessions::new(server.clone(), Some(namespace));
    let (held, status) = sessions.create(&wanted, &key.public_key()).await?;
    let created_ms = milliseconds(started);
    let connected = async {
        let started = Instant::now();
        let tunnel = Dialler::new(Arc::new(key), Vec::new(), Patience::default()).dial(&status).await?;
        let connected_ms = milliseconds(started);
        let started = Instant::now();
        let pong = timeout(PING, tunnel.ask::<Pong>(&Request::Ping {})).await;
        let ping_ms = milliseconds(started);
        let pod = tunnel.pod().to_owned();
        tunnel.close(END).await;
        match pong {
            Ok(Ok(_)) => {
                Ok(Probed { pod, ingress: status.ingress.clone(), created_ms, connected_ms, ping_ms })
            }
            Ok(Err(AskError::Failed(failure))) => Err(broken(&pod, &failure)),
            Ok(Err(AskError::End(End::Over(reason) | End::Lost(reason)))) => Err(broken(&pod, &reason)),
            Err(_) => Err(broken(&pod, &format!("no answer within {} s", PING.as_secs()))),
        }
    };
    let probed: Result<Probed, Problem> = connected.await;
    let ended = timeout(END, held.end()).await;
    if probed.is_ok() && !matches!(ended, Ok(Ok(()))) {
        let help = format!("kubectl delete session {} -n {namespace}", held.name());
        return Err(Problem::new(Exit::Temporary, "the session works, but could not be deleted").help(help));
    }
    probed
}

fn broken(pod: &str, reason: &dyn std::fmt::Display) -> Problem {
    Problem::new(Exit::Unreachable, format!("the sidecar of pod {pod} doesn't answer: {reason}"))
}

fn milliseconds(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 10_000.0).round() / 10.0
}

/// Judges what came of it.
#[must_use]
pub fn check(namespace: &str, target: &Target, probed: &Result<Probed, Problem>) -> Finding {
    let place = format!("session on {target} -n {namespace}");
    match probed {
        Ok(Probed { pod, ingress, created_ms, connected_ms, ping_ms }) => Topic::Ingress.ok(
            place,
            format!(
                "granted in {created_ms} ms, connected to pod {pod} through {ingress} in {connected_ms} ms, pinged in \
                 {ping_ms} ms, and ended"
            ),
        ),
        Err(problem) => {
            let finding = Topic::Ingress.error(place, problem.message.clone());
            problem.help.iter().fold(finding, |finding, help| finding.fix(help))
        }
    }
}
