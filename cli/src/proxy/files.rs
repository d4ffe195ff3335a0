//! Remote files and folders as sealed descriptors.
//!
//! The content goes into a memfd (memfd_create(2)), read from the pod by one Open, whose answer carries the first bytes,
//! and pipelined Reads for the rest. The descriptor given away is opened anew, read-only, *before* the remote mode is
//! set on the memfd: a mode without our read bit would forbid it. Then the seals: from there on neither of us can
//! change it. Nothing is kept: each open asks the pod.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use bytes::Bytes;
use mirrord_layer_brain::{conversation, listing};
use mirrord_protocol::{
    limits::{LISTING_ENTRIES, READ_BYTES},
    reply::{Attributes, Data, Failure, FailureCode, Listing, Opened},
    request::{self, Open, Read, Request},
};
use mirrord_tunnel::framing;
use rustix::{
    fs::{
        MemfdFlags, Mode, SealFlags, Timespec, Timestamps, fchmod, fcntl_add_seals, futimens, memfd_create,
    },
    io::Errno,
};

use crate::tunnel::{
    ask::{AskError, Stream, Tunnel},
    link::{Link, LinkError},
};

/// Largest file that is handed over, in bytes: it lies in memory.
pub const FILE_LIMIT: u64 = 64 * 1024 * 1024;
/// Reads under way at once.
const PIPELINE: usize = 8;
/// Largest listing of a folder, in bytes: a million entries and more.
const LISTING_LIMIT: u64 = 64 * 1024 * 1024;

/// Opens a file or folder of the pod.
///
/// # Errors
/// As the pod's kernel says, or that the session is over.
pub async fn open(link: &Link, open: &Open) -> Result<(Attributes, OwnedFd), LinkError> {
    // Folders that are known to be such take one round trip; List itself would follow a link at the end.
    if open.directory && !open.no_follow {
        return folder(link, open).await;
    }
    let found = link.retried(|tunnel| async move { file(&tunnel, open).await }).await?;
    match found {
        Found::File(attributes, descriptor) => Ok((attributes, descriptor)),
        Found::Folder => folder(link, open).await,
    }
}

enum Found {
    File(Attributes, OwnedFd),
    Folder,
}

async fn file(tunnel: &Tunnel, open: &Open) -> Result<Found, AskError> {
    let (opened, stream): (Opened, Stream) = tunnel.open(&Request::Open(open.clone())).await?;
    let attributes = opened.attributes;
    match attributes.mode & libc::S_IFMT {
        libc::S_IFDIR => return Ok(Found::Folder),
        libc::S_IFREG => {}
        _ => {
            return Err(refused(
                FailureCode::NeverServed,
                Errno::ACCESS,
                "it is neither a file nor a folder",
            ));
        }
    }
    if attributes.size > FILE_LIMIT {
        tracing::warn!(path = %open.path, size = attributes.size, "a file is too large to be handed over");
        return Err(too_large());
    }
    let mut content = Content::new(conversation::FILE_MEMFD).map_err(local)?;
    content.push(&stream.tail).map_err(local)?;
    if !opened.end {
        rest(tunnel, stream, attributes.size, &mut content).await?;
    }
    let descriptor = content.seal(&attributes).map_err(local)?;
    Ok(Found::File(attributes, descriptor))
}

/// Reads on until the end, several reads ahead. What a file grew by in the meantime is read as well.
async fn rest(tunnel: &Tunnel, mut stream: Stream, size: u64, content: &mut Content) -> Result<(), AskError> {
    let mut asked = content.length;
    let mut under_way = 0;
    loop {
        while under_way < PIPELINE && (asked < size || under_way == 0) {
            let read = Read { offset: asked, length: READ_BYTES };
            let written = framing::write(&mut stream.send, &read, &[]).await;
            written.map_err(|error| refused(FailureCode::System, Errno::IO, error.to_string()))?;
            // Reads sent while others are under way wait for nothing of their own.
            if under_way == 0 {
                tunnel.count();
            }
            asked += u64::from(READ_BYTES);
            under_way += 1;
        }
        let (data, bytes): (Data, Bytes) = tunnel.next(&mut stream.receive).await?;
        under_way -= 1;
        content.push(&bytes).map_err(local)?;
        if data.end || bytes.len() < READ_BYTES as usize {
            return Ok(());
        }
        if content.length > FILE_LIMIT {
            return Err(too_large());
        }
    }
}

