//! {{name}}: {{about}}
#![forbid(unsafe_code)]

use ferrule_plugin::prelude::*;

config! {
    /// Settings of the source; `ferrule inspect` shows them.
    struct Config {
        /// How many records to give.
        count: u64 = 3,
        /// Whom to greet.
        name: String = "world",
    }
    /// A record.
    struct Greeting {
        id: u64,
        message: String,
    }
}

struct {{Type}}Source {
    config: Config,
}

impl SourceConnector for {{Type}}Source {
    const NAME: &str = "{{name}}";
    type Config = Config;
    type Reader = {{Type}}Reader;

    fn create(config: Config, _host: &Host) -> Result<Self> {
        Ok(Self { config })
    }

    /// A new reader, from the start or from a position that an earlier one told.
    fn read_data(&mut self, from: Option<u64>, _cx: &Context) -> Result<{{Type}}Reader> {
        Ok({{Type}}Reader {
            count: self.config.count,
            name: self.config.name.clone(),
            done: from.unwrap_or(0),
        })
    }
}

struct {{Type}}Reader {
    count: u64,
    name: String,
    done: u64,
}

impl Reader for {{Type}}Reader {
    type Position = u64;

    /// One record, or the end.
    fn next(&mut self, out: &mut Output) -> Result<Next> {
        if self.done == self.count {
            return Ok(Next::End);
        }
        self.done += 1;
        out.item(&Greeting {
            id: self.done,
            message: format!("Hello, {}", self.name),
        })
    }

    /// Where to go on after the record that `next` gave last.
    fn position(&self) -> u64 {
        self.done
    }
}

export_plugins! {
    /// {{about}}
    source {{Type}}Source,
}

#[cfg(test)]
mod tests {
    use ferrule_plugin::testing;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn it_greets_as_often_as_it_is_told() -> Result {
        let mut source = testing::source::<{{Type}}Source>(json!({"count": 2}))?;
        source.connect()?;
        let records = source.read()?.collect::<Result<Vec<Value>>>()?;
        assert_eq!(records.len(), 2);
        assert_eq!(records[0], json!({"id": 1, "message": "Hello, world"}));
        Ok(())
    }
}
