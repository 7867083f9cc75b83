//! Plugins that are called by one thread at a time: functions, sources and sinks.

use std::cell::UnsafeCell;
use std::ffi::c_char;
use std::sync::atomic::{AtomicI32, Ordering};

use ferrule_sys::{
    FERRULE_OK, FERRULE_STREAM_UNLOCKED, ferrule_buffer, ferrule_call, ferrule_instance, ferrule_instance_ops,
    ferrule_stream, ferrule_stream_ops,
};

use super::{Head, Lock, number};
use crate::buffer::Buffer;
use crate::host::lent;
use crate::json::Keys;
use crate::{Context, Error, Output, Result, guard};

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

/// Gives an instance to the host, which frees it by `ferrule_plugin_destroy`.
pub(crate) fn allocate<I: Instance>(inner: I) -> *mut ferrule_instance {
    let head = Head { base: ferrule_instance { ops: &Tables::<I>::INSTANCE }, destroy: free::<I> };
    let (lock, keys) = (Lock::new(), UnsafeCell::new(Keys::new()));
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
    // SAFETY: the host lends `len` bytes at `name`.
    unsafe { number(name, len, I::number) }
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
                lock: Lock::new(),
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
