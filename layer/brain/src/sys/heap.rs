//! Memory for the layer, so that what is safe in a signal handler without us stays so with us.
//!
//! open(2), stat(2), access(2) and many others that fronts replace may be called from a signal handler, and may be left by
//! siglongjmp(3) (signal-safety(7)); malloc(3) may not. Had hooks their memory from it, a handler that opens a file while
//! the program is in malloc would wait for ever for a lock that its own thread holds, and a handler that jumps out of a
//! hook would leave the program's heap half changed. A front in the program's process makes [`Heap`] its global allocator.
//!
//! A slot is taken and given back by one atomic operation on a bitmap, so there is no lock and no moment at which anything
//! is half done: not for a handler, not for another thread, not for the child of a fork(2). Who jumps out of a hook leaks
//! the slots it held, and the thread's connection to the proxy. Sizes are powers of two; what is larger than [`LARGEST`] is
//! mapped on its own. What a hook gives to the program (as getaddrinfo(3) does) still comes from malloc(3), for the program
//! frees it so.

use std::{
    alloc::{GlobalAlloc, Layout},
    ffi::c_int,
    ptr::{self, null_mut},
    sync::atomic::{AtomicPtr, AtomicU64, Ordering},
};

/// The smallest slot, in bytes: the alignment that malloc(3) promises.
const SMALLEST: usize = 16;
/// The largest slot, in bytes.
const LARGEST: usize = 16 << 10;
const CLASSES: usize = (LARGEST / SMALLEST).ilog2() as usize + 1;
/// Size and alignment of a slab, in bytes. Pages that no slot of it was ever in use of are only addresses.
const SLAB: usize = 64 << 10;
/// Size and alignment of what is mapped for slabs at a time, in bytes: a short program asks the kernel once.
const REGION: usize = 16 * SLAB;

/// Slabs of each class of sizes, the newest first. They are never given back.
#[derive(Debug)]
pub struct Heap {
    classes: [AtomicPtr<Slab>; CLASSES],
    /// Where the next slab begins; at a multiple of [`REGION`] where none is left.
    spare: AtomicPtr<u8>,
}

/// The head of a slab; its slots follow at multiples of their size.
#[derive(Debug)]
struct Slab {
    /// A bit for each slot; set where it is in use, or isn't there.
    taken: AtomicU64,
    older: *mut Slab,
}

/// The class of an allocation; `None` where it is mapped on its own.
fn class(layout: Layout) -> Option<usize> {
    let size = layout.size().max(layout.align()).max(SMALLEST);
    (size <= LARGEST).then(|| (size.next_power_of_two() / SMALLEST).ilog2() as usize)
}

fn slot_size(class: usize) -> usize {
    SMALLEST << class
}

/// Where a slab's slots begin, from its own beginning on, so that each is aligned to its size.
fn first_slot(class: usize) -> usize {
    slot_size(class).max(size_of::<Slab>().next_power_of_two())
}

/// The bits of slots that a slab of a class doesn't have.
fn never_free(class: usize) -> u64 {
    let slots = (SLAB - first_slot(class)) / slot_size(class);
    u32::try_from(slots).ok().and_then(|slots| u64::MAX.checked_shl(slots)).unwrap_or(0)
}

// SAFETY: a slot is handed out to one caller only, between the atomic operation that sets its bit and the one that clears
// it; it has the size and alignment of its class, which are at least what was asked for.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match class(layout) {
            Some(class) => self.take(class),
            None => map(layout.size(), layout.align()),
        }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        match class(layout) {
            // SAFETY: the caller gives back what `alloc` gave it for this layout, thus of this class.
            Some(class) => unsafe { give_back(place, class) },
            // SAFETY: as above: it was mapped on its own, with this size.
            None => unsafe { unmap(place, layout.size()) },
        }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(wanted) = Layout::from_size_align(size, layout.align()) else { return null_mut() };
        if class(layout).is_some() && class(layout) == class(wanted) {
            return place;
        }
        // SAFETY: the caller promises that `wanted` isn't empty.
        let new = unsafe { self.alloc(wanted) };
        if !new.is_null() {
            // SAFETY: both have at least the smaller of the two sizes, and are different allocations.
            unsafe { ptr::copy_nonoverlapping(place, new, size.min(layout.size())) };
            // SAFETY: the caller's promise of `place` and `layout`.
            unsafe { self.dealloc(place, layout) };
        }
        new
    }
}

