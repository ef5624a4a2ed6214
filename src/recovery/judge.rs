//! Torn, damaged, or neither: the one place that decides.
//!
//! Only records behind the watermark come here. Whatever lies before it was acknowledged, and wrong bytes there are
//! damage without any question; whatever lies behind may have been acknowledged just before the crash, or may never have
//! reached the disk whole. What tells them apart is evidence: a torn write leaves sectors as they were before it.
//!
//! | the record                          | evidence of a tear | evidence of rot | policy      | verdict |
//! |-------------------------------------|--------------------|-----------------|-------------|---------|
//! | all right                           | -                  | -               | -           | Keep    |
//! | payloads wrong                      | -                  | -               | AssumeTorn  | Torn    |
//! | payloads wrong                      | -                  | yes             | Prove       | Fence   |
//! | payloads wrong                      | yes                | no              | Prove       | Torn    |
//! | payloads wrong                      | no                 | no              | Prove       | Fence   |
//! | header or description wrong         | -                  | -               | AssumeTorn  | Torn    |
//! | header or description wrong         | yes                | -               | Prove       | Torn    |
//! | header or description wrong         | no                 | -               | Prove       | Refuse  |
//!
//! Evidence of a tear: a sector of what is wrong is still zero; or the record would go beyond the end of the file; or the
//! file had a life before, whose bytes may be what shows. Evidence of rot: flipping one bit back makes the payload match,
//! which no unwritten sector does.

use crate::engine::options::TailPolicy;

/// What is known of a record behind the watermark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    pub(super) record: RecordIs,
    pub(super) tear: bool,
    pub(super) rot: bool,
    pub(super) policy: TailPolicy,
}

/// How much of a record can be believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RecordIs {
    /// Every byte matches.
    Right,
    /// It says what it is, and some of its payloads do not match.
    WrongInPayload,
    /// It does not even say what it is.
    Unreadable,
}

/// What becomes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It is made durable anew.
    Keep,
    /// It was never acknowledged; it and what follows are dropped.
    Torn,
    /// It is kept as it is, and its wrong entries are reported as damaged: they may have been acknowledged.
    Fence,
    /// Nothing says which regions it concerns or whether it was acknowledged: open refuses.
    Refuse,
}

/// Decides.
pub(super) fn judge(facts: Facts) -> Verdict {
    match (facts.record, facts.policy) {
        (RecordIs::Right, _) => Verdict::Keep,
        (_, TailPolicy::AssumeTorn) => Verdict::Torn,
        (RecordIs::WrongInPayload, TailPolicy::Prove) if facts.tear && !facts.rot => Verdict::Torn,
        (RecordIs::WrongInPayload, TailPolicy::Prove) => Verdict::Fence,
        (RecordIs::Unreadable, TailPolicy::Prove) if facts.tear => Verdict::Torn,
        (RecordIs::Unreadable, TailPolicy::Prove) => Verdict::Refuse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RecordIs::*;
    use TailPolicy::*;
    use Verdict::*;

    /// The rows of the table above; `None` stands for "-".
    type Row = (RecordIs, Option<bool>, Option<bool>, Option<TailPolicy>, Verdict);
    const TABLE: [Row; 8] = [
        (Right, None, None, None, Keep),
        (WrongInPayload, None, None, Some(AssumeTorn), Torn),
        (WrongInPayload, None, Some(true), Some(Prove), Fence),
        (WrongInPayload, Some(true), Some(false), Some(Prove), Torn),
        (WrongInPayload, Some(false), Some(false), Some(Prove), Fence),
        (Unreadable, None, None, Some(AssumeTorn), Torn),
        (Unreadable, Some(true), None, Some(Prove), Torn),
        (Unreadable, Some(false), None, Some(Prove), Refuse),
    ];

    #[test]
    fn every_case_is_decided_by_exactly_one_row() {
        for record in [Right, WrongInPayload, Unreadable] {
            for tear in [false, true] {
                for rot in [false, true] {
                    for policy in [Prove, AssumeTorn] {
                        let covers = |row: &&Row| {
                            row.0 == record
                                && row.1.is_none_or(|t| t == tear)
                                && row.2.is_none_or(|r| r == rot)
                                && row.3.is_none_or(|p| p == policy)
                        };
                        let rows: Vec<&Row> = TABLE.iter().filter(covers).collect();
                        let facts = Facts { record, tear, rot, policy };
                        assert_eq!(rows.len(), 1, "{facts:?}");
                        assert_eq!(judge(facts), rows[0].4, "{facts:?}");
                    }
                }
            }
        }
    }
}
