//! What a program passes on when it starts another: the layer, its settings, and what its descriptors are.
//!
//! Most programs pass their environment on, and nothing needs doing. Where a program clears it, the layer is put back;
//! where remote descriptors stay open across execve(2), `MIRRORD_DESCRIPTORS` says what they are. The new environment
//! is built in one buffer that the caller provides: this runs between fork and exec, where allocating is unwise.

use std::{
    ffi::{CStr, CString},
    fmt::Write as _,
    net::SocketAddr,
    os::unix::ffi::OsStrExt,
    sync::Arc,
};

use mirrord_protocol::{
    path::RemotePath,
    reply::{Attributes, Time},
};

use crate::{
    descriptors::{File, Identity, Known, Socket, Table},
    layer::Layer,
    program::{self, Refusal},
    settings::{ALLOW_LOCAL, DESCRIPTORS, PRELOAD, Settings, SettingsError, VARIABLE, unescape},
};

/// Bytes of text that a new environment may need: `LD_PRELOAD` and `MIRRORD_DESCRIPTORS`.
pub const TEXT_BYTES: usize = 16 * 1024;

/// The variables that keep a program under mirrord, ready to be put back.
#[derive(Debug)]
pub(crate) struct Own {
    settings: CString,
    layer: Vec<u8>,
}

impl Own {
    pub(crate) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let [(_, value), _] = settings.variables(None)?;
        let text = [VARIABLE.as_bytes(), b"=", value.as_bytes()].concat();
        let unloadable = |_| SettingsError::Unloadable(settings.layer.clone());
        Ok(Self {
            settings: CString::new(text).map_err(unloadable)?,
            layer: settings.layer.as_os_str().as_bytes().to_vec(),
        })
    }
}

/// What has to change in an environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change<'a> {
    /// `MIRRORD_SETTINGS=…`, where it is missing.
    pub settings: Option<&'a CStr>,
    /// `LD_PRELOAD=…`, instead of what is there.
    pub preload: Option<&'a CStr>,
    /// `MIRRORD_DESCRIPTORS=…`, instead of what is there.
    pub descriptors: Option<&'a CStr>,
    /// `MIRRORD_DESCRIPTORS` is there and has to go.
    pub drop_descriptors: bool,
}

impl Change<'_> {
    /// Whether the environment can go as it is.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a variable is dropped or replaced.
    #[must_use]
    pub fn drops(&self, variable: &CStr) -> bool {
        let is = |name| value(variable, name).is_some();
        (self.preload.is_some() && is(PRELOAD))
            || ((self.drop_descriptors || self.descriptors.is_some()) && is(DESCRIPTORS))
    }

    /// The variables to add.
    pub fn added(&self) -> impl Iterator<Item = &CStr> {
        [self.settings, self.preload, self.descriptors].into_iter().flatten()
    }
}

/// The value of a variable, if it has this name.
fn value<'a>(variable: &'a CStr, name: &str) -> Option<&'a [u8]> {
    variable.to_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

impl Layer {
    /// Why mirrord doesn't start a program; `None` where it does. `environment` is the new program's.
    #[must_use]
    pub fn refuses<'a>(
        &self,
        program: &CStr,
        environment: impl Iterator<Item = &'a CStr>,
    ) -> Option<Refusal> {
        let refusal = program::refusal_c(program)?;
        (!self.allows_local(environment)).then_some(refusal)
    }

    /// Whether the user lets programs run that mirrord can't enter.
    #[must_use]
    pub fn allows_local<'a>(&self, mut environment: impl Iterator<Item = &'a CStr>) -> bool {
        self.allow_local || environment.any(|variable| value(variable, ALLOW_LOCAL) == Some(b"1"))
    }

    /// What has to change in an environment before execve(2).
    pub fn prepare<'a, 'b>(
        &'b self,
        environment: impl Iterator<Item = &'a CStr>,
        text: &'b mut [u8; TEXT_BYTES],
    ) -> Change<'b> {
        let mut change = Change { settings: Some(&self.environment.settings), ..Change::default() };
        let mut others: Option<&[u8]> = None;
        let mut loaded = false;
        for variable in environment {
            if value(variable, VARIABLE).is_some() {
                change.settings = None;
            } else if let Some(list) = value(variable, PRELOAD) {
                let separator = |byte: &u8| *byte == b':' || *byte == b' ';
                loaded = list.split(separator).any(|library| library == self.environment.layer);
                others = Some(list);
            } else if value(variable, DESCRIPTORS).is_some() {
                change.drop_descriptors = true;
            }
        }
        let mut text = Text(text);
        if !loaded {
            let own: &[u8] = &self.environment.layer;
            let rest = others.filter(|others| !others.is_empty());
            change.preload = text.line(|line| {
                line.put(PRELOAD.as_bytes())?;
                line.put(b"=")?;
                line.put(own)?;
                rest.map_or(Some(()), |rest| line.put(b":").and_then(|()| line.put(rest)))
            });
        }
        if !self.table.is_empty() {
            change.descriptors = text.line(|line| describe(&self.table, line));
        }
        change
    }
}

