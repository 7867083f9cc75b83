//! The queue between a job's thread and the host, bounded in bytes: one for what the job sends, one for what it is fed.
//!
//! The plugin's side may wait here; the host's side never does: it is told that there is nothing to do, and woken when
//! that changes. What was pushed lies one item behind the other in one buffer. The reader takes the whole of it away at
//! once and reads it at leisure, without the lock, while the writers fill the one that it gave in exchange. So a push is
//! a lock and a copy, and most reads are a copy.
//!
//! Nothing here knows of hosts or of streams: `tests/loom.rs` includes this very file and tries every order of steps.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex, MutexGuard};

/// How a side that does not wait here hears that there is something to do again. Called without the lock.
pub(crate) trait Wake {
    fn wake(&self);
}

/// A bounded queue of items, each a payload with metadata beside it; either may be empty.
pub(crate) struct Queue<W> {
    state: Mutex<State>,
    changed: Condvar,
    /// Bytes that the buffer being filled may hold; what the reader took away may be as much again.
    limit: usize,
    waker: W,
}

#[derive(Default)]
struct State {
    filled: Batch,
    /// How each side sleeps at present.
    reader: Wait,
    writer: Wait,
    ended: bool,
    closed: bool,
}

/// Whether a side waits when there is nothing to do, and where.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Wait {
    /// It does not: it will ask again.
    #[default]
    No,
    /// Here, on the condition.
    Here,
    /// Elsewhere, until it is woken.
    Away,
}

/// What came of a push.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    Taken,
    /// Nothing was taken, as there is no room now. For who does not wait here.
    Full,
    /// Nothing was taken, as the end was pushed before.
    Ended,
    /// Nothing was taken, and nobody will read.
    Closed,
}

/// What came of a read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pulled<'a> {
    /// A payload and its metadata.
    Item(Cow<'a, [u8]>, &'a [u8]),
    /// Nothing is there now. For who does not wait here.
    Nothing,
    /// Nothing more will come.
    Ended,
    Closed,
}

impl<W: Wake> Queue<W> {
    pub(crate) fn new(limit: usize, waker: W) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), limit, waker }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner) // only an allocation can panic under it
    }

    /// Appends an item. One that is larger than the limit goes in alone.
    pub(crate) fn push(&self, payload: &[u8], metadata: &[u8], wait: Wait) -> Pushed {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Pushed::Closed;
            }
            if state.ended {
                return Pushed::Ended;
            }
            if state.filled.has_room(cost(payload, metadata), self.limit) {
                break;
            }
            state.writer = wait;
            if wait != Wait::Here {
                return Pushed::Full;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if payload.len() < LARGE {
            state.filled.push_small(payload, metadata);
        } else {
            // The copy takes its time, and the reader needs the lock. Other writers may come between and overfill the
            // buffer by what each of them has in hand.
            drop(state);
            let payload = payload.to_vec();
            state = self.lock();
            if state.closed {
                return Pushed::Closed;
            }
            if state.ended {
                return Pushed::Ended;
            }
            state.filled.push_large(payload, metadata);
        }
        let reader = std::mem::take(&mut state.reader);
        drop(state);
        self.rouse(reader);
        Pushed::Taken
    }

    /// Says that nothing more will be pushed. What is there is still read.
    pub(crate) fn end(&self) -> Pushed {
        self.change(|state| match (state.closed, std::mem::replace(&mut state.ended, true)) {
            (true, _) => Pushed::Closed,
            (false, true) => Pushed::Ended,
            (false, false) => Pushed::Taken,
        })
    }

    /// Drops what is there, and turns away readers and writers, those that wait among them.
    pub(crate) fn close(&self) {
        let dropped = self.change(|state| {
            state.closed = true;
            std::mem::take(&mut state.filled)
        });
        drop(dropped);
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let changed = change(&mut state);
        let (reader, writer) = (std::mem::take(&mut state.reader), std::mem::take(&mut state.writer));
        drop(state);
        self.changed.notify_all();
        if reader == Wait::Away || writer == Wait::Away {
            self.waker.wake();
        }
        changed
    }

    fn rouse(&self, side: Wait) {
        match side {
            Wait::No => {}
            Wait::Here => self.changed.notify_all(),
            Wait::Away => self.waker.wake(),
        }
    }

    /// Waits for the time given, or until the queue is closed: whether it is.
    pub(crate) fn sleep(&self, time: Duration) -> bool {
        let started = Instant::now();
        let mut state = self.lock();
        while !state.closed {
            let Some(left) = time.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) else { break };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.closed
    }
}

