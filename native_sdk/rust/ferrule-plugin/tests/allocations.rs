//! In steady state a record costs no allocation. This stands alone, as it counts for the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use ferrule_plugin::prelude::*;
use ferrule_plugin::testing;
use serde_json::json;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all of it is the system's; counting changes nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Stamp {
    name: String,
    counts: Vec<usize>,
}

impl EnrichmentFunction for Stamp {
    const NAME: &str = "stamp";
    type Config = Empty;
    fn create(_: Empty, _host: &Host) -> Result<Self> {
        Ok(Self { name: "demo \"quoted\"".to_owned(), counts: Vec::with_capacity(100) })
    }
    fn process(&mut self, record: &Record, out: &mut Output, _cx: &Context) -> Result {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let mut object = out.extend(record);
        object
            .remove("secret")
            .field("name", &self.name)
            .field("at", now_rfc3339())
            .field("n", 1.5)
            .raw_field("r", "[]");
        let long = object.get("text").is_some_and(|text| text.len() > 10);
        object.field("long", long).field("list", [1, 2, 3]).finish()?;
        self.counts.push(ALLOCATIONS.load(Ordering::Relaxed) - before);
        if self.counts.len() == 100 {
            assert_eq!(self.counts[50..], [0; 50], "{:?}", self.counts);
        }
        Ok(())
    }
}

export_plugins! { function Stamp }

/// A hundred records of two kinds: the latter fifty cost nothing.
#[test]
fn a_record_allocates_nothing() {
    let mut stamp = testing::function::<Stamp>(json!({})).expect("a plugin");
    for round in 0..100 {
        let record = match round % 2 {
            0 => br#"{"id":1,"secret":"s","name":"old","text":"some text"}"#.to_vec(),
            _ => br#"{"id" : 1, "n\u0061me": [1, {"a": "\n"}], "text": "some text that is long"}"#.to_vec(),
        };
        stamp.process_bytes(&record).expect("a record");
    }
}
