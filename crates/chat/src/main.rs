//! The binary `tangelo-chat`.

fn main() {}
