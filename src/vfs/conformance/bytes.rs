//! Reads, writes, lengths, reservations, mappings.

use super::{Bench, Check, Checked, Verdict, done, file, holds, name_holds, pattern, write};
use crate::random::Rng;
use crate::vfs::{OpenMode, VfsDir, VfsFile, io};
use std::io::{ErrorKind, IoSlice};
use std::thread;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "a_read_at_the_end_gives_nothing",
        promise: "read_at gives up to the bytes asked for, 0 at the end of the file",
        run: a_read_at_the_end_gives_nothing,
    },
    Check {
        name: "a_new_file_is_empty",
        promise: "len is the length in bytes, is_empty whether the file has none",
        run: a_new_file_is_empty,
    },
    Check {
        name: "a_write_takes_a_prefix",
        promise: "write_at writes a prefix of the concatenated slices and returns its length",
        run: a_write_takes_a_prefix,
    },
    Check {
        name: "unwritten_bytes_are_zeros",
        promise: "bytes below the length that were never written read as zeros",
        run: unwritten_bytes_are_zeros,
    },
    Check {
        name: "a_length_cuts_or_extends_with_zeros",
        promise: "set_len cuts or extends the file; what was cut does not come back",
        run: a_length_cuts_or_extends_with_zeros,
    },
    Check {
        name: "a_reservation_changes_no_byte",
        promise: "allocate makes the file at least that long, with zeros, and changes no byte",
        run: a_reservation_changes_no_byte,
    },
    Check {
        name: "every_handle_sees_what_was_written",
        promise: "bytes written are visible to every later read of the file, through any handle",
        run: every_handle_sees_what_was_written,
    },
    Check {
        name: "writes_at_any_offset_leave_their_neighbours",
        promise: "bytes written are visible to every later read, and no others change",
        run: writes_at_any_offset_leave_their_neighbours,
    },
    Check {
        name: "writers_of_neighbouring_bytes_keep_apart",
        promise: "bytes written are visible to every later read, whatever other threads write beside them",
        run: writers_of_neighbouring_bytes_keep_apart,
    },
    Check {
        name: "a_sync_changes_nothing",
        promise: "sync_data and sync_all make bytes durable, through any handle",
        run: a_sync_changes_nothing,
    },
    Check {
        name: "a_dropped_cache_loses_nothing",
        promise: "drop_cache forgets clean cached pages; it is advisory",
        run: a_dropped_cache_loses_nothing,
    },
    Check {
        name: "a_generation_begins_in_place",
        promise: "begin_generation keeps the length, and what is written after it is read, through any handle",
        run: a_generation_begins_in_place,
    },
    Check {
        name: "a_mapping_shows_what_was_written",
        promise: "map gives a mapping of 0..len of the file that it was called on, or None",
        run: a_mapping_shows_what_was_written,
    },
];

fn a_new_file_is_empty(_: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    let file = file(dir, "f", b"")?;
    holds("a new file", &*file, b"")?;
    if !done("is_empty", file.is_empty())? {
        return Err("is_empty of a new file is false".into());
    }
    write(&*file, b"1", 0)?;
    if done("is_empty", file.is_empty())? {
        return Err("is_empty of a file with a byte is true".into());
    }
    Ok(Verdict::Held)
}

fn a_read_at_the_end_gives_nothing(_: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    let content = pattern(1, 1_000);
    let file = file(dir, "f", &content)?;
    for (offset, len) in [(1_000, 10), (1_001, 10), (1_024, 512), (5_000, 5_000), (1 << 40, 1), (3, 0)] {
        let read = done("read_at", io::read_up_to(&*file, &mut vec![0; len], offset))?;
        if read != 0 {
            return Err(format!("a read of {len} bytes at {offset} of a file of 1000 gave {read}, not 0"));
        }
    }
    for offset in [0, 1, 300, 511, 512, 513, 999] {
        let mut found = vec![0; 2_000];
        let read = done("read_at", io::read_up_to(&*file, &mut found, offset as u64))?;
        if found[..read] != content[offset..] {
            return Err(format!(
                "a read at {offset} of a file of 1000 gave {read} bytes, or others than its rest"
            ));
        }
        if found[read..].iter().any(|b| *b != 0) {
            return Err(format!(
                "a read at {offset} changed the buffer beyond the {read} bytes that it gave"
            ));
        }
    }
    Ok(Verdict::Held)
}

