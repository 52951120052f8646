//! Which of an engine's sessions have something to read: the ready list, the descriptor in front of it, and the thread
//! that calls back.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use digi_core::Code;
use parking_lot::{Condvar, Mutex};

use crate::result::Failure;
use crate::session::Open;
use crate::wait::Deadline;

/// Something that can be waited for with poll, epoll, kqueue and their kin: readable while it is set.
pub(crate) struct Flag {
    reading: OwnedFd,
    /// The same one where the system has event descriptors.
    writing: Option<OwnedFd>,
}

impl Flag {
    pub(crate) fn new() -> Result<Self, Failure> {
        let failed = || -> Failure {
            let error = std::io::Error::last_os_error();
            Code::Config.with(format!("the system gives no descriptor: {error}")).into()
        };
        #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
        {
            // SAFETY: a call without pointers; what it gives belongs to nobody else.
            let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
            if fd < 0 {
                return Err(failed());
            }
            // SAFETY: as above.
            Ok(Self { reading: unsafe { OwnedFd::from_raw_fd(fd) }, writing: None })
        }
        #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
        {
            let mut ends = [0; 2];
            // SAFETY: the array has two places; what comes into it belongs to nobody else.
            unsafe {
                if libc::pipe(ends.as_mut_ptr()) < 0 {
                    return Err(failed());
                }
                for end in ends {
                    libc::fcntl(end, libc::F_SETFD, libc::FD_CLOEXEC);
                    libc::fcntl(end, libc::F_SETFL, libc::O_NONBLOCK);
                }
                Ok(Self { reading: OwnedFd::from_raw_fd(ends[0]), writing: Some(OwnedFd::from_raw_fd(ends[1])) })
            }
        }
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.reading.as_raw_fd()
    }

    pub(crate) fn set(&self) {
        let to = self.writing.as_ref().unwrap_or(&self.reading).as_raw_fd();
        let one = 1_u64.to_ne_bytes();
        // SAFETY: the bytes are there; a full pipe is readable already, and so is nothing lost.
        unsafe { libc::write(to, one.as_ptr().cast(), one.len()) };
    }

    /// Whether it was set.
    pub(crate) fn clear(&self) -> bool {
        let mut bytes = [0_u8; 64];
        let mut was_set = false;
        loop {
            // SAFETY: it reads into the bytes, and never waits.
            let read = unsafe { libc::read(self.descriptor(), bytes.as_mut_ptr().cast(), bytes.len()) };
            was_set |= read > 0;
            if read < bytes.len().cast_signed() {
                return was_set;
            }
        }
    }
}

/// The ready list of an engine. It is kept from when somebody first asks for it.
pub(crate) struct Ready {
    is_wanted: AtomicBool,
    list: Mutex<List>,
    filled: Condvar,
}

#[derive(Default)]
struct List {
    waiting: VecDeque<Arc<Open>>,
    /// Those that were there before the list was wanted.
    before: Vec<Weak<Open>>,
    flag: Option<Arc<Flag>>,
    is_closed: bool,
    is_over: bool,
}

/// Where a session stands.
#[derive(Default)]
pub(crate) struct Listing {
    /// It may have something to read.
    is_ready: AtomicBool,
    /// It is in the queue, if only because nobody has looked since it was read to the end.
    is_queued: AtomicBool,
}

impl List {
    /// Each is moved to the end, so that all have their turn.
    fn find(&mut self, most: usize, found: &mut Vec<Arc<Open>>) {
        for _ in 0..self.waiting.len() {
            if found.len() == most {
                return;
            }
            let Some(session) = self.waiting.pop_front() else { return };
            if session.is_freed() {
                continue;
            }
            let listing = &session.listing;
            if !listing.is_ready.load(Ordering::SeqCst) {
                listing.is_queued.store(false, Ordering::SeqCst);
                // Whoever has marked it before that line has left it to this one.
                if !listing.is_ready.load(Ordering::SeqCst) || listing.is_queued.swap(true, Ordering::SeqCst) {
                    continue;
                }
            }
            self.waiting.push_back(session.clone());
            found.push(session);
        }
    }
}

