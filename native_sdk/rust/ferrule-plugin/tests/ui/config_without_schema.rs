//! A configuration that is not declared in config!.
use ferrule_plugin::prelude::*;

struct Config {
    name: String,
}

struct AddMetadata;

impl EnrichmentFunction for AddMetadata {
    const NAME: &str = "add-metadata";
    type Config = Config;
    fn create(_: Config, _host: &Host) -> Result<Self> {
        Ok(Self)
    }
    fn process(&mut self, record: &Record, out: &mut Output, _cx: &Context) -> Result {
        out.extend(record).finish()
    }
}
export_plugins! { function AddMetadata }

fn main() {}
