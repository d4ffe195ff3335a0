//! The commands' door: `exec` asks what its program needs, `session ls` how things are, `session stop` for the end.
//!
//! The socket is made under another name and renamed when the proxy can answer, so whoever can connect is served.

use std::{fs, io, os::unix::fs::MetadataExt, path::PathBuf, sync::Arc};

use mirrord_protocol::frame::{self, PREFIX_BYTES, Prefix};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use super::{
    control::{self, Answer, Attached, Question, Start, Status, Summary},
    folder::Folder,
    holds::Holds,
    layer::{is_own, pause_after},
};
use crate::tunnel::{
    keeper::Stop,
    link::{Link, State},
};

/// What a proxy can say about itself.
#[derive(Debug)]
pub struct Desk {
    /// To the pod.
    pub link: Link,
    /// Who holds the proxy.
    pub holds: Holds,
    /// Ends the session.
    pub stop: Stop,
    /// The layers' door.
    pub layer: PathBuf,
    /// The session as it was made.
    pub summary: Summary,
    /// The pod's, as the sidecar gave it; empty where it isn't granted.
    pub environment: Vec<u8>,
    /// How long the start took.
    pub start: Start,
}

/// The door: removed from the folder when dropped.
#[derive(Debug)]
pub struct Door {
    path: PathBuf,
    inode: u64,
    folder: Folder,
    name: String,
}

impl Door {
    /// Opens it.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn open(folder: &Folder, name: &str) -> io::Result<(Self, UnixListener)> {
        let path = folder.control(name);
        let unready = path.with_extension(format!("{}.new", std::process::id()));
        let _ = fs::remove_file(&unready);
        let listener = UnixListener::bind(&unready)?;
        let inode = fs::symlink_metadata(&unready)?.ino();
        fs::rename(&unready, &path)?;
        Ok((Self { path, inode, folder: folder.clone(), name: name.to_owned() }, listener))
    }

    /// Removes it, unless another proxy has put its own there.
    fn close(&self) {
        let _lock = self.folder.lock(&self.name);
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.close();
    }
}

impl Desk {
    /// Takes connections for ever.
    pub async fn accept(self: Arc<Self>, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) if is_own(&stream) => {
                    let desk = self.clone();
                    tokio::spawn(async move {
                        if let Err(error) = desk.converse(stream).await {
                            tracing::debug!(%error, "a command's connection ended");
                        }
                    });
                }
                Ok(_) => tracing::warn!("another user's process was turned away"),
                Err(error) => pause_after(&error).await,
            }
        }
    }

    async fn converse(&self, mut stream: UnixStream) -> io::Result<()> {
        let process = stream.peer_cred()?.pid();
        let mut prefix = [0; PREFIX_BYTES];
        while stream.read_exact(&mut prefix).await.is_ok() {
            let length = Prefix::parse(prefix).map_err(io::Error::other)?;
            let mut body = vec![0; length.body()];
            stream.read_exact(&mut body).await?;
            let question =
                frame::decode(body.get(..length.header).unwrap_or_default()).map_err(io::Error::other)?;
            let (answer, tail) = match question {
                Question::Attach {} => self.attach(process).await,
                Question::Status {} => (self.status(), &[][..]),
                Question::Stop {} => {
                    self.stop.stop("it was stopped by `mirrord session stop`");
                    (Answer::Over { reason: self.link.over().await }, &[][..])
                }
            };
            stream.write_all(&control::encode(&answer, tail)?).await?;
        }
        Ok(())
    }

    async fn attach(&self, process: Option<i32>) -> (Answer, &[u8]) {
        let tunnel = match self.link.tunnel().await {
            Ok(tunnel) => tunnel,
            Err(reason) => return (Answer::Over { reason }, &[]),
        };
        // Of another PID namespace (0), or of a kernel without pidfds: layers' connections hold alone.
        if let Err(error) = self.holds.watch(process.unwrap_or(0)) {
            tracing::warn!(%error, "a program's process can't be watched");
        }
        let summary = self.summary.clone().on(&tunnel);
        (Answer::Attached(Attached { layer: self.layer.clone(), summary }), &self.environment)
    }

    fn status(&self) -> Answer {
        let (state, tunnel) = match self.link.state() {
            State::Up(tunnel) => ("up", tunnel),
            State::Down(tunnel) => ("reconnecting", tunnel),
            State::Over(reason) => return Answer::Over { reason },
        };
        Answer::Status(Status {
            pid: std::process::id(),
            summary: self.summary.clone().on(&tunnel),
            state: state.to_owned(),
            users: self.holds.count(),
            tunnel_requests: tunnel.requests(),
            start: self.start,
        })
    }
}
