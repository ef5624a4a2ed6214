//! Formats that differ from postcard in one thing.

/// `as_postcard!(MyFormat: A, B)`: writes and reads these types as postcard does.
macro_rules! as_postcard {
    ($format:ty: $($type:ty),+) => {$(
        impl Format<$type> for $format {
            fn encode(value: &$type, out: &mut Vec<u8>) -> Result<(), BoxError> {
                Postcard::encode(value, out)
            }

            fn decode(bytes: &[u8]) -> Result<$type, BoxError> {
                Postcard::decode(bytes)
            }
        }
    )+};
}
