//! Streams of runners: a job on a thread of its own, and a stream that the host reads and feeds without waiting.
//!
//! What the two share is a [`Line`]: a queue each way, a flag, and in the end the outcome. The thread holds its own
//! reference to it and to the plugin, so that a host may close a stream whose job does not listen.

use std::any::Any;
use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use ferrule_sys::{FERRULE_END, FERRULE_OK, FERRULE_PENDING};
use serde::Serialize;

use crate::buffer::Buffer;
use crate::manifest::MethodInfo;
use crate::payload::{Bytes, Payload, with_json};
use crate::queue::{Pulled, Pushed, Queue, Reader, Wait, Wake};
use crate::{Context, Error, Host, Result, guard};

/// What there is to do on a stream's thread.
pub(crate) type Job = Box<dyn FnOnce(&Arc<Line>, &Context<'_>) -> Result + Send>;

/// Bytes that wait in a queue before its writer has to; the reader may have taken away as many, and not read them yet.
/// Four blocks of 64 KiB, so that neither side sleeps at every block.
const QUEUE: usize = 256 << 10;
/// Of a thread's stack. It costs address space until it is used; a stack that overflows ends the process.
const STACK: usize = 1 << 20;

/// What a job and its stream share.
pub(crate) struct Line {
    info: &'static MethodInfo,
    out: Queue<Waker>,
    feed: Queue<Waker>,
    cancelled: AtomicI32,
    outcome: OnceLock<Outcome>,
    /// Of the end: a JSON object, or nothing.
    metadata: Mutex<Vec<u8>>,
    /// The instance's.
    poisoned: Arc<AtomicBool>,
}

/// How a stream ended.
enum Outcome {
    Returned,
    Failed(Error),
    Panicked(Error),
}

/// The host, asleep until one of its streams has something.
#[derive(Clone)]
pub(crate) struct Waker(pub(crate) Host);

impl Wake for Waker {
    fn wake(&self) {
        self.0.wake();
    }
}

thread_local! {
    /// The line that this thread works for.
    static CURRENT: RefCell<Option<Arc<Line>>> = const { RefCell::new(None) };
}

impl Line {
    /// Starts a job of a plugin's. `stream` is the host with the stream's id; `metadata` the call's.
    pub(crate) fn start(
        info: &'static MethodInfo,
        job: Job,
        plugin: Arc<dyn Any + Send + Sync>,
        stream: Host,
        metadata: &[u8],
        poisoned: &Arc<AtomicBool>,
    ) -> Result<HostSide> {
        let queue = || Queue::new(QUEUE, Waker(stream.clone()));
        let line = Arc::new(Self {
            info,
            out: queue(),
            feed: queue(),
            cancelled: AtomicI32::new(0),
            outcome: OnceLock::new(),
            metadata: Mutex::default(),
            poisoned: Arc::clone(poisoned),
        });
        let (shared, metadata) = (Arc::clone(&line), metadata.to_vec());
        thread(info.name, move || {
            CURRENT.set(Some(Arc::clone(&shared)));
            let outcome = guard::caught(|| job(&shared, &Context::of_stream(&shared.cancelled, &metadata, &shared)));
            shared.finish(match outcome {
                Ok(Ok(())) => Outcome::Returned,
                Ok(Err(error)) => Outcome::Failed(error),
                Err((panic, payload)) => {
                    guard::forget(payload);
                    Outcome::Panicked(panic)
                }
            });
            // Here and not as a panic of the job's unwinds: where the instance is gone already, this drops the plugin.
            guard::quiet((), || drop(plugin));
        })?;
        Ok(HostSide { line, reader: Reader::default(), metadata: Vec::new(), told: false })
    }

    /// Ends the stream, unless it has ended.
    fn finish(&self, outcome: Outcome) {
        if let Outcome::Panicked(_) = outcome {
            self.poisoned.store(true, Ordering::Release);
        }
        let _ = self.outcome.set(outcome);
        self.feed.close(); // first, so that who has seen the end is not asked for more
        self.out.end();
    }

    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire) != 0
    }

    /// Asks the job to end. What it sent and nobody has read is lost.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(1, Ordering::Release);
        self.out.close();
        self.feed.close();
    }

    /// Takes what the host feeds: OK, PENDING or END.
    pub(crate) fn take_feed(&self, bytes: &[u8], last: bool) -> Result<i32> {
        let mut pushed = Pushed::Taken;
        if !bytes.is_empty() || !last {
            pushed = self.feed.push(bytes, &[], Wait::Away);
        }
        if last && pushed == Pushed::Taken {
            pushed = self.feed.end();
        }
        match pushed {
            Pushed::Taken => Ok(FERRULE_OK),
            Pushed::Full => Ok(FERRULE_PENDING),
            Pushed::Closed => Ok(FERRULE_END),
            Pushed::Ended => Err(Error::invalid_state("fed after the final block")),
        }
    }

    /// Waits, until the stream is cancelled.
    pub(crate) fn sleep(&self, time: Duration) {
        self.out.sleep(time);
    }

    fn send(&self, payload: &[u8], metadata: &[u8]) -> Result {
        match self.out.push(payload, metadata, Wait::Here) {
            Pushed::Taken => Ok(()),
            _ if self.cancelled() => Err(cancelled()),
            _ => Err(Error::invalid_state("sent after the stream's end")),
        }
    }

    fn metadata(&self) -> MutexGuard<'_, Vec<u8>> {
        self.metadata.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cold]
