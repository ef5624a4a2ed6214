//! One replica's part in the conversation.

use super::{Answer, Question, Says, Standing};
use crate::limits::{HEALING_ANSWER_BYTES, HEALING_QUESTION_ENTRIES};
use crate::planted::{Bug, planted};
use crate::{
    Durability, Engine, Entry, EntryId, Error, ErrorKind, Health, Lookup, ReadLimit, Region, RegionId, Result,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

/// Heals one region, and answers for it. Every replica has one, whole or not.
///
/// What is open it asks the engine, which remembers damage across restarts; of its own it keeps only who has
/// denied what. See the [module](super).
#[derive(Clone, Debug)]
pub struct Healer {
    engine: Engine,
    region: Region,
    /// Entries that were offered, and could not be compared: their checksum here is lost too.
    unknown: BTreeSet<u64>,
    /// Who has denied an entry, bound by which term.
    denied: BTreeMap<EntryId, BTreeMap<u64, u64>>,
}

/// What became of an [`Answer`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Taken {
    /// The entry is back, durably.
    PutBack,
    /// The peer's copy is another than the one recorded here. Nothing was changed.
    Refused,
    /// The checksum recorded here is lost too: only [`take_committed`](Healer::take_committed) helps, or a
    /// leader's append or snapshot.
    NeedsLeader,
    /// The peer does not have it. Nothing was changed.
    Denied,
    /// The peer cannot say.
    Unknown,
    /// The entry is not open here, or not any more.
    NotOpen,
}

impl Healer {
    /// For the region's replica on this engine. Reads nothing.
    pub fn new(engine: &Engine, region: RegionId) -> Healer {
        let region = engine.region(region);
        Healer { engine: engine.clone(), region, unknown: BTreeSet::new(), denied: BTreeMap::new() }
    }

    /// Reads every entry of the region, so that damage is known before the group runs. It takes as long as
    /// reading the region's log does; a store that was [scrubbed](Engine::scrub) just now needs none.
    ///
    /// # Errors
    /// What reading is answered with otherwise than for what is on the disk: `Closed`, and the like.
    pub fn look(&mut self) -> Result<Standing> {
        let log = self.region.state();
        let mut from = log.first;
        while from <= log.last {
            match self.region.entries(from..=log.last, LOOK) {
                Ok(entries) => from = entries.last().map_or(log.last, |e| e.id.index) + 1,
                Err(e) if is_of_the_disk(&e) => {
                    // Of a range it names the first that is wrong: one at a time, the others are found.
                    let to = log.last.min(from.saturating_add(LOOK_ONE_BY_ONE - 1));
                    for index in from..=to {
                        match self.region.entry(index) {
                            Err(e) if !is_of_the_disk(&e) && !is_gone(&e) => return Err(e),
                            _ => {}
                        }
                    }
                    from = to + 1;
                }
                Err(e) if is_gone(&e) => return Ok(self.standing()),
                Err(e) => return Err(e),
            }
        }
        Ok(self.standing())
    }

    /// What the replica may do now, as far as is known.
    pub fn standing(&self) -> Standing {
        Standing::of(&self.region)
    }

    /// The indexes that cannot be read, ascending.
    pub fn open(&self) -> Vec<RangeInclusive<u64>> {
        match self.region.health() {
            Health::Suspect { ranges } | Health::Damaged { ranges, .. } => ranges,
            _ => Vec::new(),
        }
    }

    /// What to ask the peers: the first [`HEALING_QUESTION_ENTRIES`] of the entries that are open and can be
    /// compared. `None` when there is nothing to ask, also of a replica whose hard state is lost: it does not
    /// come back. With a `term`, that of a leader or candidate, denials that come back are
    /// [binding](Says::DontHave).
    pub fn question(&self, term: Option<u64>) -> Option<Question> {
        if self.standing() == Standing::HardStateLost {
            return None;
        }
        let indexes = self.open().into_iter().flatten().filter(|index| !self.unknown.contains(index));
        let ids = indexes.filter_map(|index| Some(EntryId::new(self.region.term(index).ok()?, index)));
        let entries: Vec<EntryId> = ids.take(HEALING_QUESTION_ENTRIES).collect();
        (!entries.is_empty()).then(|| Question { region: self.region.id(), term, entries })
    }

