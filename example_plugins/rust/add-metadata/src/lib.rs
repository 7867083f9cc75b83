#![forbid(unsafe_code)]
use ferrule_plugin::prelude::*;

config! {
    /// What to stamp.
    struct Config {
        /// The name to stamp.
        plugin_name: String = "unknown_rust_plugin",
    }
}

struct AddMetadata { config: Config }

impl EnrichmentFunction for AddMetadata {
    const NAME: &str = "add-metadata";
    type Config = Config;

    fn create(config: Config, _host: &Host) -> Result<Self> { Ok(Self { config }) }

    fn process(&mut self, record: &Record, out: &mut Output, _cx: &Context) -> Result {
        out.extend(record)
            .field("processed_by_rust_plugin", &self.config.plugin_name)
            .field("rust_enriched_timestamp", now_rfc3339())
            .finish()
    }
}

export_plugins! {
    /// Stamps each record with who enriched it, and when.
    function AddMetadata,
}
