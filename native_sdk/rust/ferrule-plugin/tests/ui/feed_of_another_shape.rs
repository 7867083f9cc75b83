//! A stream that is to be fed, without a Feed.
use ferrule_plugin::prelude::*;

struct Worker;

impl JobRunner for Worker {
    const NAME: &str = "worker";
    type Config = Empty;
    const METHODS: Methods<Self> = &[feed("echo", Self::echo)];
    fn create(_: Empty, _host: &Host) -> Result<Self> {
        Ok(Self)
    }
}
impl Worker {
    fn echo(&self, _: Empty, _out: &Sender<Bytes>, _cx: &Context) -> Result {
        Ok(())
    }
}

export_plugins! { runner Worker }

fn main() {}
