//! Makes JSON objects of rows.
//!
//! The keys are escaped once, and a plain row (no quotes, nothing that JSON writes in another way) is cut into fields
//! and written eight bytes at a time: most fields of most files are shorter, and fit into a word.

use common::csv::{Kind, is_number, push_inferred, push_text};

use crate::rows::{PADDING, Row};

/// A word of bytes, each the same.
const fn all(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// How the columns of a file become fields of a record.
#[derive(Debug)]
pub(crate) struct Table {
    delimiter: u8,
    columns: Vec<Column>,
    nulls: Nulls,
    /// The bytes of all keys, and what values may need beyond their own.
    reserve: usize,
    line: Line,
    /// A value of a kind.
    value: Vec<u8>,
}

#[derive(Debug)]
struct Column {
    name: String,
    /// None: inferred, value by value.
    kind: Option<Kind>,
    key: Key,
}

/// `,"name":` or, for the first column, `{"name":`.
#[derive(Debug)]
struct Key {
    len: usize,
    /// The whole key, if it is so short.
    short: [u8; 32],
    text: Box<[u8]>,
}

/// What is wrong with a row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It has so many fields, and not as many as there are columns.
    Fields(usize),
    /// It is not UTF-8.
    NotUtf8,
    /// A column's value is not of its kind.
    Value {
        column: usize,
        value: String,
    },
    Unclosed,
}

impl Table {
    pub(crate) fn new(columns: &[(String, Option<Kind>)], nulls: &[String], delimiter: u8) -> Self {
        let columns: Vec<Column> = columns
            .iter()
            .enumerate()
            .map(|(number, (name, kind))| Column {
                name: name.clone(),
                kind: *kind,
                key: Key::new(if number == 0 { b'{' } else { b',' }, name),
            })
            .collect();
        let reserve = columns.iter().map(|column| column.key.len + 16).sum::<usize>() + 64;
        Self { delimiter, columns, nulls: Nulls::new(nulls), reserve, line: Line::default(), value: Vec::new() }
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns.len()
    }

    pub(crate) fn name(&self, column: usize) -> &str {
        &self.columns[column].name
    }

    pub(crate) fn kind(&self, column: usize) -> Option<Kind> {
        self.columns[column].kind
    }

    /// The record that a row stands for: one line of JSON.
    #[inline]
    pub(crate) fn record(&mut self, row: &Row<'_>) -> Result<&[u8], Fault> {
        match row {
            Row::Plain { text, len } => self.plain(text, *len)?,
            Row::Fields { text, ends } => self.fields(text, ends)?,
            Row::Unclosed => return Err(Fault::Unclosed),
        }
        Ok(self.line.bytes())
    }

    #[inline]
    fn plain(&mut self, text: &[u8], len: usize) -> Result<(), Fault> {
        match survey(&text[..len], self.delimiter) {
            Survey { escapes: true, .. } => return self.split(&text[..len]),
            Survey { ascii: false, .. } if std::str::from_utf8(&text[..len]).is_err() => return Err(Fault::NotUtf8),
            _ => {}
        }
        let Self { delimiter, columns, nulls, line, value, .. } = self;
        line.begin(self.reserve + len);
        let delimiter = *delimiter;
        let mut at = 0;
        for (number, column) in columns.iter().enumerate() {
            if at > len {
                return Err(Fault::Fields(number));
            }
            let first = word(text, at);
            let hit = first_equal(first, delimiter);
            let size = if hit < 8 { hit.min(len - at) } else { field_end(text, at, len, delimiter) };
            line.key(&column.key);
            if size <= 8 {
                let short = Short { word: keep(first, size), size };
                if nulls.has_short(short) {
                    line.short(Short { word: u64::from_le_bytes(*b"null\0\0\0\0"), size: 4 });
                } else if column.kind.is_none() && short.is_integer() {
                    line.short(short);
                } else if column.kind.is_some_and(|kind| kind != Kind::Text) || short.may_be_decimal() {
                    line.value(column.kind, &text[at..at + size], value)
                        .map_err(|()| fault(number, &text[at..at + size]))?;
                } else {
                    line.short_text(short);
                }
            } else {
                let field = &text[at..at + size];
                if nulls.has_long(field) {
                    line.push(b"null");
                } else if column.kind.is_none() && !starts_like_number(field[0]) || column.kind == Some(Kind::Text) {
                    line.text(field);
                } else {
                    line.value(column.kind, field, value).map_err(|()| fault(number, field))?;
                }
            }
            at += size + 1;
        }
        if at <= len {
            return Err(Fault::Fields(columns.len() + count(&text[at..len], delimiter)));
        }
        line.end();
        Ok(())
    }

