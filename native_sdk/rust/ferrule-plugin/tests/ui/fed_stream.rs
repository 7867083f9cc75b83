//! A fed stream that is made by `stream`.
use ferrule_plugin::prelude::*;

struct Worker;

impl JobRunner for Worker {
    const NAME: &str = "worker";
    type Config = Empty;
    const METHODS: Methods<Self> = &[stream("echo", Self::echo)];
    fn create(_: Empty, _host: &Host) -> Result<Self> {
        Ok(Self)
    }
}
impl Worker {
    fn echo(&self, _: Empty, _feed: &Feed<Bytes>, _out: &Sender<Bytes>, _cx: &Context) -> Result {
        Ok(())
    }
}

export_plugins! { runner Worker }

fn main() {}