fn cancelled() -> Error {
    Error::cancelled("the stream was cancelled")
}

/// The host's side of a stream that is being read.
pub(crate) struct HostSide {
    line: Arc<Line>,
    reader: Reader,
    /// The last item's; after the end, the stream's.
    metadata: Vec<u8>,
    /// The outcome was told.
    told: bool,
}

/// What is next in a stream.
pub(crate) enum Step {
    Status(i32),
    Panicked(Error),
}

impl HostSide {
    pub(crate) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    pub(crate) fn info(&self) -> &'static MethodInfo {
        self.line.info
    }

    /// Writes the next item, or says what there is instead. It never waits.
    pub(crate) fn next(&mut self, out: &mut Buffer<'_>) -> Result<Step> {
        if self.line.cancelled() {
            return self.end();
        }
        match self.reader.pull(&self.line.out, Wait::Away) {
            Pulled::Item(payload, metadata) => {
                out.push(&payload)?;
                if self.line.info.metadata {
                    self.metadata.clear();
                    self.metadata.extend_from_slice(metadata);
                }
                Ok(Step::Status(FERRULE_OK))
            }
            Pulled::Nothing => Ok(Step::Status(FERRULE_PENDING)),
            Pulled::Ended | Pulled::Closed => self.end(),
        }
    }

    #[cold]
    fn end(&mut self) -> Result<Step> {
        self.metadata.clone_from(&self.line.metadata());
        // An error of some statuses does not end a stream, for the host; but there is nothing after it here.
        match self.line.outcome.get() {
            Some(Outcome::Panicked(error)) => Ok(Step::Panicked(error.clone())),
            _ if self.line.cancelled() => Err(cancelled()),
            Some(Outcome::Failed(error)) if !std::mem::replace(&mut self.told, true) => Err(error.clone()),
            _ => Ok(Step::Status(FERRULE_END)),
        }
    }

    /// Writes the metadata of the last item, or of the stream after its end: a JSON object.
    pub(crate) fn metadata(&self, out: &mut Buffer<'_>) -> Result {
        out.push(if self.metadata.is_empty() { b"{}" } else { &self.metadata })
    }
}

/// Dropped when the host closes the stream. The job ends when it listens.
impl Drop for HostSide {
    fn drop(&mut self) {
        self.line.cancel();
    }
}

fn thread<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    let name: String = name.chars().filter(|character| *character != '\0').collect();
    let builder = Builder::new().name(name.clone()).stack_size(STACK);
    builder.spawn(body).map_err(|error| Error::unavailable(format!("no thread could be started for {name}: {error}")))
}

/// Starts a thread, as [`std::thread::spawn`] does, on behalf of the stream whose thread calls: a panic there ends that
/// stream, with its place, also when nobody joins the thread.
///
/// ```
/// # use ferrule_plugin::prelude::*;
/// # struct Runner;
/// # impl Runner {
/// fn numbers(&self, _: Empty, out: &Sender<u64>, _cx: &Context) -> Result {
///     let (mine, out) = (out.clone(), out);
///     let odd = spawn("odd", move || [1, 3, 5].iter().try_for_each(|number| mine.send(number)))?;
///     [2, 4, 6].iter().try_for_each(|number| out.send(number))?;
///     odd.join().unwrap_or(Ok(()))
/// }
/// # }
/// ```
///
/// # Errors
/// UNAVAILABLE where the system starts no more threads.
pub fn spawn<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    let line = CURRENT.with_borrow(Clone::clone);
    thread(name, move || {
        CURRENT.set(line.clone());
        guard::caught(body).unwrap_or_else(|(panic, payload)| {
            if let Some(line) = line {
                line.finish(Outcome::Panicked(panic));
                line.cancelled.store(1, Ordering::Release); // the job's thread need not go on
            }
            resume_unwind(payload)
        })
    })
}

/// Where a stream's items go: to the host, in order, from as many threads as hold it or a clone of it.
///
/// What was sent and not yet read is bounded in bytes, not in items: a slow reader stops the sender.
pub struct Sender<T> {
    line: Arc<Line>,
    item: PhantomData<fn(&T)>,
}

impl<T> Sender<T> {
    pub(crate) fn new(line: &Arc<Line>) -> Self {
        Self { line: Arc::clone(line), item: PhantomData }
    }

    /// Metadata of the stream as a whole, an object, which the host finds after the end. The last one counts. The method
    /// says [`with_metadata`](crate::Method::with_metadata).
    pub fn metadata<M: Serialize + ?Sized>(&self, metadata: &M) -> Result {
        self.with_metadata(metadata, |text| {
            *self.line.metadata() = text.to_vec();
            Ok(())
        })
    }

