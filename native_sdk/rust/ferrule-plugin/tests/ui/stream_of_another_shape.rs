//! A stream that has nothing to send by.
use ferrule_plugin::prelude::*;

struct Worker;

impl JobRunner for Worker {
    const NAME: &str = "worker";
    type Config = Empty;
    const METHODS: Methods<Self> = &[stream("ticks", Self::ticks)];
    fn create(_: Empty, _host: &Host) -> Result<Self> {
        Ok(Self)
    }
}
impl Worker {
    fn ticks(&self, _: Empty, _cx: &Context) -> Result {
        Ok(())
    }
}

export_plugins! { runner Worker }

fn main() {}
