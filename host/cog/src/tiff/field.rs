//! One entry of a directory.

use crate::codec::TagValue;

/// Types of values, by their number in TIFF and BigTIFF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are TIFF's")]
pub enum Kind {
    Byte = 1,
    Ascii = 2,
    Short = 3,
    Long = 4,
    Rational = 5,
    SByte = 6,
    Undefined = 7,
    SShort = 8,
    SLong = 9,
    SRational = 10,
    Float = 11,
    Double = 12,
    Long8 = 16,
    SLong8 = 17,
}

impl Kind {
    const ALL: [Self; 14] = [
        Self::Byte,
        Self::Ascii,
        Self::Short,
        Self::Long,
        Self::Rational,
        Self::SByte,
        Self::Undefined,
        Self::SShort,
        Self::SLong,
        Self::SRational,
        Self::Float,
        Self::Double,
        Self::Long8,
        Self::SLong8,
    ];

    /// The type with this number.
    #[must_use]
    pub fn of(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u16 == number)
    }

    /// Bytes of one value.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Byte | Self::Ascii | Self::SByte | Self::Undefined => 1,
            Self::Short | Self::SShort => 2,
            Self::Long | Self::SLong | Self::Float => 4,
            Self::Rational | Self::SRational | Self::Double | Self::Long8 | Self::SLong8 => 8,
        }
    }
}

/// A tag with its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Number of the tag.
    pub tag: u16,
    /// Type of the values.
    pub kind: Kind,
    /// The values, little-endian, one after the other.
    pub value: Vec<u8>,
}

impl Field {
    /// Shorts.
    #[must_use]
    pub fn shorts(tag: u16, values: &[u16]) -> Self {
        Self { tag, kind: Kind::Short, value: values.iter().flat_map(|value| value.to_le_bytes()).collect() }
    }

    /// Longs.
    #[must_use]
    pub fn longs(tag: u16, values: &[u32]) -> Self {
        Self { tag, kind: Kind::Long, value: values.iter().flat_map(|value| value.to_le_bytes()).collect() }
    }

    /// What a codec says about itself.
    #[must_use]
    pub fn of_codec(tag: u16, value: &TagValue) -> Self {
        match value {
            TagValue::Short(values) => Self::shorts(tag, values),
            TagValue::Rational(pairs) => {
                let numbers: Vec<u32> = pairs.iter().flat_map(|(above, below)| [*above, *below]).collect();
                Self { kind: Kind::Rational, ..Self::longs(tag, &numbers) }
            }
        }
    }

    /// Number of values.
    #[must_use]
    pub fn count(&self) -> usize {
        self.value.len() / self.kind.bytes()
    }
}
