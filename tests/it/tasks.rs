//! Writes of tasks, polled by hand: what would wait does so elsewhere, in its turn.

use crate::support::engines::{by_hand, on};
use crate::support::entries;
use crate::support::threads::*;
use raftwood::vfs::sim::{OpKind, SimVfs};
use raftwood::{Durability, Engine, EntryId, ErrorKind, RegionId, WriteBatch};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

const R: RegionId = RegionId(7);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(Arc::new(Unpark(thread::current())))))
}

/// Polls when woken, as a runtime does.
fn wait<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        match poll(future.as_mut()) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn large(engine: &Engine, index: u64) -> WriteBatch {
    entries::batch(engine, R, index, 900)
}

/// An engine with one batch on its way, which the disk holds up, and room for no other.
fn full(vfs: &SimVfs) -> (Engine, raftwood::Ticket) {
    let engine = on(vfs).in_flight_bytes_max(1000).open("/db").unwrap();
    begin(&engine);
    vfs.block_syncs();
    let first = engine.submit(large(&engine, 1), Durability::Synced).unwrap();
    vfs.wait_for_syncs(1);
    (engine, first)
}

#[test]
fn a_poll_does_not_wait_for_room_and_batches_are_accepted_in_the_order_of_their_polls() {
    let vfs = SimVfs::new(1);
    let (engine, first) = full(&vfs);
    // A gap would be refused: the order shows.
    let mut writes: Vec<_> = (2..=20)
        .map(|index| Box::pin(engine.write_async(large(&engine, index), Durability::Synced)))
        .collect();
    in_time("the writes", move || {
        for write in &mut writes {
            assert!(poll(write.as_mut()).is_pending());
        }
        // Not polled again, the second is accepted all the same: none stands in line after a task that
        // sleeps.
        assert_eq!(engine.region(R).last_index(), 1);
        vfs.release_syncs();
        first.wait().unwrap();
        let last = wait(writes.pop().unwrap()).unwrap();
        assert_eq!(engine.region(R).last_index(), 20);
        for write in writes {
            assert!(wait(write).unwrap() < last);
        }
        assert_eq!(engine.region(R).state().durable, 20);
    });
}

#[test]
fn a_future_that_is_dropped_before_its_batch_was_accepted_takes_it_along() {
    let vfs = SimVfs::new(2);
    let (engine, first) = full(&vfs);
    in_time("the writes", move || {
        let mut waits = Box::pin(engine.write_async(large(&engine, 2), Durability::Synced));
        assert!(poll(waits.as_mut()).is_pending());
        let mut batch = large(&engine, 3);
        batch.region(R).put(b"dropped", b"").unwrap();
        let mut dropped = Box::pin(engine.write_async(batch, Durability::Synced));
        assert!(poll(dropped.as_mut()).is_pending());
        drop(dropped);
        let other = engine.write_async(entries::batch(&engine, R, 3, 10), Durability::Synced);
        vfs.release_syncs();
        first.wait().unwrap();
        wait(waits).unwrap();
        wait(other).unwrap();
        assert_eq!((engine.region(R).last_index(), engine.region(R).get(b"dropped")), (3, None));
    });
}

#[test]
fn an_accepted_batch_does_not_need_its_future() {
    let vfs = SimVfs::new(3);
    let (engine, first) = full(&vfs);
    in_time("the writes", move || {
        vfs.release_syncs();
        first.wait().unwrap();
        vfs.block_syncs();
        let mut write = Box::pin(engine.write_async(large(&engine, 2), Durability::Synced));
        assert!(poll(write.as_mut()).is_pending());
        assert_eq!(engine.region(R).last_index(), 2, "the first poll accepts where there is room");
        drop(write);
        vfs.release_syncs();
        engine.sync().unwrap();
        assert_eq!(engine.region(R).state().durable, 2);
    });
}

