//! The disk: what a reader sees, what a power cut leaves, and the choices in between.
//!
//! Each record of a segment stands in two sectors: header and description in one, the payload in the other.
//! A sector that was written and not synced may be lost in a power cut, alone or with any others; what stood
//! there before shows again, zeros or bytes of the file's older generation. A name is durable once the
//! directory was synced. After a failed sync the pages are clean: the cache shows what the disk does not
//! have, and the next sync says Ok. That is `src/vfs/sim` in small.

use crate::table::Table;

/// Files at most: segments, and free ones.
pub const FILES: usize = 10;
/// Records that a segment has room for, at most.
pub const SLOTS: usize = 4;
/// Checkpoints that stand in the directory at once, at most.
pub const CKPTS: usize = 7;
/// Segments that a checkpoint lists, at most.
pub const LISTED: usize = 8;

/// A place in the log: a segment and so many records of it. As an end, one past a record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct Pos(pub u8);

impl Pos {
    /// Before every record.
    pub const ZERO: Pos = Pos(0);

    /// The place before record `slot` of segment `seg`.
    pub const fn new(seg: u8, slot: u8) -> Pos {
        Pos(seg * 8 + slot)
    }

    /// The segment's number.
    pub const fn seg(self) -> u8 {
        self.0 / 8
    }

    /// How many records of it stand before.
    pub const fn slot(self) -> u8 {
        self.0 % 8
    }
}

/// What a record repeats of the one before it. Position and salt bind everything else: a generation of a file
/// is written once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Shape {
    /// Where the record begins; zero when there is none.
    pub pos: Pos,
    /// The generation of its file.
    pub salt: u8,
}

impl Shape {
    /// There is no record.
    pub fn is_none(self) -> bool {
        self.pos == Pos::ZERO
    }

    /// One past the record.
    pub fn end(self) -> Option<Pos> {
        (!self.is_none()).then(|| Pos(self.pos.0 + 1))
    }
}

/// What a record is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Kind {
    /// None was written here in this generation.
    #[default]
    Nothing,
    /// A batch, with its number.
    Batch(u8),
    /// A record that exists for its watermark only.
    Watermark,
    /// The first record of a copy of the tail; what it lists stands with the file.
    Announcement,
}

/// A record as it was written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Rec {
    /// What it is.
    pub kind: Kind,
    /// The log was durable up to here when it was written.
    pub wm: Pos,
    /// The record that it follows.
    pub prev: Shape,
    /// It is a copy of one whose payload did not match its checksum, and neither does its own.
    pub wrong: Option<View>,
}

/// What became of one sector of a record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Part {
    /// Not written in this generation.
    #[default]
    Base,
    /// Written; no sync covers it yet.
    Cached,
    /// Written before the sync in this place began, which is under way.
    Syncing(u8),
    /// Its sync failed: the cache has it, the disk does not, and nothing will write it.
    CacheOnly,
    /// On the disk.
    Disk,
    /// One bit of it is wrong.
    Flipped,
    /// Bytes that were never written there.
    Garbage,
    /// Of a header's sector: the header is right and the description is not.
    DescWrong,
    /// The device cannot read it.
    Unreadable,
}

/// What a reader finds in a sector.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum View {
    /// Zeros.
    Zero,
    /// The file's older generation.
    Old,
    /// What was written.
    Right,
    /// One bit is wrong.
    Flipped,
    /// Anything.
    Garbage,
    /// A right header with a wrong description.
    DescWrong,
    /// An error of the device.
    Unreadable,
}

/// Which sector of a record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// Header and description.
    Desc,
    /// Payload.
    Payload,
}

/// Room for one record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Slot {
    /// What was written in this generation.
    pub rec: Rec,
    /// Its header and description.
    pub desc: Part,
    /// Its payload, if it has one.
    pub payload: Part,
    /// The older generation wrote the first sector, or the second.
    pub old: [bool; 2],
}

impl Slot {
    /// One of the two sectors.
    pub fn part(&self, side: Side) -> Part {
        match side {
            Side::Desc => self.desc,
            Side::Payload => self.payload,
        }
    }

    fn part_mut(&mut self, side: Side) -> &mut Part {
        match side {
            Side::Desc => &mut self.desc,
            Side::Payload => &mut self.payload,
        }
    }

    fn base(&self, side: Side) -> View {
        if self.old[side as usize] { View::Old } else { View::Zero }
    }

