//! What comes in: one record, or many of them.

use std::borrow::Cow;
use std::fmt;

use serde::de::DeserializeOwned;

use crate::json::{self, Key, Keys};
use crate::{Error, Result};

/// One record, as the bytes that came in: a JSON object, or what claims to be one.
///
/// Nothing has looked at the bytes yet. [`Output::extend`](crate::Output::extend) checks them while it copies, and is
/// the fastest way to a record's fields, too: [`Object::get`](crate::Object::get). The functions here check the whole
/// text each time they are called; what is no JSON object is [`INVALID_DATA`](crate::Status::InvalidData).
///
/// ```
/// # use ferrule_plugin::Record;
/// let record = Record::new(br#"{"id": 7, "name": "Zo\u00eb", "tags": [1, 2]}"#);
/// assert_eq!(record.get_raw("tags")?, Some("[1, 2]"));
/// assert_eq!(record.get_str("name")?.as_deref(), Some("Zoë"));
/// assert_eq!(record.get_str("id")?, None); // no string
/// # Ok::<(), ferrule_plugin::Error>(())
/// ```
#[repr(transparent)]
#[derive(PartialEq, Eq)]
pub struct Record([u8]);

impl Record {
    /// A record of some bytes. They are not checked here.
    #[inline]
    pub fn new<B: AsRef<[u8]> + ?Sized>(bytes: &B) -> &Self {
        let bytes: *const [u8] = bytes.as_ref();
        // SAFETY: Record is a [u8] and nothing else (repr(transparent)), and the life is that of the argument.
        unsafe { &*(bytes as *const Self) }
    }

    /// The record's own bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The whole record as a type. One of `config!` refuses keys that it does not know; serde's own derive passes
    /// over them.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(serde_json::from_slice(&self.0)?)
    }

    /// The value of a key at the top, as it is written. Of a key that stands there twice, the last.
    pub fn get_raw(&self, key: &str) -> Result<Option<&str>> {
        let mut found = None;
        for field in self.fields()? {
            if field.is(key) {
                found = Some(field.raw());
            }
        }
        Ok(found)
    }

    /// The text of a key at the top, if it is a string.
    pub fn get_str(&self, key: &str) -> Result<Option<Cow<'_, str>>> {
        Ok(self.get_raw(key)?.and_then(raw_str))
    }

    /// The fields at the top, in order, as they are written.
    ///
    /// ```
    /// # use ferrule_plugin::Record;
    /// let record = Record::new(br#"{"a": 1, "b": "x"}"#);
    /// let fields: Vec<_> = record.fields()?.map(|field| (field.raw_key(), field.raw())).collect();
    /// assert_eq!(fields, [("a", "1"), ("b", "\"x\"")]);
    /// # Ok::<(), ferrule_plugin::Error>(())
    /// ```
    pub fn fields(&self) -> Result<Fields<'_>> {
        let mut keys = Keys::default();
        let found = json::scan_record(&self.0, &mut keys)?;
        // The scan has checked that all of it is UTF-8.
        let text = std::str::from_utf8(&self.0[found.open..found.end])?;
        Ok(Fields { text, keys: keys.into_list().into_iter().peekable() })
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({})", String::from_utf8_lossy(&self.0))
    }
}

/// A string's meaning, if the raw value is one.
pub(crate) fn raw_str(raw: &str) -> Option<Cow<'_, str>> {
    Some(json::unescape(raw.strip_prefix('"')?.strip_suffix('"')?))
}

/// The fields of a record, see [`Record::fields`].
#[derive(Debug)]
pub struct Fields<'a> {
    text: &'a str,
    keys: std::iter::Peekable<std::vec::IntoIter<Key>>,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let key = self.keys.next()?;
        let (from, to) = value_span(self.text.as_bytes(), key, self.keys.peek());
        Some(Field { key: &self.text[key.start..key.start + key.len], value: &self.text[from..to] })
    }
}

/// One field of a record, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    key: &'a str,
    value: &'a str,
}

impl<'a> Field<'a> {
    /// The key, without its quotes, as it is written.
    pub fn raw_key(&self) -> &'a str {
        self.key
    }

    /// The key, with its escapes resolved.
    pub fn key(&self) -> Cow<'a, str> {
        json::unescape(self.key)
    }

    /// Whether this is the key, however it is written.
    pub fn is(&self, key: &str) -> bool {
        json::means(self.key, key)
    }

    /// The value as it is written: JSON.
    pub fn raw(&self) -> &'a str {
        self.value
    }

    /// The value's text, if it is a string.
    pub fn str(&self) -> Option<Cow<'a, str>> {
        raw_str(self.value)
    }

    /// The value as a type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(self.value).map_err(|error| Error::from(error).context(self.key()))
    }
}

/// Where the value of a key stands in a text that has been checked and ends with its last value.
#[inline]
pub(crate) fn value_span(text: &[u8], key: Key, next: Option<&Key>) -> (usize, usize) {
    let mut from = key.start + key.len + 1;
    while matches!(text[from], b' ' | b'\t' | b'\n' | b'\r' | b':') {
        from += 1;
    }
    (from, next.map_or(text.len(), |next| value_end(text, next.start - 1)))
}

/// Back from a key's opening quote, over the comma before it.
#[inline]
pub(crate) fn value_end(text: &[u8], quote: usize) -> usize {
    let mut to = quote;
    while matches!(text[to - 1], b' ' | b'\t' | b'\n' | b'\r' | b',') {
        to -= 1;
    }
    to
}

/// Many records: whole lines, each a JSON object with a line break after it.
///
/// ```
/// # use ferrule_plugin::{Record, Records};
/// let records = Records::new(b"{\"id\":1}\n{\"id\":2}\n")?;
/// assert_eq!(records.len(), 2);
/// assert_eq!(records.iter().next(), Some(Record::new("{\"id\":1}")));
/// # Ok::<(), ferrule_plugin::Error>(())
/// ```
#[repr(transparent)]
pub struct Records([u8]);

impl Records {
    /// Records of some bytes, whose last line must be whole. The lines are not checked here.
    pub fn new<B: AsRef<[u8]> + ?Sized>(lines: &B) -> Result<&Self> {
        let lines = lines.as_ref();
        if lines.last().is_some_and(|last| *last != b'\n') {
            return Err(Error::invalid_argument(format!(
                "records come as whole lines, and the last of these {} bytes is no line break",
                lines.len()
            )));
        }
        // SAFETY: Records is a [u8] and nothing else (repr(transparent)), and the life is that of the argument.
        Ok(unsafe { &*(lines as *const [u8] as *const Self) })
    }

    /// All of them, as they came: every line ends with `\n`.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// One after the other, without their line breaks.
    #[inline]
    pub fn iter(&self) -> RecordsIter<'_> {
        RecordsIter(&self.0)
    }

    /// How many there are. It counts the lines.
    pub fn len(&self) -> usize {
        self.0.iter().filter(|byte| **byte == b'\n').count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = &'a Record;
    type IntoIter = RecordsIter<'a>;

    fn into_iter(self) -> RecordsIter<'a> {
        self.iter()
    }
}

/// See [`Records::iter`].
#[derive(Clone, Debug)]
pub struct RecordsIter<'a>(&'a [u8]);

impl<'a> Iterator for RecordsIter<'a> {
    type Item = &'a Record;

    fn next(&mut self) -> Option<&'a Record> {
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let line = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some(Record::new(line))
    }
}
