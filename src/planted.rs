//! Mistakes planted on purpose, to show that the tests would notice them.
//!
//! Without `--cfg planted` nothing of this is compiled: [`planted`] is a constant `false`. With it, the
//! environment variable `RAFTWOOD_PLANT` names the one mistake that the engine makes. `.ci/planted`
//! plants each in turn and shows which ordinary test fails. No test looks at the name of a mistake: it
//! must fail by what the mistake does.
//!
//! Mistakes that a disk can make stand in `vfs/faulty.rs`, which is built with them alone. Those that would
//! bend a sentence of the engine's hot path are no part of the code: they are the patches in `tests/planted`.

/// Declares the mistakes: what each breaks, and the test that is expected to notice it first, as
/// `file::test`.
macro_rules! bugs {
    ($($(#[doc = $what:literal])+ $name:ident caught by $catcher:literal,)+) => {
        /// A mistake that can be planted.
        #[cfg_attr(not(planted), allow(dead_code, reason = "what a disk does is built with them alone"))]
        #[cfg_attr(not(feature = "openraft-010-bare"), allow(dead_code, reason = "an adapter's mistakes are built with it"))]
        #[cfg_attr(not(feature = "raft-rs"), allow(dead_code, reason = "some are made by the adapters alone"))]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Bug {
            $($(#[doc = $what])+ #[doc = concat!("Caught by ", $catcher, ".")] $name,)+
        }

        #[cfg(planted)]
        const BUGS: &[(Bug, &str)] = &[$((Bug::$name, stringify!($name)),)+];
    };
}

bugs! {
    /// A batch is acknowledged when it is written. Breaks: acknowledged is durable.
    AckBeforeSync caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// The sync stage syncs nothing. Breaks: acknowledged is durable.
    SyncForgotten caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// A failed sync is repeated, and its second answer believed. Breaks: a failed sync is never retried.
    FailedSyncRetried caught by "crash::after_an_error_nothing_is_acknowledged_and_nothing_durable_is_lost",
    /// A sync that ends after the first error still acknowledges. Breaks: nothing is acknowledged after the
    /// first error.
    AckAfterError caught by "concurrency::a_sync_that_ends_after_the_first_error_acknowledges_nothing",
    /// The first error does not stop writing. Breaks: the first error is the last.
    GateLeftOpen caught by "crash::after_an_error_nothing_is_acknowledged_and_nothing_durable_is_lost",
    /// Threads that wait are not woken by an error. Breaks: nothing hangs.
    WaitersNotWoken caught by "concurrency::poison_wakes_everybody_with_the_first_cause",
    /// The threads of a group that is settled are not woken. Breaks: nothing hangs.
    GroupNotWoken caught by "concurrency::a_thread_that_is_done_with_its_own_batch_wakes_somebody_for_the_others",
    /// What waits for the next sync is not written while the one under way hangs. Breaks: a kill
    /// costs a millisecond at most.
    DeferredForLong caught by "concurrency::groups::what_waits_for_the_next_sync_is_written_while_the_one_under_way_hangs",
    /// What has only to be written waits for the sync under way. Breaks: what is to be written is
    /// not kept back.
    WrittenDeferred caught by "concurrency::groups::what_is_only_to_be_written_is_not_kept_back_by_a_sync",
    /// A thread that is done with its own batch leaves without waking the next one. Breaks: nothing hangs.
    WorkNotHandedOn caught by "concurrency::a_thread_that_is_done_with_its_own_batch_wakes_somebody_for_the_others",
    /// A callback that panics takes those after it along. Breaks: nothing hangs.
    PanicEndsDelivery caught by "callbacks::a_callback_that_panics_ends_itself_and_nothing_else",
    /// A sleep for a rate lasts a second at most. Breaks: a rate is kept.
    RateNotKept caught by "lib::upkeep::pace::tests::a_rate_is_kept_whatever_the_size_of_a_piece",
    /// The cleaner copies with the turn of upkeep in its hands. Breaks: nothing waits for a slow copy.
    CopiesInUpkeep caught by "scrub::a_slow_cleaner_holds_up_neither_a_purge_nor_a_checkpoint_nor_a_close",
    /// What upkeep does with the disk is not watched. Breaks: a disk that hangs is noticed.
    UpkeepNotWatched caught by "callbacks::a_disk_that_hangs_is_reported_whichever_thread_waits_for_it_and_its_end_too",
    /// A batch that another engine made is accepted. Breaks: what was checked while a batch was built holds.
    ForeignBatchTaken caught by "refused::a_batch_of_another_engine_is_refused",
    /// Entries that get other indexes than were foreseen keep the checksums of those. Breaks: what was
    /// acknowledged can be read.
    ChecksumOfBuilding caught by "deferred::what_is_appended_next_comes_after_the_last_entry_when_the_batch_is_accepted",
    /// A batch that does not fit into another one is emptied all the same. Breaks: a refusal changes nothing.
    RefusedBatchEmptied caught by "deferred::batches_that_do_not_fit_together_stay_as_they_were",
    /// A log may be forgotten and nothing put in its place. Breaks: a hard state has the log that it speaks
    /// of.
    LogForgottenForGood caught by "refused::a_log_is_forgotten_only_for_another_one_and_not_unasked",
    /// Nobody is asked when a log is forgotten. Breaks: a listener sees what is discarded before it is gone.
    ForgottenUnasked caught by "refused::a_log_is_forgotten_only_for_another_one_and_not_unasked",
    /// A reset discards entries unasked. Breaks: a listener sees what is discarded before it is gone.
    ResetUnasked caught by "rollback::a_reset_and_a_destroy_ask_for_what_is_not_known_to_be_committed_or_for_all",
    /// What a listener adds to a batch is written before it. Breaks: evidence is there when the rollback is,
    /// and only then.
    EvidenceApart caught by "evidence::a_crash_leaves_the_rollback_with_its_evidence_or_neither",
    /// A batch that returns to a region is applied section by section. Breaks: a reader sees the
    /// whole of a batch or nothing.
    BatchAppliedInParts caught by "concurrency::a_batch_that_returns_to_a_region_is_seen_whole_or_not_at_all",
    /// Tickets that are due together complete last first. Breaks: tickets complete in order.
    TicketsOutOfOrder caught by "concurrency::tickets_complete_in_the_order_of_their_positions",
    /// Recovery answers before the copy of the tail is durable. Breaks: what was answered stays.
    CopyNotSealed caught by "crash::a_crash_inside_recovery_starts_over_and_loses_nothing",
    /// A segment counts as written to its end after its first write. Breaks: accepted entries can be read.
    WrittenTooFar caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// Zeros are written into a segment that records are written to. Breaks: what was written stays.
    ZerosOverRecords caught by "lib::segment::fill::tests::no_zero_is_written_once_the_segment_is_claimed",
    /// Segments are filled although a sync covers much. Breaks: what is written twice saves more
    /// than it costs.
    FilledForNothing caught by "concurrency::segments_are_filled_only_where_a_sync_covers_little",
    /// Two threads prepare segments at once, which become ready out of order. Breaks: the log
    /// never goes back.
    TwoPrepareAtOnce caught by "concurrency::positions_rise_while_others_tick",
    /// Handles of a closed engine still make, name and remove files. Breaks: a closed engine touches nothing.
    ClosedEngineWorks caught by "closing::every_call_that_could_change_something_says_that_the_engine_is_closed",
    /// A second close does not wait for the first. Breaks: what close says is so.
    SecondCloseDoesNotWait caught by "closing::a_second_close_waits_for_the_first_and_says_what_it_came_to",
    /// A thread waits for its turn of upkeep while the engine is being closed by a listener of the one that
    /// has it. Breaks: nothing hangs.
    TurnAwaitedInClose caught by "closing::a_close_by_a_listener_of_a_purge_does_not_wait_for_threads_that_wait_for_the_purge",
    /// A base counts as durable when it is accepted. Breaks: nothing is called durable that is not.
    BaseDurableAtOnce caught by "closing::nothing_is_called_durable_ahead_of_the_device",
    /// A close writes its checkpoint and leaves the last segment without a footer. Breaks: a closed
    /// store has nothing to replay.
    CloseLeavesUnsealed caught by "closing::a_closed_store_has_nothing_to_replay_and_a_lost_sector_takes_what_was_in_it",
    /// Segments of killed runs wait for checkpoints that are never due. Breaks: restarts
    /// leave nothing behind.
    KilledRunsPileUp caught by "reopening::killed_runs_leave_no_more_than_the_live_data_needs",
    /// A full disk of a copy-on-write file system stops an open for good. Breaks: a full store opens.
    FullDiskPoisonsOpen caught by "reopening::a_full_disk_that_fails_writes_over_old_blocks_does_not_keep_a_store_from_opening",
    /// The bound on bytes in flight is not looked at. Breaks: memory is bounded.
    InFlightUnbounded caught by "concurrency::beyond_the_bound_on_bytes_in_flight_a_batch_waits_or_comes_back",
    /// An append that finds no space stops all writing. Breaks: a full disk fails that append alone.
    NoSpacePoisons caught by "full_disk::a_full_disk_fails_the_append_that_needs_space_and_nothing_else",
    /// A segment gets a length and no blocks. Breaks: a full disk is met before a batch is accepted.
    SpaceNotReserved caught by "full_disk::a_full_disk_fails_the_append_that_needs_space_and_nothing_else",
    /// An append below the compaction point is accepted. Breaks: refusals.
    AppendBelowBase caught by "refused::an_append_below_the_compaction_point_is_refused_with_both_indexes",
    /// An append that leaves a gap is accepted. Breaks: logs are contiguous.
    GapAccepted caught by "refused::an_append_that_leaves_a_gap_is_refused_with_both_indexes",
    /// An append that lowers the term is accepted. Breaks: terms never fall.
    TermFalls caught by "refused::an_append_that_lowers_the_term_is_refused_with_both_entries",
    /// A read does not look at the entry's checksum. Breaks: bytes returned are checked.
    EntryNotVerified caught by "damage::a_read_that_finds_damage_tells_the_listener_and_fences_the_entry_alone",
    /// A file is recycled while bytes handed out still lie in it. Breaks: bytes handed out stay
    /// what they were.
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
    /// A recycled file is formatted again before its free name is durable. Breaks: a name stands for
    /// its own file.
    FreeNameNotSynced caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// A cold segment gets its name before its bytes are durable. Breaks: the cleaner loses nothing.
    ColdNotSynced caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// A recycled file says that it has no generation before. Breaks: torn is not damaged.
    FormerGenerationForgotten caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// A whole but stale copy of a segment's header is believed, though the other one fits the file. Breaks:
    /// one lost block costs what it held.
    StaleHeaderBelieved caught by "checkpoints::a_stale_copy_of_a_segments_header_is_replaced_by_the_one_that_fits",
    /// A store whose mark is gone opens as if nothing were missing. Breaks: nothing acknowledged
    /// is lost without a word.
    MissingMarkUnheeded caught by "marks::a_killed_store_without_its_mark_is_refused_and_a_closed_one_is_not",
    /// What stood before a gap of the log is answered again. Breaks: what was taken back stays away.
    GapNotFenced caught by "accept_loss::what_stood_before_a_gap_is_given_up_when_all_checkpoints_are_lost",
    /// What follows a write that stopped within a sector is written without a sync of that sector.
    /// Breaks: a crash alone is no alarm.
    SectorLeftInHalves caught by "lib::vfs::io::tests::a_crash_leaves_no_sector_in_halves_with_something_after_it",
    /// A write that took some of the bytes counts as complete. Breaks: short writes are resumed.
    ShortWriteIsWhole caught by "crash::random_histories_with_crashes_and_errors_match_the_model",
    /// An interrupted write is an error. Breaks: interruptions are survived.
    InterruptedIsFatal caught by "crash::random_histories_with_crashes_and_errors_match_the_model",
    /// Two processes may open one store. Breaks: the lock.
    LockNotTaken caught by "two_processes::a_second_process_is_locked_out_before_it_creates_anything",
    /// A file is named by the path of its directory. Breaks: an engine stays in its directory.
    PathLookedUpAgain caught by "store_files::an_engine_stays_in_its_directory_whatever_becomes_of_the_path",
    /// A store on a full disk does not open while its directory cannot be synced. Breaks: a full
    /// disk loses nothing.
    FullDiskKeepsClosed caught by "restarts::no_space_and_a_read_only_disk_at_any_call_of_open_recovery_and_close_lose_nothing",
    /// A free file becomes a log although the device cannot read it. Breaks: one fault costs what it hit.
    BadFreeFileUsed caught by "store_files::a_free_file_that_the_device_cannot_read_is_dropped_before_it_is_a_log",
    /// What is removed or replaced may be a link or a directory. Breaks: nothing of others is touched.
    LinkRemoved caught by "lib::vfs::os::tests::links_fifos_and_directories_are_never_opened_removed_or_replaced",
    /// An engine works on in a fork of its process. Breaks: one engine a store.
    ForkGoesOn caught by "store_files::an_engine_in_a_fork_answers_closed_and_its_drop_changes_nothing",
    /// A fork that drops its copy of an engine unlocks the parent's store. Breaks: one engine a store.
    ForkUnlocks caught by "store_files::an_engine_in_a_fork_answers_closed_and_its_drop_changes_nothing",
    /// Nobody looks whether the files still have their names. Breaks: acked means durable.
    NamesNotWatched caught by "store_files::a_log_that_loses_its_name_stops_the_engine_within_a_second",
    /// The directory is not locked, only the file in it. Breaks: one engine a store, also when
    /// `LOCK` was removed.
    DirectoryNotLocked caught by "store_files::a_lock_file_that_was_removed_lets_nobody_in",
    /// Checksums do not cover the segment's number. Breaks: bytes of another file never verify.
    SegmentLeftOut caught by "lib::format::file_header::tests::each_part_of_the_identity_changes_the_seed",
    /// Checksums do not cover the salt. Breaks: bytes of a former generation never verify.
    SaltLeftOut caught by "lib::format::file_header::tests::each_part_of_the_identity_changes_the_seed",
    /// A store of a newer version is opened. Breaks: it is refused without writing a byte.
    NewerVersionRead caught by "golden::newer_version_or_unknown_flag_is_refused_without_writing_a_byte",
    /// A store with unknown flags is opened. Breaks: it is refused without writing a byte.
    UnknownFlagsRead caught by "golden::newer_version_or_unknown_flag_is_refused_without_writing_a_byte",
    /// The second copy of a segment's header is not looked at. Breaks: one rotten sector takes no segment.
    SecondHeaderIgnored caught by "lib::format::file_header::tests::one_rotten_block_does_not_take_the_segment",
    /// A record that was written for another place is taken. Breaks: misdirected writes are found.
    PositionNotChecked caught by "lib::format::record::tests::record_of_another_life_or_place_is_refused",
    /// The checksum of a record's header is not looked at. Breaks: torn batches are dropped whole.
    RecordNotVerified caught by "lib::format::record::tests::every_flipped_bit_is_detected",
    /// The checksum over a footer's net effects is not looked at. Breaks: a rotten footer is rebuilt.
    FooterNotVerified caught by "damage::no_flipped_bit_of_a_footer_that_is_replayed_changes_what_is_there",
    /// The checksums of a checkpoint's chunks are not looked at. Breaks: a rotten checkpoint is
    /// replaced by the one before.
    CheckpointNotVerified caught by "lib::format::checkpoint::tests::every_flipped_bit_is_detected",
    /// A compressed block may claim any length. Breaks: hostile bytes allocate nothing.
    BombNotBounded caught by "lib::codec::compress::tests::decompression_bomb_is_refused_before_it_is_allocated_for",
    /// A count may exceed what the bytes left can hold. Breaks: hostile bytes allocate nothing.
    CountNotBounded caught by "lib::codec::cursor::tests::count_beyond_the_bytes_left_is_refused",
    /// A destroyed region comes back at replay. Breaks: destroyed stays destroyed.
    DestroyLost caught by "crash::random_histories_with_crashes_and_errors_match_the_model",
    /// A purge forgets no region that was destroyed. Breaks: memory is bounded by what there is.
    DestroyedKept caught by "heap::what_was_destroyed_leaves_the_heap_with_the_next_purge",
    /// A truncation is not replayed. Breaks: discarded entries never come back.
    TruncationLost caught by "crash::random_histories_with_crashes_and_errors_match_the_model",
    /// A compaction is not replayed. Breaks: compacted entries never come back.
    CompactionLost caught by "crash::random_histories_with_crashes_and_errors_match_the_model",
    /// Replay keeps metadata that was deleted. Breaks: recovered state is what was accepted.
    DeletionLost caught by "crash::random_histories_with_crashes_and_errors_match_the_model",
    /// Replay applies a segment to its first region only. Breaks: a batch is whole over its regions.
    OnlyFirstRegionReplayed caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// What lies past the cleaner's copy in the same run is dropped. Breaks: the cleaner loses nothing.
    CleanerDropsTheRest caught by "damage::the_cleaner_leaves_a_damaged_entry_where_it_is_and_loses_nothing",
    /// An extent that is cut gives nothing back. Breaks: a segment counts what lives in it.
    CutKeepsItsShare caught by "lib::index::tests::whatever_is_done_to_a_log_its_segments_count_what_it_owns_in_them",
    /// A sealed segment keeps its descriptor. Breaks: the number of segments is not limited by
    /// that of descriptors.
    DescriptorPerSegment caught by "two_processes::a_small_limit_of_descriptors_is_enough_for_any_number_of_segments",
    /// The cleaner gives a rotten entry a new checksum. Breaks: checksums are for life.
    CleanerLaundersRot caught by "damage::the_cleaner_leaves_a_damaged_entry_where_it_is_and_loses_nothing",
    /// An installed copy is answered for before its record is durable. Breaks: a repair is durable on return.
    InstallNotSynced caught by "damage::a_repair_takes_only_what_was_recorded_and_survives_a_reopen",
    /// A segment counts though it follows a record that cannot be found. Breaks: what lies past a
    /// hole never returns.
    PredecessorNotChecked caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// What a former recovery cut off counts again. Breaks: torn batches never come back.
    TailNotCutOff caught by "crash::a_crash_inside_recovery_starts_over_and_loses_nothing",
    /// What follows an end of the log confirms it, though nothing of it is known durable. Breaks: damage
    /// is never mistaken for a tear.
    UnfinishedCopyBelieved caught by "torn_copy::an_unfinished_copy_does_not_stand_for_its_original",
    /// Recovery does not say which records it is about to copy. Breaks: rot of a record that was read whole
    /// is never mistaken for a tear.
    CopyNotAnnounced caught by "torn_copy::rot_of_an_announced_record_is_never_taken_for_a_tear",
    /// What an unfinished copy announces is not looked at. Breaks: rot of a record that was read whole
    /// is never mistaken for a tear.
    AnnouncementUnheeded caught by "torn_copy::rot_of_an_announced_record_is_never_taken_for_a_tear",
    /// The mark says that the copy of the tail is whole before it is. Breaks: a crash inside
    /// recovery loses nothing.
    MarkBeforeSync caught by "crash::a_crash_inside_recovery_starts_over_and_loses_nothing",
    /// The mark is not synced before what it proves is relied on. Breaks: the original is given back
    /// only once its copy is proved.
    MarkNotSynced caught by "marks::a_crash_while_a_store_is_made_leaves_none_or_one_with_a_mark",
    /// What the mark says is not looked at. Breaks: what was acknowledged is never missed without a word.
    MarkNotBelieved caught by "marks::the_last_sector_of_an_idle_log_is_missed",
    /// Without a checkpoint the regions are rebuilt from a log with gaps. Breaks: what was rolled
    /// back or destroyed never returns.
    GapAcceptedAtRebuild caught by "accept_loss::what_stood_before_a_gap_is_given_up_when_all_checkpoints_are_lost",
    /// The files that show an unclean end go without a checkpoint that shows it. Breaks: a run that
    /// was killed is known for one.
    UncleanEndForgotten caught by "marks::a_run_of_which_nothing_but_a_name_is_left_ended_uncleanly",
    /// A copy of the tail that was never finished cuts off the original. Breaks: a crash inside
    /// recovery loses nothing.
    TornCopyBelieved caught by "torn_copy::torn_copy_of_an_acknowledged_tail_takes_nothing_with_it",
    /// A hole below the watermark ends the log. Breaks: damage is never truncated.
    HoleTakenForTear caught by "flip::no_zeroed_sector_loses_an_acknowledged_entry_without_a_word",
    /// Recovery answers with batches that may be in the page cache only. Breaks: what was answered stays.
    TailNotRewritten caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// Recovery does not look at the payloads of the tail. Breaks: torn batches are dropped whole.
    TailNotVerified caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// A segment of another store is taken. Breaks: foreign files are ignored.
    StoreNotChecked caught by "damage::a_segment_of_another_store_is_never_taken_for_ours",
    /// A file that is not ours is removed at open. Breaks: foreign files are left alone.
    UnknownFileRemoved caught by "refused::what_is_not_ours_in_the_directory_is_left_alone",
    /// A checkpoint gets its name before the log it speaks of is durable. Breaks: a checkpoint knows nothing
    /// that a crash could undo.
    CheckpointBeforeLogSync caught by "model::any_history_reads_back_as_the_model_says_and_survives_any_crash",
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
    /// The scrubber does not look at headers and descriptions of records. Breaks: what a footer is
    /// built from is right.
    ScrubSkipsRecords caught by "scrub::a_scrub_moves_what_lives_out_of_a_segment_with_a_rotten_description",
    /// A file that a backup links is used again for another generation. Breaks: a backup stays what it was.
    LinkedFileReused caught by "backup::a_backup_stays_what_it_was_whatever_becomes_of_the_store",
    /// What a backup copies is not synced. Breaks: a backup is durable on return.
    BackupNotSynced caught by "backup::a_backup_has_everything_that_was_acknowledged_and_is_durable_on_return",
    /// A restore leaves no mark before it writes. Breaks: what is restored by half is no store.
    RestoreNotMarked caught by "restore::a_crash_at_any_call_leaves_no_store_or_a_whole_one_and_calling_again_makes_it",
    /// What is restored keeps its hard states. Breaks: a copy that forgot its votes does not vote.
    RestoredVotesBelieved caught by "restore::a_restored_store_has_every_entry_and_no_hard_state_that_it_may_act_on",
    /// Zeros that a record has of itself are mistaken for a tear. Breaks: what may have been
    /// acknowledged is not dropped.
    OwnZerosTakenForTear caught by "lost_votes::a_rotten_last_record_that_ends_in_zeros_is_not_taken_for_torn",
    /// The scrubber does not look at checkpoints. Breaks: there are two good ones.
    ScrubSkipsCheckpoints caught by "scrub::a_rotten_checkpoint_is_replaced_by_good_ones",
    /// A vote that is older than an unclean end of the store is answered as committed. Breaks: a leader that
    /// lost its tail does not lead on.
    OldLeaderBelieved caught by "openraft_cluster::cluster_010::a_leader_that_a_power_cut_robbed_of_its_tail_does_not_lead_on",
    /// A store that was taken over writes on. Breaks: a region has one writer.
    TakenOverWrites caught by "openraft_010::writers::a_store_that_was_taken_over_writes_nothing_more",
    /// An entry is not read back before it is appended. Breaks: what is acknowledged can be read.
    UnreadableAppended caught by "openraft_010::stored::a_command_that_cannot_be_read_back_is_refused_and_the_group_lives_on",
    /// Loss that was accepted costs no hard state. Breaks: a vote never goes back unnoticed.
    LossNotSaid caught by "accept_loss::damage_below_the_watermark_is_refused_and_given_up_only_when_told_so",
    /// Proven damage ends the log also when nobody accepted the loss. Breaks: damage is never truncated.
    LossAlwaysAccepted caught by "accept_loss::damage_below_the_watermark_is_refused_and_given_up_only_when_told_so",
    /// A segment gets its footer before its records are durable. Breaks: a footer proves its records.
    SealedBeforeSync caught by "crash::every_crash_leaves_a_prefix_that_holds_all_that_was_acknowledged",
    /// A lookup denies an entry that is damaged. Breaks: a lookup denies only what is certain.
    DamagedDenied caught by "damage::a_lookup_denies_an_entry_only_when_that_is_certain",
    /// A read returns more bytes than its limit. Breaks: memory is bounded.
    LimitExceeded caught by "refused::a_read_stops_at_its_limit",
    /// A compressed block goes on into the next region. Breaks: a flipped bit costs no other region anything.
    BlockAcrossRegions caught by "damage::a_flipped_bit_in_a_compressed_batch_costs_one_region",
    /// A reader beside an engine does not look again when names changed. Breaks: a store that is
    /// purged is not damaged.
    ReaderLooksOnce caught by "two_processes::a_reader_beside_a_purge_is_never_told_of_damage",
    /// A reader calls all that it finds durable. Breaks: nothing is called durable that is not.
    UnprovenIsDurable caught by "reader::what_is_not_known_to_be_on_the_device_is_told_apart",
    /// A read beside an engine believes that its file is still the segment that it was. Breaks: a store that
    /// is purged is not damaged.
    ReaderTrustsItsFiles caught by "reader::a_file_that_was_given_back_is_no_damage_and_none_of_its_bytes_get_out",
    /// A reader shows all that was written. Breaks: what a reader shows is there after a power cut.
    ReaderShowsUnproven caught by "reader::power_cut::no_power_cut_takes_what_a_reader_showed",
    /// A tail of the log shows records as durable that are only written. Breaks: nothing is called
    /// durable that is not.
    TailShowsUnproven caught by "records::only_what_is_known_to_be_durable_is_shown_unless_asked",
    /// A tail of the log believes that its file is still the segment that it was. Breaks: a store
    /// that is purged is not damaged.
    TailTrustsItsFiles caught by "records::what_was_given_back_since_the_look_is_gone_and_no_damage",
    /// A tail of the log goes on in the next segment, whatever that follows. Breaks: a follower
    /// that lost its place says so.
    TailJumps caught by "records::killed::a_follower_goes_on_across_a_restart_that_cuts_the_log_and_says_so",
    /// A check beside an engine judges the batch that is being written. Breaks: what was not
    /// acknowledged is not damaged.
    BatchInFlightCalledDamage caught by "two_processes::a_check_beside_an_engine_judges_what_was_durable_and_nothing_else",
    /// A header or checkpoint that the device cannot read is damage. Breaks: an I/O error is worth a retry.
    UnreadIsDamaged caught by "io_errors::what_the_device_refuses_once_is_read_and_for_good_is_an_io_error",
    /// A mark that only the page cache has is relied upon. Breaks: a crash inside recovery loses nothing.
    MarkInCacheBelieved caught by "marks::a_mark_that_only_the_cache_had_is_not_relied_upon",
    /// What says that recovery's copy is whole stands in one slot of the mark. Breaks: one lost sector costs
    /// no more than itself.
    MarkInOneSlot caught by "marks::one_slot_of_the_mark_may_be_lost_after_a_recovery",
    /// Nothing that was written is copied into the log. Breaks: one lost sector costs no more than itself.
    CopiesNotWritten caught by "copies::a_lost_description_of_a_busy_store_affects_no_entry",
    /// A copy may stand in one block with what it is a copy of. Breaks: one lost block costs no more than
    /// itself.
    CopyInSameBlock caught by "copies::a_lost_block_of_a_busy_store_affects_no_entry",
    /// A mark at rest is written without copies. Breaks: one lost sector costs no more than itself.
    MarkWithoutCopies caught by "copies::a_lost_description_of_an_idle_store_affects_no_entry",
    /// What copies made good is left as it is by the open. Breaks: a crash inside recovery loses nothing.
    RestoredNotSealed caught by "copies::a_lost_description_of_an_idle_store_affects_no_entry",
    /// No mark leads to a segment before something in it is acknowledged. Breaks: what is acknowledged is
    /// there, or missed.
    EntryNotMarked caught by "marks::a_newest_log_file_of_a_busy_store_is_missed",
    /// A copy that a crash inside recovery left is called a gap where the checkpoint is lost. Breaks: one
    /// lost sector costs no more than itself.
    UnfinishedCopyIsGap caught by "marks::the_only_checkpoint_may_rot_beside_an_unfinished_copy",
    /// An open that finds a loss announced, and not noted, says nothing of it. Breaks: a vote never goes back
    /// unnoticed.
    HalfAcceptedLossForgotten caught by "accept_loss::a_loss_that_an_open_accepted_and_did_not_note_is_noted_by_the_next",
    /// Open relies on names that may not be durable. Breaks: a crash inside recovery loses nothing.
    DirectoryNotSyncedAtOpen caught by "kill_then_cut::a_power_cut_while_a_killed_store_is_opened_loses_nothing",
    /// The log of a bootstrapped region begins at index 1. Breaks: a replica that joins gets the
    /// configuration.
    LogFromIndexOne caught by "raft_rs::joining::a_replica_that_joins_gets_a_snapshot_and_commits_nothing_alone",
    /// A replica whose hard state is lost votes. Breaks: one that is unsure does not vote.
    VotesWhileUnsure caught by "healing::of_lost_hard_states_none_votes_and_each_comes_back_under_a_new_id",
    /// What a peer does not have is discarded. Breaks: nothing is discarded on a peer's word.
    DiscardsOnDontHave caught by "healing::entries_that_some_never_had_are_kept_unless_a_leader_replaces_them",
    /// A log that begins at index 1 is taken into a region without a configuration. Breaks: a replica that
    /// joins gets the configuration.
    LogWithoutConfiguration caught by "raft_rs::joining::a_log_from_index_one_is_refused_where_nothing_says_its_configuration",
    /// What was persisted is reported without the tag of its replica. Breaks: a replica speaks
    /// for itself alone.
    PersistedWithoutTag caught by "raft_rs::returning::what_was_persisted_for_a_destroyed_replica_releases_no_vote_of_the_next_one",
    /// What one replica's reads fetched is handed to the next one. Breaks: a replica speaks for itself alone.
    FetchedForAnother caught by "raft_rs::returning::what_was_fetched_for_a_destroyed_replica_is_not_sent_by_the_next_one",
    /// A change of a region's condition is not counted. Breaks: figures are what a walk would find.
    FigureNotMoved caught by "stats::regions_are_counted_by_what_is_wrong_with_them_until_it_is_not",
    /// A region that was forgotten is counted as destroyed forever. Breaks: figures are what a walk would
    /// find.
    FigureOfDestroyedKept caught by "stats::regions_are_counted_by_what_is_wrong_with_them_until_it_is_not",
    /// Bytes whose sync is under way are not counted as not durable. Breaks: what is not durable is
    /// counted.
    SyncingNotUndurable caught by "stats::what_is_in_flight_and_who_waits_for_it_is_counted_while_the_disk_hangs",
    /// A disk that hangs is kept from those who will not wait. Breaks: a hung disk is acted upon.
    StallNotSaid caught by "raft_rs::hung::a_batch_is_not_accepted_without_waiting_while_the_disk_hangs",
    /// The end of a stall is not counted. Breaks: a disk that hangs is noticed.
    StallEndNotCounted caught by "stats::what_is_in_flight_and_who_waits_for_it_is_counted_while_the_disk_hangs",
    /// A batch that was submitted is in no histogram. Breaks: each operation is timed.
    SubmittedNotTimed caught by "stats::latencies_have_one_value_for_each_operation",
    /// That a region's health has changed is kept from the listeners. Breaks: each event is delivered.
    HealthChangeKept caught by "events::the_health_of_a_region_is_an_event_when_it_changes_and_when_it_is_well_again",
    /// Rotations are delivered by upkeep alone. Breaks: each event is delivered in time.
    RotationKept caught by "events::the_log_moving_on_is_an_event_with_the_segment_that_is_full",
    /// Each attempt that finds no space is an event. Breaks: an event is a change.
    SpaceSaidEachTime caught by "events::no_space_is_an_event_when_it_begins_and_when_it_ends",
    /// A listener that panics at news takes the writer along. Breaks: a panic ends what was being done
    /// and no more.
    NewsFailWrites caught by "events::a_listener_that_panics_at_a_rotation_fails_no_write",
    /// Appends go on where the disk budget is spent. Breaks: the disk is bounded.
    BudgetIgnored caught by "budget::appends_stop_within_the_budget_and_nothing_else_does",
    /// Where the disk budget is spent, what has no entries is refused too. Breaks: a full disk keeps nobody
    /// from making room.
    BudgetRefusesVotes caught by "budget::appends_stop_within_the_budget_and_nothing_else_does",
    /// Changes that a slow watcher has no room for are left out without a word. Breaks: a watcher that lost
    /// its place says so.
    MissedUnsaid caught by "watching::a_slow_watcher_holds_up_no_writer_and_is_shown_what_it_missed",
    /// A watcher is shown how far the log is durable before what changed up to there. Breaks: what is shown
    /// is in order.
    DurableBeforeItsChanges caught by "watching::a_watcher_is_shown_all_that_writers_took_back_and_before_it_is_durable",
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

/// The mistake that the environment names. A name that nobody knows must not pass for a run in which
/// nothing was caught.
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
