//! The suite that every store passes. [`store_suite!`](crate::store_suite) runs it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

pub mod batches;
pub mod client_ids;
pub mod epochs;
pub mod history;
pub mod log;
pub mod members;
pub mod messages;
pub mod numbers;
pub mod reference;
pub mod rights;
mod tools;

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;

use crate::store::Store;
use crate::store::model::Action;

/// Runs every test of the suite over a store: a module of that name, with one `#[test]` each.
///
/// The factory is called once per test, without arguments, and gives a future of a
/// [`Subject`](crate::testing::store_suite::Subject): an empty, migrated store and what can be done to it.
///
/// ```
/// use digi_core::store::memory::MemoryStore;
/// use digi_core::testing::store_suite::Subject;
///
/// digi_core::store_suite!(memory, || async { Subject::new(MemoryStore::new()) });
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! store_suite {
    ($name:ident, $factory:expr) => {
        $crate::store_suite! { @list (@tests $name, $factory,) }
    };
    (@list ($($for:tt)+)) => {
        $crate::store_suite! { $($for)+
            numbers: {
                changes_are_numbered_without_gaps,
                what_changes_nothing_takes_no_number,
                rooms_count_apart_and_heads_come_in_order,
                concurrent_writers_leave_no_gap,
                two_handles_leave_no_gap,
                reads_show_what_was_applied_before,
                a_room_ends_with_its_numbers,
            }
            client_ids: {
                a_repeat_in_the_same_batch_is_a_duplicate,
                a_repeat_in_a_later_batch_is_a_duplicate,
                a_repeat_through_another_handle_is_a_duplicate,
                a_repeat_after_reopening_is_a_duplicate,
                a_client_id_counts_for_exactly_the_window,
                another_sender_or_room_is_not_confused,
                the_host_repeats_too,
                a_deleted_message_is_still_the_first,
            }
            rights: {
                only_members_write,
                unknown_rooms_are_refused,
                only_the_sender_edits,
                the_sender_or_a_moderator_deletes,
                the_host_is_not_asked,
                membership_needs_the_host,
                a_message_belongs_to_its_room,
                a_removed_member_is_refused_at_once,
                a_member_removed_elsewhere_is_refused,
            }
            members: {
                a_new_room_has_its_members,
                room_ids_are_chosen_or_given,
                joining_and_leaving_are_changes,
                what_is_so_already_is_unchanged,
                a_membership_comes_with_the_head_before_it,
            }
            messages: {
                an_added_message_is_read_as_it_was_written,
                an_edit_replaces_the_text_in_its_place,
                a_deleted_message_leaves_a_tombstone,
                texts_of_all_scripts_come_back,
                nul_is_refused,
                sixteen_kib_come_back,
                times_never_go_back,
            }
            log: {
                a_message_changed_often_is_one_row,
                memberships_are_rows_of_their_own,
                rows_come_in_order_of_their_last_change,
                through_is_the_limit_or_the_head,
                pages_cover_everything,
                nothing_comes_after_the_head,
                a_room_that_is_not_there_has_no_log,
            }
            history: {
                the_newest_come_oldest_first,
                pages_go_back_to_the_beginning,
                tombstones_are_part_of_it,
                a_room_that_is_not_there_has_no_history,
                heads_of_many_rooms,
            }
            epochs: {
                a_head_below_what_was_seen_is_raised,
                a_head_that_is_not_below_stays,
                a_batch_raises_a_restored_room_first,
                a_batch_that_knows_less_raises_nothing,
                all_rooms_are_raised,
                client_ids_survive_a_raise,
                a_purge_moves_the_floor,
                a_purge_without_anything_old_changes_nothing,
                purged_messages_have_no_row,
            }
            batches: {
                an_offender_stops_its_batch_and_no_other,
                a_full_store_says_so_and_stays_readable,
                everything_is_there_after_reopening,
                a_remembered_batch_is_not_done_twice,
                a_void_batch_is_never_done,
            }
            reference: {
                it_answers_as_the_reference_does,
            }
        }
    };
    (@tests $name:ident, $factory:expr, $($theme:ident: { $($test:ident,)+ })+) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            $(mod $theme {
                #[allow(unused_imports)]
                use super::*;
                $(#[test]
                fn $test() {
                    $crate::testing::store_suite::run($factory, $crate::testing::store_suite::$theme::$test);
                })+
            })+
        }
    };
    (@all $($theme:ident: { $($test:ident,)+ })+) => {
        &[$($((
            concat!(stringify!($theme), "::", stringify!($test)),
            |subject| Box::pin($crate::testing::store_suite::$theme::$test(subject)),
        ),)+)+]
    };
}

