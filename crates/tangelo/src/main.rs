//! The binary `tangelo`.

fn main() {}
