//! Reads JSON without building anything: checks that a text is JSON, and notes where a record's keys stand.
//!
//! Agreement with serde_json is tested on mutated texts (`tests/json.rs`). Two things are decided here: a lone
//! surrogate is refused, as UTF-8 cannot hold it, and objects and arrays nest at most [`DEPTH`] deep, the record
//! itself included. A number may be as long and as large as it likes.

use std::borrow::Cow;

use crate::{Error, Result};

/// Objects and arrays within each other, the outermost included.
pub(crate) const DEPTH: u32 = 128;

/// Where a key stands: offset and length of the text between its quotes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

/// What a scan of a record found. Offsets count from the record's first byte.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// Of `{`.
    pub(crate) open: usize,
    /// After the last value (after `{` if there is none).
    pub(crate) end: usize,
    /// Between values stands a line break, which a record on a line of its own must not hold.
    pub(crate) newline: bool,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    End,
    Value,
    Key,
    Colon,
    CommaOrBrace,
    CommaOrBracket,
    Control,
    Escape,
    Surrogate,
    Number,
    Depth,
    After,
    Utf8,
}

impl Fault {
    fn what(self) -> &'static str {
        match self {
            Self::End => "the text ends too soon",
            Self::Value => "expected a value",
            Self::Key => "expected a key in double quotes",
            Self::Colon => "expected `:` after a key",
            Self::CommaOrBrace => "expected `,` or `}` after a value",
            Self::CommaOrBracket => "expected `,` or `]` after a value",
            Self::Control => "a control character in a string; write it as an escape",
            Self::Escape => "an unknown escape in a string",
            Self::Surrogate => "half of a surrogate pair in a string",
            Self::Number => "a malformed number",
            Self::Depth => "objects and arrays nest more than 128 deep",
            Self::After => "something stands after the value",
            Self::Utf8 => "the text is not UTF-8",
        }
    }
}

/// The keys of a record, in order. The list belongs to an instance: it is allocated once, not for each record.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    list: Vec<Key>,
    /// A bit for each key by its length and first byte, so that most names that are not there need no search.
    seen: u64,
    /// A key is written with an escape, so that names cannot be compared byte by byte.
    escaped: bool,
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self { list: Vec::with_capacity(32), ..Self::default() }
    }

    pub(crate) fn into_list(self) -> Vec<Key> {
        self.list
    }

    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.seen = 0;
        self.escaped = false;
    }

    #[inline(always)]
    fn bit(first: u8, len: usize) -> u64 {
        1 << ((usize::from(first) + len * 7) & 63)
    }

    /// Adds a key by the first byte of what stands in its quotes (of an empty one, the closing quote).
    #[inline(always)]
    pub(crate) fn push(&mut self, first: u8, key: Key) {
        self.seen |= Self::bit(first, key.len);
        self.list.push(key);
    }

    pub(crate) fn push_escaped(&mut self, key: Key) {
        self.escaped = true;
        self.list.push(key);
    }

    /// The first from `from` on that means `name`, in the text that their offsets count in.
    #[inline]
    pub(crate) fn find(&self, text: &[u8], from: usize, name: &str) -> Option<usize> {
        let bytes = name.as_bytes();
        if self.escaped {
            return self.find_escaped(text, from, name);
        }
        if self.seen & Self::bit(bytes.first().copied().unwrap_or(b'"'), bytes.len()) == 0 {
            return None;
        }
        let keys = self.list.get(from..)?;
        let same = |key: &Key| key.len == bytes.len() && &text[key.start..key.start + key.len] == bytes;
        keys.iter().position(same).map(|index| from + index)
    }

    #[cold]
    fn find_escaped(&self, text: &[u8], from: usize, name: &str) -> Option<usize> {
        let same =
            |key: &Key| std::str::from_utf8(&text[key.start..key.start + key.len]).is_ok_and(|raw| means(raw, name));
        self.list.get(from..)?.iter().position(same).map(|index| from + index)
    }
}

impl std::ops::Deref for Keys {
    type Target = Vec<Key>;
    fn deref(&self) -> &Vec<Key> {
        &self.list
    }
}

