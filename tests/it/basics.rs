//! The engine on a real disk, from the outside.

use crate::support::engines::small;
use crate::support::entries::refs;
use raftwood::{Durability, Engine, EntryId, ErrorKind, ReadLimit, RegionId};

fn entries(term: u64, range: std::ops::RangeInclusive<u64>) -> Vec<(EntryId, Vec<u8>)> {
    range.map(|i| (EntryId::new(term, i), format!("payload {term}/{i}").into_bytes())).collect()
}

#[test]
fn what_was_written_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..4u64 {
        let engine = small().open(dir.path()).unwrap();
        for region in 1..=10u64 {
            let r = engine.region(RegionId(region));
            assert_eq!(r.last_index(), round * 100);
            for step in 0..10 {
                let from = round * 100 + step * 10 + 1;
                let mut batch = engine.batch();
                batch
                    .region(RegionId(region))
                    .append(refs(&entries(round + 1, from..=from + 9)))
                    .unwrap()
                    .set_hard_state(format!("hs {from}").as_bytes())
                    .unwrap();
                engine.write(batch, Durability::Synced).unwrap();
            }
            let all = r.entries(.., ReadLimit::NONE).unwrap();
            assert_eq!(all.len() as u64, (round + 1) * 100);
            for (i, e) in all.iter().enumerate() {
                let index = i as u64 + 1;
                let term = (index - 1) / 100 + 1;
                assert_eq!(e.id, EntryId::new(term, index));
                assert_eq!(&e.payload[..], format!("payload {term}/{index}").as_bytes());
                assert_eq!(r.term(index).unwrap(), term);
            }
            assert_eq!(r.hard_state().unwrap(), format!("hs {}", round * 100 + 91).as_bytes());
        }
        if round % 2 == 0 {
            engine.close().unwrap();
        }
    }
}

#[test]
fn a_second_engine_is_locked_out() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path()).unwrap();
    assert_eq!(Engine::open(dir.path()).unwrap_err().kind(), ErrorKind::Locked);
    drop(engine);
    Engine::open(dir.path()).unwrap();
}
