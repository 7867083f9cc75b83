//! What goes into a method and comes out of it: values as JSON, or bytes as they are.

use std::cell::Cell;
use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::Serialize;

use crate::manifest::{BYTES, JSON};
use crate::schema::{Schema, Shape};
use crate::{Error, Output, Result, config};

/// What a method takes or gives: a type with a [`Schema`], which travels as JSON, or [`Bytes`], which go as they are.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can be neither given to a method nor answered by one",
    label = "neither a type with a schema, nor Bytes",
    note = "declare it inside `config! {{ struct … }}` (an enum without data is fine, too), or use one of bool, integers, f32, f64, \
            char, String, Option<T>, Vec<T>, BTreeMap<String, T>, HashMap<String, T>, serde_json::Value, or Bytes for what is no JSON"
)]
pub trait Payload: Sized {
    #[doc(hidden)]
    const SHAPE: Option<&'static Shape>;
    #[doc(hidden)]
    const MEDIA_TYPE: &'static str;
    #[doc(hidden)]
    fn read(bytes: &[u8]) -> Result<Self>;
    #[doc(hidden)]
    fn read_owned(bytes: Vec<u8>) -> Result<Self> {
        Self::read(&bytes)
    }
    #[doc(hidden)]
    fn write(&self, out: &mut Output<'_>) -> Result;
    #[doc(hidden)]
    fn with_bytes(&self, body: impl FnOnce(&[u8]) -> Result) -> Result;
}

impl<T: Schema> Payload for T {
    const SHAPE: Option<&'static Shape> = Some(&<T as Schema>::SHAPE);
    const MEDIA_TYPE: &'static str = JSON;

    fn read(bytes: &[u8]) -> Result<Self> {
        let bytes = if bytes.is_empty() { b"null" } else { bytes };
        serde_json::from_slice(bytes).map_err(|error| Error::invalid_argument(config::explain(&error)))
    }

    #[inline]
    fn write(&self, out: &mut Output<'_>) -> Result {
        out.value(self)
    }

    #[inline]
    fn with_bytes(&self, body: impl FnOnce(&[u8]) -> Result) -> Result {
        with_json(self, body)
    }
}

/// Renders JSON in a place that the thread keeps for it.
pub(crate) fn with_json<T: Serialize + ?Sized>(value: &T, body: impl FnOnce(&[u8]) -> Result) -> Result {
    thread_local! {
        static PLACE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    let mut text = PLACE.take();
    text.clear();
    let written = serde_json::to_writer(&mut text, value)
        .map_err(|error| Error::invalid_data(format!("cannot be written as JSON: {error}")));
    let done = written.and_then(|()| body(&text));
    if text.capacity() <= 64 << 10 {
        PLACE.set(text);
    }
    done
}

/// Bytes that are no JSON: protobuf, audio, a piece of a file. They go in and out of a method as they are.
///
/// A method that takes or gives them may say what they are, see [`Method::input`](crate::Method::input).
///
/// ```
/// # use ferrule_plugin::prelude::*;
/// # struct Codec;
/// impl Codec {
///     fn upper(&self, text: Bytes, _cx: &Context) -> Result<Bytes> {
///         Ok(text.to_ascii_uppercase().into())
///     }
/// }
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Payload for Bytes {
    const SHAPE: Option<&'static Shape> = None;
    const MEDIA_TYPE: &'static str = BYTES;

    fn read(bytes: &[u8]) -> Result<Self> {
        Ok(Self(bytes.to_vec()))
    }

    fn read_owned(bytes: Vec<u8>) -> Result<Self> {
        Ok(Self(bytes))
    }

    fn write(&self, out: &mut Output<'_>) -> Result {
        out.bytes(self)
    }

    #[inline]
    fn with_bytes(&self, body: impl FnOnce(&[u8]) -> Result) -> Result {
        body(self)
    }
}

impl Deref for Bytes {
    type Target = Vec<u8>;
    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<String> for Bytes {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}