    /// What a reader finds, through the cache or on the disk.
    pub fn view(&self, side: Side, cached: bool) -> View {
        let written = match side {
            Side::Desc => View::Right,
            Side::Payload => self.rec.wrong.unwrap_or(View::Right),
        };
        match self.part(side) {
            Part::Base => self.base(side),
            Part::Cached | Part::Syncing(_) | Part::CacheOnly if cached => written,
            Part::Cached | Part::Syncing(_) | Part::CacheOnly => self.base(side),
            Part::Disk => written,
            Part::Flipped => View::Flipped,
            Part::Garbage => View::Garbage,
            Part::DescWrong => View::DescWrong,
            Part::Unreadable => View::Unreadable,
        }
    }
}

/// A file's name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Name {
    /// It has none.
    #[default]
    Gone,
    /// A segment of the log.
    Log(u8),
    /// A file of the pool.
    Free,
}

/// The header of a segment. Its two copies are never lost to one fault, so it is one thing here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Header {
    /// The segment's number; 0 when the header is not there.
    pub seg: u8,
    /// The generation.
    pub salt: u8,
    /// It names a generation before.
    pub stale: bool,
}

/// Whether a name is in the directory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Entry {
    /// No.
    #[default]
    None,
    /// Yes, unless a power cut takes it.
    Made,
    /// Yes.
    Durable,
    /// No, unless a power cut brings it back.
    Removed,
}

impl Entry {
    /// Whether a reader sees it.
    pub fn is_there(self) -> bool {
        matches!(self, Entry::Made | Entry::Durable)
    }

    /// Takes the name away.
    pub fn remove(&mut self) {
        *self = match self {
            Entry::Durable | Entry::Removed => Entry::Removed,
            Entry::Made | Entry::None => Entry::None,
        };
    }

    fn synced(self) -> Entry {
        if self.is_there() { Entry::Durable } else { Entry::None }
    }

    fn is_pending(self) -> bool {
        matches!(self, Entry::Made | Entry::Removed)
    }

    /// What a power cut leaves, with the change that was pending or without it.
    fn cut(self, kept: bool) -> Entry {
        match self {
            Entry::Made if kept => Entry::Durable,
            Entry::Removed if !kept => Entry::Durable,
            Entry::Durable => Entry::Durable,
            _ => Entry::None,
        }
    }
}

/// A footer, beside the segment that it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Foot {
    /// Its name. Its bytes are synced before it gets one.
    pub entry: Entry,
    /// One past the segment's last record.
    pub end: u8,
    /// The highest watermark of its records.
    pub wm: Pos,
}

/// A file of the log or of the pool.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct File {
    /// The durable name first, then those that it was given since.
    pub names: [Name; 4],
    /// How many of them there are, less one.
    pub renames: u8,
    /// As the cache has it.
    pub header: Header,
    /// As the disk has it.
    pub header_on_disk: Header,
    /// Its records.
    pub slots: [Slot; SLOTS],
    /// Its footer.
    pub foot: Foot,
    /// What its announcement lists, by position.
    pub announced: [Pos; SLOTS],
    /// What stands in it was written by a recovery that did not come to its end.
    pub unfinished: bool,
    /// A backup has it too.
    pub linked: bool,
}

impl File {
    /// What it is called now.
    pub fn name(&self) -> Name {
        self.names[self.renames as usize]
    }

    /// Gives it another name, which is not durable yet.
    pub fn rename(&mut self, name: Name) {
        self.renames += 1;
        self.names[self.renames as usize] = name;
    }

    fn names_synced(&mut self) {
        let name = self.name();
        (self.names, self.renames) = ([name, Name::Gone, Name::Gone, Name::Gone], 0);
        if name == Name::Gone && !self.linked {
            *self = File::default();
        }
    }

    /// Nobody has it.
    pub fn is_unused(&self) -> bool {
        self.renames == 0 && self.names[0] == Name::Gone && !self.linked
    }

    /// Begins another generation: the header is written, and what stood in the file is old.
    pub fn format(&mut self, header: Header, on_disk: bool) {
        self.header = header;
        if on_disk {
            self.header_on_disk = header;
        }
        for slot in &mut self.slots {
            for side in [Side::Desc, Side::Payload] {
                slot.old[side as usize] |= !matches!(slot.part(side), Part::Base);
            }
            *slot = Slot { old: slot.old, ..Slot::default() };
        }
        (self.foot, self.announced, self.unfinished) = (Foot::default(), [Pos::ZERO; SLOTS], false);
    }