fn a_write_takes_a_prefix(_: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    let file = file(dir, "f", b"")?;
    let slices = [pattern(1, 700), Vec::new(), pattern(2, 1), pattern(3, 5_000)];
    let all = slices.concat();
    let slices: Vec<IoSlice<'_>> = slices.iter().map(|s| IoSlice::new(s)).collect();
    let taken = done("write_at", write_once(&*file, &slices, 0))?;
    if taken == 0 || taken > all.len() {
        return Err(format!("a write of {} bytes in 4 slices says that it took {taken}", all.len()));
    }
    holds("a file after one write_at of several slices", &*file, &all[..taken])?;
    let taken_of_nothing = done("write_at", write_once(&*file, &[], 1 << 20))?;
    if taken_of_nothing != 0 {
        return Err(format!("a write of no slices says that it took {taken_of_nothing} bytes"));
    }
    holds("a file after a write of no slices past its end", &*file, &all[..taken])?;
    Ok(Verdict::Held)
}

/// One call that was not interrupted.
fn write_once(file: &dyn VfsFile, slices: &[IoSlice<'_>], offset: u64) -> std::io::Result<usize> {
    loop {
        match file.write_at(slices, offset) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            taken => return taken,
        }
    }
}

fn unwritten_bytes_are_zeros(_: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    let file = file(dir, "f", b"")?;
    write(&*file, b"far", 70_001)?;
    write(&*file, b"near", 10_000)?;
    let mut expected = vec![0; 70_004];
    expected[70_001..].copy_from_slice(b"far");
    expected[10_000..10_004].copy_from_slice(b"near");
    holds("a file that was written at 10000 and 70001", &*file, &expected)?;
    Ok(Verdict::Held)
}

fn a_length_cuts_or_extends_with_zeros(_: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    let file = file(dir, "f", &pattern(1, 20_000))?;
    let mut expected = pattern(1, 20_000);
    for len in [12_345, 30_000, 30_000, 12_288, 12_800, 1, 4_097, 0, 700] {
        expected.resize(len, 0);
        done("set_len", file.set_len(len as u64))?;
        holds(&format!("a file after set_len({len})"), &*file, &expected)?;
    }
    Ok(Verdict::Held)
}

fn a_reservation_changes_no_byte(_: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    let file = file(dir, "f", &pattern(1, 5_001))?;
    let mut expected = pattern(1, 5_001);
    // A longer file, a shorter one, the same, nothing.
    for len in [100_003, 4_096, 100_003, 0, 200_704] {
        done("allocate", file.allocate(len as u64))?;
        expected.resize(expected.len().max(len), 0);
        holds(&format!("a file after allocate({len})"), &*file, &expected)?;
    }
    write(&*file, &pattern(2, 3_000), 50_001)?;
    expected[50_001..53_001].copy_from_slice(&pattern(2, 3_000));
    holds("a reserved file that was written at 50001", &*file, &expected)?;
    Ok(Verdict::Held)
}

fn every_handle_sees_what_was_written(_: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    let first = file(dir, "f", &pattern(1, 2_000))?;
    let reader = done("open", dir.open("f", OpenMode::Read))?;
    let second = done("open", dir.open("f", OpenMode::ReadWrite))?;
    let mut expected = pattern(1, 2_000);
    for (i, writer) in [&first, &second, &first, &second].into_iter().enumerate() {
        let (at, bytes) = (i * 600 + 300, pattern(10 + i as u8, 900));
        expected.resize(expected.len().max(at + 900), 0);
        expected[at..at + 900].copy_from_slice(&bytes);
        write(&**writer, &bytes, at as u64)?;
        for handle in [&reader, &first, &second] {
            holds(&format!("a file after write {i}, by each handle"), &**handle, &expected)?;
        }
    }
    done("set_len", second.set_len(77))?;
    for handle in [&reader, &first] {
        holds("a file that another handle cut", &**handle, &expected[..77])?;
    }
    Ok(Verdict::Held)
}

fn writes_at_any_offset_leave_their_neighbours(_: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    let file = file(dir, "f", b"")?;
    let (mut rng, mut expected) = (Rng::new(7), Vec::new());
    for step in 0..150u8 {
        let (at, len) = (rng.below(20_000) as usize, rng.below(3_000) as usize);
        let what = match rng.below(8) {
            0 => {
                expected.resize(at, 0);
                done("set_len", file.set_len(at as u64))?;
                format!("set_len({at})")
            }
            1 => {
                expected.resize(expected.len().max(at), 0);
                done("allocate", file.allocate(at as u64))?;
                format!("allocate({at})")
            }
            // A file of zeros is a file of unwritten bytes, to some.
            kind => {
                let bytes = if kind == 2 { vec![0; len] } else { pattern(step, len) };
                if len > 0 {
                    expected.resize(expected.len().max(at + len), 0);
                    expected[at..at + len].copy_from_slice(&bytes);
                }
                let (a, b) = bytes.split_at(rng.below(len as u64 + 1) as usize);
                let (b, c) = b.split_at(b.len() / 2);
                done("write_at", io::write_parts_at(&*file, &[a, b, c], at as u64))?;
                format!("a write of {len} bytes at {at}")
            }
        };
        holds(&format!("a file after step {step}, {what}"), &*file, &expected)?;
    }
    Ok(Verdict::Held)
}

