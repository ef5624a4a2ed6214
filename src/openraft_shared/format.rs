//! How values of openraft's become bytes.

use crate::BoxError;
#[cfg(feature = "postcard")]
use serde::{Serialize, de::DeserializeOwned};

/// How entries, votes and log ids are written as bytes. [`Postcard`] does it for whatever serde knows;
/// implement this for a type of your own to write them otherwise. Then no type needs serde: the features
/// `openraft-09-bare` and `openraft-010-bare` are the adapters without it.
///
/// What was written once must be read for as long as the log lives: a change of format, or of the types,
/// needs a version in the bytes.
///
/// What is handed to `encode` is decoded once from the bytes before they are accepted; a vote or log id must
/// come back equal, an entry with its log id.
///
/// ```
/// # #[cfg(feature = "openraft-010-bare")]
/// use raftwood::openraft_010::Format;
/// # #[cfg(not(feature = "openraft-010-bare"))]
/// # use raftwood::openraft_09::Format;
/// use raftwood::BoxError;
///
/// /// A version, then the text; one of these for entries, votes and log ids each.
/// struct Plain;
///
/// impl Format<String> for Plain {
///     fn encode(value: &String, out: &mut Vec<u8>) -> Result<(), BoxError> {
///         out.push(1);
///         out.extend_from_slice(value.as_bytes());
///         Ok(())
///     }
///
///     fn decode(bytes: &[u8]) -> Result<String, BoxError> {
///         match bytes {
///             [1, text @ ..] => Ok(String::from_utf8(text.to_vec())?),
///             _ => Err("a version that is not known here".into()),
///         }
///     }
/// }
///
/// # fn main() -> Result<(), BoxError> {
/// let mut bytes = Vec::new();
/// Plain::encode(&"set x 1".to_string(), &mut bytes)?;
/// assert_eq!(Plain::decode(&bytes)?, "set x 1");
/// # Ok(()) }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no format for `{T}`",
    note = "`Postcard` is one for what serde can read and write, with the feature `postcard` of raftwood",
    note = "for a format of your own implement `Format`, and use `LogStore::with_format`"
)]
pub trait Format<T>: Send + Sync + 'static {
    /// Adds the value's bytes to `out`, and changes nothing of what is there.
    ///
    /// # Errors
    /// What cannot be written; the append is then refused as a whole.
    fn encode(value: &T, out: &mut Vec<u8>) -> Result<(), BoxError>;

    /// The value that `encode` was given.
    ///
    /// # Errors
    /// Bytes that `encode` does not make. They are answered to openraft as damage.
    fn decode(bytes: &[u8]) -> Result<T, BoxError>;
}

/// Serde and [postcard](https://docs.rs/postcard): compact, not self-describing, its wire format is
/// specified and stable.
///
/// Types must be the same when they are read: a field that is added, removed or moved makes old bytes
/// unreadable, a variant may be added at the end of an enum. `#[serde(flatten)]`, `tag`, `untagged`
/// and `skip_serializing_if` do not work, nor does `serde_json::Value`: an entry that has them is
/// refused where it is appended.
///
/// It is a format with the feature `postcard` only, which `openraft-09` and `openraft-010` turn on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Postcard;

#[cfg(feature = "postcard")]
#[cfg_attr(docsrs, doc(cfg(feature = "postcard")))]
impl<T: Serialize + DeserializeOwned> Format<T> for Postcard {
    fn encode(value: &T, out: &mut Vec<u8>) -> Result<(), BoxError> {
        postcard::to_io(value, out)?;
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<T, BoxError> {
        match postcard::take_from_bytes(bytes)? {
            (value, []) => Ok(value),
            (_, rest) => Err(format!("{} bytes too many", rest.len()).into()),
        }
    }
}
