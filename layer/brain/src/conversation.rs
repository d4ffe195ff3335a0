//! What layer and proxy say to each other: a unix socket, one question and one answer at a time.
//!
//! Each thread of a program holds a connection of its own. A message is a frame of [`mirrord_protocol::frame`]
//! (two lengths, a CBOR header, no tail). The layer asks with an [`Ask`], first of all [`Ask::Hello`]; the proxy
//! answers each with one [`Answer`] of the type below. Who asks waits.
//!
//! | ask | answer | descriptor |
//! |---|---|---|
//! | [`Ask::Hello`] | [`Welcome`] | |
//! | [`Ask::Open`] | [`Opened`] | always, see below |
//! | [`Ask::Stat`] | [`Attributes`] | |
//! | [`Ask::ReadLink`] | [`Link`] | |
//! | [`Ask::Connect`] | [`Connected`] | |
//! | [`Ask::Attach`] | [`Done`] | |
//! | [`Ask::Resolve`] | [`Resolved`] | |
//! | [`Ask::Log`] | [`Done`] | |
//!
//! **Descriptors** come as `SCM_RIGHTS` (unix(7)) with the *first byte* of the answer, exactly one, and only
//! where an [`Opened`] succeeded. They are reopened read-only for each ask (an offset of its own), and sealed
//! with [`SEALS`]:
//! * a **regular file** is a memfd ([`FILE_MEMFD`]) with the whole content, and the remote mode, atime and mtime
//!   set on it (fchmod(2), futimens(2)). A file beyond the proxy's limit is answered with EFBIG.
//! * a **folder** is a memfd ([`FOLDER_MEMFD`]) that holds a [`crate::listing`]. Its attributes are in the answer.
//!
//! **Connections**: on [`Ask::Connect`] the proxy dials through the pod and answers once the pod's kernel did. If it
//! stands, the proxy listens on a fresh loopback port and names it. The layer connects the *program's own socket*
//! there, so that its options, its epoll registrations and its number stay, and says by [`Ask::Attach`] which local
//! address it got. The proxy takes the connection from that address, drops any other and closes the listener; a
//! ticket that isn't attached within [`ATTACH_SECONDS`] is dropped with its connection. Bytes that arrive from
//! the pod earlier wait.
//!
//! **End**: when the session is over the proxy answers [`Answer::Ended`] to whatever is asked, or just hangs up.

use std::net::SocketAddr;

use mirrord_protocol::{
    frame::{self, FrameError, PREFIX_BYTES, Prefix},
    reply::Failure,
};
pub use mirrord_protocol::{
    reply::{Attributes, Link, Resolved},
    request::{Open, ReadLink, Resolve, Stat},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Minor version of this conversation. Additive: both ends use the smaller of the two.
pub const VERSION: u16 = 1;
/// Name of the memfd that holds a file, for people who look at `/proc/PID/fd`.
pub const FILE_MEMFD: &str = "mirrord-file";
/// Name of the memfd that holds a folder's listing.
pub const FOLDER_MEMFD: &str = "mirrord-folder";
/// Seals of both (fcntl(2)): `F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE`.
pub const SEALS: libc::c_int =
    libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
/// How long a ticket waits for its [`Attach`], in seconds.
pub const ATTACH_SECONDS: u64 = 10;

/// A question of the layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Who I am. The first question of each connection.
    Hello(Hello),
    /// A regular file or folder, for reading. Anything else that exists is answered with EACCES (it is never
    /// served), a symbolic link at the end with ELOOP where `no_follow` is set.
    Open(Open),
    /// Attributes of a path; with `access` also whether it may be accessed so.
    Stat(Stat),
    /// Target of a symbolic link.
    ReadLink(ReadLink),
    /// A TCP connection from the pod.
    Connect(Connect),
    /// The local address that the program's socket got, for a [`Connected`].
    Attach(Attach),
    /// Addresses of a name.
    Resolve(Resolve),
    /// A line for the proxy to record, and to show where it shows anything.
    Log(Log),
}

/// What the proxy answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer<T> {
    /// It worked.
    Ok(T),
    /// It didn't: `errno` (or, of look-ups, `eai`) goes to the program.
    Failed(Failure),
    /// The session is over, for all that will be asked. The reason goes to the program's stderr, once.
    Ended(Ended),
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Minor version of the layer's end.
    pub version: u16,
    /// Its process.
    pub pid: u32,
    /// What it runs: `argv[0]` or the executable's name, for logs; ≤ [`mirrord_protocol::limits::TEXT_BYTES`].
    #[serde(default)]
    pub program: String,
}

/// Welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Minor version that both ends speak from here on.
    pub version: u16,
}

/// What was opened; the descriptor comes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// As fstat(2) said in the pod.
    pub attributes: Attributes,
}

/// Connects in the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// Where to, as seen from the pod.
    pub address: SocketAddr,
    /// The program's socket can't reach 127.0.0.1 (`IPV6_V6ONLY`): listen on `::1`.
    #[serde(default)]
    pub v6_only: bool,
}

