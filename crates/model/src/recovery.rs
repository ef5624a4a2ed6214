//! From files to a table: `src/recovery`, step by step.
//!
//! Nothing is idealised here: each function names the one of the engine that it follows, and decides by the
//! same comparisons. What it reads, it reads through the page cache, but for the end of the log past the
//! watermark, which is synced, dropped from the cache and read again (`tail::collect`).

use crate::bounds::Mask;
use crate::disk::{Bytes, Ckpt, Disk, FILES, File, Kind, Name, Pos, Rec, Shape, Side, View};
use crate::judge::Policy;
use crate::mistakes::Mistake;
use crate::table::{Batch, Indexes, Table};

/// What recovery has to know besides the disk.
#[derive(Clone, Copy)]
pub struct How<'a> {
    /// The mistake that is made.
    pub mistake: Mistake,
    /// What the caller decided.
    pub policy: Policy,
    /// Records that a segment has room for.
    pub slots: u8,
    /// What each batch does.
    pub script: &'a [Batch],
    /// The indexes in each batch.
    pub at: &'a Indexes,
    /// Payloads end in zeros.
    pub own_zeros: bool,
}

/// A record past the watermark that is kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct TailRec {
    /// The batch.
    pub batch: u8,
    /// Where it stands.
    pub original: Pos,
    /// Its entries are wrong, and may have been acknowledged.
    pub suspect: bool,
    /// What stands in place of its payload, if that is wrong: it is copied as it is.
    pub wrong: Option<View>,
}

/// Records past the watermark, at most.
pub const TAIL: usize = 5;

/// What an open has to do once the files are read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Todo {
    /// Records to be written again.
    pub tail: [TailRec; TAIL],
    /// How many.
    pub tail_len: u8,
    /// Records that show in the files are no part of the log.
    pub cut: bool,
    /// Records were dropped that may have been acknowledged.
    pub votes_lost: bool,
    /// Files of the log without a record that counts, one bit each.
    pub unused: Mask,
    /// Files of the log that nothing needs.
    pub leftovers: Mask,
    /// Checkpoints that nothing needs.
    pub old_ckpts: Mask,
    /// Checkpoints that cannot be believed.
    pub bad_ckpts: Mask,
    /// There was no checkpoint.
    pub rebuilt: bool,
    /// Nothing but what is unused shows that the run before did not end cleanly.
    pub last_witness: bool,
    /// The mark has to be made.
    pub unmarked: bool,
}

/// A store as its files show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// The regions, as of what was durable.
    pub table: Table,
    /// The files that are segments of the store, one bit each.
    pub segments: Mask,
    /// Those of them with a footer on disk.
    pub sealed: Mask,
    /// Where each ends.
    pub ends: [u8; FILES],
    /// What the next record follows.
    pub chain: Shape,
    /// The lowest number that no segment had.
    pub next_file: u8,
    /// Runs with a lower number were followed by an unclean end.
    pub unclean_before: u8,
    /// Up to three checkpoints to keep, oldest first: number, start of replay, end of what was accepted.
    pub kept: [(u8, u8, Pos); 3],
    /// How many.
    pub kept_len: u8,
    /// The number of the next checkpoint.
    pub next_seq: u8,
    /// The number of the next mark, and what the newest says.
    pub mark: (u8, Pos),
    /// The rest.
    pub todo: Todo,
    /// Rows of the decision table that were needed, one bit each.
    pub rows: u16,
}

/// Why an open was refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    /// `all_but_the_mark_is_missing`
    OnlyTheMark,
    /// `mark_is_missing`
    NoMark,
    /// A segment that is needed is missing, or another one under its name, or has no header.
    Segment,
    /// `missing_beside_its_footer`
    Footer,
    /// `acknowledged_hole`
    Hole,
    /// `tail::refused`
    LastRecord,
    /// A sector that cannot be read past the last record.
    BadSector,
    /// `whole_history`
    Gap,
    /// `check_consistent`
    Inconsistent,
    /// The records of an unsealed segment cannot be read again.
    Unsealable,
}