#[test]
fn a_refused_batch_comes_back_from_wherever_it_waited() {
    let vfs = SimVfs::new(4);
    let (engine, first) = full(&vfs);
    in_time("the writes", move || {
        let mut gap = Box::pin(engine.submit_async(large(&engine, 9), Durability::Synced));
        assert!(poll(gap.as_mut()).is_pending());
        let mut empty = Box::pin(engine.write_async(engine.batch(), Durability::Synced));
        assert!(poll(empty.as_mut()).is_pending(), "a barrier stands in line as well");
        vfs.release_syncs();
        first.wait().unwrap();
        let (error, batch) = wait(gap).unwrap_err().into_parts();
        assert_eq!(error.kind(), ErrorKind::Gap);
        assert_eq!(batch.map(|batch| batch.is_empty()), Some(false));
        assert!(wait(empty).unwrap() <= engine.durable_lsn());
    });
}

#[test]
fn a_batch_that_is_handed_over_is_accepted_in_its_turn_though_nobody_waits_for_it() {
    let vfs = SimVfs::new(5);
    let (engine, first) = full(&vfs);
    in_time("the writes", move || {
        let (send, answers) = std::sync::mpsc::channel();
        for index in [2, 3, 9] {
            let send = send.clone();
            engine.submit_then(large(&engine, index), Durability::Synced, move |submitted| {
                let told = submitted.map(|ticket| ticket.lsn()).map_err(|refused| refused.into_parts());
                _ = send.send(told);
            });
        }
        assert!(answers.try_recv().is_err() && engine.region(R).last_index() == 1);
        vfs.release_syncs();
        first.wait().unwrap();
        assert!(answers.recv().unwrap().unwrap() < answers.recv().unwrap().unwrap());
        let (error, batch) = answers.recv().unwrap().unwrap_err();
        assert_eq!((error.kind(), batch.map(|batch| batch.entry_count())), (ErrorKind::Gap, Some(1)));
        // Where there is room it is accepted on the spot.
        let here = thread::current().id();
        let (send, answer) = std::sync::mpsc::channel();
        engine.submit_then(large(&engine, 4), Durability::Synced, move |submitted| {
            _ = send.send((submitted.is_ok(), thread::current().id() == here));
        });
        assert!(answer.recv().unwrap().0 && engine.region(R).last_index() == 4);
    });
}

#[test]
fn a_task_reads_what_is_recent_at_once_and_what_lies_far_back_on_another_thread() {
    let vfs = SimVfs::new(6);
    let engine = on(&vfs).open("/db").unwrap();
    in_time("the reads", move || {
        let region = engine.region(R);
        for index in 1..=400 {
            engine.write(large(&engine, index), Durability::Written).unwrap();
        }
        let read = |range| Box::pin(region.entries_clamped_async(range, raftwood::ReadLimit::NONE));
        assert_eq!(region.segments_back(400), Some(0));
        assert!(matches!(poll(read(399..1000).as_mut()), Poll::Ready(Ok(entries)) if entries.len() == 2));
        assert!(region.segments_back(1).unwrap() > 1);
        let mut far = read(0..3);
        assert!(poll(far.as_mut()).is_pending());
        assert_eq!(wait(far).unwrap().len(), 2);
        assert_eq!(wait(read(500..501)).unwrap().len(), 0);
        assert_eq!(region.segments_back(401), None);
    });
}

/// A batch that fits into the segment would go past one that waits for the next.
#[test]
fn a_batch_that_could_be_accepted_at_once_goes_after_those_that_wait() {
    let vfs = SimVfs::new(9);
    let engine = on(&vfs).open("/db").unwrap();
    begin(&engine);
    let (send, held) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(held);
    in_time("the writes", move || {
        // Until `send` is dropped no file is made.
        vfs.set_hook(Some(Arc::new(move |op| {
            if matches!(op.kind, OpKind::Create | OpKind::Rename) {
                let _ = held.lock().unwrap().recv();
            }
        })));
        let mut writes = Vec::new();
        for index in 1..=200 {
            let len = if index % 2 == 0 { 10 } else { 2000 };
            let batch = entries::batch(&engine, R, index, len);
            let mut write = Box::pin(engine.submit_async(batch, Durability::Synced));
            match poll(write.as_mut()) {
                Poll::Ready(accepted) => drop(accepted.unwrap()),
                Poll::Pending => writes.push(write),
            }
        }
        assert!(writes.len() > 50);
        drop(send);
        for write in writes {
            drop(wait(write).unwrap());
        }
        vfs.set_hook(None);
        assert_eq!(engine.region(R).last_index(), 200);
    });
}

