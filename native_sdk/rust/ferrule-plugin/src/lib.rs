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
mod payload;
mod queue;
mod record;
mod render;
mod schema;
mod stream;
mod time;

/// What the queue is made of; its test puts other ones here.
mod sync {
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
}

#[cfg(feature = "testing")]
pub mod testing;

pub use error::{Error, Result, Status};
pub use host::{Context, Host, Level};
pub use kinds::{EnrichmentFunction, Exported, JobRunner, Reader, SinkConnector, SourceConnector, kind};
pub use methods::{FeedHandler, Handler, Method, Methods, StreamHandler, feed, none, stream, unary};
pub use output::{Next, Object, Output};
pub use payload::{Bytes, Payload};
pub use record::{Field, Fields, Record, Records, RecordsIter};
pub use schema::{Defaults, Empty, NoDefault, Schema, Shape};
pub use stream::{Blocks, Fed, Feed, Sender, spawn};
pub use time::{Timestamp, monotonic_ns, now_rfc3339};

/// Everything that a plugin needs: `use ferrule_plugin::prelude::*;`.
pub mod prelude {
    pub use crate::{
        Bytes, Context, Defaults, Empty, EnrichmentFunction, Error, Fed, Feed, Host, JobRunner, Level, Methods, Next,
        Output, Reader, Record, Records, Result, Schema, Sender, Shape, SinkConnector, SourceConnector, config,
        export_plugins, feed, monotonic_ns, none, now_rfc3339, spawn, stream, unary,
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
