//! What a plugin can ask of its host, and what it can know about a call.

use std::fmt::{self, Display};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ferrule_sys::{ferrule_call, ferrule_host};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::buffer::Buffer;
use crate::stream::Line;
use crate::{Error, Result};

/// How loud a log message is. The numbers are Python's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum Level {
    /// For whoever works on the plugin.
    Debug = 10,
    /// What happens, in the ordinary course.
    Info = 20,
    /// Something may be wrong.
    Warning = 30,
    /// Something is wrong.
    Error = 40,
    /// Nothing will go on.
    Critical = 50,
}

/// The host, as one instance sees it. Clone it freely and use it from any thread: it only queues, and lives until the
/// process ends.
///
/// ```
/// # use ferrule_plugin::{Host, Level};
/// fn opened(host: &Host, path: &str, lines: u64) {
///     host.info(format_args!("{path} has {lines} lines")); // formatted only if somebody listens
///     host.log_fields(Level::Debug, "opened", &[("path", path)]);
/// }
/// ```
#[derive(Clone)]
pub struct Host {
    raw: *const ferrule_host,
    id: u64,
}

// SAFETY: ferrule.h promises the host's table until the process ends, and its functions from any thread.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

impl Host {
    /// # Safety
    /// `raw` is null or a host under the rules of ferrule.h.
    pub(crate) unsafe fn new(raw: *const ferrule_host, id: u64) -> Self {
        Self { raw, id }
    }

    fn table(&self) -> Option<&'static ferrule_host> {
        // SAFETY: see `new`.
        unsafe { self.raw.as_ref() }
    }

    /// Whether anybody would see a message of this level. Asks before costly messages are made.
    pub fn log_enabled(&self, level: Level) -> bool {
        let Some(enabled) = self.table().and_then(|host| host.log_enabled) else { return false };
        // SAFETY: the host's own function on the host's own table.
        unsafe { enabled(self.raw, self.id, level as i32) != 0 }
    }

    /// Queues a message. It may be dropped when the host is behind; the host counts those.
    pub fn log(&self, level: Level, message: impl Display) {
        if self.log_enabled(level) {
            self.send(level, &message.to_string(), None);
        }
    }

    /// Queues a message with fields beside it: anything that serialises to a JSON object, or a list of pairs.
    pub fn log_fields<V: Serialize>(&self, level: Level, message: impl Display, fields: &[(&str, V)]) {
        if self.log_enabled(level) {
            let mut object = serde_json::Map::new();
            for (name, value) in fields {
                object.insert((*name).to_owned(), serde_json::to_value(value).unwrap_or_default());
            }
            self.send(level, &message.to_string(), Some(&serde_json::Value::Object(object).to_string()));
        }
    }

    /// The same host, speaking for a stream.
    pub(crate) fn of_stream(&self, id: u64) -> Self {
        Self { raw: self.raw, id }
    }

    /// Says that the stream whose id this has would not answer PENDING any more.
    pub(crate) fn wake(&self) {
        let Some(wake) = self.table().and_then(|host| host.wake) else { return };
        // SAFETY: the host's own function on the host's own table.
        unsafe { wake(self.raw, self.id) }
    }

    fn send(&self, level: Level, message: &str, fields: Option<&str>) {
        let Some(log) = self.table().and_then(|host| host.log) else { return };
        let (fields, fields_len) = fields.map_or((std::ptr::null(), 0), |text| (text.as_ptr().cast(), text.len()));
        // SAFETY: the host's own function; the texts are UTF-8 with their lengths and copied before it returns.
        unsafe { log(self.raw, self.id, level as i32, message.as_ptr().cast(), message.len(), fields, fields_len) }
    }

    /// A message for whoever works on the plugin.
    pub fn debug(&self, message: impl Display) {
        self.log(Level::Debug, message);
    }

    /// A message about what happens in the ordinary course.
    pub fn info(&self, message: impl Display) {
        self.log(Level::Info, message);
    }

    /// A message that something may be wrong.
    pub fn warning(&self, message: impl Display) {
        self.log(Level::Warning, message);
    }

    /// A message that something is wrong.
    pub fn error(&self, message: impl Display) {
        self.log(Level::Error, message);
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What a call knows beside its input. Lent for the call; for a stream of a runner's, as long as its thread runs.
pub struct Context<'a> {
    cancelled: &'a AtomicI32,
    timeout_ms: i64,
    metadata: &'a [u8],
    /// Lent for `'a`; behind a Mutex that lifetime could not shrink with the others.
    metadata_out: Mutex<Option<Buffer<'static>>>,
    /// What a stream's job shares with it.
    line: Option<&'a Line>,
}

