//! What goes out: records, written straight into the host's buffer.

use std::fmt;

use ferrule_sys::{FERRULE_OK, FERRULE_SKIP};
use serde::Serialize;

use crate::buffer::Buffer;
use crate::json::{self, Found, Key, Keys};
use crate::record::{raw_str, value_end, value_span};
use crate::{Context, Error, Record, Result};

/// What a reader's [`next`](crate::Reader::next) came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Next {
    /// Something was written.
    Item,
    /// There is no more.
    End,
    /// Nothing came within [`timeout`](Context::timeout); the host asks again.
    Timeout,
}

/// Where an answer is written: the host's own buffer. Nothing is allocated for a record.
///
/// - [`extend`](Self::extend) begins with a record that came in, [`object`](Self::object) with nothing; fields are
///   added, replaced and removed, and [`finish`](Object::finish) ends it.
/// - [`item`](Self::item) and [`write`](Self::write) take anything that serde can serialize to an object.
/// - [`skip`](Self::skip) answers with no record, on purpose.
///
/// ```
/// # use ferrule_plugin::{Output, Record, Result};
/// fn process(record: &Record, out: &mut Output) -> Result {
///     let mut object = out.extend(record);
///     if matches!(object.get("dep_time"), None | Some("null")) {
///         return out.skip();
///     }
///     object.remove("tailnum").field("checked", true).finish()
/// }
/// ```
pub struct Output<'a> {
    buffer: Buffer<'a>,
    context: &'a Context<'a>,
    /// The keys of the object under way. The list is the instance's, so that it is allocated once.
    keys: &'a mut Keys,
    /// Where the object under way begins.
    start: usize,
    state: State,
    many: bool,
    /// The first failure of a chain, which its `finish` or `skip` reports. Whoever drops it is found out at the end.
    failed: Option<Error>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Empty,
    Begun,
    Written,
    Skipped,
}

impl<'a> Output<'a> {
    #[inline]
    pub(crate) fn new(buffer: Buffer<'a>, context: &'a Context<'a>, keys: &'a mut Keys, many: bool) -> Self {
        Self { buffer, context, keys, start: 0, state: State::Empty, many, failed: None }
    }

    /// What is known about the call: whether it was cancelled, and how long it may take.
    #[inline]
    pub fn context(&self) -> &'a Context<'a> {
        self.context
    }

    /// Begins an object with all the fields of a record: its own bytes, checked and copied, not rebuilt.
    ///
    /// What is wrong with the record is reported by `finish`; until then the object is empty.
    #[inline]
    pub fn extend(&mut self, record: &Record) -> Object<'_, 'a> {
        self.begin();
        if let Err(error) = self.splice(record.as_bytes()) {
            self.fail(error);
        }
        Object { out: self }
    }

    /// Begins an object without fields.
    #[inline]
    pub fn object(&mut self) -> Object<'_, 'a> {
        self.begin();
        if let Err(error) = self.buffer.byte(b'{') {
            self.fail(error);
        }
        Object { out: self }
    }

    /// Writes one record: anything that serialises to a JSON object.
    pub fn write<T: Serialize + ?Sized>(&mut self, record: &T) -> Result {
        self.begin();
        self.buffer.json(record)?;
        if self.buffer.written().get(self.start) != Some(&b'{') {
            return Err(Error::internal(format!(
                "a record must be a JSON object, and {} is written as something else",
                std::any::type_name::<T>()
            )));
        }
        self.end()
    }

    /// Writes one record that the plugin itself has rendered as JSON, as it stands. Only its first and last byte are
    /// looked at, so that it is not scanned a second time; that it is an object without line breaks is the plugin's word.
    ///
    /// For text from elsewhere there is [`extend`](Self::extend), which checks it.
    #[inline]
    pub fn raw(&mut self, record: &[u8]) -> Result {
        self.begin();
        if record.first() != Some(&b'{') || record.last() != Some(&b'}') {
            return Err(Error::internal("a raw record must begin with `{` and end with `}`"));
        }
        self.buffer.push(record)?;
        self.end()
    }

