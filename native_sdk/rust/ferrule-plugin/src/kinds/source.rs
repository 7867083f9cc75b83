//! Sources: where records come from.

use ferrule_sys::{FERRULE_END, FERRULE_OK, FERRULE_TIMEOUT, ferrule_instance};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Exported, Plugin, kind};
use crate::abi::serial::{Instance, Stream, allocate};
use crate::manifest::{Described, LINES, MethodInfo, PluginInfo, number_of};
use crate::methods::{Access, Methods, erase, invoke};
use crate::schema::{Schema, Shape};
use crate::{Context, Error, Host, Next, Output, Result, config};

/// Where a flow begins: it is created with its configuration, connected, and read, as often as one likes.
///
/// The order of calls is kept here: reading before `connect` or after `close` is
/// [`INVALID_STATE`](crate::Status::InvalidState), and a second `close` does nothing.
///
/// ```
/// use ferrule_plugin::prelude::*;
///
/// config! {
///     struct Hello { id: u64, message: String }
/// }
///
/// struct HelloSource;
///
/// impl SourceConnector for HelloSource {
///     const NAME: &str = "hello-source";
///     const RECORD: Shape = Hello::SHAPE;
///     type Config = Empty;
///     type Reader = HelloReader;
///
///     fn create(_: Empty, _host: &Host) -> Result<Self> {
///         Ok(Self)
///     }
///
///     fn read_data(&mut self, from: Option<u64>, _cx: &Context) -> Result<HelloReader> {
///         Ok(HelloReader(from.unwrap_or(0)))
///     }
/// }
///
/// struct HelloReader(u64);
///
/// impl Reader for HelloReader {
///     type Position = u64;
///
///     fn next(&mut self, out: &mut Output) -> Result<Next> {
///         if self.0 == 2 {
///             return Ok(Next::End);
///         }
///         self.0 += 1;
///         out.item(&Hello { id: self.0, message: format!("Hello from Rust Source {}", self.0) })
///     }
///
///     fn position(&self) -> u64 {
///         self.0
///     }
/// }
///
/// export_plugins! {
///     /// Two greetings.
///     source HelloSource,
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no source: `SourceConnector` is not implemented for it",
    label = "`impl SourceConnector for {Self}` is missing",
    note = "`export_plugins!` takes `function`, `source`, `sink` or `runner` before each type, as the trait that it implements"
)]
pub trait SourceConnector: Exported<kind::Source> + Sized + Send + 'static {
    /// What flows call it: a-z, 0-9, `-` and `_`.
    const NAME: &'static str;
    /// Its configuration, a struct of [`config!`](crate::config) or [`Empty`](crate::Empty).
    type Config: Schema;
    /// What reads it.
    type Reader: Reader;
    /// What its records look like, as far as that is known before it runs: `T::SHAPE` of a type of `config!`.
    const RECORD: Shape = Shape::RECORD;
    /// What it offers beside its contract.
    const METHODS: Methods<Self> = &[];

    /// Makes an instance. The host has checked the configuration and filled its defaults in.
    fn create(config: Self::Config, host: &Host) -> Result<Self>;

    /// Opens what it reads from.
    fn connect(&mut self, _cx: &Context) -> Result {
        Ok(())
    }

    /// What its records look like, as JSON Schema.
    fn schema(&mut self, _cx: &Context) -> Result<Value> {
        Ok(serde_json::to_value(Self::RECORD)?)
    }

    /// A new reader, from the beginning, or from where an earlier one [stood](Reader::position). A position that no
    /// longer fits, because what it reads has changed, is refused with an error.
    fn read_data(&mut self, from: Option<<Self::Reader as Reader>::Position>, cx: &Context) -> Result<Self::Reader>;

    /// Closes what `connect` opened. Called once, after the last reader is gone.
    fn close(&mut self, _cx: &Context) -> Result {
        Ok(())
    }
}

/// One reading of a source.
///
/// It runs on a thread of the host's choosing, one at a time, also beside calls of its source: so it owns what it
/// reads from, or shares it safely.
pub trait Reader: Send + Sized + 'static {
    /// A place to go on from, not a count to skip: a file's offset, a key. Anything that serde can write as JSON.
    type Position: Serialize + DeserializeOwned;
    /// One `next` may write many records. That is faster where records are small: up to some dozens of KiB. An error
    /// takes back all that its `next` has written: what is good goes out first, and the error at the next call.
    const MANY: bool = false;

    /// Writes the next record, and says so.
    ///
    /// An [`Error::invalid_data`] is about this one record: the next call goes on after it, and the record's own text
    /// goes into `.detail("record", …)`, so that a dead letter can hold it. [`Error::unavailable`] and
    /// [`Error::timeout`] do not end the reading either; all others do.
    ///
    /// What waits for records that are yet to come looks at [`out.context()`](Output::context) for the time that it
    /// has, answers with [`Next::Timeout`] when that is over, and watches whether it is
    /// [cancelled](Context::cancelled).
    fn next(&mut self, out: &mut Output) -> Result<Next>;

    /// Where to go on: right after what `next` wrote last, never after what was merely read ahead.
    fn position(&self) -> Self::Position;
}

