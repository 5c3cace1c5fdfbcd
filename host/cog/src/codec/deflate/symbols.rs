//! DEFLATE's symbols for lengths and distances (RFC 1951, 3.2.5).

/// Literals, the end of a block, and lengths.
pub(super) const LITERALS_AND_LENGTHS: usize = 286;
/// Distances.
pub(super) const DISTANCES: usize = 30;
/// Marks the end of a block.
pub(super) const END_OF_BLOCK: usize = 256;
/// The longest match.
pub(super) const LONGEST: usize = 258;
/// The farthest match.
pub(super) const FARTHEST: usize = 32768;

/// A symbol, and the bits that come after its code.
pub(super) struct Symbol {
    pub(super) symbol: usize,
    pub(super) extra: u32,
    pub(super) extra_bits: u32,
}

/// The symbol of a length of 3 to 258.
#[inline]
pub(super) fn of_length(length: u32) -> Symbol {
    let above = length - 3;
    if above == 255 {
        return Symbol { symbol: 285, extra: 0, extra_bits: 0 };
    }
    let (step, extra, extra_bits) = steps(above, 2);
    Symbol { symbol: 257 + step as usize, extra, extra_bits }
}

/// The symbol of a distance of 1 to 32768.
#[inline]
pub(super) fn of_distance(distance: u32) -> Symbol {
    let (step, extra, extra_bits) = steps(distance - 1, 1);
    Symbol { symbol: step as usize, extra, extra_bits }
}

/// Each power of two has `2^fine` steps of equal size; small numbers are steps of their own.
#[inline]
fn steps(number: u32, fine: u32) -> (u32, u32, u32) {
    if number < 2 << fine {
        return (number, 0, 0);
    }
    let bits = number.ilog2() - fine;
    let step = (bits << fine) + (number >> bits);
    (step, number & ((1 << bits) - 1), bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_in_the_rfc() {
        for (length, symbol, extra_bits) in [
            (3, 257, 0),
            (10, 264, 0),
            (11, 265, 1),
            (12, 265, 1),
            (13, 266, 1),
            (114, 279, 4),
            (115, 280, 4),
        ] {
            let found = of_length(length);
            assert_eq!((found.symbol, found.extra_bits), (symbol, extra_bits), "{length}");
        }
        assert_eq!((of_length(257).symbol, of_length(257).extra, of_length(258).symbol), (284, 30, 285));
        for (distance, symbol, extra, extra_bits) in [
            (1, 0, 0, 0),
            (4, 3, 0, 0),
            (5, 4, 0, 1),
            (6, 4, 1, 1),
            (24577, 29, 0, 13),
            (32768, 29, 8191, 13),
        ] {
            let found = of_distance(distance);
            assert_eq!(
                (found.symbol, found.extra, found.extra_bits),
                (symbol, extra, extra_bits),
                "{distance}"
            );
        }
    }
}
