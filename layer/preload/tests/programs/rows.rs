//! Walks the hook table.

use std::{
    collections::BTreeSet,
    ffi::{CStr, CString, c_char, c_void},
    os::unix::ffi::OsStrExt,
    ptr::NonNull,
};

use crate::world::library;

#[repr(C)]
struct Row {
    name: *const c_char,
    required: bool,
    found: bool,
}

/// The library, loaded here. Its hooks aren't in force: what is loaded by dlopen(3) comes last.
fn load() -> NonNull<c_void> {
    let path = CString::new(library().as_os_str().as_bytes()).unwrap();
    // SAFETY: the library's start reads the environment, finds no settings, and does nothing.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    NonNull::new(handle).expect("the library loads")
}

fn symbol(handle: NonNull<c_void>, name: &CStr) -> NonNull<c_void> {
    // SAFETY: handle and name are valid.
    let address = unsafe { libc::dlsym(handle.as_ptr(), name.as_ptr()) };
    NonNull::new(address).unwrap_or_else(|| panic!("{name:?} is missing"))
}

/// The file that a symbol comes from.
fn origin(address: NonNull<c_void>) -> String {
    // SAFETY: all-zero bytes are a valid `Dl_info`.
    let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: dladdr(3) takes any address.
    assert_ne!(unsafe { libc::dladdr(address.as_ptr(), &raw mut found) }, 0);
    // SAFETY: dladdr(3) gave a NUL-terminated name.
    unsafe { CStr::from_ptr(found.dli_fname) }.to_str().unwrap().to_owned()
}

#[test]
fn every_row_is_exported_and_every_required_original_found() {
    let handle = load();
    // SAFETY: the library defines it so.
    let count: extern "C" fn() -> usize =
        unsafe { std::mem::transmute(symbol(handle, c"mirrord_layer_rows")) };
    // SAFETY: the library defines it so.
    let row: extern "C" fn(usize) -> Row =
        unsafe { std::mem::transmute(symbol(handle, c"mirrord_layer_row")) };
    let mut names = BTreeSet::new();
    for index in 0..count() {
        let row = row(index);
        // SAFETY: the row's name is a static string of the library.
        let name = unsafe { CStr::from_ptr(row.name) };
        assert!(names.insert(name), "{name:?} twice");
        assert!(
            origin(symbol(handle, name)).ends_with("libmirrord_layer_preload.so"),
            "{name:?} isn't exported"
        );
        assert!(row.found || !row.required, "this C library has no {name:?}");
    }
    assert!(names.contains(c"open") && names.contains(c"execl") && names.len() > 50, "{names:?}");
}