    /// Answers a peer. `durable_term` is the term that this replica has made durable; 0 where none was.
    /// Before the group runs it is that of the hard state (openraft: of the vote) as it is read; later, of
    /// the newest that is known to be persisted. Payloads of [`HEALING_ANSWER_BYTES`] at most, or one: what
    /// is left out is asked again. A replica that is fenced never denies.
    ///
    /// # Errors
    /// `InvalidArgument` for another region's question.
    pub fn answer(&self, question: &Question, durable_term: u64) -> Result<Vec<Answer>> {
        self.is_ours(question.region)?;
        let may_deny = self.standing().may_serve();
        let bound = question.term.filter(|term| durable_term >= *term);
        let (mut answers, mut bytes) = (Vec::new(), 0);
        for &id in question.entries.iter().take(HEALING_QUESTION_ENTRIES) {
            let says = match self.region.lookup(id) {
                Lookup::Have => match self.region.entry(id.index) {
                    Ok(entry) if entry.id == id => Says::Have(entry.payload.to_vec()),
                    _ => Says::Unknown,
                },
                Lookup::DontHave if may_deny => Says::DontHave { term: bound },
                _ => Says::Unknown,
            };
            if let Says::Have(payload) = &says {
                bytes += payload.len();
                if bytes > HEALING_ANSWER_BYTES && bytes > payload.len() {
                    break;
                }
            }
            answers.push(Answer { region: self.region.id(), id, says });
        }
        Ok(answers)
    }

    /// Takes what `peer` says. A copy is put back if it is what was recorded here; it is durable on return,
    /// and after a crash the entry is back or is as it was. Anything else changes nothing.
    ///
    /// # Errors
    /// `InvalidArgument` for another region's answer; those of [`Region::repair`] that do not speak of the
    /// entry: what writing is answered with.
    pub fn take(&mut self, peer: u64, answer: Answer) -> Result<Taken> {
        self.is_ours(answer.region)?;
        let id = answer.id;
        let is_open = self.open().iter().any(|range| range.contains(&id.index));
        if !is_open || self.region.term(id.index).ok() != Some(id.term) {
            return Ok(Taken::NotOpen);
        }
        match answer.says {
            Says::Unknown => Ok(Taken::Unknown),
            Says::DontHave { term } => {
                if planted(Bug::DiscardsOnDontHave) {
                    let mut batch = self.engine.batch();
                    batch.region(self.region.id()).truncate_from(id.index);
                    self.engine.write(batch, Durability::Synced)?;
                }
                if let Some(term) = term {
                    let bound = self.denied.entry(id).or_default().entry(peer).or_default();
                    *bound = term.max(*bound);
                }
                Ok(Taken::Denied)
            }
            Says::Have(payload) => match self.region.repair(id, &payload) {
                Ok(()) => {
                    self.denied.remove(&id);
                    Ok(Taken::PutBack)
                }
                Err(e) if e.kind() == ErrorKind::InvalidArgument => Ok(Taken::Refused),
                Err(e) if is_gone(&e) => Ok(Taken::NotOpen),
                Err(e) if e.kind() == ErrorKind::Damaged => {
                    self.unknown.insert(id.index);
                    Ok(Taken::NeedsLeader)
                }
                Err(e) => Err(e),
            },
        }
    }

