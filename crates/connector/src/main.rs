//! The binary `tangelo-connector`.

fn main() {}
