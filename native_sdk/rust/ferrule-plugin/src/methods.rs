//! Methods of a plugin's own: all that a runner has, and what other kinds have beyond what their kind asks for.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::manifest::{Described, MethodInfo};
use crate::output::Output;
use crate::payload::Payload;
use crate::stream::{Feed, Job, Sender};
use crate::{Context, Error, Result};

/// The methods of a [runner](crate::JobRunner), or those that a plugin of another kind has beyond its kind's, such as
/// `health_check`, `metrics` or `reset`; these are all [`unary`].
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

/// One method of a plugin `T`, made by [`unary`], [`stream`], [`feed`] or [`none`].
#[repr(transparent)]
pub struct Method<T> {
    erased: ErasedMethod,
    plugin: PhantomData<fn(&mut T)>,
}

impl<T> Method<T> {
    const fn new(info: MethodInfo) -> Self {
        Self { erased: ErasedMethod { info, invoke: None, opening: None, open: None }, plugin: PhantomData }
    }

    /// What it does, for the manifest: doc comments on methods cannot be seen by a macro.
    #[must_use]
    pub const fn about(mut self, description: &'static str) -> Self {
        self.erased.info.description = description;
        self
    }

    /// That a call of it ends soon once it is [cancelled](Context::cancelled). Streams always do: they need not say so.
    #[must_use]
    pub const fn cancellable(mut self) -> Self {
        self.erased.info.cancellable = true;
        self
    }

    /// That items of its stream, or its end, carry metadata: see [`Sender::send_with`] and [`Sender::metadata`].
    #[must_use]
    pub const fn with_metadata(mut self) -> Self {
        assert!(self.erased.open.is_some(), "with_metadata is for streams; a call has `cx.metadata_out`");
        self.erased.info.metadata = true;
        self
    }

    /// What the [`Bytes`](crate::Bytes) that it takes are: their media type, and a text that describes them, such as a
    /// protobuf file's; an empty one stands for none.
    #[must_use]
    pub const fn input(mut self, media_type: &'static str, text: &'static str) -> Self {
        assert!(
            self.erased.info.args.is_none(),
            "input is for a method that takes Bytes; the schema of others is known"
        );
        self.erased.info.input = media_type;
        self.erased.info.args = Described::text(media_type, text);
        self
    }

    /// What the [`Bytes`](crate::Bytes) that it gives are, as for [`input`](Self::input).
    #[must_use]
    pub const fn output(mut self, media_type: &'static str, text: &'static str) -> Self {
        assert!(
            self.erased.info.result.is_none(),
            "output is for a method that gives Bytes; the schema of others is known"
        );
        self.erased.info.output = media_type;
        self.erased.info.result = Described::text(media_type, text);
        self
    }

    /// What the [`Bytes`](crate::Bytes) that it is fed are, as for [`input`](Self::input).
    #[must_use]
    pub const fn fed(mut self, media_type: &'static str, text: &'static str) -> Self {
        assert!(self.erased.info.need_feed, "fed is for a method made by `feed`");
        assert!(
            self.erased.info.feed.is_none(),
            "fed is for a method that is fed Bytes; the schema of others is known"
        );
        self.erased.info.feed_input = media_type;
        self.erased.info.feed = Described::text(media_type, text);
        self
    }

    /// Makes a [`unary`] method one that can be opened as a stream, too. Both take the same arguments, and an item of the
    /// stream looks like the answer.
    #[must_use]
    pub const fn and_stream<H: StreamHandler<T, M>, M>(mut self, handler: H) -> Self
    where
        T: Send + Sync + 'static,
    {
        const { assert!(size_of::<H>() == 0, "a method is a function, or a closure that captures nothing") };
        let _ = handler; // it has no size: `open_stream` makes it again
        assert!(self.erased.invoke.is_some() && self.erased.open.is_none(), "and_stream follows `unary`, once");
        self.erased.info.mode = "both";
        self.erased.info.cancellable = true;
        self.erased.open = Some(open_stream::<T, H, M>);
        self
    }

