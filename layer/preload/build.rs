//! Links the unwinder in, instead of asking for `libgcc_s.so.1`.
//!
//! A library that is loaded into any program should need nothing but libc: another library costs each process its
//! loading, and where it isn't found (Nix, for one) no program starts at all. Rust's std asks the linker for `gcc_s` by
//! name; in front of the system's, it finds a linker script of that name here, which says: the static one (ld(1),
//! "Implicit Linker Scripts").

use std::{env, fs, path::PathBuf};

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(folder.join("libgcc_s.so"), "INPUT ( -lgcc_eh -lgcc )\n")?;
    println!("cargo::rustc-link-search=native={}", folder.display());
    Ok(())
}
