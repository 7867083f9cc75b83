//! The boundary: instances and streams as the host holds them, and the functions of their tables.
//!
//! Every `extern "C"` function here does nothing outside of [`guard`](crate::guard).

pub(crate) mod concurrent;
pub(crate) mod serial;

use std::ffi::c_char;
use std::sync::atomic::{AtomicU8, Ordering};

use ferrule_sys::{FERRULE_NOT_FOUND, FERRULE_OK, ferrule_buffer, ferrule_call, ferrule_host, ferrule_instance};

use crate::host::lent;
use crate::manifest::Library;
use crate::{Error, Host, Result, guard};

/// What every instance begins with, so that destroy can free it without knowing its type.
#[repr(C)]
struct Head {
    base: ferrule_instance,
    destroy: unsafe fn(*mut ferrule_instance),
}

/// What the function `method` of a table does.
///
/// # Safety
/// The host lends `len` bytes at `name`.
unsafe fn number(name: *const c_char, len: usize, number: fn(&str) -> Option<i32>) -> i32 {
    guard::quiet(FERRULE_NOT_FOUND, || {
        // SAFETY: the caller's promise.
        let name = unsafe { lent(name.cast(), len) };
        std::str::from_utf8(name).ok().and_then(number).unwrap_or(FERRULE_NOT_FOUND)
    })
}

/// Keeps a call out of an object that is in use or that panicked.
///
/// The host sees to it that calls come one at a time. This is for what comes back into an instance from within it, on
/// the same thread, where two `&mut` would meet; so it need not be a lock between threads, and costs next to nothing.
struct Lock(AtomicU8);

const FREE: u8 = 0;
const BUSY: u8 = 1;
const POISONED: u8 = 2;

const PANICKED: &str = "it panicked in an earlier call and cannot be used any more; make a new instance";

impl Lock {
    const fn new() -> Self {
        Self(AtomicU8::new(FREE))
    }

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
        PANICKED
    })
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
