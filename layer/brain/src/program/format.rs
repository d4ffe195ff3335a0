//! What a file is by its bytes: a script, or an ELF program of some kind (elf(5)).

use super::{NAME_BYTES, Name, Program};

/// Reads a part of the file into a buffer, and says how much there was.
pub(super) type Fetch<'a> = dyn FnMut(u64, &mut [u8]) -> usize + 'a;

/// What a file is by its first bytes; `fetch` reads others.
pub(super) fn judge(head: &[u8], fetch: &mut Fetch<'_>) -> Program {
    if let Some(line) = head.strip_prefix(b"#!") {
        return script(line);
    }
    if !head.starts_with(b"\x7fELF") {
        return Program::Unknown;
    }
    elf(head, fetch)
}

fn script(line: &[u8]) -> Program {
    let line = &line[..line.len().min(NAME_BYTES - 2)];
    let line = &line[..line.iter().position(|byte| *byte == b'\n').unwrap_or(line.len())];
    let name = line.trim_ascii_start();
    let end = name.iter().position(|byte| b" \t\r\0".contains(byte)).unwrap_or(name.len());
    if end == 0 { Program::Unknown } else { Program::Script(Name::new(&name[..end])) }
}

const ELFCLASS64: u8 = 2;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
#[cfg(target_arch = "x86_64")]
pub(super) const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
pub(super) const MACHINE: u16 = 183;

fn elf(head: &[u8], fetch: &mut Fetch<'_>) -> Program {
    if head.get(4) != Some(&ELFCLASS64) || u16_at(head, 18) != Some(MACHINE) {
        return Program::OtherMachine;
    }
    let (Some(kind), Some(table), Some(size), Some(count)) =
        (u16_at(head, 16), u64_at(head, 32), u16_at(head, 54), u16_at(head, 56))
    else {
        return Program::Unknown;
    };
    if kind != ET_EXEC && kind != ET_DYN {
        return Program::Unknown;
    }
    let mut linker = None;
    for index in 0..u64::from(count) {
        let mut header = [0; 56];
        let Some(position) = table.checked_add(index * u64::from(size)) else { break };
        if fetch(position, &mut header) < header.len() {
            break;
        }
        let (Some(kind), Some(offset), Some(length)) =
            (u32_at(&header, 0), u64_at(&header, 8), u64_at(&header, 32))
        else {
            break;
        };
        match kind {
            PT_INTERP => linker = Some(text(offset, length, fetch)),
            PT_NOTE if is_go_note(offset, length, fetch) => return Program::Go,
            _ => {}
        }
    }
    linker.map_or(Program::Static, by_linker)
}

fn by_linker(linker: Name) -> Program {
    if is_glibc_linker(&linker) { Program::Dynamic(linker) } else { Program::OtherLibc(linker) }
}

/// By the file names that glibc gives it on the machines we know, and Debian's shorthand.
pub(super) fn is_glibc_linker(file: &Name) -> bool {
    file.last().starts_with(b"ld-linux") || file.last() == b"ld.so"
}

fn text(offset: u64, length: u64, fetch: &mut Fetch<'_>) -> Name {
    let mut bytes = [0; NAME_BYTES - 1];
    let wanted = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
    let found = fetch(offset, &mut bytes[..wanted]);
    let text = &bytes[..found];
    Name::new(&text[..text.iter().position(|byte| *byte == 0).unwrap_or(found)])
}

