//! What happens to the log of a node that is down.

use std::path::Path;

/// Rot wherever one of these values stands in the node's log. Returns in how many places.
pub(crate) fn harm(log: &Path, values: &[u64]) -> usize {
    let mut harmed = 0;
    for file in std::fs::read_dir(log).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|ext| ext != "log") {
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        let found: Vec<usize> = (0..bytes.len().saturating_sub(8))
            .filter(|&at| values.iter().any(|value| bytes[at..at + 8] == value.to_le_bytes()))
            .collect();
        found.iter().for_each(|&at| bytes[at + 2] ^= 0x40);
        found.iter().for_each(|&at| bytes[at + 3] ^= 0x11);
        if !found.is_empty() {
            std::fs::write(&path, bytes).unwrap();
        }
        harmed += found.len();
    }
    harmed
}