/// The thread that it is called on waits for all batches that are handed over.
#[test]
fn a_batch_whose_caller_panics_when_it_is_told_does_not_hold_up_the_line() {
    let vfs = SimVfs::new(10);
    let (engine, first) = full(&vfs);
    in_time("the writes", move || {
        engine.submit_then(large(&engine, 2), Durability::Synced, |_| panic!("on purpose"));
        let (send, accepted) = std::sync::mpsc::channel();
        engine.submit_then(large(&engine, 3), Durability::Synced, move |submitted| {
            _ = send.send(submitted.is_ok());
        });
        assert_eq!(engine.region(R).last_index(), 1);
        vfs.release_syncs();
        first.wait().unwrap();
        assert_eq!(accepted.recv(), Ok(true));
        assert_eq!(engine.region(R).last_index(), 3);
        wait(engine.write_async(large(&engine, 4), Durability::Synced)).unwrap();
    });
}

#[test]
fn a_close_answers_those_who_wait_for_room() {
    let vfs = SimVfs::new(5);
    let (engine, first) = full(&vfs);
    in_time("the close", move || {
        let mut waits: Vec<_> = (2..=4)
            .map(|index| Box::pin(engine.write_async(large(&engine, index), Durability::Synced)))
            .collect();
        waits.iter_mut().for_each(|write| assert!(poll(write.as_mut()).is_pending()));
        let mut close = Box::pin(engine.close_async());
        assert!(poll(close.as_mut()).is_pending());
        // Until the close has begun, room would let them in.
        for write in waits {
            let (error, batch) = wait(write).unwrap_err().into_parts();
            assert_eq!((error.kind(), batch.is_some()), (ErrorKind::Closed, true));
        }
        vfs.release_syncs();
        wait(close).unwrap();
        assert!(first.wait().is_ok());
    });
}

#[test]
fn an_empty_batch_is_refused_where_it_would_wait_and_the_caller_does_not() {
    let vfs = SimVfs::new(6);
    let (engine, first) = full(&vfs);
    in_time("the barrier", move || {
        let refused = engine.try_submit(engine.batch(), Durability::Synced).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
        vfs.release_syncs();
        first.wait().unwrap();
    });
}

#[test]
fn an_engine_is_opened_and_closed_beside_the_task() {
    let vfs = SimVfs::new(7);
    in_time("the open", move || {
        let engine = wait(on(&vfs).open_async("/db")).unwrap();
        wait(engine.write_async(large(&engine, 1), Durability::Synced)).unwrap();
        let locked = wait(on(&vfs).open_async("/db")).unwrap_err();
        assert_eq!(locked.kind(), ErrorKind::Locked);
        wait(engine.close_async()).unwrap();
        // A future that nobody waits for any more leaves the store closed.
        drop(on(&vfs).open_async("/db"));
        let again = loop {
            match wait(on(&vfs).open_async("/db")) {
                Err(e) if e.kind() == ErrorKind::Locked => thread::yield_now(),
                opened => break opened.unwrap(),
            }
        };
        assert_eq!(again.region(R).entry(1).unwrap().id, EntryId::new(1, 1));
    });
}

/// Without threads of the engine a poll does the work, as everything else does then.
#[test]
fn without_threads_a_poll_commits() {
    let engine = by_hand(&SimVfs::new(8)).in_flight_bytes_max(1000).open("/db").unwrap();
    for index in 1..=3 {
        let mut write = Box::pin(engine.write_async(large(&engine, index), Durability::Synced));
        assert!(matches!(poll(write.as_mut()), Poll::Ready(Ok(_))));
    }
    assert_eq!(engine.region(R).state().durable, 3);
}
