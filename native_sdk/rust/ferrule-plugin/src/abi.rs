//! The boundary: instances and streams as the host holds them, and the functions of their tables.
//!
//! Every `extern "C"` function here does nothing outside of [`guard`](crate::guard).

use std::cell::UnsafeCell;
use std::ffi::c_char;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};

use ferrule_sys::{
    FERRULE_NOT_FOUND, FERRULE_OK, FERRULE_STREAM_UNLOCKED, ferrule_buffer, ferrule_call, ferrule_host,
    ferrule_instance, ferrule_instance_ops, ferrule_stream, ferrule_stream_ops,
};

use crate::buffer::Buffer;
use crate::host::lent;
use crate::json::Keys;
use crate::manifest::Library;
use crate::{Context, Error, Host, Output, Result, guard};

/// A plugin behind numbered methods, called by one thread at a time.
pub(crate) trait Instance: Send + Sized + 'static {
    type Stream: Stream;
    /// An answer may hold several records, one a line.
    const MANY: bool = false;

    /// The number of a method.
    fn number(name: &str) -> Option<i32>;

    /// A method's answer, and the status that goes with it.
    fn call(&mut self, method: usize, input: &[u8], out: &mut Output) -> Result<i32>;

    /// Starts a stream.
    fn open(&mut self, _method: usize, _input: &[u8], _context: &Context) -> Result<Self::Stream> {
        Err(Error::unsupported("no method of this plugin is a stream"))
    }
}

/// Something that gives item after item, on one thread at a time.
pub(crate) trait Stream: Send + Sized + 'static {
    /// An item may hold several records, one a line.
    const MANY: bool = false;

    /// One item, and the status that goes with it.
    fn next(&mut self, out: &mut Output) -> Result<i32>;

    /// Where to go on from.
    fn position(&self, out: &mut Output) -> Result;
}

/// The stream of a plugin that has none.
#[derive(Debug)]
pub(crate) enum NoStream {}

impl Stream for NoStream {
    fn next(&mut self, _out: &mut Output) -> Result<i32> {
        match *self {}
    }
    fn position(&self, _out: &mut Output) -> Result {
        match *self {}
    }
}

/// What every instance begins with, so that destroy can free it without knowing its type.
#[repr(C)]
struct Head {
    base: ferrule_instance,
    destroy: unsafe fn(*mut ferrule_instance),
}

/// An instance as the host holds it.
#[repr(C)]
struct Allocated<I> {
    head: Head,
    lock: Lock,
    /// The keys of the record under way; here, so that the list grows once and not for each record.
    keys: UnsafeCell<Keys>,
    inner: UnsafeCell<I>,
}

/// A stream as the host holds it.
#[repr(C)]
struct Opened<S> {
    base: ferrule_stream,
    cancelled: AtomicI32,
    lock: Lock,
    keys: UnsafeCell<Keys>,
    inner: UnsafeCell<S>,
}

/// Keeps a call out of an object that is in use or that panicked.
///
/// The host sees to it that calls come one at a time. This is for what comes back into an instance from within it, on
/// the same thread, where two `&mut` would meet; so it need not be a lock between threads, and costs next to nothing.
struct Lock(AtomicU8);

const FREE: u8 = 0;
const BUSY: u8 = 1;
const POISONED: u8 = 2;

impl Lock {
    #[inline(always)]
    fn hold<T>(&self, body: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.0.load(Ordering::Relaxed) {
            FREE => {}
            state => return Err(refused(state)),
        }
        self.0.store(BUSY, Ordering::Relaxed);
        let panics = Panics(self);
        let answer = body();
        std::mem::forget(panics);
        self.0.store(FREE, Ordering::Relaxed);
        answer
    }
}

/// Dropped only while a panic unwinds.
struct Panics<'a>(&'a Lock);

impl Drop for Panics<'_> {
    fn drop(&mut self) {
        self.0.0.store(POISONED, Ordering::Relaxed);
    }
}

#[cold]
fn refused(state: u8) -> Error {
    Error::invalid_state(if state == BUSY {
        "called again from within a call: a plugin of this kind does one thing at a time"
    } else {
        "it panicked in an earlier call and cannot be used any more; make a new instance"
    })
}