    fn with_metadata<M: Serialize + ?Sized>(&self, metadata: &M, body: impl FnOnce(&[u8]) -> Result) -> Result {
        let name = self.line.info.name;
        if !self.line.info.metadata {
            return Err(Error::internal(format!(
                "metadata for items of {name}, and its entry in METHODS does not say `.with_metadata()`"
            )));
        }
        with_json(metadata, |text| match text.first() {
            Some(b'{') => body(text),
            _ => Err(Error::internal(format!("metadata of {name} is no object: {}", String::from_utf8_lossy(text)))),
        })
    }
}

impl<T: Payload> Sender<T> {
    /// Sends an item. Waits while the host is behind.
    ///
    /// # Errors
    /// CANCELLED once the stream is cancelled or closed: return it, and the job has ended as it should.
    #[inline]
    pub fn send(&self, item: &T) -> Result {
        item.with_bytes(|item| self.line.send(item, &[]))
    }

    /// Sends an item with metadata, an object, beside it. The method says
    /// [`with_metadata`](crate::Method::with_metadata).
    pub fn send_with<M: Serialize + ?Sized>(&self, item: &T, metadata: &M) -> Result {
        self.with_metadata(metadata, |metadata| item.with_bytes(|item| self.line.send(item, metadata)))
    }
}

impl Sender<Bytes> {
    /// Sends bytes that are somebody else's.
    #[inline]
    pub fn send_bytes(&self, bytes: &[u8]) -> Result {
        self.line.send(bytes, &[])
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self::new(&self.line)
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sender({})", self.line.info.name)
    }
}

/// What a stream is fed with while it runs, block by block, from before it began until the final one.
///
/// A host that feeds faster than the job reads is told to wait. When the job ends before the final block, the host is
/// told that no more is wanted.
///
/// ```
/// use ferrule_plugin::prelude::*;
///
/// struct Echo;
///
/// impl JobRunner for Echo {
///     const NAME: &str = "echo";
///     type Config = Empty;
///     const METHODS: Methods<Self> = &[feed("echo", Self::echo).about("Gives back what it is fed.")];
///     fn create(_: Empty, _host: &Host) -> Result<Self> { Ok(Self) }
/// }
///
/// impl Echo {
///     fn echo(&self, _: Empty, feed: &Feed<Bytes>, out: &Sender<Bytes>, _cx: &Context) -> Result {
///         for block in feed {
///             out.send(&block?)?;
///         }
///         Ok(())
///     }
/// }
///
/// export_plugins! { runner Echo }
/// ```
pub struct Feed<T> {
    line: Arc<Line>,
    reader: Mutex<Reader>,
    item: PhantomData<fn() -> T>,
}

/// What [`Feed::try_next`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fed<T> {
    /// A block.
    Block(T),
    /// Nothing is there now.
    Nothing,
    /// The final block was given before: no other will come.
    Final,
}

impl<T> Feed<T> {
    pub(crate) fn new(line: &Arc<Line>) -> Self {
        Self { line: Arc::clone(line), reader: Mutex::default(), item: PhantomData }
    }
}

impl<T: Payload> Feed<T> {
    /// The next block, for which it waits; `None` after the final one.
    ///
    /// # Errors
    /// CANCELLED once the stream is cancelled or closed; INVALID_ARGUMENT for a block that is no `T`.
    pub fn next(&self) -> Result<Option<T>> {
        Ok(match self.pull(Wait::Here)? {
            Fed::Block(block) => Some(block),
            Fed::Nothing | Fed::Final => None,
        })
    }

    /// The next block if there is one. It does not wait.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn try_next(&self) -> Result<Fed<T>> {
        self.pull(Wait::No)
    }

    fn pull(&self, wait: Wait) -> Result<Fed<T>> {
        if self.line.cancelled() {
            return Err(cancelled());
        }
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        match reader.pull(&self.line.feed, wait) {
            Pulled::Item(Cow::Owned(block), _) => T::read_owned(block).map(Fed::Block),
            Pulled::Item(Cow::Borrowed(block), _) => T::read(block).map(Fed::Block),
            Pulled::Nothing => Ok(Fed::Nothing),
            Pulled::Ended => Ok(Fed::Final),
            Pulled::Closed => Err(cancelled()),
        }
    }
}

impl<'a, T: Payload> IntoIterator for &'a Feed<T> {
    type Item = Result<T>;
    type IntoIter = Blocks<'a, T>;
    fn into_iter(self) -> Blocks<'a, T> {
        Blocks { feed: self, over: false }
    }
}

impl<T> fmt::Debug for Feed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Feed({})", self.line.info.name)
    }
}

/// The blocks of a [`Feed`], for a `for` loop. An error is the last of them.
#[derive(Debug)]
pub struct Blocks<'a, T> {
    feed: &'a Feed<T>,
    over: bool,
}

impl<T: Payload> Iterator for Blocks<'_, T> {
    type Item = Result<T>;
    fn next(&mut self) -> Option<Result<T>> {
        if self.over {
            return None;
        }
        let block = self.feed.next();
        self.over = !matches!(block, Ok(Some(_)));
        block.transpose()
    }
}
