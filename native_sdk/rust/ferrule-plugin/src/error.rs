//! The one error type, and how it becomes a status and an object in the host's error buffer.

use std::fmt;
use std::time::Duration;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};

/// What every method answers with: `Result` alone is `Result<(), Error>`.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// What kind of failure an [`Error`] is. Python raises a class of its own for each.
///
/// A host may try again what is [`Unavailable`](Status::Unavailable), [`Timeout`](Status::Timeout), or says
/// [`retry_after`](Error::retry_after); nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum Status {
    /// The caller's input, judged alone.
    InvalidArgument = ferrule_sys::FERRULE_INVALID_ARGUMENT,
    /// The configuration.
    InvalidConfig = ferrule_sys::FERRULE_INVALID_CONFIG,
    /// This one record; a stream goes on after it.
    InvalidData = ferrule_sys::FERRULE_INVALID_DATA,
    /// The right call at the wrong moment.
    InvalidState = ferrule_sys::FERRULE_INVALID_STATE,
    /// No such thing.
    NotFound = ferrule_sys::FERRULE_NOT_FOUND,
    /// Not offered.
    Unsupported = ferrule_sys::FERRULE_UNSUPPORTED,
    /// Nobody said who is asking.
    Unauthenticated = ferrule_sys::FERRULE_UNAUTHENTICATED,
    /// Who is asking may not.
    Denied = ferrule_sys::FERRULE_DENIED,
    /// Not now; trying again may help. A stream goes on after it.
    Unavailable = ferrule_sys::FERRULE_UNAVAILABLE,
    /// The time ran out. A stream goes on after it.
    Timeout = ferrule_sys::FERRULE_TIMEOUT,
    /// Somebody asked to stop.
    Cancelled = ferrule_sys::FERRULE_CANCELLED,
    /// No memory, or the host refused it.
    OutOfMemory = ferrule_sys::FERRULE_OUT_OF_MEMORY,
    /// Files, sockets, devices.
    Io = ferrule_sys::FERRULE_IO,
    /// A bug: a promise of the boundary was broken. The host makes no further use of the instance.
    Internal = ferrule_sys::FERRULE_INTERNAL,
}

/// Why a method did not do what it was asked: a [`Status`], a message, and what a program may want to know.
///
/// The message says what, which, expected against got, and what to do. It is one sentence, without the plugin's own
/// name: the host adds plugin, method and record number.
///
/// ```
/// use ferrule_plugin::{Error, Status};
///
/// let error = Error::not_found("no airline has the code `ZZ`").detail("code", "ZZ");
/// assert_eq!(error.status(), Status::NotFound);
/// assert_eq!(error.to_string(), "no airline has the code `ZZ`");
/// ```
///
/// `?` turns a [`std::io::Error`] into [`Status::Io`] and a [`serde_json::Error`] into [`Status::InvalidData`].
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    status: Status,
    message: String,
    details: Option<Value>,
    retry_after: Option<Duration>,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $status:ident;)*) => {
        $(
            $(#[$doc])*
            #[cold]
            pub fn $name(message: impl Into<String>) -> Self {
                Self::new(Status::$status, message)
            }
        )*
    };
}

impl Error {
    /// An error of any status; the functions named after one are shorter.
    #[cold]
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { status, message: message.into(), details: None, retry_after: None }))
    }

    constructors! {
        /// The caller's input, judged alone, is wrong.
        invalid_argument => InvalidArgument;
        /// The configuration is wrong in a way that its schema cannot say.
        invalid_config => InvalidConfig;
        /// This one record is wrong; a stream goes on after it.
        invalid_data => InvalidData;
        /// The right call at the wrong moment.
        invalid_state => InvalidState;
        /// No such thing.
        not_found => NotFound;
        /// Not offered.
        unsupported => Unsupported;
        /// Nobody said who is asking.
        unauthenticated => Unauthenticated;
        /// Who is asking may not.
        denied => Denied;
        /// Not now; the host may try again.
        unavailable => Unavailable;
        /// The time ran out; the host may try again.
        timeout => Timeout;
        /// Somebody asked to stop, see [`Context::cancelled`](crate::Context::cancelled).
        cancelled => Cancelled;
        /// No memory, or the host refused it.
        out_of_memory => OutOfMemory;
        /// Files, sockets, devices.
        io => Io;
        /// A bug in the plugin. The host makes no further use of the instance.
        internal => Internal;
    }

    /// What a program may want to know: a JSON object in place of the details so far. What is not an object goes
    /// under `value`.
    #[must_use]
    pub fn details(mut self, details: impl Serialize) -> Self {
        self.0.details = Some(match serde_json::to_value(details) {
            Ok(object @ Value::Object(_)) => object,
            Ok(value) => Value::Object(Map::from_iter([("value".to_owned(), value)])),
            Err(error) => Value::Object(Map::from_iter([("unwritable".to_owned(), error.to_string().into())])),
        });
        self
    }

    /// Adds one field to the details. A source's bad item names its own text as `record`, so that a dead letter can
    /// hold it.
    #[must_use]
    pub fn detail(mut self, key: &str, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).unwrap_or_else(|error| Value::String(error.to_string()));
        match &mut self.0.details {
            Some(Value::Object(details)) => {
                details.insert(key.to_owned(), value);
            }
            details => *details = Some(Value::Object(Map::from_iter([(key.to_owned(), value)]))),
        }
        self
    }

    /// When trying again may help. It makes any error one that a host may try again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Puts where it happened before the message: `"airlines.csv, line 7"` gives `airlines.csv, line 7: …`.
    #[must_use]
    pub fn context(mut self, place: impl fmt::Display) -> Self {
        self.0.message = format!("{place}: {}", self.0.message);
        self
    }

    /// What kind of failure it is.
    pub fn status(&self) -> Status {
        self.0.status
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The details given so far, an object.
    pub fn get_details(&self) -> Option<&Value> {
        self.0.details.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("status", &self.0.status).field("message", &self.0.message);
        if let Some(details) = &self.0.details {
            out.field("details", details);
        }
        if let Some(wait) = &self.0.retry_after {
            out.field("retry_after", wait);
        }
        out.finish()
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::io(error.to_string())
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        if error.is_io() { Self::io(error.to_string()) } else { Self::invalid_data(error.to_string()) }
    }
}

impl From<std::str::Utf8Error> for Error {
    fn from(error: std::str::Utf8Error) -> Self {
        Self::invalid_data(error.to_string())
    }
}

/// The object of the error buffer: `{"message": …, "details": …, "retry_after_ms": …}`.
impl Serialize for Error {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("message", &self.0.message)?;
        if let Some(details) = &self.0.details {
            map.serialize_entry("details", details)?;
        }
        if let Some(wait) = self.0.retry_after {
            map.serialize_entry("retry_after_ms", &u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))?;
        }
        map.end()
    }
}
