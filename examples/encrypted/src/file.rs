//! A file whose sectors are encrypted in the file below.

use crate::Shared;
use crate::layout::{BLOCK, FRONT, Identity, SECTOR, len_above, len_below, sectors_end};
use crate::sectors::is_zero;
use raftwood::vfs::io::{read_up_to, write_parts_at};
use raftwood::vfs::{FileId, Map, Reserved, VfsFile};
use std::fmt;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How much is read or written by one call.
const PIECE: usize = 1 << 20;

/// What all handles of a file share.
///
/// Held to read while sectors are read, and to write while sectors, the length or the identity change: a
/// write of a part of a sector reads, changes and writes all of it, and must not meet another.
#[derive(Default)]
pub(crate) struct Inode(RwLock<State>);

#[derive(Clone, Copy, Default)]
enum State {
    /// Nobody has looked yet.
    #[default]
    Unread,
    /// Nothing was written to the file.
    Blank,
    Named(Identity),
}

/// An open file.
pub(crate) struct EncryptedFile {
    below: Arc<dyn VfsFile>,
    inode: Arc<Inode>,
    shared: Arc<Shared>,
}

impl fmt::Debug for EncryptedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.below.fmt(f)
    }
}

impl EncryptedFile {
    /// # Errors
    /// Of the file below; `InvalidData` if it is none of ours, or was encrypted by another key.
    pub(crate) fn new(
        below: Arc<dyn VfsFile>,
        inode: Arc<Inode>,
        shared: Arc<Shared>,
    ) -> Result<EncryptedFile> {
        let file = EncryptedFile { below, inode, shared };
        let mut state = file.changing();
        if let State::Unread = *state {
            *state = file.look()?;
        }
        drop(state);
        Ok(file)
    }

    fn reading(&self) -> RwLockReadGuard<'_, State> {
        self.inode.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn changing(&self) -> RwLockWriteGuard<'_, State> {
        self.inode.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The identity that the file has: the first copy, or else the second.
    fn look(&self) -> Result<State> {
        let mut front = vec![0; FRONT as usize];
        // A block that the device cannot read is a bad copy like any other.
        let mut unread = None;
        for (copy, at) in front.chunks_mut(BLOCK as usize).zip([0, BLOCK]) {
            if let Err(e) = read_up_to(&*self.below, copy, at) {
                copy.fill(0);
                unread = Some(e);
            }
        }
        let mut copies = front.chunks(BLOCK as usize);
        match copies.find_map(|copy| self.shared.cipher.identity_in(copy)) {
            Some(identity) => Ok(State::Named(identity)),
            None if unread.is_some() => Err(unread.unwrap_or_else(|| ErrorKind::Other.into())),
            // A crash leaves this of a file of which nothing was synced.
            None if is_zero(&front) => Ok(State::Blank),
            None => {
                let says =
                    "the file was not encrypted by this key, or both copies of its identity have rotted";
                Err(Error::new(ErrorKind::InvalidData, says))
            }
        }
    }

    /// Gives the file a new identity, durably. While that fails it has none that anything is written under.
    fn name(&self, state: &mut State) -> Result<Identity> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(Error::other)?;
        let identity = Identity(u128::from_le_bytes(random));
        let is_first = matches!(*state, State::Blank);
        *state = State::Blank;
        let block = self.shared.cipher.block_of(identity);
        write_parts_at(&*self.below, &[&block], 0)?;
        if !is_first {
            // One copy is right at any moment.
            self.below.sync_data()?;
        }
        write_parts_at(&*self.below, &[&block], BLOCK)?;
        self.below.sync_data()?;
        *state = State::Named(identity);
        Ok(identity)
    }

    fn identity(&self, state: &State) -> Option<Identity> {
        if let State::Named(identity) = state { Some(*identity) } else { None }
    }

    fn len_now(&self) -> Result<u64> {
        Ok(len_above(self.below.len()?))
    }

    /// The sectors from `first` on, decrypted; what the file does not have is zeros.
    fn sectors(&self, state: &State, first: u64, count: usize) -> Result<Vec<u8>> {
        let mut sectors = vec![0; count * SECTOR as usize];
        read_up_to(&*self.below, &mut sectors, FRONT + first * SECTOR)?;
        self.shared.cipher.decrypt(self.identity(state), first, &mut sectors)?;
        Ok(sectors)
    }

    /// Writes `bytes`, which are not empty, and makes the file as long as they reach.
    fn write(&self, state: &mut State, bytes: &[u8], offset: u64) -> Result<()> {
        let identity = match *state {
            State::Named(identity) => identity,
            _ => self.name(state)?,
        };
        let (end, len) = (offset + bytes.len() as u64, self.len_now()?);
        let (first, past) = (offset / SECTOR, end.div_ceil(SECTOR));
        let at = (offset % SECTOR) as usize;
        let mut sectors = vec![0; ((past - first) * SECTOR) as usize];
        // Of the first and the last a part may be somebody else's.
        let mut partial: Vec<u64> = Vec::new();
        partial.extend((at != 0).then_some(first));
        partial.extend((end % SECTOR != 0).then_some(past - 1));
        partial.dedup();
        for number in partial.into_iter().filter(|number| number * SECTOR < len) {
            let here = ((number - first) * SECTOR) as usize;
            // Past the end of the file stands what says its length, and nothing of a sector.
            sectors[here..here + SECTOR as usize].copy_from_slice(&self.sectors(state, number, 1)?);
        }
        sectors[at..at + bytes.len()].copy_from_slice(bytes);
        self.shared.cipher.encrypt(identity, first, &mut sectors)?;
        // The zeros after the last sector, which say the length, in the same call.
        let rest = vec![0; if end > len { (end % SECTOR) as usize } else { 0 }];
        write_parts_at(&*self.below, &[&sectors, &rest], FRONT + first * SECTOR)?;
        match end > len && self.below.len()? != len_below(end) {
            true => self.below.set_len(len_below(end)),
            false => Ok(()),
        }
    }
}

