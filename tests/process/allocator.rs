//! The system's allocator, which counts here.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes that the process asked for and did not give back.
static LIVE: AtomicI64 = AtomicI64::new(0);

/// The most that this ever was since [`peak_during`] began.
static PEAK: AtomicI64 = AtomicI64::new(0);

thread_local! {
    /// How often this thread asked.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The tests count for the whole process: one at a time.
static TURN: Mutex<()> = Mutex::new(());

/// Waits until no other test runs.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn live() -> i64 {
    LIVE.load(Relaxed)
}

/// The most that was there while `work` ran.
pub(crate) fn peak_during(work: impl FnOnce()) -> i64 {
    PEAK.store(live(), Relaxed);
    work();
    PEAK.load(Relaxed)
}

/// Of this thread.
pub(crate) fn allocations() -> u64 {
    ALLOCATIONS.get()
}

struct Counting;

impl Counting {
    fn allocates(&self, bytes: i64) {
        PEAK.fetch_max(LIVE.fetch_add(bytes, Relaxed) + bytes, Relaxed);
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
    }
}

// SAFETY: the system's allocator does it all; the counters allocate nothing.
#[allow(unsafe_code, reason = "the trait is")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.allocates(layout.size() as i64);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as i64, Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        self.allocates(new as i64 - layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, new) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