async fn folder(link: &Link, open: &Open) -> Result<(Attributes, OwnedFd), LinkError> {
    let (attributes, content) = link.retried(|tunnel| async move { list(&tunnel, open).await }).await?;
    let sealed = content.seal(&attributes);
    Ok((attributes, sealed.map_err(|error| LinkError::Failed(failure(&error)))?))
}

/// Frame by frame into the descriptor: however long the listing is, and be it endless, no more than a frame of it lies in
/// this process.
async fn list(tunnel: &Tunnel, open: &Open) -> Result<(Attributes, Content), AskError> {
    let request = Request::List(request::List { path: open.path.clone() });
    let (mut part, mut stream): (Listing, Stream) = tunnel.open(&request).await?;
    let _ = stream.send.finish();
    let mut attributes = part.attributes.unwrap_or_default();
    // Whatever the pod says: what is handed over is a listing.
    attributes.mode = attributes.mode & 0o7777 | libc::S_IFDIR;
    // The parent's inode isn't known without another round trip, and 0 would mean a deleted entry.
    let mut encoder = listing::Encoder::new(&attributes, 1);
    let mut content = Content::new(conversation::FOLDER_MEMFD).map_err(local)?;
    loop {
        if part.entries.len() > LISTING_ENTRIES || (part.more && part.entries.is_empty()) {
            return Err(refused(FailureCode::Malformed, Errno::IO, "the pod's listing makes no sense"));
        }
        encoder.add(&part.entries);
        content.push(&encoder.take()).map_err(local)?;
        if content.length > LISTING_LIMIT {
            return Err(refused(FailureCode::Limit, Errno::OVERFLOW, "the folder has too many entries"));
        }
        if !part.more {
            return Ok((attributes, content));
        }
        (part, _) = tunnel.next(&mut stream.receive).await?;
    }
}

fn refused(code: FailureCode, errno: Errno, message: impl Into<String>) -> AskError {
    AskError::Failed(Failure::new(code, errno.raw_os_error(), message))
}

fn too_large() -> AskError {
    refused(FailureCode::Limit, Errno::FBIG, "the file is too large to be handed over")
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn local(error: io::Error) -> AskError {
    AskError::Failed(failure(&error))
}

fn failure(error: &io::Error) -> Failure {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    Failure::new(FailureCode::System, errno, format!("on this machine: {error}"))
}

/// A memfd while it is filled.
#[derive(Debug)]
struct Content {
    file: File,
    length: u64,
}

impl Content {
    fn new(name: &str) -> io::Result<Self> {
        let descriptor = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        Ok(Self { file: File::from(descriptor), length: 0 })
    }

    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.length += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// Mode, times and seals; the descriptor to give away.
    fn seal(self, attributes: &Attributes) -> io::Result<OwnedFd> {
        let reader = File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))?;
        let descriptor = self.file.as_fd();
        fchmod(descriptor, Mode::from_raw_mode(attributes.mode & 0o7777))?;
        let time = |time: mirrord_protocol::reply::Time| Timespec {
            tv_sec: time.0,
            tv_nsec: time.1.min(999_999_999).into(),
        };
        let times =
            Timestamps { last_access: time(attributes.atime), last_modification: time(attributes.mtime) };
        futimens(descriptor, &times)?;
        fcntl_add_seals(descriptor, SealFlags::from_bits_retain(conversation::SEALS.cast_unsigned()))?;
        Ok(reader.into())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        os::unix::fs::{FileExt, MetadataExt},
    };

    use mirrord_protocol::reply::Time;

    use super::*;

    #[test]
    fn a_handed_over_file_is_read_only_sealed_and_looks_like_the_remote_one() {
        let attributes = Attributes {
            mode: libc::S_IFREG | 0o240,
            atime: Time(1_000, 5),
            mtime: Time(-2_000, 7),
            ..Attributes::default()
        };
        let mut content = Content::new(conversation::FILE_MEMFD).unwrap();
        content.push(b"hello ").unwrap();
        content.push(b"world").unwrap();
        let mut file = File::from(content.seal(&attributes).unwrap());
        let status = file.metadata().unwrap();
        assert_eq!(status.mode(), libc::S_IFREG | 0o240);
        assert_eq!((status.atime(), status.atime_nsec()), (1_000, 5));
        assert_eq!((status.mtime(), status.mtime_nsec()), (-2_000, 7));
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello world");
        let refused = file.write_at(b"x", 0).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EBADF), "it isn't open for writing");
        let seals = rustix::fs::fcntl_get_seals(&file).unwrap();
        assert_eq!(seals.bits(), conversation::SEALS.cast_unsigned());
    }
}
