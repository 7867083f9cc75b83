//! Functions: one record in, one record out.

use ferrule_sys::ferrule_instance;

use super::{Exported, Plugin, kind};
use crate::abi::serial::{Instance, NoStream, allocate};
use crate::manifest::{LINES, MethodInfo, PluginInfo, number_of};
use crate::methods::{Access, Methods, erase, invoke};
use crate::schema::Schema;
use crate::{Context, Host, Output, Record, Result, config};

/// A step of a flow: takes a record and answers with one, with none, or with several.
///
/// An instance is created once for a step, with its configuration, and called by one thread at a time.
///
/// ```
/// use ferrule_plugin::prelude::*;
///
/// config! {
///     struct Config {
///         /// The name to stamp.
///         plugin_name: String = "unknown_rust_plugin",
///     }
/// }
///
/// struct AddMetadata { config: Config }
///
/// impl EnrichmentFunction for AddMetadata {
///     const NAME: &str = "add-metadata";
///     type Config = Config;
///
///     fn create(config: Config, _host: &Host) -> Result<Self> {
///         Ok(Self { config })
///     }
///
///     fn process(&mut self, record: &Record, out: &mut Output, _cx: &Context) -> Result {
///         out.extend(record)
///             .field("processed_by_rust_plugin", &self.config.plugin_name)
///             .field("rust_enriched_timestamp", now_rfc3339())
///             .finish()
///     }
/// }
///
/// export_plugins! {
///     /// Stamps each record with who enriched it, and when.
///     function AddMetadata,
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no function: `EnrichmentFunction` is not implemented for it",
    label = "`impl EnrichmentFunction for {Self}` is missing",
    note = "`export_plugins!` takes `function`, `source`, `sink` or `runner` before each type, as the trait that it implements"
)]
pub trait EnrichmentFunction: Exported<kind::Function> + Sized + Send + 'static {
    /// What flows call it: a-z, 0-9, `-` and `_`.
    const NAME: &'static str;
    /// Its configuration, a struct of [`config!`](crate::config) or [`Empty`](crate::Empty).
    type Config: Schema;
    /// It may answer with several records, one after the other, or with none.
    const MANY: bool = false;
    /// What it offers beside `process`.
    const METHODS: Methods<Self> = &[];

    /// Makes an instance. The host has checked the configuration and filled its defaults in.
    fn create(config: Self::Config, host: &Host) -> Result<Self>;

    /// Writes what becomes of a record, or [skips](Output::skip) it.
    fn process(&mut self, record: &Record, out: &mut Output, cx: &Context) -> Result;
}

/// The numbered methods of a function.
#[derive(Debug)]
pub(crate) struct FunctionInstance<F> {
    function: F,
}

impl<F: EnrichmentFunction> FunctionInstance<F> {
    const CONTRACT: &'static [MethodInfo] = &[{
        let mut process = MethodInfo::unary("process");
        if F::MANY {
            process.output = LINES;
        }
        process
    }];

    pub(crate) fn create(config: &[u8], host: &Host) -> Result<Self> {
        Ok(Self { function: F::create(config::parse(config)?, host)? })
    }
}

impl<F: EnrichmentFunction> Instance for FunctionInstance<F> {
    type Stream = NoStream;
    const MANY: bool = F::MANY;

    fn number(name: &str) -> Option<i32> {
        number_of(Self::CONTRACT, erase(F::METHODS), name)
    }

    #[inline]
    fn call(&mut self, method: usize, input: &[u8], out: &mut Output) -> Result<i32> {
        let context = out.context();
        match method {
            0 => self.function.process(Record::new(input), out, context)?,
            own => invoke(F::METHODS, own - Self::CONTRACT.len(), Access::Exclusive(&mut self.function), input, out)?,
        }
        out.outcome()
    }
}

impl<F: EnrichmentFunction> Plugin<kind::Function> for F {
    const INFO: PluginInfo = PluginInfo {
        name: F::NAME,
        kind: "function",
        concurrent: false,
        docs: &[],
        config: &F::Config::SHAPE,
        contract: FunctionInstance::<F>::CONTRACT,
        extra: erase(F::METHODS),
    };

    fn instance(config: &[u8], host: &Host) -> Result<*mut ferrule_instance> {
        FunctionInstance::<F>::create(config, host).map(allocate)
    }
}
