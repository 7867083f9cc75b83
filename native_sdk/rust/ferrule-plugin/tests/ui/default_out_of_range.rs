//! A default that does not fit its field.
use ferrule_plugin::prelude::*;

config! {
    struct Config {
        attempts: u8 = 300,
    }
}

fn main() {}
