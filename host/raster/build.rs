//! The codecs that this crate compiles stay its own: GDAL brings others of the same names.

fn main() {
    println!("cargo::rustc-link-arg=-Wl,--exclude-libs,ALL");
}
