//! The layer's start in a process, and how a shell asks it.
//!
//! ld.so calls [`START`] before `main`, but starts some libraries earlier; so whoever comes first, START or a hook, starts
//! the layer. That reads the environment and finds the originals: nothing is opened, nothing is connected, until a
//! call is decided remote.
//!
//! A hook never meets itself: the brain asks the kernel, not libc, and what it allocates is got by means that have no
//! row. (Allocators that read a settings file while they start find it local by rule.) So there is no state that says
//! "we are inside", which a longjmp(3) out of a hook would leave wrong.

use std::{
    cell::UnsafeCell,
    ffi::{CStr, c_char, c_int},
    ptr::null_mut,
    sync::atomic::{AtomicBool, AtomicPtr, Ordering},
};

use mirrord_layer_brain::{
    descriptors::Hold,
    files::At,
    layer::{Handled, Instead, Layer},
    settings::VARIABLE,
    sys::{self, Errno},
};

use crate::{hook::PublicRow, table::ROWS};

static LAYER: AtomicPtr<Layer> = AtomicPtr::new(null_mut());
static STARTED: AtomicBool = AtomicBool::new(false);

#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = {
    extern "C" fn start() {
        layer();
    }
    start
};

/// The process's layer; `None` where it is to stay as it is.
pub(crate) fn layer() -> Option<&'static Layer> {
    let layer = LAYER.load(Ordering::Acquire);
    // SAFETY: what is stored is null or was leaked by `start`, and is never freed nor mutably borrowed.
    match unsafe { layer.as_ref() } {
        None if !STARTED.load(Ordering::Relaxed) => start(),
        known => known,
    }
}

/// Once per process. A hook that is called meanwhile, by our own allocations, finds no layer and makes the original call.
#[cold]
fn start() -> Option<&'static Layer> {
    if STARTED.swap(true, Ordering::AcqRel) {
        return None;
    }
    let before = sys::errno();
    let layer = Layer::from_environment(|name| std::env::var_os(name));
    let missing =
        ROWS.iter().filter(|row| row.original.address().is_null() && row.required).map(|row| row.name());
    let started = match (layer, missing.into_iter().next()) {
        (Ok(None), _) => None,
        (Ok(Some(layer)), None) => Some(&*Box::leak(Box::new(layer))),
        (Ok(Some(_)), Some(name)) => {
            let name = name.to_string_lossy();
            sys::complain(&format!("mirrord: this C library has no {name}: the program runs locally\n"));
            None
        }
        (Err(error), _) => {
            sys::complain(&format!(
                "mirrord: {VARIABLE} can't be read ({error}): the program runs locally\n"
            ));
            None
        }
    };
    if let Some(layer) = started {
        watch_forks();
        LAYER.store(std::ptr::from_ref(layer).cast_mut(), Ordering::Release);
    }
    sys::set_errno(before);
    started
}

/// The table's lock between the two sides of a fork(2).
struct Across(UnsafeCell<Option<Hold<'static>>>);

// SAFETY: only the thread that forks touches it, between `before_fork` and `after_fork`; and it holds the table's lock
// all that time, so no two threads do at once.
unsafe impl Sync for Across {}

static ACROSS: Across = Across(UnsafeCell::new(None));

extern "C" fn before_fork() {
    if let Some(layer) = layer() {
        let hold = layer.table.hold();
        // SAFETY: we hold the lock: see `Across`.
        unsafe { *ACROSS.0.get() = Some(hold) };
    }
}

extern "C" fn after_fork_in_parent() {
    // SAFETY: `before_fork` took the lock on this thread: see `Across`.
    let hold = unsafe { (*ACROSS.0.get()).take() };
    drop(hold);
}

extern "C" fn after_fork_in_child() {
    after_fork_in_parent();
    if let Some(layer) = layer() {
        layer.after_fork();
    }
}

/// fork(2) runs these handlers; vfork(2) and posix_spawn(3) don't, which is how we tell them apart.
fn watch_forks() {
    // SAFETY: the handlers are functions of this library, which is never unloaded (it was preloaded).
    unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork_in_parent), Some(after_fork_in_child)) };
}

/// Asks the layer. The program's errno stays as it was.
pub(crate) fn ask<T>(operation: impl FnOnce(&'static Layer) -> Handled<T>) -> Handled<T> {
    let Some(layer) = layer() else { return Err(Instead::Local) };
    let before = sys::errno();
    let handled = operation(layer);
    sys::set_errno(before);
    handled
}

/// Asks the layer what isn't told as [`Handled`]; `local` where there is none to ask.
pub(crate) fn ask_value<T, E>(
    local: E,
    operation: impl FnOnce(&'static Layer) -> Result<T, E>,
) -> Result<T, E> {
    let mut operation = Some(operation);
    let mut answer = Err(local);
    let _: Handled<()> = ask(|layer| {
        if let Some(operation) = operation.take() {
            answer = operation(layer);
        }
        Ok(())
    });
    answer
}

/// A path that C gave; `Local` where it is null: let the kernel say EFAULT.
///
/// # Safety
/// `path` is null or NUL-terminated, and stays so for `'a`.
pub(crate) unsafe fn at<'a>(folder: c_int, path: *const c_char) -> Handled<At<'a>> {
    if path.is_null() {
        return Err(Instead::Local);
    }
    // SAFETY: the caller's duty.
    let path = unsafe { CStr::from_ptr(path) };
    Ok(At { folder, path })
}

/// The end of most shells: the answer, the original call (with its folder and path), or -1 with an errno.
pub(crate) fn settle<T, R: From<i8>>(
    handled: Handled<T>,
    (folder, path): (c_int, *const c_char),
    done: impl FnOnce(T) -> R,
    original: impl FnOnce(c_int, *const c_char) -> R,
) -> R {
    match handled {
        Ok(answer) => done(answer),
        Err(Instead::Local) => original(folder, path),
        Err(Instead::LocalAt(path)) => original(libc::AT_FDCWD, path.as_ptr()),
        Err(Instead::Fail(Errno(errno))) => {
            sys::set_errno(errno);
            R::from(-1)
        }
    }
}

/// How many rows the table has; for the test that walks them.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn mirrord_layer_rows() -> usize {
    ROWS.len()
}

/// A row of the table; for the test that walks them.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn mirrord_layer_row(index: usize) -> PublicRow {
    match ROWS.get(index) {
        Some(row) => row.public(),
        None => PublicRow::none(),
    }
}
