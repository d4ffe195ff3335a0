//! Which programs a preload front can enter, and the message for those it can't.
//!
//! The dynamic linker of glibc loads the layer, so a program must have one and must obey `LD_PRELOAD`. Like the
//! kernel at execve(2) we look at the first bytes: `#!` leads on to an interpreter, up to [`SCRIPTS`] times; of an ELF
//! file (elf(5)) the program headers tell the dynamic linker (`PT_INTERP`) and Go's mark (`PT_NOTE`). Go programs call
//! the kernel themselves, even where they are dynamic. Nothing is allocated: this also runs between fork and exec.

use std::{
    ffi::{CStr, CString, OsStr},
    fmt,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use crate::{
    settings::ALLOW_LOCAL,
    sys::{self, Errno},
};

/// How many `#!` lines may lead to one another (`MAX_INTERP` of fs/exec.c, rounded up).
pub const SCRIPTS: usize = 5;
/// Bytes of a `#!` line that the kernel looks at (`BINPRM_BUF_SIZE`), and of names kept here.
const NAME_BYTES: usize = 256;
/// Bytes of a file's beginning that are read: program headers lie there in all linkers' output.
const HEAD_BYTES: usize = 4096;

/// A file's name, kept without allocating.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    bytes: [u8; NAME_BYTES],
    length: usize,
}

/// What execve(2) would find in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// A dynamic program that the layer can enter; its dynamic linker.
    Dynamic(Name),
    /// A dynamic program of another C library; its dynamic linker.
    OtherLibc(Name),
    /// A program of the Go tool chain.
    Go,
    /// A program without a dynamic linker.
    Static,
    /// A program of another architecture, or of 32 bits.
    OtherMachine,
    /// A program that gains rights at its start: ld.so(8) then ignores `LD_PRELOAD`.
    Privileged,
    /// A program that may be executed but not read: nothing tells it from a static one.
    Unreadable,
    /// A script; its interpreter.
    Script(Name),
    /// Nothing known: left to the kernel to refuse, and to libc to hand to a shell.
    Unknown,
}

/// Why a program isn't run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The file that can't be entered: the program, or its interpreter.
    pub file: Name,
    /// What it is.
    pub program: Program,
}

impl Name {
    /// Keeps the first [`NAME_BYTES`] bytes.
    fn new(name: &[u8]) -> Self {
        let mut bytes = [0; NAME_BYTES];
        let length = name.len().min(NAME_BYTES - 1);
        bytes[..length].copy_from_slice(&name[..length]);
        Self { bytes, length }
    }

    /// The bytes, without NUL.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// As a path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.as_bytes()))
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }

    fn last(&self) -> &[u8] {
        self.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_path().display().fmt(f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_path(), f)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, program } = self;
        write!(f, "{file} ")?;
        match program {
            Program::OtherLibc(linker) => {
                write!(f, "is linked with another C library than glibc (its linker is {linker})")?;
            }
            Program::Go => f.write_str("is a Go program, which calls the kernel without a C library")?,
            Program::OtherMachine => f.write_str("is built for another architecture")?,
            Program::Privileged => {
                f.write_str("gains rights at its start (set-user-ID or file capabilities), so nothing can be loaded into it")?;
            }
            Program::Unreadable => f.write_str("can't be read, so it can't be told what it is")?,
            _ => f.write_str("is statically linked")?,
        }
        write!(
            f,
            ": mirrord can't enter it. Set {ALLOW_LOCAL}=1 to run such programs without mirrord, locally"
        )
    }
}

/// Why mirrord can't run a program, if so: follows scripts to their interpreter. What can't be looked at is admitted, since
/// execve(2) says better what is wrong with it.
pub fn refusal(path: &Path) -> Option<Refusal> {
    match CString::new(path.as_os_str().as_bytes()) {
        Ok(path) => refusal_c(&path),
        Err(_) => None,
    }
}

