//! Mistakes planted on purpose, to show that the tests would notice them.
//!
//! Without `--cfg planted` nothing of this is compiled: [`planted`] is a constant `false`. With it, the environment variable
//! `RAFTWOOD_PLANT` names the one mistake that the engine makes. `.ci/planted` plants each in turn and shows which ordinary
//! test fails. No test looks at the name of a mistake: it must fail by what the mistake does.

/// Declares the mistakes: what each breaks, and the test that is expected to notice it first, as `file::test`.
macro_rules! bugs {
    ($($(#[doc = $what:literal])+ $name:ident caught by $catcher:literal,)+) => {
        /// A mistake that can be planted.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Bug {
            $($(#[doc = $what])+ $name,)+
        }

        /// Name, what it breaks, and the test that should notice.
        #[cfg(planted)]
        const BUGS: &[(Bug, &str, &str, &str)] =
            &[$((Bug::$name, stringify!($name), concat!($($what),+), $catcher),)+];
    };
}

bugs! {
    /// A batch is acknowledged when it is written. Breaks: acknowledged is durable.
    AckBeforeSync caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// The sync stage syncs nothing. Breaks: acknowledged is durable.
    SyncForgotten caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// Of a group that straddles a rotation only the newer segment is synced. Breaks: acknowledged is durable.
    OlderSegmentNotSynced caught by "crash::random_histories_with_crashes_and_errors_match_the_model",
    /// A failed sync is repeated, and its second answer believed. Breaks: a failed sync is never retried.
    FailedSyncRetried caught by "crash::after_an_error_nothing_is_acknowledged_and_nothing_durable_is_lost",
    /// A sync that ends after the first error still acknowledges. Breaks: nothing is acknowledged after the
    /// first error.
    AckAfterError caught by "concurrency::a_sync_that_ends_after_the_first_error_acknowledges_nothing",
    /// The first error does not stop writing. Breaks: the first error is the last.
    GateLeftOpen caught by "crash::after_an_error_nothing_is_acknowledged_and_nothing_durable_is_lost",
    /// Threads that wait are not woken by an error. Breaks: nothing hangs.
    WaitersNotWoken caught by "concurrency::poison_wakes_everybody_with_the_first_cause",
    /// Whoever is done with its own batch leaves without waking the next one. Breaks: nothing hangs.
    WorkNotHandedOn caught by "concurrency::whoever_is_done_with_its_own_batch_wakes_somebody_for_the_others",
    /// Tickets that are due together complete last first. Breaks: tickets complete in order.
    TicketsOutOfOrder caught by "concurrency::tickets_complete_in_the_order_of_their_positions",
    /// Records say that what was only accepted is durable. Breaks: torn is not damaged.
    WatermarkTooFar caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// Records never say that anything of this life is durable. Breaks: what was acknowledged is proven so.
    WatermarkStuck caught by "crash::random_histories_with_crashes_and_errors_match_the_model",
    /// While recovery copies the tail, the copy's own records count as proof that it is complete. Breaks: a
    /// crash inside recovery loses nothing.
    WatermarkInsideTheCopy caught by "torn_copy::a_copy_that_is_synced_half_way_does_not_count_as_complete",
    /// Recovery answers before the copy of the tail is durable. Breaks: what was answered stays.
    CopyNotSealed caught by "crash::a_crash_inside_recovery_starts_over_and_loses_nothing",
    /// A segment counts as written to its end after its first write. Breaks: accepted entries can be read.
    WrittenTooFar caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// The bound on bytes in flight is not looked at. Breaks: memory is bounded.
    InFlightUnbounded caught by "concurrency::beyond_the_bound_on_bytes_in_flight_a_batch_waits_or_comes_back",
    /// An append that finds no space stops all writing. Breaks: a full disk fails that append alone.
    NoSpacePoisons caught by "full_disk::a_full_disk_fails_the_append_that_needs_space_and_nothing_else",
    /// A segment gets a length and no blocks. Breaks: a full disk is met before a batch is accepted.
    SpaceNotReserved caught by "full_disk::a_full_disk_fails_the_append_that_needs_space_and_nothing_else",
    /// The reserve is never made. Breaks: a full store opens and purges.
    NoReserve caught by "full_disk::a_store_on_a_full_disk_opens_and_takes_what_makes_room",
    /// Listeners are not asked before entries are discarded. Breaks: the rollback hook.
    RollbackNotAsked caught by "refused::a_truncation_asks_the_listener_too_and_a_plain_append_does_not",
    /// A listener's refusal is not heeded. Breaks: the rollback hook.
    RefusalIgnored caught by "refused::a_listener_that_refuses_a_rollback_refuses_the_batch_and_is_asked_again",
    /// What a listener approved counts for what the log became meanwhile. Breaks: the rollback hook.
    StaleApprovalTaken caught by "refused::a_log_that_changes_while_a_listener_is_asked_is_shown_to_it_again",
    /// An append below the compaction point is accepted. Breaks: refusals.
    AppendBelowBase caught by "refused::an_append_below_the_compaction_point_is_refused_with_both_indexes",
    /// An append that leaves a gap is accepted. Breaks: logs are contiguous.
    GapAccepted caught by "refused::an_append_that_leaves_a_gap_is_refused_with_both_indexes",
    /// An append that lowers the term is accepted. Breaks: terms never fall.
    TermFalls caught by "refused::an_append_that_lowers_the_term_is_refused_with_both_entries",
    /// A read does not look at the entry's checksum. Breaks: bytes returned are checked.
    EntryNotVerified caught by "damage::a_read_that_finds_damage_tells_the_listener_and_fences_the_entry_alone",
    /// A file is recycled while bytes handed out still lie in it. Breaks: bytes handed out stay what they were.
    MappedFileReused caught by "model::bytes_handed_out_stay_what_they_were_while_their_segment_is_purged_and_reused",
    /// A sector that cannot be read is an error of the system. Breaks: damage is named.
    BadSectorIsNoDamage caught by "damage::a_bad_sector_fails_the_reads_of_its_entries_and_no_later_ones",
    /// Recovery does not look at a description's checksum. Breaks: torn batches are dropped whole.
    DescriptionNotVerified caught by "damage::a_last_record_that_rotted_beyond_mending_is_not_taken_for_a_tear",
    /// Recovery takes a sector that it cannot read for the end of the log. Breaks: damage is never truncated.
    BadSectorEndsTheLog caught by "damage::a_bad_sector_at_the_end_of_the_log_is_never_taken_for_the_end",
    /// A segment gets its name before its header is durable. Breaks: a name stands for a valid file.
    HeaderNotSynced caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// A segment is used before its name is durable. Breaks: acknowledged is durable.
    NameNotSynced caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// A recycled file is dressed anew before its free name is durable. Breaks: a name stands for its own file.
    FreeNameNotSynced caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// A cold segment gets its name before its bytes are durable. Breaks: the cleaner loses nothing.
    ColdNotSynced caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// A recycled file says that it has no life before. Breaks: torn is not damaged.
    FormerLifeForgotten caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// A write that took some of the bytes counts as complete. Breaks: short writes are resumed.
    ShortWriteIsWhole caught by "lib::vfs::io::tests::short_and_interrupted_writes_are_resumed_exactly",
    /// An interrupted write is an error. Breaks: interruptions are survived.
    InterruptedIsFatal caught by "lib::vfs::io::tests::short_and_interrupted_writes_are_resumed_exactly",
    /// Two processes may open one store. Breaks: the lock.
    LockNotTaken caught by "two_processes::a_second_process_is_locked_out_before_it_creates_anything",
    /// Checksums do not cover the segment's number. Breaks: bytes of another file never verify.
    SegmentLeftOut caught by "lib::format::file_header::tests::each_part_of_the_identity_changes_the_seed",
    /// Checksums do not cover the salt. Breaks: bytes of a former life never verify.
    SaltLeftOut caught by "lib::format::file_header::tests::each_part_of_the_identity_changes_the_seed",
    /// A store of a newer version is opened. Breaks: it is refused without writing a byte.
    NewerVersionRead caught by "golden::newer_version_or_unknown_flag_is_refused_without_writing_a_byte",
    /// A store with unknown flags is opened. Breaks: it is refused without writing a byte.
    UnknownFlagsRead caught by "golden::newer_version_or_unknown_flag_is_refused_without_writing_a_byte",
    /// The second copy of a segment's header is not looked at. Breaks: one rotten sector takes no segment.
    SecondHeaderIgnored caught by "lib::format::file_header::tests::one_rotten_sector_does_not_take_the_segment",
    /// A record that was written for another place is taken. Breaks: misdirected writes are found.
    PositionNotChecked caught by "lib::format::record::tests::record_of_another_life_or_place_is_refused",
    /// The checksum of a record's header is not looked at. Breaks: torn batches are dropped whole.
    RecordNotVerified caught by "lib::format::record::tests::every_flipped_bit_is_detected",
    /// The checksum over a footer's net effects is not looked at. Breaks: a rotten footer is built anew.
    FooterNotVerified caught by "damage::no_flipped_bit_of_a_footer_that_is_replayed_changes_what_is_there",
    /// The checksums of a checkpoint's chunks are not looked at. Breaks: a rotten checkpoint gives way to the
    /// one before.
    CheckpointNotVerified caught by "lib::format::checkpoint::tests::every_flipped_bit_is_detected",
    /// A compressed block may claim any length. Breaks: hostile bytes allocate nothing.
    BombNotBounded caught by "lib::codec::compress::tests::decompression_bomb_is_refused_before_it_is_allocated_for",
    /// A count may exceed what the bytes left can hold. Breaks: hostile bytes allocate nothing.
    CountNotBounded caught by "lib::codec::reader::tests::count_beyond_the_bytes_left_is_refused",
    /// A destroyed region comes back at replay. Breaks: destroyed stays destroyed.
    DestroyLost caught by "crash::random_histories_with_crashes_and_errors_match_the_model",
    /// A reset is replayed as a compaction. Breaks: old log or new log, never a mix.
    ResetReplayedAsCompaction caught by "crash::random_histories_with_crashes_and_errors_match_the_model",
    /// A truncation is not replayed. Breaks: discarded entries never come back.
    TruncationLost caught by "crash::random_histories_with_crashes_and_errors_match_the_model",
    /// A compaction is not replayed. Breaks: compacted entries never come back.
    CompactionLost caught by "crash::random_histories_with_crashes_and_errors_match_the_model",
    /// Replay keeps the hard state that it has. Breaks: term and vote never go back.
    OldHardStateWins caught by "crash::random_histories_with_crashes_and_errors_match_the_model",
    /// Replay keeps metadata that was deleted. Breaks: recovered state is what was accepted.
    DeletionLost caught by "crash::random_histories_with_crashes_and_errors_match_the_model",
    /// Replay applies a segment to its first region only. Breaks: a batch is whole over its regions.
    OnlyFirstRegionReplayed caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// A compaction forgets the term of its last entry. Breaks: the compaction point answers for ever.
    BaseTermForgotten caught by "refused::reads_outside_the_log_say_which_side_they_missed_it_on",
    /// A checkpoint leaves out what is known to be damaged. Breaks: damage stays known.
    DamageForgotten caught by "damage::a_scrub_finds_rot_in_sealed_and_in_active_segments_and_names_each_entry",
    /// With a damaged entry its neighbours are fenced. Breaks: damage stays where it is.
    NeighboursFenced caught by "damage::a_read_that_finds_damage_tells_the_listener_and_fences_the_entry_alone",
    /// The cleaner's copy is installed over entries written since. Breaks: discarded entries never come back.
    CopyOverNewerEntries caught by "crash::random_histories_with_crashes_and_errors_match_the_model",
    /// What lies behind the cleaner's copy in the same run is dropped. Breaks: the cleaner loses nothing.
    CleanerDropsTheRest caught by "damage::the_cleaner_leaves_a_damaged_entry_where_it_is_and_loses_nothing",
    /// The cleaner gives a rotten entry a new checksum. Breaks: checksums are for life.
    CleanerLaundersRot caught by "damage::the_cleaner_leaves_a_damaged_entry_where_it_is_and_loses_nothing",
    /// An installed copy is answered for before its record is durable. Breaks: a repair is durable on return.
    InstallNotSynced caught by "damage::a_repair_takes_only_what_was_recorded_and_survives_a_reopen",
    /// A segment counts though it follows a record that cannot be found. Breaks: what lies behind a hole never returns.
    PredecessorNotChecked caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// What a former recovery cut off counts again. Breaks: torn batches never come back.
    TailNotCutOff caught by "crash::a_crash_inside_recovery_starts_over_and_loses_nothing",
    /// A copy of the tail that was never finished cuts off the original. Breaks: a crash inside recovery loses
    /// nothing.
    TornCopyBelieved caught by "torn_copy::torn_copy_of_an_acknowledged_tail_takes_nothing_with_it",
    /// A hole below the watermark ends the log. Breaks: damage is never truncated.
    HoleTakenForTear caught by "flip::no_zeroed_sector_loses_an_acknowledged_entry_without_a_word",
    /// Recovery answers with batches that may be in the page cache only. Breaks: what was answered stays.
    TailNotWrittenAnew caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// Recovery does not look at the payloads of the tail. Breaks: torn batches are dropped whole.
    TailNotVerified caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// A segment of another store is taken. Breaks: foreign files are ignored.
    StoreNotChecked caught by "damage::a_segment_of_another_store_is_never_taken_for_ours",
    /// A file that is not ours is removed at open. Breaks: foreign files are left alone.
    UnknownFileRemoved caught by "refused::what_is_not_ours_in_the_directory_is_left_alone",
    /// A checkpoint gets its name before the log it tells of is durable. Breaks: a checkpoint knows nothing
    /// that a crash could undo.
    CheckpointBeforeLogSync caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// A checkpoint gets its name before its bytes are durable. Breaks: a name stands for a valid file.
    CheckpointNotSynced caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// Only the newest checkpoint is kept. Breaks: the newest may rot.
    OneCheckpointKept caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// A dead segment is removed before any checkpoint is without it. Breaks: purge loses nothing.
    UnlinkBeforeCheckpoint caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// A segment is removed that only the newest checkpoint can do without. Breaks: the newest may rot.
    OlderCheckpointUnheeded caught by "checkpoints::the_newest_checkpoint_may_rot_after_a_purge_at_any_time",
    /// A repair accepts any payload. Breaks: a wrong replica cannot slip in another entry.
    RepairTakesAnything caught by "damage::a_repair_takes_only_what_was_recorded_and_survives_a_reopen",
    /// The scrubber does not look at unsealed segments. Breaks: a scrub reads every live entry.
    ScrubSkipsActive caught by "damage::a_scrub_finds_rot_in_sealed_and_in_active_segments_and_names_each_entry",
    /// The scrubber does not look at headers and descriptions of records. Breaks: what a footer is built from is right.
    ScrubSkipsRecords caught by "scrub::a_scrub_moves_what_lives_out_of_a_segment_with_a_rotten_description",
    /// A file that a backup links is used again for another life. Breaks: a backup stays what it was.
    LinkedFileReused caught by "backup::a_backup_stays_what_it_was_whatever_becomes_of_the_store",
    /// What a backup copies is not synced. Breaks: a backup is durable on return.
    BackupNotSynced caught by "backup::a_backup_has_everything_that_was_acknowledged_and_is_durable_on_return",
    /// Zeros that a record has of itself are taken for a tear. Breaks: what may have been acknowledged is not dropped.
    OwnZerosTakenForTear caught by "lost_votes::a_rotten_last_record_that_ends_in_zeros_is_not_taken_for_torn",
    /// The scrubber does not look at checkpoints. Breaks: there are two good ones.
    ScrubSkipsCheckpoints caught by "scrub::a_rotten_checkpoint_is_replaced_by_two",
    /// A checkpoint leaves out which entries are suspect. Breaks: what may have been acknowledged stays in doubt.
    SuspectForgotten caught by "suspects::a_wrong_entry_of_the_last_group_is_kept_and_suspect_in_this_life_and_in_later_ones",
    /// What was suspect is called damaged. Breaks: damage is what was acknowledged for certain.
    SuspectCalledDamaged caught by "suspects::a_wrong_entry_of_the_last_group_is_kept_and_suspect_in_this_life_and_in_later_ones",
    /// Loss that was accepted costs no hard state. Breaks: a vote never goes back unnoticed.
    LossNotSaid caught by "accept_loss::damage_below_the_watermark_is_refused_and_given_up_only_when_told_so",
    /// Proven damage ends the log also when nobody accepted the loss. Breaks: damage is never truncated.
    LossAlwaysAccepted caught by "accept_loss::damage_below_the_watermark_is_refused_and_given_up_only_when_told_so",
    /// A segment gets its footer before its records are durable. Breaks: a footer proves its records.
    SealedBeforeSync caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// A lookup denies an entry that is damaged. Breaks: a lookup denies only what is certain.
    DamagedDenied caught by "damage::a_lookup_denies_an_entry_only_when_that_is_certain",
    /// A read whose limit is small returns no entry. Breaks: a read returns at least one.
    LimitOfZeroReadsNothing caught by "refused::reads_outside_the_log_say_which_side_they_missed_it_on",
    /// A read returns more bytes than its limit. Breaks: memory is bounded.
    LimitExceeded caught by "refused::a_read_stops_at_its_limit",
    /// The digest of a range does not cover the terms. Breaks: replicas that differ are told apart.
    DigestWithoutTerm caught by "damage::the_digest_covers_each_bit_of_payloads_and_terms",
    /// The digest of a range covers lengths and no bytes. Breaks: replicas that differ are told apart.
    DigestWithoutBytes caught by "damage::the_digest_covers_each_bit_of_payloads_and_terms",
    /// Open relies on names that may not be durable. Breaks: a crash inside recovery loses nothing.
    DirectoryNotSyncedAtOpen caught by "kill_then_cut::a_power_cut_while_a_killed_store_is_opened_loses_nothing",
}

/// Whether the engine makes this mistake.
#[cfg(not(planted))]
#[inline(always)]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

/// Whether the engine makes this mistake.
#[cfg(planted)]
pub(crate) fn planted(bug: Bug) -> bool {
    static PLANTED: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    *PLANTED.get_or_init(named) == Some(bug)
}

/// The mistake that the environment names. A name that nobody knows must not pass for a run in which nothing was caught.
#[cfg(planted)]
fn named() -> Option<Bug> {
    let name = std::env::var("RAFTWOOD_PLANT").ok().filter(|name| !name.is_empty())?;
    let found = BUGS.iter().find(|bug| bug.1 == name);
    if found.is_none() {
        eprintln!("RAFTWOOD_PLANT={name}: there is no such mistake in src/planted.rs");
        std::process::abort();
    }
    found.map(|bug| bug.0)
}

#[cfg(all(test, planted))]
mod tests {
    use super::BUGS;

    /// `.ci/planted` reads what this prints.
    #[test]
    fn each_has_a_name_of_its_own_and_a_test_that_notices_it() {
        for (n, (_, name, what, catcher)) in BUGS.iter().enumerate() {
            assert!(BUGS[..n].iter().all(|other| other.1 != *name));
            assert!(catcher.contains("::") && !what.contains('\t'));
            println!("bug\t{name}\t{catcher}\t{}", what.trim());
        }
        assert!(BUGS.len() >= 30);
    }
}
