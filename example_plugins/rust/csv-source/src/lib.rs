//! csv-source: reads CSV files as records.
//!
//! CSV has no types, so a value is taken for what it is written as, one by one: see [`common::csv`]. What is wrong with
//! a row is that one record's error, and reading goes on with the next row.
#![forbid(unsafe_code)]

mod rows;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::csv::Kind;
use common::file::{self, Head, bad_record, failed};
use ferrule_plugin::prelude::*;
use serde_json::{Map, Value, json};

use crate::rows::{Dialect, Place, Rows};
use crate::table::{Fault, Table};

config! {
    /// Which file, and how to read it.
    struct Config {
        /// The file.
        path: PathBuf,
        /// What stands between fields: one ASCII character.
        delimiter: char = ',',
        /// What encloses a field that holds delimiters, quotes or line breaks: one ASCII character, or "" for nothing.
        quote: String = "\"",
        /// The first row holds the columns' names. Without it they are c1, c2 and so on.
        header: bool = true,
        /// The columns' names, in place of the header's or of c1, c2 and so on.
        columns: Vec<String> = &[],
        /// What values are, in all columns that `types` does not name.
        r#type: Type = Type::Infer,
        /// What values are, by column.
        types: BTreeMap<String, Type> = &[],
        /// Values that stand for null, whatever their column's type.
        null_values: Vec<String> = &[""],
    }

    /// What a column's values become. One that does not fit is that record's error.
    enum Type {
        /// A number where it is written as JSON writes one (12, -0.5, but not 0012 or 1e5), else text.
        Infer,
        /// Text, as it stands.
        Text,
        /// Digits with an optional sign. Leading zeros and a + are left off.
        Integer,
        /// An integer, or a decimal number with an optional exponent.
        Number,
        /// true or false in any case, 1 or 0.
        Boolean,
    }

    /// Right after a row: where the next one begins.
    struct Position {
        /// Bytes before it.
        byte: u64,
        /// Its line, the first being 1.
        line: u64,
        /// Rows read, the header not counted.
        record: u64,
        /// How much of the file's beginning was hashed.
        head_bytes: u64,
        /// The hash, by which a file that was replaced is known.
        head_hash: u64,
    }
}

impl Type {
    fn kind(self) -> Option<Kind> {
        match self {
            Self::Infer => None,
            Self::Text => Some(Kind::Text),
            Self::Integer => Some(Kind::Integer),
            Self::Number => Some(Kind::Number),
            Self::Boolean => Some(Kind::Boolean),
        }
    }
}

struct Csv {
    config: Config,
    dialect: Dialect,
    connected: Option<Connected>,
}

/// What the file's beginning says.
struct Connected {
    /// Names and kinds. Of an empty file without a header nothing is known.
    columns: Arc<[(String, Option<Kind>)]>,
    /// Where the rows begin.
    start: Place,
    /// For the first reading, which then need not open the file again; something that is no file could not.
    ready: Option<Rows<File>>,
}

impl SourceConnector for Csv {
    const NAME: &str = "csv-source";
    type Config = Config;
    type Reader = CsvReader;

    fn create(config: Config, _host: &Host) -> Result<Self> {
        let delimiter = single("delimiter", config.delimiter)?;
        let mut characters = config.quote.chars();
        let quote = match (characters.next(), characters.next()) {
            (None, _) => None,
            (Some(quote), None) => Some(single("quote", quote)?),
            _ => return Err(wrong("quote", &config.quote, "one ASCII character, or \"\" for nothing")),
        };
        if quote == Some(delimiter) {
            return Err(wrong("quote", &config.quote, "another character than the delimiter"));
        }
        if let Some(name) = twice(&config.columns) {
            return Err(Error::invalid_config(format!(
                "columns: {name:?} stands there twice; a record has a key once"
            )));
        }
        Ok(Self { config, dialect: Dialect { delimiter, quote }, connected: None })
    }

    fn connect(&mut self, _cx: &Context) -> Result {
        let path = &self.config.path;
        let mut rows = Rows::new(file::open(path)?, self.dialect, Place::START);
        rows.skip_mark().map_err(|error| failed(path, &error))?;
        let names = self.names(&mut rows)?;
        if let Some(name) = self.config.types.keys().find(|name| !names.contains(name)) {
            return Err(Error::invalid_config(format!(
                "types: {} has no column {name:?}; its columns are {}",
                path.display(),
                names.join(", ")
            )));
        }
        let kind = |name: &str| self.config.types.get(name).unwrap_or(&self.config.r#type).kind();
        self.connected = Some(Connected {
            columns: names.into_iter().map(|name| (name.clone(), kind(&name))).collect(),
            start: rows.next_place(),
            ready: Some(rows),
        });
        Ok(())
    }

    fn schema(&mut self, _cx: &Context) -> Result<Value> {
        let nullable = !self.config.null_values.is_empty();
        let columns = &self.connected()?.columns;
        let properties: Map<String, Value> = columns
            .iter()
            .map(|(name, kind)| {
                let mut types = match kind {
                    None => vec!["number", "string"],
                    Some(Kind::Text) => vec!["string"],
                    Some(kind) => vec![kind.name()],
                };
                if nullable {
                    types.push("null");
                }
                (name.clone(), json!({ "type": types }))
            })
            .collect();
        let names: Vec<&String> = columns.iter().map(|(name, _)| name).collect();
        Ok(json!({
            "type": "object",
            "properties": properties,
            "required": names,
            "additionalProperties": false,
        }))
    }

    fn read_data(&mut self, from: Option<Position>, _cx: &Context) -> Result<CsvReader> {
        let Config { path, null_values, .. } = self.config.clone();
        let dialect = self.dialect;
        let connected = self.connected()?;
        let table = Table::new(&connected.columns, &null_values, dialect.delimiter);
        let head = Head::of(&path)?;
        let (rows, record) = match (from, connected.ready.take()) {
            (None, Some(ready)) => (ready, 0),
            (None, None) => (Rows::new(file::open_at(&path, connected.start.byte)?, dialect, connected.start), 0),
            (Some(Position { byte, line, record, head_bytes, head_hash }), _) => {
                head.check(&path, head_bytes, head_hash)?;
                (Rows::new(file::open_at(&path, byte)?, dialect, Place { byte, line }), record)
            }
        };
        Ok(CsvReader { path, rows, head, table, record })
    }

    fn close(&mut self, _cx: &Context) -> Result {
        self.connected = None;
        Ok(())
    }
}

impl Csv {
    fn connected(&mut self) -> Result<&mut Connected> {
        self.connected.as_mut().ok_or_else(|| Error::invalid_state("the source is not connected"))
    }

