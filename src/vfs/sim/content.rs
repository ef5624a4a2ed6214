//! The bytes of one file, copied only where they are changed.
//!
//! Pages of 4 KiB behind counted pointers, under one counted list: a copy of a file costs one
//! count, the first change after it a copy of the list, and every changed page a copy of that page.
//! This is what makes a crash cheap.

use crate::limits::{PAGE, SECTOR};
use std::ops::Range;
use std::sync::Arc;

/// The bytes of one sector; `None` is zeros.
pub(super) type SectorBytes = Option<Arc<[u8; SECTOR as usize]>>;

#[derive(Clone, Debug)]
enum Page {
    /// Not allocated; reads as zeros.
    Hole,
    /// Allocated, and all zeros: pre-written files cost no memory.
    Zero,
    Data(Arc<[u8; PAGE as usize]>),
}

/// The bytes and the length of a file, and which of its pages are allocated.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    len: u64,
    /// Pages past the end of the list are holes.
    pages: Arc<Vec<Page>>,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Copies what there is at `offset` and returns how much that was.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let n = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        self.read_raw(&mut buf[..n], offset);
        n
    }

    /// Copies without regard to the length.
    fn read_raw(&self, buf: &mut [u8], offset: u64) {
        for (page, within, part) in pieces(offset, buf.len()) {
            match self.pages.get(page) {
                Some(Page::Data(bytes)) => buf[part].copy_from_slice(&bytes[within]),
                _ => buf[part].fill(0),
            }
        }
    }

    /// Writes the bytes, and makes the file longer if they end past it.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        self.write_raw(bytes, offset);
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    fn write_raw(&mut self, bytes: &[u8], offset: u64) {
        let pages = self.grow(offset + bytes.len() as u64);
        for (page, within, part) in pieces(offset, bytes.len()) {
            write_page(&mut pages[page], within, &bytes[part]);
        }
    }

    /// The sector's bytes, also past the end of the file.
    pub(super) fn sector(&self, sector: u64) -> SectorBytes {
        let mut bytes = [0; SECTOR as usize];
        self.read_raw(&mut bytes, sector * SECTOR);
        if is_zero(&bytes) { None } else { Some(Arc::new(bytes)) }
    }

    /// Replaces the sector's bytes; the length stays.
    pub(super) fn put_sector(&mut self, sector: u64, bytes: &SectorBytes) {
        match bytes {
            Some(bytes) => self.write_raw(&bytes[..], sector * SECTOR),
            None => self.write_raw(&[0; SECTOR as usize], sector * SECTOR),
        }
    }

    /// Takes over the bytes of one page of another content. What is allocated stays allocated.
    pub(super) fn take_page(&mut self, page: u64, other: &Content) {
        let new = other.pages.get(page as usize).cloned().unwrap_or(Page::Hole);
        let old = &mut self.grow((page + 1) * PAGE)[page as usize];
        *old = match (&old, new) {
            (Page::Zero | Page::Data(_), Page::Hole) => Page::Zero,
            (_, new) => new,
        };
    }

    /// Cuts or extends; what is cut reads as zeros should the file grow again.
    pub(super) fn set_len(&mut self, len: u64) {
        self.len = len;
        self.trim();
    }

    /// Zeroes and releases what lies past the end.
    pub(super) fn trim(&mut self) {
        let kept = self.len.div_ceil(PAGE) as usize;
        if self.pages.len() > kept {
            Arc::make_mut(&mut self.pages).truncate(kept);
        }
        let within = (self.len % PAGE) as usize;
        let tail_is_data = |p: &Page| matches!(p, Page::Data(bytes) if !is_zero(&bytes[within..]));
        if within != 0 && self.pages.get(kept - 1).is_some_and(tail_is_data) {
            let pages = Arc::make_mut(&mut self.pages);
            write_page(&mut pages[kept - 1], within..PAGE as usize, &[0; PAGE as usize][within..]);
        }
    }

    /// Allocates `0..len`, and makes the file at least that long.
    pub(super) fn allocate(&mut self, len: u64) {
        for page in &mut self.grow(len)[..len.div_ceil(PAGE) as usize] {
            if matches!(page, Page::Hole) {
                *page = Page::Zero;
            }
        }
        self.len = self.len.max(len);
    }

    /// Bytes allocated.
    pub(super) fn allocated(&self) -> u64 {
        self.pages.iter().filter(|p| !matches!(p, Page::Hole)).count() as u64 * PAGE
    }

    /// How many bytes at `offset` can be written with only `room` bytes left to allocate.
    pub(super) fn fitting(&self, offset: u64, len: u64, room: u64) -> u64 {
        let mut pages_left = room / PAGE;
        let mut at = offset;
        while at < offset + len {
            if matches!(self.pages.get((at / PAGE) as usize), None | Some(Page::Hole)) {
                if pages_left == 0 {
                    break;
                }
                pages_left -= 1;
            }
            at = (at / PAGE + 1) * PAGE;
        }
        at.min(offset + len) - offset
    }

    fn grow(&mut self, len: u64) -> &mut Vec<Page> {
        let pages = Arc::make_mut(&mut self.pages);
        let wanted = len.div_ceil(PAGE) as usize;
        if pages.len() < wanted {
            pages.resize(wanted, Page::Hole);
        }
        pages
    }
}

