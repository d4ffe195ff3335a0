//! One instruction: a system call, straight to the kernel.
//!
//! Not by libc's syscall(2), which is replaced as well (some programs make their calls by it), and which would touch the
//! program's errno.

use std::ffi::{c_int, c_long};

/// What fits into a register of a system call.
pub(super) trait Word {
    fn word(self) -> usize;
}

impl Word for c_int {
    fn word(self) -> usize {
        // The kernel reads the lower half; sign extension keeps AT_FDCWD what it is.
        isize::try_from(self).unwrap_or(-1).cast_unsigned()
    }
}

impl Word for i64 {
    fn word(self) -> usize {
        isize::try_from(self).unwrap_or(-1).cast_unsigned()
    }
}

impl Word for u32 {
    fn word(self) -> usize {
        usize::try_from(self).unwrap_or(usize::MAX)
    }
}

impl Word for usize {
    fn word(self) -> usize {
        self
    }
}

impl<T> Word for *const T {
    fn word(self) -> usize {
        self.expose_provenance()
    }
}

impl<T> Word for *mut T {
    fn word(self) -> usize {
        self.expose_provenance()
    }
}

/// A call of up to six words.
macro_rules! kernel {
    ($number:expr $(, $argument:expr)* $(,)?) => {{
        let mut words = [0_usize; 6];
        let given = [$($crate::sys::raw::Word::word($argument)),*];
        words[..given.len()].copy_from_slice(&given);
        $crate::sys::raw::call($number, words)
    }};
}

pub(super) use kernel;

/// The kernel's answer: an errno where it lies in -4095..0 (syscall(2), "Architecture calling conventions").
///
/// # Safety
/// As the system call itself: pointers among the words must lead where it says.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn call(number: c_long, words: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = words;
    let answer: isize;
    // SAFETY: the instruction clobbers rcx and r11 only, which are named; what the call does is the caller's duty.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") isize::try_from(number).unwrap_or(-1) => answer,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    answer
}

/// The kernel's answer: an errno where it lies in -4095..0 (syscall(2), "Architecture calling conventions").
///
/// # Safety
/// As the system call itself: pointers among the words must lead where it says.
#[cfg(target_arch = "aarch64")]
pub(super) unsafe fn call(number: c_long, words: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = words;
    let answer: isize;
    // SAFETY: the instruction clobbers x0 only, which is named; what the call does is the caller's duty.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => answer,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack),
        );
    }
    answer
}