    /// Writes a record.
    pub fn write(&mut self, at: u8, rec: Rec, has_payload: bool) {
        let slot = &mut self.slots[at as usize];
        (slot.rec, slot.desc) = (rec, Part::Cached);
        if has_payload {
            slot.payload = Part::Cached;
        }
    }

    fn parts(&mut self) -> impl Iterator<Item = &mut Part> {
        self.slots.iter_mut().flat_map(|slot| [&mut slot.desc, &mut slot.payload])
    }

    /// A sync begins: it covers what is written by now.
    pub fn begin_sync(&mut self, place: u8) {
        self.parts().filter(|part| **part == Part::Cached).for_each(|part| *part = Part::Syncing(place));
    }

    /// A sync has ended.
    pub fn end_sync(&mut self, place: u8, to: Part) {
        self.parts().filter(|part| **part == Part::Syncing(place)).for_each(|part| *part = to);
    }

    /// A sync from beginning to end, with nothing beside it.
    pub fn sync(&mut self) {
        let pending = |part: &&mut Part| matches!(part, Part::Cached | Part::Syncing(_));
        self.parts().filter(pending).for_each(|part| *part = Part::Disk);
    }

    /// Drops records from the cache: what only it had is gone.
    pub fn drop_cache(&mut self, from: u8, until: u8) {
        for slot in &mut self.slots[from as usize..until as usize] {
            for side in [Side::Desc, Side::Payload] {
                if slot.part(side) == Part::CacheOnly {
                    *slot.part_mut(side) = Part::Base;
                }
            }
        }
    }
}

/// Whether the bytes of a file that is written whole can be believed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Bytes {
    /// On the disk.
    #[default]
    Durable,
    /// In the cache.
    Cached,
    /// Wrong.
    Bad,
}

/// A segment as a checkpoint lists it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Listed {
    /// Its number; 0 for none.
    pub seg: u8,
    /// Its generation.
    pub salt: u8,
    /// Where it ends, if it is sealed; else 0.
    pub end: u8,
}

/// A checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Ckpt {
    /// Its number.
    pub seq: u8,
    /// Its name.
    pub entry: Entry,
    /// Its bytes.
    pub bytes: Bytes,
    /// Replay begins with this segment.
    pub start: u8,
    /// The log was durable up to here.
    pub synced: Pos,
    /// The lowest number that no segment had.
    pub next_file: u8,
    /// Runs with a lower number were followed by an unclean end.
    pub unclean_before: u8,
    /// The segments.
    pub listed: [Listed; LISTED],
    /// The regions.
    pub table: Table,
}

impl Ckpt {
    /// What it says of a segment.
    pub fn find(&self, seg: u8) -> Option<Listed> {
        self.listed.iter().copied().find(|l| l.seg == seg && seg > 0)
    }
}

/// One slot of the mark file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Mark {
    /// Its number, from 1; 0 when there is none that can be believed.
    pub seq: u8,
    /// The log was durable up to here.
    pub durable: Pos,
}

/// The mark file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Marks {
    /// Its name.
    pub entry: Entry,
    /// Its slots as the cache has them.
    pub cached: [Mark; 2],
    /// As the disk has them.
    pub on_disk: [Mark; 2],
}

/// The files of a store, cached and durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Disk {
    /// Segments and the pool.
    pub files: [File; FILES],
    /// Checkpoints.
    pub ckpts: [Ckpt; CKPTS],
    /// The mark file.
    pub marks: Marks,
    /// The last salt that was drawn.
    pub salts: u8,
}

/// Something that a power cut may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// A sector of a record.
    Sector(u8, u8, Side),
    /// A segment's header.
    Header(u8),
    /// The n-th name since the durable one.
    Rename(u8, u8),
    /// A footer's name, or its removal.
    Foot(u8),
    /// A checkpoint's name, or its removal.
    Ckpt(u8),
    /// A checkpoint's bytes.
    CkptBytes(u8),
    /// A slot of the mark file.
    Mark(u8),
    /// The mark file's name.
    MarkName,
}

impl Disk {
    /// The file of a segment, by its name.
    pub fn find(&self, seg: u8) -> Option<usize> {
        self.files.iter().position(|file| file.name() == Name::Log(seg))
    }

