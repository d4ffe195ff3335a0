//! What a row of the table is made of: the exported function, the look-up of its original, the check of its signature.

use std::{
    ffi::{CStr, c_char, c_void},
    ptr::null_mut,
    sync::atomic::{AtomicPtr, Ordering},
};

/// Where the function that a row replaces is found: the next one of its name behind this library (dlsym(3)).
pub(crate) struct Original {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

impl Original {
    pub(crate) const fn new(name: &'static CStr) -> Self {
        Self { name, address: AtomicPtr::new(null_mut()) }
    }

    /// Its address; null where there is none. Found at the library's start, or at the first call where another
    /// library's start comes first.
    pub(crate) fn address(&self) -> *mut c_void {
        let known = self.address.load(Ordering::Relaxed);
        if known.is_null() { self.find() } else { known }
    }

    #[cold]
    fn find(&self) -> *mut c_void {
        // SAFETY: the name is NUL-terminated by its type; RTLD_NEXT is meant for callers like us.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.address.store(found, Ordering::Relaxed);
        found
    }
}

/// A row as others see it.
pub(crate) struct Row {
    pub(crate) required: bool,
    pub(crate) original: &'static Original,
}

/// A row as the test that walks the table sees it.
#[repr(C)]
pub(crate) struct PublicRow {
    name: *const c_char,
    required: bool,
    found: bool,
}

impl PublicRow {
    /// For an index behind the last row.
    pub(crate) fn none() -> Self {
        Self { name: std::ptr::null(), required: false, found: false }
    }
}

impl Row {
    pub(crate) fn name(&self) -> &'static CStr {
        self.original.name
    }

    pub(crate) fn public(&self) -> PublicRow {
        let found = !self.original.address().is_null();
        PublicRow { name: self.name().as_ptr(), required: self.required, found }
    }
}

/// Declares the table: `required|optional fn name(arguments) -> result, in libc|lsb => shell;`
///
/// * Arguments behind a `;` are variadic in C. Rust can't define such functions, but on x86-64 and aarch64 Linux the
///   variadic ones travel where fixed ones would (System V ABI §3.5.7, AAPCS64 §6.4), so fixed ones read them; an
///   argument that the program left out reads as whatever was there, as it does in libc's own code.
/// * `in libc`: the signature is checked against the crate `libc` at compile time. `in lsb`: the function is none of
///   C's or POSIX', its signature is in the Linux Standard Base or glibc's headers.
/// * `assembly: names;` stand for functions whose code is elsewhere, see [`crate::execl`].
macro_rules! hooks {
    (
        assembly: $($assembly:ident),*;
        $(
            $(#[doc = $text:literal])*
            $need:ident fn $name:ident($($argument:ident: $type:ty),* $(; $($last:ident: $last_type:ty),+)?) -> $result:ty,
            in $book:ident => $($shell:ident)::+;
        )*
    ) => {
        $(
            $crate::hook::signature!($book $name ($($type),*) ($($($last_type),+)?) $result);

            $(#[doc = $text])*
            ///
            /// # Safety
            /// As the function it replaces.
            #[unsafe(no_mangle)]
            pub(crate) unsafe extern "C" fn $name($($argument: $type,)* $($($last: $last_type),+)?) -> $result {
                // SAFETY: the caller's promises to the original are what the shell needs.
                unsafe { $crate::$($shell)::+($($argument,)* $($($last),+)?) }
            }
        )*

        /// The functions that the rows replace.
        pub(crate) mod original {
            use super::*;
            use $crate::hook::Original;

            $(
                #[doc = concat!("The original ", stringify!($name), ".")]
                ///
                /// # Safety
                /// As the function itself.
                pub(crate) unsafe fn $name($($argument: $type,)* $($($last: $last_type),+)?) -> $result {
                    let address = rows::$name.address();
                    if address.is_null() {
                        return $crate::hook::Absent::absent();
                    }
                    type Function = unsafe extern "C" fn($($type,)* $($($last_type),+)?) -> $result;
                    // SAFETY: dlsym(3) found a function of this name, and `signature!` or the book says its type.
                    let function = unsafe { std::mem::transmute::<*mut std::ffi::c_void, Function>(address) };
                    // SAFETY: the caller's duty.
                    unsafe { function($($argument,)* $($($last),+)?) }
                }
            )*

            #[expect(non_upper_case_globals, reason = "named as the functions are")]
            pub(super) mod rows {
                use super::Original;
                $( pub(crate) static $name: Original =
                    Original::new($crate::hook::c_name(concat!(stringify!($name), "\0"))); )*
                $( pub(crate) static $assembly: Original =
                    Original::new($crate::hook::c_name(concat!(stringify!($assembly), "\0"))); )*
            }
        }

        /// All rows.
        pub(crate) static ROWS: &[$crate::hook::Row] = &[
            $( $crate::hook::Row { required: $crate::hook::required!($need), original: &original::rows::$name }, )*
            $( $crate::hook::Row { required: true, original: &original::rows::$assembly }, )*
        ];
    };
}

macro_rules! required {
    (required) => {
        true
    };
    (optional) => {
        false
    };
}

/// Doesn't compile where a row's signature isn't that of the crate `libc`.
macro_rules! signature {
    (libc $name:ident ($($type:ty),*) () $result:ty) => {
        const _: unsafe extern "C" fn($($type),*) -> $result = libc::$name;
    };
    (libc $name:ident ($($type:ty),*) ($($last:ty),+) $result:ty) => {
        const _: unsafe extern "C" fn($($type,)* ...) -> $result = libc::$name;
    };
    (lsb $($rest:tt)*) => {};
}

pub(crate) use {hooks, required, signature};

/// What a call to a function gives that this C library hasn't got. No program that runs here can have been linked with
/// such a function, so nobody sees it.
pub(crate) trait Absent {
    fn absent() -> Self;
}

impl Absent for i32 {
    fn absent() -> Self {
        mirrord_layer_brain::sys::set_errno(libc::ENOSYS);
        -1
    }
}

impl Absent for i64 {
    fn absent() -> Self {
        i32::absent().into()
    }
}

impl Absent for isize {
    fn absent() -> Self {
        mirrord_layer_brain::sys::set_errno(libc::ENOSYS);
        -1
    }
}

impl<T> Absent for *mut T {
    fn absent() -> Self {
        mirrord_layer_brain::sys::set_errno(libc::ENOSYS);
        null_mut()
    }
}

impl Absent for () {
    fn absent() -> Self {}
}

/// A function's name for dlsym(3).
pub(crate) const fn c_name(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(name) => name,
        Err(_) => panic!("a Rust identifier has no NUL"),
    }
}
