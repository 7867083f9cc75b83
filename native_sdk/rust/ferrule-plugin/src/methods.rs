//! Methods of a plugin's own, beyond what its kind asks for.

use std::fmt;
use std::marker::PhantomData;

use crate::manifest::MethodInfo;
use crate::output::Output;
use crate::schema::Schema;
use crate::{Context, Error, Result};

/// The methods that a plugin has beyond its kind's, such as `health_check`, `metrics` or `reset`.
///
/// ```
/// # use ferrule_plugin::prelude::*;
/// config! {
///     struct Health { status: String, checked: u64 }
/// }
/// struct Checker { checked: u64 }
/// impl EnrichmentFunction for Checker {
///     const NAME: &str = "checker";
///     type Config = Empty;
///     const METHODS: Methods<Self> = &[
///         unary("health_check", Self::health).about("How it is, and how many records it has seen."),
///         unary("reset", Self::reset).about("Counts from zero again."),
///     ];
///     fn create(_: Empty, _host: &Host) -> Result<Self> { Ok(Self { checked: 0 }) }
///     fn process(&mut self, record: &Record, out: &mut Output, _cx: &Context) -> Result {
///         self.checked += 1;
///         out.extend(record).finish()
///     }
/// }
/// impl Checker {
///     fn health(&self, _: Empty, _cx: &Context) -> Result<Health> {
///         Ok(Health { status: "healthy".into(), checked: self.checked })
///     }
///     fn reset(&mut self, _: Empty, _cx: &Context) -> Result {
///         self.checked = 0;
///         Ok(())
///     }
/// }
/// export_plugins! { function Checker }
/// ```
pub type Methods<T> = &'static [Method<T>];

/// One method of a plugin `T`, made by [`unary`].
#[repr(transparent)]
pub struct Method<T> {
    erased: ErasedMethod,
    plugin: PhantomData<fn(&mut T)>,
}

impl<T> Method<T> {
    /// What it does, for the manifest: doc comments on methods cannot be seen by a macro.
    #[must_use]
    pub const fn about(mut self, description: &'static str) -> Self {
        self.erased.info.description = description;
        self
    }
}

impl<T> fmt::Debug for Method<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.erased.info.fmt(f)
    }
}

/// A method without its plugin's type.
#[derive(Clone, Copy)]
pub(crate) struct ErasedMethod {
    pub(crate) info: MethodInfo,
    /// The first argument points at the plugin.
    invoke: unsafe fn(*mut (), &[u8], &mut Output<'_>) -> Result,
}

impl fmt::Debug for ErasedMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info.fmt(f)
    }
}

/// The methods of a plugin, without its type.
pub(crate) const fn erase<T>(methods: Methods<T>) -> &'static [ErasedMethod] {
    // SAFETY: Method<T> is an ErasedMethod and nothing else (repr(transparent)).
    unsafe { std::slice::from_raw_parts(methods.as_ptr().cast(), methods.len()) }
}

/// Calls one of a plugin's own methods.
pub(crate) fn invoke<T>(methods: Methods<T>, index: usize, plugin: &mut T, input: &[u8], out: &mut Output) -> Result {
    let Some(method) = methods.get(index) else {
        return Err(Error::internal("the host called a method by a number that it was never given"));
    };
    // SAFETY: a Method<T> was made by `unary` for this very T.
    unsafe { (method.erased.invoke)((&raw mut *plugin).cast(), input, out) }
}

/// A method that takes one value and answers with one. The manifest's schemas come from their types.
///
/// See [`Methods`] for an example.
pub const fn unary<T, H: Handler<T, M>, M>(name: &'static str, handler: H) -> Method<T> {
    const { assert!(size_of::<H>() == 0, "a method is a function, or a closure that captures nothing") };
    let _ = handler; // it has no size: `call_handler` makes it again
    let mut info = MethodInfo::unary(name);
    info.args = Some(&<H::Args as Schema>::SHAPE);
    info.result = Some(&<H::Answer as Schema>::SHAPE);
    Method { erased: ErasedMethod { info, invoke: call_handler::<T, H, M> }, plugin: PhantomData }
}

/// # Safety
/// `plugin` points at a `T` that nobody else uses now, and a value of `H` was given to `unary`.
unsafe fn call_handler<T, H: Handler<T, M>, M>(plugin: *mut (), input: &[u8], out: &mut Output<'_>) -> Result {
    let input = if input.is_empty() { b"null" } else { input };
    let args =
        serde_json::from_slice(input).map_err(|error| Error::invalid_argument(crate::config::explain(&error)))?;
    // SAFETY: H is Copy and has no size, and `unary` was given one: this is a copy of that.
    let handler = unsafe { std::ptr::NonNull::<H>::dangling().read() };
    // SAFETY: the caller's promise.
    let plugin = unsafe { &mut *plugin.cast::<T>() };
    let context = out.context();
    out.value(&handler.call(plugin, args, context)?)
}

/// A function that can be a method: `fn(&mut self, Args, &Context) -> Result<Answer>`, or with `&self`.
#[diagnostic::on_unimplemented(
    message = "this function cannot be a method: it has another shape",
    label = "expected `fn(&self, Args, &Context) -> Result<Answer>`, or the same with `&mut self`",
    note = "Args and Answer are types with a schema: declare them in `config!`, or use Empty, (), String, u64, …"
)]
pub trait Handler<T, M>: Copy + 'static {
    /// What it takes.
    type Args: Schema;
    /// What it answers with.
    type Answer: Schema;
    #[doc(hidden)]
    fn call(self, plugin: &mut T, args: Self::Args, context: &Context<'_>) -> Result<Self::Answer>;
}

/// Tells the two kinds of handlers apart: this one takes `&mut self`.
#[doc(hidden)]
#[derive(Debug)]
pub enum Exclusive {}

/// And this one `&self`.
#[doc(hidden)]
#[derive(Debug)]
pub enum Shared {}

impl<T, A, R, F> Handler<T, (Exclusive, A, R)> for F
where
    F: Fn(&mut T, A, &Context<'_>) -> Result<R> + Copy + 'static,
    A: Schema,
    R: Schema,
{
    type Args = A;
    type Answer = R;
    fn call(self, plugin: &mut T, args: A, context: &Context<'_>) -> Result<R> {
        self(plugin, args, context)
    }
}

impl<T, A, R, F> Handler<T, (Shared, A, R)> for F
where
    F: Fn(&T, A, &Context<'_>) -> Result<R> + Copy + 'static,
    A: Schema,
    R: Schema,
{
    type Args = A;
    type Answer = R;
    fn call(self, plugin: &mut T, args: A, context: &Context<'_>) -> Result<R> {
        self(plugin, args, context)
    }
}
