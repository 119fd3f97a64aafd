//! Wiping memory that nobody else would ever clear: an allocator that wipes what is given back, for the handshake library
//! leaves copies of secrets in freed memory; and what functions that have returned have left on the stack.
//!
//! The data path allocates nothing per frame, so that it pays nothing for this.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;

/// More than the deepest function that handles a key takes, and less than the smallest stack has.
const STACK: usize = 128 << 10;

/// Overwrites the stack below the caller, where functions that have returned may have moved a secret to.
#[inline(never)]
pub fn stack() {
    black_box(&mut [0u8; STACK]);
}

/// The system's allocator, with freed memory wiped. For `#[global_allocator]`.
#[derive(Debug)]
pub struct Wiping;

// SAFETY: memory comes from and goes back to `System`, under the layouts that it was asked for with.
// `realloc` is the trait's own: a new piece, a copy, and the old piece given back, which wipes it.
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that `System` wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above. Fresh pages are zero already, and stay untouched.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the piece is the caller's, `layout.size()` bytes long, and still allocated. Unlike a plain write,
        // this call is never taken out for being followed by `free`.
        unsafe { libc::explicit_bzero(ptr.cast(), layout.size()) };
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}
