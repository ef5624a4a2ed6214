//! Torn, damaged, or neither: the one place that decides.
//!
//! Only records past the watermark come to the table. Whatever lies before it was acknowledged, and wrong
//! bytes there are damage without any question (see [`refuse`]); whatever lies past it may have been
//! acknowledged just before the crash, or may never have reached the disk whole. What sets them apart is
//! evidence: a torn write leaves sectors as they were before it.
//!
//! | the record                  | torn, visibly | old bytes possible | one flip explains it | policy     | verdict |
//! |-----------------------------|---------------|--------------------|----------------------|------------|---------|
//! | all right                   | -             | -                  | -                    | -          | Keep    |
//! | payloads wrong              | yes           | -                  | -                    | -          | Torn    |
//! | payloads wrong              | no            | yes                | no                   | -          | Torn    |
//! | payloads wrong              | no            | yes                | yes                  | Prove      | Fence   |
//! | payloads wrong              | no            | no                 | -                    | Prove      | Fence   |
//! | payloads wrong              | no            | yes                | yes                  | AcceptLoss | Fence   |
//! | payloads wrong              | no            | no                 | -                    | AcceptLoss | Fence   |
//! | payloads wrong              | no            | yes                | yes                  | AssumeTorn | Lose    |
//! | payloads wrong              | no            | no                 | -                    | AssumeTorn | Lose    |
//! | header or description wrong | yes           | -                  | -                    | -          | Torn    |
//! | header or description wrong | no            | yes                | -                    | -          | Torn    |
//! | header or description wrong | no            | no                 | -                    | Prove      | Refuse  |
//! | header or description wrong | no            | no                 | -                    | AssumeTorn | Lose    |
//! | header or description wrong | no            | no                 | -                    | AcceptLoss | Lose    |
//!
//! A record that an unfinished copy announces was whole once: it is not torn, and no old bytes are
//! possible in it.
//!
//! Visibly torn: more of its sectors are zero than the record says it has of itself, or it ends in more
//! zeros, with nothing after them, or it would go beyond the end of the file; and no single flip in a
//! sector that was written explains it. Old bytes are possible in a recycled file: there a sector that was
//! not written shows its older generation. One flip: flipping one bit back makes the payload match, which
//! no sector of other bytes does.

use super::Unrecovered;
use crate::options::{Options, TailPolicy};
use crate::planted::{Bug, planted};
use crate::report::{OpenReport, RecordState, Verdict};

/// What is known of a record past the watermark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    pub(super) record: RecordState,
    pub(super) tear: bool,
    pub(super) stale: bool,
    pub(super) rot: bool,
    pub(super) policy: TailPolicy,
}

/// Decides.
pub(super) fn judge(facts: Facts) -> Verdict {
    let proven = match facts.record {
        RecordState::Right => Verdict::Keep,
        _ if facts.tear => Verdict::Torn,
        RecordState::WrongInPayload if facts.stale && !facts.rot => Verdict::Torn,
        RecordState::WrongInPayload => Verdict::Fence,
        RecordState::Unreadable if facts.stale => Verdict::Torn,
        RecordState::Unreadable => Verdict::Refuse,
    };
    match (proven, facts.policy) {
        (Verdict::Fence | Verdict::Refuse, TailPolicy::AssumeTorn) => Verdict::Lose,
        (Verdict::Refuse, TailPolicy::AcceptLoss) => Verdict::Lose,
        (verdict, _) => verdict,
    }
}

/// Damage that was acknowledged and cannot be tied to regions: open ends here, unless the caller accepted the
/// loss. Then the log ends before it.
pub(super) fn refuse(
    why: Unrecovered,
    options: &Options,
    report: &mut OpenReport,
) -> Result<(), Unrecovered> {
    if options.tail_policy != TailPolicy::AcceptLoss && !planted(Bug::LossAlwaysAccepted) {
        return Err(why);
    }
    report.accepted_loss = true;
    report.damage.push(why.into());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use RecordState::*;
    use TailPolicy::*;
    use Verdict::*;

    /// The rows of the table above; `None` stands for "-".
    struct Row(RecordState, Option<bool>, Option<bool>, Option<bool>, Option<TailPolicy>, Verdict);
    const YES: Option<bool> = Some(true);
    const NO: Option<bool> = Some(false);
    const TABLE: [Row; 14] = [
        Row(Right, None, None, None, None, Keep),
        Row(WrongInPayload, YES, None, None, None, Torn),
        Row(WrongInPayload, NO, YES, NO, None, Torn),
        Row(WrongInPayload, NO, YES, YES, Some(Prove), Fence),
        Row(WrongInPayload, NO, NO, None, Some(Prove), Fence),
        Row(WrongInPayload, NO, YES, YES, Some(AcceptLoss), Fence),
        Row(WrongInPayload, NO, NO, None, Some(AcceptLoss), Fence),
        Row(WrongInPayload, NO, YES, YES, Some(AssumeTorn), Lose),
        Row(WrongInPayload, NO, NO, None, Some(AssumeTorn), Lose),
        Row(Unreadable, YES, None, None, None, Torn),
        Row(Unreadable, NO, YES, None, None, Torn),
        Row(Unreadable, NO, NO, None, Some(Prove), Refuse),
        Row(Unreadable, NO, NO, None, Some(AssumeTorn), Lose),
        Row(Unreadable, NO, NO, None, Some(AcceptLoss), Lose),
    ];

    fn covers(row: &Row, f: &Facts) -> bool {
        row.0 == f.record
            && row.1.is_none_or(|tear| tear == f.tear)
            && row.2.is_none_or(|stale| stale == f.stale)
            && row.3.is_none_or(|rot| rot == f.rot)
            && row.4.is_none_or(|policy| policy == f.policy)
    }

    #[test]
    fn every_case_is_decided_by_exactly_one_row() {
        for n in 0..3 * 3 * 2 * 2 * 2 {
            let facts = Facts {
                record: [Right, WrongInPayload, Unreadable][n / 24],
                policy: [Prove, AssumeTorn, AcceptLoss][n / 8 % 3],
                tear: n & 4 != 0,
                stale: n & 2 != 0,
                rot: n & 1 != 0,
            };
            let rows: Vec<&Row> = TABLE.iter().filter(|row| covers(row, &facts)).collect();
            assert_eq!(rows.len(), 1, "{facts:?}");
            assert_eq!(judge(facts), rows[0].5, "{facts:?}");
        }
    }
}
