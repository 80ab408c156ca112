//! The binary `tangelo-gate`.

fn main() {}
