//! Plugins whose calls come at once, from several threads: runners. Their streams never wait for anything: they wake.

use std::cell::UnsafeCell;
use std::ffi::c_char;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ferrule_sys::{
    FERRULE_OK, FERRULE_PANIC, FERRULE_STREAM_UNLOCKED, FERRULE_STREAM_WAKES, ferrule_buffer, ferrule_call,
    ferrule_instance, ferrule_instance_ops, ferrule_stream, ferrule_stream_ops,
};

use super::{Head, Lock, PANICKED, number};
use crate::buffer::Buffer;
use crate::host::lent;
use crate::json::Keys;
use crate::stream::{HostSide, Line, Step};
use crate::{Context, Error, Output, Result, guard};

/// A plugin behind numbered methods, called by any threads at once.
pub(crate) trait Shared: Send + Sync + Sized + 'static {
    /// The number of a method.
    fn number(name: &str) -> Option<i32>;

    /// Whether it panicked.
    fn poisoned(&self) -> &AtomicBool;

    /// A method's answer, and the status that goes with it.
    fn call(&self, method: usize, input: &[u8], out: &mut Output) -> Result<i32>;

    /// Starts the stream that the host knows by `id`.
    fn open(&self, method: usize, input: &[u8], id: u64, context: &Context) -> Result<HostSide>;
}

/// An instance as the host holds it.
#[repr(C)]
struct Allocated<I> {
    head: Head,
    inner: I,
}

/// A stream as the host holds it: one thread reads it, and at the same time another may feed or cancel it.
#[repr(C)]
struct Opened {
    base: ferrule_stream,
    line: Arc<Line>,
    lock: Lock,
    /// The reader's.
    side: UnsafeCell<HostSide>,
}

/// Gives an instance to the host, which frees it by `ferrule_plugin_destroy`.
pub(crate) fn allocate<I: Shared>(inner: I) -> *mut ferrule_instance {
    let head = Head { base: ferrule_instance { ops: &Table::<I>::INSTANCE }, destroy: free::<I> };
    Box::into_raw(Box::new(Allocated { head, inner })).cast()
}

/// # Safety
/// `instance` was made by `allocate::<I>` and is not used any more.
unsafe fn free<I: Shared>(instance: *mut ferrule_instance) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(instance.cast::<Allocated<I>>()) });
}

struct Table<T>(T);

impl<I: Shared> Table<I> {
    const INSTANCE: ferrule_instance_ops = ferrule_instance_ops {
        struct_size: size_of::<ferrule_instance_ops>() as u32,
        flags: 0,
        method: Some(method::<I>),
        call: Some(call::<I>),
        open: Some(open::<I>),
        query: None,
    };
}

/// A stream's table. One that has `metadata` is read item by item, and one without `feed` is never fed.
const fn stream_ops(fed: bool, with_metadata: bool) -> ferrule_stream_ops {
    ferrule_stream_ops {
        struct_size: size_of::<ferrule_stream_ops>() as u32,
        flags: FERRULE_STREAM_UNLOCKED | FERRULE_STREAM_WAKES,
        cancel: Some(cancel),
        close: Some(close),
        next: Some(next),
        feed: if fed { Some(feed) } else { None },
        position: None,
        metadata: if with_metadata { Some(metadata) } else { None },
        query: None,
    }
}

static STREAMS: [[ferrule_stream_ops; 2]; 2] =
    [[stream_ops(false, false), stream_ops(false, true)], [stream_ops(true, false), stream_ops(true, true)]];

/// Sees to it that nothing is called after a panic, whichever thread it was on.
fn unless_poisoned<T>(poisoned: &AtomicBool, body: impl FnOnce() -> Result<T>) -> Result<T> {
    struct Panics<'a>(&'a AtomicBool);
    impl Drop for Panics<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    if poisoned.load(Ordering::Acquire) {
        return Err(Error::invalid_state(PANICKED));
    }
    let panics = Panics(poisoned);
    let answer = body();
    std::mem::forget(panics);
    answer
}

unsafe extern "C" fn method<I: Shared>(_instance: *mut ferrule_instance, name: *const c_char, len: usize) -> i32 {
    // SAFETY: the host lends `len` bytes at `name`.
    unsafe { number(name, len, I::number) }
}