/// Gives an instance to the host, which frees it by `ferrule_plugin_destroy`.
pub(crate) fn allocate<I: Instance>(inner: I) -> *mut ferrule_instance {
    let head = Head { base: ferrule_instance { ops: &Tables::<I>::INSTANCE }, destroy: free::<I> };
    let (lock, keys) = (Lock(AtomicU8::new(FREE)), UnsafeCell::new(Keys::new()));
    Box::into_raw(Box::new(Allocated { head, lock, keys, inner: UnsafeCell::new(inner) })).cast()
}

/// # Safety
/// `instance` was made by `allocate::<I>` and is not used any more.
unsafe fn free<I: Instance>(instance: *mut ferrule_instance) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(instance.cast::<Allocated<I>>()) });
}

struct Tables<T>(T);

impl<I: Instance> Tables<I> {
    const INSTANCE: ferrule_instance_ops = ferrule_instance_ops {
        struct_size: size_of::<ferrule_instance_ops>() as u32,
        flags: 0,
        method: Some(method::<I>),
        call: Some(call::<I>),
        open: Some(open::<I>),
        query: None,
    };

    const STREAM: ferrule_stream_ops = ferrule_stream_ops {
        struct_size: size_of::<ferrule_stream_ops>() as u32,
        flags: FERRULE_STREAM_UNLOCKED,
        cancel: Some(cancel::<I::Stream>),
        close: Some(close::<I::Stream>),
        next: Some(next::<I::Stream>),
        feed: None,
        position: Some(position::<I::Stream>),
        metadata: None,
        query: None,
    };
}

unsafe extern "C" fn method<I: Instance>(_instance: *mut ferrule_instance, name: *const c_char, len: usize) -> i32 {
    guard::quiet(FERRULE_NOT_FOUND, || {
        // SAFETY: the host lends `len` bytes at `name`.
        let name = unsafe { lent(name.cast(), len) };
        std::str::from_utf8(name).ok().and_then(I::number).unwrap_or(FERRULE_NOT_FOUND)
    })
}

unsafe extern "C" fn call<I: Instance>(
    instance: *mut ferrule_instance,
    method: i32,
    call: *const ferrule_call,
    input: *const u8,
    input_len: usize,
    out: *mut ferrule_buffer,
    error: *mut ferrule_buffer,
) -> i32 {
    let body = || {
        // SAFETY: the host gives back what create gave it, and lends the rest for this call (ferrule.h).
        let (this, context, input, buffer) = unsafe {
            let this = &*instance.cast::<Allocated<I>>();
            (this, Context::of(call), lent(input, input_len), Buffer::lent(out))
        };
        this.lock.hold(|| {
            // SAFETY: the lock is held, so that nobody else is in here.
            let (inner, keys) = unsafe { (&mut *this.inner.get(), &mut *this.keys.get()) };
            inner.call(method as usize, input, &mut Output::new(buffer, &context, keys, I::MANY))
        })
    };
    // SAFETY: the host lends `error` for this call.
    unsafe { guard::status(error, body) }
}

unsafe extern "C" fn open<I: Instance>(
    instance: *mut ferrule_instance,
    method: i32,
    call: *const ferrule_call,
    input: *const u8,
    input_len: usize,
    out: *mut *mut ferrule_stream,
    error: *mut ferrule_buffer,
) -> i32 {
    let body = || {
        // SAFETY: the host gives back what create gave it, and lends the rest for this call (ferrule.h).
        let (this, context, input) = unsafe {
            let this = &*instance.cast::<Allocated<I>>();
            (this, Context::of(call), lent(input, input_len))
        };
        this.lock.hold(|| {
            // SAFETY: the lock is held, so that nobody else is in here.
            let stream = unsafe { &mut *this.inner.get() }.open(method as usize, input, &context)?;
            let opened = Box::new(Opened {
                base: ferrule_stream { ops: &Tables::<I>::STREAM },
                cancelled: AtomicI32::new(0),
                lock: Lock(AtomicU8::new(FREE)),
                keys: UnsafeCell::new(Keys::new()),
                inner: UnsafeCell::new(stream),
            });
            // SAFETY: the host lends the place to put it.
            unsafe { out.write(Box::into_raw(opened).cast()) };
            Ok(FERRULE_OK)
        })
    };
    // SAFETY: the host lends `error` for this call.
    unsafe { guard::status(error, body) }
}

/// A stream, shared: `cancel` may come from any thread while another is in `next`. Only the thread of `next` reaches
/// what stands in the cells.
///
/// # Safety
/// `stream` was made by `open` of an instance with this stream, and is not closed.
unsafe fn opened<'a, S>(stream: *mut ferrule_stream) -> &'a Opened<S> {
    // SAFETY: the caller's promise.
    unsafe { &*stream.cast::<Opened<S>>() }
}

