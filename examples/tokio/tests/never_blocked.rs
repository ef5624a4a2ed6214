//! The runtime has one thread. Were it blocked, no other task would run: the tests count how often one does
//! while the disk holds up what is waited for, and only that task lets the disk go on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use raftwood::vfs::sim::{OpKind, SimVfs};
use raftwood::{Change, Durability, Lsn, Options, Pool, RegionId};
use raftwood_tokio::{append, next_index, watch};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;

const TURNS: u64 = 1000;

/// Runs a test on a runtime of one thread; one that is blocked fails it instead of standing still.
fn on_one_thread<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(tokio::task::LocalSet::new().run_until(test()));
        send.send(()).unwrap();
    });
    receive.recv_timeout(Duration::from_secs(60)).expect("the test panicked, or its one thread is blocked");
}

fn options(vfs: &SimVfs) -> Options {
    let pool = Pool::default().prewrite(false);
    Options::new().segment_bytes(64 << 10).pool(pool).vfs(Arc::new(vfs.clone()))
}

/// Yields so often that every other task that can run has run as often.
async fn turns() {
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
}

/// So many writers that most of them find no room, on a disk whose syncs hang.
#[test]
fn other_tasks_run_while_writes_wait_for_a_sync_and_for_room() {
    on_one_thread(|| async {
        let vfs = SimVfs::new(1);
        let engine = options(&vfs).in_flight_bytes_max(4096).open_async("/db").await.unwrap();
        append(&engine, 1, 1, b"begun").await.unwrap();
        let mut changes = watch(&engine).unwrap();

        vfs.block_syncs();
        let mut writers = JoinSet::new();
        for group in 2..=100 {
            let engine = engine.clone();
            writers.spawn(async move {
                for index in 1..=5 {
                    append(&engine, group, index, &[7; 1000]).await.unwrap();
                }
            });
        }
        turns().await;
        assert!(writers.try_join_next().is_none(), "nothing is durable yet");
        let stats = engine.stats();
        assert!(stats.in_flight_bytes > 0 && stats.in_flight_bytes <= 4096, "{stats:?}");
        let accepted = (2..=100).filter(|group| next_index(&engine, *group) > 1).count();
        assert!(accepted < 5, "{accepted} of 99 writers found room");
        // Nothing but this task's turn lets the disk go on.
        vfs.release_syncs();
        while let Some(writer) = writers.join_next().await {
            writer.unwrap();
        }
        assert!((2..=100).all(|group| next_index(&engine, group) == 6));
        let (durable, closed) = (engine.durable_lsn(), engine.close_async());
        closed.await.unwrap();
        let mut last = Lsn::ZERO;
        while let Some(change) = changes.recv().await {
            if let Change::Durable { lsn } = change {
                last = lsn;
            }
        }
        assert!(last >= durable);
    });
}

/// The next segment is not there yet, and what makes it hangs.
#[test]
fn other_tasks_run_while_writes_wait_for_the_next_segment() {
    on_one_thread(|| async {
        let vfs = SimVfs::new(2);
        let engine = options(&vfs).open_async("/db").await.unwrap();
        append(&engine, 1, 1, b"begun").await.unwrap();
        let hold = Hold::up(&vfs, &[OpKind::Create, OpKind::Rename]);
        let writing = engine.clone();
        let writer = tokio::task::spawn_local(async move {
            for index in 2..=200 {
                append(&writing, 1, index, &[7; 1000]).await.unwrap();
            }
        });
        hold.holds().await;
        turns().await;
        assert!(!writer.is_finished() && next_index(&engine, 1) <= 200);
        hold.let_go();
        writer.await.unwrap();
        assert_eq!(next_index(&engine, 1), 201);
        engine.close_async().await.unwrap();
    });
}

#[test]
fn other_tasks_run_while_an_engine_opens_and_closes() {
    on_one_thread(|| async {
        let vfs = SimVfs::new(3);
        let engine = options(&vfs).open_async("/db").await.unwrap();
        append(&engine, 1, 1, b"begun").await.unwrap();
        let mut batch = engine.batch();
        batch.region(RegionId(1)).set_hard_state(b"term 1").unwrap();
        engine.write_async(batch, Durability::Written).await.unwrap();

        let hold = Hold::up(&vfs, &[OpKind::SyncData, OpKind::SyncAll]);
        let closes = tokio::task::spawn_local(engine.close_async());
        hold.holds().await;
        turns().await;
        assert!(!closes.is_finished());
        hold.let_go();
        closes.await.unwrap().unwrap();
        drop(engine);

        let hold = Hold::up(&vfs, &[OpKind::List]);
        let opens = tokio::task::spawn_local(options(&vfs).open_async("/db"));
        hold.holds().await;
        turns().await;
        assert!(!opens.is_finished());
        hold.let_go();
        let engine = opens.await.unwrap().unwrap();
        assert_eq!(engine.region(RegionId(1)).hard_state().as_deref(), Some(&b"term 1"[..]));
        engine.close_async().await.unwrap();
    });
}

/// Holds up calls of some kinds.
#[derive(Default)]
struct Hold {
    held: AtomicU64,
    released: Mutex<bool>,
    news: Condvar,
}

impl Hold {
    fn up(vfs: &SimVfs, kinds: &'static [OpKind]) -> Arc<Hold> {
        let hold = Arc::new(Hold::default());
        let hook = hold.clone();
        vfs.set_hook(Some(Arc::new(move |op| {
            if kinds.contains(&op.kind) {
                hook.held.fetch_add(1, Ordering::Relaxed);
                let released = hook.released.lock().unwrap();
                drop(hook.news.wait_while(released, |released| !*released).unwrap());
            }
        })));
        hold
    }

    /// Comes back when something is held up.
    async fn holds(&self) {
        while self.held.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    }

    fn let_go(&self) {
        *self.released.lock().unwrap() = true;
        self.news.notify_all();
    }
}