/// A buffer that lines are cut from.
struct Text<'a>(&'a mut [u8]);

/// One line while it is written.
struct Line<'a> {
    bytes: &'a mut [u8],
    length: usize,
}

impl<'a> Text<'a> {
    /// A line, NUL-terminated; `None` where there is no room or `write` wants none.
    fn line(&mut self, write: impl FnOnce(&mut Line<'_>) -> Option<()>) -> Option<&'a CStr> {
        let bytes = std::mem::take(&mut self.0);
        let mut line = Line { bytes, length: 0 };
        let written = write(&mut line).and_then(|()| line.put(b"\0"));
        let (used, rest) = line.bytes.split_at_mut(line.length);
        self.0 = rest;
        written.and_then(|()| CStr::from_bytes_until_nul(used).ok())
    }
}

impl Line<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.length.checked_add(bytes.len())?;
        self.bytes.get_mut(self.length..end)?.copy_from_slice(bytes);
        self.length = end;
        Some(())
    }
}

impl std::fmt::Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.put(text.as_bytes()).ok_or(std::fmt::Error)
    }
}

/// Writes `MIRRORD_DESCRIPTORS=` and a row per thing that stays open. Rows that find no room are left out: then
/// fstat(2) tells what the memfd itself knows, which is size, mode and times.
fn describe(table: &Table, line: &mut Line<'_>) -> Option<()> {
    line.put(DESCRIPTORS.as_bytes())?;
    line.put(b"=")?;
    let mut any = false;
    table.for_each_inherited(|identity, known| {
        let before = line.length;
        // One byte stays for the NUL.
        if row(line, identity, known).is_none() || line.length >= line.bytes.len() {
            line.length = before;
        } else {
            any = true;
        }
    });
    any.then_some(())
}

fn row(line: &mut Line<'_>, identity: Identity, known: &Known) -> Option<()> {
    write!(line, "{:x},{:x},", identity.device, identity.inode).ok()?;
    match known {
        Known::File(file) => {
            let a = &file.attributes;
            for number in
                [u64::from(a.mode), a.size, a.uid.into(), a.gid.into(), a.ino, a.dev, a.nlink, a.rdev]
            {
                write!(line, "{number:x},").ok()?;
            }
            write!(line, "{:x},{:x},", a.blksize, a.blocks).ok()?;
            for Time(seconds, nanoseconds) in [a.atime, a.mtime, a.ctime] {
                write!(line, "{:x},{nanoseconds:x},", seconds.cast_unsigned()).ok()?;
            }
            put_escaped(line, file.path.as_bytes())?;
        }
        Known::Socket(Socket { local, peer, listener }) => {
            write!(line, "{local},{peer},{listener}").ok()?;
        }
    }
    line.put(b";")
}

/// As [`crate::settings`] escapes, byte by byte, so that nothing is allocated but a byte's own form.
fn put_escaped(line: &mut Line<'_>, bytes: &[u8]) -> Option<()> {
    bytes.iter().try_for_each(|byte| {
        if byte.is_ascii_graphic() && !b"%;:=,".contains(byte) {
            line.put(&[*byte])
        } else {
            write!(line, "%{byte:02X}").ok()
        }
    })
}

/// Fills a table with what [`describe`] wrote in the program before. What can't be read is skipped.
pub(crate) fn inherit(table: &Table, text: &[u8]) {
    for row in text.split(|byte| *byte == b';') {
        if let Some((identity, known)) = std::str::from_utf8(row).ok().and_then(read_row) {
            table.add_known(identity, known);
        }
    }
}

fn read_row(row: &str) -> Option<(Identity, Known)> {
    let mut parts = row.split(',');
    let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
    let identity = Identity { device: number()?, inode: number()? };
    let parts: Vec<&str> = parts.collect();
    let known = match parts.as_slice() {
        [local, peer, listener] => {
            let address = |text: &str| text.parse::<SocketAddr>().ok();
            let (local, peer, listener) = (address(local)?, address(peer)?, address(listener)?);
            Known::Socket(Socket { local, peer, listener })
        }
        [numbers @ .., path] => Known::File(Arc::new(read_file(numbers, path)?)),
        [] => return None,
    };
    Some((identity, known))
}

