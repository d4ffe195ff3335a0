//! The command a developer types.
fn main() {}
