//! Runs a plugin inside `cargo test`: no library, no host. Feature `testing`.
