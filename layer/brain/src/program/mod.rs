//! Which programs a preload front can enter, and the message for those it can't.
//!
//! The dynamic linker of glibc loads the layer, so a program must have one and must obey `LD_PRELOAD`. Like the
//! kernel at execve(2) we look at the first bytes: `#!` leads on to an interpreter, up to [`SCRIPTS`] times; of an ELF
//! file (elf(5)) the program headers tell the dynamic linker (`PT_INTERP`) and Go's mark (`PT_NOTE`). Go programs call
//! the kernel themselves, even where they are dynamic. Nothing is allocated: this also runs between fork and exec.

mod format;

use std::{
    ffi::{CStr, CString, OsStr},
    fmt,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use format::{is_glibc_linker, judge};

use crate::sys::{self, Errno};

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

impl Refusal {
    /// The way out.
    pub const HELP: &str = "MIRRORD_ALLOW_LOCAL=1 runs such programs without mirrord, locally";
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
        f.write_str(": mirrord can't enter it")
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

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

    use super::{
        format::{MACHINE, tests::crafted},
        *,
    };

    fn executable(folder: &Path, name: &str, content: &[u8]) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
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
        assert!(message.contains("statically linked"), "{message}");
        assert!(Refusal::HELP.starts_with(&format!("{}=1 ", crate::settings::ALLOW_LOCAL)));
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
}