    /// What happens before a stream begins, within the host's call of open: the stream is refused by an error of its own
    /// call, and may be given metadata as a whole, such as `{"media_type": …}` where the manifest can name none, by
    /// [`Context::metadata_out`]. It takes the stream's arguments and answers with nothing.
    #[must_use]
    pub const fn on_open<H: Handler<T, M, Answer = ()>, M>(mut self, handler: H) -> Self {
        const { assert!(size_of::<H>() == 0, "a method is a function, or a closure that captures nothing") };
        let _ = handler;
        assert!(self.erased.open.is_some(), "on_open is for streams");
        assert!(H::SHARED, "on_open takes &self");
        self.erased.opening = Some(call_opening::<T, H, M>);
        self
    }
}

impl<T> fmt::Debug for Method<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.erased.info.fmt(f)
    }
}

/// A plugin as a method gets it: together with others, or to itself.
#[doc(hidden)]
#[derive(Debug)]
pub enum Access<'a, T> {
    Shared(&'a T),
    Exclusive(&'a mut T),
}

/// The same without its type.
#[derive(Clone, Copy)]
enum Erased {
    Shared(*const ()),
    Exclusive(*mut ()),
}

impl<T> Access<'_, T> {
    fn erase(self) -> Erased {
        match self {
            Self::Shared(plugin) => Erased::Shared((&raw const *plugin).cast()),
            Self::Exclusive(plugin) => Erased::Exclusive((&raw mut *plugin).cast()),
        }
    }
}

impl Erased {
    /// # Safety
    /// It was made from a `T`, and `'a` is no longer than the access that it was made from.
    unsafe fn restore<'a, T>(self) -> Access<'a, T> {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Shared(plugin) => Access::Shared(&*plugin.cast()),
                Self::Exclusive(plugin) => Access::Exclusive(&mut *plugin.cast()),
            }
        }
    }
}

/// A method without its plugin's type. The functions take the plugin, erased, of which the method is.
#[derive(Clone, Copy)]
pub(crate) struct ErasedMethod {
    pub(crate) info: MethodInfo,
    invoke: Option<Invoke>,
    opening: Option<Opening>,
    open: Option<Open>,
}

