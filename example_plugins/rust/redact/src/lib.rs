//! redact: masks or drops fields of records.
#![forbid(unsafe_code)]

use ferrule_plugin::prelude::*;

config! {
    /// Which fields, and what becomes of them.
    struct Config {
        /// The fields, by their names at the top of a record. One that a record lacks is left out of it.
        fields: Vec<String>,
        /// What becomes of them.
        mode: Mode = Mode::Mask,
    }

    enum Mode {
        /// The value is replaced by `"***"`; null stays null.
        Mask,
        /// The field is taken out.
        Drop,
    }
}

struct Redact {
    config: Config,
}

impl EnrichmentFunction for Redact {
    const NAME: &str = "redact";
    type Config = Config;

    fn create(config: Config, _host: &Host) -> Result<Self> {
        if config.fields.is_empty() {
            return Err(Error::invalid_config("fields: name one field at least; with none, nothing would be redacted"));
        }
        Ok(Self { config })
    }

    fn process(&mut self, record: &Record, out: &mut Output, _cx: &Context) -> Result {
        let mut object = out.extend(record);
        for field in &self.config.fields {
            match (self.config.mode, object.get(field)) {
                (_, None) => {}
                (Mode::Drop, _) => {
                    object.remove(field);
                }
                // Written again: a key may stand in a record twice, and `get` tells of the last one only.
                (Mode::Mask, Some("null")) => {
                    object.raw_field(field, "null");
                }
                (Mode::Mask, _) => {
                    object.raw_field(field, "\"***\"");
                }
            }
        }
        object.finish()
    }
}

export_plugins! {
    /// Masks or drops named fields, so that they go no further.
    function Redact,
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrule_plugin::testing::function;
    use serde_json::json;

    fn redacted(mode: &str, record: &str) -> String {
        let mut redact = function::<Redact>(json!({"fields": ["ssn", "name"], "mode": mode})).unwrap();
        String::from_utf8(redact.process_bytes(record.as_bytes()).unwrap().unwrap()).unwrap()
    }

    /// A mask hides any value but null, wherever it stands, and leaves every other byte alone.
    #[test]
    fn masks() {
        assert_eq!(redacted("mask", r#"{"ssn": [1, {"a": 2}], "id" : 1.50}"#), r#"{"ssn": "***", "id" : 1.50}"#);
        assert_eq!(redacted("mask", r#"{"id":1,"name":null}"#), r#"{"id":1,"name":null}"#);
        assert_eq!(redacted("mask", r#"{"other":{"name":"x"}}"#), r#"{"other":{"name":"x"}}"#);
    }

    /// A key that stands there twice, or is written with escapes, hides nothing from the mask.
    #[test]
    fn masks_whatever_the_key_looks_like() {
        assert_eq!(redacted("mask", r#"{"name":"secret","name":null}"#), r#"{"name":null}"#);
        assert_eq!(redacted("mask", r#"{"\u006eame":"secret"}"#), r#"{"\u006eame":"***"}"#);
        assert_eq!(redacted("drop", r#"{"\u006eame":"secret","id":1,"name":2}"#), r#"{"id":1}"#);
    }

    /// A dropped field is gone.
    #[test]
    fn drops() {
        assert_eq!(redacted("drop", r#"{"name":1,"id":2,"ssn":null}"#), r#"{"id":2}"#);
        assert_eq!(redacted("drop", r#"{"name":1}"#), "{}");
    }
}
