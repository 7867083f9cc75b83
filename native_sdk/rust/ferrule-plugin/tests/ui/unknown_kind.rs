//! A kind that does not exist.
use ferrule_plugin::prelude::*;

struct AddMetadata;

export_plugins! { enrichment AddMetadata }

fn main() {}
