//! Runs a plugin inside `cargo test`: no library, no host. Feature `testing`.
//!
//! The calls take the way that a host's calls take, but for the boundary itself: the configuration is read as create
//! reads it, methods go by their numbers, and answers are written into a buffer and read back. Panics are not caught,
//! so that a test fails where the plugin does; log messages go nowhere.
//!
//! ```
//! use ferrule_plugin::prelude::*;
//! use ferrule_plugin::testing;
//! use serde_json::json;
//!
//! config! {
//!     struct Config { suffix: String = "!" }
//! }
//! struct Shout(Config);
//! impl EnrichmentFunction for Shout {
//!     const NAME: &str = "shout";
//!     type Config = Config;
//!     fn create(config: Config, _host: &Host) -> Result<Self> { Ok(Self(config)) }
//!     fn process(&mut self, record: &Record, out: &mut Output, _cx: &Context) -> Result {
//!         let Some(text) = record.get_str("text")? else { return out.skip() };
//!         out.extend(record).field("text", text.to_uppercase() + &self.0.suffix).finish()
//!     }
//! }
//! export_plugins! { function Shout }
//!
//! let mut shout = testing::function::<Shout>(json!({}))?;
//! assert_eq!(shout.process(&json!({"text": "hello"}))?, Some(json!({"text": "HELLO!"})));
//! assert_eq!(shout.process(&json!({"id": 1}))?, None); // skipped
//! assert_eq!(shout.process_bytes(b"[1]").unwrap_err().message(), "Data must be a JSON object");
//! assert!(testing::function::<Shout>(json!({"suffix": 1})).is_err());
//! # Ok::<(), Error>(())
//! ```

use std::fmt;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use ferrule_sys::{
    FERRULE_ABI_MAJOR, FERRULE_ABI_MINOR, FERRULE_END, FERRULE_OK, FERRULE_PENDING, FERRULE_SKIP, FERRULE_TIMEOUT,
    ferrule_call, ferrule_host,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::abi::concurrent::Shared;
use crate::abi::serial::{Instance, Stream};
use crate::buffer::Owned;
use crate::json::Keys;
use crate::kinds::{FunctionInstance, ReaderStream, RunnerInstance, SinkInstance, SourceInstance};
use crate::stream::{HostSide, Step};
use crate::{
    Context, EnrichmentFunction, Error, Host, JobRunner, Output, Reader, Result, SinkConnector, SourceConnector,
};

/// A host that nobody listens to, and that is woken as every host is.
fn host() -> Host {
    static HOST: Table = Table(ferrule_host {
        struct_size: size_of::<ferrule_host>() as u32,
        flags: 0,
        abi_major: FERRULE_ABI_MAJOR,
        abi_minor: FERRULE_ABI_MINOR,
        log_enabled: None,
        log: None,
        wake: Some(wake),
        query: None,
    });
    // SAFETY: the table is there for good.
    unsafe { Host::new(&raw const HOST.0, 0) }
}

struct Table(ferrule_host);
// SAFETY: nobody changes it, and its one function may be called from any thread.
unsafe impl Sync for Table {}

/// How often any stream was woken.
static WAKES: (Mutex<u64>, Condvar) = (Mutex::new(0), Condvar::new());

unsafe extern "C" fn wake(_host: *const ferrule_host, _id: u64) {
    *wakes() += 1;
    WAKES.1.notify_all();
}

fn wakes() -> MutexGuard<'static, u64> {
    WAKES.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks as long as the answer is `None`, and sleeps until a wake in between.
fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    loop {
        let before = *wakes();
        if let Some(answer) = ask() {
            return answer;
        }
        drop(WAKES.1.wait_while(wakes(), |now| *now == before));
    }
}

fn bytes(value: &impl Serialize) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

/// An instance, and what a host would hold for it.
struct Bench<I> {
    inner: I,
    keys: Keys,
    buffer: Box<Owned>,
    cancelled: AtomicI32,
}

