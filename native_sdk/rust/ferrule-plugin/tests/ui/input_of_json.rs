//! A media type for what is JSON.
use ferrule_plugin::prelude::*;

struct Worker;

impl JobRunner for Worker {
    const NAME: &str = "worker";
    type Config = Empty;
    const METHODS: Methods<Self> = &[unary("run", Self::run).input("application/x-protobuf", "")];
    fn create(_: Empty, _host: &Host) -> Result<Self> {
        Ok(Self)
    }
}
impl Worker {
    fn run(&self, _: String, _cx: &Context) -> Result {
        Ok(())
    }
}

export_plugins! { runner Worker }

fn main() {}