fn write_page(page: &mut Page, within: Range<usize>, bytes: &[u8]) {
    if (within.len() == PAGE as usize || !matches!(page, Page::Data(_))) && is_zero(bytes) {
        *page = Page::Zero;
        return;
    }
    match page {
        Page::Data(old) => Arc::make_mut(old)[within].copy_from_slice(bytes),
        _ => {
            let mut new = [0; PAGE as usize];
            new[within].copy_from_slice(bytes);
            *page = Page::Data(Arc::new(new));
        }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    // A comparison of slices is one memcmp; nothing here is longer than a page.
    static ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];
    bytes == &ZEROS[..bytes.len()]
}

/// Cuts `len` bytes at `offset` at page boundaries: the page, the range within it, and the range
/// within the bytes.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (usize, Range<usize>, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % PAGE) as usize;
        let n = (len - done).min(PAGE as usize - within);
        let part = done..done + n;
        done += n;
        Some(((at / PAGE) as usize, within..within + n, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(content: &Content) -> Vec<u8> {
        let mut bytes = vec![9; content.len() as usize];
        assert_eq!(content.read(&mut bytes, 0), bytes.len());
        bytes
    }

    /// Every operation, at random, against a plain vector.
    #[test]
    fn it_behaves_like_a_vector_of_bytes() {
        let mut rng = crate::random::Rng::at(7);
        let mut content = Content::default();
        let mut model: Vec<u8> = Vec::new();
        for _ in 0..4000 {
            let offset = rng.below(20_000) as usize;
            let n = rng.below(9_000) as usize;
            let old = (content.clone(), model.clone());
            match rng.below(6) {
                0 | 1 => {
                    let byte = rng.below(3) as u8;
                    if n > 0 {
                        model.resize(model.len().max(offset + n), 0);
                        model[offset..offset + n].fill(byte);
                        content.write(&vec![byte; n], offset as u64);
                    }
                }
                2 => {
                    model.resize(offset, 0);
                    content.set_len(offset as u64);
                }
                3 => {
                    model.resize(model.len().max(n), 0);
                    content.allocate(n as u64);
                    assert!(content.allocated() >= n as u64);
                }
                _ => {
                    if let Some(sector) = model.chunks_exact_mut(SECTOR as usize).next() {
                        sector.fill(5);
                        content.put_sector(0, &Some(Arc::new([5; SECTOR as usize])));
                        assert_eq!(content.sector(0).unwrap()[0], 5);
                    }
                }
            }
            assert_eq!(bytes_of(&content), model);
            assert_eq!(bytes_of(&old.0), old.1, "the copy changed too");
        }
    }

    #[test]
    fn room_counts_only_pages_that_are_not_allocated() {
        let mut content = Content::default();
        content.allocate(PAGE);
        assert_eq!(content.fitting(0, PAGE, 0), PAGE);
        assert_eq!(content.fitting(100, 2 * PAGE, 0), PAGE - 100);
        assert_eq!(content.fitting(100, 2 * PAGE, PAGE), 2 * PAGE - 100);
        assert_eq!(content.fitting(PAGE, 1, PAGE - 1), 0);
        assert_eq!(content.fitting(0, 0, 0), 0);
    }
}