    /// The columns' names. The rows then stand at the first one that is a record.
    fn names(&self, rows: &mut Rows<File>) -> Result<Vec<String>> {
        let Config { path, header, columns, .. } = &self.config;
        let first = match rows.next_row().map_err(|error| failed(path, &error))? {
            Some(row) => row.to_strings(self.dialect.delimiter),
            None if !header => return Ok(columns.clone()),
            None => {
                return Err(Error::invalid_data(format!(
                    "{}: the file is empty, and its first row should hold the columns' names; without such a row, set \
                     `header: false`",
                    path.display()
                )));
            }
        };
        let line = rows.place().line;
        let context = |error: Error| error.context(format_args!("{}, line {line}", path.display()));
        if !header {
            rows.step_back();
            if !columns.is_empty() {
                return Ok(columns.clone());
            }
            return Ok((1..=first.map_err(context)?.len()).map(|number| format!("c{number}")).collect());
        }
        let first = first.map_err(context)?;
        if columns.is_empty() {
            return match twice(&first) {
                Some(name) => Err(context(Error::invalid_data(format!(
                    "two columns are called {name:?}, and a record has a key once; name them all in `columns`"
                )))),
                None => Ok(first),
            };
        }
        if columns.len() != first.len() {
            return Err(Error::invalid_config(format!(
                "columns: there are {} names, and the header of {} has {} columns: {}",
                columns.len(),
                path.display(),
                first.len(),
                first.join(", ")
            )));
        }
        Ok(columns.clone())
    }
}

fn single(field: &str, character: char) -> Result<u8> {
    match u8::try_from(character) {
        Ok(byte) if byte.is_ascii() && byte != b'\n' && byte != b'\r' => Ok(byte),
        _ => Err(wrong(field, character.encode_utf8(&mut [0; 4]), "one ASCII character, and no line break")),
    }
}

#[cold]
fn wrong(field: &str, value: &str, expected: &str) -> Error {
    Error::invalid_config(format!("{field}: expected {expected}, got {value:?}"))
}

fn twice(names: &[String]) -> Option<&String> {
    names.iter().enumerate().find(|(number, name)| names[..*number].contains(name)).map(|(_, name)| name)
}

struct CsvReader {
    path: PathBuf,
    rows: Rows<File>,
    head: Head,
    table: Table,
    record: u64,
}

impl Reader for CsvReader {
    type Position = Position;

    #[inline]
    fn next(&mut self, out: &mut Output) -> Result<Next> {
        match self.rows.next_row() {
            Ok(Some(row)) => {
                self.record += 1;
                match self.table.record(&row) {
                    Ok(record) => {
                        out.raw(record)?; // made here, of values that were looked at
                        Ok(Next::Item)
                    }
                    Err(fault) => Err(explain(&fault, &self.path, &self.rows, &self.table)),
                }
            }
            Ok(None) => Ok(Next::End),
            Err(error) => Err(failed(&self.path, &error)),
        }
    }

    fn position(&self) -> Position {
        let Place { byte, line } = self.rows.next_place();
        let (head_bytes, head_hash) = self.head.at(byte);
        Position { byte, line, record: self.record, head_bytes, head_hash }
    }
}

/// The error of the row that was read last.
#[cold]
fn explain(fault: &Fault, path: &Path, rows: &Rows<File>, table: &Table) -> Error {
    let what = match fault {
        Fault::Fields(found) => {
            format!("the row has {found} field{}, and there are {} columns", plural(*found), table.columns())
        }
        Fault::NotUtf8 => {
            let valid = std::str::from_utf8(rows.text()).map_or_else(|error| error.valid_up_to(), str::len);
            format!("the row is not UTF-8, at byte {} of the file", rows.place().byte + valid as u64)
        }
        Fault::Value { column, value } => {
            let kind = table.kind(*column).map_or("value", Kind::name);
            let shown: String = value.chars().take(80).collect();
            format!("column {:?} holds {shown:?}, and {kind} is expected", table.name(*column))
        }
        Fault::Unclosed => "a quote is opened, and not closed in the rest of the file".to_owned(),
    };
    let Place { line, .. } = rows.place();
    bad_record(Error::invalid_data(format!("{}, line {line}: {what}", path.display())), rows.text(), line)
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

export_plugins! {
    /// Reads a CSV file. Each row is a record, its fields named by the header; a row that is no such record is one
    /// record's error, and reading goes on after it.
    source Csv,
}
