//! Sinks: where records go to.

use ferrule_sys::ferrule_instance;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::ser::SerializeMap;

use super::source::parse_place;
use super::{Exported, Plugin, kind};
use crate::abi::serial::{Instance, NoStream, allocate};
use crate::manifest::{LINES, MethodInfo, PluginInfo, number_of};
use crate::methods::{Access, Methods, erase, invoke};
use crate::schema::Schema;
use crate::{Context, Error, Host, Output, Records, Result, config};

/// Where a flow ends: it is opened, written to, flushed now and then, and closed.
///
/// The order of calls is kept here: writing before `open` or after `close` is
/// [`INVALID_STATE`](crate::Status::InvalidState), and a second `close` does nothing.
///
/// ```
/// use std::{fs::{File, OpenOptions}, io::{Seek, SeekFrom, Write}, path::PathBuf};
/// use ferrule_plugin::prelude::*;
///
/// config! {
///     struct Config {
///         /// The file to write.
///         path: PathBuf,
///     }
/// }
///
/// struct LinesSink { config: Config, file: Option<File> }
///
/// impl SinkConnector for LinesSink {
///     const NAME: &str = "lines-sink";
///     type Config = Config;
///     type Mark = u64; // the file's length
///
///     fn create(config: Config, _host: &Host) -> Result<Self> {
///         Ok(Self { config, file: None })
///     }
///
///     fn open(&mut self, mark: Option<u64>, _cx: &Context) -> Result {
///         let mut file = OpenOptions::new().create(true).write(true).truncate(false).open(&self.config.path)?;
///         file.set_len(mark.unwrap_or(0))?; // what was written after the mark is cut off
///         file.seek(SeekFrom::End(0))?;
///         self.file = Some(file);
///         Ok(())
///     }
///
///     fn write(&mut self, records: &Records, _cx: &Context) -> Result {
///         Ok(self.file.as_mut().ok_or_else(|| Error::internal("no file"))?.write_all(records.as_bytes())?)
///     }
///
///     fn flush(&mut self, _cx: &Context) -> Result<Option<u64>> {
///         Ok(match &mut self.file {
///             Some(file) => Some(file.stream_position()?),
///             None => None,
///         })
///     }
///
///     fn close(&mut self, _cx: &Context) -> Result {
///         self.file = None;
///         Ok(())
///     }
/// }
///
/// export_plugins! {
///     /// Writes each record on a line of its own.
///     sink LinesSink,
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no sink: `SinkConnector` is not implemented for it",
    label = "`impl SinkConnector for {Self}` is missing",
    note = "`export_plugins!` takes `function`, `source`, `sink` or `runner` before each type, as the trait that it implements"
)]
pub trait SinkConnector: Exported<kind::Sink> + Sized + Send + 'static {
    /// What flows call it: a-z, 0-9, `-` and `_`.
    const NAME: &'static str;
    /// Its configuration, a struct of [`config!`](crate::config) or [`Empty`](crate::Empty).
    type Config: Schema;
    /// Where it stands, so that a restart can cut off what came after: a file's length. `()` for a sink that cannot
    /// take anything back.
    type Mark: Serialize + DeserializeOwned;
    /// What it offers beside its contract.
    const METHODS: Methods<Self> = &[];

    /// Makes an instance. The host has checked the configuration and filled its defaults in.
    fn create(config: Self::Config, host: &Host) -> Result<Self>;

    /// Opens what it writes to: anew, or where an earlier [`flush`](Self::flush) stood, without what came after.
    fn open(&mut self, _mark: Option<Self::Mark>, _cx: &Context) -> Result {
        Ok(())
    }

    /// Takes records: all of them, or, when it answers with an error, none.
    fn write(&mut self, records: &Records, cx: &Context) -> Result;

    /// Sees to it that what was written will not be lost with this process, and says where it stands.
    fn flush(&mut self, _cx: &Context) -> Result<Option<Self::Mark>> {
        Ok(None)
    }

    /// Waits until what was written is on the disk, as far as the system can tell. Called before a flush that is to
    /// survive a loss of power; it costs what the disk costs.
    fn sync(&mut self, _cx: &Context) -> Result {
        Ok(())
    }

    /// Closes what `open` opened. Called once, after the last flush.
    fn close(&mut self, _cx: &Context) -> Result {
        Ok(())
    }
}

/// The numbered methods of a sink, and its state.
#[derive(Debug)]
pub(crate) struct SinkInstance<S> {
    sink: S,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Created,
    Open,
    Closed,
}

impl<S: SinkConnector> SinkInstance<S> {
    const CONTRACT: &'static [MethodInfo] = &[
        MethodInfo::unary("open"),
        {
            let mut write = MethodInfo::unary("write");
            write.input = LINES;
            write
        },
        MethodInfo::unary("flush"),
        MethodInfo::unary("close"),
    ];

    pub(crate) fn create(config: &[u8], host: &Host) -> Result<Self> {
        Ok(Self { sink: S::create(config::parse(config)?, host)?, state: State::Created })
    }

    fn is_open(&self, what: &str) -> Result {
        match self.state {
            State::Open => Ok(()),
            State::Created => Err(Error::invalid_state(format!("{what} before open"))),
            State::Closed => Err(Error::invalid_state(format!("{what} after close"))),
        }
    }
}

/// `{"mark": …}`, or `{}`.
struct Flushed<M>(Option<M>);

impl<M: Serialize> Serialize for Flushed<M> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(mark) = &self.0 {
            map.serialize_entry("mark", mark)?;
        }
        map.end()
    }
}

impl<S: SinkConnector> Instance for SinkInstance<S> {
    type Stream = NoStream;

    fn number(name: &str) -> Option<i32> {
        number_of(Self::CONTRACT, erase(S::METHODS), name)
    }

    fn call(&mut self, method: usize, input: &[u8], out: &mut Output) -> Result<i32> {
        let context = out.context();
        match method {
            0 => {
                if self.state == State::Open {
                    return Err(Error::invalid_state("open, and it is open already"));
                }
                self.sink.open(parse_place("mark", input)?, context)?;
                self.state = State::Open;
                out.value(&())?;
            }
            1 => {
                self.is_open("write")?;
                let records = Records::new(input)?;
                if !records.is_empty() {
                    self.sink.write(records, context)?;
                }
                out.value(&())?;
            }
            2 => {
                self.is_open("flush")?;
                if parse_place("durable", input)? == Some(true) {
                    self.sink.sync(context)?;
                }
                let mark = self.sink.flush(context)?;
                out.value(&Flushed(mark))?;
            }
            3 => {
                if self.state == State::Open {
                    self.state = State::Closed; // also when it fails: once is once
                    self.sink.close(context)?;
                }
                out.value(&())?;
            }
            own => invoke(S::METHODS, own - Self::CONTRACT.len(), Access::Exclusive(&mut self.sink), input, out)?,
        }
        out.outcome()
    }
}

impl<S: SinkConnector> Plugin<kind::Sink> for S {
    const INFO: PluginInfo = PluginInfo {
        name: S::NAME,
        kind: "sink",
        concurrent: false,
        docs: &[],
        config: &S::Config::SHAPE,
        contract: SinkInstance::<S>::CONTRACT,
        extra: erase(S::METHODS),
    };

    fn instance(config: &[u8], host: &Host) -> Result<*mut ferrule_instance> {
        SinkInstance::<S>::create(config, host).map(allocate)
    }
}
