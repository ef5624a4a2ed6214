//! The mistakes that the model can make, under the names that the engine's own have in `src/planted.rs`.

/// What a mistake is: one step of the protocol left out or done too early, or one rule of recovery switched
/// off.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct About {
    /// The mistake.
    pub mistake: Mistake,
    /// Its name, in this crate and in `src/planted.rs`.
    pub name: &'static str,
    /// What it does.
    pub what: &'static str,
}

macro_rules! mistakes {
    ($($(#[doc = $what:literal])+ $name:ident,)+) => {
        /// A step of the protocol left out or done too early, or a rule of recovery switched off.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Mistake {
            /// The engine as it is.
            None,
            $($(#[doc = $what])+ $name,)+
        }

        /// All of them.
        pub const MISTAKES: &[About] = &[
            $(About { mistake: Mistake::$name, name: stringify!($name), what: concat!($($what),+) },)+
        ];
    };
}

mistakes! {
    /// A batch is acknowledged when it is written.
    AckBeforeSync,
    /// The sync stage syncs nothing.
    SyncForgotten,
    /// Of a group that straddles a rotation only the newer segment is synced.
    OlderSegmentNotSynced,
    /// A failed sync is repeated, and its second answer believed.
    FailedSyncRetried,
    /// A sync that ends after the first error still acknowledges.
    AckAfterError,
    /// The first error does not stop writing.
    GateLeftOpen,
    /// What is written by the end of a sync counts as synced.
    SyncCoversLaterWrites,
    /// Records say that what was only accepted is durable.
    WatermarkTooFar,
    /// Records never say that anything of this run is durable.
    WatermarkStuck,
    /// While recovery copies the tail, the copy's own records count as proof that it is complete.
    WatermarkInsideTheCopy,
    /// Recovery answers before the copy of the tail is durable.
    CopyNotSealed,
    /// A segment gets its name before its header is durable.
    HeaderNotSynced,
    /// A segment is used before its name is durable.
    NameNotSynced,
    /// A recycled file is formatted again before its free name is durable.
    FreeNameNotSynced,
    /// A recycled file says that it has no generation before.
    FormerGenerationForgotten,
    /// A store whose mark is gone opens as if nothing were missing.
    MissingMarkUnheeded,
    /// Recovery does not look at a description's checksum.
    DescriptionNotVerified,
    /// Recovery takes a sector that it cannot read for the end of the log.
    BadSectorEndsTheLog,
    /// A destroyed region comes back at replay.
    DestroyLost,
    /// A truncation is not replayed.
    TruncationLost,
    /// A compaction is not replayed.
    CompactionLost,
    /// Replay keeps the hard state that it has.
    OldHardStateWins,
    /// Replay applies a segment to its first region only.
    OnlyFirstRegionReplayed,
    /// A segment counts though it follows a record that cannot be found.
    PredecessorNotChecked,
    /// What a former recovery cut off counts again.
    TailNotCutOff,
    /// What follows an end of the log confirms it, though nothing of it is known durable.
    UnfinishedCopyBelieved,
    /// Recovery does not say which records it is about to copy.
    CopyNotAnnounced,
    /// What an unfinished copy announces is not looked at.
    AnnouncementUnheeded,
    /// The mark says that the copy of the tail is whole before it is.
    MarkBeforeSync,
    /// The mark is not synced before what it proves is relied on.
    MarkNotSynced,
    /// No mark leads to a segment before something in it is acknowledged.
    EntryNotMarked,
    /// What the mark says is not looked at.
    MarkNotBelieved,
    /// The files that show an unclean end go without a checkpoint that shows it.
    UncleanEndForgotten,
    /// A copy of the tail that was never finished cuts off the original.
    TornCopyBelieved,
    /// A hole below the watermark ends the log.
    HoleTakenForTear,
    /// Recovery answers with batches that may be in the page cache only.
    TailNotRewritten,
    /// Recovery does not look at the payloads of the tail.
    TailNotVerified,
    /// A checkpoint gets its name before the log it speaks of is durable.
    CheckpointBeforeLogSync,
    /// A checkpoint gets its name before its bytes are durable.
    CheckpointNotSynced,
    /// Only the newest checkpoint is kept.
    OneCheckpointKept,
    /// A dead segment is removed before any checkpoint is without it.
    UnlinkBeforeCheckpoint,
    /// A segment is removed that only the newest checkpoint can do without.
    OlderCheckpointUnheeded,
    /// A file that a backup links is used again for another generation.
    LinkedFileReused,
    /// What a backup copies is not synced.
    BackupNotSynced,
    /// Zeros that a record has of itself are mistaken for a tear.
    OwnZerosTakenForTear,
    /// A checkpoint leaves out which entries are suspect.
    SuspectForgotten,
    /// What was suspect is called damaged.
    SuspectCalledDamaged,
    /// Loss that was accepted costs no hard state.
    LossNotSaid,
    /// Proven damage ends the log also when nobody accepted the loss.
    LossAlwaysAccepted,
    /// A segment gets its footer before its records are durable.
    SealedBeforeSync,
    /// Open relies on names that may not be durable.
    DirectoryNotSyncedAtOpen,
}
