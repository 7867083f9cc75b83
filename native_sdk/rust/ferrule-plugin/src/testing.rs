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
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use ferrule_sys::{FERRULE_END, FERRULE_OK, FERRULE_SKIP, FERRULE_TIMEOUT};
use serde::Serialize;
use serde_json::{Value, json};

use crate::abi::{Instance, Stream};
use crate::buffer::Owned;
use crate::json::Keys;
use crate::kinds::{FunctionInstance, ReaderStream, SinkInstance, SourceInstance};
use crate::{Context, EnrichmentFunction, Error, Host, Output, Reader, Result, SinkConnector, SourceConnector};

/// A host that nobody listens to.
fn host() -> Host {
    // SAFETY: null is allowed.
    unsafe { Host::new(std::ptr::null(), 0) }
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

macro_rules! debug {
    ($($name:ident)*) => {
        $(impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("testing::", stringify!($name), "<{}>"), std::any::type_name::<T>())
            }
        })*
    };
}

debug! { Function Source Reading Sink }