impl VfsFile for EncryptedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let state = self.reading();
        let end = self.len_now()?.min(offset.saturating_add(buf.len().min(PIECE) as u64));
        let Some(wanted) = end.checked_sub(offset).filter(|wanted| *wanted > 0) else { return Ok(0) };
        let first = offset / SECTOR;
        let count = (end.div_ceil(SECTOR) - first) as usize;
        let sectors = self.sectors(&state, first, count)?;
        let at = (offset - first * SECTOR) as usize;
        buf[..wanted as usize].copy_from_slice(&sectors[at..at + wanted as usize]);
        Ok(wanted as usize)
    }
    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<usize> {
        let mut bytes = Vec::new();
        for buf in bufs {
            let room = PIECE - bytes.len();
            bytes.extend_from_slice(&buf[..buf.len().min(room)]);
        }
        if !bytes.is_empty() {
            self.write(&mut self.changing(), &bytes, offset)?;
        }
        Ok(bytes.len())
    }
    fn allocate(&self, len: u64) -> Result<Reserved> {
        let _changing = self.changing();
        let before = self.len_now()?;
        let reserved = self.below.allocate(len_below(len.max(before)))?;
        match before < len && self.below.len()? != len_below(len) {
            true => self.below.set_len(len_below(len)).map(|()| reserved),
            false => Ok(reserved),
        }
    }
    fn set_len(&self, len: u64) -> Result<()> {
        let mut state = self.changing();
        let before = self.len_now()?;
        if len < before {
            let rest = len % SECTOR;
            if rest != 0 {
                // What is cut must not come back when the file grows again.
                let kept = self.sectors(&state, len / SECTOR, 1)?;
                if !is_zero(&kept) {
                    let mut sector = kept;
                    sector[rest as usize..].fill(0);
                    self.write(&mut state, &sector, len - rest)?;
                }
            }
            // The sectors that go, before zeros that say the length stand in their place.
            self.below.set_len(sectors_end(len))?;
        }
        self.below.set_len(len_below(len))
    }
    fn sync_data(&self) -> Result<()> {
        self.below.sync_data()
    }
    fn sync_all(&self) -> Result<()> {
        self.below.sync_all()
    }
    fn len(&self) -> Result<u64> {
        let _reading = self.reading();
        self.len_now()
    }
    fn drop_cache(&self, range: Range<u64>) -> Result<()> {
        let start = FRONT + range.start / SECTOR * SECTOR;
        self.below.drop_cache(start..start.max(len_below(range.end.min(1 << 62))))
    }
    fn map(&self, _len: u64) -> Result<Option<Arc<Map>>> {
        // A mapping would show what stands below.
        Ok(None)
    }
    fn id(&self) -> Result<Option<FileId>> {
        self.below.id()
    }
    fn begin_generation(&self) -> Result<()> {
        let mut state = self.changing();
        match *state {
            State::Named(_) => self.name(&mut state).map(drop),
            // The first write gives it one.
            _ => Ok(()),
        }
    }
}
