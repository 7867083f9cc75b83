//! lookup: joins columns of a CSV file to records, by key.
//!
//! The file is read once, when the plugin is created, and its values are kept as the JSON that will be written.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use common::csv::push_inferred;
use common::file;
use csv::StringRecord;
use ferrule_plugin::prelude::*;

config! {
    /// Where to look what up.
    struct Config {
        /// The table, a CSV file with a header.
        path: PathBuf,
        /// What stands between its fields: one ASCII character.
        delimiter: char = ',',
        /// The table's column to find a record by. No two rows may have the same value there.
        key: String,
        /// The record's field to look up.
        field: String,
        /// What is added: column of the table → new field. The fields come in the order of the columns; one that the
        /// record has is replaced. A value is a number where it is written as JSON writes one, else text.
        columns: BTreeMap<String, String>,
        /// Values of the table that stand for null.
        null_values: Vec<String> = &[""],
        /// What becomes of a record whose key is not in the table, or that has none.
        missing: Missing = Missing::Null,
    }

    enum Missing {
        /// The new fields are null.
        Null,
        /// It leaves the flow.
        Skip,
        /// It is invalid data: what the step's `on_error` says.
        Invalid,
    }
}

struct Lookup {
    config: Config,
    /// The new fields.
    names: Vec<String>,
    /// Key → where its values begin, of as many as there are names.
    rows: HashMap<Box<str>, usize>,
    values: Vec<Box<str>>,
}

impl EnrichmentFunction for Lookup {
    const NAME: &str = "lookup";
    type Config = Config;

    fn create(config: Config, _host: &Host) -> Result<Self> {
        let path = config.path.clone();
        if config.columns.is_empty() {
            return Err(Error::invalid_config("columns: name one column at least; with none, nothing would be added"));
        }
        if !config.delimiter.is_ascii() {
            return Err(Error::invalid_config(format!(
                "delimiter: expected one ASCII character, got {:?}",
                config.delimiter
            )));
        }
        let file = file::open(&path).map_err(|error| error.context("path"))?;
        let mut reader = csv::ReaderBuilder::new().delimiter(config.delimiter as u8).from_reader(file);
        let header = reader.headers().map_err(|error| unreadable(&path, &error))?.clone();
        let key = column(&header, "key", &config.key, &path)?;
        let mut wanted = Vec::new();
        for (name, field) in &config.columns {
            wanted.push((column(&header, "columns", name, &path)?, field.clone()));
        }
        wanted.sort();
        let mut lookup = Self { config, names: Vec::new(), rows: HashMap::new(), values: Vec::new() };
        let (places, names): (Vec<usize>, Vec<String>) = wanted.into_iter().unzip();
        if let Some(name) =
            names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)).map(|(_, name)| name)
        {
            return Err(Error::invalid_config(format!("columns: two columns become field {name:?}")));
        }
        lookup.names = names;
        let mut row = StringRecord::new();
        while reader.read_record(&mut row).map_err(|error| unreadable(&path, &error))? {
            if lookup.rows.insert(row[key].into(), lookup.values.len()).is_some() {
                let line = row.position().map_or(0, csv::Position::line);
                return Err(Error::invalid_config(format!(
                    "key: {}, line {line}: {:?} stands in column {:?} a second time, so it does not tell rows apart",
                    path.display(),
                    &row[key],
                    lookup.config.key
                ))
                .detail("key", &row[key])
                .detail("line", line));
            }
            lookup.values.extend(places.iter().map(|place| lookup.config.render(&row[*place])));
        }
        Ok(lookup)
    }

    fn process(&mut self, record: &Record, out: &mut Output, _cx: &Context) -> Result {
        let mut object = out.extend(record);
        let found = match object.get_str(&self.config.field) {
            Some(text) => self.rows.get(&*text),
            None => match object.get(&self.config.field) {
                None | Some("null") => None,
                Some(other) => self.rows.get(other),
            },
        };
        match (found, self.config.missing) {
            (Some(row), _) => {
                for (name, value) in self.names.iter().zip(&self.values[*row..]) {
                    object.raw_field(name, &**value);
                }
            }
            (None, Missing::Null) => {
                for name in &self.names {
                    object.raw_field(name, "null");
                }
            }
            (None, Missing::Skip) => return out.skip(),
            (None, Missing::Invalid) => {
                object.check()?; // what is no record at all has no fields
                return Err(self.not_found(object.get(&self.config.field)));
            }
        }
        object.finish()
    }
}