impl std::ops::DerefMut for Keys {
    fn deref_mut(&mut self) -> &mut Vec<Key> {
        &mut self.list
    }
}

/// Checks a record and notes its keys, in order. Their offsets count from `{`.
pub(crate) fn scan_record(text: &[u8], keys: &mut Keys) -> Result<Found> {
    let mut scanner = Scanner::new(text);
    scanner.record(keys).ok_or_else(|| scanner.not_a_record())
}

/// What must follow a text for [`scan_plain`]: a byte that ends everything but a string, and is not strange in one.
pub(crate) const PADDING: [u8; 64] = [0x7f; 64];
/// The longest text that [`scan_plain`] takes.
pub(crate) const PLAIN: usize = 4096;

/// Checks a record that is *plain*: no escape, no tab or line break, not very long, not empty. Its end, without its
/// closing brace; the keys' offsets count from its first byte, which is `{`. `None` is no verdict: [`scan_record`] gives
/// it.
///
/// All quotes of a plain record are ends of strings. They are found first, sixteen bytes at a time; string by string,
/// each search would have to wait for the one before. It is no part of its caller, whose values would take the registers
/// that its loop needs.
///
/// # Safety
/// [`PADDING`] follows the `len` bytes of `text`, which are at most [`PLAIN`].
#[cfg(target_arch = "x86_64")]
#[inline(never)]
pub(crate) unsafe fn scan_plain(text: *const u8, len: usize, keys: &mut Keys) -> Option<usize> {
    use core::arch::x86_64::*;
    use std::mem::MaybeUninit;

    debug_assert!(len <= PLAIN);
    let mut quotes = [const { MaybeUninit::<u64>::uninit() }; PLAIN / 64 + 1];
    let mut words = 0;
    let ascii;
    // SAFETY: SSE2 is part of x86-64; 16 bytes can be read wherever a text begins that has the padding.
    unsafe {
        let mut odd = _mm_setzero_si128();
        let mut high = _mm_setzero_si128();
        let mut at = 0;
        while at < len {
            let mut bits = 0;
            let mut part = 0;
            while part < 64 && at < len {
                let bytes = _mm_loadu_si128(text.add(at).cast());
                let control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
                odd = _mm_or_si128(odd, _mm_or_si128(control, _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8))));
                high = _mm_or_si128(high, bytes);
                let quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
                bits |= u64::from(_mm_movemask_epi8(quote) as u32) << part;
                part += 16;
                at += 16;
            }
            quotes[words].write(bits);
            words += 1;
        }
        if _mm_movemask_epi8(odd) != 0 {
            return None;
        }
        ascii = _mm_movemask_epi8(high) == 0;
    }
    quotes[words].write(1); // in the padding, where no quote is

    // SAFETY: `p` never leaves the text and the first byte behind it. It moves over bytes that were seen not to be 0x7f,
    // which is what stands there, and to places of `quotes`: the last of them stands in the padding, is seen not to be a
    // quote, and ends the scan, so no later word is read.
    let end = unsafe {
        let (mut bits, mut word) = (quotes[0].assume_init(), 0);
        let mut next_quote = || {
            while bits == 0 {
                word += 1;
                bits = quotes.get_unchecked(word).assume_init();
            }
            let quote = text.add(word * 64 + bits.trailing_zeros() as usize);
            bits &= bits - 1;
            quote
        };
        let mut closing_quote = || {
            next_quote();
            let close = next_quote();
            (*close == b'"').then_some(close)
        };
        let mut seen = 0;
        keys.clear();

        // What stands open around `p`, outermost first, a bit each: 1 an array. The record itself is none of them.
        let (mut around, mut depth, mut array) = (0_u128, 1, false);
        if *text != b'{' {
            return None;
        }
        let mut p = text.add(1);
        'value: loop {
            if !array {
                let open = past(p, b'"')?;
                let close = closing_quote()?;
                if depth == 1 {
                    let key = Key { start: open as usize - text as usize, len: close as usize - open as usize };
                    seen |= Keys::bit(*open, key.len);
                    keys.list.push(key);
                }
                p = past(close.add(1), b':')?;
            }
            p = spaces(p);
            match *p {
                b'"' => p = closing_quote()?.add(1),
                b'-' | b'0'..=b'9' => p = number(p)?,
                b'{' | b'[' => {
                    if depth == DEPTH {
                        return None;
                    }
                    depth += 1;
                    around = around << 1 | u128::from(array);
                    array = *p == b'[';
                    p = spaces(p.add(1));
                    if *p != if array { b']' } else { b'}' } {
                        continue 'value;
                    }
                }
                b't' if p.cast::<[u8; 4]>().read() == *b"true" => p = p.add(4),
                b'f' if p.cast::<[u8; 5]>().read() == *b"false" => p = p.add(5),
                b'n' if p.cast::<[u8; 4]>().read() == *b"null" => p = p.add(4),
                _ => return None,
            }
            loop {
                p = spaces(p);
                if *p == b',' {
                    p = p.add(1);
                    continue 'value;
                }
                if *p != if array { b']' } else { b'}' } {
                    return None;
                }
                depth -= 1;
                if depth == 0 {
                    break 'value;
                }
                p = p.add(1);
                array = around & 1 != 0;
                around >>= 1;
            }
        }
        keys.seen = seen;
        if spaces(p.add(1)) as usize - text as usize != len {
            return None;
        }
        while *p.sub(1) == b' ' {
            p = p.sub(1);
        }
        p as usize - text as usize
    };
    if ascii {
        return Some(end);
    }
    // SAFETY: as above.
    std::str::from_utf8(unsafe { std::slice::from_raw_parts(text, len) }).ok().map(|_| end)
}

