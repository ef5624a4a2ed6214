//! Replicas that have lost a part of their logs: looked through before they run, fenced while something
//! is missing, healed by the others.
//!
//! A replica that is fenced is a [`FencedVoter`], and no `RawNode`: it acknowledges, leads and serves
//! nothing. It asks the others for what it lost, a few times, and puts back what is identical; then it asks
//! the leader for a snapshot. One whose term and vote are lost is no matter for this file: it does not run
//! again (`replace.rs`).

use crate::clocks::{self, Moment};
use crate::machine::{Stand, Task};
use crate::node::Node;
use crate::region::{Standing as SpanStanding, ended_by};
use crate::wire::{Dump, Result, Said};
use raft::prelude::{Message, MessageType};
use raftwood::healing::{Answer, Healer, Question, Standing, Taken};
use raftwood::raft_rs::{FencedVoter, RegionStorage};
use raftwood::{Durability, Engine, Entry, EntryId, ErrorKind, ReadLimit, Region, RegionId};
use std::collections::BTreeSet;

/// Ticks from one question to the next.
const ASK_EVERY: u64 = 5;

/// After so many questions, the leader is asked for a snapshot.
const QUESTIONS: u64 = 4;

/// A replica of which something is lost.
pub struct Fenced {
    pub stand: Stand,
    voter: FencedVoter,
    healer: Healer,
    since: Moment,
    ticks: u64,
    /// A snapshot on its way into the state machine: for which run of it, the leader's message, and when it
    /// was given. Until then the replica is parked like any other.
    installing: Option<(u64, Message, u64)>,
}

impl Fenced {
    pub fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// Whether another group's snapshot, or entry, has ended it, or it waits for the state machine.
    fn is_parked(&self) -> bool {
        self.is_installing() || self.is_ended()
    }

    fn is_ended(&self) -> bool {
        self.stand.span.standing == SpanStanding::Gone
    }
}

/// What can be done with a replica.
pub enum Found {
    Whole,
    Fenced(Box<Fenced>),
    /// It does not come back: it has lost something that nobody can name, and has no state.
    Lost,
}

/// Looks through a replica's log before it runs. What the state machine holds durably is not missed.
pub fn examine(engine: &Engine, id: u64, peer: u64, stand: Option<Stand>) -> Result<Found> {
    let region = RegionId(id);
    let mut healer = Healer::new(engine, region);
    let standing = healer.look()?;
    let Some(stand) = stand.filter(|_| standing != Standing::HardStateLost) else {
        return Ok(if standing == Standing::Whole { Found::Whole } else { Found::Lost });
    };
    let open = healer.open();
    if open.first().is_some_and(|range| *range.start() <= stand.applied.index) {
        let mut batch = engine.batch();
        match batch.region(region).compact_through(stand.applied.index).map(drop) {
            Ok(()) => drop(engine.write(batch, Durability::Synced)?),
            // The log ends before it, or it cannot be named.
            Err(e) if matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Damaged) => {}
            Err(e) => return Err(e.into()),
        }
    }
    if healer.standing() == Standing::Whole {
        return Ok(Found::Whole);
    }
    let voter = FencedVoter::new(RegionStorage::new(engine, region), peer)?;
    Ok(Found::Fenced(Box::new(Fenced {
        stand,
        voter,
        healer,
        since: Moment::now(),
        ticks: 0,
        installing: None,
    })))
}

/// The entries from `first` on, without those that cannot be read.
pub fn readable(region: &Region, first: u64) -> Result<Vec<Entry>> {
    match region.entries_clamped(first.., ReadLimit::NONE) {
        Err(e) if e.kind() == ErrorKind::Damaged => {}
        all => return Ok(all?),
    }
    let log = region.state();
    Ok((first.max(log.first)..=log.last).filter_map(|index| region.entry(index).ok()).collect())
}

impl Node {
    /// Asks the others for what fenced replicas have lost.
    pub fn ask_for_copies(&mut self) {
        let mut asked: Vec<Question> = Vec::new();
        for fenced in self.fenced.values_mut().filter(|f| !f.is_parked()) {
            fenced.ticks += 1;
            if !fenced.ticks.is_multiple_of(ASK_EVERY) {
                continue;
            }
            if fenced.ticks > ASK_EVERY * QUESTIONS {
                fenced.voter.request_snapshot();
            }
            asked.extend(fenced.healer.question(None));
        }
        for question in asked {
            for peer in self.peers.keys().filter(|peer| !self.cut_off.contains(peer)) {
                self.peers[peer].send(question.region.0, Said::Question(self.args.id, question.clone()));
            }
        }
    }

    /// Answers for whatever replica is here.
    pub fn answer(&self, from: u64, question: &Question) -> Result<()> {
        let id = question.region;
        if self.cut_off.contains(&from) || self.lost.contains(&id.0) {
            return Ok(());
        }
        // The questions of this program carry no term, and no denial is binding.
        let answers = Healer::new(&self.engine, id).answer(question, 0)?;
        if let Some(peer) = self.peers.get(&from) {
            peer.send(id.0, Said::Answers(self.args.id, answers));
        }
        Ok(())
    }

