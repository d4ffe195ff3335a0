//! The commands' end: find a proxy or start one. Blocking, without a runtime: a warm `exec` has no time for one.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use thiserror::Error;

use super::{
    control::{self, Answer, Attached, Question, Status},
    detach,
    folder::Folder,
    job::Job,
    run::Report,
};
use crate::exit::{Exit, Problem};

/// How long a proxy may take to answer: longer than it may take to find a new connection.
const ANSWER: Duration = Duration::from_secs(60);

/// Why there is no proxy.
#[derive(Debug, Error)]
pub enum ClientError {
    /// It can't be started.
    #[error("the proxy can't be started: {0}")]
    Start(#[from] std::io::Error),
    /// It ended without a word.
    #[error("the proxy ended at its start without saying why")]
    Silent,
    /// It said what was wrong.
    #[error("{}", .0.message)]
    Problem(Problem),
    /// Twice a fresh one was over at once.
    #[error("the session ended at once: {0}")]
    Over(String),
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Problem(problem) => problem,
            ClientError::Start(_) | ClientError::Silent => Self::new(Exit::Internal, error.to_string())
                .help("its log is beside its socket, in $XDG_RUNTIME_DIR/mirrord or /tmp/mirrord-UID"),
            ClientError::Over(_) => Self::new(Exit::Temporary, error.to_string()).help("try again"),
        }
    }
}

/// What a program needs, and its environment's bytes.
#[derive(Debug)]
pub struct Found {
    /// What a program needs.
    pub attached: Attached,
    /// The pod's environment.
    pub environment: Vec<u8>,
    /// Whether the proxy was there already.
    pub warm: bool,
}

/// Attaches this process to the job's proxy; starts one where there is none. `step` is told what happens.
///
/// # Errors
/// See [`ClientError`].
pub fn attach(folder: &Folder, job: &Job, step: &dyn Fn(&str)) -> Result<Found, ClientError> {
    if let Ok(Ok((attached, environment))) = try_attach(&folder.control(&job.name)) {
        return Ok(Found { attached, environment, warm: true });
    }
    let lock = folder.lock(&job.name)?;
    let mut over = None;
    for attempt in 0..3 {
        // The first time: another command may have started one while we waited for the lock.
        match try_attach(&folder.control(&job.name)) {
            Ok(Ok((attached, environment))) => {
                drop(lock);
                return Ok(Found { attached, environment, warm: attempt == 0 });
            }
            Ok(Err(reason)) => over = Some(reason),
            Err(_) => {}
        }
        start(job, step)?;
    }
    Err(over.map_or(ClientError::Silent, ClientError::Over))
}

type Attempt = Result<(Attached, Vec<u8>), String>;

fn try_attach(path: &Path) -> std::io::Result<Attempt> {
    match ask(path, &Question::Attach {})? {
        (Answer::Attached(attached), environment) => Ok(Ok((attached, environment))),
        (Answer::Over { reason }, _) => Ok(Err(reason)),
        (Answer::Status(_), _) => Err(std::io::ErrorKind::InvalidData.into()),
    }
}

/// How a proxy is; `None` where there is none behind that name.
#[must_use]
pub fn status(folder: &Folder, name: &str) -> Option<Status> {
    match ask(&folder.control(name), &Question::Status {}) {
        Ok((Answer::Status(status), _)) => Some(status),
        _ => None,
    }
}

/// All proxies of this user on this machine.
#[must_use]
pub fn all(folder: &Folder) -> Vec<(String, Status)> {
    folder.names().into_iter().filter_map(|name| status(folder, &name).map(|status| (name, status))).collect()
}

/// Ends a proxy's session, and waits for it.
///
/// # Errors
/// Of the socket.
pub fn stop(folder: &Folder, name: &str) -> std::io::Result<()> {
    ask(&folder.control(name), &Question::Stop {}).map(drop)
}

fn ask(path: &Path, question: &Question) -> std::io::Result<(Answer, Vec<u8>)> {
    let mut socket = UnixStream::connect(path)?;
    socket.set_read_timeout(Some(ANSWER))?;
    control::write(&mut socket, question, &[])?;
    control::read(&mut socket)
}

fn start(job: &Job, step: &dyn Fn(&str)) -> Result<(), ClientError> {
    let mut child = detach::command().spawn()?;
    let text = serde_json::to_string(job).map_err(std::io::Error::other)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes())?;
    }
    let stdout = child.stdout.take();
    // The first generation ends at once; the pipe stays with the second.
    child.wait()?;
    for line in stdout.map(BufReader::new).into_iter().flat_map(BufRead::lines) {
        match serde_json::from_str(&line?) {
            Ok(Report::Step(text)) => step(&text),
            Ok(Report::Ready {}) => return Ok(()),
            Ok(Report::Problem(problem)) => return Err(ClientError::Problem(problem)),
            Err(_) => {}
        }
    }
    Err(ClientError::Silent)
}

/// The beginning of a session's name: enough for people, and for `session stop`.
#[must_use]
pub fn short(session: &str) -> &str {
    session.get(..12).unwrap_or(session)
}