impl<I: Instance> Bench<I> {
    fn new(inner: I) -> Self {
        Self { inner, keys: Keys::new(), buffer: Owned::new(), cancelled: AtomicI32::new(0) }
    }

    fn call(&mut self, method: &str, input: &[u8]) -> Result<Option<&[u8]>> {
        let number =
            I::number(method).ok_or_else(|| Error::not_found(format!("this plugin has no method `{method}`")))?;
        let context = Context::new(&self.cancelled, -1);
        let mut out = Output::new(self.buffer.lend(), &context, &mut self.keys, I::MANY);
        let status = self.inner.call(number as usize, input, &mut out)?;
        Ok((status != FERRULE_SKIP).then(|| self.buffer.bytes()))
    }

    fn value(&mut self, method: &str, input: &impl Serialize) -> Result<Value> {
        let answer = self.call(method, &bytes(input)?)?;
        Ok(answer.map(serde_json::from_slice).transpose()?.unwrap_or(Value::Null))
    }
}

/// Makes a function.
pub fn function<F: EnrichmentFunction>(config: Value) -> Result<Function<F>> {
    Ok(Function(Bench::new(FunctionInstance::create(&bytes(&config)?, &host())?)))
}

/// A function under test.
pub struct Function<F>(Bench<FunctionInstance<F>>);

impl<F: EnrichmentFunction> Function<F> {
    /// What becomes of a record; `None`: it was skipped. Of several records, the only one; see
    /// [`process_many`](Self::process_many).
    pub fn process(&mut self, record: &impl Serialize) -> Result<Option<Value>> {
        let answer = self.process_bytes(&bytes(record)?)?;
        Ok(answer.map(|answer| serde_json::from_slice(&answer)).transpose()?)
    }

    /// What becomes of a record, as it would be written; `None`: it was skipped.
    pub fn process_bytes(&mut self, record: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.0.call("process", record)?.map(<[u8]>::to_vec))
    }

    /// The records that one becomes, where `MANY` is true.
    pub fn process_many(&mut self, record: &impl Serialize) -> Result<Vec<Value>> {
        lines(&self.process_bytes(&bytes(record)?)?.unwrap_or_default())
    }

    /// Calls one of its `METHODS`.
    pub fn call(&mut self, method: &str, args: &impl Serialize) -> Result<Value> {
        self.0.value(method, args)
    }
}

fn lines(text: &[u8]) -> Result<Vec<Value>> {
    Ok(serde_json::Deserializer::from_slice(text).into_iter().collect::<std::result::Result<_, _>>()?)
}

/// Makes a source. It is not connected.
pub fn source<S: SourceConnector>(config: Value) -> Result<Source<S>> {
    Ok(Source(Bench::new(SourceInstance::create(&bytes(&config)?, &host())?)))
}

/// A source under test.
pub struct Source<S>(Bench<SourceInstance<S>>);

impl<S: SourceConnector> Source<S> {
    /// Calls `connect`.
    pub fn connect(&mut self) -> Result {
        self.0.value("connect", &json!({})).map(drop)
    }

    /// The JSON Schema of its records.
    pub fn schema(&mut self) -> Result<Value> {
        self.0.value("schema", &json!({}))
    }

    /// Reads it from the beginning.
    pub fn read(&mut self) -> Result<Reading<S::Reader>> {
        self.open(&json!({}))
    }

    /// Reads it from where an earlier reading [stood](Reading::position).
    pub fn read_from(&mut self, position: &Value) -> Result<Reading<S::Reader>> {
        self.open(&json!({ "position": position }))
    }

    fn open(&mut self, input: &Value) -> Result<Reading<S::Reader>> {
        let number = SourceInstance::<S>::number("read_data").unwrap_or_default();
        let context = Context::new(&self.0.cancelled, -1);
        let stream = self.0.inner.open(number as usize, &bytes(input)?, &context)?;
        Ok(Reading {
            stream,
            keys: Keys::new(),
            buffer: Owned::new(),
            waiting: Vec::new().into_iter(),
            cancelled: Arc::default(),
            timeout_ms: -1,
            over: false,
        })
    }