impl Heap {
    /// An empty one. Nothing is mapped yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is made in a static, where Default can't be called")]
    pub const fn new() -> Self {
        let classes = [const { AtomicPtr::new(null_mut()) }; CLASSES];
        Self { classes, spare: AtomicPtr::new(null_mut()) }
    }

    fn take(&self, class: usize) -> *mut u8 {
        let Some(newest) = self.classes.get(class) else { return null_mut() };
        let mut next = newest.load(Ordering::Acquire);
        // SAFETY: what stands in a list is a slab that was made below, and none is ever unmapped.
        while let Some(slab) = unsafe { next.as_ref() } {
            if let Some(slot) = slab.take_slot() {
                return slot_of(next, class, slot);
            }
            next = slab.older;
        }
        self.add_slab(newest, class)
    }

    /// The first slot of a new slab, which goes to the list's head; null where there is no memory.
    #[cold]
    fn add_slab(&self, newest: &AtomicPtr<Slab>, class: usize) -> *mut u8 {
        let place = self.fresh_slab().cast::<Slab>();
        if place.is_null() {
            return null_mut();
        }
        let mut older = newest.load(Ordering::Relaxed);
        loop {
            // SAFETY: it is fresh, large enough and aligned, and nobody else knows it until it is in the list.
            unsafe { place.write(Slab { taken: AtomicU64::new(never_free(class) | 1), older }) };
            match newest.compare_exchange_weak(older, place, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return slot_of(place, class, 0),
                Err(current) => older = current,
            }
        }
    }

    /// Memory for a slab, from a region that is mapped when there is none; null where there is no memory.
    fn fresh_slab(&self) -> *mut u8 {
        let mut spare = self.spare.load(Ordering::Relaxed);
        loop {
            let is_used_up = spare.addr().is_multiple_of(REGION);
            let slab = if is_used_up { map(REGION, REGION) } else { spare };
            if slab.is_null() {
                return null_mut();
            }
            let next = slab.wrapping_add(SLAB);
            match self.spare.compare_exchange(spare, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return slab,
                Err(current) => spare = current,
            }
            if is_used_up {
                // SAFETY: it was just mapped, and another's region is in use in its place.
                unsafe { unmap(slab, REGION) };
            }
        }
    }
}

impl Slab {
    /// A free slot's number, taken.
    fn take_slot(&self) -> Option<u32> {
        let mut taken = self.taken.load(Ordering::Relaxed);
        loop {
            let slot = taken.trailing_ones();
            let bit = 1_u64.checked_shl(slot)?;
            // Whoever had it before is done with it: its release was in this bitmap.
            let before = self.taken.fetch_or(bit, Ordering::Acquire);
            if before & bit == 0 {
                return Some(slot);
            }
            taken = before | bit;
        }
    }
}

fn slot_of(slab: *mut Slab, class: usize, slot: u32) -> *mut u8 {
    slab.cast::<u8>().wrapping_add(first_slot(class) + slot as usize * slot_size(class))
}

/// # Safety
/// `place` is a slot of this class that is in use, and is its caller's to give back.
unsafe fn give_back(place: *mut u8, class: usize) {
    let slab = place.map_addr(|address| address & !(SLAB - 1));
    let slot = (place.addr() - slab.addr() - first_slot(class)) / slot_size(class);
    #[expect(clippy::cast_ptr_alignment, reason = "a slab is aligned to its size")]
    // SAFETY: slabs are aligned to their size and slots lie within them, so there is the slab's head.
    let slab = unsafe { &*slab.cast::<Slab>() };
    slab.taken.fetch_and(!(1 << slot), Ordering::Release);
}

/// Fresh memory of whole pages; null where there is none. The alignment is a power of two.
fn map(size: usize, align: usize) -> *mut u8 {
    const PAGE: usize = 4096;
    let spare = if align > PAGE { align } else { 0 };
    let Some(room) = size.checked_next_multiple_of(PAGE).and_then(|size| size.checked_add(spare)) else {
        return null_mut();
    };
    let (readable, own) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let nowhere: c_int = -1;
    // SAFETY: a new mapping at a place of the kernel's choice touches nothing that is there.
    let start = unsafe { libc::mmap(null_mut(), room, readable, own, nowhere, 0) };
    if start == libc::MAP_FAILED {
        return null_mut();
    }
    let start = start.cast::<u8>();
    let before = start.align_offset(align.max(PAGE));
    let place = start.wrapping_add(before);
    // What lies around the aligned part goes back, in whole pages.
    for (place, size) in [(start, before), (place.wrapping_add(room - spare), spare - before.min(spare))] {
        if size > 0 {
            // SAFETY: it is a part of what was just mapped, outside of what is handed out.
            unsafe { unmap(place, size) };
        }
    }
    place
}