type Invoke = unsafe fn(Erased, &[u8], &mut Output<'_>) -> Result;
type Opening = unsafe fn(Erased, &[u8], &Context<'_>) -> Result;
/// The pointer is to an `Arc` of the plugin.
type Open = unsafe fn(*const (), &[u8]) -> Result<Job>;

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

fn numbered<T>(methods: Methods<T>, index: usize) -> Result<&'static ErasedMethod> {
    let method = methods.get(index).map(|method| &method.erased);
    method.ok_or_else(|| Error::internal("the host called a method by a number that it was never given"))
}

/// Calls one of a plugin's own methods.
pub(crate) fn invoke<T>(
    methods: Methods<T>,
    index: usize,
    plugin: Access<T>,
    input: &[u8],
    out: &mut Output,
) -> Result {
    let method = numbered(methods, index)?;
    let Some(invoke) = method.invoke else {
        let MethodInfo { name, mode, .. } = method.info;
        return Err(Error::unsupported(match mode {
            "none" => format!("{name} is listed, but not offered"),
            _ => format!("{name} is a stream: open it"),
        }));
    };
    // SAFETY: a Method<T> was made for this very T.
    unsafe { invoke(plugin.erase(), input, out) }
}

/// Begins a stream: what there is to do on its thread, and how.
pub(crate) fn open<T>(
    methods: Methods<T>,
    index: usize,
    plugin: &Arc<T>,
    input: &[u8],
    context: &Context<'_>,
) -> Result<(&'static MethodInfo, Job)> {
    let method = numbered(methods, index)?;
    let Some(open) = method.open else {
        let MethodInfo { name, mode, .. } = method.info;
        return Err(Error::unsupported(match mode {
            "none" => format!("{name} is listed, but not offered"),
            _ => format!("{name} is no stream: call it"),
        }));
    };
    // SAFETY: a Method<T> was made for this very T.
    let job = unsafe { open((&raw const *plugin).cast(), input)? };
    if let Some(opening) = method.opening {
        // SAFETY: as above.
        unsafe { opening(Access::Shared(&**plugin).erase(), input, context)? };
    }
    Ok((&method.info, job))
}

/// A method that takes one value and answers with one. The manifest's schemas come from their types.
///
/// See [`Methods`] for an example.
pub const fn unary<T, H: Handler<T, M>, M>(name: &'static str, handler: H) -> Method<T> {
    const { assert!(size_of::<H>() == 0, "a method is a function, or a closure that captures nothing") };
    let _ = handler; // it has no size: `call_handler` makes it again
    let mut info = MethodInfo::unary(name);
    (info.input, info.args) = (H::Args::MEDIA_TYPE, Described::shape(H::Args::SHAPE));
    (info.output, info.result) = (H::Answer::MEDIA_TYPE, Described::shape(H::Answer::SHAPE));
    info.exclusive = !H::SHARED;
    let mut method = Method::new(info);
    method.erased.invoke = Some(call_handler::<T, H, M>);
    method
}

/// A method that takes one value and gives items, one after the other, from a thread of its own.
///
/// See [`JobRunner`](crate::JobRunner) for an example.
pub const fn stream<T: Send + Sync + 'static, H: StreamHandler<T, M>, M>(name: &'static str, handler: H) -> Method<T> {
    const { assert!(size_of::<H>() == 0, "a method is a function, or a closure that captures nothing") };
    let _ = handler; // it has no size: `open_stream` makes it again
    let mut method = Method::new(streaming::<H::Args, H::Item>(name));
    method.erased.open = Some(open_stream::<T, H, M>);
    method
}

/// A [`stream`] that is fed while it runs.
///
/// See [`Feed`] for an example.
pub const fn feed<T: Send + Sync + 'static, H: FeedHandler<T, M>, M>(name: &'static str, handler: H) -> Method<T> {
    const { assert!(size_of::<H>() == 0, "a method is a function, or a closure that captures nothing") };
    let _ = handler; // it has no size: `open_feed` makes it again
    let mut info = streaming::<H::Args, H::Item>(name);
    (info.feed_input, info.feed) = (H::Fed::MEDIA_TYPE, Described::shape(H::Fed::SHAPE));
    info.need_feed = true;
    let mut method = Method::new(info);
    method.erased.open = Some(open_feed::<T, H, M>);
    method
}

/// A method that is listed and cannot be called: it is planned, or done by somebody else.
pub const fn none<T>(name: &'static str) -> Method<T> {
    let mut info = MethodInfo::unary(name);
    info.mode = "none";
    Method::new(info)
}

const fn streaming<A: Payload, I: Payload>(name: &'static str) -> MethodInfo {
    let mut info = MethodInfo::unary(name);
    info.mode = "stream";
    (info.input, info.args) = (A::MEDIA_TYPE, Described::shape(A::SHAPE));
    (info.output, info.result) = (I::MEDIA_TYPE, Described::shape(I::SHAPE));
    info.cancellable = true;
    info
}

/// The handler that a method was made with.
///
/// # Safety
/// A value of `H` was given to the function that made the method, which saw to it that it has no size.
unsafe fn handler<H: Copy>() -> H {
    // SAFETY: H is Copy and has no size: this is a copy of what was given.
    unsafe { std::ptr::NonNull::<H>::dangling().read() }
}