    /// The peers whose denial of an entry is binding in `term`. A majority of the group shows that it was
    /// not committed and will not be by a leader of an earlier term: a leader of this term will
    /// replace it, and there is no use in waiting for a copy. It allows this replica nothing.
    pub fn denied_by(&self, id: EntryId, term: u64) -> Vec<u64> {
        let bound = self.denied.get(&id).into_iter().flatten();
        bound.filter(|(_, bound)| **bound >= term).map(|(peer, _)| *peer).collect()
    }

    /// Takes entries from a leader of the current `term`, which names all through `committed` as committed:
    /// for those whose checksum, or term, is lost here too. From the first of these on the log is written
    /// once more in one batch, each entry as it is read here, or as the leader has it. Durable on
    /// return, with the indexes that were restored; a crash leaves all of it or nothing. Listeners
    /// are asked as for any append that replaces entries.
    ///
    /// # Errors
    /// `InvalidArgument` when `term` is not `durable_term`, the one that this replica has made durable, or
    /// the leader's entry is another than one that is certain here. `Unavailable` names the first entry that
    /// neither has. `HardStateLost` for a replica whose hard state is lost. `TooLarge` where the rest of the
    /// log does not fit into a batch: it takes a snapshot. Nothing is changed then.
    pub fn take_committed(
        &mut self,
        term: u64,
        committed: u64,
        durable_term: u64,
        entries: &[Entry],
    ) -> Result<Vec<u64>> {
        if term != durable_term {
            return Err(Error::new(ErrorKind::InvalidArgument, format!(
                "entries of a leader of term {term} refused: this replica has made term {durable_term} durable"
            ))
            .in_region(self.region.id()));
        }
        self.region.hard_state_or_lost()?;
        let log = self.region.state();
        let named: BTreeMap<u64, &Entry> =
            entries.iter().filter(|e| e.id.index <= committed).map(|e| (e.id.index, e)).collect();
        let open: BTreeSet<u64> = self.open().into_iter().flatten().collect();
        let Some(first) = open.iter().copied().find(|index| named.contains_key(index)) else {
            return Ok(Vec::new());
        };
        let mut batch = self.engine.batch();
        for index in first..=log.last {
            let leaders = named.get(&index).copied();
            if let (Some(entry), Ok(term)) = (leaders, self.region.term(index))
                && entry.id.term != term
            {
                return Err(Error::new(ErrorKind::InvalidArgument, format!(
                    "the leader's entry {} is another than the one here, of term {term}: that is for an append to replace",
                    entry.id
                ))
                .in_region(self.region.id())
                .naming(index..=index));
            }
            let entry = match (open.contains(&index), leaders) {
                (false, _) => self.region.entry(index)?,
                (true, Some(entry)) => entry.clone(),
                (true, None) => {
                    return Err(Error::new(
                        ErrorKind::Unavailable,
                        format!(
                            "entry {index} is open here and not among those the leader names: ask for it too"
                        ),
                    )
                    .in_region(self.region.id())
                    .naming(index..=index));
                }
            };
            batch.region(self.region.id()).append([(entry.id, &entry.payload[..])])?;
        }
        self.engine.write(batch, Durability::Synced)?;
        let restored: Vec<u64> = open.range(first..).copied().collect();
        self.unknown.retain(|index| !restored.contains(index));
        Ok(restored)
    }

    fn is_ours(&self, region: RegionId) -> Result<()> {
        match region == self.region.id() {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::InvalidArgument, format!(
                "a message of region {region} was given to the healer of region {}: each region has one of its own",
                self.region.id()
            ))
            .in_region(region)),
        }
    }
}

/// Whether the error speaks of the bytes, or of the device that has them.
fn is_of_the_disk(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::Damaged | ErrorKind::Io)
}

/// Whether the entry is no part of the log any more.
fn is_gone(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::Compacted | ErrorKind::Unavailable)
}

/// How much is read at once when the log is looked through, and how many entries singly where that fails.
const LOOK: ReadLimit = ReadLimit::bytes(4 << 20);
const LOOK_ONE_BY_ONE: u64 = 64;
