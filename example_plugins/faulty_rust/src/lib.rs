//! The faulty zoo's Rust part: plugins that panic, one a place where a plugin can, and one that does not listen.
//!
//! | Plugin | Panics | The host must |
//! |---|---|---|
//! | `panics-in-create` | in create | raise PANIC; there is no instance |
//! | `panics-in-process` | in every call from config `on` on (default 1) | raise PANIC with place and text, poison the instance |
//! | `panics-without-text` | in process, with a number | the same, without a text |
//! | `panics-with-bomb` | in process, with something that panics again as it is dropped | the same |
//! | `panics-in-thread` | on a thread of its own, which `process` waits for | take the answer; the log has it |
//! | `panics-in-next` | in next, after config `items` records (default 1) | give those, then raise PANIC, poison the instance |
//! | `panics-in-position` | in position | raise PANIC when it asks for one |
//! | `panics-in-close` | in the source's close | raise PANIC, and destroy it all the same |
//! | `panics-in-drop` | as the instance is destroyed | go on |
//! | `panics-in-reader-drop` | as a stream is closed | go on |
//! | `panics-in-runner` | in its methods: `called`, `opened` (within open), `streamed` (after an item), `beside` (on a thread of the stream's), `written` (as an item is), `fed` (as a block is read) | raise PANIC with place and text, poison the instance |
//! | `deaf` | never; its stream `deaf` sends nothing and hears no cancel for config `seconds`, `endless` sends without end | end both at cancel, and wait for neither |
//! | `panics-in-write`, `panics-in-flush` | in the sink's write, in its flush | raise PANIC, poison the instance |
#![forbid(unsafe_code)]

use ferrule_plugin::Payload;
use ferrule_plugin::prelude::*;

config! {
    struct Never {}

    struct Deaf {
        /// How long it hears nothing.
        seconds: u64 = 1,
    }

    struct On {
        /// The first call that panics.
        on: u64 = 1,
    }

    struct Items {
        /// Records before it.
        items: u64 = 1,
    }

    struct Item { id: u64 }
}

macro_rules! functions {
    ($($name:ident $text:literal: $process:expr;)*) => {$(
        struct $name { on: u64, calls: u64 }

        impl EnrichmentFunction for $name {
            const NAME: &str = $text;
            type Config = On;

            fn create(config: On, _host: &Host) -> Result<Self> {
                Ok(Self { on: config.on, calls: 0 })
            }

            fn process(&mut self, record: &Record, out: &mut Output, _cx: &Context) -> Result {
                self.calls += 1;
                if self.calls >= self.on {
                    let process: fn() = $process;
                    process();
                }
                out.extend(record).finish()
            }
        }
    )*};
}

functions! {
    InProcess "panics-in-process": || panic!("process panics, as it should");
    WithoutText "panics-without-text": || std::panic::panic_any(42_u32);
    WithBomb "panics-with-bomb": || std::panic::panic_any(Bomb);
    InThread "panics-in-thread": || drop(std::thread::spawn(|| panic!("a thread panics, as it should")).join());
    InDrop "panics-in-drop": || ();
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the payload panics, as it should");
    }
}

impl Drop for InDrop {
    fn drop(&mut self) {
        panic!("drop panics, as it should");
    }
}

struct InCreate;

impl EnrichmentFunction for InCreate {
    const NAME: &str = "panics-in-create";
    type Config = Never;

    fn create(_: Never, _host: &Host) -> Result<Self> {
        panic!("create panics, as it should");
    }

    fn process(&mut self, record: &Record, out: &mut Output, _cx: &Context) -> Result {
        out.extend(record).finish()
    }
}

/// Gives records, and panics where its kind says.
struct Faulty<const WHERE: u8> {
    items: u64,
    given: u64,
}

const IN_NEXT: u8 = 0;
const IN_POSITION: u8 = 1;
const IN_CLOSE: u8 = 2;
const IN_READER_DROP: u8 = 3;

type InNext = Faulty<IN_NEXT>;
type InPosition = Faulty<IN_POSITION>;
type InClose = Faulty<IN_CLOSE>;
type InReaderDrop = Faulty<IN_READER_DROP>;

struct FaultyReader<const WHERE: u8>(Faulty<WHERE>);

impl<const WHERE: u8> SourceConnector for Faulty<WHERE>
where
    Self: ferrule_plugin::Exported<ferrule_plugin::kind::Source>,
{
    const NAME: &str =
        ["panics-in-next", "panics-in-position", "panics-in-close", "panics-in-reader-drop"][WHERE as usize];
    type Config = Items;
    type Reader = FaultyReader<WHERE>;

    fn create(config: Items, _host: &Host) -> Result<Self> {
        Ok(Self { items: config.items, given: 0 })
    }

    fn read_data(&mut self, _from: Option<u64>, _cx: &Context) -> Result<FaultyReader<WHERE>> {
        Ok(FaultyReader(Self { items: self.items, given: 0 }))
    }

    fn close(&mut self, _cx: &Context) -> Result {
        if WHERE == IN_CLOSE {
            panic!("close panics, as it should");
        }
        Ok(())
    }
}

