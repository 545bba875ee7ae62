//! Work on secrets that leaves no copies of them behind, neither on the stack nor in memory that was freed.
//!
//! Types that wipe themselves do not reach all copies: a value that is moved stays where it was, and libraries (a parser, a hash, an
//! estimate of a password) free buffers of their own as they are. [`without_traces`] runs such work. What the work frees is wiped
//! first, and what it used of the stack is overwritten afterwards. What it returns should wipe itself and live on the heap.
//!
//! Freed memory is wiped only in a binary whose allocator is [`Wiping`], and only during such work: outside of it, the allocator costs a
//! look at a variable of the thread. (Wiping every block would write each byte of a transfer once more.)
#![allow(unsafe_code, reason = "an allocator is unsafe by nature")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::hint::black_box;

/// What is overwritten of the stack, in bytes: more than parsing a line or making keys takes, also without optimisation. A thread
/// has 2 MiB.
const STACK_BYTES: usize = 256 * 1024;

thread_local! {
    /// Whether this thread wipes what it frees.
    static WIPES: Cell<bool> = const { Cell::new(false) };
}

/// Runs work on a secret and leaves no trace of it but what it returns. It may be nested, and is not for work that runs on other
/// threads or awaits. It takes some ten microseconds.
pub fn without_traces<T>(work: impl FnOnce() -> T) -> T {
    let wiping = WhileWiping::begin();
    let done = apart(work);
    // Work within other work has the stack overwritten at the end of that.
    if !wiping.before {
        overwrite_stack();
    }
    drop(wiping);
    done
}

/// A frame of its own for the work, so that all it uses of the stack is below the caller's.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn overwrite_stack() {
    black_box(&mut [0_u8; STACK_BYTES]);
}

/// This thread wipes what it frees, until this is dropped.
struct WhileWiping {
    before: bool,
}

impl WhileWiping {
    fn begin() -> Self {
        Self { before: WIPES.replace(true) }
    }
}

impl Drop for WhileWiping {
    fn drop(&mut self) {
        WIPES.set(self.before);
    }
}

/// An allocator that wipes what is freed during [`without_traces`], before the other one gets it.
#[derive(Debug)]
pub struct Wiping<A>(pub A);

fn wipes() -> bool {
    // A thread that is ending has no secrets in hand.
    WIPES.try_with(Cell::get).unwrap_or(false)
}

// SAFETY: every block comes from `A` and goes back to it with the layout that it was made with; `A` keeps the rules of the trait.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Wiping<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the rules of `alloc`, which are those of `A`'s.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if wipes() {
            // SAFETY: the caller gives up a block of this length, which nothing else uses.
            unsafe { block.write_bytes(0, layout.size()) };
            // The compiler must not leave out writes to a block that is freed.
            black_box(block);
        }
        // SAFETY: the block is of `A` and has this layout, as the caller says.
        unsafe { self.0.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if !wipes() {
            // SAFETY: as for `dealloc`; the new size is valid, as the caller says.
            return unsafe { self.0.realloc(block, layout, new_size) };
        }
        // `A` might move the block and leave the old one as it is.
        // SAFETY: the caller says that the new size is valid for this alignment and not zero.
        let new = unsafe { self.0.alloc(Layout::from_size_align_unchecked(new_size, layout.align())) };
        if !new.is_null() {
            // SAFETY: both blocks have at least this many bytes, and the new one is no part of the old one.
            unsafe { new.copy_from_nonoverlapping(block, layout.size().min(new_size)) };
            // SAFETY: the old block is given up here, as the caller expects of `realloc`.
            unsafe { self.dealloc(block, layout) };
        }
        new
    }
}