/// A note whose owner is `Go` (the build id that Go's linker writes, elf(5) "Notes").
fn is_go_note(offset: u64, length: u64, fetch: &mut Fetch<'_>) -> bool {
    let mut notes = [0; 1024];
    let wanted = usize::try_from(length).unwrap_or(usize::MAX).min(notes.len());
    let found = fetch(offset, &mut notes[..wanted]);
    let mut rest = &notes[..found];
    while let (Some(owner), Some(content)) = (u32_at(rest, 0), u32_at(rest, 4)) {
        let aligned = |size: u32| usize::try_from(size).unwrap_or(usize::MAX).checked_next_multiple_of(4);
        let Some(name) = usize::try_from(owner).ok().and_then(|owner| rest.get(12..)?.get(..owner)) else {
            break;
        };
        if name == b"Go\0\0" {
            return true;
        }
        let size =
            aligned(owner).zip(aligned(content)).and_then(|(owner, content)| owner.checked_add(content));
        let Some(next) = size.and_then(|size| rest.get(12..)?.get(size..)) else { break };
        rest = next;
    }
    false
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::program::HEAD_BYTES;

    /// An ELF file with the given program headers: kind and content.
    pub(in crate::program) fn crafted(machine: u16, headers: &[(u32, &[u8])]) -> Vec<u8> {
        let table = 64_usize;
        let mut content = table + headers.len() * 56;
        let mut file = vec![0; 64];
        file[..5].copy_from_slice(b"\x7fELF\x02");
        file[16..18].copy_from_slice(&ET_DYN.to_le_bytes());
        file[18..20].copy_from_slice(&machine.to_le_bytes());
        file[32..40].copy_from_slice(&u64::try_from(table).unwrap().to_le_bytes());
        file[54..56].copy_from_slice(&56_u16.to_le_bytes());
        file[56..58].copy_from_slice(&u16::try_from(headers.len()).unwrap().to_le_bytes());
        for (kind, bytes) in headers {
            let mut header = [0; 56];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            header[8..16].copy_from_slice(&u64::try_from(content).unwrap().to_le_bytes());
            header[32..40].copy_from_slice(&u64::try_from(bytes.len()).unwrap().to_le_bytes());
            file.extend_from_slice(&header);
            content += bytes.len();
        }
        headers.iter().for_each(|(_, bytes)| file.extend_from_slice(bytes));
        file
    }

    fn judged(file: &[u8]) -> Program {
        judge(&file[..file.len().min(HEAD_BYTES)], &mut |offset, place| {
            let rest = usize::try_from(offset).ok().and_then(|offset| file.get(offset..)).unwrap_or_default();
            let length = rest.len().min(place.len());
            place[..length].copy_from_slice(&rest[..length]);
            length
        })
    }

    const GLIBC: &[u8] = b"/lib64/ld-linux-x86-64.so.2\0";
    const GO_NOTE: &[u8] = b"\x04\0\0\0\x04\0\0\0\x04\0\0\0Go\0\0abcd";
    const GNU_NOTE: &[u8] = b"\x04\0\0\0\x06\0\0\0\x03\0\0\0GNU\0abcdef\0\0";

    #[test]
    fn a_program_is_told_by_its_linker() {
        let Program::Dynamic(linker) = judged(&crafted(MACHINE, &[(1, b""), (PT_INTERP, GLIBC)])) else {
            panic!("not dynamic");
        };
        assert_eq!(linker.as_path(), Path::new("/lib64/ld-linux-x86-64.so.2"));
        let musl = judged(&crafted(MACHINE, &[(PT_INTERP, b"/lib/ld-musl-x86_64.so.1\0")]));
        assert!(matches!(musl, Program::OtherLibc(_)));
        assert_eq!(judged(&crafted(MACHINE, &[(1, b"")])), Program::Static);
        assert_eq!(
            judged(&crafted(40, &[(PT_INTERP, b"/lib/ld-linux-armhf.so.3\0")])),
            Program::OtherMachine
        );
    }

    #[test]
    fn go_is_told_by_its_note_even_where_it_is_dynamic() {
        let notes = [GNU_NOTE, GO_NOTE].concat();
        assert_eq!(judged(&crafted(MACHINE, &[(PT_INTERP, GLIBC), (PT_NOTE, &notes)])), Program::Go);
        let plain = judged(&crafted(MACHINE, &[(PT_INTERP, GLIBC), (PT_NOTE, GNU_NOTE)]));
        assert!(matches!(plain, Program::Dynamic(_)));
    }

    #[test]
    fn a_script_names_its_interpreter() {
        let interpreter = |line: &[u8]| match judged(line) {
            Program::Script(name) => name.as_path().display().to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(interpreter(b"#!/bin/sh\n"), "/bin/sh");
        assert_eq!(interpreter(b"#! \t/usr/bin/env python3\nprint()"), "/usr/bin/env");
        assert_eq!(interpreter(b"#!/bin/true"), "/bin/true");
        assert_eq!(interpreter(b"#!\n/bin/sh"), "Unknown");
    }

    proptest! {
        #[test]
        fn any_file_is_judged(mut file in proptest::collection::vec(any::<u8>(), 64..400), elf: bool) {
            if elf {
                file[..5].copy_from_slice(b"\x7fELF\x02");
                file[16..20].copy_from_slice(&[3, 0, MACHINE.to_le_bytes()[0], 0]);
                file[54..58].copy_from_slice(&[56, 0, 4, 0]);
                file[33..40].fill(0);
            }
            judged(&file);
        }
    }
}