fn writers_of_neighbouring_bytes_keep_apart(_: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    const PIECE: usize = 100;
    const PIECES: usize = 400;
    let file = file(dir, "f", b"")?;
    let expected = pattern(1, PIECE * PIECES);
    let write_every_other = |file: &dyn VfsFile, first: usize| -> Result<(), String> {
        for at in (first..PIECES).step_by(2).map(|i| i * PIECE) {
            write(file, &expected[at..at + PIECE], at as u64)?;
        }
        Ok(())
    };
    let other = done("open", dir.open("f", OpenMode::ReadWrite))?;
    let (even, odd) = thread::scope(|scope| {
        let odd = scope.spawn(|| write_every_other(&*other, 1));
        (write_every_other(&*file, 0), odd.join())
    });
    even?;
    odd.map_err(|_| "a call of the implementation panicked".to_string())??;
    holds("a file of which two threads, by two handles, wrote every other 100 bytes", &*file, &expected)?;
    Ok(Verdict::Held)
}

fn a_sync_changes_nothing(_: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    let file = file(dir, "f", &pattern(1, 1_300))?;
    let other = done("open", dir.open("f", OpenMode::ReadWrite))?;
    done("sync_data", file.sync_data())?;
    done("sync_data of a clean file", file.sync_data())?;
    done("sync_data by another handle", other.sync_data())?;
    done("sync_all", file.sync_all())?;
    done("sync_data by a handle for reading", done("open", dir.open("f", OpenMode::Read))?.sync_data())?;
    holds("a file that was synced", &*file, &pattern(1, 1_300))?;
    Ok(Verdict::Held)
}

fn a_dropped_cache_loses_nothing(_: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    let file = file(dir, "f", &pattern(1, 20_000))?;
    done("sync_data", file.sync_data())?;
    let mut expected = pattern(1, 20_000);
    expected[9_000..9_003].copy_from_slice(b"new");
    write(&*file, b"new", 9_000)?;
    for range in [0..20_000, 100..100, 4_096..8_192, 1..9_001, 0..1 << 30, 50_000..60_000] {
        done("drop_cache", file.drop_cache(range.clone()))?;
        holds(&format!("a file after drop_cache({range:?})"), &*file, &expected)?;
    }
    Ok(Verdict::Held)
}

fn a_generation_begins_in_place(_: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    let file = file(dir, "f", &pattern(1, 9_000))?;
    let other = done("open", dir.open("f", OpenMode::ReadWrite))?;
    for seed in [2, 3] {
        done("begin_generation", file.begin_generation())?;
        let len = done("len", file.len())?;
        if len != 9_000 {
            return Err(format!("len of a file of 9000 bytes is {len} after begin_generation"));
        }
        // A write of a part leaves open what stands beside it, and a write of all nothing.
        write(&*other, &pattern(seed, 100), 5_000)?;
        let mut found = vec![0; 100];
        done("read_at", io::read_exact_at(&*file, &mut found, 5_000))?;
        if found != pattern(seed, 100) {
            return Err(
                "bytes written after begin_generation, by another handle, are not what is read".into()
            );
        }
        write(&*file, &pattern(seed, 9_000), 0)?;
        holds("a file that was written over after begin_generation", &*other, &pattern(seed, 9_000))?;
        name_holds(dir, "f", &pattern(seed, 9_000))?;
    }
    Ok(Verdict::Held)
}

fn a_mapping_shows_what_was_written(_: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    let content = pattern(1, 10_001);
    let file = file(dir, "f", &content)?;
    let Some(map) = done("map", file.map(10_001))? else {
        return Ok(Verdict::Skipped("the file system has no mappings".into()));
    };
    let found = map.read(0..map.len()).unwrap_or_default();
    if found.len() != content.len() {
        return Err(format!("a mapping of 10001 bytes has {}", found.len()));
    }
    match content.iter().zip(found).position(|(expected, found)| expected != found) {
        None => Ok(Verdict::Held),
        Some(at) => {
            Err(format!("byte {at} of a mapping is {:#04x}, not {:#04x} as written", found[at], content[at]))
        }
    }
}