fn read_file(numbers: &[&str], path: &str) -> Option<File> {
    let numbers: Vec<u64> =
        numbers.iter().map(|text| u64::from_str_radix(text, 16).ok()).collect::<Option<_>>()?;
    let [mode, size, uid, gid, ino, dev, nlink, rdev, blksize, blocks, a, an, m, mn, c, cn] = numbers[..]
    else {
        return None;
    };
    let small = |number: u64| u32::try_from(number).ok();
    let time = |seconds: u64, nanoseconds| Some(Time(seconds.cast_signed(), small(nanoseconds)?));
    let attributes = Attributes {
        mode: small(mode)?,
        size,
        uid: small(uid)?,
        gid: small(gid)?,
        ino,
        dev,
        nlink,
        rdev,
        blksize: small(blksize)?,
        blocks,
        atime: time(a, an)?,
        mtime: time(m, mn)?,
        ctime: time(c, cn)?,
    };
    Some(File { attributes, path: RemotePath::new(unescape(path.as_bytes())?).ok()? })
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd};

    use super::*;
    use crate::{settings::FileMode, sys};

    fn layer() -> Layer {
        let settings = Settings {
            proxy: "/p".into(),
            layer: "/l.so".into(),
            files: FileMode::Read,
            outgoing: true,
            remote_mounts: vec![],
            local_trees: vec![],
        };
        Layer::new(settings, None, false).unwrap()
    }

    /// What is added and what dropped, of an environment.
    fn prepared(layer: &Layer, environment: &[&CStr]) -> (Vec<String>, Vec<String>) {
        let mut text = [0; TEXT_BYTES];
        let change = layer.prepare(environment.iter().copied(), &mut text);
        let text = |variable: &CStr| variable.to_str().unwrap().to_owned();
        let dropped =
            environment.iter().filter(|variable| change.drops(variable)).map(|variable| text(variable));
        (change.added().map(text).collect(), dropped.collect())
    }

    #[test]
    fn an_environment_that_carries_the_layer_goes_as_it_is() {
        let layer = layer();
        let mut text = [0; TEXT_BYTES];
        let environment = [c"A=b", c"MIRRORD_SETTINGS=x", c"LD_PRELOAD=other.so:/l.so"];
        assert!(layer.prepare(environment.into_iter(), &mut text).is_none());
    }

    #[test]
    fn what_is_missing_is_put_back_and_other_libraries_kept() {
        let layer = layer();
        let (added, dropped) =
            prepared(&layer, &[c"A=b", c"LD_PRELOAD=other.so", c"MIRRORD_DESCRIPTORS=old"]);
        assert!(added[0].starts_with("MIRRORD_SETTINGS=proxy=/p;layer=/l.so"), "{added:?}");
        assert_eq!(added[1], "LD_PRELOAD=/l.so:other.so");
        assert_eq!(dropped, ["LD_PRELOAD=other.so", "MIRRORD_DESCRIPTORS=old"]);
        assert_eq!(prepared(&layer, &[]).0[1], "LD_PRELOAD=/l.so");
    }

    #[test]
    fn what_stays_open_is_known_to_the_next_program() {
        let layer = layer();
        let stays = |number: &dyn AsRawFd| {
            sys::control(number.as_raw_fd(), libc::F_SETFD, 0).unwrap();
            Identity::from(&sys::status(number.as_raw_fd()).unwrap())
        };
        let (one, other) = (tempfile::tempfile().unwrap(), std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let time = Time(-5, 999_999_999);
        let attributes =
            Attributes { mode: 0o100_644, size: u64::MAX, ino: 3, mtime: time, ..Attributes::default() };
        let file = File { attributes, path: RemotePath::new(&b"/srv/\xff,;:%"[..]).unwrap() };
        layer.table.add_file(stays(&one), file.clone());
        let address = |text: &str| text.parse().unwrap();
        let (local, peer) = (address("[2001:db8::1]:1"), address("10.0.0.1:2"));
        layer.table.add_socket(stays(&other), Socket { local, peer, listener: address("127.0.0.1:3") });

        let (added, _) = prepared(&layer, &[c"MIRRORD_SETTINGS=x", c"LD_PRELOAD=/l.so"]);
        let next = Table::default();
        inherit(&next, added[0].strip_prefix("MIRRORD_DESCRIPTORS=").unwrap().as_bytes());
        assert_eq!(
            next.file(Identity::from(&sys::status(one.as_fd().as_raw_fd()).unwrap())).as_deref(),
            Some(&file)
        );
        assert_eq!(next.socket(other.as_raw_fd()).map(|(_, socket)| socket.peer), Some(peer));
    }

    #[test]
    fn more_than_fits_is_left_out_row_by_row() {
        let layer = layer();
        let attributes = Attributes::default();
        let files: Vec<_> = (0..20).map(|_| tempfile::tempfile().unwrap()).collect();
        for file in &files {
            sys::control(file.as_raw_fd(), libc::F_SETFD, 0).unwrap();
            let path = RemotePath::new([&b"/"[..], &[b'x'; 2000]].concat()).unwrap();
            layer
                .table
                .add_file(Identity::from(&sys::status(file.as_raw_fd()).unwrap()), File { attributes, path });
        }
        let (added, _) = prepared(&layer, &[c"MIRRORD_SETTINGS=x", c"LD_PRELOAD=/l.so"]);
        let rows = added[0].matches(';').count();
        assert!((5..10).contains(&rows) && added[0].ends_with(';'), "{rows}");
    }

    #[test]
    fn rows_that_make_no_sense_are_skipped() {
        let table = Table::default();
        inherit(&table, b"1,2,x;;1,2;1,2,3,4,5;zz,1,127.0.0.1:1,127.0.0.1:1,127.0.0.1:1;\xff");
        assert!(table.is_empty());
    }
}
