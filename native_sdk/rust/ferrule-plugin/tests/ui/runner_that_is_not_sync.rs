//! A runner that cannot be shared between threads.
use std::cell::Cell;

use ferrule_plugin::prelude::*;

struct Counter(Cell<u64>);

impl JobRunner for Counter {
    const NAME: &str = "counter";
    type Config = Empty;
    const METHODS: Methods<Self> = &[unary("count", Self::count)];
    fn create(_: Empty, _host: &Host) -> Result<Self> {
        Ok(Self(Cell::new(0)))
    }
}
impl Counter {
    fn count(&self, _: Empty, _cx: &Context) -> Result<u64> {
        Ok(self.0.replace(self.0.get() + 1))
    }
}

export_plugins! { runner Counter }

fn main() {}
