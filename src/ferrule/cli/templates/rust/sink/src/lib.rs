//! {{name}}: {{about}}
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use ferrule_plugin::prelude::*;

config! {
    /// Settings of the sink; `ferrule inspect` shows them.
    struct Config {
        /// The file to write; what it held is lost.
        path: PathBuf,
    }
}

struct {{Type}}Sink {
    config: Config,
    file: Option<File>,
    /// The file's length: only what was written whole.
    length: u64,
}

impl {{Type}}Sink {
    fn file(&mut self) -> Result<&mut File> {
        self.file
            .as_mut()
            .ok_or_else(|| Error::invalid_state("the file is not open"))
    }
}

impl SinkConnector for {{Type}}Sink {
    const NAME: &str = "{{name}}";
    type Config = Config;
    type Mark = u64;

    fn create(config: Config, _host: &Host) -> Result<Self> {
        Ok(Self {
            config,
            file: None,
            length: 0,
        })
    }

    /// A new file, or one that is cut back to its mark.
    fn open(&mut self, mark: Option<u64>, _cx: &Context) -> Result {
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&self.config.path)?;
        self.length = mark.unwrap_or(0);
        file.set_len(self.length)?;
        file.seek(SeekFrom::End(0))?;
        self.file = Some(file);
        Ok(())
    }

    /// Many records at once, each a line of JSON. All or nothing: when it fails, what was begun is cut off again.
    fn write(&mut self, records: &Records, _cx: &Context) -> Result {
        let length = self.length;
        let file = self.file()?;
        if let Err(error) = file.write_all(records.as_bytes()) {
            file.set_len(length)?;
            file.seek(SeekFrom::End(0))?;
            return Err(error.into());
        }
        self.length += records.as_bytes().len() as u64;
        Ok(())
    }

    /// Answers with the mark to go on from: the file's length.
    fn flush(&mut self, _cx: &Context) -> Result<Option<u64>> {
        self.file()?.flush()?;
        Ok(Some(self.length))
    }

    fn close(&mut self, _cx: &Context) -> Result {
        self.file = None;
        Ok(())
    }
}

export_plugins! {
    /// {{about}}
    sink {{Type}}Sink,
}

#[cfg(test)]
mod tests {
    use ferrule_plugin::testing;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_is_a_line() -> Result {
        let path = std::env::temp_dir().join("{{name}}-test.jsonl");
        let mut sink = testing::sink::<{{Type}}Sink>(json!({"path": path}))?;
        sink.open(None)?;
        sink.write(&[json!({"id": 1})])?;
        sink.flush()?;
        sink.close()?;
        assert_eq!(std::fs::read_to_string(path)?, "{\"id\":1}\n");
        Ok(())
    }
}
