//! Renews the session, dials again when the connection is lost, and ends both.
//!
//! One task. When to renew and how long to dial are pure functions of the time. Expiry only suspends a session, so a
//! laptop that slept renews first and then dials; a session that was deleted is over at once.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mirrord_session::SessionStatus;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{
    ask::{End, Tunnel},
    dial::Dialler,
    link::{Link, State},
};
use crate::kubernetes::{api::Lease, refusal::Refusal};

/// Between two attempts at least, so that what refuses at once isn't asked in a loop.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a renewal may take before dialling.
const RENEW: Duration = Duration::from_secs(5);
/// Between attempts to renew that failed.
const RENEW_AGAIN: Duration = Duration::from_secs(10);
/// What a connection in doubt gets to answer once another stands: the network is back then, and so may be the sidecar.
const LAST_CHANCE: Duration = Duration::from_millis(500);
/// How long good-byes may take.
const GOOD_BYE: Duration = Duration::from_secs(3);

/// Keeps a link up.
#[derive(Debug)]
pub struct Keeper {
    lease: Arc<dyn Lease>,
    dialler: Dialler,
    status: SessionStatus,
    state: watch::Sender<State>,
    stop: mpsc::Receiver<String>,
    renew_at: Instant,
    renewed: u64,
}

/// What happens to a connection that is up.
enum Event {
    Ended(End),
    Stop(String),
    Doubt,
    Renew,
}

/// Ends a link.
#[derive(Clone, Debug)]
pub struct Stop(mpsc::Sender<String>);

impl Stop {
    /// Ends the session, for a reason that completes "the session ended: …".
    pub fn stop(&self, reason: impl Into<String>) {
        // A full channel means that it is ending already.
        let _ = self.0.try_send(reason.into());
    }
}

impl Keeper {
    /// Takes over a connection that stands.
    #[must_use]
    pub fn new(
        lease: Arc<dyn Lease>,
        dialler: Dialler,
        status: SessionStatus,
        tunnel: Tunnel,
    ) -> (Self, Link, Stop) {
        let (state, receiver) = watch::channel(State::Up(Arc::new(tunnel)));
        let (stop_tx, stop) = mpsc::channel(1);
        let renew_at = Instant::now() + renew_in(&status, unix_time());
        let renewed = unix_time();
        let keeper = Self { lease, dialler, status, state, stop, renew_at, renewed };
        (keeper, Link::new(receiver), Stop(stop_tx))
    }

    /// Runs until the session is over, then says good-bye on both ways.
    pub async fn run(mut self) {
        loop {
            let current = self.state.borrow().clone();
            let next = match current {
                State::Up(tunnel) => self.watch(tunnel).await,
                State::Down(tunnel) => self.reconnect(tunnel).await,
                State::Over(reason) => {
                    tracing::info!(reason, "the session is over");
                    break;
                }
            };
            self.state.send_replace(next);
        }
        if let Ok(Err(refusal)) = timeout(GOOD_BYE, self.lease.end()).await {
            tracing::info!(%refusal, "the session could not be deleted");
        }
    }

    /// While it is up: renews when it is time, and waits for its end.
    async fn watch(&mut self, tunnel: Arc<Tunnel>) -> State {
        let reason = loop {
            let event = tokio::select! {
                end = tunnel.closed() => Event::Ended(end),
                reason = self.stop.recv() => Event::Stop(reason.unwrap_or_default()),
                () = tunnel.doubted() => Event::Doubt,
                () = sleep_until(self.renew_at) => Event::Renew,
            };
            match event {
                Event::Ended(End::Over(reason)) => return State::Over(reason),
                Event::Ended(End::Lost(reason)) => {
                    tracing::warn!(reason, pod = tunnel.pod(), "the connection was lost");
                    return State::Down(tunnel);
                }
                Event::Stop(reason) => break reason,
                Event::Doubt => {
                    if let Some(next) = self.verify(&tunnel).await {
                        tunnel.close(Duration::ZERO).await;
                        return next;
                    }
                }
                Event::Renew => {
                    if let Err(refusal) = self.renew_or_wait().await {
                        break refusal.to_string();
                    }
                }
            }
        };
        tunnel.close(GOOD_BYE).await;
        State::Over(reason)
    }

