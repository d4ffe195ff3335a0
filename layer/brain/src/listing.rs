//! How a remote folder's entries lie in its descriptor: as getdents64(2) would write them.
//!
//! Records of `struct linux_dirent64` follow one another, `.` and `..` first; `d_off` is the position of the next
//! record in bytes. glibc's `struct dirent64` has the same layout, so readdir(3) can point right at a record.
//!
//! ```text
//! d_ino (u64) ‖ d_off (i64) ‖ d_reclen (u16) ‖ d_type (u8) ‖ d_name, NUL ‖ padding to 8 bytes   (native order)
//! ```

use mirrord_protocol::reply::{Attributes, Entry};

/// Bytes of a record in front of the name.
pub const NAME_OFFSET: usize = 19;
/// Longest name (NAME_MAX of Linux), in bytes; longer ones are left out.
pub const NAME_BYTES: usize = 255;

/// One entry of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Inode.
    pub ino: u64,
    /// Kind: `DT_REG` and so on.
    pub kind: u8,
    /// Without NUL.
    pub name: &'a [u8],
    /// Where the next record begins.
    pub next: usize,
}

/// Writes a listing, part by part; for the proxy's end.
#[derive(Debug)]
pub struct Encoder {
    bytes: Vec<u8>,
    /// Bytes of the parts before.
    taken: usize,
}

impl Encoder {
    /// Begins with the folder itself and the one above.
    #[must_use]
    pub fn new(folder: &Attributes, parent_ino: u64) -> Self {
        let mut encoder = Self { bytes: Vec::new(), taken: 0 };
        encoder.push(folder.ino, libc::DT_DIR, b".");
        encoder.push(parent_ino, libc::DT_DIR, b"..");
        encoder
    }

    /// Adds entries, but for those that no kernel would give: a program could take them for paths.
    pub fn add(&mut self, entries: &[Entry]) {
        for Entry { name, attributes } in entries {
            let never = [&b"."[..], b".."].contains(&name.as_slice());
            if never
                || name.is_empty()
                || name.len() > NAME_BYTES
                || name.contains(&0)
                || name.contains(&b'/')
            {
                continue;
            }
            let (ino, kind) = attributes.map_or((0, libc::DT_UNKNOWN), |found| (found.ino, kind(found.mode)));
            // An inode of 0 means "deleted" to old readers of directories.
            self.push(ino.max(1), kind, name);
        }
    }

    /// What was added since the last call.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        self.taken += self.bytes.len();
        std::mem::take(&mut self.bytes)
    }

    fn push(&mut self, ino: u64, kind: u8, name: &[u8]) {
        let length = (NAME_OFFSET + name.len() + 1).next_multiple_of(8);
        let end = self.bytes.len() + length;
        let next = self.taken + end;
        self.bytes.extend_from_slice(&ino.to_ne_bytes());
        self.bytes.extend_from_slice(&i64::try_from(next).unwrap_or(i64::MAX).to_ne_bytes());
        self.bytes.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
        self.bytes.push(kind);
        self.bytes.extend_from_slice(name);
        self.bytes.resize(end, 0);
    }
}

/// Writes a whole listing.
#[must_use]
pub fn encode(folder: &Attributes, parent_ino: u64, entries: &[Entry]) -> Vec<u8> {
    let mut encoder = Encoder::new(folder, parent_ino);
    encoder.add(entries);
    encoder.take()
}

/// The `d_type` of a file's mode: the same bits, shifted (`IFTODT` of dirent.h).
#[must_use]
pub fn kind(mode: u32) -> u8 {
    u8::try_from((mode & libc::S_IFMT) >> 12).unwrap_or(libc::DT_UNKNOWN)
}

/// The record at a position; `None` at the end, or where no record begins.
#[must_use]
pub fn record(listing: &[u8], position: usize) -> Option<Record<'_>> {
    let bytes = listing.get(position..)?;
    let (ino, rest) = bytes.split_first_chunk::<8>()?;
    let (_, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (kind, _) = rest.split_first()?;
    let length = usize::from(u16::from_ne_bytes(*length));
    let name = bytes.get(NAME_OFFSET..length)?;
    let name = &name[..name.iter().position(|byte| *byte == 0)?];
    Some(Record { ino: u64::from_ne_bytes(*ino), kind: *kind, name, next: position + length })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(name: &[u8], mode: u32) -> Entry {
        Entry { name: name.to_vec(), attributes: Some(Attributes { ino: 9, mode, ..Attributes::default() }) }
    }

    fn read(listing: &[u8]) -> Vec<(Vec<u8>, u8)> {
        let mut found = Vec::new();
        let mut position = 0;
        while let Some(record) = record(listing, position) {
            found.push((record.name.to_vec(), record.kind));
            position = record.next;
        }
        assert_eq!(position, listing.len());
        found
    }

    #[test]
    fn a_listing_begins_with_dots_and_keeps_kinds() {
        let entries = [entry(b"a", libc::S_IFREG | 0o644), entry(b"link", libc::S_IFLNK | 0o777)];
        let listing = encode(&Attributes { ino: 5, ..Attributes::default() }, 2, &entries);
        let dot = |name: &[u8], kind| (name.to_vec(), kind);
        let expected = [
            dot(b".", libc::DT_DIR),
            dot(b"..", libc::DT_DIR),
            dot(b"a", libc::DT_REG),
            dot(b"link", libc::DT_LNK),
        ];
        assert_eq!(read(&listing), expected);
        assert_eq!(record(&listing, 0).map(|first| first.ino), Some(5));
    }

    #[test]
    fn names_that_no_kernel_would_give_are_left_out() {
        let names: [&[u8]; 9] =
            [b"a/b", b"/etc/passwd", b"../x", &[b'x'; 256], b"", b"n\0", b".", b"..", b"ok"];
        let entries = names.map(|name| entry(name, 0));
        let names: Vec<_> =
            read(&encode(&Attributes::default(), 1, &entries)).into_iter().map(|it| it.0).collect();
        assert_eq!(names, [&b"."[..], b"..", b"ok"]);
    }

    #[test]
    fn parts_make_the_same_listing_as_the_whole() {
        let entries = [entry(b"a", libc::S_IFREG), entry(b"bcdefghijk", libc::S_IFDIR), entry(b"l", 0)];
        let mut encoder = Encoder::new(&Attributes::default(), 1);
        let mut parts = Vec::new();
        for entry in &entries {
            encoder.add(std::slice::from_ref(entry));
            parts.extend(encoder.take());
        }
        assert_eq!(parts, encode(&Attributes::default(), 1, &entries));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0_usize..256) {
            let _ = record(&bytes, at);
        }
    }
}
