//! Shells of execve, posix_spawn and their kin.
//!
//! Before a program is started it is looked at: where mirrord can't enter it, it isn't started but refused, with a
//! message. Then its environment is made to carry the layer on. All on the stack: this often runs between fork and exec.

use std::{
    ffi::{CStr, c_char, c_int},
    os::fd::BorrowedFd,
    ptr::null,
};

use libc::{pid_t, posix_spawn_file_actions_t, posix_spawnattr_t};
use mirrord_layer_brain::{
    exec::TEXT_BYTES,
    layer::Layer,
    program::{self, Refusal},
    sys,
};

use crate::{front::layer, table::original};

pub(crate) type Strings = *const *const c_char;

unsafe extern "C" {
    /// The program's environment, environ(7).
    static environ: Strings;
}

/// The program's environment as it is now.
pub(crate) fn own_environment() -> Strings {
    // SAFETY: libc defines it in every process; the pointer is read, as libc's own exec functions do.
    unsafe { environ }
}

/// How many variables fit on the stack; more are put on the heap.
const VARIABLES: usize = 1024;

/// The strings of a null-terminated list; none where it is null.
///
/// # Safety
/// The list and its strings stay valid for `'a`.
pub(crate) unsafe fn strings<'a>(list: Strings) -> impl Iterator<Item = &'a CStr> + Clone {
    let mut next = list;
    std::iter::from_fn(move || {
        if next.is_null() {
            return None;
        }
        // SAFETY: the caller's duty; we stop at the null at the end.
        let string = unsafe { next.read() };
        if string.is_null() {
            next = null();
            return None;
        }
        // SAFETY: the null wasn't reached, so the list goes on.
        next = unsafe { next.add(1) };
        // SAFETY: the caller's duty.
        Some(unsafe { CStr::from_ptr(string) })
    })
}

/// Says why a program isn't started.
fn complain(refusal: &Refusal) {
    use std::fmt::Write;
    let mut line = Buffer { bytes: [0; 1024], length: 0 };
    // Cut where it is too long.
    let _ = writeln!(line, "mirrord: {refusal}; {}", Refusal::HELP);
    sys::complain(String::from_utf8_lossy(&line.bytes[..line.length]).as_ref());
}

/// Text on the stack.
struct Buffer {
    bytes: [u8; 1024],
    length: usize,
}

impl std::fmt::Write for Buffer {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = self.bytes.len() - self.length;
        let count = text.len().min(room);
        self.bytes[self.length..self.length + count].copy_from_slice(&text.as_bytes()[..count]);
        self.length += count;
        if count < text.len() { Err(std::fmt::Error) } else { Ok(()) }
    }
}

