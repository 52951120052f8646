//! Deliberate bugs, one at a time, to prove that the simulation would find them. Only with feature `bugs`.

use std::cell::Cell;

/// A mistake that somebody could make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// A room hands out what comes, without looking whether something is missing before it.
    SkipGapCheck,
    /// A room takes the first number after a replay for one that the session has been sent.
    DropAtWrongSeq,
    /// What came in during a replay is cut off one number too far.
    CutReplayEarly,
    /// Events go out before the transaction has committed.
    BroadcastBeforeCommit,
    /// A refused command uses up a number.
    NumberBeforeRefusing,
    /// Numbers go on after a restore, but in the old epoch.
    ReuseEpochAfterRestore,
    /// A node whose events could not be published does not say so later.
    ForgetMissed,
    /// A room does not look at the log when the layer may have lost something.
    IgnoreLagged,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::SkipGapCheck,
        Self::DropAtWrongSeq,
        Self::CutReplayEarly,
        Self::BroadcastBeforeCommit,
        Self::NumberBeforeRefusing,
        Self::ReuseEpochAfterRestore,
        Self::ForgetMissed,
        Self::IgnoreLagged,
    ];
}

thread_local! {
    static ON: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Runs `work` on this thread with a bug switched on.
pub fn with<T>(bug: Bug, work: impl FnOnce() -> T) -> T {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            ON.set(None);
        }
    }
    let _off = Off;
    ON.set(Some(bug));
    work()
}

/// Whether that bug is on.
pub fn is_on(bug: Bug) -> bool {
    ON.get() == Some(bug)
}
