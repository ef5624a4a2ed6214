//! What is counted for a whole process, in a program of its own: allocations, bytes of heap. One test at a
//! time, whatever the number of threads.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod allocator;
mod counts;
mod heap;