/// One test of the suite: takes a store of its own and panics when the store is wrong.
pub type Test = fn(Subject) -> Pin<Box<dyn Future<Output = ()>>>;

/// The tests by name, for those who cannot use [`store_suite!`](crate::store_suite). [`run`] runs one.
pub fn all() -> &'static [(&'static str, Test)] {
    const ALL: &[(&str, Test)] = crate::store_suite! { @list (@all) };
    ALL
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Opener = Box<dyn Fn() -> BoxFuture<Arc<dyn Store>> + Send + Sync>;

/// A store under test, empty and migrated, and what can be done to it. Tests of what cannot be done do not apply, and
/// say so.
pub struct Subject {
    store: Arc<dyn Store>,
    second: Option<Opener>,
    reopen: Option<Opener>,
    offender: Option<Action>,
    bounded: bool,
    remembers: bool,
    tell: Box<dyn Fn(&str) + Send + Sync>,
    /// Dropped last.
    _kept: Vec<Box<dyn Any + Send + Sync>>,
}

impl Subject {
    /// A store that can be asked and nothing else.
    pub fn new(store: impl Store) -> Self {
        let store: Arc<dyn Store> = Arc::new(store);
        Self {
            store,
            second: None,
            reopen: None,
            offender: None,
            bounded: false,
            remembers: false,
            tell: Box::new(|why| eprintln!("{why}")),
            _kept: Vec::new(),
        }
    }

    /// Another handle on the same data, beside the first, as another process would have it.
    #[must_use]
    pub fn second_handle<S: Store, F: Future<Output = S> + Send + 'static>(
        mut self,
        open: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        self.second = Some(opener(open));
        self
    }

    /// The same data again after the store was dropped.
    #[must_use]
    pub fn reopened_by<S: Store, F: Future<Output = S> + Send + 'static>(
        mut self,
        open: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        self.reopen = Some(opener(open));
        self
    }

    /// An `Add` that the store answers with `Rejected`.
    #[must_use]
    pub fn offender(mut self, action: Action) -> Self {
        self.offender = Some(action);
        self
    }

    /// The store holds a few MiB, so that a test can fill it.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.bounded = true;
        self
    }

    /// The store remembers batches by their id, as one does whose answer to a commit may get lost.
    #[must_use]
    pub fn remembers_batches(mut self) -> Self {
        self.remembers = true;
        self
    }

    /// Keeps something until the store is dropped: a temporary directory, a server.
    #[must_use]
    pub fn keeping(mut self, what: impl Any + Send + Sync) -> Self {
        self._kept.push(Box::new(what));
        self
    }

    /// Who is told when a test, or a part of one, does not apply, and why. Without it standard error is.
    #[must_use]
    pub fn telling(mut self, tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.tell = Box::new(tell);
        self
    }

    async fn another(&self) -> Option<Arc<dyn Store>> {
        let open = self.second.as_ref().or_else(|| self.inapplicable("does not offer a second handle"))?;
        Some(open().await)
    }

    /// Drops the store and opens it again.
    async fn reopen(&mut self) -> Option<()> {
        let open = self.reopen.as_ref().or_else(|| self.inapplicable("does not offer reopening"))?;
        // Something has to stand there while the first one goes.
        self.store = Arc::new(crate::store::memory::MemoryStore::new());
        self.store = open().await;
        Some(())
    }

    fn inapplicable<T>(&self, why: &str) -> Option<T> {
        (self.tell)(&format!("does not apply: this store's factory {why}"));
        None
    }
}

fn opener<S: Store, F: Future<Output = S> + Send + 'static>(open: impl Fn() -> F + Send + Sync + 'static) -> Opener {
    Box::new(move || {
        let opening = open();
        Box::pin(async move { Arc::new(opening.await) as Arc<dyn Store> })
    })
}

/// Runs one test on a store of its own. What [`store_suite!`](crate::store_suite) expands to.
pub fn run<S: Future<Output = Subject>, T: Future<Output = ()>>(
    factory: impl FnOnce() -> S,
    test: impl FnOnce(Subject) -> T,
) {
    tools::block_on(async { test(factory().await).await });
}
