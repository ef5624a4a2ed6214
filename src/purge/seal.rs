//! Full segments get their footer, and what the heap knew of them is let go.

use crate::engine::listener::Event;
use crate::error::{Error, ErrorKind, Result};
use crate::format::footer::Footer;
use crate::planted::{Bug, planted};
use crate::segment::{Segment, build_footer, load_footer, write_footer};
use crate::store::{Store, lock};
use crate::sync::atomic::Ordering;
use crate::types::Lsn;
use std::sync::Arc;

/// Seals every full segment whose records are durable. One whose records are damaged goes without a footer: its entries
/// are read by what the heap knows, and the segments behind it are sealed all the same.
pub(crate) fn seal_due(store: &Store) -> Result<()> {
    loop {
        let Some((segment, end)) = lock(&store.shared.sealing).front().cloned() else { return Ok(()) };
        let durable = store.committer.durable();
        if durable < Lsn::new(segment.id, end) && !planted(Bug::SealedBeforeSync) {
            if store.committer.gate().is_shut() {
                return Ok(());
            }
            store.committer.sync()?;
        }
        match seal(store, &segment, end) {
            Err(error) if error.kind() == ErrorKind::Damaged => {
                segment.unsealable.store(true, Ordering::Release);
                store.shared.tell(&Event::Damage { error: &error });
            }
            sealed => sealed?,
        }
        lock(&store.shared.sealing).pop_front();
    }
}

fn seal(store: &Store, segment: &Arc<Segment>, end: u32) -> Result<()> {
    let built = build_footer(segment, end)?;
    let vfs = &*store.options.vfs;
    write_footer(vfs, &store.dir, segment.id, &built)?;
    store.upkeep_bytes.fetch_add(built.len() as u64, Ordering::Relaxed);
    let footer = match load_footer(vfs, &store.dir, &segment.identity) {
        Some(footer) => footer,
        // Written and not readable: keep the copy that is at hand; the next open builds it again.
        None => Arc::new(
            Footer::open(built.into(), &segment.identity)
                .map_err(|e| Error::damaged(format!("a footer just built makes no sense: {e}")))?,
        ),
    };
    let entries = footer.entry_count();
    install(store, segment, footer);
    store.shared.tell(&Event::SegmentSealed { segment: segment.id, entries });
    Ok(())
}

/// Builds the footer anew if any part of it is wrong, on disk too. Whether it was.
pub(super) fn mend_footer(store: &Store, segment: &Segment) -> Result<bool> {
    let Some(footer) = segment.footer() else { return Ok(false) };
    if footer.is_right() {
        return Ok(false);
    }
    let built = build_footer(segment, segment.sealed_end())?;
    let view = Footer::open(built.clone().into(), &segment.identity).map_err(|e| {
        Error::damaged(format!("a footer just built makes no sense: {e}")).at(&segment.path, None)
    })?;
    segment.set_footer(Arc::new(view));
    // It is a cache: one that cannot be written is built again by whoever needs it.
    if !segment.is_lost {
        write_footer(&*store.options.vfs, &store.dir, segment.id, &built)?;
    }
    Ok(true)
}

fn install(store: &Store, segment: &Arc<Segment>, footer: Arc<Footer>) {
    segment.set_footer(footer.clone());
    let mut last = None;
    for i in 0..footer.range_count() {
        let Some(region) = footer.range(i).map(|r| r.region()) else { continue };
        if last.replace(region) == Some(region) {
            continue;
        }
        if let Some(cell) = store.table.get(region) {
            cell.write().use_footer(segment.id);
        }
    }
    segment.close_sync_handles();
}
