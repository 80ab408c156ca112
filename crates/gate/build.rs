//! Builds the gate again when a file of the page is added: the embedding sees only changed ones.

fn main() {
    println!("cargo::rerun-if-changed=web");
}
