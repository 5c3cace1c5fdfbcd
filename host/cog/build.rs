//! Compiles the shim between libjpeg and Rust, and links the system's libjpeg.

fn main() {
    const SHIM: &str = "src/codec/jpeg/shim.c";
    println!("cargo::rerun-if-changed={SHIM}");
    cc::Build::new().file(SHIM).compile("geoworker_jpeg");
    println!("cargo::rustc-link-lib=jpeg");
}
