//! Finds the rows of a CSV file.
//!
//! Most rows of most files hold neither quotes nor anything that JSON writes in another way. Where such a row ends is
//! found by a search for a line break, and it is handed on as it lies in the buffer. Rows with quotes go through csv-core,
//! the csv crate's own parser, so what quotes mean is what they mean there (and in Python's csv module).

use std::io::{self, Read};

use csv_core::{ReadRecordResult, Reader as Core, ReaderBuilder};
use ferrule_plugin::{Error, Result};
use memchr::{memchr2, memchr3};

/// Bytes that can be read after a plain row.
pub(crate) const PADDING: usize = 8;
/// How much is read at once, as long as rows are shorter. (In tests so little that every border is met.)
const CHUNK: usize = if cfg!(test) { 8 } else { 128 * 1024 };
/// A longer row with quotes is taken for one whose quote is never closed.
pub(crate) const LONGEST: usize = 16 * 1024 * 1024;

/// What separates fields, and what encloses them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialect {
    pub(crate) delimiter: u8,
    pub(crate) quote: Option<u8>,
}

/// One row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Row<'a> {
    /// The first `len` bytes are the row; [`PADDING`] bytes at least stand after them. There is no quote in it.
    Plain { text: &'a [u8], len: usize },
    /// Fields without their quotes, one after the other, and where each ends.
    Fields { text: &'a [u8], ends: &'a [usize] },
    /// A quote is opened and not closed in what is left of the file, or in the next 16 MiB. The row is its first line.
    Unclosed,
}

/// Where a row begins. Lines and rows count from 1, bytes from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) byte: u64,
    pub(crate) line: u64,
}

impl Place {
    /// A file's beginning.
    pub(crate) const START: Self = Self { byte: 0, line: 1 };
}

impl Row<'_> {
    /// Its fields, for a header.
    pub(crate) fn to_strings(&self, delimiter: u8) -> Result<Vec<String>> {
        let text = |field: &[u8]| match std::str::from_utf8(field) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(Error::invalid_data("the row of the columns' names is not UTF-8")),
        };
        match self {
            Self::Plain { text: bytes, len } => bytes[..*len].split(|byte| *byte == delimiter).map(text).collect(),
            Self::Fields { text: bytes, ends } => {
                let starts = [0].into_iter().chain(ends.iter().copied());
                starts.zip(*ends).map(|(from, to)| text(&bytes[from..*to])).collect()
            }
            Self::Unclosed => Err(Error::invalid_data("a quote is opened, and not closed in the rest of the file")),
        }
    }
}

/// Reads rows. An empty line is none.
pub(crate) struct Rows<R> {
    input: R,
    dialect: Dialect,
    buffer: Vec<u8>,
    /// What was read and not yet handed out: `start..end`; after `end` stand `PADDING` bytes at least.
    start: usize,
    end: usize,
    at_end: bool,
    next: Place,
    /// Of the row handed out last.
    row: Place,
    text: std::ops::Range<usize>,
    core: Core,
    fields: Vec<u8>,
    ends: Vec<usize>,
}

impl<R: Read> Rows<R> {
    /// Rows from where the input stands, which is `from` in the file.
    pub(crate) fn new(input: R, dialect: Dialect, from: Place) -> Self {
        let mut builder = ReaderBuilder::new();
        builder.delimiter(dialect.delimiter);
        match dialect.quote {
            Some(quote) => builder.quote(quote),
            None => builder.quoting(false),
        };
        let mut rows = Self {
            input,
            dialect,
            buffer: vec![0; CHUNK + PADDING],
            start: 0,
            end: 0,
            at_end: false,
            next: from,
            row: from,
            text: 0..0,
            core: builder.build(),
            fields: vec![0; 1024],
            ends: vec![0; 64],
        };
        rows.reset_core();
        rows
    }

