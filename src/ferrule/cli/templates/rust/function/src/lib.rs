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
