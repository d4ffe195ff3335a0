//! What a thread leaves behind is looked after at its end, without a destructor of Rust's: the first use of a thread-local
//! that has one registers it, which allocates by malloc(3), and that first use may be in a signal handler.

use std::{
    ffi::c_void,
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

/// glibc keeps the values of this many keys in the thread itself (PTHREAD_KEY_2NDLEVEL_SIZE); for others it calls calloc(3).
const WITHIN_THREAD: libc::pthread_key_t = 32;
const NONE: u32 = u32::MAX;

/// Runs a function at the end of each thread that asked for it.
#[derive(Debug)]
pub struct ThreadEnd {
    key: AtomicU32,
}

impl ThreadEnd {
    /// Prepares nothing yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is made in a static, where Default can't be called")]
    pub const fn new() -> Self {
        Self { key: AtomicU32::new(NONE) }
    }

    /// Says what is to be run. It is for the process's beginning; later calls change nothing.
    pub fn prepare(&self, end: extern "C" fn(*mut c_void)) {
        let mut key = 0;
        if self.key.load(Ordering::Acquire) != NONE {
            return;
        }
        // SAFETY: `key` is where the new key goes; the function lives as long as this library, which is never unloaded.
        if unsafe { libc::pthread_key_create(&raw mut key, Some(end)) } != 0 {
            return;
        }
        let is_ours = key < WITHIN_THREAD
            && self.key.compare_exchange(NONE, key, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if !is_ours {
            // SAFETY: it was just made, and no thread has a value for it.
            unsafe { libc::pthread_key_delete(key) };
        }
    }

    /// Asks for it in this thread; `false` where it can't be had. Safe in a signal handler: the value lies in the thread.
    #[must_use]
    pub fn ask(&self) -> bool {
        let key = self.key.load(Ordering::Acquire);
        let any: *const c_void = NonNull::<c_void>::dangling().as_ptr();
        // SAFETY: the key was made by `prepare` and is never deleted; nobody follows the pointer.
        key != NONE && unsafe { libc::pthread_setspecific(key, any) } == 0
    }
}