/// # Safety
/// `plugin` was made from a `T`, and a value of `H` was given to `unary`.
unsafe fn call_handler<T, H: Handler<T, M>, M>(plugin: Erased, input: &[u8], out: &mut Output<'_>) -> Result {
    let args = H::Args::read(input)?;
    let context = out.context();
    // SAFETY: the caller's promise.
    let (handler, plugin) = unsafe { (handler::<H>(), plugin.restore()) };
    handler.call(plugin, args, context)?.write(out)
}

/// # Safety
/// `plugin` was made from a `T`, and a value of `H` was given to `on_open`.
unsafe fn call_opening<T, H: Handler<T, M, Answer = ()>, M>(
    plugin: Erased,
    input: &[u8],
    context: &Context<'_>,
) -> Result {
    let args = H::Args::read(input)?;
    // SAFETY: the caller's promise.
    let (handler, plugin) = unsafe { (handler::<H>(), plugin.restore()) };
    handler.call(plugin, args, context)
}

/// # Safety
/// `plugin` points at an `Arc<T>`, and a value of `H` was given to `stream`.
unsafe fn open_stream<T: Send + Sync + 'static, H: StreamHandler<T, M>, M>(
    plugin: *const (),
    input: &[u8],
) -> Result<Job> {
    let args = H::Args::read(input)?;
    // SAFETY: the caller's promise.
    let (handler, plugin) = unsafe { (handler::<H>(), Arc::clone(&*plugin.cast::<Arc<T>>())) };
    Ok(Box::new(move |line, context| handler.run(&plugin, args, &Sender::new(line), context)))
}

/// # Safety
/// `plugin` points at an `Arc<T>`, and a value of `H` was given to `feed`.
unsafe fn open_feed<T: Send + Sync + 'static, H: FeedHandler<T, M>, M>(plugin: *const (), input: &[u8]) -> Result<Job> {
    let args = H::Args::read(input)?;
    // SAFETY: the caller's promise.
    let (handler, plugin) = unsafe { (handler::<H>(), Arc::clone(&*plugin.cast::<Arc<T>>())) };
    Ok(Box::new(move |line, context| handler.run(&plugin, args, &Feed::new(line), &Sender::new(line), context)))
}

/// A function that can be a method: `fn(&self, Args, &Context) -> Result<Answer>`, or with `&mut self`, but for a
/// runner's methods, which run beside each other.
#[diagnostic::on_unimplemented(
    message = "this function cannot be a method: it has another shape",
    label = "expected `fn(&self, Args, &Context) -> Result<Answer>`, or the same with `&mut self`",
    note = "Args and Answer are types with a schema: declare them in `config!`, or use Empty, (), String, u64, …; or Bytes"
)]
pub trait Handler<T, M>: Copy + 'static {
    /// What it takes.
    type Args: Payload;
    /// What it answers with.
    type Answer: Payload;
    #[doc(hidden)]
    const SHARED: bool;
    #[doc(hidden)]
    fn call(self, plugin: Access<'_, T>, args: Self::Args, context: &Context<'_>) -> Result<Self::Answer>;
}

/// A function that can be a stream: `fn(&self, Args, &Sender<Item>, &Context) -> Result`.
#[diagnostic::on_unimplemented(
    message = "this function cannot be a stream: it has another shape",
    label = "expected `fn(&self, Args, &Sender<Item>, &Context) -> Result`",
    note = "Args and Item are types with a schema: declare them in `config!`, or use Empty, (), String, u64, …; or Bytes",
    note = "what is fed while it runs has a `&Feed<Fed>` before its Sender, and is made by `feed`"
)]
pub trait StreamHandler<T, M>: Copy + Send + 'static {
    /// What it takes.
    type Args: Payload + Send + 'static;
    /// What it sends.
    type Item: Payload;
    #[doc(hidden)]
    fn run(self, plugin: &T, args: Self::Args, out: &Sender<Self::Item>, context: &Context<'_>) -> Result;
}