impl Ready {
    pub(crate) fn new() -> Arc<Self> {
        let (list, filled) = (Mutex::default(), Condvar::new());
        Arc::new(Self { is_wanted: AtomicBool::new(false), list, filled })
    }

    /// A session has begun.
    pub(crate) fn add(&self, session: &Arc<Open>) {
        if !self.is_wanted.load(Ordering::Acquire) {
            let mut list = self.list.lock();
            if !self.is_wanted.load(Ordering::Acquire) {
                if list.before.len() == list.before.capacity() {
                    list.before.retain(|known| known.strong_count() > 0);
                }
                list.before.push(Arc::downgrade(session));
                return;
            }
        }
        self.mark(session);
    }

    /// A session may have something to read.
    pub(crate) fn mark(&self, session: &Arc<Open>) {
        if !self.is_wanted.load(Ordering::Acquire) {
            return;
        }
        session.listing.is_ready.store(true, Ordering::SeqCst);
        if session.listing.is_queued.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut list = self.list.lock();
        if list.is_over {
            return;
        }
        list.waiting.push_back(session.clone());
        let flag = (list.waiting.len() == 1).then(|| list.flag.clone()).flatten();
        drop(list);
        self.filled.notify_one();
        if let Some(flag) = flag {
            flag.set();
        }
    }

    /// Somebody is about to read all that a session has.
    pub(crate) fn unmark(&self, session: &Open) {
        if self.is_wanted.load(Ordering::Acquire) {
            session.listing.is_ready.store(false, Ordering::SeqCst);
        }
    }

    fn want(&self) {
        if self.is_wanted.load(Ordering::Acquire) {
            return;
        }
        let before = {
            let mut list = self.list.lock();
            self.is_wanted.store(true, Ordering::Release);
            std::mem::take(&mut list.before)
        };
        for session in before.iter().filter_map(Weak::upgrade) {
            self.mark(&session);
        }
    }

    /// The descriptor that is readable while the list is not empty.
    pub(crate) fn descriptor(&self) -> Result<RawFd, Failure> {
        self.want();
        let mut list = self.list.lock();
        if let Some(flag) = &list.flag {
            return Ok(flag.descriptor());
        }
        let flag = Arc::new(Flag::new()?);
        if !list.waiting.is_empty() {
            flag.set();
        }
        let descriptor = flag.descriptor();
        list.flag = Some(flag);
        Ok(descriptor)
    }

    /// Sessions that have something to read, waiting for the first; they stay on the list until they have been read to
    /// the end. None: the deadline has passed.
    ///
    /// # Errors
    /// `engine_closed` once nothing will come any more.
    pub(crate) fn look(&self, most: usize, deadline: Deadline) -> Result<Vec<Arc<Open>>, Failure> {
        self.want();
        let mut found = Vec::new();
        let mut list = self.list.lock();
        loop {
            list.find(most, &mut found);
            if list.waiting.is_empty()
                && let Some(flag) = &list.flag
            {
                flag.clear();
            }
            if !found.is_empty() {
                return Ok(found);
            }
            if list.is_over || list.is_closed {
                return Err(Code::EngineClosed.into());
            }
            match deadline.get() {
                None => self.filled.wait(&mut list),
                Some(until) if Instant::now() >= until => return Ok(found),
                Some(until) => drop(self.filled.wait_until(&mut list, until)),
            }
        }
    }

    /// The engine has closed, and with it every session: what is on the list is the last.
    pub(crate) fn close(&self) {
        self.list.lock().is_closed = true;
        self.filled.notify_all();
    }

    /// Nobody waits any longer, and no session is kept.
    pub(crate) fn end(&self) {
        let kept = {
            let mut list = self.list.lock();
            list.is_over = true;
            (std::mem::take(&mut list.waiting), std::mem::take(&mut list.before))
        };
        self.filled.notify_all();
        drop(kept);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.list.lock().is_over
    }
}