    /// A row without quotes, field by field.
    #[inline(never)]
    fn split(&mut self, text: &[u8]) -> Result<(), Fault> {
        let delimiter = self.delimiter;
        self.any(text, count(text, delimiter), text.split(|byte| *byte == delimiter))
    }

    #[inline(never)]
    fn fields(&mut self, text: &[u8], ends: &[usize]) -> Result<(), Fault> {
        let starts = [0].into_iter().chain(ends.iter().copied());
        self.any(text, ends.len(), starts.zip(ends).map(|(from, to)| &text[from..*to]))
    }

    fn any<'a>(&mut self, text: &[u8], count: usize, fields: impl Iterator<Item = &'a [u8]>) -> Result<(), Fault> {
        if count != self.columns.len() {
            return Err(Fault::Fields(count));
        }
        // An escape is six bytes for one at most.
        self.line.begin(self.reserve + 6 * text.len());
        for (number, (field, column)) in fields.zip(&self.columns).enumerate() {
            let field = std::str::from_utf8(field).map_err(|_| Fault::NotUtf8)?;
            self.line.key(&column.key);
            if self.nulls.has(field.as_bytes()) {
                self.line.push(b"null");
                continue;
            }
            self.value.clear();
            match column.kind {
                None => push_inferred(&mut self.value, field),
                Some(kind) if kind.push(&mut self.value, field) => {}
                Some(_) => return Err(Fault::Value { column: number, value: field.to_owned() }),
            }
            self.line.push(&self.value);
        }
        self.line.end();
        Ok(())
    }
}

#[cold]
fn fault(column: usize, value: &[u8]) -> Fault {
    Fault::Value { column, value: String::from_utf8_lossy(value).into_owned() }
}

/// Fields in a piece of text.
fn count(text: &[u8], delimiter: u8) -> usize {
    memchr::memchr_iter(delimiter, text).count() + 1
}

impl Key {
    fn new(before: u8, name: &str) -> Self {
        let mut text = vec![before];
        push_text(&mut text, name);
        text.push(b':');
        let mut short = [0; 32];
        if let Some(short) = short.get_mut(..text.len()) {
            short.copy_from_slice(&text);
        }
        Self { len: text.len(), short, text: text.into() }
    }
}

struct Survey {
    /// A byte stands in it that JSON writes in another way.
    escapes: bool,
    ascii: bool,
}

/// What stands in a row. A delimiter may be a control character: it is not written.
#[inline(always)]
fn survey(text: &[u8], delimiter: u8) -> Survey {
    let (mut escapes, mut high) = (false, 0);
    for byte in text {
        escapes |= (*byte < 0x20) & (*byte != delimiter) | (*byte == b'"') | (*byte == b'\\');
        high |= *byte;
    }
    Survey { escapes, ascii: high < 0x80 }
}

/// The eight bytes from `at` on. After a row stand as many as that takes.
#[inline(always)]
fn word(text: &[u8], at: usize) -> u64 {
    match text.get(at..).and_then(<[u8]>::first_chunk) {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => 0,
    }
}

/// The first `size` bytes of a word, the others 0. `size` is at most 8.
#[inline(always)]
fn keep(word: u64, size: usize) -> u64 {
    if size == 8 { word } else { word & !(u64::MAX << (8 * size)) }
}

/// Where in a word the byte stands first, or 8.
#[inline(always)]
fn first_equal(word: u64, byte: u8) -> usize {
    let differs = word ^ all(byte);
    // The lowest bit set is right; a borrow may only set further ones above it.
    let hits = differs.wrapping_sub(all(1)) & !differs & all(0x80);
    hits.trailing_zeros() as usize / 8
}

/// How long the field is that begins at `at` and is longer than seven bytes.
#[inline]
fn field_end(text: &[u8], at: usize, len: usize, delimiter: u8) -> usize {
    let mut size = 8;
    while at + size < len {
        let hit = first_equal(word(text, at + size), delimiter);
        size += hit;
        if hit < 8 {
            break;
        }
    }
    size.min(len - at)
}

#[inline(always)]
fn starts_like_number(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == b'-'
}

/// A field of at most eight bytes; the word's others are 0.
#[derive(Clone, Copy)]
struct Short {
    word: u64,
    size: usize,
}

