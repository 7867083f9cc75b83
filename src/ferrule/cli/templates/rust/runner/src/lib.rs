//! {{name}}: {{about}}
#![forbid(unsafe_code)]

use std::time::Duration;

use ferrule_plugin::prelude::*;

config! {
    /// Settings of the runner; `ferrule inspect` shows them.
    struct Config {
        /// Milliseconds between a stream's items.
        interval_ms: u64 = 100,
    }
    /// What it is asked to do.
    struct Job {
        /// What to say.
        text: String,
        /// How many items the stream has.
        times: u64 = 3,
    }
}

struct {{Type}}Runner {
    config: Config,
}

impl JobRunner for {{Type}}Runner {
    const NAME: &str = "{{name}}";
    type Config = Config;
    const METHODS: Methods<Self> = &[
        unary("run", Self::run)
            .and_stream(Self::say)
            .about("The text: once, or `times` times."),
        feed("shout", Self::shout).about("What is fed, in capitals."),
    ];

    fn create(config: Config, _host: &Host) -> Result<Self> {
        Ok(Self { config })
    }
}

// Several threads may be in here at once: what changes stands in a Mutex or an atomic.
impl {{Type}}Runner {
    /// One answer. What takes long looks at `cx.cancelled()` now and then.
    fn run(&self, job: Job, _cx: &Context) -> Result<String> {
        Ok(job.text)
    }

    /// On a thread of its own. A send waits while the reader is behind; it and the sleep fail on a cancel.
    fn say(&self, job: Job, out: &Sender<String>, cx: &Context) -> Result {
        for time in 0..job.times {
            if time > 0 {
                cx.sleep(Duration::from_millis(self.config.interval_ms))?;
            }
            out.send(&job.text)?;
        }
        Ok(())
    }

    /// Waits for each block that is fed; the loop ends after the final one.
    fn shout(&self, _: Empty, feed: &Feed<Bytes>, out: &Sender<Bytes>, _cx: &Context) -> Result {
        for block in feed {
            out.send(&block?.to_ascii_uppercase().into())?;
        }
        Ok(())
    }
}

export_plugins! {
    /// {{about}}
    runner {{Type}}Runner,
}

#[cfg(test)]
mod tests {
    use ferrule_plugin::testing;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn it_says_what_it_is_given() -> Result {
        let runner = testing::runner::<{{Type}}Runner>(json!({"interval_ms": 0}))?;
        assert_eq!(runner.call("run", &json!({"text": "hello"}))?, "hello");
        let stream = runner.open("run", &json!({"text": "hello", "times": 2}))?;
        assert_eq!(stream.collect::<Result<Vec<Value>>>()?, ["hello", "hello"]);
        Ok(())
    }

    #[test]
    fn it_shouts_what_it_is_fed() -> Result {
        let mut shout = testing::runner::<{{Type}}Runner>(json!({}))?.open("shout", &json!({}))?;
        shout.feed_final(b"hello")?;
        assert_eq!(shout.next_bytes().transpose()?, Some(b"HELLO".to_vec()));
        Ok(())
    }
}
