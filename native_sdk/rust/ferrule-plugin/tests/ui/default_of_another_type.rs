//! A default that is not of its field's type.
use ferrule_plugin::prelude::*;

config! {
    struct Config {
        attempts: u8 = "three",
    }
}

fn main() {}