impl Short {
    /// `-?(0|[1-9][0-9]*)`
    #[inline(always)]
    fn is_integer(self) -> bool {
        let minus = usize::from(self.word as u8 == b'-');
        let (digits, size) = (self.word >> (8 * minus), self.size.wrapping_sub(minus));
        if size.wrapping_sub(1) >= 8 {
            return false;
        }
        // Zeros behind the last digit, and then: eight bytes with a high half of 3, and still so when 6 is added.
        let digits = if size == 8 { digits } else { digits | all(b'0') << (8 * size) };
        let high = all(0xf0);
        let numeric = (digits & high) | ((digits.wrapping_add(all(6)) & high) >> 4);
        numeric == all(0x33) && (digits as u8 != b'0' || size == 1)
    }

    #[inline(always)]
    fn may_be_decimal(self) -> bool {
        starts_like_number(self.word as u8)
    }
}

/// Values that stand for null.
#[derive(Debug)]
struct Nulls {
    /// Bit n: one of them has n bytes. Bit 15: one has more than eight.
    sizes: u16,
    short: Vec<(u64, usize)>,
    long: Vec<Box<[u8]>>,
}

impl Nulls {
    fn new(values: &[String]) -> Self {
        let mut nulls = Self { sizes: 0, short: Vec::new(), long: Vec::new() };
        for value in values.iter().map(String::as_bytes) {
            if value.len() <= 8 {
                nulls.sizes |= 1 << value.len();
                nulls.short.push((keep(word(&[value, &[0; PADDING]].concat(), 0), value.len()), value.len()));
            } else {
                nulls.sizes |= 1 << 15;
                nulls.long.push(value.into());
            }
        }
        nulls
    }

    #[inline(always)]
    fn has_short(&self, field: Short) -> bool {
        self.sizes >> field.size & 1 != 0 && self.short.contains(&(field.word, field.size))
    }

    #[inline(always)]
    fn has_long(&self, field: &[u8]) -> bool {
        self.sizes >> 15 != 0 && self.long.iter().any(|null| **null == *field)
    }

    fn has(&self, field: &[u8]) -> bool {
        match field.len() {
            size @ ..=8 => {
                let mut bytes = [0; 8];
                bytes[..size].copy_from_slice(field);
                self.has_short(Short { word: u64::from_le_bytes(bytes), size })
            }
            _ => self.has_long(field),
        }
    }
}

/// A record being written: room is made once, and short pieces are written as whole words over what comes next.
#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    len: usize,
}

impl Line {
    fn begin(&mut self, room: usize) {
        if self.bytes.len() < room {
            self.bytes.resize(room, 0);
        }
        self.len = 0;
    }

