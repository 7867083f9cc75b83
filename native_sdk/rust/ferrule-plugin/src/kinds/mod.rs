//! The kinds of plugins. Each is a contract over method names, and has here its trait, its entry in the manifest,
//! and the instance that turns numbered calls into the trait's.

mod function;
mod runner;
mod sink;
mod source;

pub use function::EnrichmentFunction;
#[cfg(feature = "testing")]
pub(crate) use function::FunctionInstance;
pub use runner::JobRunner;
#[cfg(feature = "testing")]
pub(crate) use runner::RunnerInstance;
pub use sink::SinkConnector;
#[cfg(feature = "testing")]
pub(crate) use sink::SinkInstance;
pub use source::{Reader, SourceConnector};
#[cfg(feature = "testing")]
pub(crate) use source::{ReaderStream, SourceInstance};

use ferrule_sys::ferrule_instance;

use crate::manifest::PluginInfo;
use crate::{Host, Result};

/// A kind, as a type: what `export_plugins!` calls it by.
pub mod kind {
    /// `function`, an [`EnrichmentFunction`](super::EnrichmentFunction).
    #[derive(Debug)]
    pub enum Function {}
    /// `source`, a [`SourceConnector`](super::SourceConnector).
    #[derive(Debug)]
    pub enum Source {}
    /// `sink`, a [`SinkConnector`](super::SinkConnector).
    #[derive(Debug)]
    pub enum Sink {}
    /// `runner`, a [`JobRunner`](super::JobRunner).
    #[derive(Debug)]
    pub enum Runner {}
}

/// That a plugin is listed in [`export_plugins!`](crate::export_plugins), which implements this. A plugin that is
/// forgotten there would be missing from the library without a word.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not listed in `export_plugins!` under its kind",
    label = "the library would be built without this plugin",
    note = "name it once in the crate, with its kind: `export_plugins! {{ function MyFunction, source MySource, sink MySink, runner MyRunner }}`"
)]
pub trait Exported<Kind> {}

/// What the boundary needs of a plugin. Implemented for whatever implements the trait of its kind.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be exported as this kind of plugin: it does not implement the kind's trait",
    label = "another kind, or a missing `impl`",
    note = "before each type stands `function` if it implements EnrichmentFunction, `source` if SourceConnector, `sink` if SinkConnector, `runner` if JobRunner"
)]
pub trait Plugin<Kind> {
    const INFO: PluginInfo;
    /// An instance, to be freed by `ferrule_plugin_destroy`.
    fn instance(config: &[u8], host: &Host) -> Result<*mut ferrule_instance>;
}
