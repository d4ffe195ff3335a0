//! execl, execlp and execle: the arguments are a C argument list, which Rust can't take.
//!
//! So a few instructions put the arguments that came in registers into memory and pass on two pointers: to those, and to
//! the ones that the caller left on the stack (System V ABI for x86-64 §3.5.7; AAPCS64 §6.8). glibc's execl calls its own
//! execve, unseen by us; ours goes the way of our execv.

use std::{
    arch::naked_asm,
    ffi::{c_char, c_int},
    ptr::null,
};

use crate::exec::{self, Strings};

/// How many arguments behind the first come in registers.
#[cfg(target_arch = "x86_64")]
const REGISTERS: usize = 5;
#[cfg(target_arch = "aarch64")]
const REGISTERS: usize = 7;

/// How many arguments fit on the stack; more are put on the heap.
const ARGUMENTS: usize = 256;

/// A C argument list, taken apart.
struct List {
    registers: Strings,
    stack: Strings,
    taken: usize,
}

impl List {
    /// The next argument.
    ///
    /// # Safety
    /// The caller passed one more.
    unsafe fn next(&mut self) -> *const c_char {
        let index = self.taken;
        self.taken += 1;
        let place = if index < REGISTERS {
            self.registers.wrapping_add(index)
        } else {
            self.stack.wrapping_add(index - REGISTERS)
        };
        // SAFETY: the shell stored the registers there, or the caller the argument.
        unsafe { place.read() }
    }

    /// Calls `use_them` with the arguments up to the null; the list then stands behind it.
    ///
    /// # Safety
    /// The list has a null.
    unsafe fn with_arguments(&mut self, use_them: impl FnOnce(&mut Self, Strings) -> c_int) -> c_int {
        let mut few = [null(); ARGUMENTS];
        let mut count = 0;
        let mut many = Vec::new();
        loop {
            // SAFETY: the null wasn't reached yet.
            let argument = unsafe { self.next() };
            if count == ARGUMENTS {
                many.extend_from_slice(&few);
            }
            if count >= ARGUMENTS {
                many.push(argument);
            } else {
                few[count] = argument;
            }
            count += 1;
            if argument.is_null() {
                break;
            }
        }
        use_them(self, if many.is_empty() { few.as_ptr() } else { many.as_ptr() })
    }
}

unsafe extern "C" fn list(path: *const c_char, registers: Strings, stack: Strings) -> c_int {
    let mut list = List { registers, stack, taken: 0 };
    // SAFETY: the program's call, with its promises (execl(3)).
    unsafe { list.with_arguments(|_, arguments| exec::execv(path, arguments)) }
}

unsafe extern "C" fn list_named(file: *const c_char, registers: Strings, stack: Strings) -> c_int {
    let mut list = List { registers, stack, taken: 0 };
    // SAFETY: the program's call, with its promises (execlp(3)).
    unsafe { list.with_arguments(|_, arguments| exec::execvp(file, arguments)) }
}

unsafe extern "C" fn list_environment(path: *const c_char, registers: Strings, stack: Strings) -> c_int {
    let mut list = List { registers, stack, taken: 0 };
    // SAFETY: the program's call: behind the null comes the environment (execle(3)).
    unsafe {
        list.with_arguments(|list, arguments| {
            let environment = list.next();
            exec::execve(path, arguments, environment.cast())
        })
    }
}

/// The shells. At their entry the stack is as the call left it, so the arguments there begin behind the return address
/// (x86-64) or at its top (aarch64); room for the registers keeps it aligned to 16 bytes.
macro_rules! shells {
    ($($name:ident => $inner:ident;)*) => { $(
        /// See execl(3).
        #[cfg(target_arch = "x86_64")]
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() -> c_int {
            naked_asm!(
                "sub rsp, 56",
                "mov [rsp], rsi",
                "mov [rsp + 8], rdx",
                "mov [rsp + 16], rcx",
                "mov [rsp + 24], r8",
                "mov [rsp + 32], r9",
                "mov rsi, rsp",
                "lea rdx, [rsp + 64]",
                "call {inner}",
                "add rsp, 56",
                "ret",
                inner = sym $inner,
            )
        }

        /// See execl(3).
        #[cfg(target_arch = "aarch64")]
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() -> c_int {
            naked_asm!(
                "stp x29, x30, [sp, #-80]!",
                "mov x29, sp",
                "stp x1, x2, [sp, #16]",
                "stp x3, x4, [sp, #32]",
                "stp x5, x6, [sp, #48]",
                "str x7, [sp, #64]",
                "add x1, sp, #16",
                "add x2, sp, #80",
                "bl {inner}",
                "ldp x29, x30, [sp], #80",
                "ret",
                inner = sym $inner,
            )
        }
    )* };
}

shells! {
    execl => list;
    execlp => list_named;
    execle => list_environment;
}
