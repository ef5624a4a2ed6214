//! Wipes what stands twice in a store, so that what is harmed next is all that there was.

use std::fs;
use std::path::Path;

/// Zeros over the copies of descriptions, in the logs and in the mark.
pub(crate) fn wipe(store: &Path) {
    for file in fs::read_dir(store).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if path.ends_with("MARK") {
            [0, 4096].into_iter().for_each(|slot| bytes[slot + 256..slot + 4096].fill(0));
        } else if path.extension().is_some_and(|e| e == "log") {
            wipe_records(&mut bytes);
        } else {
            continue;
        }
        fs::write(&path, bytes).unwrap();
    }
}

/// A record: a header of 64 bytes with its kind at 28 (5: copies), a description, payloads.
fn wipe_records(log: &mut [u8]) {
    let mut at = 4096;
    while log[at..at + 4] == [0xd7, b'r', b'e', b'c'] {
        let word =
            |from: usize| u32::from_le_bytes(log[at + from..at + from + 4].try_into().unwrap()) as usize;
        let (description, payload) = (word(16), word(20));
        if log[at + 28] == 5 {
            log[at + 64..at + 64 + description].fill(0);
        }
        at += (64 + description + payload).next_multiple_of(8);
    }
}