    /// Makes all names durable.
    pub fn sync_dir(&mut self) {
        for file in &mut self.files {
            file.foot.entry = file.foot.entry.synced();
            if file.foot.entry == Entry::None {
                file.foot = Foot::default();
            }
            file.names_synced();
        }
        for ckpt in &mut self.ckpts {
            ckpt.entry = ckpt.entry.synced();
            if ckpt.entry == Entry::None {
                *ckpt = Ckpt::default();
            }
        }
        self.marks.entry = self.marks.entry.synced();
    }

    /// What is pending, in a fixed order.
    pub fn pending(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (f, file) in (0..).zip(&self.files) {
            for (s, slot) in (0..).zip(&file.slots) {
                for side in [Side::Desc, Side::Payload] {
                    if matches!(slot.part(side), Part::Cached | Part::Syncing(_)) {
                        changes.push(Change::Sector(f, s, side));
                    }
                }
            }
            if file.header != file.header_on_disk {
                changes.push(Change::Header(f));
            }
            changes.extend((0..file.renames).map(|n| Change::Rename(f, n + 1)));
            if file.foot.entry.is_pending() {
                changes.push(Change::Foot(f));
            }
        }
        for (c, ckpt) in (0..).zip(&self.ckpts) {
            if ckpt.entry.is_pending() {
                changes.push(Change::Ckpt(c));
            }
            if ckpt.bytes == Bytes::Cached {
                changes.push(Change::CkptBytes(c));
            }
        }
        for slot in 0..2 {
            if self.marks.cached[slot as usize] != self.marks.on_disk[slot as usize] {
                changes.push(Change::Mark(slot));
            }
        }
        if self.marks.entry.is_pending() {
            changes.push(Change::MarkName);
        }
        changes
    }

    /// The power goes: of what is pending the changes in `mask` survive, by their places in
    /// [`pending`](Disk::pending).
    pub fn cut(&mut self, mask: u32) {
        let changes = self.pending();
        let mut renames = [0; FILES];
        for (n, change) in changes.into_iter().enumerate() {
            let kept = mask >> n & 1 == 1;
            match change {
                Change::Sector(f, s, side) => {
                    *self.files[f as usize].slots[s as usize].part_mut(side) =
                        if kept { Part::Disk } else { Part::Base };
                }
                Change::Header(f) if kept => {
                    self.files[f as usize].header_on_disk = self.files[f as usize].header;
                }
                Change::Rename(f, n) if kept && renames[f as usize] + 1 == n => renames[f as usize] = n,
                Change::Foot(f) => {
                    let entry = &mut self.files[f as usize].foot.entry;
                    *entry = entry.cut(kept);
                }
                Change::Ckpt(c) => {
                    let entry = &mut self.ckpts[c as usize].entry;
                    *entry = entry.cut(kept);
                }
                Change::CkptBytes(c) => {
                    self.ckpts[c as usize].bytes = if kept { Bytes::Durable } else { Bytes::Bad };
                }
                Change::Mark(slot) if kept => {
                    self.marks.on_disk[slot as usize] = self.marks.cached[slot as usize];
                }
                Change::MarkName => self.marks.entry = self.marks.entry.cut(kept),
                _ => {}
            }
        }
        self.marks.cached = self.marks.on_disk;
        if self.marks.entry == Entry::None {
            self.marks = Marks::default();
        }
        for ckpt in &mut self.ckpts {
            if ckpt.entry == Entry::None {
                *ckpt = Ckpt::default();
            }
        }
        for (file, kept) in self.files.iter_mut().zip(renames) {
            file.header = file.header_on_disk;
            file.renames = kept;
            for part in file.parts() {
                if *part == Part::CacheOnly {
                    *part = Part::Base;
                }
            }
            if file.foot.entry == Entry::None {
                file.foot = Foot::default();
            }
            file.names_synced();
            file.forget_what_never_was();
        }
    }
}

impl File {
    /// Records of which nothing is on the disk are forgotten, unless a footer speaks of them.
    fn forget_what_never_was(&mut self) {
        let known = if self.foot.entry == Entry::None { 0 } else { self.foot.end };
        for (at, slot) in (0u8..).zip(&mut self.slots) {
            if slot.desc == Part::Base && slot.payload == Part::Base && at >= known {
                slot.rec = Rec::default();
            }
        }
    }
}