    /// Calls `close`.
    pub fn close(&mut self) -> Result {
        self.0.value("close", &json!({})).map(drop)
    }

    /// Calls one of its `METHODS`.
    pub fn call(&mut self, method: &str, args: &impl Serialize) -> Result<Value> {
        self.0.value(method, args)
    }
}

/// One reading of a source: an iterator of its records. It goes on after a record's own error, as a host does.
pub struct Reading<R> {
    stream: ReaderStream<R>,
    keys: Keys,
    buffer: Box<Owned>,
    waiting: std::vec::IntoIter<Value>,
    cancelled: Arc<AtomicI32>,
    timeout_ms: i64,
    over: bool,
}

impl<R: Reader> Reading<R> {
    /// Where it stands: after the last `next` of the reader, which may have written several records.
    pub fn position(&mut self) -> Result<Value> {
        let context = Context::new(&self.cancelled, 0);
        self.stream.position(&mut Output::new(self.buffer.lend(), &context, &mut self.keys, false))?;
        Ok(serde_json::from_slice(self.buffer.bytes())?)
    }

    /// How long each `next` may take; `None` is as long as it likes. A timeout is an error of status
    /// [`Timeout`](crate::Status::Timeout), and the next call goes on.
    pub fn set_timeout(&mut self, timeout: Option<std::time::Duration>) {
        self.timeout_ms = timeout.map_or(-1, |timeout| i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX));
    }

    /// Cancels the reading, from whatever thread.
    pub fn canceller(&self) -> impl Fn() + Send + Sync + 'static {
        let cancelled = Arc::clone(&self.cancelled);
        move || cancelled.store(1, Ordering::Release)
    }

    fn pull(&mut self) -> Result<bool> {
        let context = Context::new(&self.cancelled, self.timeout_ms);
        let mut out = Output::new(self.buffer.lend(), &context, &mut self.keys, R::MANY);
        match self.stream.next(&mut out)? {
            FERRULE_OK => {
                self.waiting = lines(self.buffer.bytes())?.into_iter();
                Ok(true)
            }
            FERRULE_END => Ok(false),
            FERRULE_TIMEOUT => Err(Error::timeout("nothing came in time")),
            status => Err(Error::internal(format!("next answered with {status}"))),
        }
    }
}

impl<R: Reader> Iterator for Reading<R> {
    type Item = Result<Value>;

    fn next(&mut self) -> Option<Result<Value>> {
        use crate::Status::{InvalidData, Timeout, Unavailable};
        loop {
            if let Some(record) = self.waiting.next() {
                return Some(Ok(record));
            }
            if self.over {
                return None;
            }
            match self.pull() {
                Ok(true) => {}
                Ok(false) => self.over = true,
                Err(error) => {
                    self.over = !matches!(error.status(), InvalidData | Timeout | Unavailable);
                    return Some(Err(error));
                }
            }
        }
    }
}

/// Makes a sink. It is not open.
pub fn sink<S: SinkConnector>(config: Value) -> Result<Sink<S>> {
    Ok(Sink(Bench::new(SinkInstance::create(&bytes(&config)?, &host())?)))
}

/// A sink under test.
pub struct Sink<S>(Bench<SinkInstance<S>>);

impl<S: SinkConnector> Sink<S> {
    /// Calls `open`, with the mark of an earlier flush if there is one.
    pub fn open(&mut self, mark: Option<Value>) -> Result {
        self.0.value("open", &mark.map_or_else(|| json!({}), |mark| json!({ "mark": mark }))).map(drop)
    }

    /// Writes records.
    pub fn write(&mut self, records: &[impl Serialize]) -> Result {
        let mut lines = Vec::new();
        for record in records {
            serde_json::to_writer(&mut lines, record)?;
            lines.push(b'\n');
        }
        self.0.call("write", &lines).map(drop)
    }

