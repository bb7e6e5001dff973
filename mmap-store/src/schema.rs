//! What a table was created for: the options that its record keeps.

use core::fmt;

use crate::ids::Alignment;

/// Longest name of a key's or a value's type, so that a table's record stays in its leaf.
pub const MAX_TYPE_NAME_BYTES: usize = 240;

/// How the values of a compressed table are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// LZ4 blocks, by the feature `lz4`: fast both ways.
    Lz4,
    /// Zstandard frames, by the feature `zstd`: smaller, slower to write.
    Zstd,
}

/// What a table is created with and what it holds from then on: its record in the file
/// keeps the options, and opening it with others is an error.
///
/// The default is a plain table: bytes under bytes.
///
/// ```
/// use brickyard_store::{Options, TableOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Options::new().open_in_memory()?;
/// let vectors = TableOptions::new().alignment(64);
/// let mut write = store.write()?;
/// write.table_with("vectors", &vectors)?.put(b"k", b"v")?;
/// assert!(write.table_with("vectors", &TableOptions::new()).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct TableOptions {
    pub(crate) multi_map: bool,
    /// As asked for, and judged by [`TableOptions::alignment_checked`].
    alignment: usize,
    pub(crate) compression: Option<(Compression, u32)>,
    pub(crate) key_type: Box<str>,
    pub(crate) value_type: Box<str>,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            multi_map: false,
            alignment: 1,
            compression: None,
            key_type: Box::default(),
            value_type: Box::default(),
        }
    }
}

impl TableOptions {
    /// A plain table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where values start in memory: at multiples of `bytes`, a power of two from 1 (the
    /// default) to 4096. Up to 64 the values lie in leaves, with up to as many bytes
    /// between them; above 64 each has pages of its own.
    pub fn alignment(mut self, bytes: usize) -> Self {
        self.alignment = bytes;
        self
    }

    /// A name for what the keys are. At most [`MAX_TYPE_NAME_BYTES`].
    pub fn key_type(mut self, name: &str) -> Self {
        self.key_type = name.into();
        self
    }

    /// A name for what the values are. At most [`MAX_TYPE_NAME_BYTES`].
    pub fn value_type(mut self, name: &str) -> Self {
        self.value_type = name.into();
        self
    }

    /// Whether a key may have several values.
    pub fn is_multi_map(&self) -> bool {
        self.multi_map
    }

    /// What the addresses of values are multiples of.
    pub fn value_alignment(&self) -> usize {
        self.alignment
    }

    /// How values are compressed, and above how many bytes.
    pub fn value_compression(&self) -> Option<(Compression, u32)> {
        self.compression
    }

    /// What the keys are; empty for bytes.
    pub fn key_type_name(&self) -> &str {
        &self.key_type
    }

    /// What the values are; empty for bytes.
    pub fn value_type_name(&self) -> &str {
        &self.value_type
    }

    /// Whether the bytes of its entries are what the user put there.
    pub(crate) fn is_raw(&self) -> bool {
        !self.multi_map && self.compression.is_none()
    }

    /// Whether it is a plain table: its record keeps no options.
    pub(crate) fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// The alignment, if it is one.
    pub(crate) fn alignment_checked(&self) -> Option<Alignment> {
        Alignment::new(self.alignment)
    }

    /// What is wrong with them, if anything is.
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        if self.alignment_checked().is_none() {
            return Err("the alignment must be a power of two from 1 to 4096");
        }
        let longest = self.key_type.len().max(self.value_type.len());
        if longest > MAX_TYPE_NAME_BYTES {
            return Err("the name of a type must have at most 240 bytes");
        }
        if self.multi_map && (self.alignment > 1 || self.compression.is_some()) {
            return Err("the values of a multi-map are neither aligned nor compressed");
        }
        if self.compression.is_some() && self.alignment > 1 {
            return Err("compressed values are not aligned");
        }
        Ok(())
    }
}

impl fmt::Display for TableOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.multi_map { "multi-map" } else { "table" };
        let or_bytes = |name: &str| match name {
            "" => "bytes".to_owned(),
            named => format!("`{named}`"),
        };
        let (key, value) = (or_bytes(&self.key_type), or_bytes(&self.value_type));
        write!(f, "{kind} from {key} to {value}")?;
        if self.alignment > 1 {
            write!(f, ", values aligned to {} bytes", self.alignment)?;
        }
        if let Some((compression, threshold)) = self.compression {
            write!(f, ", {compression:?} above {threshold} bytes")?;
        }
        Ok(())
    }
}