impl<const WHERE: u8> Reader for FaultyReader<WHERE> {
    type Position = u64;

    fn next(&mut self, out: &mut Output) -> Result<Next> {
        if self.0.given == self.0.items {
            if WHERE == IN_NEXT {
                panic!("next panics, as it should");
            }
            return Ok(Next::End);
        }
        self.0.given += 1;
        out.item(&Item { id: self.0.given })
    }

    fn position(&self) -> u64 {
        if WHERE == IN_POSITION {
            panic!("position panics, as it should");
        }
        self.0.given
    }
}

impl<const WHERE: u8> Drop for FaultyReader<WHERE> {
    fn drop(&mut self) {
        if WHERE == IN_READER_DROP {
            panic!("the reader's drop panics, as it should");
        }
    }
}

macro_rules! sinks {
    ($($name:ident $text:literal: $write:expr, $flush:expr;)*) => {$(
        struct $name;

        impl SinkConnector for $name {
            const NAME: &str = $text;
            type Config = Never;
            type Mark = ();

            fn create(_: Never, _host: &Host) -> Result<Self> {
                Ok(Self)
            }

            fn write(&mut self, _records: &Records, _cx: &Context) -> Result {
                assert!($write, "write panics, as it should");
                Ok(())
            }

            fn flush(&mut self, _cx: &Context) -> Result<Option<()>> {
                assert!($flush, "flush panics, as it should");
                Ok(None)
            }
        }
    )*};
}

sinks! {
    InWrite "panics-in-write": false, true;
    InFlush "panics-in-flush": true, false;
}

struct InRunner;

impl JobRunner for InRunner {
    const NAME: &str = "panics-in-runner";
    type Config = Never;
    const METHODS: Methods<Self> = &[
        unary("called", |_: &Self, _: Empty, _: &Context| -> Result { panic!("a call panics, as it should") }),
        stream("opened", |_: &Self, _: Empty, _: &Sender<u64>, _: &Context| Ok(()))
            .on_open(|_: &Self, _: Empty, _: &Context| panic!("open panics, as it should")),
        stream("streamed", |_: &Self, _: Empty, out: &Sender<u64>, _: &Context| {
            out.send(&1)?;
            panic!("a stream panics, as it should")
        }),
        stream("beside", |_: &Self, _: Empty, _: &Sender<u64>, cx: &Context| {
            drop(spawn("beside", || panic!("a thread beside panics, as it should"))?);
            cx.sleep(std::time::Duration::from_secs(3600))
        }),
        stream("written", |_: &Self, _: Empty, out: &Sender<Unwritable>, _: &Context| out.send(&Unwritable)),
        feed("fed", |_: &Self, _: Empty, feed: &Feed<Unwritable>, _: &Sender<u64>, _: &Context| feed.next().map(drop)),
        unary("fine", |_: &Self, _: Empty, _: &Context| Ok(true)),
    ];

    fn create(_: Never, _host: &Host) -> Result<Self> {
        Ok(Self)
    }
}

/// Panics as it is written, and as it is read.
struct Unwritable;

impl Payload for Unwritable {
    const SHAPE: Option<&'static Shape> = None;
    const MEDIA_TYPE: &'static str = "application/octet-stream";

    fn read(_: &[u8]) -> Result<Self> {
        panic!("a block panics, as it should");
    }

    fn write(&self, _: &mut Output<'_>) -> Result {
        panic!("an answer panics, as it should");
    }

    fn with_bytes(&self, _: impl FnOnce(&[u8]) -> Result) -> Result {
        panic!("an item panics, as it should");
    }
}

struct NotListening {
    seconds: u64,
}

impl JobRunner for NotListening {
    const NAME: &str = "deaf";
    type Config = Deaf;
    const METHODS: Methods<Self> = &[
        stream("deaf", |this: &Self, _: Empty, _: &Sender<u64>, _: &Context| {
            std::thread::sleep(std::time::Duration::from_secs(this.seconds));
            Ok(())
        }),
        stream("endless", |_: &Self, _: Empty, out: &Sender<u64>, _: &Context| {
            (0..).try_for_each(|number| out.send(&number))
        }),
        unary("fine", |_: &Self, _: Empty, _: &Context| Ok(true)),
    ];

    fn create(config: Deaf, _host: &Host) -> Result<Self> {
        Ok(Self { seconds: config.seconds })
    }
}

export_plugins! {
    /// Panics in create.
    function InCreate,
    /// Panics in every call from the one that its configuration names.
    function InProcess,
    /// Panics in a call, with a number for a message.
    function WithoutText,
    /// Panics in a call, with something that panics again as it is dropped.
    function WithBomb,
    /// Panics on a thread of its own.
    function InThread,
    /// Panics as it is destroyed.
    function InDrop,
    /// Panics in next.
    source InNext,
    /// Panics in position.
    source InPosition,
    /// Panics in close.
    source InClose,
    /// Panics as its stream is closed.
    source InReaderDrop,
    /// Panics in write.
    sink InWrite,
    /// Panics in flush.
    sink InFlush,
    /// Panics in its methods, each in a place of its own.
    runner InRunner,
    /// Hears no cancel.
    runner NotListening,
}
