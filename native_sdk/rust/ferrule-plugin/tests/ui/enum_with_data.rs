//! An enum with data in config!.
use ferrule_plugin::prelude::*;

config! {
    enum Mode {
        Plain,
        Masked(String),
    }
}

fn main() {}
