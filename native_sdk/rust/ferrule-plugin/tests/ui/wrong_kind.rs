//! A function, exported as a source.
use ferrule_plugin::prelude::*;

struct AddMetadata;

impl EnrichmentFunction for AddMetadata {
    const NAME: &str = "add-metadata";
    type Config = Empty;
    fn create(_: Empty, _host: &Host) -> Result<Self> {
        Ok(Self)
    }
    fn process(&mut self, record: &Record, out: &mut Output, _cx: &Context) -> Result {
        out.extend(record).finish()
    }
}

export_plugins! { source AddMetadata }

fn main() {}
