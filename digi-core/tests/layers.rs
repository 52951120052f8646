//! The suite over every channel layer of this crate.

use digi_core::layer::LocalLayer;

digi_core::layer_suite!(local, || async {
    let first = LocalLayer::new();
    [first.another_node(), first.another_node(), first]
});
