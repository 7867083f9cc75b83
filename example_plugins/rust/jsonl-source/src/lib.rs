//! jsonl-source: reads files of JSON lines as records.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use common::file::{self, Head, bad_record, failed};
use ferrule_plugin::prelude::*;

config! {
    /// Which file, and how to read it.
    struct Config {
        /// The file.
        path: PathBuf,
    }

    /// Right after a line: where the next one begins.
    struct Position {
        /// Bytes before it.
        byte: u64,
        /// Its number, the first being 1.
        line: u64,
        /// How much of the file's beginning was hashed.
        head_bytes: u64,
        /// The hash, by which a file that was replaced is known.
        head_hash: u64,
    }
}

/// How much is read at once.
const CHUNK: usize = 128 * 1024;

struct JsonLines {
    config: Config,
    /// For the first reading, which then need not open the file again; something that is no file could not.
    ready: Option<File>,
}

impl SourceConnector for JsonLines {
    const NAME: &str = "jsonl-source";
    type Config = Config;
    type Reader = LinesReader;

    fn create(config: Config, _host: &Host) -> Result<Self> {
        Ok(Self { config, ready: None })
    }

    fn connect(&mut self, _cx: &Context) -> Result {
        self.ready = Some(file::open(&self.config.path)?);
        Ok(())
    }

    fn read_data(&mut self, from: Option<Position>, _cx: &Context) -> Result<LinesReader> {
        let path = self.config.path.clone();
        let head = Head::of(&path)?;
        let (input, byte, number) = match (from, self.ready.take()) {
            (None, Some(ready)) => (ready, 0, 1),
            (None, None) => (file::open_at(&path, 0)?, 0, 1),
            (Some(Position { byte, line, head_bytes, head_hash }), _) => {
                head.check(&path, head_bytes, head_hash)?;
                (file::open_at(&path, byte)?, byte, line)
            }
        };
        let input = BufReader::with_capacity(CHUNK, input);
        Ok(LinesReader { path, input, head, line: Vec::new(), byte, number })
    }

    fn close(&mut self, _cx: &Context) -> Result {
        self.ready = None;
        Ok(())
    }
}

struct LinesReader {
    path: PathBuf,
    input: BufReader<File>,
    head: Head,
    line: Vec<u8>,
    /// Where the next line begins, and its number.
    byte: u64,
    number: u64,
}

impl Reader for LinesReader {
    type Position = Position;

    fn next(&mut self, out: &mut Output) -> Result<Next> {
        loop {
            self.line.clear();
            let len = self.input.read_until(b'\n', &mut self.line).map_err(|error| failed(&self.path, &error))?;
            if len == 0 {
                return Ok(Next::End);
            }
            let mut text = &self.line[..];
            if self.byte == 0 {
                text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text); // a byte order mark
            }
            text = text.trim_ascii();
            let line = self.number;
            self.byte += len as u64;
            self.number += 1;
            if text.is_empty() {
                continue;
            }
            return match out.extend(Record::new(text)).finish() {
                Ok(()) => Ok(Next::Item),
                Err(error) => {
                    let error = error.context(format_args!("{}, line {line}", self.path.display()));
                    Err(bad_record(error, text, line))
                }
            };
        }
    }

    fn position(&self) -> Position {
        let (head_bytes, head_hash) = self.head.at(self.byte);
        Position { byte: self.byte, line: self.number, head_bytes, head_hash }
    }
}

export_plugins! {
    /// Reads a file that holds a JSON object a line. Blank lines are passed over.
    source JsonLines,
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrule_plugin::testing::source;
    use serde_json::{Value, json};

    /// Lines are read in order, a bad one is one record's error, and every position is a place to go on at.
    #[test]
    fn reads_from_any_position() {
        let path = std::env::temp_dir().join(format!("ferrule-jsonl-source-{}", std::process::id()));
        std::fs::write(&path, "\u{feff}{\"a\":1}\n\n  {\"a\":2}\r\n[3]\n{\"a\":4}").unwrap();
        let mut lines = source::<JsonLines>(json!({"path": path})).unwrap();
        lines.connect().unwrap();
        let mut reading = lines.read().unwrap();
        let mut seen = Vec::new();
        let mut positions = vec![reading.position().unwrap()];
        while let Some(item) = reading.next() {
            seen.push(item.map_err(|error| error.to_string()));
            positions.push(reading.position().unwrap());
        }
        let bad = Err(format!("{}, line 4: Data must be a JSON object", path.display()));
        assert_eq!(seen, [Ok(json!({"a": 1})), Ok(json!({"a": 2})), bad, Ok(json!({"a": 4}))]);
        for (number, position) in positions.iter().enumerate() {
            let rest = lines.read_from(position).unwrap().map(|item| item.map_err(|error| error.to_string()));
            assert_eq!(rest.collect::<Vec<Result<Value, String>>>(), seen[number..]);
        }
        std::fs::remove_file(path).unwrap();
    }
}