    fn end(&mut self) {
        self.push(b"}");
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    #[inline(always)]
    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    #[inline(always)]
    fn key(&mut self, key: &Key) {
        if key.len <= 32 {
            self.bytes[self.len..self.len + 32].copy_from_slice(&key.short);
            self.len += key.len;
        } else {
            self.push(&key.text);
        }
    }

    #[inline(always)]
    fn short(&mut self, field: Short) {
        self.bytes[self.len..self.len + 8].copy_from_slice(&field.word.to_le_bytes());
        self.len += field.size;
    }

    #[inline(always)]
    fn short_text(&mut self, field: Short) {
        let room = &mut self.bytes[self.len..self.len + 10];
        room[0] = b'"';
        room[1..9].copy_from_slice(&field.word.to_le_bytes());
        room[field.size + 1] = b'"';
        self.len += field.size + 2;
    }

    /// Text without anything to escape.
    #[inline(always)]
    fn text(&mut self, field: &[u8]) {
        self.push(b"\"");
        self.push(field);
        self.push(b"\"");
    }

    /// A value without anything to escape, of any kind.
    #[inline(never)]
    fn value(&mut self, kind: Option<Kind>, field: &[u8], room: &mut Vec<u8>) -> Result<(), ()> {
        match kind {
            None if is_number(field) => self.push(field),
            None | Some(Kind::Text) => self.text(field),
            Some(kind) => {
                room.clear();
                if !std::str::from_utf8(field).is_ok_and(|text| kind.push(room, text)) {
                    return Err(());
                }
                self.push(room);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &[&str] = &[
        "",
        "0",
        "-",
        "-0",
        "7",
        "12",
        "0012",
        "1234567",
        "12345678",
        "123456789",
        "-1234567",
        "-12345678",
        "12345678901234567890",
        "1.5",
        "-0.25",
        "1.",
        ".5",
        "1.2345678",
        "1.23456789",
        "1.5e10",
        "1e5",
        "+1",
        "12a",
        "a",
        "NA",
        "NAN",
        "null",
        "no value",
        "no values",
        "abcdefg",
        "abcdefgh",
        "abcdefghi",
        "a longer text than a word has",
        "é",
        "éééééééé",
        "日本語のテキスト",
        "TRUE",
        "false",
        "2013-01-01T10:00:00Z",
        "00:00",
        "\u{7f}",
        "a'b",
        "a/b",
    ];

    const NULLS: &[&str] = &["", "NA", "no value", "no values"];

    fn table(kinds: &[Option<Kind>], delimiter: u8) -> Table {
        let name = |number: usize| ["a", "b\"c", "a column whose name is longer than a short key's"][number].to_owned();
        let columns: Vec<_> = kinds.iter().enumerate().map(|(number, kind)| (name(number), *kind)).collect();
        Table::new(&columns, &NULLS.iter().map(|null| (*null).to_owned()).collect::<Vec<_>>(), delimiter)
    }

    /// A plain row, as it lies in a buffer.
    fn plain(table: &mut Table, text: &str, after: u8) -> Result<String, Fault> {
        let padded = [text.as_bytes(), &[after; PADDING]].concat();
        let record = table.record(&Row::Plain { text: &padded, len: text.len() })?;
        Ok(String::from_utf8(record.to_vec()).unwrap())
    }

    fn split(table: &mut Table, text: &str) -> Result<String, Fault> {
        table.split(text.as_bytes())?;
        Ok(String::from_utf8(table.line.bytes().to_vec()).unwrap())
    }

    /// The fast way of a plain row and the general one write the same bytes, whatever stands after the row.
    #[test]
    fn both_ways_write_the_same() {
        let kinds = [None, Some(Kind::Text), Some(Kind::Integer), Some(Kind::Number), Some(Kind::Boolean)];
        for (number, kind) in kinds.into_iter().enumerate() {
            let mut table = table(&[kind, kinds[(number + 1) % 5], None], b',');
            for row in FIELDS.iter().flat_map(|a| FIELDS.iter().map(move |b| format!("{a},{b},{a}"))) {
                let expected = split(&mut table, &row);
                for after in *b",\n1" {
                    assert_eq!(plain(&mut table, &row, after), expected, "{row}");
                }
                if let Ok(record) = expected {
                    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
                    assert_eq!(record.as_object().map(serde_json::Map::len), Some(3));
                }
            }
        }
    }

    /// A value is null, a number or text by what is written.
    #[test]
    fn values_are_inferred_one_by_one() {
        let mut table = table(&[None], b';');
        for field in FIELDS {
            let expected = match *field {
                null if NULLS.contains(&null) => "null".to_owned(),
                number if is_number(number.as_bytes()) => number.to_owned(),
                text => serde_json::to_string(text).unwrap(),
            };
            assert_eq!(plain(&mut table, field, b';').unwrap(), format!("{{\"a\":{expected}}}"));
        }
    }

    /// What JSON escapes is escaped, and a control character may be the delimiter.
    #[test]
    fn escapes() {
        let mut table = table(&[None, None], b'\t');
        assert_eq!(plain(&mut table, "a\tb", 0).unwrap(), r#"{"a":"a","b\"c":"b"}"#);
        assert_eq!(plain(&mut table, "a\\\u{1}\t\"b\"", 0).unwrap(), r#"{"a":"a\\\u0001","b\"c":"\"b\""}"#);
    }

    /// A row has as many fields as there are columns, or it says how many.
    #[test]
    fn counts_fields() {
        let mut table = table(&[None, None, None], b',');
        for (row, count) in [("", 1), ("a", 1), ("a,", 2), ("1,abcdefghijk", 2), ("a,b,c,", 4), (",,,,", 5)] {
            assert_eq!(plain(&mut table, row, b','), Err(Fault::Fields(count)), "{row}");
            assert_eq!(split(&mut table, row), Err(Fault::Fields(count)), "{row}");
        }
        assert_eq!(plain(&mut table, ",,", b',').unwrap().matches("null").count(), 3);
    }

    /// Bytes that are not UTF-8 are found on both ways.
    #[test]
    fn refuses_what_is_not_utf8() {
        let mut table = table(&[None], b',');
        let padded = [b"ab\xff".as_slice(), &[0; PADDING]].concat();
        assert_eq!(table.record(&Row::Plain { text: &padded, len: 3 }), Err(Fault::NotUtf8));
        assert_eq!(table.record(&Row::Fields { text: b"ab\xff", ends: &[3] }), Err(Fault::NotUtf8));
    }
}