    /// Writes one record and says so: what a reader's `next` answers with.
    pub fn item<T: Serialize + ?Sized>(&mut self, record: &T) -> Result<Next> {
        self.write(record)?;
        Ok(Next::Item)
    }

    /// Answers with no record, on purpose: the flow goes on with the next one. An object under way is given up, and
    /// what is wrong with its record is reported here.
    pub fn skip(&mut self) -> Result {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        match self.state {
            State::Written => Err(Error::internal("an answer with a record in it cannot be skipped")),
            _ => {
                self.state = State::Skipped;
                Ok(())
            }
        }
    }

    /// Any JSON value, for answers that are no records.
    pub(crate) fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        self.buffer.json(value)?;
        self.state = State::Written;
        Ok(())
    }

    /// An answer that is no JSON.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result {
        self.buffer.push(bytes)?;
        self.state = State::Written;
        Ok(())
    }

    /// What the call came to.
    #[inline]
    pub(crate) fn outcome(&mut self) -> Result<i32> {
        if self.failed.is_some() || matches!(self.state, State::Begun | State::Empty) {
            return self.loose_end();
        }
        Ok(if self.state == State::Skipped { FERRULE_SKIP } else { FERRULE_OK })
    }

    #[cold]
    fn loose_end(&mut self) -> Result<i32> {
        match (self.failed.take(), self.state) {
            (Some(error), _) => Err(error),
            (None, State::Begun) => Err(Error::internal("an object was begun and never finished: call `finish`")),
            _ if self.many => Ok(FERRULE_SKIP),
            _ => Err(Error::internal("nothing was written: write a record, or call `skip`")),
        }
    }

    /// That there is an item, as a reader said.
    #[inline]
    pub(crate) fn written(&mut self) -> Result {
        if self.state == State::Written && self.failed.is_none() {
            return Ok(());
        }
        match self.loose_end() {
            Err(error) => Err(error),
            Ok(_) => Err(Error::internal("a reader said Next::Item and wrote nothing")),
        }
    }

    #[inline]
    fn begin(&mut self) {
        if self.state != State::Empty {
            self.begin_again();
        }
        self.keys.clear();
        self.start = self.buffer.len();
        self.state = State::Begun;
    }

    #[cold]
    fn begin_again(&mut self) {
        match self.state {
            State::Written if self.many => {}
            State::Begun if self.failed.is_none() => self.buffer.truncate(self.start), // given up for another one
            State::Written => {
                self.fail(Error::internal("a second record in one answer: that needs `const MANY: bool = true`"));
            }
            State::Skipped => self.fail(Error::internal("a record after `skip`")),
            State::Empty | State::Begun => {}
        }
    }

    #[inline]
    fn end(&mut self) -> Result {
        if self.many {
            self.buffer.byte(b'\n')?;
        }
        match self.failed.take() {
            None => {
                self.state = State::Written;
                Ok(())
            }
            Some(error) => Err(error),
        }
    }

    #[cold]
    fn fail(&mut self, error: Error) {
        self.failed.get_or_insert(error);
    }

    /// A record's bytes but for its closing brace.
    #[inline]
    fn splice(&mut self, bytes: &[u8]) -> Result {
        self.buffer.reserve(bytes.len() + json::PADDING.len() + 128)?; // most additions are smaller
        if bytes.len() <= json::PLAIN {
            // SAFETY: there is room for all of it, and scan_plain gets its padding.
            let end = unsafe {
                let text = self.buffer.try_out(bytes);
                json::scan_plain(text, bytes.len(), self.keys)
            };
            if let Some(end) = end {
                // SAFETY: `end` is within `bytes`, which stand there.
                unsafe { self.buffer.keep(end) };
                return Ok(());
            }
        }
        self.splice_any(bytes)
    }

    #[inline(never)]
    fn splice_any(&mut self, bytes: &[u8]) -> Result {
        let Found { open, end, newline } = json::scan_record(bytes, self.keys)?;
        self.buffer.push(&bytes[open..end])?;
        if newline {
            self.join_lines(self.start);
        }
        Ok(())
    }

    /// Line breaks between values become spaces: a record stands on one line. (In strings there are none.)
    #[cold]
    fn join_lines(&mut self, from: usize) {
        for byte in &mut self.buffer.written_mut()[from..] {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
    }

    /// The object under way, without its closing brace. Keys count from its `{`.
    #[inline]
    fn text(&self) -> &[u8] {
        &self.buffer.written()[self.start..]
    }

    /// The first key from `from` on that means `name`.
    #[inline(always)]
    fn find(&self, from: usize, name: &str) -> Option<usize> {
        self.keys.find(self.text(), from, name)
    }

    #[inline]
    fn span(&self, index: usize) -> (usize, usize) {
        value_span(self.text(), self.keys[index], self.keys.get(index + 1))
    }

    /// A comma if one is needed, the key, and the colon; the value is the caller's to write.
    #[inline(always)]
    fn key(&mut self, name: &str) -> Result {
        let comma = !self.keys.is_empty();
        if !json::is_plain(name) {
            return self.escaped_key(name, comma);
        }
        self.buffer.reserve(name.len() + 4)?;
        // SAFETY: room for all of it was just made.
        unsafe {
            self.buffer.put(if comma { b",\"" } else { b"\"" });
            self.buffer.put(name.as_bytes());
            self.buffer.put(b"\":");
        }
        let start = self.buffer.len() - self.start - 2 - name.len();
        self.keys.push(name.bytes().next().unwrap_or(b'"'), Key { start, len: name.len() });
        Ok(())
    }

    #[cold]
    fn escaped_key(&mut self, name: &str, comma: bool) -> Result {
        if comma {
            self.buffer.byte(b',')?;
        }
        let start = self.buffer.len() - self.start + 1;
        self.buffer.string(name)?;
        self.keys.push_escaped(Key { start, len: self.buffer.len() - self.start - 1 - start });
        self.buffer.byte(b':')
    }

    #[inline(always)]
    fn set(&mut self, name: &str, write: impl FnOnce(&mut Buffer<'a>) -> Result) -> Result {
        match self.find(0, name) {
            None => {
                self.key(name)?;
                write(&mut self.buffer)
            }
            Some(index) => {
                let end = self.text().len();
                write(&mut self.buffer)?;
                self.move_value(index, end);
                self.remove(index + 1, name);
                Ok(())
            }
        }
    }

    /// Puts what was written after the object's `end` in place of a value.
    #[inline(never)]
    fn move_value(&mut self, index: usize, end: usize) {
        let (from, to) = {
            let text = &self.text()[..end];
            value_span(text, self.keys[index], self.keys.get(index + 1))
        };
        let start = self.start;
        let text = &mut self.buffer.written_mut()[start..];
        let new = text.len() - end;
        text[from..].rotate_right(new);
        text.copy_within(to + new.., from + new);
        let len = text.len() - (to - from);
        self.buffer.truncate(start + len);
        for key in &mut self.keys[index + 1..] {
            key.start = key.start - (to - from) + new;
        }
    }

    /// Takes out every key from `from` on that means `name`.
    #[inline]
    fn remove(&mut self, mut from: usize, name: &str) {
        while let Some(index) = self.find(from, name) {
            self.remove_one(index);
            from = index;
        }
    }

    #[inline(never)]
    fn remove_one(&mut self, index: usize) {
        let text = self.text();
        let quote = self.keys[index].start - 1;
        let (from, to) = match (self.keys.get(index + 1), index) {
            (Some(next), _) => (quote, next.start - 1),
            (None, 0) => (1, text.len()),
            (None, _) => (value_end(text, quote), text.len()),
        };
        let start = self.start;
        let text = &mut self.buffer.written_mut()[start..];
        text.copy_within(to.., from);
        let len = text.len() - (to - from);
        self.buffer.truncate(start + len);
        self.keys.remove(index);
        for key in &mut self.keys[index..] {
            key.start -= to - from;
        }
    }
}

impl fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("written", &String::from_utf8_lossy(self.buffer.written()))
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// A record being written. Of a failure on the way the first is kept, and reported by [`finish`](Self::finish); until
/// then all else does nothing.
#[must_use = "an object is written only by `finish`"]
pub struct Object<'o, 'a> {
    out: &'o mut Output<'a>,
}

impl<'a> Object<'_, 'a> {
    /// Sets a field to anything that serde can serialise. A key that is there is replaced, in its place, however it
    /// is written there; a record never has it twice.
    #[inline(always)]
    pub fn field<T: Serialize>(&mut self, key: &str, value: T) -> &mut Self {
        self.try_to(|out| out.set(key, |buffer| buffer.json(&value)))
    }

    /// Sets a field to a value that is JSON already. It is checked.
    #[inline]
    pub fn raw_field(&mut self, key: &str, json: impl AsRef<[u8]>) -> &mut Self {
        let value = json.as_ref();
        self.try_to(|out| {
            let newline = json::scan_value(value).map_err(|error| error.context(key))?;
            out.set(key, |buffer| {
                let from = buffer.len();
                buffer.push(value)?;
                if newline {
                    let text = &mut buffer.written_mut()[from..];
                    text.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
                }
                Ok(())
            })
        })
    }

    /// Takes a field out. None there is fine.
    #[inline]
    pub fn remove(&mut self, key: &str) -> &mut Self {
        self.try_to(|out| {
            out.remove(0, key);
            Ok(())
        })
    }

    /// Whether the key is there.
    #[inline]
    pub fn contains(&self, key: &str) -> bool {
        self.out.failed.is_none() && self.out.find(0, key).is_some()
    }

    /// The value of a key as it is written: JSON. It costs a comparison of names, not a scan. Of a key that stands
    /// there twice, the last.
    #[inline]
    pub fn get(&self, key: &str) -> Option<&str> {
        if self.out.failed.is_some() {
            return None;
        }
        let mut index = self.out.find(0, key)?;
        while let Some(again) = self.out.find(index + 1, key) {
            index = again;
        }
        let (from, to) = self.out.span(index);
        let value = &self.out.text()[from..to];
        // SAFETY: all of the object was checked to be UTF-8 or written by serde_json, and a value's ends are ASCII.
        Some(unsafe { std::str::from_utf8_unchecked(value) })
    }

    /// The text of a key, if it is a string.
    #[inline]
    pub fn get_str(&self, key: &str) -> Option<std::borrow::Cow<'_, str>> {
        raw_str(self.get(key)?)
    }

    /// What went wrong so far: that the record which it began with is none, for a start. For a function that wants to
    /// complain of a field, and should first complain of the record.
    #[inline]
    pub fn check(&mut self) -> Result {
        self.out.failed.take().map_or(Ok(()), Err)
    }

    /// Ends the record.
    #[inline]
    pub fn finish(&mut self) -> Result {
        let out = &mut *self.out;
        if let Some(error) = out.failed.take() {
            return Err(error);
        }
        out.buffer.byte(b'}')?;
        out.end()
    }

    #[inline(always)]
    fn try_to(&mut self, step: impl FnOnce(&mut Output<'a>) -> Result) -> &mut Self {
        if self.out.failed.is_none() {
            if let Err(error) = step(self.out) {
                self.out.fail(error);
            }
        }
        self
    }
}

impl fmt::Debug for Object<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({}…)", String::from_utf8_lossy(self.out.text()))
    }
}