/// Behind a byte that is expected: it is looked for first, and only then behind blanks.
///
/// # Safety
/// A byte that is no blank follows.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn past(mut p: *const u8, byte: u8) -> Option<*const u8> {
    // SAFETY: the caller's promise.
    unsafe {
        if *p != byte {
            p = spaces(p);
        }
        (*p == byte).then(|| p.add(1))
    }
}

/// # Safety
/// A byte that is no blank follows.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn spaces(mut p: *const u8) -> *const u8 {
    // SAFETY: the caller's promise.
    unsafe {
        while *p == b' ' {
            p = p.add(1);
        }
    }
    p
}

/// # Safety
/// A byte that is no part of a number follows.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn number(mut p: *const u8) -> Option<*const u8> {
    // SAFETY: the caller's promise.
    unsafe {
        if *p == b'-' {
            p = p.add(1);
        }
        p = if *p == b'0' { p.add(1) } else { digits(p)? };
        if *p == b'.' {
            p = digits(p.add(1))?;
        }
        if *p | 0x20 == b'e' {
            p = p.add(1);
            if matches!(*p, b'+' | b'-') {
                p = p.add(1);
            }
            p = digits(p)?;
        }
    }
    Some(p)
}

/// # Safety
/// A byte that is no digit follows.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn digits(mut p: *const u8) -> Option<*const u8> {
    // SAFETY: the caller's promise.
    unsafe {
        if !(*p).is_ascii_digit() {
            return None;
        }
        while (*p).is_ascii_digit() {
            p = p.add(1);
        }
    }
    Some(p)
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) unsafe fn scan_plain(_text: *const u8, _len: usize, _keys: &mut Keys) -> Option<usize> {
    None // without SSE2 the other scanner is as fast
}

/// Checks that a text is one JSON value. Whether line breaks stand in it.
#[inline]
pub(crate) fn scan_value(text: &[u8]) -> Result<bool> {
    let mut scanner = Scanner::new(text);
    scanner.whole().ok_or_else(|| scanner.error())?;
    Ok(scanner.newline)
}

/// Where a scan goes on; `None` when it failed, and the scanner knows why. (This travels in registers; an error type
/// would go through memory at every step.)
type At = Option<usize>;

struct Scanner<'a> {
    text: &'a [u8],
    newline: bool,
    escaped: bool,
    fault: (usize, Fault),
}

impl<'a> Scanner<'a> {
    #[inline]
    fn new(text: &'a [u8]) -> Self {
        Self { text, newline: false, escaped: false, fault: (0, Fault::Value) }
    }