/// The reader's side: what it took away and has not read yet.
#[derive(Default)]
pub(crate) struct Reader(Batch);

impl Reader {
    /// The next item.
    #[inline]
    pub(crate) fn pull<W: Wake>(&mut self, queue: &Queue<W>, wait: Wait) -> Pulled<'_> {
        if self.0.is_empty() {
            if let Some(none) = self.refill(queue, wait) {
                return none;
            }
        }
        let (payload, metadata) = self.0.pop();
        Pulled::Item(payload, metadata)
    }

    /// Takes all that is there, or says why there is none.
    fn refill<W: Wake>(&mut self, queue: &Queue<W>, wait: Wait) -> Option<Pulled<'static>> {
        self.0.clear();
        let mut state = queue.lock();
        loop {
            if state.closed {
                return Some(Pulled::Closed);
            }
            if !state.filled.is_empty() {
                break;
            }
            if state.ended {
                return Some(Pulled::Ended);
            }
            state.reader = wait;
            if wait != Wait::Here {
                return Some(Pulled::Nothing);
            }
            state = queue.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut self.0, &mut state.filled);
        let writer = std::mem::take(&mut state.writer);
        drop(state);
        queue.rouse(writer);
        None
    }
}

/// From this size on a payload has memory of its own: it is then copied without the lock, and handed on without a copy.
const LARGE: usize = 16 << 10;
/// Before each item: the length of its payload, or [`ELSEWHERE`], and that of its metadata.
const HEAD: usize = 8;
const ELSEWHERE: u32 = u32::MAX;

/// Items one behind the other.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// What is read already.
    read: usize,
    large: VecDeque<Vec<u8>>,
    /// What all that was pushed counts for.
    len: usize,
}

/// What an item counts for: its bytes, and where these are few, its head, so that empty ones are bounded, too.
fn cost(payload: &[u8], metadata: &[u8]) -> usize {
    HEAD.max(payload.len() + metadata.len())
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.read == self.bytes.len()
    }

    fn has_room(&self, len: usize, limit: usize) -> bool {
        self.len == 0 || self.len + len <= limit
    }

    fn push_small(&mut self, payload: &[u8], metadata: &[u8]) {
        self.push_head(payload.len() as u32, metadata.len());
        self.bytes.extend_from_slice(payload);
        self.bytes.extend_from_slice(metadata);
        self.len += cost(payload, metadata);
    }

    fn push_large(&mut self, payload: Vec<u8>, metadata: &[u8]) {
        self.push_head(ELSEWHERE, metadata.len());
        self.bytes.extend_from_slice(metadata);
        self.len += cost(&payload, metadata);
        self.large.push_back(payload);
    }

    fn push_head(&mut self, payload: u32, metadata: usize) {
        let metadata = u32::try_from(metadata).expect("metadata of less than 4 GiB");
        self.bytes.extend_from_slice(&(u64::from(payload) | u64::from(metadata) << 32).to_le_bytes());
    }

    /// The next item; there is one.
    #[inline]
    fn pop(&mut self) -> (Cow<'_, [u8]>, &[u8]) {
        let (head, rest) = self.bytes[self.read..].split_at(HEAD);
        let head = u64::from_le_bytes(head.try_into().unwrap_or_default());
        let (payload, metadata) = (head as u32, (head >> 32) as usize);
        if payload == ELSEWHERE {
            self.read += HEAD + metadata;
            return (Cow::Owned(self.large.pop_front().unwrap_or_default()), &rest[..metadata]);
        }
        let (payload, rest) = rest.split_at(payload as usize);
        self.read += HEAD + payload.len() + metadata;
        (Cow::Borrowed(payload), &rest[..metadata])
    }

    /// Empties it, and keeps its memory.
    fn clear(&mut self) {
        self.bytes.clear();
        self.large.clear();
        (self.read, self.len) = (0, 0);
    }
}
