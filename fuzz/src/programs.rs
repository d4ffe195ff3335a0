//! What the layer takes a program's file for, before it is run.

use std::{fs::File, io::Write, os::fd::AsFd};

use mirrord_layer_brain::program::{Program, refusal_open};
use rustix::fs::{MemfdFlags, memfd_create};

/// As ELF numbers it (EM_X86_64, EM_AARCH64).
const MACHINE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };

/// A file. Only an ELF program is refused for what it is; a script is judged by its interpreter.
pub fn programs(data: &[u8]) {
    let mut file = File::from(memfd_create("program", MemfdFlags::CLOEXEC).expect("memory"));
    file.write_all(data).expect("written");
    let refusal = refusal_open(file.as_fd());
    let again = refusal_open(file.as_fd());
    assert_eq!(refusal, again);
    let Some(refusal) = refusal else { return };
    let message = refusal.to_string();
    assert!(message.ends_with(": mirrord can't enter it"), "{message}");
    assert!(
        !matches!(refusal.program, Program::Dynamic(_) | Program::Unknown | Program::Script(_)),
        "{message}"
    );
    if !data.starts_with(b"#!") {
        assert!(data.starts_with(b"\x7fELF"), "{message}");
        let other = data.get(4) != Some(&2) || data.get(18..20) != Some(&MACHINE.to_le_bytes()[..]);
        assert_eq!(other, refusal.program == Program::OtherMachine, "{message}");
        if let Program::OtherLibc(linker) = refusal.program {
            let name = linker.as_bytes();
            assert!(name.is_empty() || data.windows(name.len()).any(|part| part == name), "{message}");
        }
    }
}