    #[cold]
    fn fail<T>(&mut self, at: usize, fault: Fault) -> Option<T> {
        self.fault = (at, if at >= self.text.len() { Fault::End } else { fault });
        None
    }

    /// A byte, or 0 at the end: JSON has no use for that one.
    #[inline(always)]
    fn peek(&self, at: usize) -> u8 {
        match self.text.get(at) {
            Some(byte) => *byte,
            None => 0,
        }
    }

    #[inline(always)]
    fn space(&mut self, at: usize) -> usize {
        match self.peek(at) {
            // One blank, as Python writes it after `:` and `,`.
            b' ' if self.peek(at + 1) > b' ' => at + 1,
            0..=b' ' => self.spaces(at),
            _ => at,
        }
    }

    #[inline(never)]
    fn spaces(&mut self, mut at: usize) -> usize {
        loop {
            match self.peek(at) {
                b' ' | b'\t' => {}
                b'\n' | b'\r' => self.newline = true,
                _ => return at,
            }
            at += 1;
        }
    }

    fn record(&mut self, keys: &mut Keys) -> Option<Found> {
        keys.clear();
        let open = self.space(0);
        if self.peek(open) != b'{' {
            return self.fail(open, Fault::Value);
        }
        let mut end = open + 1;
        let mut at = self.space(end);
        if self.peek(at) != b'}' {
            loop {
                if self.peek(at) != b'"' {
                    return self.fail(at, Fault::Key);
                }
                let start = at + 1;
                self.escaped = false;
                at = self.string(start)?;
                keys.push(self.text[start], Key { start: start - open, len: at - 1 - start });
                keys.escaped |= self.escaped;
                at = self.colon(at)?;
                end = self.value(at, 1)?;
                at = self.space(end);
                match self.peek(at) {
                    b',' => at = self.space(at + 1),
                    b'}' => break,
                    _ => return self.fail(at, Fault::CommaOrBrace),
                }
            }
        }
        self.finish(at + 1)?;
        Some(Found { open, end, newline: self.newline })
    }

    fn whole(&mut self) -> Option<()> {
        let at = self.space(0);
        let at = self.value(at, 0)?;
        self.finish(at)
    }

    fn finish(&mut self, at: usize) -> Option<()> {
        let at = self.space(at);
        if at < self.text.len() {
            return self.fail(at, Fault::After);
        }
        self.utf8()
    }

    /// Outside of strings everything is ASCII by now, so one look at the whole text is enough.
    #[inline]
    fn utf8(&mut self) -> Option<()> {
        if self.text.is_ascii() { Some(()) } else { self.not_ascii() }
    }

    #[inline(never)]
    fn not_ascii(&mut self) -> Option<()> {
        match std::str::from_utf8(self.text) {
            Ok(_) => Some(()),
            Err(error) => self.fail(error.valid_up_to(), Fault::Utf8),
        }
    }

    #[inline(always)]
    fn colon(&mut self, at: usize) -> At {
        let at = self.space(at);
        if self.peek(at) != b':' {
            return self.fail(at, Fault::Colon);
        }
        Some(self.space(at + 1))
    }

    /// One value; `depth` counts what it stands in.
    #[inline(always)]
    fn value(&mut self, at: usize, depth: u32) -> At {
        let first = self.peek(at);
        if first == b'"' {
            return self.string(at + 1);
        }
        if first.is_ascii_digit() || first == b'-' {
            return self.number(at);
        }
        match first {
            b'{' => self.object(at, depth),
            b'[' => self.array(at, depth),
            b't' => self.word(at, b"true"),
            b'f' => self.word(at, b"false"),
            b'n' => self.word(at, b"null"),
            _ => self.fail(at, Fault::Value),
        }
    }

