//! Files and folders of the view. All work that may block runs on other threads: a network file system that hangs
//! holds up nobody else.

use std::{cell::Cell, fs::File, io, mem, os::unix::fs::FileExt, sync::Arc, time::Duration};

use bytes::Bytes;
use mirrord_protocol::{
    feature::Feature,
    frame,
    limits::{FIRST_BYTES, LISTING_ENTRIES, READ_BYTES},
    reply::{Attributes, Data, Entry, Failure, FailureCode, Link, Listing, Opened},
    request::{List, Open, Read, ReadLink, Stat},
};
use quinn::{RecvStream, VarInt};
use rustix::fs::{FileType, RawMode};
use tokio::{
    sync::{SemaphorePermit, mpsc},
    time::{error::Elapsed, timeout},
};

use super::{
    grant::Session,
    reply::{self, Answer},
    requests,
};
use crate::{
    counts::Kind,
    root::{Refusal, Secrets},
    twin::{Twin, blocking, look},
    view::Eyes,
};

/// Names in one frame of a listing, in bytes: with their attributes they stay below the bound of a header.
const LISTING_NAME_BYTES: usize = 64 * 1024;
/// Frames of a listing that wait for a slow client.
const LISTING_FRAMES: usize = 2;
/// How long a client may take none of a listing while others wait for their turn: it holds a thread. Where nobody waits it
/// may be a network that is away, and has time.
const LISTING_PATIENCE: Duration = Duration::from_secs(5);
/// Resets need a code; ours have no meaning.
const STALLED: VarInt = VarInt::from_u32(0);

/// Opens, sends attributes and first bytes, then reads as asked, until the client has enough.
pub(super) async fn open(
    session: &Arc<Session>,
    open: Open,
    send: &mut Answer<'_>,
    receive: &mut RecvStream,
) -> Option<()> {
    let secrets = session.secrets();
    let share = session.share(FIRST_BYTES).await?;
    let opened = look(session.twin(), move |eyes| first(eyes, &open, secrets)).await;
    let (file, attributes, bytes, end) = match opened.unwrap_or_else(|| Err(reply::unanswered())) {
        Ok(opened) => opened,
        Err(failure) => return reply::send::<Opened>(send, Err(failure)).await,
    };
    send.counts.file_bytes.add(bytes.len() as u64);
    reply::send(send, Ok((Opened { attributes, end }, bytes))).await?;
    drop(share);
    let file = Arc::new(file);
    while let Ok(Some(header)) = requests::read(receive).await {
        let data = match secrets {
            Secrets::Shown => session.check(Feature::Secrets),
            Secrets::Withheld => Ok(()),
        };
        // Held until the client has taken it.
        let mut share = None;
        let data = match data {
            Ok(()) => read(session, &file, &header, &mut share).await,
            // Whatever it was: opened anew, it is judged by what the session may see now.
            Err(failure) => Err(failure),
        };
        send.next(Kind::Read);
        send.counts.file_bytes.add(data.as_ref().map_or(0, |(_, bytes)| bytes.len() as u64));
        reply::send(send, data).await?;
    }
    Some(())
}

type First = (File, Attributes, Bytes, bool);

fn first(eyes: &Eyes, open: &Open, secrets: Secrets) -> Result<First, Failure> {
    let opened = eyes.root.open(&open.path, open.no_follow, open.directory, secrets);
    let (file, attributes) = opened.map_err(|refusal| reply::failure(&refusal))?;
    if FileType::from_raw_mode(attributes.mode as RawMode) == FileType::Directory {
        return Ok((file, attributes, Bytes::new(), true));
    }
    // One byte more than is sent tells whether that is all.
    let mut bytes = read_at(&file, 0, FIRST_BYTES + 1).map_err(|error| reply::io(&error))?;
    let end = bytes.len() <= FIRST_BYTES;
    bytes.truncate(FIRST_BYTES);
    Ok((file, attributes, bytes.into(), end))
}

/// One further read; rights count at each.
async fn read<'a>(
    session: &'a Session,
    file: &Arc<File>,
    header: &[u8],
    share: &mut Option<SemaphorePermit<'a>>,
) -> Result<(Data, Bytes), Failure> {
    session.check(Feature::Files)?;
    let malformed = |message: String| Failure::new(FailureCode::Malformed, libc::EINVAL, message);
    let Read { offset, length } = frame::decode(header).map_err(|error| malformed(error.to_string()))?;
    if length > READ_BYTES {
        return Err(malformed(format!("a read of {length} bytes exceeds the limit of {READ_BYTES}")));
    }
    let length = length as usize;
    *share = session.share(length).await;
    let file = Arc::clone(file);
    let bytes = blocking(move || read_at(&file, offset, length)).await.ok_or_else(reply::unanswered)?;
    let bytes = bytes.map_err(|error| reply::io(&error))?;
    Ok((Data { end: bytes.len() < length }, bytes.into()))
}