/// As [`refusal`], without allocating.
pub fn refusal_c(path: &CStr) -> Option<Refusal> {
    let Ok(mut program) = inspect(path) else { return None };
    let mut file = Name::new(path.to_bytes());
    for _ in 0..SCRIPTS {
        match program {
            Program::Script(interpreter) => {
                let Ok(found) = inspect(interpreter.as_c_str()) else { return None };
                (file, program) = (interpreter, found);
            }
            Program::Dynamic(_) | Program::Unknown => return None,
            _ => return Some(Refusal { file, program }),
        }
    }
    None
}

/// As [`refusal`], of a program that is open already, for fexecve(3).
pub fn refusal_open(file: BorrowedFd<'_>) -> Option<Refusal> {
    match read_head(file) {
        Ok(Program::Script(interpreter)) => refusal_c(interpreter.as_c_str()),
        Ok(Program::Dynamic(_) | Program::Unknown) | Err(_) => None,
        Ok(program) => Some(Refusal { file: Name::new(b"the program"), program }),
    }
}

/// The program that execvp(3) would start: the first in `PATH` that can be executed, of all variables in `environment`.
pub fn find<'a, 'b>(
    name: &'b CStr,
    mut environment: impl Iterator<Item = &'a CStr>,
    buffer: &'b mut [u8],
) -> Option<&'b CStr> {
    if name.to_bytes().contains(&b'/') {
        return Some(name);
    }
    let list = environment.find_map(|variable| variable.to_bytes().strip_prefix(b"PATH="));
    // As confstr(3) says of _CS_PATH.
    for folder in list.unwrap_or(b"/bin:/usr/bin").split(|byte| *byte == b':') {
        let folder = if folder.is_empty() { b"." } else { folder };
        let Some(length) = write_path(&[folder, b"/", name.to_bytes()], buffer) else { continue };
        let found = CStr::from_bytes_until_nul(&buffer[..length]).unwrap_or_default();
        let is_file =
            sys::status_of(found).is_ok_and(|status| status.st_mode & libc::S_IFMT == libc::S_IFREG);
        if is_file && sys::may_execute(found) {
            return CStr::from_bytes_until_nul(&buffer[..length]).ok();
        }
    }
    None
}

/// A path by which the kernel finds what lies below an open folder.
pub fn below<'b>(folder: i32, path: &CStr, buffer: &'b mut [u8]) -> Option<&'b CStr> {
    let mut digits = [0; 12];
    let mut rest = u32::try_from(folder).ok()?;
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + u8::try_from(rest % 10).ok()?;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let length = write_path(&[b"/proc/self/fd/", &digits[start..], b"/", path.to_bytes()], buffer)?;
    CStr::from_bytes_until_nul(&buffer[..length]).ok()
}

/// Writes parts and a NUL, and says how many bytes that is; `None` where there is no room.
fn write_path(parts: &[&[u8]], buffer: &mut [u8]) -> Option<usize> {
    let mut length = 0;
    for part in parts.iter().copied().chain([&b"\0"[..]]) {
        buffer.get_mut(length..length + part.len())?.copy_from_slice(part);
        length += part.len();
    }
    Some(length)
}

/// Looks at a file as execve(2) would.
///
/// # Errors
/// Where it can't be opened or read.
pub fn inspect(path: &CStr) -> Result<Program, Errno> {
    let status = sys::status_of(path)?;
    if status.st_mode & libc::S_IFMT != libc::S_IFREG || !sys::may_execute(path) {
        return Ok(Program::Unknown);
    }
    let file = match sys::open(path, libc::O_RDONLY | libc::O_NONBLOCK) {
        Ok(file) => file,
        Err(Errno(libc::EACCES)) => return Ok(Program::Unreadable),
        Err(errno) => return Err(errno),
    };
    let mut program = read_head(file.as_fd())?;
    let name = Name::new(path.to_bytes());
    if program == Program::Static && is_glibc_linker(&name) {
        // `ld.so program` loads the layer as it would for the program alone.
        program = Program::Dynamic(name);
    }
    let elf = !matches!(program, Program::Script(_) | Program::Unknown);
    // A script's own bits are ignored by the kernel.
    Ok(if elf && gains_rights(path, &status) { Program::Privileged } else { program })
}

