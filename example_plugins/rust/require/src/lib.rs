//! require: lets records pass that have the fields they need.
#![forbid(unsafe_code)]

use ferrule_plugin::prelude::*;

config! {
    /// What a record needs.
    struct Config {
        /// Fields that must be there, and not null.
        fields: Vec<String>,
        /// What becomes of a record that lacks one.
        otherwise: Otherwise = Otherwise::Skip,
    }

    enum Otherwise {
        /// It leaves the flow.
        Skip,
        /// It is invalid data: what the step's `on_error` says.
        Invalid,
    }
}

struct Require {
    config: Config,
}

impl EnrichmentFunction for Require {
    const NAME: &str = "require";
    type Config = Config;

    fn create(config: Config, _host: &Host) -> Result<Self> {
        if config.fields.is_empty() {
            return Err(Error::invalid_config("fields: name one field at least; with none, every record would pass"));
        }
        Ok(Self { config })
    }

    fn process(&mut self, record: &Record, out: &mut Output, _cx: &Context) -> Result {
        let mut object = out.extend(record);
        let lacks = |field: &&String| matches!(object.get(field), None | Some("null"));
        let Some(field) = self.config.fields.iter().find(lacks) else { return object.finish() };
        let problem = if object.contains(field) { "null" } else { "missing" };
        object.check()?; // what is no record at all has no fields
        match self.config.otherwise {
            Otherwise::Skip => out.skip(),
            Otherwise::Invalid => Err(invalid(field, problem)),
        }
    }
}

#[cold]
fn invalid(field: &str, problem: &str) -> Error {
    Error::invalid_data(format!("field {field:?} is {problem}")).detail("field", field).detail("problem", problem)
}

export_plugins! {
    /// Lets a record pass if its named fields are there and not null.
    function Require,
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrule_plugin::testing::function;
    use serde_json::json;

    /// A record passes byte for byte, or is skipped, or is invalid data that names the field.
    #[test]
    fn requires() {
        let mut skip = function::<Require>(json!({"fields": ["a", "b"]})).unwrap();
        let mut invalid = function::<Require>(json!({"fields": ["a", "b"], "otherwise": "invalid"})).unwrap();
        let record = br#"{"b": 0,  "a":""}"#;
        assert_eq!(skip.process_bytes(record).unwrap().as_deref(), Some(&record[..]));
        assert_eq!(invalid.process_bytes(record).unwrap().as_deref(), Some(&record[..]));
        for (record, message) in
            [(r#"{"a":1}"#, r#"field "b" is missing"#), (r#"{"a":null,"b":1}"#, r#"field "a" is null"#)]
        {
            assert_eq!(skip.process_bytes(record.as_bytes()).unwrap(), None);
            let error = invalid.process_bytes(record.as_bytes()).unwrap_err();
            assert_eq!((error.status(), error.message()), (ferrule_plugin::Status::InvalidData, message));
        }
        for function in [&mut skip, &mut invalid] {
            assert_eq!(function.process_bytes(b"[]").unwrap_err().message(), "Data must be a JSON object");
        }
    }
}