/// Starts a program by `start`, which gets its environment; or refuses it, with EACCES.
///
/// # Safety
/// `environment` is null or a valid list.
unsafe fn start_with(
    environment: Strings,
    refusal: impl FnOnce(&'static Layer) -> Option<Refusal>,
    start: impl FnOnce(Strings) -> c_int,
) -> Result<c_int, c_int> {
    let Some(layer) = layer() else { return Ok(start(environment)) };
    if let Some(refusal) = refusal(layer) {
        complain(&refusal);
        return Err(libc::EACCES);
    }
    // SAFETY: the caller's duty.
    let variables = || unsafe { strings(environment) };
    let mut text = [0; TEXT_BYTES];
    let change = layer.prepare(variables(), &mut text);
    if change.is_none() {
        return Ok(start(environment));
    }
    let kept = variables().filter(|variable| !change.drops(variable));
    let pointers = kept.chain(change.added()).map(CStr::as_ptr).chain([null()]);
    if variables().count() + 4 <= VARIABLES {
        let mut list = [null(); VARIABLES];
        list.iter_mut().zip(pointers).for_each(|(place, pointer)| *place = pointer);
        Ok(start(list.as_ptr()))
    } else {
        let list: Vec<*const c_char> = pointers.collect();
        Ok(start(list.as_ptr()))
    }
}

fn settle(result: Result<c_int, c_int>) -> c_int {
    result.unwrap_or_else(|errno| {
        sys::set_errno(errno);
        -1
    })
}

/// Why a program at a path isn't started.
///
/// # Safety
/// `path` is null or NUL-terminated, `environment` null or a valid list.
unsafe fn refusal_of(layer: &Layer, path: *const c_char, environment: Strings) -> Option<Refusal> {
    if path.is_null() {
        return None;
    }
    // SAFETY: the caller's duty.
    let path = unsafe { CStr::from_ptr(path) };
    // SAFETY: the caller's duty.
    layer.refuses(path, unsafe { strings(environment) })
}

/// Why a program isn't started that is looked for in `PATH`: judged is the first that could be executed, as libc does.
///
/// # Safety
/// As in [`refusal_of`].
unsafe fn refusal_of_named(layer: &Layer, file: *const c_char, environment: Strings) -> Option<Refusal> {
    if file.is_null() {
        return None;
    }
    // SAFETY: the caller's duty.
    let name = unsafe { CStr::from_ptr(file) };
    // SAFETY: libc keeps its environment valid.
    let own = unsafe { strings(own_environment()) };
    let mut buffer = [0; libc::PATH_MAX as usize];
    let found = program::find(name, own, &mut buffer)?;
    // SAFETY: the caller's duty.
    layer.refuses(found, unsafe { strings(environment) })
}

pub(crate) unsafe fn execve(path: *const c_char, arguments: Strings, environment: Strings) -> c_int {
    // SAFETY: the program's call, with its promises.
    settle(unsafe {
        start_with(
            environment,
            |layer| refusal_of(layer, path, environment),
            |environment| original::execve(path, arguments, environment),
        )
    })
}

pub(crate) unsafe fn execv(path: *const c_char, arguments: Strings) -> c_int {
    // SAFETY: the program's call, with its promises.
    unsafe {
        match layer() {
            Some(_) => execve(path, arguments, own_environment()),
            None => original::execv(path, arguments),
        }
    }
}

pub(crate) unsafe fn execvpe(file: *const c_char, arguments: Strings, environment: Strings) -> c_int {
    // SAFETY: the program's call, with its promises.
    settle(unsafe {
        start_with(
            environment,
            |layer| refusal_of_named(layer, file, environment),
            |environment| original::execvpe(file, arguments, environment),
        )
    })
}

pub(crate) unsafe fn execvp(file: *const c_char, arguments: Strings) -> c_int {
    // SAFETY: the program's call, with its promises.
    unsafe {
        match layer() {
            Some(_) => execvpe(file, arguments, own_environment()),
            None => original::execvp(file, arguments),
        }
    }
}

/// Why an open program isn't started.
///
/// # Safety
/// `environment` is null or a valid list.
unsafe fn refusal_of_open(layer: &Layer, descriptor: c_int, environment: Strings) -> Option<Refusal> {
    if descriptor < 0 {
        return None;
    }
    // SAFETY: it is borrowed from the program for this call, and only read.
    let refusal = program::refusal_open(unsafe { BorrowedFd::borrow_raw(descriptor) })?;
    // SAFETY: the caller's duty.
    (!layer.allows_local(unsafe { strings(environment) })).then_some(refusal)
}

pub(crate) unsafe fn fexecve(descriptor: c_int, arguments: Strings, environment: Strings) -> c_int {
    // SAFETY: the program's call, with its promises.
    settle(unsafe {
        start_with(
            environment,
            |layer| refusal_of_open(layer, descriptor, environment),
            |environment| original::fexecve(descriptor, arguments, environment),
        )
    })
}

pub(crate) unsafe fn execveat(
    folder: c_int,
    path: *const c_char,
    arguments: Strings,
    environment: Strings,
    flags: c_int,
) -> c_int {
    // SAFETY: the program promises a NUL-terminated path.
    let first = if path.is_null() { 0 } else { unsafe { path.read() } };
    let refusal = |layer| match u8::try_from(first).unwrap_or(u8::MAX) {
        // SAFETY: the program's call, with its promises.
        0 => unsafe { refusal_of_open(layer, folder, environment) },
        // SAFETY: as above.
        b'/' => unsafe { refusal_of(layer, path, environment) },
        // SAFETY: as above.
        _ if folder == libc::AT_FDCWD => unsafe { refusal_of(layer, path, environment) },
        // SAFETY: as above.
        _ => unsafe { refusal_below(layer, folder, path, environment) },
    };
    // SAFETY: the program's call, with its promises.
    settle(unsafe {
        start_with(environment, refusal, |environment| {
            original::execveat(folder, path, arguments, environment, flags)
        })
    })
}

/// Why a program in an open folder isn't started.
///
/// # Safety
/// As in [`refusal_of`].
unsafe fn refusal_below(
    layer: &Layer,
    folder: c_int,
    path: *const c_char,
    environment: Strings,
) -> Option<Refusal> {
    // SAFETY: the caller's duty.
    let path = unsafe { CStr::from_ptr(path) };
    let mut buffer = [0; libc::PATH_MAX as usize];
    let whole = program::below(folder, path, &mut buffer)?;
    // SAFETY: the caller's duty.
    layer.refuses(whole, unsafe { strings(environment) })
}

pub(crate) unsafe fn posix_spawn(
    pid: *mut pid_t,
    path: *const c_char,
    actions: *const posix_spawn_file_actions_t,
    attributes: *const posix_spawnattr_t,
    arguments: *const *mut c_char,
    environment: *const *mut c_char,
) -> c_int {
    let list: Strings = environment.cast();
    // SAFETY: the program's call, with its promises.
    let result = unsafe {
        start_with(
            list,
            |layer| refusal_of(layer, path, list),
            |environment| {
                original::posix_spawn(pid, path, actions, attributes, arguments, environment.cast())
            },
        )
    };
    // posix_spawn returns its error.
    result.unwrap_or_else(|errno| errno)
}

pub(crate) unsafe fn posix_spawnp(
    pid: *mut pid_t,
    file: *const c_char,
    actions: *const posix_spawn_file_actions_t,
    attributes: *const posix_spawnattr_t,
    arguments: *const *mut c_char,
    environment: *const *mut c_char,
) -> c_int {
    let list: Strings = environment.cast();
    // SAFETY: the program's call, with its promises.
    let result = unsafe {
        start_with(
            list,
            |layer| refusal_of_named(layer, file, list),
            |environment| {
                original::posix_spawnp(pid, file, actions, attributes, arguments, environment.cast())
            },
        )
    };
    result.unwrap_or_else(|errno| errno)
}