    /// Flushes, and answers with the mark if there is one.
    pub fn flush(&mut self) -> Result<Option<Value>> {
        Ok(self.0.value("flush", &json!({}))?.get("mark").cloned())
    }

    /// Calls `close`.
    pub fn close(&mut self) -> Result {
        self.0.value("close", &json!({})).map(drop)
    }

    /// Calls one of its `METHODS`.
    pub fn call(&mut self, method: &str, args: &impl Serialize) -> Result<Value> {
        self.0.value(method, args)
    }
}

/// Makes a runner.
pub fn runner<R: JobRunner>(config: Value) -> Result<Runner<R>> {
    Ok(Runner { inner: RunnerInstance::create(&bytes(&config)?, &host())?, cancelled: Arc::default() })
}

/// A runner under test. Its calls may come from several threads at once.
///
/// ```
/// use ferrule_plugin::prelude::*;
/// use ferrule_plugin::testing;
/// use serde_json::json;
///
/// struct Shout;
/// impl JobRunner for Shout {
///     const NAME: &str = "shout";
///     type Config = Empty;
///     const METHODS: Methods<Self> = &[
///         unary("shout", |_: &Self, text: String, _: &Context| Ok(text.to_uppercase())),
///         feed("echo", |_: &Self, _: Empty, feed: &Feed<Bytes>, out: &Sender<Bytes>, _: &Context| {
///             feed.into_iter().try_for_each(|block| out.send(&block?))
///         }),
///     ];
///     fn create(_: Empty, _host: &Host) -> Result<Self> { Ok(Self) }
/// }
/// export_plugins! { runner Shout }
///
/// let shout = testing::runner::<Shout>(json!({}))?;
/// assert_eq!(shout.call("shout", &"hello")?, json!("HELLO"));
/// let mut echo = shout.open("echo", &json!({}))?;
/// echo.feed(b"a block")?;
/// assert_eq!(echo.next_bytes().unwrap()?, b"a block");
/// echo.feed_final(b"")?;
/// assert!(echo.next_bytes().is_none());
/// # Ok::<(), Error>(())
/// ```
pub struct Runner<R> {
    inner: RunnerInstance<R>,
    cancelled: Arc<AtomicI32>,
}

impl<R: JobRunner> Runner<R> {
    /// Calls a method.
    pub fn call(&self, method: &str, args: &impl Serialize) -> Result<Value> {
        Ok(serde_json::from_slice(&self.call_bytes(method, &bytes(args)?)?)?)
    }

    /// Calls a method that takes or gives [`Bytes`](crate::Bytes).
    pub fn call_bytes(&self, method: &str, input: &[u8]) -> Result<Vec<u8>> {
        self.call_with(method, input, &json!({})).0
    }

    /// Calls a method with metadata: what it answered with, and the metadata that it gave.
    pub fn call_with(&self, method: &str, input: &[u8], metadata: &Value) -> (Result<Vec<u8>>, Value) {
        let mut out = Owned::new();
        let (answer, metadata_out) = self.calling(metadata, |context| {
            let number = Self::number(method)?;
            self.inner.call(number, input, &mut Output::new(out.lend(), context, &mut Keys::new(), false))
        });
        (answer.map(|_| out.bytes().to_vec()), metadata_out)
    }

    /// Opens a stream.
    pub fn open(&self, method: &str, args: &impl Serialize) -> Result<Running> {
        self.open_with(method, &bytes(args)?, &json!({}))
    }

    /// Opens a stream with an input that need not be JSON, and with metadata.
    pub fn open_with(&self, method: &str, input: &[u8], metadata: &Value) -> Result<Running> {
        let (side, opened) =
            self.calling(metadata, |context| self.inner.open(Self::number(method)?, input, 0, context));
        Ok(Running { side: side?, buffer: Owned::new(), opened, over: false })
    }

