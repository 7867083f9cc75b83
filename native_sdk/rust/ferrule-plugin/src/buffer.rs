//! The host's buffer, as something safe to append to.

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;

use ferrule_sys::{FERRULE_OK, ferrule_buffer};
use serde::{Serialize, Serializer};
use serde_json::ser::{CompactFormatter, Compound};

use crate::{Error, Result, json};

/// A buffer that the host lent for one call. What stood in it at entry is out of reach.
pub(crate) struct Buffer<'a> {
    /// Not a reference: the host may find its own state beside the buffer by this pointer.
    raw: *mut ferrule_buffer,
    /// The `len` at entry: nothing below it is touched.
    entry: usize,
    lent: PhantomData<&'a mut ferrule_buffer>,
}

// SAFETY: a lent buffer is no thread's own, and it is reached through `&mut` alone.
unsafe impl Send for Buffer<'_> {}

impl Buffer<'_> {
    /// # Safety
    /// `raw` is a buffer under the rules of ferrule.h, and nobody else uses it during the buffer's life.
    #[inline]
    pub(crate) unsafe fn lent(raw: *mut ferrule_buffer) -> Self {
        // SAFETY: the caller's promise.
        Self { raw, entry: unsafe { (*raw).len }, lent: PhantomData }
    }

    #[inline(always)]
    fn get(&self) -> &ferrule_buffer {
        // SAFETY: lent to us alone, see `lent`.
        unsafe { &*self.raw }
    }

    #[inline(always)]
    fn get_mut(&mut self) -> &mut ferrule_buffer {
        // SAFETY: lent to us alone, see `lent`.
        unsafe { &mut *self.raw }
    }

    /// How much was appended so far. Positions count from what was there at entry.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.get().len - self.entry
    }

    #[inline(always)]
    pub(crate) fn reserve(&mut self, additional: usize) -> Result {
        let raw = self.get();
        if raw.capacity - raw.len >= additional { Ok(()) } else { self.grow(additional) }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, additional: usize) -> Result {
        let status = match self.get().reserve {
            // SAFETY: the host's own function on the host's own buffer, inside the call that lent it.
            Some(reserve) => unsafe { reserve(self.raw, additional) },
            None => ferrule_sys::FERRULE_OUT_OF_MEMORY,
        };
        let raw = self.get();
        if status == FERRULE_OK && raw.capacity - raw.len >= additional {
            return Ok(());
        }
        Err(Error::out_of_memory(format!(
            "the host refused {additional} more bytes of output; this answer has {} so far",
            self.len()
        )))
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result {
        self.reserve(bytes.len())?;
        // SAFETY: the room was just made.
        unsafe { self.put(bytes) };
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn byte(&mut self, byte: u8) -> Result {
        self.push(&[byte])
    }

    /// Appends where room was reserved.
    ///
    /// # Safety
    /// There is room for `bytes`.
    #[inline(always)]
    pub(crate) unsafe fn put(&mut self, bytes: &[u8]) {
        let raw = self.get_mut();
        debug_assert!(raw.capacity - raw.len >= bytes.len());
        // SAFETY: the caller's promise; `data` points at `capacity` bytes of the host's, and what is borrowed never
        // overlaps them: input and output do not (ferrule.h), and output is borrowed from `self` alone.
        unsafe { raw.data.add(raw.len).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        raw.len += bytes.len();
    }

    /// Writes where room was reserved, and [`json::PADDING`] behind it, without appending any of it. Where it stands.
    ///
    /// # Safety
    /// There is room for both.
    #[inline(always)]
    pub(crate) unsafe fn try_out(&mut self, bytes: &[u8]) -> *const u8 {
        let raw = self.get_mut();
        debug_assert!(raw.capacity - raw.len >= bytes.len() + json::PADDING.len());
        // SAFETY: the caller's promise, and as in `put`.
        unsafe {
            let free = raw.data.add(raw.len);
            free.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            free.add(bytes.len()).copy_from_nonoverlapping(json::PADDING.as_ptr(), json::PADDING.len());
            free
        }
    }

    /// Appends the first `len` bytes of what was tried out.
    ///
    /// # Safety
    /// So many were.
    #[inline(always)]
    pub(crate) unsafe fn keep(&mut self, len: usize) {
        self.get_mut().len += len;
    }

    /// What was appended so far.
    #[inline(always)]
    pub(crate) fn written(&self) -> &[u8] {
        let raw = self.get();
        if raw.data.is_null() {
            return &[];
        }
        // SAFETY: bytes from `entry` to `len` were written by the functions above.
        unsafe { std::slice::from_raw_parts(raw.data.add(self.entry), raw.len - self.entry) }
    }

    #[inline]
    pub(crate) fn written_mut(&mut self) -> &mut [u8] {
        let entry = self.entry;
        let raw = self.get_mut();
        if raw.data.is_null() {
            return &mut [];
        }
        // SAFETY: as in `written`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(raw.data.add(entry), raw.len - entry) }
    }

    /// Takes back what was appended beyond `len`.
    #[inline]
    pub(crate) fn truncate(&mut self, len: usize) {
        if len < self.len() {
            let entry = self.entry;
            self.get_mut().len = entry + len;
        }
    }

    /// Appends a text as a JSON string.
    #[inline]
    pub(crate) fn string(&mut self, text: &str) -> Result {
        let plain = json::plain_len(text.as_bytes());
        if plain < text.len() {
            return self.string_with_escapes(text, plain);
        }
        self.reserve(text.len() + 2)?;
        // SAFETY: room for all three was just made.
        unsafe {
            self.put(b"\"");
            self.put(text.as_bytes());
            self.put(b"\"");
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn string_with_escapes(&mut self, text: &str, mut plain: usize) -> Result {
        self.byte(b'"')?;
        let mut rest = text.as_bytes();
        loop {
            self.push(&rest[..plain])?;
            let Some(&byte) = rest.get(plain) else { return self.byte(b'"') };
            match byte {
                b'"' | b'\\' => self.push(&[b'\\', byte])?,
                b'\n' => self.push(b"\\n")?,
                b'\r' => self.push(b"\\r")?,
                b'\t' => self.push(b"\\t")?,
                _ => self.push(&[b'\\', b'u', b'0', b'0', b'0' + byte / 16, HEX[byte as usize % 16]])?,
            }
            rest = &rest[plain + 1..];
            plain = json::plain_len(rest);
        }
    }

    /// Appends a value as JSON: compact, so without line breaks. It is part of its caller, where the value's type is known,
    /// so that for a text nothing is left of it but `string`.
    #[inline(always)]
    pub(crate) fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        let refused = Cell::new(None);
        // SAFETY: what is written through either goes through the host's struct, and neither keeps a reference to it
        // from one call to the next; `self` is borrowed until both are gone.
        let (texts, others) = unsafe { (Self::twin(self), Self::twin(self)) };
        let mut inner = serde_json::Serializer::new(Writer { buffer: others, refused: &refused });
        match value.serialize(Json { buffer: texts, refused: &refused, inner: &mut inner }) {
            Ok(()) => Ok(()),
            Err(error) => Err(explain(refused.take(), &error)),
        }
    }

    /// Another handle of the same buffer.
    ///
    /// # Safety
    /// Both are used on one thread, one after the other.
    #[inline]
    unsafe fn twin(&self) -> Self {
        Self { raw: self.raw, entry: self.entry, lent: PhantomData }
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cold]
fn explain(refused: Option<Error>, error: &serde_json::Error) -> Error {
    refused.unwrap_or_else(|| Error::invalid_data(format!("cannot be written as JSON: {error}")))
}

/// serde_json writes through this. Its errors carry no `Error` of ours, so that one waits beside.
struct Writer<'w, 'b> {
    buffer: Buffer<'b>,
    refused: &'w Cell<Option<Error>>,
}

impl io::Write for Writer<'_, '_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.push(bytes).map_err(|error| {
            self.refused.set(Some(error));
            io::ErrorKind::OutOfMemory.into()
        })
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// serde_json's serializer, but for a text, which is searched for escapes sixteen bytes at a time: most fields are one.
struct Json<'s, 'w, 'b> {
    buffer: Buffer<'b>,
    refused: &'w Cell<Option<Error>>,
    inner: &'s mut serde_json::Serializer<Writer<'w, 'b>>,
}

/// Passes the methods named to serde_json.
macro_rules! pass {
    ($($method:ident($($argument:ident: $type:ty),*) -> $answer:ident;)*) => {
        $(#[inline]
        fn $method(self, $($argument: $type),*) -> Result<Self::$answer, serde_json::Error> {
            self.inner.$method($($argument),*)
        })*
    };
}

impl<'s, 'w, 'b> Serializer for Json<'s, 'w, 'b> {
    type Ok = ();
    type Error = serde_json::Error;
    type SerializeSeq = Compound<'s, Writer<'w, 'b>, CompactFormatter>;
    type SerializeTuple = Self::SerializeSeq;
    type SerializeTupleStruct = Self::SerializeSeq;
    type SerializeTupleVariant = Self::SerializeSeq;
    type SerializeMap = Self::SerializeSeq;
    type SerializeStruct = Self::SerializeSeq;
    type SerializeStructVariant = Self::SerializeSeq;

    #[inline(always)]
    fn serialize_str(mut self, text: &str) -> Result<(), serde_json::Error> {
        self.buffer.string(text).map_err(|error| {
            self.refused.set(Some(error));
            serde::ser::Error::custom("refused")
        })
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), serde_json::Error> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), serde_json::Error> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), serde_json::Error> {
        self.inner.serialize_newtype_variant(name, index, variant, value)
    }

    #[inline]
    fn collect_str<T: std::fmt::Display + ?Sized>(self, value: &T) -> Result<(), serde_json::Error> {
        self.inner.collect_str(value)
    }

    pass! {
        serialize_bool(value: bool) -> Ok;
        serialize_i8(value: i8) -> Ok;
        serialize_i16(value: i16) -> Ok;
        serialize_i32(value: i32) -> Ok;
        serialize_i64(value: i64) -> Ok;
        serialize_i128(value: i128) -> Ok;
        serialize_u8(value: u8) -> Ok;
        serialize_u16(value: u16) -> Ok;
        serialize_u32(value: u32) -> Ok;
        serialize_u64(value: u64) -> Ok;
        serialize_u128(value: u128) -> Ok;
        serialize_f32(value: f32) -> Ok;
        serialize_f64(value: f64) -> Ok;
        serialize_char(value: char) -> Ok;
        serialize_bytes(value: &[u8]) -> Ok;
        serialize_none() -> Ok;
        serialize_unit() -> Ok;
        serialize_unit_struct(name: &'static str) -> Ok;
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str) -> Ok;
        serialize_seq(len: Option<usize>) -> SerializeSeq;
        serialize_tuple(len: usize) -> SerializeTuple;
        serialize_tuple_struct(name: &'static str, len: usize) -> SerializeTupleStruct;
        serialize_tuple_variant(name: &'static str, index: u32, variant: &'static str, len: usize) -> SerializeTupleVariant;
        serialize_map(len: Option<usize>) -> SerializeMap;
        serialize_struct(name: &'static str, len: usize) -> SerializeStruct;
        serialize_struct_variant(name: &'static str, index: u32, variant: &'static str, len: usize) -> SerializeStructVariant;
    }
}

/// A buffer of our own with the host's face, for `testing`.
#[cfg(feature = "testing")]
pub(crate) struct Owned(ferrule_buffer);

#[cfg(feature = "testing")]
impl Owned {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self(ferrule_buffer {
            struct_size: size_of::<ferrule_buffer>() as u32,
            flags: 0,
            data: std::ptr::null_mut(),
            len: 0,
            capacity: 0,
            reserve: Some(Self::reserve),
        }))
    }

    /// The bytes as the Vec that they are.
    ///
    /// # Safety
    /// `raw` is the buffer of an `Owned`, and what becomes of the Vec is put back.
    unsafe fn take(raw: &ferrule_buffer) -> Vec<u8> {
        if raw.data.is_null() {
            return Vec::new();
        }
        // SAFETY: these parts are those of a Vec that `reserve` took apart, `len` bytes of which were written since.
        unsafe { Vec::from_raw_parts(raw.data, raw.len, raw.capacity) }
    }

    unsafe extern "C" fn reserve(buffer: *mut ferrule_buffer, additional: usize) -> i32 {
        // SAFETY: this function stands in no other buffer, and it is lent to whoever calls.
        let raw = unsafe { &mut *buffer };
        // SAFETY: what becomes of it is put back below.
        let mut bytes = std::mem::ManuallyDrop::new(unsafe { Self::take(raw) });
        bytes.reserve(additional);
        (raw.data, raw.capacity) = (bytes.as_mut_ptr(), bytes.capacity());
        FERRULE_OK
    }

    pub(crate) fn lend(&mut self) -> Buffer<'_> {
        self.0.len = 0;
        // SAFETY: the buffer follows the header's rules and is borrowed for as long as it is lent.
        unsafe { Buffer::lent(self.raw()) }
    }

    /// As a host lends it.
    pub(crate) fn raw(&mut self) -> *mut ferrule_buffer {
        &raw mut self.0
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        if self.0.data.is_null() {
            return &[];
        }
        // SAFETY: `len` bytes were written.
        unsafe { std::slice::from_raw_parts(self.0.data, self.0.len) }
    }
}

#[cfg(feature = "testing")]
impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more.
        drop(unsafe { Self::take(&self.0) });
    }
}
