//! `export_plugins!`: what makes a library of a crate.

/// Makes the crate a plugin library: the three functions that a host looks for, and the manifest in section `.ferrule`.
///
/// It stands once in a crate. Each plugin has its kind before it, `function`, `source`, `sink` or `runner`, and its doc
/// comment is the plugin's description. Name, version, description and license of the library are those of Cargo.toml.
///
/// ```
/// # use ferrule_plugin::prelude::*;
/// struct Pass;
/// impl EnrichmentFunction for Pass {
///     const NAME: &str = "pass";
///     type Config = Empty;
///     fn create(_: Empty, _host: &Host) -> Result<Self> { Ok(Self) }
///     fn process(&mut self, record: &Record, out: &mut Output, _cx: &Context) -> Result {
///         out.extend(record).finish()
///     }
/// }
///
/// export_plugins! {
///     /// Lets every record pass as it is, once it is known to be one.
///     function Pass,
/// }
/// ```
#[macro_export]
macro_rules! export_plugins {
    ($($(#[$($meta:tt)*])* $kind:ident $plugin:ty),+ $(,)?) => {
        $(impl $crate::Exported<$crate::__kind!($kind)> for $plugin {})+

        const _: () = {
            #[cfg(not(panic = "unwind"))]
            ::core::compile_error!(
                "a plugin's panic must be caught before it reaches the host: remove `panic = \"abort\"` from the profile"
            );

            use $crate::__private as __ferrule;

            const __FERRULE_LIBRARY: __ferrule::Library = __ferrule::Library {
                name: ::core::env!("CARGO_PKG_NAME"),
                version: ::core::env!("CARGO_PKG_VERSION"),
                description: ::core::env!("CARGO_PKG_DESCRIPTION"),
                license: ::core::env!("CARGO_PKG_LICENSE"),
                plugins: &[$(
                    __ferrule::Entry::new::<$crate::__kind!($kind), $plugin>(&[$($crate::__doc!($($meta)*)),*])
                ),+],
            };

            const __FERRULE_LEN: usize = __FERRULE_LIBRARY.measure();

            #[used]
            #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__ferrule"))]
            #[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".ferrule"))]
            #[allow(long_running_const_eval)]
            static __FERRULE_MANIFEST: __ferrule::Image<__FERRULE_LEN> = __FERRULE_LIBRARY.image();

            #[unsafe(no_mangle)]
            extern "C" fn ferrule_plugin_manifest() -> *const __ferrule::sys::ferrule_manifest {
                __FERRULE_MANIFEST.head()
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn ferrule_plugin_create(
                host: *const __ferrule::sys::ferrule_host,
                call: *const __ferrule::sys::ferrule_call,
                plugin: *const ::core::ffi::c_char,
                plugin_len: usize,
                config: *const ::core::ffi::c_char,
                config_len: usize,
                out: *mut *mut __ferrule::sys::ferrule_instance,
                error: *mut __ferrule::sys::ferrule_buffer,
            ) -> i32 {
                // SAFETY: the arguments are the host's, passed on as they came.
                unsafe {
                    __ferrule::create(&__FERRULE_LIBRARY, host, call, plugin, plugin_len, config, config_len, out, error)
                }
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn ferrule_plugin_destroy(instance: *mut __ferrule::sys::ferrule_instance) {
                // SAFETY: as above.
                unsafe { __ferrule::destroy(instance) }
            }
        };
    };
    ($($other:tt)*) => {
        ::core::compile_error!(
            "export_plugins! takes a list of plugins, each with its kind: `export_plugins! { function MyFunction, \
             source MySource, sink MySink, runner MyRunner }`"
        );
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __kind {
    (function) => {
        $crate::kind::Function
    };
    (source) => {
        $crate::kind::Source
    };
    (sink) => {
        $crate::kind::Sink
    };
    (runner) => {
        $crate::kind::Runner
    };
    ($other:ident) => {
        ::core::compile_error!(concat!(
            "export_plugins!: no kind of plugin is called `",
            stringify!($other),
            "`; there are function, source, sink and runner"
        ))
    };
}