fn gains_rights(path: &CStr, status: &sys::Status) -> bool {
    let (user, group) = sys::identity();
    let set_user = status.st_mode & libc::S_ISUID != 0 && status.st_uid != user;
    let by_group = libc::S_ISGID | libc::S_IXGRP;
    let set_group = status.st_mode & by_group == by_group && status.st_gid != group;
    // Capabilities of files change nothing for root (capabilities(7)).
    set_user || set_group || (user != 0 && sys::has_attribute(path, c"security.capability"))
}

fn read_head(file: BorrowedFd<'_>) -> Result<Program, Errno> {
    let mut head = [0; HEAD_BYTES];
    let length = sys::read_at(file, &mut head, 0)?;
    let mut fetch = |offset: u64, place: &mut [u8]| {
        i64::try_from(offset).ok().and_then(|offset| sys::read_at(file, place, offset).ok()).unwrap_or(0)
    };
    Ok(judge(&head[..length], &mut fetch))
}

/// Reads a part of the file into a buffer, and says how much there was.
type Fetch<'a> = dyn FnMut(u64, &mut [u8]) -> usize + 'a;

/// What a file is by its first bytes; `fetch` reads others.
fn judge(head: &[u8], fetch: &mut Fetch<'_>) -> Program {
    if let Some(line) = head.strip_prefix(b"#!") {
        return script(line);
    }
    if !head.starts_with(b"\x7fELF") {
        return Program::Unknown;
    }
    elf(head, fetch)
}

fn script(line: &[u8]) -> Program {
    let line = &line[..line.len().min(NAME_BYTES - 2)];
    let line = &line[..line.iter().position(|byte| *byte == b'\n').unwrap_or(line.len())];
    let name = line.trim_ascii_start();
    let end = name.iter().position(|byte| b" \t\r\0".contains(byte)).unwrap_or(name.len());
    if end == 0 { Program::Unknown } else { Program::Script(Name::new(&name[..end])) }
}

const ELFCLASS64: u8 = 2;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

fn elf(head: &[u8], fetch: &mut Fetch<'_>) -> Program {
    if head.get(4) != Some(&ELFCLASS64) || u16_at(head, 18) != Some(MACHINE) {
        return Program::OtherMachine;
    }
    let (Some(kind), Some(table), Some(size), Some(count)) =
        (u16_at(head, 16), u64_at(head, 32), u16_at(head, 54), u16_at(head, 56))
    else {
        return Program::Unknown;
    };
    if kind != ET_EXEC && kind != ET_DYN {
        return Program::Unknown;
    }
    let mut linker = None;
    for index in 0..u64::from(count) {
        let mut header = [0; 56];
        let Some(position) = table.checked_add(index * u64::from(size)) else { break };
        if fetch(position, &mut header) < header.len() {
            break;
        }
        let (Some(kind), Some(offset), Some(length)) =
            (u32_at(&header, 0), u64_at(&header, 8), u64_at(&header, 32))
        else {
            break;
        };
        match kind {
            PT_INTERP => linker = Some(text(offset, length, fetch)),
            PT_NOTE if is_go_note(offset, length, fetch) => return Program::Go,
            _ => {}
        }
    }
    linker.map_or(Program::Static, by_linker)
}

fn by_linker(linker: Name) -> Program {
    if is_glibc_linker(&linker) { Program::Dynamic(linker) } else { Program::OtherLibc(linker) }
}

/// By the file names that glibc gives it on the machines we know, and Debian's shorthand.
fn is_glibc_linker(file: &Name) -> bool {
    file.last().starts_with(b"ld-linux") || file.last() == b"ld.so"
}

fn text(offset: u64, length: u64, fetch: &mut Fetch<'_>) -> Name {
    let mut bytes = [0; NAME_BYTES - 1];
    let wanted = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
    let found = fetch(offset, &mut bytes[..wanted]);
    let text = &bytes[..found];
    Name::new(&text[..text.iter().position(|byte| *byte == 0).unwrap_or(found)])
}