    #[inline(never)]
    fn object(&mut self, at: usize, depth: u32) -> At {
        if depth == DEPTH {
            return self.fail(at, Fault::Depth);
        }
        let mut at = self.space(at + 1);
        if self.peek(at) == b'}' {
            return Some(at + 1);
        }
        loop {
            if self.peek(at) != b'"' {
                return self.fail(at, Fault::Key);
            }
            at = self.string(at + 1)?;
            at = self.colon(at)?;
            at = self.value(at, depth + 1)?;
            at = self.space(at);
            match self.peek(at) {
                b',' => at = self.space(at + 1),
                b'}' => return Some(at + 1),
                _ => return self.fail(at, Fault::CommaOrBrace),
            }
        }
    }

    #[inline(never)]
    fn array(&mut self, at: usize, depth: u32) -> At {
        if depth == DEPTH {
            return self.fail(at, Fault::Depth);
        }
        let mut at = self.space(at + 1);
        if self.peek(at) == b']' {
            return Some(at + 1);
        }
        loop {
            at = self.value(at, depth + 1)?;
            at = self.space(at);
            match self.peek(at) {
                b',' => at = self.space(at + 1),
                b']' => return Some(at + 1),
                _ => return self.fail(at, Fault::CommaOrBracket),
            }
        }
    }

    #[inline(always)]
    fn word(&mut self, at: usize, word: &[u8]) -> At {
        if !self.text[at..].starts_with(word) {
            return self.fail(at, Fault::Value);
        }
        Some(at + word.len())
    }

    #[inline(always)]
    fn digits(&mut self, mut at: usize) -> At {
        if !self.peek(at).is_ascii_digit() {
            return self.fail(at, Fault::Number);
        }
        while self.peek(at).is_ascii_digit() {
            at += 1;
        }
        Some(at)
    }

    #[inline(always)]
    fn number(&mut self, mut at: usize) -> At {
        if self.peek(at) == b'-' {
            at += 1;
        }
        at = if self.peek(at) == b'0' { at + 1 } else { self.digits(at)? };
        match self.peek(at) {
            b'.' | b'e' | b'E' => self.fraction(at),
            _ => Some(at),
        }
    }

    #[inline]
    fn fraction(&mut self, mut at: usize) -> At {
        if self.peek(at) == b'.' {
            at = self.digits(at + 1)?;
        }
        if matches!(self.peek(at), b'e' | b'E') {
            at += 1;
            if matches!(self.peek(at), b'+' | b'-') {
                at += 1;
            }
            at = self.digits(at)?;
        }
        Some(at)
    }

    /// The rest of a string, its closing quote included.
    #[inline(always)]
    fn string(&mut self, at: usize) -> At {
        let at = self.plain(at);
        if self.peek(at) == b'"' {
            return Some(at + 1);
        }
        self.string_with_escapes(at)
    }

    #[inline(never)]
    fn string_with_escapes(&mut self, mut at: usize) -> At {
        self.escaped = true;
        loop {
            at = match self.peek(at) {
                b'"' => return Some(at + 1),
                b'\\' => self.escape(at + 1)?,
                _ => return self.fail(at, Fault::Control),
            };
            at = self.plain(at);
        }
    }

    #[inline(always)]
    fn plain(&self, at: usize) -> usize {
        plain_from(self.text, at)
    }

    fn escape(&mut self, at: usize) -> At {
        match self.peek(at) {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 1),
            b'u' => match self.hex(at + 1)? {
                0xdc00..=0xdfff => self.fail(at, Fault::Surrogate),
                0xd800..=0xdbff => {
                    if self.peek(at + 5) != b'\\' || self.peek(at + 6) != b'u' {
                        return self.fail(at, Fault::Surrogate);
                    }
                    match self.hex(at + 7)? {
                        0xdc00..=0xdfff => Some(at + 11),
                        _ => self.fail(at, Fault::Surrogate),
                    }
                }
                _ => Some(at + 5),
            },
            _ => self.fail(at, Fault::Escape),
        }
    }

    fn hex(&mut self, at: usize) -> Option<u32> {
        let mut code = 0;
        for at in at..at + 4 {
            let Some(digit) = char::from(self.peek(at)).to_digit(16) else { return self.fail(at, Fault::Escape) };
            code = code * 16 + digit;
        }
        Some(code)
    }

    #[cold]
    fn error(&self) -> Error {
        let (at, fault) = self.fault;
        Error::invalid_data(format!("invalid JSON at byte {at}: {}", fault.what()))
    }

    /// A value that is JSON but no object has a message of its own.
    #[cold]
    fn not_a_record(&self) -> Error {
        let mut other = Scanner::new(self.text);
        let at = other.space(0);
        if other.peek(at) != b'{' && other.whole().is_some() {
            return Error::invalid_data("Data must be a JSON object");
        }
        self.error()
    }
}

