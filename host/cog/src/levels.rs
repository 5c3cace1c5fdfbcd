//! Sizes of overviews.

/// Sizes of the overviews of an image, largest first. It is halved until both edges fit into one block, as GDAL's COG
/// driver does, or until an edge is a single pixel: a level that is smaller in one direction only is no reduction to other
/// readers.
#[must_use]
pub fn overview_sizes(width: usize, height: usize, block: usize) -> Vec<(usize, usize)> {
    let (mut width, mut height) = (width, height);
    let mut sizes = Vec::new();
    while (width > block || height > block) && width > 1 && height > 1 {
        width /= 2;
        height /= 2;
        sizes.push((width, height));
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overviews_halve_until_one_block_or_one_pixel() {
        for (width, height, last) in [
            (512, 512, None),
            (513, 2, Some((256, 1))),
            (2000, 1000, Some((500, 250))),
            (1023, 1023, Some((511, 511))),
            (1, 900, None),
            (2, 4000, Some((1, 2000))),
        ] {
            assert_eq!(overview_sizes(width, height, 512).last().copied(), last, "{width} x {height}");
        }
    }
}