/// A connection that stands in the pod, and how the program's socket gets to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    /// For [`Attach`]; never the same twice within a session.
    pub ticket: u64,
    /// Loopback address to connect the program's socket to: 127.0.0.1, or ::1 where `v6_only` was set.
    pub listener: SocketAddr,
    /// The pod's side (getsockname(2)).
    pub local: SocketAddr,
    /// The other side (getpeername(2)).
    pub peer: SocketAddr,
}

/// Pairs a connection to the listener with its ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// Of the [`Connected`].
    pub ticket: u64,
    /// Address of the program's socket, as the listener sees its peer: never an IPv4-mapped one.
    pub local: SocketAddr,
}

/// A line for the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// How grave it is.
    pub level: Level,
    /// One line; ≤ [`mirrord_protocol::limits::TEXT_BYTES`].
    pub text: String,
}

/// How grave a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Something the user should know.
    Warning,
    /// Something to find errors by.
    Debug,
    /// A level of another release.
    #[serde(other)]
    Unknown,
}

/// It is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// The session is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// One sentence for the user, which completes "the session ended: …".
    pub reason: String,
}

impl Ask {
    /// Decodes a question; for the proxy's end.
    ///
    /// # Errors
    /// [`FrameError::Malformed`], also for a question of a newer release: answer it with
    /// [`mirrord_protocol::reply::FailureCode::Unsupported`].
    pub fn decode(header: &[u8]) -> Result<Self, FrameError> {
        frame::decode(header)
    }
}

impl<T> From<Result<T, Failure>> for Answer<T> {
    fn from(result: Result<T, Failure>) -> Self {
        match result {
            Ok(value) => Self::Ok(value),
            Err(failure) => Self::Failed(failure),
        }
    }
}

/// Encodes a whole message: an [`Ask`] or an [`Answer`].
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    frame::encode(message, 0)
}

/// How many bytes follow a message's prefix of [`PREFIX_BYTES`].
///
/// # Errors
/// [`FrameError::TooLong`], also where there is a tail: this conversation has none.
pub fn body_length(prefix: [u8; PREFIX_BYTES]) -> Result<usize, FrameError> {
    match Prefix::parse(prefix)? {
        Prefix { header, tail: 0 } => Ok(header),
        Prefix { tail, .. } => Err(FrameError::TooLong { what: "tail", length: tail, limit: 0 }),
    }
}

/// Decodes an answer's body; for the layer's end.
///
/// # Errors
/// [`FrameError::Malformed`] where it is no answer to what was asked.
pub fn decode_answer<T: DeserializeOwned>(body: &[u8]) -> Result<Answer<T>, FrameError> {
    frame::decode(body)
}

#[cfg(test)]
mod tests {
    use mirrord_protocol::{path::RemotePath, request::Family};

    use super::*;

    fn body(message: &[u8]) -> &[u8] {
        let prefix = message[..PREFIX_BYTES].try_into().unwrap();
        assert_eq!(body_length(prefix), Ok(message.len() - PREFIX_BYTES));
        &message[PREFIX_BYTES..]
    }

    #[test]
    fn every_question_arrives_as_it_was_asked() {
        let path = RemotePath::new(*b"/srv/\xff").unwrap();
        let local = "127.0.0.1:4242".parse().unwrap();
        let asks = [
            Ask::Hello(Hello { version: VERSION, pid: 7, program: "curl".to_owned() }),
            Ask::Open(Open { path: path.clone(), no_follow: true, directory: false }),
            Ask::Stat(Stat { path: path.clone(), no_follow: false, access: 4 }),
            Ask::ReadLink(ReadLink { path }),
            Ask::Connect(Connect { address: "[2001:db8::1]:5432".parse().unwrap(), v6_only: true }),
            Ask::Attach(Attach { ticket: u64::MAX, local }),
            Ask::Resolve(Resolve {
                name: "db".to_owned(),
                family: Family::V4,
                canonical: true,
                configured: true,
            }),
            Ask::Log(Log { level: Level::Warning, text: "ouch".to_owned() }),
        ];
        for ask in asks {
            assert_eq!(Ask::decode(body(&encode(&ask).unwrap())), Ok(ask));
        }
    }

    #[test]
    fn every_kind_of_answer_arrives() {
        let connected = Connected {
            ticket: 1,
            listener: "127.0.0.1:1".parse().unwrap(),
            local: "10.0.0.2:3".parse().unwrap(),
            peer: "10.0.0.9:5432".parse().unwrap(),
        };
        for answer in [
            Answer::Ok(connected),
            Answer::Failed(Failure::system(libc::ECONNREFUSED)),
            Answer::Ended(Ended { reason: "it expired".to_owned() }),
        ] {
            assert_eq!(decode_answer(body(&encode(&answer).unwrap())), Ok(answer));
        }
    }

    #[test]
    fn a_question_of_a_newer_release_is_malformed_not_misread() {
        #[derive(Serialize)]
        #[serde(rename_all = "snake_case")]
        enum Newer {
            Teleport {},
        }
        assert!(matches!(
            Ask::decode(body(&encode(&Newer::Teleport {}).unwrap())),
            Err(FrameError::Malformed(_))
        ));
    }

    #[test]
    fn a_tail_is_refused() {
        let message = frame::encode_with_tail(&Done {}, b"x").unwrap();
        assert!(body_length(message[..PREFIX_BYTES].try_into().unwrap()).is_err());
    }
}