/// Whether a name stands in JSON as it is, between quotes.
#[inline(always)]
pub(crate) fn is_plain(name: &str) -> bool {
    plain_len(name.as_bytes()) == name.len()
}

/// How many bytes at the head of a text stand in a JSON string as they are.
#[inline(always)]
pub(crate) fn plain_len(text: &[u8]) -> usize {
    plain_from(text, 0)
}

/// The first byte from `at` on that is a quote, a backslash or a control character, or the end.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn plain_from(text: &[u8], mut at: usize) -> usize {
    use core::arch::x86_64::*;

    /// A bit for each byte where a plain run stops.
    #[inline(always)]
    fn stops(lane: &[u8; 16]) -> u32 {
        // SAFETY: SSE2 is part of x86-64, and 16 bytes can be read from a `[u8; 16]`; loadu asks for no alignment.
        unsafe {
            let bytes = _mm_loadu_si128(lane.as_ptr().cast());
            let control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
            let quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
            let slash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
            _mm_movemask_epi8(_mm_or_si128(control, _mm_or_si128(quote, slash))) as u32
        }
    }

    while let Some(lane) = text.get(at..).and_then(|rest| rest.first_chunk::<16>()) {
        let stops = stops(lane);
        if stops != 0 {
            return at + stops.trailing_zeros() as usize;
        }
        at += 16;
    }
    // What is left is the end of the last 16 bytes, if there are so many.
    match text.last_chunk::<16>() {
        Some(lane) => match stops(lane) >> (at + 16 - text.len()) {
            0 => text.len(),
            stops => at + stops.trailing_zeros() as usize,
        },
        None => plain_words(text, at),
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn plain_from(text: &[u8], at: usize) -> usize {
    plain_words(text, at)
}

/// The same, 8 bytes at a time: where there is no SSE2, and for texts of fewer than 16 bytes.
#[inline]
fn plain_words(text: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    while let Some(lane) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*lane);
        let quote = word ^ (ONES * b'"' as u64);
        let slash = word ^ (ONES * b'\\' as u64);
        // The lowest bit set is right; a borrow may only set further ones above it.
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let stops = (control | quote.wrapping_sub(ONES) & !quote | slash.wrapping_sub(ONES) & !slash) & HIGHS;
        if stops != 0 {
            return at + stops.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(&byte) = text.get(at) {
        if byte == b'"' || byte == b'\\' || byte < 0x20 {
            break;
        }
        at += 1;
    }
    at
}

/// What a string's text between its quotes means. The text has been checked.
pub(crate) fn unescape(raw: &str) -> Cow<'_, str> {
    if raw.contains('\\') { Cow::Owned(Unescape(raw.chars()).collect()) } else { Cow::Borrowed(raw) }
}

/// Whether the text between a key's quotes means `name`.
pub(crate) fn means(raw: &str, name: &str) -> bool {
    if raw.contains('\\') { Unescape(raw.chars()).eq(name.chars()) } else { raw == name }
}

struct Unescape<'a>(std::str::Chars<'a>);

impl Unescape<'_> {
    fn unit(&mut self) -> u32 {
        (0..4).fold(0, |code, _| code * 16 + self.0.next().and_then(|digit| digit.to_digit(16)).unwrap_or(0))
    }
}

impl Iterator for Unescape<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let plain = self.0.next()?;
        if plain != '\\' {
            return Some(plain);
        }
        Some(match self.0.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let code = match self.unit() {
                    high @ 0xd800..=0xdbff => {
                        self.0.by_ref().take(2).for_each(drop); // the second half's `\u`
                        0x10000 + ((high - 0xd800) << 10) + (self.unit() & 0x3ff)
                    }
                    code => code,
                };
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            itself => itself,
        })
    }
}