unsafe extern "C" fn call<I: Shared>(
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
            let this = &(*instance.cast::<Allocated<I>>()).inner;
            (this, Context::of(call), lent(input, input_len), Buffer::lent(out))
        };
        unless_poisoned(this.poisoned(), || {
            this.call(method as usize, input, &mut Output::new(buffer, &context, &mut Keys::new(), false))
        })
    };
    // SAFETY: the host lends `error` for this call.
    unsafe { guard::status(error, body) }
}

unsafe extern "C" fn open<I: Shared>(
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
        let (this, id, context, input) = unsafe {
            let this = &(*instance.cast::<Allocated<I>>()).inner;
            (this, (*call).id, Context::of(call), lent(input, input_len))
        };
        let side = unless_poisoned(this.poisoned(), || this.open(method as usize, input, id, &context))?;
        let info = side.info();
        let opened = Box::new(Opened {
            base: ferrule_stream { ops: &STREAMS[usize::from(info.need_feed)][usize::from(info.metadata)] },
            line: Arc::clone(side.line()),
            lock: Lock::new(),
            side: UnsafeCell::new(side),
        });
        // SAFETY: the host lends the place to put it.
        unsafe { out.write(Box::into_raw(opened).cast()) };
        Ok(FERRULE_OK)
    };
    // SAFETY: the host lends `error` for this call.
    unsafe { guard::status(error, body) }
}

/// A stream, shared. Only the reader's thread reaches what stands in the cell.
///
/// # Safety
/// `stream` was made by `open`, and is not closed.
unsafe fn opened<'a>(stream: *mut ferrule_stream) -> &'a Opened {
    // SAFETY: the caller's promise.
    unsafe { &*stream.cast::<Opened>() }
}

unsafe extern "C" fn cancel(stream: *mut ferrule_stream) {
    guard::quiet((), || {
        // SAFETY: the host gives back what open gave it, never beside close.
        unsafe { opened(stream) }.line.cancel();
    });
}

unsafe extern "C" fn close(stream: *mut ferrule_stream) {
    guard::quiet((), || {
        // SAFETY: the host gives back what open gave it, once, and uses it no more.
        drop(unsafe { Box::from_raw(stream.cast::<Opened>()) });
    });
}

unsafe extern "C" fn next(
    stream: *mut ferrule_stream,
    _timeout_ms: i64,
    out: *mut ferrule_buffer,
    error: *mut ferrule_buffer,
) -> i32 {
    let body = || {
        // SAFETY: the host gives back what open gave it, and lends the buffer for this call.
        let (this, mut buffer) = unsafe { (opened(stream), Buffer::lent(out)) };
        this.lock.hold(|| {
            // SAFETY: the lock is held, and one thread alone calls next and metadata.
            match unsafe { &mut *this.side.get() }.next(&mut buffer)? {
                Step::Status(status) => Ok(status),
                Step::Panicked(panic) => {
                    // SAFETY: the host lends `error` for this call.
                    unsafe { guard::failed(error, panic) };
                    Ok(FERRULE_PANIC)
                }
            }
        })
    };
    // SAFETY: the host lends `error` for this call.
    unsafe { guard::status(error, body) }
}

unsafe extern "C" fn feed(
    stream: *mut ferrule_stream,
    input: *const u8,
    input_len: usize,
    last: i32,
    error: *mut ferrule_buffer,
) -> i32 {
    let body = || {
        // SAFETY: the host gives back what open gave it, and lends the input for this call.
        let (this, input) = unsafe { (opened(stream), lent(input, input_len)) };
        this.line.take_feed(input, last != 0)
    };
    // SAFETY: the host lends `error` for this call.
    unsafe { guard::status(error, body) }
}

unsafe extern "C" fn metadata(
    stream: *mut ferrule_stream,
    out: *mut ferrule_buffer,
    error: *mut ferrule_buffer,
) -> i32 {
    let body = || {
        // SAFETY: the host gives back what open gave it, and lends the buffer for this call.
        let (this, mut buffer) = unsafe { (opened(stream), Buffer::lent(out)) };
        this.lock.hold(|| {
            // SAFETY: the lock is held, and one thread alone calls next and metadata.
            unsafe { &*this.side.get() }.metadata(&mut buffer).map(|()| FERRULE_OK)
        })
    };
    // SAFETY: the host lends `error` for this call.
    unsafe { guard::status(error, body) }
}
