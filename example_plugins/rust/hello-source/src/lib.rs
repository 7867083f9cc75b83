//! hello-source: a source of a few greetings.
#![forbid(unsafe_code)]

use ferrule_plugin::prelude::*;

config! {
    /// How many greetings.
    struct Config {
        /// How many records.
        count: u64 = 2,
    }

    /// A record.
    struct Greeting {
        /// Counts from 1.
        id: u64,
        /// Who says hello.
        message: String,
    }
}

struct HelloSource {
    config: Config,
}

impl SourceConnector for HelloSource {
    const NAME: &str = "hello-source";
    const RECORD: Shape = Greeting::SHAPE;
    type Config = Config;
    type Reader = HelloReader;

    fn create(config: Config, _host: &Host) -> Result<Self> {
        Ok(Self { config })
    }

    fn read_data(&mut self, from: Option<u64>, _cx: &Context) -> Result<HelloReader> {
        Ok(HelloReader { count: self.config.count, id: from.unwrap_or(0) })
    }
}

struct HelloReader {
    count: u64,
    /// Of the record given last.
    id: u64,
}

impl Reader for HelloReader {
    type Position = u64;

    fn next(&mut self, out: &mut Output) -> Result<Next> {
        if self.id >= self.count {
            return Ok(Next::End);
        }
        self.id += 1;
        out.item(&Greeting { id: self.id, message: format!("Hello from Rust Source {}", self.id) })
    }

    fn position(&self) -> u64 {
        self.id
    }
}

export_plugins! {
    /// A few greetings, one a record.
    source HelloSource,
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrule_plugin::testing::source;
    use serde_json::json;

    /// Two greetings, and again two.
    #[test]
    fn greets() {
        let mut hello = source::<HelloSource>(json!({})).unwrap();
        hello.connect().unwrap();
        let greeting = |id: u64| json!({"id": id, "message": format!("Hello from Rust Source {id}")});
        for _ in 0..2 {
            let records: Result<Vec<_>> = hello.read().unwrap().collect();
            assert_eq!(records.unwrap(), [greeting(1), greeting(2)]);
        }
    }
}
