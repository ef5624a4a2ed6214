//! The same few calls on both engines: compiled twice, from the same lines.

use raft_proto::eraftpb::Entry;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// What a program does to an engine.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Write {
        ops: Vec<Op>,
        sync: bool,
    },
    /// `compact_to`, whose answer is compared too.
    CompactTo {
        region: u64,
        index: u64,
    },
    Purge,
    Sync,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Append { region: u64, entries: Vec<Entry> },
    Compact { region: u64, index: u64 },
    Clean { region: u64 },
    Put { region: u64, key: Vec<u8>, value: Vec<u8> },
    Delete { region: u64, key: Vec<u8> },
}

/// A read.
#[derive(Clone, Debug)]
pub(crate) enum Read {
    Entry { region: u64, index: u64 },
    Fetch { region: u64, begin: u64, end: u64, max: Option<usize> },
    Get { region: u64, key: Vec<u8> },
    Scan { region: u64, start: Option<Vec<u8>>, end: Option<Vec<u8>>, reverse: bool, count: usize },
}

/// A region that has entries or keys.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct RegionState {
    pub(crate) span: Option<(u64, u64)>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) pairs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl RegionState {
    /// The span, after the entries have changed.
    pub(crate) fn measure(&mut self) {
        self.span =
            self.entries.first().zip(self.entries.last()).map(|(first, last)| (first.index, last.index));
    }
}

/// Of what may be long, only what tells one from another.
impl fmt::Debug for RegionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |bytes: &[u8]| bytes.iter().fold(0u32, |sum, b| sum.wrapping_mul(31) ^ u32::from(*b));
        write!(f, "{:?}, entries:", self.span)?;
        self.entries.iter().try_for_each(|e| write!(f, " {}/{}/{:x}", e.index, e.term, sum(&e.data)))?;
        write!(f, ", keys:")?;
        self.pairs
            .iter()
            .try_for_each(|(key, value)| write!(f, " {}={:x}", String::from_utf8_lossy(key), sum(value)))
    }
}

pub(crate) type State = BTreeMap<u64, RegionState>;

/// An engine that a program runs on.
pub(crate) trait Side: Sized {
    const NAME: &'static str;
    /// Whether what was dropped may be there again after an open.
    const DROPPED_COMES_BACK: bool;
    fn open(dir: &Path) -> Self;
    /// Does a step; what it answers is compared.
    fn apply(&self, step: &Step) -> u64;
    /// What a read answers, as text.
    fn read(&self, read: &Read) -> String;
    /// Everything.
    fn state(&self) -> State;
}

macro_rules! side {
    ($side:ident, $engine:ident, $comes_back:literal) => {
        pub(crate) struct $side(pub(crate) $engine::Engine);

        const _: () = {
            use $engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize};

            struct Entries;

            impl MessageExt for Entries {
                type Entry = Entry;

                fn index(entry: &Entry) -> u64 {
                    entry.index
                }
            }

            impl Side for $side {
                const NAME: &'static str = stringify!($side);
                const DROPPED_COMES_BACK: bool = $comes_back;

                fn open(dir: &Path) -> Self {
                    let config = Config {
                        dir: dir.to_str().unwrap().to_owned(),
                        target_file_size: ReadableSize::kb(128),
                        purge_threshold: ReadableSize::kb(512),
                        batch_compression_threshold: ReadableSize::kb(4),
                        ..Config::default()
                    };
                    $side(Engine::open(config).unwrap())
                }

                fn apply(&self, step: &Step) -> u64 {
                    match step {
                        Step::Write { ops, sync } => {
                            let mut batch = LogBatch::default();
                            for op in ops {
                                match op {
                                    Op::Append { region, entries } => {
                                        batch.add_entries::<Entries>(*region, entries).unwrap();
                                    }
                                    Op::Compact { region, index } => {
                                        batch.add_command(*region, Command::Compact { index: *index });
                                    }
                                    Op::Clean { region } => batch.add_command(*region, Command::Clean),
                                    Op::Put { region, key, value } => {
                                        batch.put(*region, key.clone(), value.clone()).unwrap();
                                    }
                                    Op::Delete { region, key } => batch.delete(*region, key.clone()),
                                }
                            }
                            self.0.write(&mut batch, *sync).unwrap();
                            assert!(batch.is_empty());
                            0
                        }
                        Step::CompactTo { region, index } => self.0.compact_to(*region, *index),
                        // Which regions are named depends on the files.
                        Step::Purge => self.0.purge_expired_files().map(|_| 0).unwrap(),
                        Step::Sync => self.0.sync().map(|()| 0).unwrap(),
                    }
                }

                fn read(&self, read: &Read) -> String {
                    match read {
                        Read::Entry { region, index } => {
                            format!("{:?}", self.0.get_entry::<Entries>(*region, *index))
                        }
                        Read::Fetch { region, begin, end, max } => {
                            let mut found = Vec::new();
                            let count =
                                self.0.fetch_entries_to::<Entries>(*region, *begin, *end, *max, &mut found);
                            format!("{count:?} {found:?}")
                        }
                        Read::Get { region, key } => format!("{:?}", self.0.get(*region, key)),
                        Read::Scan { region, start, end, reverse, count } => {
                            let mut found = Vec::new();
                            let each = |key: &[u8], value: &[u8]| {
                                found.push((key.to_vec(), value.to_vec()));
                                found.len() < *count
                            };
                            let scan = self.0.scan_raw_messages(
                                *region,
                                start.as_deref(),
                                end.as_deref(),
                                *reverse,
                                each,
                            );
                            format!("{scan:?} {found:?}")
                        }
                    }
                }

                fn state(&self) -> State {
                    let mut state = State::new();
                    for region in self.0.raft_groups() {
                        let span = self.0.first_index(region).zip(self.0.last_index(region));
                        let mut entries = Vec::new();
                        if let Some((first, last)) = span {
                            self.0
                                .fetch_entries_to::<Entries>(region, first, last + 1, None, &mut entries)
                                .unwrap();
                        }
                        let mut pairs = BTreeMap::new();
                        let each = |key: &[u8], value: &[u8]| {
                            pairs.insert(key.to_vec(), value.to_vec());
                            true
                        };
                        self.0.scan_raw_messages(region, None, None, false, each).unwrap();
                        // A region with nothing in it is one until files are purged there, and always here.
                        if span.is_some() || !pairs.is_empty() {
                            state.insert(region, RegionState { span, entries, pairs });
                        }
                    }
                    state
                }
            }
        };
    };
}

side!(Theirs, raft_engine, true);
side!(Ours, raftwood_raft_engine, false);
