//! A stream of what no manifest could describe.
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
    fn ticks(&self, _: Empty, _out: &Sender<std::time::Instant>, _cx: &Context) -> Result {
        Ok(())
    }
}

export_plugins! { runner Worker }

fn main() {}