unsafe extern "C" fn cancel<S: Stream>(stream: *mut ferrule_stream) {
    guard::quiet((), || {
        // SAFETY: the host gives back what open gave it, never beside close.
        unsafe { opened::<S>(stream) }.cancelled.store(1, Ordering::Release);
    });
}

unsafe extern "C" fn close<S: Stream>(stream: *mut ferrule_stream) {
    guard::quiet((), || {
        // SAFETY: the host gives back what open gave it, once, and uses it no more.
        drop(unsafe { Box::from_raw(stream.cast::<Opened<S>>()) });
    });
}

unsafe extern "C" fn next<S: Stream>(
    stream: *mut ferrule_stream,
    timeout_ms: i64,
    out: *mut ferrule_buffer,
    error: *mut ferrule_buffer,
) -> i32 {
    let body = || {
        // SAFETY: the host gives back what open gave it, and lends the buffer for this call.
        let (this, buffer) = unsafe { (opened::<S>(stream), Buffer::lent(out)) };
        let context = Context::new(&this.cancelled, timeout_ms);
        this.lock.hold(|| {
            // SAFETY: the lock is held, and one thread alone calls next and position.
            let (inner, keys) = unsafe { (&mut *this.inner.get(), &mut *this.keys.get()) };
            inner.next(&mut Output::new(buffer, &context, keys, S::MANY))
        })
    };
    // SAFETY: the host lends `error` for this call.
    unsafe { guard::status(error, body) }
}

unsafe extern "C" fn position<S: Stream>(
    stream: *mut ferrule_stream,
    out: *mut ferrule_buffer,
    error: *mut ferrule_buffer,
) -> i32 {
    let body = || {
        // SAFETY: the host gives back what open gave it, and lends the buffer for this call.
        let (this, buffer) = unsafe { (opened::<S>(stream), Buffer::lent(out)) };
        let context = Context::new(&this.cancelled, 0);
        this.lock.hold(|| {
            // SAFETY: the lock is held, and one thread alone calls next and position.
            let (inner, keys) = unsafe { (&*this.inner.get(), &mut *this.keys.get()) };
            inner.position(&mut Output::new(buffer, &context, keys, false)).map(|()| FERRULE_OK)
        })
    };
    // SAFETY: the host lends `error` for this call.
    unsafe { guard::status(error, body) }
}

/// What `ferrule_plugin_create` does.
///
/// # Safety
/// The arguments are the host's, under the rules of ferrule.h.
#[allow(clippy::too_many_arguments)] // the header's
pub unsafe fn create(
    library: &Library,
    host: *const ferrule_host,
    call: *const ferrule_call,
    plugin: *const c_char,
    plugin_len: usize,
    config: *const c_char,
    config_len: usize,
    out: *mut *mut ferrule_instance,
    error: *mut ferrule_buffer,
) -> i32 {
    let body = || {
        guard::install(host);
        // SAFETY: the host lends all of it for this call, and `host` for good.
        let (plugin, config, host) =
            unsafe { (lent(plugin.cast(), plugin_len), lent(config.cast(), config_len), Host::new(host, (*call).id)) };
        let Some(entry) = library.plugins.iter().find(|entry| entry.info.name.as_bytes() == plugin) else {
            let known: Vec<_> = library.plugins.iter().map(|entry| entry.info.name).collect();
            return Err(Error::not_found(format!(
                "no plugin `{}` in this library; it has {}",
                String::from_utf8_lossy(plugin),
                known.join(", ")
            )));
        };
        let instance = (entry.instance)(config, &host)?;
        // SAFETY: the host lends the place to put it.
        unsafe { out.write(instance) };
        Ok(FERRULE_OK)
    };
    // SAFETY: the host lends `error` for this call.
    unsafe { guard::status(error, body) }
}

/// What `ferrule_plugin_destroy` does.
///
/// # Safety
/// `instance` was made by [`create`], its streams are closed, and it is not used any more.
pub unsafe fn destroy(instance: *mut ferrule_instance) {
    guard::quiet((), || {
        // SAFETY: every instance begins with a Head, which knows how to free it.
        unsafe { ((*instance.cast::<Head>()).destroy)(instance) };
    });
}
