//! Runners: jobs, which take their time, answer in pieces, are fed while they run, and can be cancelled.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ferrule_sys::ferrule_instance;

use super::{Exported, Plugin, kind};
use crate::abi::concurrent::{Shared, allocate};
use crate::manifest::{PluginInfo, number_of};
use crate::methods::{Access, Methods, erase, invoke, open};
use crate::schema::Schema;
use crate::stream::{HostSide, Line};
use crate::{Context, Host, Output, Result, config};

/// A plugin of any methods, each of which is called for one answer, opened as a stream, or both.
///
/// - [`unary`](crate::unary): `fn(&self, Args, &Context) -> Result<Answer>`
/// - [`stream`](crate::stream), or `.and_stream` behind a `unary`: `fn(&self, Args, &Sender<Item>, &Context) -> Result`,
///   on a thread of its own. What it returns is the stream's end.
/// - [`feed`](crate::feed): `fn(&self, Args, &Feed<Fed>, &Sender<Item>, &Context) -> Result`, a stream that is fed.
/// - [`none`](crate::none): listed only.
///
/// An instance serves any number of calls and streams at once: methods take `&self`, and what changes stands in a
/// `Mutex` or an atomic. A panic ends the instance for all of them.
///
/// **Cancelling.** A method that takes long looks at [`cx.cancelled()`](Context::cancelled) now and then, or waits by
/// [`cx.sleep`](Context::sleep). In a stream, sending and reading the feed fail once it is cancelled, so `?` is enough
/// where there is something to send. A stream that a host closes goes on until its job notices.
///
/// ```
/// use ferrule_plugin::prelude::*;
/// use std::time::Duration;
///
/// config! {
///     struct Job { input_data: String }
/// }
///
/// struct MyRunner;
///
/// impl JobRunner for MyRunner {
///     const NAME: &str = "my-runner";
///     type Config = Empty;
///     const METHODS: Methods<Self> = &[
///         unary("run", Self::run).and_stream(Self::chunks).about("Processes the input."),
///     ];
///     fn create(_: Empty, _host: &Host) -> Result<Self> {
///         Ok(Self)
///     }
/// }
///
/// impl MyRunner {
///     fn run(&self, job: Job, _cx: &Context) -> Result<String> {
///         Ok(format!("Processed: {}", job.input_data))
///     }
///
///     fn chunks(&self, job: Job, out: &Sender<String>, cx: &Context) -> Result {
///         for number in 0..5 {
///             cx.sleep(Duration::from_millis(1))?;
///             out.send(&format!("Stream chunk {number} for {}", job.input_data))?;
///         }
///         Ok(())
///     }
/// }
///
/// export_plugins! {
///     /// Processes what it is given.
///     runner MyRunner,
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no runner: `JobRunner` is not implemented for it",
    label = "`impl JobRunner for {Self}` is missing",
    note = "`export_plugins!` takes `function`, `source`, `sink` or `runner` before each type, as the trait that it implements"
)]
pub trait JobRunner: Exported<kind::Runner> + Sized + Send + Sync + 'static {
    /// What programs call it: a-z, 0-9, `-` and `_`.
    const NAME: &'static str;
    /// Its configuration, a struct of [`config!`](crate::config) or [`Empty`](crate::Empty).
    type Config: Schema;
    /// What it does.
    const METHODS: Methods<Self>;

    /// Makes an instance. The host has checked the configuration and filled its defaults in.
    fn create(config: Self::Config, host: &Host) -> Result<Self>;
}

/// The numbered methods of a runner.
#[derive(Debug)]
pub(crate) struct RunnerInstance<R> {
    runner: Arc<R>,
    host: Host,
    poisoned: Arc<AtomicBool>,
}

impl<R: JobRunner> RunnerInstance<R> {
    pub(crate) fn create(config: &[u8], host: &Host) -> Result<Self> {
        let runner = Arc::new(R::create(config::parse(config)?, host)?);
        Ok(Self { runner, host: host.clone(), poisoned: Arc::default() })
    }
}

impl<R: JobRunner> Shared for RunnerInstance<R> {
    fn number(name: &str) -> Option<i32> {
        number_of(&[], erase(R::METHODS), name)
    }

    fn poisoned(&self) -> &AtomicBool {
        &self.poisoned
    }

    #[inline]
    fn call(&self, method: usize, input: &[u8], out: &mut Output) -> Result<i32> {
        invoke(R::METHODS, method, Access::Shared(&*self.runner), input, out)?;
        out.outcome()
    }

    fn open(&self, method: usize, input: &[u8], id: u64, context: &Context) -> Result<HostSide> {
        let (info, job) = open(R::METHODS, method, &self.runner, input, context)?;
        let runner: Arc<dyn Any + Send + Sync> = Arc::<R>::clone(&self.runner);
        Line::start(info, job, runner, self.host.of_stream(id), context.metadata_bytes(), &self.poisoned)
    }
}

impl<R: JobRunner> Plugin<kind::Runner> for R {
    const INFO: PluginInfo = PluginInfo {
        name: R::NAME,
        kind: "runner",
        concurrent: true,
        docs: &[],
        config: &R::Config::SHAPE,
        contract: &[],
        extra: erase(R::METHODS),
    };

    fn instance(config: &[u8], host: &Host) -> Result<*mut ferrule_instance> {
        RunnerInstance::<R>::create(config, host).map(allocate)
    }
}
