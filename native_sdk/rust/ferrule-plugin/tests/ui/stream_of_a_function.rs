//! A function that wants to have a stream.
use ferrule_plugin::prelude::*;

struct Pass;

impl EnrichmentFunction for Pass {
    const NAME: &str = "pass";
    type Config = Empty;
    const METHODS: Methods<Self> = &[stream("ticks", Self::ticks)];
    fn create(_: Empty, _host: &Host) -> Result<Self> {
        Ok(Self)
    }
    fn process(&mut self, record: &Record, out: &mut Output, _cx: &Context) -> Result {
        out.extend(record).finish()
    }
}
impl Pass {
    fn ticks(&self, _: Empty, _out: &Sender<u64>, _cx: &Context) -> Result {
        Ok(())
    }
}

export_plugins! { function Pass }

fn main() {}
