//! Reads on threads of the engine, and their bound.

use crate::support::engines::DIR;
use crate::support::threads::*;
use raftwood::vfs::sim::SimVfs;
use raftwood::{ErrorKind, ReadLimit, RegionId};
use std::sync::mpsc::channel;
use std::thread;

#[test]
fn fetch_answers_on_a_thread_of_the_engine() {
    let vfs = SimVfs::new(10);
    let engine = open(&vfs);
    for index in 1..=10 {
        submit(&engine, 1, index).wait().unwrap();
    }
    let (send, receive) = channel();
    let here = thread::current().id();
    engine.fetch(RegionId(1), 3..=5, ReadLimit::NONE, move |read| {
        assert_ne!(thread::current().id(), here);
        send.send(read.unwrap().iter().map(|e| e.id.index).collect::<Vec<_>>()).unwrap();
    });
    assert_eq!(receive.recv().unwrap(), [3, 4, 5]);
}

/// Nothing bounded the queue: a program that asks faster than the device answers took memory without end.
#[test]
fn a_fetch_beyond_the_bound_is_refused_at_once_and_blocks_nobody() {
    let vfs = SimVfs::new(12);
    let engine = options(&vfs).fetch_threads(1).fetch_queue_max(2).open(DIR).unwrap();
    submit(&engine, 1, 1).wait().unwrap();
    let (send, receive) = channel();
    let (begun, wait_begun) = channel();
    let (release, gate) = channel::<()>();
    engine.fetch(RegionId(1), 1..=1, ReadLimit::NONE, move |_| {
        begun.send(()).unwrap();
        gate.recv().unwrap_err();
    });
    wait_begun.recv().unwrap();
    let fetch = |n: u32| {
        let send = send.clone();
        let done = move |read: raftwood::Result<Vec<_>>| {
            send.send((n, thread::current().id(), read.map(|entries| entries.len()))).unwrap();
        };
        engine.fetch(RegionId(1), 1..=1, ReadLimit::NONE, done);
    };
    (1..=4).for_each(fetch);
    // The two that found no place were answered before the calls came back, on this thread.
    for n in 3..=4 {
        let (refused, on, read) = receive.try_recv().unwrap();
        let error = read.unwrap_err();
        assert_eq!((refused, on), (n, thread::current().id()));
        assert_eq!((error.kind(), error.region()), (ErrorKind::WouldBlock, Some(RegionId(1))));
        assert!(error.is_retryable() && error.to_string().contains("fetch_queue_max"), "{error}");
    }
    let stats = engine.stats();
    assert_eq!((stats.queued_fetches, stats.refused_fetches), (2, 2));
    drop(release);
    for n in 1..=2 {
        let (answered, _, read) = receive.recv().unwrap();
        assert_eq!((answered, read.unwrap()), (n, 1));
    }
    // There is room again.
    fetch(5);
    assert_eq!(receive.recv().unwrap().2.unwrap(), 1);
    assert_eq!(engine.stats().queued_fetches, 0);
}

#[test]
fn no_threads_and_no_queue_for_fetches_are_refused_by_name() {
    let vfs = SimVfs::new(13);
    for (options, named) in [
        (options(&vfs).fetch_threads(0), "fetch_threads is 0"),
        (options(&vfs).fetch_threads(1025), "fetch_threads is 1025"),
        (options(&vfs).fetch_queue_max(0), "fetch_queue_max is 0"),
    ] {
        let error = options.open(DIR).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(named), "{error}");
    }
}
