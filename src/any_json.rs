//! For tests: JSON of any shape, out of the leaves and keys that a reader looks for.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

/// The leaves in lists and objects, up to four deep.
pub fn nested(
    leaf: impl Strategy<Value = Value> + 'static,
    keys: impl Strategy<Value = String> + Clone + 'static,
) -> impl Strategy<Value = Value> {
    leaf.prop_recursive(4, 64, 8, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec((keys.clone(), inner), 0..8).prop_map(|pairs| pairs.into_iter().collect()),
        ]
    })
}
