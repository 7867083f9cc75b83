//! The one guard: every function that the host can call passes through here, so that no panic crosses the boundary.
//!
//! A panic becomes PANIC with the message `panicked at src/lib.rs:12:5: …`. What it said and where is recorded by a
//! panic hook, one a library (a cdylib has its own copy of std); it also goes to the host's log, which is how a panic
//! on a thread of the plugin's own is heard of.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, Ordering};

use ferrule_sys::{FERRULE_PANIC, ferrule_buffer, ferrule_host};
use serde_json::json;

use crate::buffer::Buffer;
use crate::{Error, Host};

thread_local! {
    /// What this thread's last panic said, and its backtrace if RUST_BACKTRACE asks for one.
    static LAST: Cell<Option<(String, Option<String>)>> = const { Cell::new(None) };
}

/// The host, for panics on threads that nobody calls.
static HOST: AtomicPtr<ferrule_host> = AtomicPtr::new(std::ptr::null_mut());

/// Installs the panic hook, once.
pub(crate) fn install(host: *const ferrule_host) {
    static ONCE: Once = Once::new();
    HOST.store(host.cast_mut(), Ordering::Release);
    ONCE.call_once(|| std::panic::set_hook(Box::new(record)));
}

fn record(info: &PanicHookInfo<'_>) {
    let text = info.payload();
    let text = text.downcast_ref::<&str>().copied().or_else(|| text.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("a value that is no text");
    let message = match info.location() {
        Some(place) => format!("panicked at {}:{}:{}: {text}", place.file(), place.line(), place.column()),
        None => format!("panicked: {text}"),
    };
    let trace = std::backtrace::Backtrace::capture();
    let trace = (trace.status() == std::backtrace::BacktraceStatus::Captured).then(|| trace.to_string());
    // SAFETY: null, or the host that create was given, which lives until the process ends.
    unsafe { Host::new(HOST.load(Ordering::Acquire), 0) }.error(&message);
    // A thread that is ending has no such place any more.
    let _ = LAST.try_with(|last| last.set(Some((message, trace))));
}

/// Runs what may fail, and answers with its status; an error's object goes into `error`.
///
/// # Safety
/// `error` is a buffer under the rules of ferrule.h, lent for this call.
#[inline(always)]
pub(crate) unsafe fn status(error: *mut ferrule_buffer, body: impl FnOnce() -> Result<i32, Error>) -> i32 {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(status)) => status,
        // SAFETY: the caller's promise.
        Ok(Err(failure)) => unsafe { failed(error, failure) },
        // SAFETY: the caller's promise.
        Err(payload) => unsafe { panicked(error, payload) },
    }
}

/// Runs what answers nothing: a panic in it ends there. It is in the host's log.
#[inline]
pub(crate) fn quiet<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(answer) => answer,
        Err(payload) => {
            forget(payload);
            otherwise
        }
    }
}

/// # Safety
/// As `status`.
#[cold]
#[inline(never)]
pub(crate) unsafe fn failed(error: *mut ferrule_buffer, failure: Error) -> i32 {
    let status = failure.status() as i32;
    // Writing it may panic in nothing but the allocator; even then the status must get through.
    quiet((), || {
        // SAFETY: the caller's promise.
        let mut buffer = unsafe { Buffer::lent(error) };
        if buffer.json(&failure).is_err() {
            buffer.truncate(0); // the host gives no room: the status must do
        }
    });
    quiet((), || drop(failure));
    status
}

/// # Safety
/// As `status`.
#[cold]
#[inline(never)]
unsafe fn panicked(error: *mut ferrule_buffer, payload: Box<dyn Any + Send>) -> i32 {
    let failure = told();
    forget(payload);
    // SAFETY: the caller's promise.
    quiet(0, || unsafe { failed(error, failure) });
    FERRULE_PANIC
}

/// What this thread's last panic said.
#[cold]
fn told() -> Error {
    let (message, trace) = LAST.take().unwrap_or_else(|| ("panicked".to_owned(), None));
    let failure = Error::internal(message);
    match trace {
        Some(trace) => failure.details(json!({ "backtrace": trace })),
        None => failure,
    }
}

/// Runs what a thread of the plugin's does: a panic is an error with its place, and what it carried.
pub(crate) fn caught<T>(body: impl FnOnce() -> T) -> Result<T, (Error, Box<dyn Any + Send>)> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|payload| (told(), payload))
}

/// Drops what a panic carried. That may panic again, with a payload that nobody should touch.
#[cold]
pub(crate) fn forget(payload: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
}