/// A function that can be a stream and be fed: `fn(&self, Args, &Feed<Fed>, &Sender<Item>, &Context) -> Result`.
#[diagnostic::on_unimplemented(
    message = "this function cannot be fed: it has another shape",
    label = "expected `fn(&self, Args, &Feed<Fed>, &Sender<Item>, &Context) -> Result`",
    note = "Args, Fed and Item are types with a schema: declare them in `config!`, or use Empty, (), String, u64, …; or Bytes"
)]
pub trait FeedHandler<T, M>: Copy + Send + 'static {
    /// What it takes.
    type Args: Payload + Send + 'static;
    /// What it is fed.
    type Fed: Payload;
    /// What it sends.
    type Item: Payload;
    #[doc(hidden)]
    fn run(
        self,
        plugin: &T,
        args: Self::Args,
        feed: &Feed<Self::Fed>,
        out: &Sender<Self::Item>,
        context: &Context<'_>,
    ) -> Result;
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
    A: Payload,
    R: Payload,
{
    type Args = A;
    type Answer = R;
    const SHARED: bool = false;
    fn call(self, plugin: Access<'_, T>, args: A, context: &Context<'_>) -> Result<R> {
        match plugin {
            Access::Exclusive(plugin) => self(plugin, args, context),
            Access::Shared(_) => Err(Error::internal("a method that takes &mut self, beside others")),
        }
    }
}

impl<T, A, R, F> Handler<T, (Shared, A, R)> for F
where
    F: Fn(&T, A, &Context<'_>) -> Result<R> + Copy + 'static,
    A: Payload,
    R: Payload,
{
    type Args = A;
    type Answer = R;
    const SHARED: bool = true;
    fn call(self, plugin: Access<'_, T>, args: A, context: &Context<'_>) -> Result<R> {
        match plugin {
            Access::Exclusive(plugin) => self(plugin, args, context),
            Access::Shared(plugin) => self(plugin, args, context),
        }
    }
}

impl<T, A, I, F> StreamHandler<T, (A, I)> for F
where
    F: Fn(&T, A, &Sender<I>, &Context<'_>) -> Result + Copy + Send + 'static,
    A: Payload + Send + 'static,
    I: Payload,
{
    type Args = A;
    type Item = I;
    fn run(self, plugin: &T, args: A, out: &Sender<I>, context: &Context<'_>) -> Result {
        self(plugin, args, out, context)
    }
}

impl<T, A, D, I, F> FeedHandler<T, (A, D, I)> for F
where
    F: Fn(&T, A, &Feed<D>, &Sender<I>, &Context<'_>) -> Result + Copy + Send + 'static,
    A: Payload + Send + 'static,
    D: Payload,
    I: Payload,
{
    type Args = A;
    type Fed = D;
    type Item = I;
    fn run(self, plugin: &T, args: A, feed: &Feed<D>, out: &Sender<I>, context: &Context<'_>) -> Result {
        self(plugin, args, feed, out, context)
    }
}

/// Nothing has this type, so that no function takes it. Were there one way alone to be a stream, rustc would complain of
/// the number of arguments, and not in the words above.
#[doc(hidden)]
#[derive(Debug)]
pub enum Nobody {}

impl<T, F: Fn(Nobody) + Copy + Send + 'static> StreamHandler<T, Nobody> for F {
    type Args = ();
    type Item = ();
    fn run(self, _: &T, (): (), _: &Sender<()>, _: &Context<'_>) -> Result {
        Err(Error::internal("a stream for nobody"))
    }
}

impl<T, F: Fn(Nobody) + Copy + Send + 'static> FeedHandler<T, Nobody> for F {
    type Args = ();
    type Fed = ();
    type Item = ();
    fn run(self, _: &T, (): (), _: &Feed<()>, _: &Sender<()>, _: &Context<'_>) -> Result {
        Err(Error::internal("a stream for nobody"))
    }
}
