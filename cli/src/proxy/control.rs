//! What commands and proxy say to each other: a unix socket, frames of [`mirrord_protocol::frame`], one question and
//! one answer at a time. Both ends are always of the same release: the socket's name depends on it.

use std::{
    io::{self, Read, Write},
    path::PathBuf,
};

use mirrord_protocol::{
    control::{Obstacle, Rights, View},
    frame::{self, PREFIX_BYTES, Prefix},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::tunnel::ask::Tunnel;

/// A command's question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// This process will be a program of the session: what does it need?
    Attach {},
    /// How are you?
    Status {},
    /// End the session.
    Stop {},
}

/// The proxy's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Question::Attach`]; the environment is the frame's tail, as the sidecar gave it.
    Attached(Attached),
    /// To [`Question::Status`].
    Status(Status),
    /// The session is over: ask a new proxy.
    Over {
        /// Why.
        reason: String,
    },
}

/// What a program of the session needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The layers' door.
    pub layer: PathBuf,
    /// Of the session.
    pub summary: Summary,
}

/// What people want to know about a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The object's name.
    pub session: String,
    /// Its namespace.
    pub namespace: String,
    /// `deployment/checkout`, the workload that rights were checked on.
    pub target: String,
    /// The container.
    pub container: String,
    /// The pod that serves now.
    pub pod: String,
    /// What is granted.
    pub features: Vec<String>,
    /// Pods of the target without sidecar, as far as they are named.
    pub without_sidecar: Vec<String>,
    /// Running pods of the target.
    pub running: u32,
    /// Running pods of the target with a sidecar.
    pub injected: u32,
    /// Whose environment and files are served.
    pub view: View,
    /// Why they aren't the running application's.
    pub obstacle: Option<Obstacle>,
}

impl Summary {
    /// As it is on this connection.
    #[must_use]
    pub fn on(self, tunnel: &Tunnel) -> Self {
        let Rights { view, obstacle, .. } = *tunnel.rights();
        Self { pod: tunnel.pod().to_owned(), view, obstacle, ..self }
    }
}

/// How a proxy is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its process.
    pub pid: u32,
    /// Of the session.
    #[serde(flatten)]
    pub summary: Summary,
    /// `up` or `reconnecting`.
    pub state: String,
    /// Programs and layers that hold it.
    pub users: usize,
    /// Messages sent through the present tunnel that wait for an answer, its Hello included.
    pub tunnel_requests: u64,
    /// How it came about, in milliseconds.
    pub start: Start,
}

/// How long the parts of a cold start took, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// The client for the API server, kubeconfig included.
    pub client_ms: f64,
    /// The Session: TLS to the API server, admission, the answer.
    pub session_ms: f64,
    /// The tunnel: QUIC handshake, Hello, environment.
    pub tunnel_ms: f64,
}

/// Writes a message.
///
/// # Errors
/// Of the socket, or where the message exceeds the frame's limits.
pub fn write<T: Serialize>(to: &mut impl Write, message: &T, tail: &[u8]) -> io::Result<()> {
    to.write_all(&encode(message, tail)?)
}

/// Encodes a message.
///
/// # Errors
/// Where it exceeds the frame's limits.
pub fn encode<T: Serialize>(message: &T, tail: &[u8]) -> io::Result<Vec<u8>> {
    frame::encode_with_tail(message, tail).map_err(io::Error::other)
}

/// Reads a message and its tail.
///
/// # Errors
/// Of the socket, or where what comes is no such message.
pub fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<(T, Vec<u8>)> {
    let mut prefix = [0; PREFIX_BYTES];
    from.read_exact(&mut prefix)?;
    let prefix = Prefix::parse(prefix).map_err(io::Error::other)?;
    let mut body = vec![0; prefix.body()];
    from.read_exact(&mut body)?;
    let tail = body.split_off(prefix.header);
    Ok((frame::decode(&body).map_err(io::Error::other)?, tail))
}