    /// csv-core drops a byte order mark from what it is given first, which here may be any row.
    fn reset_core(&mut self) {
        self.core.reset();
        self.core.read_record(b"\n", &mut [0], &mut [0]);
    }

    /// Where the next row begins, or the line breaks before it.
    pub(crate) fn next_place(&self) -> Place {
        self.next
    }

    /// Where the row handed out last begins.
    pub(crate) fn place(&self) -> Place {
        self.row
    }

    /// The bytes of the row handed out last, as they stand in the file, without the line break.
    pub(crate) fn text(&self) -> &[u8] {
        &self.buffer[self.text.clone()]
    }

    /// Takes the row handed out last back: it will be the next one again.
    pub(crate) fn step_back(&mut self) {
        self.start = self.text.start;
        self.next = self.row;
    }

    /// Skips a byte order mark. To be called at the file's beginning.
    pub(crate) fn skip_mark(&mut self) -> io::Result<()> {
        while self.end - self.start < 3 && self.fill()? {}
        if self.buffer[self.start..self.end].starts_with(b"\xef\xbb\xbf") {
            self.start += 3;
            self.next.byte += 3;
        }
        Ok(())
    }

    /// The next row, or none at the end.
    #[inline]
    pub(crate) fn next_row(&mut self) -> io::Result<Option<Row<'_>>> {
        loop {
            match self.buffer[self.start..self.end].first().copied() {
                Some(b'\n' | b'\r') => self.take(0)?,
                Some(_) => break,
                None if self.fill()? => {}
                None => return Ok(None),
            }
        }
        let mut len = 0;
        loop {
            let rest = &self.buffer[self.start + len..self.end];
            let found = match self.dialect.quote {
                Some(quote) => memchr3(b'\n', b'\r', quote, rest),
                None => memchr2(b'\n', b'\r', rest),
            };
            if let Some(at) = found {
                len += at;
                if self.dialect.quote == Some(rest[at]) {
                    return self.quoted();
                }
                break;
            }
            len = self.end - self.start;
            if !self.fill()? {
                break;
            }
        }
        self.take(len)?;
        Ok(Some(Row::Plain { text: &self.buffer[self.text.start..], len }))
    }

    #[inline(never)]
    fn quoted(&mut self) -> io::Result<Option<Row<'_>>> {
        let (mut read, mut bytes, mut fields) = (0, 0, 0);
        let mut ended = false;
        let len = loop {
            if self.start + read == self.end && !ended {
                ended = !self.fill()?;
                continue;
            }
            // At the end of the file a line break that is not there shows whether a quote is open.
            let input = if ended { b"\n" } else { &self.buffer[self.start + read..self.end] };
            let (result, taken, text, ends) =
                self.core.read_record(input, &mut self.fields[bytes..], &mut self.ends[fields..]);
            bytes += text;
            fields += ends;
            if !ended {
                read += taken;
            }
            match result {
                ReadRecordResult::Record if read <= LONGEST => break if ended { read } else { read - 1 },
                ReadRecordResult::OutputFull => self.fields.resize(2 * self.fields.len(), 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(2 * self.ends.len(), 0),
                ReadRecordResult::InputEmpty if !ended && read <= LONGEST => {}
                _ => {
                    self.reset_core();
                    let line = memchr2(b'\n', b'\r', &self.buffer[self.start..self.end]);
                    self.take(line.unwrap_or(self.end - self.start))?;
                    return Ok(Some(Row::Unclosed));
                }
            }
        };
        self.take(len)?;
        self.next.line += breaks(&self.buffer[self.text.clone()]);
        Ok(Some(Row::Fields { text: &self.fields[..bytes], ends: &self.ends[..fields] }))
    }

    /// Hands out a row of that length and moves past its line break: `\n`, `\r\n` or `\r`.
    #[inline]
    fn take(&mut self, len: usize) -> io::Result<()> {
        let mut after = len;
        if self.start + len < self.end {
            after += 1;
            if self.buffer[self.start + len] == b'\r' {
                if self.start + after == self.end {
                    self.fill()?;
                }
                after += usize::from(self.start + after < self.end && self.buffer[self.start + after] == b'\n');
            }
        }
        self.text = self.start..self.start + len;
        self.start += after;
        self.row = self.next;
        self.next.byte += after as u64;
        self.next.line += u64::from(after > len);
        Ok(())
    }

    /// Reads more, or says that there is none. What was not handed out moves to the buffer's front.
    #[cold]
    fn fill(&mut self) -> io::Result<bool> {
        if self.at_end {
            return Ok(false);
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end + PADDING == self.buffer.len() {
            self.buffer.resize(2 * self.end + PADDING, 0);
        }
        let room = self.buffer.len() - PADDING;
        loop {
            match self.input.read(&mut self.buffer[self.end..room]) {
                Ok(0) => self.at_end = true,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            return Ok(!self.at_end);
        }
    }
}

/// Line breaks in a text: `\n`, `\r\n` and `\r` count once each.
fn breaks(text: &[u8]) -> u64 {
    let alone = |at: usize| text[at] == b'\n' || text[at] == b'\r' && text.get(at + 1) != Some(&b'\n');
    (0..text.len()).filter(|at| alone(*at)).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMA: Dialect = Dialect { delimiter: b',', quote: Some(b'"') };

    /// Gives a byte a time at most, so that every border between reads is met.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(into.len());
            into[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn fields(row: &Row<'_>, delimiter: u8) -> Option<Vec<Vec<u8>>> {
        match row {
            Row::Plain { text, len } => {
                assert!(text.len() >= len + PADDING);
                Some(text[..*len].split(|byte| *byte == delimiter).map(<[u8]>::to_vec).collect())
            }
            Row::Fields { text, ends } => {
                let starts = [0].into_iter().chain(ends.iter().copied());
                Some(starts.zip(*ends).map(|(from, to)| text[from..*to].to_vec()).collect())
            }
            Row::Unclosed => None,
        }
    }

    fn read_all(text: &[u8], dialect: Dialect, step: usize) -> Vec<Option<Vec<Vec<u8>>>> {
        let mut rows = Rows::new(Slow(text, step), dialect, Place::START);
        rows.skip_mark().unwrap();
        let mut all = Vec::new();
        while let Some(row) = rows.next_row().unwrap() {
            all.push(fields(&row, dialect.delimiter));
        }
        assert_eq!(rows.next_place().byte, text.len() as u64);
        all
    }

    fn by_csv_crate(text: &[u8], dialect: Dialect) -> Vec<Option<Vec<Vec<u8>>>> {
        let mut builder = csv::ReaderBuilder::new();
        builder.has_headers(false).flexible(true).delimiter(dialect.delimiter).quoting(dialect.quote.is_some());
        builder.quote(dialect.quote.unwrap_or(b'"'));
        let records = builder.from_reader(text).into_byte_records();
        records.map(|record| Some(record.unwrap().iter().map(<[u8]>::to_vec).collect())).collect()
    }

    /// All texts of a small alphabet, one of `base` of each length up to `most`.
    fn texts(alphabet: &[u8], most: u32) -> impl Iterator<Item = Vec<u8>> {
        let base = alphabet.len();
        (0..=most).flat_map(move |len| {
            (0..base.pow(len))
                .map(move |mut number| (0..len).map(|_| (alphabet[number % base], number /= base).0).collect())
        })
    }

    /// Rows are those of the csv crate, for every text up to six bytes of what matters to it, in reads of any size.
    #[test]
    fn rows_are_those_of_the_csv_crate() {
        let semicolon = Dialect { delimiter: b';', quote: None };
        let mut unclosed = 0;
        for text in texts(b"a,\"\n\r", 6) {
            for (number, dialect) in [COMMA, semicolon].into_iter().enumerate() {
                let text: Vec<u8> =
                    text.iter().map(|byte| if number == 1 && *byte == b',' { b';' } else { *byte }).collect();
                let found = read_all(&text, dialect, 1);
                assert_eq!(found, read_all(&text, dialect, 3));
                if found.contains(&None) {
                    unclosed += 1; // the csv crate closes it silently, at the end of the file
                    continue;
                }
                assert_eq!(found, by_csv_crate(&text, dialect), "{:?}", String::from_utf8_lossy(&text));
            }
        }
        assert!(unclosed > 1000);
    }

    /// A row that is read from the place where it begins is the same row, with the same line number.
    #[test]
    fn places_are_places_to_go_on_at() {
        let text = b"a,b\r\n\r\n1,\"x\ny\"\n\n\r2,z\r3,\"\"\"\"\n4,\"w\"";
        let mut rows = Rows::new(&text[..], COMMA, Place::START);
        let mut seen = Vec::new();
        while let Some(row) = rows.next_row().unwrap() {
            let row = fields(&row, b',').unwrap();
            seen.push((row, rows.place(), rows.text().to_vec(), rows.next_place()));
        }
        let lines: Vec<u64> = seen.iter().map(|row| row.1.line).collect();
        assert_eq!(lines, [1, 3, 7, 8, 9]);
        assert_eq!(seen[1].2, b"1,\"x\ny\"");
        for pair in seen.windows(2) {
            let from = pair[0].3;
            let mut rows = Rows::new(&text[from.byte as usize..], COMMA, from);
            let row = fields(&rows.next_row().unwrap().unwrap(), b',').unwrap();
            assert_eq!((row, rows.place(), rows.next_place()), (pair[1].0.clone(), pair[1].1, pair[1].3));
        }
    }

    /// A quote that is never closed spoils its own line; the next line is read again.
    #[test]
    fn an_unclosed_quote_spoils_one_line() {
        let text = b"1,a\n2,\"b\n3,c\n4,\"d\"\n";
        let found = read_all(text, COMMA, 7);
        // The quote of line 2 closes at line 4's first one; `d""` is what is left.
        assert_eq!(found.len(), 2);
        let found = read_all(b"1,a\n2,\"b\n3,c\n4,d\n", COMMA, 7);
        assert_eq!(found[1], None);
        assert_eq!(found[2..], [Some(vec![b"3".to_vec(), b"c".to_vec()]), Some(vec![b"4".to_vec(), b"d".to_vec()])]);
    }

    /// A row longer than the limit is no reason to keep the file in memory.
    #[test]
    fn a_quote_that_is_closed_too_late_spoils_one_line() {
        let mut text = b"1,\"b\n".to_vec();
        text.resize(LONGEST + 300_000, b'x');
        text.extend_from_slice(b"\n3,c\n\"\n");
        let mut rows = Rows::new(&text[..], COMMA, Place::START);
        assert!(rows.next_row().unwrap() == Some(Row::Unclosed)); // not assert_eq: it would print 16 MiB
        assert_eq!(rows.text(), b"1,\"b");
        assert!(matches!(rows.next_row().unwrap(), Some(Row::Plain { len, .. }) if len > LONGEST));
        assert_eq!(fields(&rows.next_row().unwrap().unwrap(), b','), Some(vec![b"3".to_vec(), b"c".to_vec()]));
        assert_eq!(rows.next_row().unwrap(), Some(Row::Unclosed));
        assert_eq!(rows.next_row().unwrap(), None);
    }

    /// A byte order mark is no part of the first row, and one further down is no mark.
    #[test]
    fn a_byte_order_mark_is_skipped_once() {
        let mark = b"\xef\xbb\xbf".to_vec();
        let text = [&mark[..], b"\"a\"\n", &mark, b"\"b\"\n"].concat();
        let found = read_all(&text, COMMA, 2);
        assert_eq!(found, [Some(vec![b"a".to_vec()]), Some(vec![[&mark[..], b"\"b\""].concat()])]);
    }
}