/// Reads until the length is reached or the file ends.
fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Attributes of a path.
pub(super) async fn stat(session: &Arc<Session>, stat: Stat, send: &mut Answer<'_>) -> Option<()> {
    let secrets = session.secrets();
    let Stat { path, no_follow, access } = stat;
    let attributes =
        look(session.twin(), move |eyes| eyes.root.stat(&path, no_follow, access, secrets)).await;
    reply::send(send, served(attributes).map(|attributes| (attributes, Bytes::new()))).await
}

/// Target of a symbolic link.
pub(super) async fn read_link(session: &Arc<Session>, link: ReadLink, send: &mut Answer<'_>) -> Option<()> {
    let secrets = session.secrets();
    let target = look(session.twin(), move |eyes| eyes.root.read_link(&link.path, secrets)).await;
    reply::send(send, served(target).map(|target| (Link { target }, Bytes::new()))).await
}

fn served<T>(looked: Option<Result<T, Refusal>>) -> Result<T, Failure> {
    looked.ok_or_else(reply::unanswered)?.map_err(|refusal| reply::failure(&refusal))
}

/// Waits until a client has taken a frame; not longer than [`LISTING_PATIENCE`] while all turns are taken.
async fn taken<T>(twin: &Twin, sending: impl Future<Output = T>) -> Result<T, Elapsed> {
    let mut sending = std::pin::pin!(sending);
    loop {
        match timeout(LISTING_PATIENCE, sending.as_mut()).await {
            Err(Elapsed { .. }) if twin.listings.available_permits() > 0 => {}
            taken => return taken,
        }
    }
}

/// Entries of a folder, frame by frame as they are read, so that a huge folder needs no huge memory.
pub(super) async fn list(session: &Arc<Session>, list: List, send: &mut Answer<'_>) -> Option<()> {
    let secrets = session.secrets();
    let _own = session.listing().await?;
    // Fails only where the semaphore is closed, which nobody does.
    let _turn = session.twin().listings.acquire().await.ok()?;
    let (frames_tx, mut frames_rx) = mpsc::channel(LISTING_FRAMES);
    let twin = Arc::clone(session.twin());
    let listing = tokio::task::spawn_blocking(move || {
        let eyes = twin.views.current(std::time::Instant::now());
        read_folder(&eyes, &list, secrets, &frames_tx)
    });
    while let Some(frame) = frames_rx.recv().await {
        match taken(session.twin(), reply::send(send, Ok((frame, Bytes::new())))).await {
            Ok(sent) => sent?,
            Err(Elapsed { .. }) => {
                // Not an end, which would make it look whole.
                let _ = send.stream.reset(STALLED);
                return None;
            }
        }
    }
    match served(listing.await.ok()) {
        Ok(()) => Some(()),
        Err(failure) => reply::send::<Listing>(send, Err(failure)).await,
    }
}

fn read_folder(
    eyes: &Eyes,
    list: &List,
    secrets: Secrets,
    frames_tx: &mpsc::Sender<Listing>,
) -> Result<(), Refusal> {
    let own = Cell::new(None);
    let mut frames = Frames { entries: Vec::new(), names: 0, own: &own, frames_tx };
    eyes.root.list(
        &list.path,
        secrets,
        |attributes| own.set(Some(attributes)),
        |entry| frames.push(entry),
    )?;
    frames.send(false);
    Ok(())
}

/// Cuts a listing into frames.
struct Frames<'a> {
    entries: Vec<Entry>,
    /// Bytes of their names.
    names: usize,
    /// The folder's own attributes, until they are sent.
    own: &'a Cell<Option<Attributes>>,
    frames_tx: &'a mpsc::Sender<Listing>,
}

impl Frames<'_> {
    /// Takes an entry; `false` where the client no longer listens.
    fn push(&mut self, entry: Entry) -> bool {
        self.names += entry.name.len();
        self.entries.push(entry);
        let full = self.entries.len() == LISTING_ENTRIES || self.names >= LISTING_NAME_BYTES;
        !full || self.send(true)
    }

    fn send(&mut self, more: bool) -> bool {
        self.names = 0;
        let entries = mem::take(&mut self.entries);
        let frame = Listing { entries, more, attributes: self.own.take() };
        self.frames_tx.blocking_send(frame).is_ok()
    }
}
