//! The end of the log past the watermark: `src/recovery/tail.rs`.

use crate::disk::{File, Kind, Pos, Rec, Side, View};
use crate::judge::{Facts, RecordIs, Verdict, judge};
use crate::mistakes::Mistake;
use crate::recovery::{Found, Reader, Result, TailRec, Why};
use crate::table::has_payload;

impl Reader<'_> {
    /// `tail::collect`
    pub(crate) fn collect(
        &mut self,
        file: &mut File,
        seg: u8,
        from: u8,
        until: u8,
        tail: &mut Vec<TailRec>,
    ) -> Result<bool> {
        file.sync();
        file.drop_cache(from, until);
        for at in from..until {
            let verdict = match self.look(file, at, true) {
                Found::Record(rec) => {
                    let verdict = self.weigh(file, seg, at, &rec);
                    if let (Verdict::Keep | Verdict::Fence, Kind::Batch(batch)) = (verdict, rec.kind) {
                        let suspect = verdict == Verdict::Fence;
                        let has = has_payload(self.how.script[usize::from(batch) - 1]);
                        let wrong = match file.slots[at as usize].view(Side::Payload, true) {
                            View::Right => None,
                            View::Old | View::Unreadable => Some(View::Garbage),
                            view => Some(view),
                        };
                        let original = Pos::new(seg, at);
                        tail.push(TailRec { batch, original, suspect, wrong: wrong.filter(|_| has) });
                    }
                    verdict
                }
                _ => self.unreadable(file, seg, at),
            };
            match verdict {
                Verdict::Keep | Verdict::Fence => {}
                Verdict::Torn => return Ok(false),
                Verdict::Lose => {
                    self.assumed_torn = true;
                    return Ok(false);
                }
                Verdict::Refuse => return Err(Why::LastRecord),
            }
        }
        Ok(true)
    }

    /// `tail::ends_clearly`
    pub(crate) fn ends_clearly(&mut self, file: &File, seg: u8, at: u8) -> Result<bool> {
        if at >= self.how.slots || matches!(self.look(file, at, true), Found::Record(_)) {
            return Ok(true);
        }
        match self.unreadable(file, seg, at) {
            Verdict::Refuse => Err(Why::LastRecord),
            Verdict::Lose => {
                self.assumed_torn = true;
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    fn was_whole(&self, seg: u8, at: u8) -> bool {
        self.announced.contains(&Pos::new(seg, at)) && !self.makes(Mistake::AnnouncementUnheeded)
    }

    fn judge(&mut self, record: RecordIs, tear: bool, stale: bool, rot: bool) -> Verdict {
        let (verdict, row) = judge(Facts { record, tear, stale, rot, policy: self.how.policy });
        self.rows |= 1 << row;
        verdict
    }

    /// `tail::weigh`
    fn weigh(&mut self, file: &File, seg: u8, at: u8, rec: &Rec) -> Verdict {
        let Kind::Batch(batch) = rec.kind else { return Verdict::Keep };
        let once_whole = self.was_whole(seg, at);
        let view = match has_payload(self.how.script[usize::from(batch) - 1]) {
            true => self.view(file, at, Side::Payload, true),
            false => View::Right,
        };
        if view == View::Right || self.makes(Mistake::TailNotVerified) {
            return self.judge(RecordIs::Right, false, false, false);
        }
        let rot = view == View::Flipped;
        let own = self.makes(Mistake::OwnZerosTakenForTear) && self.how.own_zeros;
        let tear = !once_whole && !rot && (view == View::Zero || own && view == View::Garbage);
        let stale = file.header.stale && view != View::Unreadable && !once_whole;
        self.judge(RecordIs::WrongInPayload, tear, stale, rot)
    }

    /// `tail::unreadable`
    fn unreadable(&mut self, file: &File, seg: u8, at: u8) -> Verdict {
        let once_whole = self.was_whole(seg, at);
        let view = self.view(file, at, Side::Desc, true);
        let tear = view == View::Zero && !once_whole;
        let stale = file.header.stale && view != View::Unreadable && !once_whole;
        self.judge(RecordIs::Unreadable, tear, stale, false)
    }
}
