//! What is freed during work without traces is wiped before the allocator gets it back.
#![allow(unsafe_code, reason = "a test's allocator looks at what is freed")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use shoal_wipe::{Wiping, without_traces};

/// A secret of a length that nothing else in this process has.
const SECRET: [u8; 4_099] = [0x5a; 4_099];

/// Counts freed blocks of the secret's length or more that still begin with it.
struct Watching(AtomicUsize);

// SAFETY: it does what the system's allocator does, and reads a block that is still whole before it is freed.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the first byte is written in all blocks of this length in this test, and the block is not freed yet.
        if layout.size() >= SECRET.len() && unsafe { block.read() } == SECRET[0] {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: as the caller says.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Wiping<Watching> = Wiping(Watching(AtomicUsize::new(0)));

fn grow_and_free() {
    let mut bytes = SECRET.to_vec();
    bytes.reserve_exact(100_000);
    drop(std::hint::black_box(bytes));
}

#[test]
fn blocks_are_wiped_during_the_work_and_not_outside() {
    let seen = || ALLOCATOR.0.0.load(Ordering::Relaxed);
    let before = seen();
    without_traces(|| without_traces(grow_and_free));
    without_traces(grow_and_free);
    assert_eq!(seen(), before, "freed, and moved to grow");
    let kept = without_traces(|| SECRET.to_vec());
    assert_eq!(kept, SECRET, "what is returned stays");
    grow_and_free();
    assert!(seen() > before, "outside of such work nothing is wiped, so this test can fail");
}