    /// While it is in doubt: what stands in its place, unless it gives a sign of life before that stands. So a network
    /// that hangs for a while costs no connection, and a dead sidecar is not waited for.
    async fn verify(&mut self, tunnel: &Arc<Tunnel>) -> Option<State> {
        let alive = tunnel.answers();
        tokio::pin!(alive);
        if timeout(self.dialler.patience().ping, &mut alive).await.is_ok() {
            return None;
        }
        tracing::warn!(pod = tunnel.pod(), "the sidecar doesn't answer");
        tokio::select! {
            () = alive => None,
            _ = tunnel.closed() => None,
            next = self.reconnect(tunnel.clone()) => match next {
                // It carries programs' connections, which its successor would not.
                State::Up(other) if timeout(LAST_CHANCE, tunnel.answers()).await.is_ok() => {
                    other.close(Duration::ZERO).await;
                    None
                }
                next => Some(next),
            },
        }
    }

    /// While it is down: asks where pods are now, and dials, until the time is over.
    async fn reconnect(&mut self, last: Arc<Tunnel>) -> State {
        let patience = self.dialler.patience().reconnect;
        let end = Instant::now() + patience;
        let mut why = String::from("no answer");
        while Instant::now() < end {
            let pause = Instant::now() + PAUSE;
            // Where the API server doesn't answer, the pods that were there may still be.
            if let Ok(Err(refusal)) = timeout(RENEW, self.renew_or_wait()).await {
                return State::Over(refusal.to_string());
            }
            match timeout_at(end, self.dialler.dial(&self.status)).await {
                Ok(Ok(tunnel)) => return State::Up(Arc::new(tunnel)),
                Ok(Err(error)) => why = error.to_string(),
                Err(_) => {}
            }
            tokio::select! {
                () = sleep_until(pause) => {}
                reason = self.stop.recv() => return State::Over(reason.unwrap_or_default()),
            }
        }
        State::Over(format!(
            "the connection to pod {} was lost, and not replaced within {} s: {why}",
            last.pod(),
            patience.as_secs()
        ))
    }

    /// Renews; what isn't final is tried again later.
    async fn renew_or_wait(&mut self) -> Result<(), Refusal> {
        match self.renew().await {
            Err(refusal) if !refusal.is_final() => {
                tracing::warn!(%refusal, "the session could not be renewed");
                self.renew_at = Instant::now() + RENEW_AGAIN;
                Ok(())
            }
            renewed => renewed,
        }
    }

    async fn renew(&mut self) -> Result<(), Refusal> {
        // Any other number than before: the time, unless it stands still.
        self.renewed = unix_time().max(self.renewed + 1);
        self.status = self.lease.renew(self.renewed).await?;
        self.renew_at = Instant::now() + renew_in(&self.status, unix_time());
        Ok(())
    }
}

/// When to renew: at half of what is left, so that one failure leaves time for others; not in a loop.
/// When to renew after an answer: at half time, whatever our clock shows.
fn renew_in(status: &SessionStatus, now: u64) -> Duration {
    let lives = match status.expires_in {
        // An older control plane's: its moment, by our clock.
        0 => status.expires_at.saturating_sub(now),
        lives => u64::from(lives),
    };
    Duration::from_secs((lives / 2).clamp(5, 3600))
}

fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_renewed_at_half_time_and_never_in_a_loop() {
        let of = renew_in;
        let renew_in = |expires_at, now| {
            let status = SessionStatus { expires_at, ..SessionStatus::default() };
            of(&status, now)
        };
        assert_eq!(renew_in(1_300, 1_000), Duration::from_secs(150));
        assert_eq!(renew_in(1_000, 1_000), Duration::from_secs(5));
        assert_eq!(renew_in(900, 1_000), Duration::from_secs(5));
        assert_eq!(renew_in(u64::MAX, 0), Duration::from_secs(3600));
    }

    #[test]
    fn a_clock_that_is_minutes_off_changes_nothing() {
        let status = SessionStatus { expires_at: 1_300, expires_in: 300, ..SessionStatus::default() };
        for now in [700, 1_000, 1_300] {
            assert_eq!(renew_in(&status, now), Duration::from_secs(150));
        }
    }
}
