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
    /// A key is written with an escape, so that names cannot be compared byte by byte.
    pub(crate) escaped: bool,
}

/// What is wrong, small enough to be returned in a register; the scanner knows where.
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

/// Checks a record and notes its keys, in order. Their offsets count from `{`.
#[inline]
pub(crate) fn scan_record(text: &[u8], keys: &mut Vec<Key>) -> Result<Found> {
    let mut scanner = Scanner::new(text);
    match scanner.record(keys) {
        Ok(found) => Ok(found),
        Err(fault) => Err(scanner.not_a_record(fault)),
    }
}

/// Checks that a text is one JSON value. Whether line breaks stand in it.
pub(crate) fn scan_value(text: &[u8]) -> Result<bool> {
    let mut scanner = Scanner::new(text);
    scanner.whole().map_err(|fault| scanner.error(fault))?;
    Ok(scanner.newline)
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    /// Bit 7: some byte so far is not ASCII.
    high: bool,
    newline: bool,
}

type Scan<T = ()> = std::result::Result<T, Fault>;

impl<'a> Scanner<'a> {
    #[inline]
    fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, high: false, newline: false }
    }

    /// The next byte, or 0 at the end: JSON has no use for that one.
    #[inline(always)]
    fn peek(&self) -> u8 {
        match self.text.get(self.at) {
            Some(byte) => *byte,
            None => 0,
        }
    }

    #[inline(always)]
    fn space(&mut self) {
        if self.peek() <= b' ' {
            self.spaces();
        }
    }

    #[inline]
    fn spaces(&mut self) {
        loop {
            match self.peek() {
                b' ' | b'\t' => {}
                b'\n' | b'\r' => self.newline = true,
                _ => return,
            }
            self.at += 1;
        }
    }

    #[inline]
    fn record(&mut self, keys: &mut Vec<Key>) -> Scan<Found> {
        keys.clear();
        self.space();
        let open = self.at;
        if self.peek() != b'{' {
            return Err(Fault::Value);
        }
        self.at += 1;
        let mut end = self.at;
        let mut escaped = false;
        self.space();
        if self.peek() == b'}' {
            self.at += 1;
        } else {
            loop {
                if self.peek() != b'"' {
                    return Err(self.or_end(Fault::Key));
                }
                self.at += 1;
                let start = self.at;
                escaped |= self.string()?;
                keys.push(Key { start: start - open, len: self.at - 1 - start });
                self.colon()?;
                self.value(1)?;
                end = self.at;
                self.space();
                match self.peek() {
                    b',' => self.at += 1,
                    b'}' => break self.at += 1,
                    _ => return Err(self.or_end(Fault::CommaOrBrace)),
                }
                self.space();
            }
        }
        self.finish()?;
        Ok(Found { open, end, newline: self.newline, escaped })
    }

    fn whole(&mut self) -> Scan {
        self.space();
        self.value(0)?;
        self.finish()
    }

    #[inline]
    fn finish(&mut self) -> Scan {
        self.space();
        if self.at < self.text.len() {
            return Err(Fault::After);
        }
        if self.high { self.utf8() } else { Ok(()) }
    }

    /// Outside of strings everything is ASCII by now, so one look at the whole text is enough.
    #[inline(never)]
    fn utf8(&mut self) -> Scan {
        std::str::from_utf8(self.text).map(drop).map_err(|error| {
            self.at = error.valid_up_to();
            Fault::Utf8
        })
    }

    #[inline(always)]
    fn colon(&mut self) -> Scan {
        self.space();
        if self.peek() != b':' {
            return Err(self.or_end(Fault::Colon));
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    /// One value; `depth` counts what it stands in.
    #[inline(always)]
    fn value(&mut self, depth: u32) -> Scan {
        match self.peek() {
            b'"' => {
                self.at += 1;
                self.string().map(drop)
            }
            b'-' | b'0'..=b'9' => self.number(),
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => Err(self.or_end(Fault::Value)),
        }
    }

    #[inline(never)]
    fn object(&mut self, depth: u32) -> Scan {
        if depth == DEPTH {
            return Err(Fault::Depth);
        }
        self.at += 1;
        self.space();
        if self.peek() == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.peek() != b'"' {
                return Err(self.or_end(Fault::Key));
            }
            self.at += 1;
            self.string()?;
            self.colon()?;
            self.value(depth + 1)?;
            self.space();
            match self.peek() {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.or_end(Fault::CommaOrBrace)),
            }
            self.space();
        }
    }

    #[inline(never)]
    fn array(&mut self, depth: u32) -> Scan {
        if depth == DEPTH {
            return Err(Fault::Depth);
        }
        self.at += 1;
        self.space();
        if self.peek() == b']' {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            self.space();
            match self.peek() {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.or_end(Fault::CommaOrBracket)),
            }
            self.space();
        }
    }

    #[inline(always)]
    fn word(&mut self, word: &[u8]) -> Scan {
        if !self.text[self.at..].starts_with(word) {
            return Err(Fault::Value);
        }
        self.at += word.len();
        Ok(())
    }

    #[inline(always)]
    fn digits(&mut self) -> Scan {
        if !self.peek().is_ascii_digit() {
            return Err(self.or_end(Fault::Number));
        }
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        Ok(())
    }

    #[inline]
    fn number(&mut self) -> Scan {
        if self.peek() == b'-' {
            self.at += 1;
        }
        if self.peek() == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// The rest of a string, its closing quote included. Whether it holds an escape.
    #[inline(always)]
    fn string(&mut self) -> Scan<bool> {
        self.plain();
        if self.peek() == b'"' {
            self.at += 1;
            return Ok(false);
        }
        self.string_with_escapes()
    }

    #[inline(never)]
    fn string_with_escapes(&mut self) -> Scan<bool> {
        loop {
            match self.peek() {
                b'"' => {
                    self.at += 1;
                    return Ok(true);
                }
                b'\\' => self.escape()?,
                _ => return Err(self.or_end(Fault::Control)),
            }
            self.plain();
        }
    }

    fn escape(&mut self) -> Scan {
        self.at += 1;
        match self.peek() {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
            b'u' => {
                self.at += 1;
                match self.hex()? {
                    0xdc00..=0xdfff => return Err(Fault::Surrogate),
                    0xd800..=0xdbff => {
                        if self.peek() != b'\\' || self.text.get(self.at + 1) != Some(&b'u') {
                            return Err(self.or_end(Fault::Surrogate));
                        }
                        self.at += 2;
                        if !(0xdc00..=0xdfff).contains(&self.hex()?) {
                            return Err(Fault::Surrogate);
                        }
                    }
                    _ => {}
                }
            }
            _ => return Err(self.or_end(Fault::Escape)),
        }
        Ok(())
    }

    fn hex(&mut self) -> Scan<u32> {
        let mut code = 0;
        for _ in 0..4 {
            let Some(digit) = char::from(self.peek()).to_digit(16) else { return Err(self.or_end(Fault::Escape)) };
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }

    /// Moves on to the first byte that is a quote, a backslash or a control character, or to the end.
    #[inline(always)]
    fn plain(&mut self) {
        #[cfg(target_arch = "x86_64")]
        while let Some(lane) = self.text.get(self.at..).and_then(|rest| rest.first_chunk::<16>()) {
            use core::arch::x86_64::*;
            // SAFETY: SSE2 is part of x86-64, and 16 bytes can be read from a `[u8; 16]`; loadu asks for no alignment.
            let (stop, high) = unsafe {
                let bytes = _mm_loadu_si128(lane.as_ptr().cast());
                let control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
                let quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
                let slash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
                let stop = _mm_movemask_epi8(_mm_or_si128(control, _mm_or_si128(quote, slash)));
                (stop as u32, _mm_movemask_epi8(bytes) as u32)
            };
            // Above the lowest set bit of `stop` the text is not the string's any more.
            self.high |= high & (stop ^ stop.wrapping_sub(1)) != 0;
            if stop != 0 {
                self.at += stop.trailing_zeros() as usize;
                return;
            }
            self.at += 16;
        }
        self.plain_words();
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))] // there only the last 15 bytes come here
    #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
    fn plain_words(&mut self) {
        const ONES: u64 = 0x0101_0101_0101_0101;
        const HIGHS: u64 = 0x8080_8080_8080_8080;
        while let Some(lane) = self.text.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            let word = u64::from_le_bytes(*lane);
            let quote = word ^ (ONES * b'"' as u64);
            let slash = word ^ (ONES * b'\\' as u64);
            // The lowest bit set is right; a borrow may only set further ones above it.
            let control = word.wrapping_sub(ONES * 0x20) & !word;
            let stop = (control | quote.wrapping_sub(ONES) & !quote | slash.wrapping_sub(ONES) & !slash) & HIGHS;
            self.high |= word & HIGHS & (stop ^ stop.wrapping_sub(1)) != 0;
            if stop != 0 {
                self.at += stop.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
        while let Some(&byte) = self.text.get(self.at) {
            if byte == b'"' || byte == b'\\' || byte < 0x20 {
                return;
            }
            self.high |= byte >= 0x80;
            self.at += 1;
        }
    }

    #[cold]
    fn or_end(&self, fault: Fault) -> Fault {
        if self.at >= self.text.len() { Fault::End } else { fault }
    }

    #[cold]
    fn error(&self, fault: Fault) -> Error {
        Error::invalid_data(format!("invalid JSON at byte {}: {}", self.at, fault.what()))
    }

    /// A value that is JSON but no object has a message of its own.
    #[cold]
    fn not_a_record(&self, fault: Fault) -> Error {
        let mut other = Scanner::new(self.text);
        other.space();
        if other.peek() != b'{' && other.whole().is_ok() {
            return Error::invalid_data("Data must be a JSON object");
        }
        self.error(fault)
    }
}

/// Whether a name stands in JSON as it is, between quotes.
#[inline]
pub(crate) fn is_plain(name: &str) -> bool {
    !name.bytes().any(|byte| byte == b'"' || byte == b'\\' || byte < 0x20)
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