/// The numbered methods of a source, and its state.
#[derive(Debug)]
pub(crate) struct SourceInstance<S> {
    source: S,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Created,
    Connected,
    Closed,
}

impl<S: SourceConnector> SourceInstance<S> {
    const CONTRACT: &'static [MethodInfo] = &[
        MethodInfo::unary("connect"),
        MethodInfo::unary("schema"),
        {
            let mut read = MethodInfo::unary("read_data");
            read.mode = "stream";
            read.result = Some(Described::Shape(&S::RECORD));
            read.cancellable = true;
            if S::Reader::MANY {
                read.output = LINES;
            }
            read
        },
        MethodInfo::unary("close"),
    ];

    pub(crate) fn create(config: &[u8], host: &Host) -> Result<Self> {
        Ok(Self { source: S::create(config::parse(config)?, host)?, state: State::Created })
    }

    fn connected(&self, what: &str) -> Result {
        match self.state {
            State::Connected => Ok(()),
            State::Created => Err(Error::invalid_state(format!("{what} before connect"))),
            State::Closed => Err(Error::invalid_state(format!("{what} after close"))),
        }
    }
}

impl<S: SourceConnector> Instance for SourceInstance<S> {
    type Stream = ReaderStream<S::Reader>;

    fn number(name: &str) -> Option<i32> {
        number_of(Self::CONTRACT, erase(S::METHODS), name)
    }

    fn call(&mut self, method: usize, input: &[u8], out: &mut Output) -> Result<i32> {
        let context = out.context();
        match method {
            0 => {
                if self.state == State::Connected {
                    return Err(Error::invalid_state("connect, and it is connected already"));
                }
                self.source.connect(context)?;
                self.state = State::Connected;
                out.value(&())?;
            }
            1 => {
                self.connected("schema")?;
                let schema = self.source.schema(context)?;
                out.value(&schema)?;
            }
            2 => return Err(Error::unsupported("read_data is a stream: open it")),
            3 => {
                if self.state == State::Connected {
                    self.state = State::Closed; // also when it fails: once is once
                    self.source.close(context)?;
                }
                out.value(&())?;
            }
            own => invoke(S::METHODS, own - Self::CONTRACT.len(), Access::Exclusive(&mut self.source), input, out)?,
        }
        out.outcome()
    }

    fn open(&mut self, method: usize, input: &[u8], context: &Context) -> Result<Self::Stream> {
        if method != 2 {
            return Err(Error::unsupported("only read_data is a stream"));
        }
        self.connected("read_data")?;
        let from = parse_place("position", input)?;
        Ok(ReaderStream(self.source.read_data(from, context)?))
    }
}

/// The value of `{"position": …}` or `{"mark": …}`, if there is one.
pub(super) fn parse_place<T: DeserializeOwned>(name: &str, input: &[u8]) -> Result<Option<T>> {
    if input.is_empty() {
        return Ok(None);
    }
    let wrong = |error: serde_json::Error| Error::invalid_argument(format!("{name}: {}", config::explain(&error)));
    let mut given: serde_json::Map<String, Value> = serde_json::from_slice(input).map_err(wrong)?;
    match given.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(place) => serde_json::from_value(place).map(Some).map_err(wrong),
    }
}

/// A reader as a stream.
#[derive(Debug)]
pub(crate) struct ReaderStream<R>(R);

impl<R: Reader> Stream for ReaderStream<R> {
    const MANY: bool = R::MANY;

    #[inline]
    fn next(&mut self, out: &mut Output) -> Result<i32> {
        match self.0.next(out)? {
            Next::Item => out.written().map(|()| FERRULE_OK),
            Next::End => Ok(FERRULE_END),
            Next::Timeout => Ok(FERRULE_TIMEOUT),
        }
    }

    fn position(&self, out: &mut Output) -> Result {
        out.value(&self.0.position())
    }
}

impl<S: SourceConnector> Plugin<kind::Source> for S {
    const INFO: PluginInfo = PluginInfo {
        name: S::NAME,
        kind: "source",
        concurrent: false,
        docs: &[],
        config: &S::Config::SHAPE,
        contract: SourceInstance::<S>::CONTRACT,
        extra: erase(S::METHODS),
    };

    fn instance(config: &[u8], host: &Host) -> Result<*mut ferrule_instance> {
        SourceInstance::<S>::create(config, host).map(allocate)
    }
}
