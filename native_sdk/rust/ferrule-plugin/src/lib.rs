#![doc = include_str!("../README.md")]

mod abi;
mod buffer;
mod config;
mod error;
mod export;
mod guard;
mod host;
mod json;
mod kinds;
mod manifest;
mod methods;
mod output;
mod record;
mod render;
mod schema;
mod time;

#[cfg(feature = "testing")]
pub mod testing;

pub use error::{Error, Result, Status};
pub use host::{Context, Host, Level};
pub use kinds::{EnrichmentFunction, Exported, Reader, SinkConnector, SourceConnector, kind};
pub use methods::{Handler, Method, Methods, unary};
pub use output::{Next, Object, Output};
pub use record::{Field, Fields, Record, Records, RecordsIter};
pub use schema::{Defaults, Empty, NoDefault, Schema, Shape};
pub use time::{Timestamp, now_rfc3339};

/// Everything that a plugin needs: `use ferrule_plugin::prelude::*;`.
pub mod prelude {
    pub use crate::{
        Context, Defaults, Empty, EnrichmentFunction, Error, Host, Level, Methods, Next, Output, Reader, Record,
        Records, Result, Schema, Shape, SinkConnector, SourceConnector, config, export_plugins, now_rfc3339, unary,
    };
}

/// What the macros write out. No part of the API.
#[doc(hidden)]
pub mod __private {
    pub use crate::abi::{create, destroy};
    pub use crate::config::{Names, field_value, missing, no_fields, plain_name, snake, snake_len, text, variant};
    pub use crate::manifest::{Entry, Image, Library};
    pub use crate::schema::{Field, Variant};
    pub use ferrule_sys as sys;
    pub use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
    pub use serde::ser::{Serialize, SerializeStruct, Serializer};
}
