//! Huffman codes of limited length.

/// A code for `N` symbols.
pub(super) struct Code<const N: usize> {
    /// Bits of each symbol; 0 for those that don't occur.
    pub(super) lengths: [u8; N],
    /// Each symbol's bits in the order in which DEFLATE writes them, and their number in the lowest byte.
    words: [u32; N],
}

impl<const N: usize> Code<N> {
    /// The best code for symbols of these frequencies with `longest` bits at most (2^longest >= N).
    pub(super) fn new(frequencies: &[u32; N], longest: usize) -> Self {
        let lengths = lengths(frequencies, longest);
        Self { words: words(&lengths), lengths }
    }

    /// Bits of a symbol and their number.
    #[inline]
    pub(super) fn of(&self, symbol: usize) -> (u32, u32) {
        let word = self.words[symbol];
        (word >> 8, word & 0xFF)
    }

    /// Bits that all symbols take together.
    pub(super) fn cost(&self, frequencies: &[u32; N]) -> u64 {
        frequencies
            .iter()
            .zip(&self.lengths)
            .map(|(count, length)| u64::from(*count) * u64::from(*length))
            .sum()
    }
}

const MAX_BITS: usize = 15;

fn lengths<const N: usize>(frequencies: &[u32; N], longest: usize) -> [u8; N] {
    let mut used: Vec<usize> = (0..N).filter(|symbol| frequencies[*symbol] > 0).collect();
    used.sort_by_key(|symbol| frequencies[*symbol]);
    let mut lengths = [0; N];
    if let [only] = used[..] {
        lengths[only] = 1;
        return lengths;
    }
    let mut counts = counts_of_lengths(&used.iter().map(|symbol| frequencies[*symbol]).collect::<Vec<_>>());
    limit(&mut counts, longest);
    // The rarest symbols get the longest codes.
    let mut rarest_first = used.into_iter();
    for (length, count) in counts.iter().enumerate().rev() {
        for symbol in rarest_first.by_ref().take(*count) {
            lengths[symbol] = length as u8;
        }
    }
    lengths
}

/// How many symbols have codes of each length in Huffman's tree, for ascending frequencies.
/// Lengths above [`MAX_BITS`] count as the longest, so that the code is too full until it is [limited](limit).
fn counts_of_lengths(ascending: &[u32]) -> [usize; MAX_BITS + 1] {
    let leaves = ascending.len();
    let mut counts = [0; MAX_BITS + 1];
    if leaves < 2 {
        return counts;
    }
    // Two queues: leaves, and inner nodes, which come in ascending order by themselves.
    let mut weights: Vec<u64> = Vec::with_capacity(leaves - 1);
    let mut parents = vec![0usize; 2 * leaves - 1];
    let (mut leaf, mut inner) = (0, 0);
    for node in 0..leaves - 1 {
        let mut weight = 0;
        for _ in 0..2 {
            let of_leaf = ascending.get(leaf).map(|weight| u64::from(*weight));
            let of_inner = weights.get(inner).copied();
            let leaf_is_less = of_inner.is_none_or(|inner| of_leaf.is_some_and(|leaf| leaf <= inner));
            if leaf_is_less {
                weight += of_leaf.unwrap_or(0);
                parents[leaf] = node;
                leaf += 1;
            } else {
                weight += of_inner.unwrap_or(0);
                parents[leaves + inner] = node;
                inner += 1;
            }
        }
        weights.push(weight);
    }
    // Parents come after their children, so that depths are known from the root down.
    let mut depths = vec![0; leaves - 1];
    for node in (0..leaves - 2).rev() {
        depths[node] = depths[parents[leaves + node]] + 1;
    }
    for parent in &parents[..leaves] {
        counts[(depths[*parent] + 1).min(MAX_BITS)] += 1;
    }
    counts
}

/// Shortens codes to `longest` bits: too long ones get `longest`, and then, while the code is too full, a leaf
/// as deep as possible becomes a node of two, one of which takes a place away from the longest.
fn limit(counts: &mut [usize; MAX_BITS + 1], longest: usize) {
    let too_long: usize = counts[longest + 1..].iter().sum();
    counts[longest] += too_long;
    counts[longest + 1..].fill(0);
    let places =
        |counts: &[usize]| (1..=longest).map(|length| counts[length] << (longest - length)).sum::<usize>();
    for _ in (1 << longest)..places(counts) {
        counts[longest] -= 1;
        if let Some(length) = (1..longest).rev().find(|length| counts[*length] > 0) {
            counts[length] -= 1;
            counts[length + 1] += 2;
        }
    }
}

/// Canonical codes (RFC 1951, 3.2.2), bits reversed.
fn words<const N: usize>(lengths: &[u8; N]) -> [u32; N] {
    // At first how many codes are one bit shorter, then the next free code of each length.
    let mut next = [0u32; MAX_BITS + 2];
    for length in lengths.iter().filter(|length| **length > 0) {
        next[usize::from(*length) + 1] += 1;
    }
    for length in 1..next.len() {
        next[length] = (next[length] + next[length - 1]) << 1;
    }
    lengths.map(|length| {
        if length == 0 {
            return 0;
        }
        let code = &mut next[usize::from(length)];
        let reversed = code.reverse_bits() >> (32 - u32::from(length));
        *code += 1;
        (reversed << 8) | u32::from(length)
    })
}
