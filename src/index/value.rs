//! A hard state as it is kept.

/// What a region keeps of a hard state: a copy of its own, for a slice would keep all of its batch in memory.
/// Most are term, vote and commit in some encoding, and take no memory beyond the region's.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Short { len: u8, bytes: [u8; SHORT_MAX] },
    Long(Box<[u8]>),
}

const SHORT_MAX: usize = 30;

impl Value {
    /// Takes the place of a value, and of its memory where it can.
    pub(crate) fn set(&mut self, value: &[u8]) {
        match self {
            Value::Long(old) if old.len() == value.len() => old.copy_from_slice(value),
            other => *other = Value::from(value),
        }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Value::Short { len, bytes } => &bytes[..usize::from(*len)],
            Value::Long(bytes) => bytes,
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        if let Value::Long(bytes) = self { bytes.len() } else { 0 }
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Value {
        if value.len() > SHORT_MAX {
            return Value::Long(value.into());
        }
        let mut bytes = [0; SHORT_MAX];
        bytes[..value.len()].copy_from_slice(value);
        Value::Short { len: value.len() as u8, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_any_length_takes_the_place_of_any_other() {
        let values = [0, 1, SHORT_MAX, SHORT_MAX + 1, 1000].map(|len| vec![len as u8; len]);
        for before in &values {
            for after in &values {
                let mut value = Value::from(&before[..]);
                assert_eq!(value.as_slice(), before);
                value.set(after);
                assert_eq!(value.as_slice(), after);
                assert_eq!(value.heap_bytes(), if after.len() > SHORT_MAX { after.len() } else { 0 });
            }
        }
    }
}
