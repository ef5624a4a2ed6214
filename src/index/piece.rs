//! An extent, or a strip of them.

use super::extent::Extent;
use super::stretch::Stretch;
use super::strip::Strip;

/// What the list of a region's extents is made of.
#[derive(Debug)]
pub(crate) enum Piece {
    Extent(Extent),
    Strip(Box<Strip>),
}

impl Piece {
    /// The index of the first entry.
    pub(super) fn first(&self) -> u64 {
        match self {
            Piece::Extent(extent) => extent.first(),
            Piece::Strip(strip) => strip.first(),
        }
    }

    /// The index of the last entry.
    pub(super) fn last(&self) -> u64 {
        match self {
            Piece::Extent(extent) => extent.last(),
            Piece::Strip(strip) => strip.last(),
        }
    }

    /// How many extents.
    pub(super) fn len(&self) -> usize {
        match self {
            Piece::Extent(_) => 1,
            Piece::Strip(strip) => strip.len(),
        }
    }

    /// A look at the nth extent.
    pub(super) fn nth(&self, n: usize) -> Stretch<'_> {
        match self {
            Piece::Extent(extent) => extent.stretch(),
            Piece::Strip(strip) => strip.nth(n),
        }
    }

    /// All extents, in the order of their indexes.
    pub(super) fn stretches(&self) -> impl DoubleEndedIterator<Item = Stretch<'_>> {
        (0..self.len()).map(|n| self.nth(n))
    }

    /// The extent that holds `index`, which one does.
    pub(super) fn find(&self, index: u64) -> Stretch<'_> {
        match self {
            Piece::Extent(extent) => extent.stretch(),
            Piece::Strip(strip) => strip.find(index),
        }
    }

    /// Bytes on the heap beyond the piece itself.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Piece::Extent(extent) => extent.heap_bytes(),
            Piece::Strip(strip) => strip.heap_bytes(),
        }
    }

    /// Keeps the entries `first..=last`, of which there are some, and gives back the share of the others.
    pub(super) fn keep(&mut self, first: u64, last: u64) {
        match self {
            Piece::Extent(extent) => extent.keep(first, last),
            Piece::Strip(strip) => strip.keep(first, last),
        }
    }

    /// Its extents.
    pub(super) fn into_extents(self) -> Vec<Extent> {
        match self {
            Piece::Extent(extent) => vec![extent],
            Piece::Strip(strip) => strip.extents().collect(),
        }
    }
}
