//! What rustc says to an author who makes one of the usual mistakes: `ui/*.stderr` hold the words.
//!
//! They are those of one version of rustc, and only that one is asked. After a change: `TRYBUILD=overwrite`, and read
//! what has become of them.

/// The version whose words are held.
const RUSTC: &str = "1.95.";

/// Each mistake has a message that says which and what to do.
#[test]
fn mistakes_have_readable_messages() {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = std::process::Command::new(rustc).arg("--version").output().expect("rustc tells its version");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    if !version.starts_with(&format!("rustc {RUSTC}")) {
        eprintln!("skipped: the messages are those of rustc {RUSTC}x, and this is {version}");
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