/// What came of reading the files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(clippy::large_enum_variant, reason = "short-lived")]
pub enum Outcome {
    /// There is no store.
    Fresh,
    /// The store is left as it is.
    Refused(Why, u16),
    /// It can be opened.
    Ready(Recovered),
}

pub(crate) enum Found {
    Record(Rec),
    BadDescription(Rec),
    Nothing,
}

pub(crate) struct Reader<'a> {
    pub(crate) how: How<'a>,
    pub(crate) rows: u16,
    pub(crate) accepted_loss: bool,
    pub(crate) assumed_torn: bool,
    pub(crate) announced: Vec<Pos>,
}

pub(crate) type Result<T> = std::result::Result<T, Why>;

/// `recovery::recover`
pub fn recover(disk: &mut Disk, how: How<'_>) -> Outcome {
    let mut reader =
        Reader { how, rows: 0, accepted_loss: false, assumed_torn: false, announced: Vec::new() };
    match reader.recover(disk) {
        Ok(Some(recovered)) => Outcome::Ready(recovered),
        Ok(None) => Outcome::Fresh,
        Err(why) => Outcome::Refused(why, reader.rows),
    }
}

impl Reader<'_> {
    pub(crate) fn makes(&self, mistake: Mistake) -> bool {
        self.how.mistake == mistake
    }

    /// `judge::refuse`
    pub(crate) fn refuse(&mut self, why: Why) -> Result<()> {
        if self.how.policy != Policy::AcceptLoss && !self.makes(Mistake::LossAlwaysAccepted) {
            return Err(why);
        }
        self.accepted_loss = true;
        Ok(())
    }

    fn recover(&mut self, disk: &mut Disk) -> Result<Option<Recovered>> {
        let marks = if disk.marks.entry.is_there() { disk.marks.cached } else { Default::default() };
        let marked = marks.iter().any(|mark| mark.seq > 0);
        // serving::choose
        let mut there: Vec<usize> =
            (0..disk.ckpts.len()).filter(|c| disk.ckpts[*c].entry.is_there()).collect();
        there.sort_by_key(|c| std::cmp::Reverse(disk.ckpts[*c].seq));
        let good = there.iter().copied().find(|c| disk.ckpts[*c].bytes != Bytes::Bad);
        let logs: Vec<(u8, usize)> = {
            let names = disk.files.iter().enumerate();
            let mut logs: Vec<(u8, usize)> = names
                .filter_map(|(f, file)| if let Name::Log(seg) = file.name() { Some((seg, f)) } else { None })
                .collect();
            logs.sort_unstable();
            logs
        };
        // Listing::highest: footers count too.
        let feet = disk.files.iter().filter(|file| file.foot.entry.is_there()).map(|file| file.header.seg);
        let highest = logs.iter().map(|(seg, _)| *seg).chain(feet).max().unwrap_or(0);
        let rebuilt = good.is_none();
        let ckpt = match good {
            Some(c) => disk.ckpts[c],
            None if there.is_empty() && logs.is_empty() => {
                return match marks.iter().any(|mark| mark.durable > Pos::ZERO) {
                    true => Err(Why::OnlyTheMark),
                    false => Ok(None),
                };
            }
            None => Ckpt { start: 1, next_file: highest + 1, ..Ckpt::default() },
        };

        let (opened, leftovers, lost) = self.open_segments(disk, &logs, &ckpt)?;
        // missing_beside_its_footer
        let gone = disk.files.iter().any(|file| {
            let seg = file.header.seg;
            file.foot.entry.is_there() && seg >= ckpt.start && !opened.iter().any(|(other, _)| *other == seg)
        });
        if gone {
            self.refuse(Why::Footer)?;
        }
        // has_mark
        let newest = there.first().map(|c| disk.ckpts[*c].seq);
        let closed = !logs.iter().any(|(seg, _)| *seg >= ckpt.start) && newest == Some(ckpt.seq);
        if !marked && !rebuilt && !closed && !self.makes(Mistake::MissingMarkUnheeded) {
            self.refuse(Why::NoMark)?;
        }
        // known_durable
        let says = marks.iter().map(|mark| mark.durable).max().unwrap_or_default();
        let known = ckpt.synced.max(if self.makes(Mistake::MarkNotBelieved) { Pos::ZERO } else { says });
        let evidence = (known, marked, rebuilt);
        let chain = self.follow(disk, &opened, lost, &ckpt, evidence)?;

        // load, replay
        let mut table = ckpt.table;
        for region in &mut table.0 {
            for entry in &mut region.entries[..region.count as usize] {
                entry.damaged |= !opened.iter().any(|(seg, _)| *seg == entry.seg);
                if self.makes(Mistake::SuspectCalledDamaged) && entry.suspect {
                    (entry.suspect, entry.damaged) = (false, true);
                }
            }
        }
        for &(seg, f) in opened.iter().filter(|(seg, _)| *seg >= ckpt.start) {
            self.replay(&disk.files[f], seg, chain.ends[f], &mut table)?;
        }
        if self.accepted_loss {
            // truncate_what_was_lost: entries past the place where the log was ended.
            for region in &mut table.0 {
                let listed = |e: &crate::table::Entry| {
                    let Some((_, f)) = opened.iter().find(|(seg, _)| *seg == e.seg) else { return true };
                    let slots = &disk.files[*f].slots[..chain.ends[*f] as usize];
                    slots.iter().any(|slot| slot.rec.kind == Kind::Batch(e.batch))
                };
                let keep = region.live().iter().position(|e| !listed(e)).unwrap_or(region.count as usize);
                for entry in &mut region.entries[keep..] {
                    *entry = Default::default();
                }
                region.count = keep as u8;
            }
        }

        // take_unused, unclean_before, to_keep
        let mut segments = 0;
        let (mut unused, mut replayed, mut log_left) = (0, false, false);
        for &(seg, f) in &opened {
            replayed |= seg >= ckpt.start;
            if chain.ends[f] == 0 && ckpt.find(seg).is_none() {
                unused |= 1 << f;
            } else {
                segments |= 1 << f;
                log_left |= seg >= ckpt.start;
            }
        }
        let newer = there.iter().any(|c| disk.ckpts[*c].seq > ckpt.seq);
        let unclean_before = match !rebuilt && !replayed && !newer {
            true => ckpt.unclean_before,
            false => ckpt.next_file.max(highest + 1),
        };
        let last_witness = (rebuilt || ckpt.unclean_before != unclean_before) && unused != 0 && !log_left;
        let mut older: Vec<u8> =
            there.iter().map(|c| disk.ckpts[*c].seq).filter(|seq| *seq < ckpt.seq).take(2).collect();
        older.reverse();
        let mut kept = [(0, 0, Pos::ZERO); 3];
        let mut kept_len = 0;
        for seq in older {
            kept[kept_len] = (seq, 0, Pos::ZERO);
            kept_len += 1;
        }
        if !rebuilt {
            kept[kept_len] = (ckpt.seq, ckpt.start, Pos::new(ckpt.start, 0));
            kept_len += 1;
        }
        let oldest = kept[0].0;
        let pick = |test: &dyn Fn(u8) -> bool| {
            there.iter().filter(|c| test(disk.ckpts[**c].seq)).fold(0, |mask, c| mask | 1 << c)
        };
        let mut todo = Todo {
            cut: chain.cut,
            votes_lost: self.assumed_torn || self.accepted_loss && self.how.mistake != Mistake::LossNotSaid,
            unused,
            leftovers,
            old_ckpts: if kept_len == 0 { 0 } else { pick(&|seq| seq < oldest) },
            bad_ckpts: pick(&|seq| seq > ckpt.seq),
            rebuilt,
            last_witness,
            unmarked: !marked,
            ..Todo::default()
        };
        if rebuilt {
            todo.bad_ckpts = pick(&|_| true);
        }
        todo.tail_len = chain.tail.len() as u8;
        todo.tail[..chain.tail.len()].copy_from_slice(&chain.tail);
        Ok(Some(Recovered {
            table,
            segments,
            sealed: chain.sealed & segments,
            ends: chain.ends,
            chain: chain.last,
            next_file: ckpt.next_file.max(highest + 1),
            unclean_before,
            kept,
            kept_len: kept_len as u8,
            next_seq: newest.unwrap_or(0).max(ckpt.seq) + 1,
            mark: (marks.iter().map(|mark| mark.seq).max().unwrap_or(0) + 1, says),
            todo,
            rows: self.rows,
        }))
    }

    /// `files::open_segments`: the segments that take part, those that are left over, and whether one is lost
    /// that the checkpoint names.
    #[allow(clippy::type_complexity, reason = "used once")]
    fn open_segments(
        &mut self,
        disk: &Disk,
        logs: &[(u8, usize)],
        ckpt: &Ckpt,
    ) -> Result<(Vec<(u8, usize)>, Mask, bool)> {
        let (mut opened, mut leftovers, mut lost) = (Vec::new(), 0, false);
        for &(seg, f) in logs {
            let named = ckpt.find(seg);
            if named.is_none() && seg < ckpt.start {
                leftovers |= 1 << f;
                continue;
            }
            let contained = named.is_some() && seg < ckpt.start;
            let file = &disk.files[f];
            let fits = file.header.seg == seg && named.is_none_or(|l| l.salt == file.header.salt);
            // recognise: by the checkpoint, or its footer.
            let known = file.header.seg == 0
                && (named.is_some() || file.foot.entry.is_there())
                && !matches!(self.look(file, 0, true), Found::Nothing);
            if fits || known {
                opened.push((seg, f));
                continue;
            }
            if !contained {
                self.refuse(Why::Segment)?;
            }
            lost = true;
        }
        for listed in ckpt.listed.iter().filter(|l| l.seg > 0) {
            if !logs.iter().any(|(seg, _)| *seg == listed.seg) {
                if listed.seg >= ckpt.start {
                    self.refuse(Why::Segment)?;
                }
                lost = true;
            }
        }
        Ok((opened, leftovers, lost))
    }

    pub(crate) fn view(&self, file: &File, at: u8, side: Side, cached: bool) -> View {
        match file.slots[at as usize].view(side, cached) {
            View::Unreadable if self.makes(Mistake::BadSectorEndsTheLog) => View::Zero,
            view => view,
        }
    }

    /// `Scanner::look`
    pub(crate) fn look(&self, file: &File, at: u8, cached: bool) -> Found {
        if at >= self.how.slots {
            return Found::Nothing;
        }
        let rec = file.slots[at as usize].rec;
        match self.view(file, at, Side::Desc, cached) {
            // One flipped bit in a header or description is undone.
            View::Right | View::Flipped => Found::Record(rec),
            View::DescWrong if self.makes(Mistake::DescriptionNotVerified) => Found::Record(rec),
            View::DescWrong => Found::BadDescription(rec),
            _ => Found::Nothing,
        }
    }

    pub(crate) fn listen(&mut self, file: &File, rec: &Rec) {
        if rec.kind == Kind::Announcement {
            self.announced.extend(file.announced.iter().filter(|pos| **pos > Pos::ZERO));
        }
    }

    /// `recovery::replay`, with the footer that the segment has or is given now.
    fn replay(&mut self, file: &File, seg: u8, end: u8, table: &mut Table) -> Result<()> {
        let mut first = None;
        let before = table.0.map(|region| region.touched);
        for at in 0..end {
            let slot = &file.slots[at as usize];
            if !file.foot.entry.is_there() && !matches!(self.look(file, at, true), Found::Record(_)) {
                return Err(Why::Unsealable);
            }
            let Kind::Batch(batch) = slot.rec.kind else { continue };
            let ops = self.how.script[usize::from(batch) - 1];
            for (n, region) in table.0.iter_mut().enumerate() {
                if ops[n] == crate::table::Op::Leave || before[n] > seg {
                    continue;
                }
                if *first.get_or_insert(n) != n && self.how.mistake == Mistake::OnlyFirstRegionReplayed {
                    continue;
                }
                let index = self.how.at[usize::from(batch) - 1][n];
                // What rot made of a description that nobody verifies: another batch.
                let unverified =
                    slot.view(Side::Desc, true) == View::DescWrong && !file.foot.entry.is_there();
                let said = if unverified { batch % 7 + 1 } else { batch };
                if !region.replay(ops[n], index, said, seg, self.how.mistake) {
                    return Err(Why::Inconsistent);
                }
            }
        }
        Ok(())
    }
}
