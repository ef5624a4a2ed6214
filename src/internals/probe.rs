//! Steps of upkeep, one at a time, and what must hold after them.

use crate::engine::Engine;
use crate::error::Result as EngineResult;
use crate::format::file_header::SegmentKind;
use crate::format::names::FileName;
use crate::report::PurgeReport;
use crate::upkeep::{Pace, clean_once};

/// Writes a checkpoint.
///
/// # Errors
/// Of the engine.
pub fn checkpoint(engine: &Engine) -> EngineResult<()> {
    let store = engine.store();
    let _one = store.turns.upkeep.lock();
    Ok(store.checkpoints.take()?)
}

/// Cleans one segment's worth, whether that is due or not. False if there was nothing to move.
///
/// # Errors
/// Of the engine.
pub fn clean(engine: &Engine) -> EngineResult<bool> {
    let mut pace = Pace::new(0, &engine.store().pauses);
    Ok(clean_once(engine.store(), &mut PurgeReport::default(), &mut pace)?)
}

/// Every file of those that are there is one that the engine knows of, and no segment is kept for nothing.
/// Meaningful after a purge.
///
/// # Errors
/// Names the files.
pub fn leaks(engine: &Engine, mut names: Vec<String>) -> Result<(), String> {
    let store = engine.store();
    let active = store.committer.active().map(|(active, _)| active.id);
    let sealed = store.segments.all();
    let dead = sealed.iter().find(|s| Some(s.id) != active && s.live.entries() == 0);
    if let Some(dead) = dead {
        return Err(format!("{} holds nothing and is kept after a purge", dead.path.display()));
    }
    let logs = sealed.iter().filter(|s| s.kind == SegmentKind::Log && Some(s.id) != active).count();
    let colds = sealed.iter().filter(|s| s.kind == SegmentKind::Cold).count();
    let mut left = [
        ("log", logs + usize::from(active.is_some()) + store.committer.ready_count()),
        ("cold", colds),
        ("ckpt", store.checkpoints.kept().list.len()),
        ("free", store.factory.free.count() + store.factory.free.reserve_count()),
        ("foot", sealed.len()),
        ("tmp", 0),
    ];
    names.sort();
    for path in &names {
        let name = path.rsplit('/').next().unwrap_or_default();
        match FileName::parse(name) {
            Some(FileName::Lock) => continue,
            Some(FileName::Footer(id)) if !sealed.iter().any(|s| s.id == id) => {
                return Err(format!("{path} is the footer of no segment"));
            }
            Some(FileName::Log(id) | FileName::Cold(id)) if id >= store.factory.next_file() => {
                return Err(format!("{path} has a number that will be given again"));
            }
            // There from the first moment at rest on.
            Some(FileName::Mark) => continue,
            _ => {}
        }
        let kind = name.rsplit('.').next().unwrap_or_default();
        match left.iter_mut().find(|(k, _)| *k == kind) {
            Some((_, n)) if *n > 0 => *n -= 1,
            _ => {
                return Err(format!(
                    "{path} is a file that the engine does not know of; all files: {names:?}"
                ));
            }
        }
    }
    if left.iter().any(|(k, n)| *n > 0 && *k != "foot") {
        return Err(format!("files that the engine knows of are not there: {left:?}; all files: {names:?}"));
    }
    Ok(())
}
