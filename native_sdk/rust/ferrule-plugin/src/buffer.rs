//! The host's buffer, as something safe to append to.

use std::io;

use ferrule_sys::{FERRULE_OK, ferrule_buffer};

use crate::{Error, Result};

/// A buffer that the host lent for one call. What stood in it at entry is out of reach.
pub(crate) struct Buffer<'a> {
    raw: &'a mut ferrule_buffer,
    /// The `len` at entry: nothing below it is touched.
    entry: usize,
}

impl<'a> Buffer<'a> {
    /// # Safety
    /// `raw` is a buffer under the rules of ferrule.h, and nobody else uses it during `'a`.
    #[inline]
    pub(crate) unsafe fn lent(raw: *mut ferrule_buffer) -> Self {
        // SAFETY: the caller's promise.
        let raw = unsafe { &mut *raw };
        let entry = raw.len;
        Self { raw, entry }
    }

    /// How much was appended so far. Positions count from what was there at entry.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.raw.len - self.entry
    }

    #[inline(always)]
    pub(crate) fn reserve(&mut self, additional: usize) -> Result {
        if self.raw.capacity - self.raw.len >= additional { Ok(()) } else { self.grow(additional) }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, additional: usize) -> Result {
        let status = match self.raw.reserve {
            // SAFETY: the host's own function on the host's own buffer, inside the call that lent it.
            Some(reserve) => unsafe { reserve(&raw mut *self.raw, additional) },
            None => ferrule_sys::FERRULE_OUT_OF_MEMORY,
        };
        if status == FERRULE_OK && self.raw.capacity - self.raw.len >= additional {
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
        // SAFETY: the room was just made, `data` points at `capacity` bytes of the host's, and Rust's own borrows
        // never overlap them: input and output do not (ferrule.h), and what is read from the output is copied by
        // `copy_within`.
        unsafe {
            self.raw.data.add(self.raw.len).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        self.raw.len += bytes.len();
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn byte(&mut self, byte: u8) -> Result {
        self.reserve(1)?;
        // SAFETY: the room was just made.
        unsafe { self.raw.data.add(self.raw.len).write(byte) };
        self.raw.len += 1;
        Ok(())
    }

    /// What was appended so far.
    #[inline(always)]
    pub(crate) fn written(&self) -> &[u8] {
        if self.raw.data.is_null() {
            return &[];
        }
        // SAFETY: bytes from `entry` to `len` were written by the functions above.
        unsafe { std::slice::from_raw_parts(self.raw.data.add(self.entry), self.raw.len - self.entry) }
    }

    #[inline]
    pub(crate) fn written_mut(&mut self) -> &mut [u8] {
        if self.raw.data.is_null() {
            return &mut [];
        }
        // SAFETY: as in `written`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.raw.data.add(self.entry), self.raw.len - self.entry) }
    }

    /// Takes back what was appended beyond `len`.
    #[inline]
    pub(crate) fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.raw.len = self.entry + len;
        }
    }

    /// Appends a value as JSON: compact, so without line breaks.
    #[inline]
    pub(crate) fn json<T: serde::Serialize + ?Sized>(&mut self, value: &T) -> Result {
        let mut writer = Writer { buffer: self, refused: None };
        let done = value.serialize(&mut serde_json::Serializer::new(&mut writer));
        match done {
            Ok(()) => Ok(()),
            Err(error) => Err(writer.explain(&error)),
        }
    }
}

/// serde_json writes through this. Its errors carry no `Error` of ours, so that one waits here.
struct Writer<'a, 'b> {
    buffer: &'a mut Buffer<'b>,
    refused: Option<Error>,
}

impl Writer<'_, '_> {
    #[cold]
    fn explain(&mut self, error: &serde_json::Error) -> Error {
        self.refused.take().unwrap_or_else(|| Error::invalid_data(format!("cannot be written as JSON: {error}")))
    }
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
            self.refused = Some(error);
            io::ErrorKind::OutOfMemory.into()
        })
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A buffer of our own with the host's face, for `testing`.
#[cfg(feature = "testing")]
#[repr(C)]
pub(crate) struct Owned {
    raw: ferrule_buffer,
    bytes: Vec<u8>,
}

#[cfg(feature = "testing")]
impl Owned {
    pub(crate) fn new() -> Box<Self> {
        let raw = ferrule_buffer {
            struct_size: size_of::<ferrule_buffer>() as u32,
            flags: 0,
            data: std::ptr::null_mut(),
            len: 0,
            capacity: 0,
            reserve: Some(Self::reserve),
        };
        Box::new(Self { raw, bytes: Vec::new() })
    }

    unsafe extern "C" fn reserve(buffer: *mut ferrule_buffer, additional: usize) -> i32 {
        // SAFETY: `raw` is the first field of a repr(C) struct, and this function stands in no other buffer. The
        // pointer that `lend` gave away was made from the whole struct.
        let this = unsafe { &mut *buffer.cast::<Self>() };
        this.bytes.resize((this.raw.len + additional).max(this.bytes.len() * 2), 0);
        (this.raw.data, this.raw.capacity) = (this.bytes.as_mut_ptr(), this.bytes.len());
        FERRULE_OK
    }

    pub(crate) fn lend(&mut self) -> Buffer<'_> {
        self.raw.len = 0;
        // SAFETY: the buffer follows the header's rules and is borrowed for as long as it is lent.
        unsafe { Buffer::lent((&raw mut *self).cast()) }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.raw.len]
    }
}
