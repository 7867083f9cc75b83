//! A method that takes no context.
use ferrule_plugin::prelude::*;

struct AddMetadata;

impl EnrichmentFunction for AddMetadata {
    const NAME: &str = "add-metadata";
    type Config = Empty;
    const METHODS: Methods<Self> = &[unary("reset", Self::reset)];
    fn create(_: Empty, _host: &Host) -> Result<Self> {
        Ok(Self)
    }
    fn process(&mut self, record: &Record, out: &mut Output, _cx: &Context) -> Result {
        out.extend(record).finish()
    }
}
impl AddMetadata {
    fn reset(&mut self) -> Result {
        Ok(())
    }
}

export_plugins! { function AddMetadata }

fn main() {}