impl Config {
    /// A value as JSON.
    fn render(&self, text: &str) -> Box<str> {
        if self.null_values.iter().any(|null| null == text) {
            return "null".into();
        }
        let mut json = Vec::new();
        push_inferred(&mut json, text);
        String::from_utf8_lossy(&json).into()
    }
}

impl Lookup {
    #[cold]
    fn not_found(&self, value: Option<&str>) -> Error {
        let Config { path, key, field, .. } = &self.config;
        let error = match value {
            None => Error::invalid_data(format!("field {field:?} is missing")),
            Some("null") => Error::invalid_data(format!("field {field:?} is null")),
            Some(value) => Error::invalid_data(format!(
                "field {field:?} holds {value}, which is not in column {key:?} of {}",
                path.display()
            ))
            .detail("value", value),
        };
        error.detail("field", field)
    }
}

/// Where a column stands.
fn column(header: &StringRecord, setting: &str, name: &str, path: &Path) -> Result<usize> {
    let found: Vec<usize> = (0..header.len()).filter(|at| &header[*at] == name).collect();
    let problem = match found[..] {
        [at] => return Ok(at),
        [] => "no column",
        _ => "more than one column",
    };
    Err(Error::invalid_config(format!(
        "{setting}: {} has {problem} {name:?}; its columns are {}",
        path.display(),
        header.iter().collect::<Vec<_>>().join(", ")
    )))
}

#[cold]
fn unreadable(path: &Path, error: &csv::Error) -> Error {
    if let csv::ErrorKind::Io(error) = error.kind() {
        return file::failed(path, error).context("path");
    }
    Error::invalid_config(format!("path: {}: {error}", path.display()))
}

export_plugins! {
    /// Looks a record's field up in a CSV file, and adds columns of the row that has it.
    function Lookup,
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrule_plugin::testing::function;
    use serde_json::json;

    fn table(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("ferrule-lookup-{name}-{}.csv", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Text and numbers are found by what is written; the table's values come as JSON, in its columns' order.
    #[test]
    fn looks_up() {
        let path = table("found", "code,name,size\nUA,\"United \"\"Air\"\"\",1.50\n7,,x\n");
        let columns = json!({"size": "s", "name": "n"});
        let mut lookup =
            function::<Lookup>(json!({"path": path, "key": "code", "field": "c", "columns": columns})).unwrap();
        let mut looked_up =
            |record: &str| String::from_utf8(lookup.process_bytes(record.as_bytes()).unwrap().unwrap()).unwrap();
        assert_eq!(looked_up(r#"{"c":"UA"}"#), r#"{"c":"UA","n":"United \"Air\"","s":1.50}"#);
        assert_eq!(looked_up(r#"{"n":[1],"c":7}"#), r#"{"n":null,"c":7,"s":"x"}"#);
        assert_eq!(looked_up(r#"{"c":"\u0055A","s":0}"#), r#"{"c":"\u0055A","s":1.50,"n":"United \"Air\""}"#);
        assert_eq!(looked_up(r#"{"c":null}"#), r#"{"c":null,"n":null,"s":null}"#);
        std::fs::remove_file(path).unwrap();
    }

    /// Two rows with one key are refused by name and line.
    #[test]
    fn keys_tell_rows_apart() {
        let path = table("twice", "code,name\nUA,a\nAA,b\nUA,c\n");
        let config = json!({"path": path, "key": "code", "field": "c", "columns": {"name": "n"}});
        let error = function::<Lookup>(config).unwrap_err();
        assert_eq!(error.status(), ferrule_plugin::Status::InvalidConfig);
        assert!(error.message().contains("line 4: \"UA\" stands in column \"code\" a second time"), "{error}");
        std::fs::remove_file(path).unwrap();
    }
}
