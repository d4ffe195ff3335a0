//! What requests see: a connection that is replaced when it is lost, until the session is over.
//!
//! A request that finds the connection down waits for the keeper's next one; a request that was under way when it
//! broke is asked once more, unless it changes something in the pod.

use std::sync::Arc;

use bytes::Bytes;
use mirrord_protocol::{
    reply::{Failure, FailureCode},
    request::Request,
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::ask::{AskError, End, Stream, Tunnel};

/// How the link stands.
#[derive(Clone, Debug)]
pub enum State {
    /// Up.
    Up(Arc<Tunnel>),
    /// Lost; the keeper dials. The last connection.
    Down(Arc<Tunnel>),
    /// The session is over: why, as the end of "the session ended: …".
    Over(String),
}

/// Why a request has no answer.
#[derive(Debug, PartialEq, Eq)]
pub enum LinkError {
    /// The sidecar said no.
    Failed(Failure),
    /// The session is over.
    Over(String),
}

/// The requests' end.
#[derive(Clone, Debug)]
pub struct Link {
    state: watch::Receiver<State>,
}

impl Link {
    /// A link whose state somebody else keeps.
    #[must_use]
    pub fn new(state: watch::Receiver<State>) -> Self {
        Self { state }
    }

    /// The connection, as soon as there is one.
    ///
    /// # Errors
    /// Why the session is over.
    pub async fn tunnel(&self) -> Result<Arc<Tunnel>, String> {
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| !matches!(state, State::Down(_))).await;
        match settled.as_deref() {
            Ok(State::Up(tunnel)) => Ok(tunnel.clone()),
            Ok(State::Over(reason)) => Err(reason.clone()),
            Ok(State::Down(_)) | Err(_) => Err("mirrord's proxy ended".to_owned()),
        }
    }

    /// Waits until the session is over.
    pub async fn over(&self) -> String {
        let mut state = self.state.clone();
        match state.wait_for(|state| matches!(state, State::Over(_))).await.as_deref() {
            Ok(State::Over(reason)) => reason.clone(),
            _ => "mirrord's proxy ended".to_owned(),
        }
    }

    /// How it stands now.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Asks, and reads the one answer.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<(T, Bytes), LinkError> {
        self.retried(|tunnel| async move { tunnel.ask(request).await }).await
    }

    /// Asks on a stream that stays open; not repeated.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn open<T: DeserializeOwned>(&self, request: &Request) -> Result<(T, Stream), LinkError> {
        let tunnel = self.tunnel().await.map_err(LinkError::Over)?;
        match tunnel.open(request).await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.final_error(&tunnel, error).await),
        }
    }

    /// Runs something that may be repeated, once more where the connection is lost under it.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn retried<T, F>(&self, operation: impl Fn(Arc<Tunnel>) -> F) -> Result<T, LinkError>
    where
        F: Future<Output = Result<T, AskError>>,
    {
        let tunnel = self.tunnel().await.map_err(LinkError::Over)?;
        match operation(tunnel.clone()).await {
            Err(AskError::End(End::Lost(reason))) => tracing::info!(reason, "a request is asked again"),
            Err(error) => return Err(self.final_error(&tunnel, error).await),
            Ok(value) => return Ok(value),
        }
        let tunnel = self.replaced(&tunnel).await?;
        match operation(tunnel.clone()).await {
            Ok(value) => Ok(value),
            Err(error) => Err(self.final_error(&tunnel, error).await),
        }
    }

    /// The connection after this one.
    async fn replaced(&self, lost: &Arc<Tunnel>) -> Result<Arc<Tunnel>, LinkError> {
        let mut state = self.state.clone();
        // The keeper may not have noticed yet.
        let noticed = |state: &State| !matches!(state, State::Up(tunnel) if Arc::ptr_eq(tunnel, lost));
        let _ = state.wait_for(noticed).await;
        self.tunnel().await.map_err(LinkError::Over)
    }

    async fn final_error(&self, tunnel: &Arc<Tunnel>, error: AskError) -> LinkError {
        match error {
            AskError::Failed(failure) => LinkError::Failed(failure),
            AskError::End(End::Over(reason)) => LinkError::Over(reason),
            AskError::End(End::Lost(reason)) => match self.replaced(tunnel).await {
                Err(error) => error,
                Ok(_) => LinkError::Failed(Failure::new(FailureCode::System, libc::ECONNABORTED, reason)),
            },
        }
    }
}