    pub fn take_answers(
        &mut self,
        id: u64,
        from: u64,
        answers: Vec<Answer>,
        awake: &mut BTreeSet<u64>,
    ) -> Result<()> {
        let hears = |f: &&mut Fenced| !f.is_parked() && !self.cut_off.contains(&from);
        let Some(fenced) = self.fenced.get_mut(&id).filter(hears) else { return Ok(()) };
        for answer in answers {
            self.stats.healed += u64::from(fenced.healer.take(from, answer)? == Taken::PutBack);
        }
        self.start_if_whole(id, awake)
    }

    /// A message for a fenced replica. Like any other, it knows at first of no leader, and says nothing for
    /// an election timeout.
    pub fn message_to_fenced(&mut self, id: u64, message: &Message, awake: &mut BTreeSet<u64>) -> Result<()> {
        let vote_after = self.args.timing.vote_after();
        let now = Moment::now();
        let hears = |f: &&mut Fenced| !f.is_parked() && now.is_beyond(f.since, vote_after);
        let Some(fenced) = self.fenced.get_mut(&id).filter(hears) else { return Ok(()) };
        if message.get_msg_type() == MessageType::MsgSnapshot {
            self.snapshot_to_fenced(id, message)?;
        } else {
            match fenced.voter.step(message) {
                Ok(Some(answer)) => {
                    let votes = answer.get_msg_type() == MessageType::MsgRequestVoteResponse;
                    self.stats.fenced_votes += u64::from(votes && !answer.reject);
                    self.send(id, vec![answer]);
                }
                Ok(None) => {}
                // The listener does not let go of what the append would replace: it comes again.
                Err(e) if e.is_retryable() => self.stats.refused += 1,
                Err(e) => return Err(e.into()),
            }
        }
        self.start_if_whole(id, awake)
    }

    /// First the state machine, durably, unless it is further, and [then](Self::installed_in_fenced) the log.
    fn snapshot_to_fenced(&mut self, id: u64, message: &Message) -> Result<()> {
        let snapshot = message.get_snapshot();
        let dump: Dump = serde_json::from_slice(&snapshot.data)?;
        let Some(span) = dump.span else { return Ok(()) };
        let Some(ended) = ended_by(id, &span, &self.spans()) else { return Ok(()) };
        let Some(fenced) = self.fenced.get_mut(&id) else { return Ok(()) };
        if !fenced.voter.takes(message)? {
            return Ok(());
        }
        let (index, applied) = (snapshot.get_metadata().index, fenced.stand.applied.index);
        if index > applied {
            let doubtful = readable(&self.engine.region(RegionId(id)), applied + 1)?;
            self.rollbacks.save_displaced(RegionId(id), &doubtful)?;
            self.nursery.runs += 1;
            let run = self.nursery.runs;
            self.machine.send(Task::Install { group: id, run, snapshot: snapshot.clone() })?;
            let applied = EntryId::new(snapshot.get_metadata().term, index);
            fenced.stand = Stand { span, applied, conf_state: dump.conf_state };
            fenced.installing = Some((run, message.clone(), clocks::nanos()));
            self.end(&ended);
        } else {
            fenced.voter.install(message)?;
            self.stats.snapshots_installed += 1;
        }
        Ok(())
    }

    /// The state machine holds the snapshot of a fenced replica, unless that has ended meanwhile.
    pub fn installed_in_fenced(&mut self, id: u64, run: u64, awake: &mut BTreeSet<u64>) -> Result<()> {
        let Some(fenced) = self.fenced.get_mut(&id).filter(|f| !f.is_ended()) else { return Ok(()) };
        let Some((_, message, since)) = fenced.installing.take_if(|i| i.0 == run) else { return Ok(()) };
        fenced.voter.install(&message)?;
        self.stats.snapshots_installed += 1;
        self.stats.installs.push((since, clocks::nanos()));
        self.start_if_whole(id, awake)
    }

    /// The fence falls. The leader that the replica has voted for, or taken a snapshot from, is not known to
    /// the `RawNode`, which votes for nobody else for an election timeout.
    fn start_if_whole(&mut self, id: u64, awake: &mut BTreeSet<u64>) -> Result<()> {
        let is_whole = |f: &Fenced| !f.is_parked() && f.healer.standing() == Standing::Whole;
        if self.fenced.get(&id).is_some_and(is_whole)
            && let Some(fenced) = self.fenced.remove(&id)
        {
            let group = self.nursery.start(id, Some(&fenced.stand), Moment::now())?;
            self.groups.insert(id, group);
            awake.insert(id);
            self.stats.unfenced += 1;
        }
        Ok(())
    }
}
