//! {{name}}: {{about}}
#![forbid(unsafe_code)]

use ferrule_plugin::prelude::*;

config! {
    /// Settings of a step; `ferrule inspect` shows them.
    struct Config {
        /// The field to add.
        field: String = "added_by",
        /// What to put into it.
        value: String = "{{name}}",
    }
}

struct {{Type}}Function {
    config: Config,
}

impl EnrichmentFunction for {{Type}}Function {
    const NAME: &str = "{{name}}";
    type Config = Config;

    fn create(config: Config, _host: &Host) -> Result<Self> {
        Ok(Self { config })
    }

    /// One record in, one record out. The record's own bytes are kept, and the field is added to them.
    fn process(&mut self, record: &Record, out: &mut Output, _cx: &Context) -> Result {
        out.extend(record)
            .field(&self.config.field, &self.config.value)
            .finish()
    }
}

export_plugins! {
    /// {{about}}
    function {{Type}}Function,
}

#[cfg(test)]
mod tests {
    use ferrule_plugin::testing;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_field_is_added() -> Result {
        let mut step = testing::function::<{{Type}}Function>(json!({"value": "me"}))?;
        let record = step.process(&json!({"id": 1}))?;
        assert_eq!(record, Some(json!({"id": 1, "added_by": "me"})));
        Ok(())
    }
}
