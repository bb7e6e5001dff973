//! The profile in the format of `pprof`: `profile.proto`, not compressed.
//!
//! The format has some thirty fields, of which eleven are needed, all of two kinds: numbers
//! and messages with a length. So it is written by hand.

use super::stacks::Stacks;

/// A protocol-buffers message under construction.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    /// A field with a number.
    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    /// A field with bytes: text, a message, or packed numbers.
    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn numbers(&mut self, field: u64, values: impl Iterator<Item = u64>) {
        let mut packed = Self::default();
        values.for_each(|value| packed.varint(value));
        self.bytes(field, &packed.0);
    }
}

/// The table of strings, of which the first is empty.
#[derive(Debug)]
struct Strings(Vec<String>);

impl Strings {
    fn add(&mut self, text: &str) -> u64 {
        self.0.push(String::from(text));
        self.0.len() as u64 - 1
    }
}

/// The kinds of figures in a sample, in its order.
const KINDS: [(&str, &str); 4] = [
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
];

/// The file. Field numbers are those of `profile.proto`.
pub(crate) fn encode(stacks: &Stacks) -> Vec<u8> {
    let mut profile = Message::default();
    let mut strings = Strings(vec![String::new()]);
    for (kind, unit) in KINDS {
        let value_type = value_type(&mut strings, kind, unit);
        profile.bytes(1, &value_type.0);
    }
    for (stack, figures) in stacks.sorted() {
        let mut sample = Message::default();
        sample.numbers(1, stack.iter().map(|&number| number as u64 + 1));
        let values = [
            figures.allocated_blocks,
            figures.allocated_bytes,
            figures.live_blocks,
            figures.live_bytes,
        ];
        sample.numbers(2, values.into_iter().map(rounded));
        profile.bytes(2, &sample.0);
    }
    for (id, frame) in (1..).zip(&stacks.frames) {
        let mut line = Message::default();
        line.number(1, id);
        line.number(2, u64::from(frame.line));
        let mut location = Message::default();
        location.number(1, id);
        location.bytes(4, &line.0);
        profile.bytes(4, &location.0);
        let mut function = Message::default();
        function.number(1, id);
        function.number(2, strings.add(&frame.function));
        function.number(4, strings.add(&frame.file));
        profile.bytes(5, &function.0);
    }
    let period_type = value_type(&mut strings, "space", "bytes");
    for text in &strings.0 {
        profile.bytes(6, text.as_bytes());
    }
    profile.bytes(11, &period_type.0);
    profile.number(12, stacks.mean_bytes);
    profile.0
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative; conversions from floats saturate"
)]
fn rounded(value: f64) -> u64 {
    value.round() as u64
}

fn value_type(strings: &mut Strings, kind: &str, unit: &str) -> Message {
    let mut message = Message::default();
    message.number(1, strings.add(kind));
    message.number(2, strings.add(unit));
    message
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A field: its number, and its value or bytes.
    pub(crate) enum Field<'a> {
        Number(u64, u64),
        Bytes(u64, &'a [u8]),
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (&byte, rest) = bytes.split_first().expect("a byte");
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    /// The fields of a message.
    pub(crate) fn fields(mut bytes: &[u8]) -> Vec<Field<'_>> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            if tag & 7 == 0 {
                found.push(Field::Number(tag >> 3, varint(&mut bytes)));
            } else {
                let len = usize::try_from(varint(&mut bytes)).expect("a length");
                let (value, rest) = bytes.split_at(len);
                bytes = rest;
                found.push(Field::Bytes(tag >> 3, value));
            }
        }
        found
    }

    #[test]
    fn the_file_has_the_kinds_samples_locations_and_strings() {
        let stacks = super::super::stacks::tests::stacks();
        let file = encode(&stacks);
        let count = |wanted: u64| {
            let all = fields(&file);
            all.iter()
                .filter(|field| matches!(field, Field::Bytes(number, _) if *number == wanted))
                .count()
        };
        assert_eq!([count(1), count(2), count(4), count(5)], [4, 2, 2, 2]);
        let strings: Vec<&[u8]> = fields(&file)
            .into_iter()
            .filter_map(|field| match field {
                Field::Bytes(6, text) => Some(text),
                _ => None,
            })
            .collect();
        assert!(strings[0].is_empty());
        assert!(strings.contains(&&b"such file+0x40f"[..]));
        let period = fields(&file).into_iter().find_map(|field| match field {
            Field::Number(12, value) => Some(value),
            _ => None,
        });
        assert_eq!(period, Some(1000));
    }
}
