//! One API server: the client that asks it, and the name it is told by.

use std::{fmt, future::Future, pin::pin, sync::Arc, time::Duration};

use kube::Client;
use thiserror::Error;
use tokio::time::timeout;

use super::refusal::{Attempt, Refusal};

/// How long one request may take: much longer than admission (10 s).
const REQUEST: Duration = Duration::from_secs(60);
/// How long people wait without a word.
const WORD: Duration = Duration::from_secs(3);

/// A request took too long.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("no answer within {} s", REQUEST.as_secs())]
pub struct Late;

/// Waits for a request, for a minute at most.
///
/// # Errors
/// [`Late`].
pub async fn in_time<T>(request: impl Future<Output = T>) -> Result<T, Late> {
    timeout(REQUEST, request).await.map_err(|_| Late)
}

/// Waits for a task; says something where that takes longer than people wait without a word.
pub(super) async fn patiently<T>(say: impl FnOnce(), task: impl Future<Output = T>) -> T {
    let mut task = pin!(task);
    if let Ok(done) = timeout(WORD, task.as_mut()).await {
        return done;
    }
    say();
    task.await
}

/// An API server, as one user reaches it.
#[derive(Clone)]
pub struct Server {
    client: Client,
    name: Arc<str>,
}

impl Server {
    /// Asks by this client; messages call it by this name, as in `https://10.0.0.1:6443 (context "dev")`.
    #[must_use]
    pub fn new(client: Client, name: impl Into<Arc<str>>) -> Self {
        Self { client, name: name.into() }
    }

    /// What asks it.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Asks it something, for a minute at most.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn ask<T>(
        &self,
        verb: &'static str,
        namespace: Option<&str>,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Refusal> {
        let attempt =
            Attempt { verb, namespace: namespace.map(str::to_owned), server: self.name.to_string() };
        let refusal = match in_time(request).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => Refusal::new(&error, attempt),
            Err(Late) => Refusal::Silent { server: attempt.server, seconds: REQUEST.as_secs() },
        };
        Err(self.look_again(refusal).await)
    }

    /// Where there is no such resource it may be no API server at all, but what a mistyped address leads to.
    async fn look_again(&self, refusal: Refusal) -> Refusal {
        let Refusal::NotInstalled { .. } = refusal else { return refusal };
        let attempt = Attempt { verb: "get", namespace: None, server: self.name.to_string() };
        match in_time(self.client.apiserver_version()).await {
            Ok(Err(error)) => match Refusal::new(&error, attempt) {
                Refusal::NotInstalled { server } => {
                    Refusal::Foreign { server, code: Some(404), text: String::new() }
                }
                // Only what it says of itself is a reason to doubt; or that it says nothing: then a proxy spoke before.
                doubt @ (Refusal::Foreign { .. } | Refusal::Busy { .. } | Refusal::Unreachable { .. }) => {
                    doubt
                }
                _ => refusal,
            },
            Err(Late) => Refusal::Silent { server: self.name.to_string(), seconds: REQUEST.as_secs() },
            Ok(Ok(_)) => refusal,
        }
    }

    /// Waits for a task; says so where that takes longer than people wait without a word.
    pub async fn patiently<T>(&self, say: impl Fn(&str), task: impl Future<Output = T>) -> T {
        patiently(|| say(&format!("waiting for the API server {}", self.name)), task).await
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&self.name).finish()
    }
}