/// A note whose owner is `Go` (the build id that Go's linker writes, elf(5) "Notes").
fn is_go_note(offset: u64, length: u64, fetch: &mut Fetch<'_>) -> bool {
    let mut notes = [0; 1024];
    let wanted = usize::try_from(length).unwrap_or(usize::MAX).min(notes.len());
    let found = fetch(offset, &mut notes[..wanted]);
    let mut rest = &notes[..found];
    while let (Some(owner), Some(content)) = (u32_at(rest, 0), u32_at(rest, 4)) {
        let aligned = |size: u32| usize::try_from(size).unwrap_or(usize::MAX).checked_next_multiple_of(4);
        let Some(name) = usize::try_from(owner).ok().and_then(|owner| rest.get(12..)?.get(..owner)) else {
            break;
        };
        if name == b"Go\0\0" {
            return true;
        }
        let size =
            aligned(owner).zip(aligned(content)).and_then(|(owner, content)| owner.checked_add(content));
        let Some(next) = size.and_then(|size| rest.get(12..)?.get(size..)) else { break };
        rest = next;
    }
    false
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

    use proptest::prelude::*;

    use super::*;

    /// An ELF file with the given program headers: kind and content.
    fn crafted(machine: u16, headers: &[(u32, &[u8])]) -> Vec<u8> {
        let table = 64_usize;
        let mut content = table + headers.len() * 56;
        let mut file = vec![0; 64];
        file[..5].copy_from_slice(b"\x7fELF\x02");
        file[16..18].copy_from_slice(&ET_DYN.to_le_bytes());
        file[18..20].copy_from_slice(&machine.to_le_bytes());
        file[32..40].copy_from_slice(&u64::try_from(table).unwrap().to_le_bytes());
        file[54..56].copy_from_slice(&56_u16.to_le_bytes());
        file[56..58].copy_from_slice(&u16::try_from(headers.len()).unwrap().to_le_bytes());
        for (kind, bytes) in headers {
            let mut header = [0; 56];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            header[8..16].copy_from_slice(&u64::try_from(content).unwrap().to_le_bytes());
            header[32..40].copy_from_slice(&u64::try_from(bytes.len()).unwrap().to_le_bytes());
            file.extend_from_slice(&header);
            content += bytes.len();
        }
        headers.iter().for_each(|(_, bytes)| file.extend_from_slice(bytes));
        file
    }

    fn judged(file: &[u8]) -> Program {
        judge(&file[..file.len().min(HEAD_BYTES)], &mut |offset, place| {
            let rest = usize::try_from(offset).ok().and_then(|offset| file.get(offset..)).unwrap_or_default();
            let length = rest.len().min(place.len());
            place[..length].copy_from_slice(&rest[..length]);
            length
        })
    }

    fn executable(folder: &Path, name: &str, content: &[u8]) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    const GLIBC: &[u8] = b"/lib64/ld-linux-x86-64.so.2\0";
    const GO_NOTE: &[u8] = b"\x04\0\0\0\x04\0\0\0\x04\0\0\0Go\0\0abcd";
    const GNU_NOTE: &[u8] = b"\x04\0\0\0\x06\0\0\0\x03\0\0\0GNU\0abcdef\0\0";

    #[test]
    fn a_program_is_told_by_its_linker() {
        let Program::Dynamic(linker) = judged(&crafted(MACHINE, &[(1, b""), (PT_INTERP, GLIBC)])) else {
            panic!("not dynamic");
        };
        assert_eq!(linker.as_path(), Path::new("/lib64/ld-linux-x86-64.so.2"));
        let musl = judged(&crafted(MACHINE, &[(PT_INTERP, b"/lib/ld-musl-x86_64.so.1\0")]));
        assert!(matches!(musl, Program::OtherLibc(_)));
        assert_eq!(judged(&crafted(MACHINE, &[(1, b"")])), Program::Static);
        assert_eq!(
            judged(&crafted(40, &[(PT_INTERP, b"/lib/ld-linux-armhf.so.3\0")])),
            Program::OtherMachine
        );
    }

    #[test]
    fn go_is_told_by_its_note_even_where_it_is_dynamic() {
        let notes = [GNU_NOTE, GO_NOTE].concat();
        assert_eq!(judged(&crafted(MACHINE, &[(PT_INTERP, GLIBC), (PT_NOTE, &notes)])), Program::Go);
        let plain = judged(&crafted(MACHINE, &[(PT_INTERP, GLIBC), (PT_NOTE, GNU_NOTE)]));
        assert!(matches!(plain, Program::Dynamic(_)));
    }

    #[test]
    fn a_script_names_its_interpreter() {
        let interpreter = |line: &[u8]| match judged(line) {
            Program::Script(name) => name.as_path().display().to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(interpreter(b"#!/bin/sh\n"), "/bin/sh");
        assert_eq!(interpreter(b"#! \t/usr/bin/env python3\nprint()"), "/usr/bin/env");
        assert_eq!(interpreter(b"#!/bin/true"), "/bin/true");
        assert_eq!(interpreter(b"#!\n/bin/sh"), "Unknown");
    }

    #[test]
    fn real_programs_of_this_machine_are_admitted() {
        for path in ["/bin/sh", "/bin/cat", "/usr/bin/env"] {
            assert_eq!(refusal(Path::new(path)), None);
        }
        let Program::Dynamic(linker) = inspect(c"/bin/cat").unwrap() else { panic!("cat isn't dynamic") };
        assert_eq!(refusal(linker.as_path()), None, "ld.so may be called by name");
    }

    #[test]
    fn a_static_program_behind_scripts_is_refused_by_its_own_name() {
        let folder = tempfile::tempdir().unwrap();
        let program = executable(folder.path(), "static", &crafted(MACHINE, &[(1, b"")]));
        let inner = executable(folder.path(), "inner", format!("#!{}\n", program.display()).as_bytes());
        let outer = executable(folder.path(), "outer", format!("#!{} -x\n", inner.display()).as_bytes());
        let refusal = refusal(&outer).unwrap();
        assert_eq!(refusal.file.as_path(), program);
        let message = refusal.to_string();
        assert!(message.contains("statically linked") && message.contains(ALLOW_LOCAL), "{message}");
    }

    #[test]
    fn a_name_is_looked_for_as_execvp_does() {
        let folder = tempfile::tempdir().unwrap();
        let second = folder.path().join("second");
        fs::create_dir(&second).unwrap();
        fs::write(folder.path().join("tool"), "not executable").unwrap();
        executable(&second, "tool", b"");
        let list = format!("PATH={}:{}", folder.path().display(), second.display());
        let list = CString::new(list).unwrap();
        let mut buffer = [0; 4096];
        let found = find(c"tool", [c"A=b", list.as_c_str()].into_iter(), &mut buffer).map(CStr::to_owned);
        assert_eq!(found.unwrap().to_bytes(), second.join("tool").as_os_str().as_bytes());
        assert_eq!(find(c"a/tool", std::iter::empty(), &mut buffer), Some(c"a/tool"));
        assert_eq!(find(c"no-such-tool", std::iter::empty(), &mut buffer), None);
        assert_eq!(below(120, c"x/y", &mut buffer), Some(c"/proc/self/fd/120/x/y"));
    }

    #[test]
    fn what_execve_itself_refuses_is_left_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("plain");
        fs::write(&plain, crafted(MACHINE, &[])).unwrap();
        assert_eq!(refusal(&plain), None, "not executable");
        assert_eq!(refusal(&folder.path().join("missing")), None);
        assert_eq!(refusal(folder.path()), None);
        let endless = executable(folder.path(), "endless", b"");
        fs::write(&endless, format!("#!{}\n", endless.display())).unwrap();
        assert_eq!(refusal(&endless), None);
    }

    proptest! {
        #[test]
        fn any_file_is_judged(mut file in proptest::collection::vec(any::<u8>(), 64..400), elf: bool) {
            if elf {
                file[..5].copy_from_slice(b"\x7fELF\x02");
                file[16..20].copy_from_slice(&[3, 0, MACHINE.to_le_bytes()[0], 0]);
                file[54..58].copy_from_slice(&[56, 0, 4, 0]);
                file[33..40].fill(0);
            }
            judged(&file);
        }
    }
}