/// # Safety
/// These bytes were mapped by [`map`], and nobody uses them any more.
unsafe fn unmap(place: *mut u8, size: usize) {
    // SAFETY: the caller's duty. The kernel rounds the size up to pages, as `map` did.
    unsafe { libc::munmap(place.cast(), size) };
}

#[cfg(test)]
mod tests {
    use std::{slice, thread};

    use super::*;

    /// An allocation of a heap, given back when it is dropped.
    struct Piece<'a> {
        heap: &'a Heap,
        place: *mut u8,
        layout: Layout,
    }

    impl<'a> Piece<'a> {
        fn of(heap: &'a Heap, size: usize, align: usize) -> Self {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: no test asks for nothing.
            let place = unsafe { heap.alloc(layout) };
            assert!(!place.is_null() && place.align_offset(align) == 0, "{layout:?}");
            Self { heap, place, layout }
        }

        fn resize(&mut self, size: usize) {
            // SAFETY: this heap gave it with this layout, and no test asks for nothing.
            self.place = unsafe { self.heap.realloc(self.place, self.layout, size) };
            self.layout = Layout::from_size_align(size, self.layout.align()).unwrap();
        }

        fn fill(&mut self, byte: u8) {
            // SAFETY: it is as large as its layout says, and borrowed exclusively.
            unsafe { self.place.write_bytes(byte, self.layout.size()) };
        }

        fn bytes(&self) -> &[u8] {
            // SAFETY: it is as large as its layout says, and tests read only what they filled.
            unsafe { slice::from_raw_parts(self.place, self.layout.size()) }
        }
    }

    impl Drop for Piece<'_> {
        fn drop(&mut self) {
            // SAFETY: this heap gave it with this layout, and nobody uses it after this.
            unsafe { self.heap.dealloc(self.place, self.layout) };
        }
    }

    #[test]
    fn every_allocation_is_aligned_and_its_own() {
        const MIB: usize = 1 << 20;
        let heap = Heap::new();
        let kinds = [(1, 1), (16, 16), (17, 8), (4096, 4096), (LARGEST, 1), (LARGEST + 1, 1), (MIB, 1 << 14)];
        let pieces = kinds.into_iter().flat_map(|kind| (0..200_u8).map(move |number| (kind, number)));
        let pieces: Vec<(Piece<'_>, u8)> = pieces
            .map(|((size, align), number)| {
                let mut piece = Piece::of(&heap, size, align);
                piece.fill(number);
                (piece, number)
            })
            .collect();
        for (piece, number) in &pieces {
            assert!(piece.bytes().iter().all(|byte| byte == number), "{:?}", piece.layout);
        }
    }

    #[test]
    fn what_is_given_back_is_taken_again() {
        let heap = Heap::new();
        for class in 0..CLASSES {
            let slots = never_free(class).trailing_zeros();
            let round = || {
                let pieces: Vec<Piece<'_>> =
                    (0..slots).map(|_| Piece::of(&heap, slot_size(class), 1)).collect();
                pieces.iter().map(|piece| piece.place).collect::<Vec<_>>()
            };
            assert_eq!(round(), round(), "one slab has room for all of them, every time");
        }
    }

    #[test]
    fn what_was_written_survives_another_size() {
        let heap = Heap::new();
        let mut piece = Piece::of(&heap, 3, 1);
        piece.fill(7);
        let sizes = (2..18).map(|power| 1 << power);
        for size in sizes.clone().chain(sizes.rev()) {
            piece.resize(size);
            assert_eq!(piece.bytes()[..3], [7; 3]);
        }
    }

    #[test]
    fn threads_never_get_the_same() {
        let heap = Heap::new();
        thread::scope(|scope| {
            for mark in 0..4_u8 {
                let heap = &heap;
                scope.spawn(move || {
                    for round in 0..20_000_u32 {
                        let mark = mark << 6 | (round % 64) as u8;
                        let mut pieces: [Piece<'_>; 5] = std::array::from_fn(|_| Piece::of(heap, 64, 8));
                        pieces.iter_mut().for_each(|piece| piece.fill(mark));
                        thread::yield_now();
                        assert!(pieces.iter().flat_map(Piece::bytes).all(|byte| *byte == mark));
                    }
                });
            }
        });
    }
}
