//! A field whose type has no schema.
use ferrule_plugin::prelude::*;

config! {
    struct Config {
        wait: std::time::Duration,
    }
}

fn main() {}