impl<'a> Context<'a> {
    /// # Safety
    /// `call` is a call under the rules of ferrule.h, and lives for `'a` with all that it points at.
    #[inline]
    pub(crate) unsafe fn of(call: *const ferrule_call) -> Self {
        // SAFETY: the caller's promise; the flag is never null and read atomically only.
        unsafe {
            let call = &*call;
            Self {
                cancelled: AtomicI32::from_ptr(call.cancelled.cast_mut()),
                timeout_ms: call.timeout_ms,
                metadata: lent(call.metadata.cast(), call.metadata_len),
                metadata_out: Mutex::new((!call.metadata_out.is_null()).then(|| Buffer::lent(call.metadata_out))),
                line: None,
            }
        }
    }

    #[inline]
    pub(crate) fn new(cancelled: &'a AtomicI32, timeout_ms: i64) -> Self {
        Self { cancelled, timeout_ms, metadata: &[], metadata_out: Mutex::new(None), line: None }
    }

    pub(crate) fn of_stream(cancelled: &'a AtomicI32, metadata: &'a [u8], line: &'a Line) -> Self {
        Self { metadata, line: Some(line), ..Self::new(cancelled, -1) }
    }

    pub(crate) fn metadata_bytes(&self) -> &'a [u8] {
        self.metadata
    }

    /// Whether somebody asked to stop. What takes long looks now and then, and answers with
    /// [`Error::cancelled`](crate::Error::cancelled).
    #[inline]
    pub fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire) != 0
    }

    /// How long this may take, counted from its beginning; `None`: as long as it likes, zero: it must not wait.
    #[inline]
    pub fn timeout(&self) -> Option<Duration> {
        u64::try_from(self.timeout_ms).ok().map(Duration::from_millis)
    }

    /// Waits, unless it is cancelled before.
    ///
    /// # Errors
    /// CANCELLED as soon as somebody asks to stop: at once in a stream, within two milliseconds in a call.
    pub fn sleep(&self, time: Duration) -> Result {
        match self.line {
            Some(line) => line.sleep(time),
            None => {
                let started = Instant::now();
                while !self.cancelled() {
                    let Some(left) = time.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) else { break };
                    std::thread::sleep(left.min(LOOK));
                }
            }
        }
        if self.cancelled() { Err(Error::cancelled("somebody asked to stop")) } else { Ok(()) }
    }

    /// Gives the caller metadata, an object, beside the answer or beside an error; the last one counts. What
    /// [`on_open`](crate::Method::on_open) gives is the stream's: its `media_type`, if the manifest's is not right.
    ///
    /// # Errors
    /// INVALID_STATE within a stream, which has [`Sender::metadata`](crate::Sender::metadata); INTERNAL for what is no
    /// object.
    pub fn metadata_out<T: Serialize + ?Sized>(&self, metadata: &T) -> Result {
        if self.line.is_some() {
            return Err(Error::invalid_state("a stream gives metadata by its Sender, or before it begins: on_open"));
        }
        let mut buffer = self.metadata_out.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(buffer) = &mut *buffer else { return Ok(()) }; // nobody listens
        buffer.truncate(0);
        buffer.json(metadata)?;
        if buffer.written().first() != Some(&b'{') {
            buffer.truncate(0);
            return Err(Error::internal(format!("metadata is an object, and {} is not", std::any::type_name::<T>())));
        }
        Ok(())
    }

    /// The metadata that the caller gave, `None` if there is none.
    pub fn metadata<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        if self.metadata.is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(self.metadata)
            .map(Some)
            .map_err(|error| Error::invalid_argument(format!("the call's metadata: {error}")))
    }
}

/// Between two looks at a call's flag, which nobody announces.
const LOOK: Duration = Duration::from_millis(2);

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metadata = String::from_utf8_lossy(self.metadata);
        f.debug_struct("Context")
            .field("cancelled", &self.cancelled())
            .field("timeout", &self.timeout())
            .field("metadata", &metadata)
            .finish_non_exhaustive()
    }
}

/// A slice of what was lent, where null is allowed with length 0.
///
/// # Safety
/// `data` is valid for `len` bytes during `'a`, or `len` is 0.
#[inline]
pub(crate) unsafe fn lent<'a>(data: *const u8, len: usize) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(data, len) }
}
