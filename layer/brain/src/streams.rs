//! Reading a remote folder entry by entry: what opendir(3) gives, for a descriptor that holds a [`crate::listing`].

use std::{
    ffi::c_int,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use crate::{
    listing,
    sys::{self, Errno},
};

/// Largest `struct dirent64`: programs copy that much from an entry, though most are shorter.
pub const ENTRY_BYTES: usize = 280;

/// A folder that is being read.
#[derive(Debug)]
pub struct Stream {
    descriptor: OwnedFd,
    /// The listing, with room behind it for a copy of the last entry at full length.
    records: Vec<u8>,
    length: usize,
    position: usize,
}

impl Stream {
    /// Reads the whole listing behind a descriptor.
    ///
    /// # Errors
    /// As the kernel says; with it, the descriptor comes back.
    pub fn new(descriptor: OwnedFd) -> Result<Self, (Errno, OwnedFd)> {
        match read_all(&descriptor) {
            Ok((records, length)) => Ok(Self { descriptor, records, length, position: 0 }),
            Err(errno) => Err((errno, descriptor)),
        }
    }

    /// The next entry, as the bytes of a `struct dirent64` with [`ENTRY_BYTES`] readable bytes.
    pub fn next_entry(&mut self) -> Option<&[u8]> {
        let record = listing::record(&self.records[..self.length], self.position)?;
        let start = std::mem::replace(&mut self.position, record.next);
        self.records.get(start..start + ENTRY_BYTES)
    }

    /// telldir(3).
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// seekdir(3), rewinddir(3): to a position that [`Self::position`] gave.
    pub fn seek(&mut self, position: usize) {
        self.position = position.min(self.length);
    }

    /// dirfd(3).
    #[must_use]
    pub fn number(&self) -> c_int {
        self.descriptor.as_raw_fd()
    }
}

fn read_all(descriptor: &OwnedFd) -> Result<(Vec<u8>, usize), Errno> {
    let size = sys::status(descriptor.as_raw_fd())?.st_size;
    let size = usize::try_from(size).map_err(|_| Errno(libc::EIO))?;
    let mut records = vec![0; size + ENTRY_BYTES];
    let mut length = 0;
    while length < size {
        let offset = i64::try_from(length).map_err(|_| Errno(libc::EIO))?;
        match sys::read_at(descriptor.as_fd(), &mut records[length..size], offset)? {
            0 => break,
            count => length += count,
        }
    }
    Ok((records, length))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use mirrord_protocol::reply::{Attributes, Entry};

    use super::*;

    fn stream(names: &[&str]) -> Stream {
        let entry = |name: &&str| Entry { name: name.as_bytes().to_vec(), attributes: None };
        let entries: Vec<Entry> = names.iter().map(entry).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&listing::encode(&Attributes::default(), 1, &entries)).unwrap();
        Stream::new(file.into()).map_err(|(errno, _)| errno).unwrap()
    }

    fn name(entry: &[u8]) -> String {
        let name = entry[listing::NAME_OFFSET..].split(|byte| *byte == 0).next().unwrap();
        String::from_utf8(name.to_vec()).unwrap()
    }

    #[test]
    fn entries_come_in_order_and_to_an_end() {
        let mut stream = stream(&["b", "a"]);
        let names: Vec<String> = std::iter::from_fn(|| stream.next_entry().map(name)).collect();
        assert_eq!(names, [".", "..", "b", "a"]);
        assert_eq!(stream.next_entry(), None);
    }

    #[test]
    fn a_position_can_be_returned_to() {
        let mut stream = stream(&["b", "a"]);
        for _ in 0..3 {
            stream.next_entry();
        }
        let position = stream.position();
        assert_eq!(stream.next_entry().map(name).as_deref(), Some("a"));
        stream.seek(position);
        assert_eq!(stream.next_entry().map(name).as_deref(), Some("a"));
        stream.seek(0);
        assert_eq!(stream.next_entry().map(name).as_deref(), Some("."));
        stream.seek(usize::MAX);
        assert_eq!(stream.next_entry(), None);
    }
}