    /// Cancels every call, from whatever thread: those under way, and all that follow. A stream has its
    /// [own](Running::canceller).
    pub fn canceller(&self) -> impl Fn() + Send + Sync + 'static {
        let cancelled = Arc::clone(&self.cancelled);
        move || cancelled.store(1, Ordering::Release)
    }

    fn number(method: &str) -> Result<usize> {
        let number = RunnerInstance::<R>::number(method);
        Ok(number.ok_or_else(|| Error::not_found(format!("this plugin has no method `{method}`")))? as usize)
    }

    fn calling<T>(&self, metadata: &Value, body: impl FnOnce(&Context<'_>) -> T) -> (T, Value) {
        let (metadata, mut metadata_out) = (metadata.to_string(), Owned::new());
        let call = ferrule_call {
            struct_size: size_of::<ferrule_call>() as u32,
            flags: 0,
            id: 0,
            cancelled: self.cancelled.as_ptr(),
            timeout_ms: -1,
            metadata: metadata.as_ptr().cast(),
            metadata_len: metadata.len(),
            metadata_out: metadata_out.raw(),
        };
        // SAFETY: what the call points at lives until the body has returned.
        let answer = body(&unsafe { Context::of(&raw const call) });
        (answer, serde_json::from_slice(metadata_out.bytes()).unwrap_or_default())
    }
}

/// A stream under test: an iterator of its items, as JSON. What it waits for it sleeps for, as a host does. A panic of
/// its job's is one here.
pub struct Running {
    side: HostSide,
    buffer: Box<Owned>,
    opened: Value,
    over: bool,
}

impl Running {
    /// The next item as it is, where it is no JSON.
    pub fn next_bytes(&mut self) -> Option<Result<Vec<u8>>> {
        if self.over {
            return None;
        }
        let step = until(|| match self.side.next(&mut self.buffer.lend()) {
            Ok(Step::Status(FERRULE_PENDING)) => None,
            step => Some(step),
        });
        self.over = !matches!(step, Ok(Step::Status(FERRULE_OK)));
        match step {
            Ok(Step::Status(FERRULE_OK)) => Some(Ok(self.buffer.bytes().to_vec())),
            Ok(Step::Status(_)) => None,
            Ok(Step::Panicked(error)) => panic!("the stream's job {error}"),
            Err(error) => Some(Err(error)),
        }
    }

    /// Feeds a block, waiting while the job is behind: whether it was taken. It is not when the job wants no more.
    pub fn feed(&self, block: &[u8]) -> Result<bool> {
        self.feed_block(block, false)
    }

    /// Feeds the final block, which may be empty.
    pub fn feed_final(&self, block: &[u8]) -> Result<bool> {
        self.feed_block(block, true)
    }

    fn feed_block(&self, block: &[u8], last: bool) -> Result<bool> {
        if !self.side.info().need_feed {
            return Err(Error::unsupported("this stream takes no feed"));
        }
        let taken = until(|| match self.side.line().take_feed(block, last) {
            Ok(FERRULE_PENDING) => None,
            taken => Some(taken),
        });
        Ok(taken? == FERRULE_OK)
    }

    /// Cancels it, from whatever thread.
    pub fn canceller(&self) -> impl Fn() + Send + Sync + 'static {
        let line = Arc::clone(self.side.line());
        move || line.cancel()
    }

    /// The metadata of the last item, or of the stream after its end.
    pub fn metadata(&mut self) -> Result<Value> {
        self.side.metadata(&mut self.buffer.lend())?;
        Ok(serde_json::from_slice(self.buffer.bytes())?)
    }

    /// The metadata that it was [opened](crate::Method::on_open) with.
    pub fn opened(&self) -> &Value {
        &self.opened
    }
}

impl Iterator for Running {
    type Item = Result<Value>;

    fn next(&mut self) -> Option<Result<Value>> {
        Some(self.next_bytes()?.and_then(|item| Ok(serde_json::from_slice(&item)?)))
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "testing::Running({})", self.side.info().name)
    }
}

macro_rules! debug {
    ($($name:ident)*) => {
        $(impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("testing::", stringify!($name), "<{}>"), std::any::type_name::<T>())
            }
        })*
    };
}

debug! { Function Source Reading Sink Runner }
