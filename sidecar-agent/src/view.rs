//! Whose eyes a session borrows: the running application's where the process namespace is shared and readable, else
//! the sidecar's own, which has the same image, variables and volumes.
//!
//! The running program is picked when somebody looks, kept while it lives, and picked again after; where none can be
//! read, the next try is [`RETRY`] later.

use std::{
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use mirrord_protocol::{boot::Why, control::View};
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::{
    live::{Process, Target},
    root::Root,
};

/// Where the webhook mounts what is ours.
const OWN_FOLDER: &str = "/.mirrord";
/// How long not to look for a readable process after none was found.
const RETRY: Duration = Duration::from_secs(1);

/// One view.
pub(crate) struct Eyes {
    process: Option<Process>,
    /// The files it sees.
    pub(crate) root: Root,
}

impl Eyes {
    /// Which one it is.
    pub(crate) fn view(&self) -> View {
        if self.process.is_some() { View::Live } else { View::Twin }
    }

    fn is_open(&self) -> bool {
        self.process.as_ref().is_none_or(Process::is_alive)
    }
}

/// All views of this sidecar.
pub(crate) struct Views {
    own: Arc<Eyes>,
    target: Option<Target>,
    secret_mounts: Vec<PathBuf>,
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    eyes: Option<Arc<Eyes>>,
    looked: Option<Instant>,
}

impl Views {
    /// The own view, and where to look for another one. Paths of the sidecar's own files are never shown.
    pub(crate) fn new(
        target: Option<Target>,
        secret_mounts: Vec<PathBuf>,
        identity: &Path,
    ) -> io::Result<Self> {
        let folder = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let program = std::env::args_os().next().map(PathBuf::from);
        let program = program.as_deref().and_then(Path::parent).filter(|folder| folder.is_absolute());
        let hidden: Vec<PathBuf> = [Some(Path::new(OWN_FOLDER)), Some(identity), program]
            .into_iter()
            .flatten()
            .map(Into::into)
            .collect();
        let root = Root::new(folder, &secret_mounts, &hidden)?;
        let own = Arc::new(Eyes { process: None, root });
        Ok(Self { own, target, secret_mounts, live: Mutex::default() })
    }

    /// The best view there is now. May block.
    pub(crate) fn current(&self, now: Instant) -> Arc<Eyes> {
        let Some(target) = &self.target else { return Arc::clone(&self.own) };
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(eyes) = live.eyes.as_ref().filter(|eyes| eyes.is_open()) {
            return Arc::clone(eyes);
        }
        live.eyes = None;
        if live.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= RETRY) {
            live.looked = Some(now);
            live.eyes = self.pick(target);
        }
        Arc::clone(live.eyes.as_ref().unwrap_or(&self.own))
    }

    /// Which view is the best one, and why. May block.
    pub(crate) fn why(&self, now: Instant) -> (View, Why) {
        match (&self.target, self.current(now).view()) {
            (None, view) => (view, Why::Isolated),
            (Some(_), View::Live) => (View::Live, Why::Shared),
            (Some(_), view) => (view, Why::Unreadable),
        }
    }

    /// The environment, `NAME=value` separated by NUL, and whose it is. May block.
    pub(crate) fn environment(&self, now: Instant) -> (View, Vec<u8>) {
        let variables = self.current(now).process.as_ref().and_then(Process::environment);
        variables.map_or_else(|| (View::Twin, own_environment()), |variables| (View::Live, variables))
    }

    fn pick(&self, target: &Target) -> Option<Arc<Eyes>> {
        let (process, folder) = Process::pick(target)?;
        let root = Root::new(folder, &self.secret_mounts, &[]).ok()?;
        tracing::info!(process = process.number(), "lending the running program's view");
        Some(Arc::new(Eyes { process: Some(process), root }))
    }
}

fn own_environment() -> Vec<u8> {
    let variables =
        std::env::vars_os().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
    variables.collect::<Vec<_>>().join(&0)
}
